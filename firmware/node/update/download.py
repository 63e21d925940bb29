"""Bytes from the fleet's own listener into files: metadata, the manifest, and of a bundle what the node has not got yet.

What arrives is never trusted here: sizes are bounded before a byte is read, and whoever asked judges the hash.
"""

import hashlib
import os

from micropython import const

from node.errors import LinkError
from node.link import https
from node.update import Refused

MANIFEST = "/update/manifest"
NEWS = "/tuf/news"  # what came in one answer (news.py)
_ROOT = "/node/v1/tuf/"
_OK = const(200)
_PARTIAL = const(206)
_FORBIDDEN = const(403)
_MISSING = const(404)
# The radio goes off whatever happens; what has come by then should be on flash.
_RESERVE_MS = const(1_500)
_CHUNK = const(512)

# Made before the memory is in pieces.
buffer = memoryview(bytearray(_CHUNK))


class Fetcher:
    """One connection, opened when it is needed and again when the other side closes it. `gained`: bytes of bundles that came."""

    def __init__(self, link, clock, deadline):
        self._link = link
        self._clock = clock
        self._deadline = deadline
        self._connection = None  # type: https.Connection | None
        self.gained = 0

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def open(self):
        """Before anything else takes the memory that TLS needs to begin."""
        # Nothing that is fetched is secret: who the node is need not travel, and be signed for.
        self._connection = https.Connection(self._link, self._clock, self._deadline, False)
        return self._connection

    def metadata(self, name, limit, path):
        """Metadata file `name` into `path`; False when the listener has none. Raises Refused when it is longer than `limit`."""
        return self._whole("metadata/", name, limit, path)

    def target(self, name, limit, path):
        """A target, by its name with the hash in front."""
        return self._whole("targets/", name, limit, path)

    def packed(self, name, limit):
        """What comes packed (packed.py), in pieces that hold until the next one; None when the listener has none. Raises Refused when it is
        longer than `limit`.
        """
        length = self._begin(name, limit)
        return None if length is None else self._body(length)

    def pieces(self, bundle, first, last):
        """Bytes `first` to `last` of a bundle, in pieces that hold until the next one."""
        return self._part("targets/bundles/" + bundle, first, last, "bundle length")

    def image(self, sha256, first, last):
        """The same of an image, by its hash."""
        return self._part("targets/files/" + sha256, first, last, "image length")

    # --- private ---

    def _part(self, name, first, last, fault):
        status, length = self._get(name, first, last)
        if status != _PARTIAL:
            raise LinkError("https %d" % status)
        if length != last - first + 1:
            raise Refused(fault)
        for piece in self._body(length):
            self.gained += len(piece)
            yield piece

    def _whole(self, folder, name, limit, path):
        is_there = _take(name, limit, path)
        if is_there is not None:
            return is_there
        length = self._begin(folder + name, limit)
        if length is None:
            return False
        with open(path, "wb") as file:
            for piece in self._body(length):
                file.write(piece)
        return True

    def _begin(self, name, limit):
        """Length of a body, of which nothing is read yet; None when the listener has none."""
        status, length = self._get(name)
        if status in (_MISSING, _FORBIDDEN):
            self._pass_over(length)
            return None
        if status != _OK:
            raise LinkError("https %d" % status)
        if length > limit:
            raise Refused("endless data")
        return length

    def _get(self, name, first=None, last=None):
        if self._connection is not None and self._connection.is_reusable:
            try:
                return self._connection.get(_ROOT + name, first, last, self._deadline)
            except (OSError, LinkError):
                pass  # the other side may have grown tired of a connection that lay still
        self.close()
        return self.open().get(_ROOT + name, first, last, self._deadline)

    def _body(self, length):
        while length and self._connection is not None:
            piece = self._connection.read(length, self._deadline)
            length -= len(piece)
            yield piece
            if length and self._deadline.left_ms() < _RESERVE_MS:
                self.close()
                raise LinkError("radio time")

    def _pass_over(self, length):
        if length > _CHUNK:
            self.close()
        else:
            for _ in self._body(length):
                pass


def _take(name, limit, path):
    """Out of what is new: True, False when the listener has none such, None when it has to be asked."""
    new = NEWS + "/" + name.rpartition("/")[2]
    try:
        length = os.stat(new)[6]
    except OSError:
        return None
    if length > limit:
        raise Refused("endless data")
    if length:
        os.rename(new, path)
    return length > 0


def digest_of(path):
    """SHA-256 of a file and its length; (None, 0) when it is not there."""
    digest, length = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file:
            while True:
                count = file.readinto(buffer)
                if not count:
                    return digest, length
                digest.update(buffer[:count])
                length += count
    except OSError:
        return None, 0


def make_folders(path):
    """The folders that a file of this absolute path lies in."""
    at = path.find("/", 1)
    while at > 0:
        try:
            os.mkdir(path[:at])
        except OSError:
            pass
        at = path.find("/", at + 1)

"""A bundle in the spare slot: what the running slot has is copied, the rest is fetched, every file is hashed on its way.

Whenever the power goes, what lies in the spare slot under its own name is whole. `VERSION` is
written last and removed first: a slot with it is whole.

A file on its way is `/update/` and the begin of its hash.
"""

import binascii
import hashlib
import json
import os

from micropython import const

import slots
from node import plan
from node.errors import LinkError, Refused
from node.update import spare
from node.update.download import digest_of, make_folders

FOLDER = "/update"
MANIFEST = "manifest"
_COPY = "/update/copy"
_NAME_BYTES = const(8)
_BLOCK_BYTES = const(4_096)
# What littlefs takes for folders and while it renames, and what the spool needs until the next wake.
_MARGIN_BLOCKS = const(16)
_GAP_BYTES = const(256)  # sooner than another request


def fill(manifest, fetcher, state):
    """Every file of the manifest in the spare slot. Raises OSError or LinkError when the rest has to wait for another wake."""
    record = slots.select()
    slot, running = "/" + slots.spare_of(record), "/" + record.slot
    slots.note_spare(False)
    _remove(slot + "/VERSION")
    spare.keep_only(slot, [entry[0] for entry in manifest.files])
    blocks, places = _MARGIN_BLOCKS, []
    for place, (path, size, sha256) in enumerate(manifest.files):
        if not _is(slot + "/" + path, size, sha256):
            places.append(place)
            blocks += size // _BLOCK_BYTES + 1
    _check_room(blocks, state)
    fetched = []
    for place in places:
        path, size, sha256 = manifest.files[place]
        if _is(running + "/" + path, size, sha256):
            _copy(running + "/" + path, slot + "/" + path)
        else:
            fetched.append(place)
    _fetch(slot, manifest, fetched, fetcher)


def _check_room(blocks, state):
    """Raises Refused when so many blocks are not to be had; what the server has of the spool makes room for them."""
    if os.statvfs("/")[3] >= blocks:
        return
    from node.spool import Spool

    saved, state.spool = state.spool, None
    spool = Spool("/spool", saved)
    while os.statvfs("/")[3] < blocks:
        if not spool.give_up_stored():
            raise Refused("no room")
    state.spool = spool.saved()
    del spool
    plan.forget("node.spool")


def _fetch(slot, manifest, places, fetcher):
    bundle = manifest.bundle_sha256()
    starts, at = [], 0
    for entry in manifest.files:
        starts.append(at)
        at += entry[1]
    if places:
        spare.keep_only(FOLDER, (MANIFEST, _part_of(manifest.files[places[0]][2])))
    while places:
        # Neighbours come in one answer.
        run = [places[0]]
        for place in places[1:]:
            if starts[place] - starts[run[-1]] - manifest.files[run[-1]][1] > _GAP_BYTES:
                break
            run.append(place)
        _fetch_run(slot, manifest, run, starts, bundle, fetcher)
        places = places[len(run) :]


def finish(manifest, job):
    """The spare slot is whole, and says what it holds."""
    slot = "/" + slots.spare_of(slots.select())
    content = {
        "version": manifest.version,
        "counter": manifest.counter,
        "built_utc_s": manifest.built_utc_s,
        "sha256": manifest.bundle_sha256(),
        "assignment": job.assignment,
        "attempt": job.attempt,
    }
    with open(slot + "/VERSION.new", "w") as file:
        json.dump(content, file)
    os.rename(slot + "/VERSION.new", slot + "/VERSION")
    forget()


def forget():
    """Nothing of what is on its way."""
    spare.keep_only(FOLDER, ())


# --- private ---


def _fetch_run(slot, manifest, run, starts, bundle, fetcher):
    last = run[-1]
    end = starts[last] + manifest.files[last][1] - 1
    arriving = _Arriving(manifest.files[run[0]])
    at = starts[run[0]] + arriving.length
    pieces = _no_pieces() if at > end else fetcher.pieces(bundle, at, end)
    piece = memoryview(b"")
    try:
        for place in run:
            entry = manifest.files[place]
            if place != run[0]:
                arriving = _Arriving(entry)
                piece, at = _pass_over(starts[place] + arriving.length - at, piece, pieces, at)
            while arriving.wants:
                if not piece:
                    piece = next(pieces)
                count = min(arriving.wants, len(piece))
                arriving.write(piece[:count])
                piece, at = piece[count:], at + count
            arriving.put_at(slot + "/" + entry[0])
    except StopIteration:
        raise Refused("bundle length")
    finally:
        arriving.close()


def _pass_over(count, piece, pieces, at):
    """The piece and the place in the bundle after so many bytes that the node has already."""
    at += count
    while count:
        if not piece:
            piece = next(pieces)
        passed = min(count, len(piece))
        piece, count = piece[passed:], count - passed
    return piece, at


def _no_pieces():
    return iter(())


class _Arriving:
    """A file on its way, with as much of it as an earlier wake has brought."""

    def __init__(self, entry):
        _, self._size, self._sha256 = entry
        self._path = FOLDER + "/" + _part_of(self._sha256)
        self._digest, self.length = digest_of(self._path)
        if self.length > self._size:
            _remove(self._path)
            self.length = 0
        self._is_resumed = self.length > 0
        if not self._is_resumed:
            self._digest = hashlib.sha256()
            make_folders(self._path)
        self._file = open(self._path, "ab")

    @property
    def wants(self):
        """Bytes that have not come yet."""
        return self._size - self.length

    def write(self, piece):
        self._file.write(piece)
        self._digest.update(piece)
        self.length += len(piece)

    def put_at(self, path):
        """Whole, and what the manifest says; then it gets its name."""
        self.close()
        if self._digest.digest() != bytes(self._sha256):
            _remove(self._path)
            if self._is_resumed:
                raise LinkError("file hash")  # once more from its begin
            raise Refused("file hash")
        make_folders(path)
        os.rename(self._path, path)

    def close(self):
        """What has come is on flash."""
        self._file.close()


def _part_of(sha256):
    return str(binascii.hexlify(bytes(sha256)[:_NAME_BYTES]), "ascii")


def _is(path, size, sha256):
    try:
        is_as_long = os.stat(path)[6] == size
    except OSError:
        return False
    return is_as_long and digest_of(path)[0].digest() == bytes(sha256)


def _copy(source, target):
    make_folders(_COPY)
    buffer = memoryview(bytearray(512))
    with open(source, "rb") as reader, open(_COPY, "wb") as writer:
        while True:
            count = reader.readinto(buffer)
            if not count:
                break
            writer.write(buffer[:count])
    make_folders(target)
    os.rename(_COPY, target)


def _remove(path):
    try:
        os.remove(path)
    except OSError:
        pass

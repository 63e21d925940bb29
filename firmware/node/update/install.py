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
from node.errors import LinkError
from node.update import Refused, spare
from node.update.download import buffer, digest_of, make_folders
from node.update.manifest import MOST_FILES

FOLDER = "/update"
_MANIFEST = "manifest"
_COPY = "/update/copy"
_NAME_BYTES = const(8)
_BLOCK_BYTES = const(4_096)
# What littlefs takes for folders and while it renames, and what the spool needs until the next wake.
_MARGIN_BLOCKS = const(16)
# What packing may add to bytes that cannot be made less.
_MOST_PACKING = const(256)
_MARKS = const(2_048)


def fill(manifest, fetcher, unpacker, state):
    """Every file of the manifest in the spare slot. Raises OSError or LinkError when the rest has to wait for another wake."""
    record = slots.select()
    slot, running = "/" + slots.spare_of(record), "/" + record.slot
    spare.keep_only(slot, _wanted(manifest))
    blocks = _MARGIN_BLOCKS
    for path, size, sha256 in manifest.files():
        if not _is(slot + "/" + path, size, sha256):
            blocks += size // _BLOCK_BYTES + 1
    _check_room(blocks, state)
    for path, size, sha256 in manifest.files():
        if not _is(slot + "/" + path, size, sha256) and _is(running + "/" + path, size, sha256):
            _copy(running + "/" + path, slot + "/" + path)
    _fetch(slot, manifest, fetcher, unpacker)


def _wanted(manifest):
    """Whether the manifest names a path, without keeping 68 names: an old file may pass for wanted, by one chance in thirty, and costs
    a block then.
    """
    marks = bytearray(_MARKS // 8)

    def place(path):
        number = binascii.crc32(path.encode()) & (_MARKS - 1)
        return number >> 3, 1 << (number & 7)

    for path, _, _ in manifest.files():
        at, bit = place(path)
        marks[at] |= bit

    def is_wanted(path):
        at, bit = place(path)
        return bool(marks[at] & bit)

    return is_wanted


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
    spare.keep_only(FOLDER, lambda name: False)


# --- private ---


def _fetch(slot, manifest, fetcher, unpacker):
    """What the spare slot lacks, in one answer. A file that an earlier wake has begun is the first of them: they come in the same order."""
    missing = _Missing(slot, manifest)
    arriving = pieces = None
    piece = b""
    try:
        for path, size, sha256, _ in missing.files():
            if arriving is None:
                _forget_all_but(_part_of(sha256))
            arriving = _Arriving(size, sha256)
            if pieces is None:
                pieces = _pieces(missing, arriving.length, fetcher, unpacker)
            while arriving.wants:
                piece = piece or next(pieces)
                count = min(arriving.wants, len(piece))
                arriving.write(piece[:count])
                piece = piece[count:]
            arriving.put_at(slot + "/" + path)
    except StopIteration:
        raise Refused("bundle length")
    finally:
        if arriving is not None:
            arriving.close()


def _forget_all_but(part):
    kept = (_MANIFEST, part)
    spare.keep_only(FOLDER, lambda name: name in kept)


class _Missing:
    """Files of a manifest that a slot lacks, by marks: their names and hashes would take the memory that is wanted meanwhile."""

    def __init__(self, slot, manifest):
        self._manifest = manifest
        self.marks = bytearray(MOST_FILES // 8)
        self.size = number = 0
        for path, size, sha256 in manifest.files():
            if not _is(slot + "/" + path, size, sha256):
                self.marks[number >> 3] |= 0x80 >> (number & 7)
                self.size += size
            number += 1

    def files(self):
        """(path, bytes, SHA-256, begin in the bundle) of each."""
        at = number = 0
        for path, size, sha256 in self._manifest.files():
            if self.marks[number >> 3] & 0x80 >> (number & 7):
                yield path, size, sha256, at
            at += size
            number += 1

    def bundle(self):
        return self._manifest.bundle_sha256()


def _pieces(missing, have, fetcher, unpacker):
    """Their bytes but the first, of which so many are there: packed, or from a mirror that only has files one after the other."""
    size, bundle = missing.size - have, missing.bundle()
    if not size:
        return
    marks = str(binascii.hexlify(missing.marks), "ascii")
    name = "targets/bundles/%s/%s.%d" % (bundle, marks, have)
    packed = fetcher.packed(name, size + _MOST_PACKING)
    if packed is None:
        for _, size, _, at in missing.files():
            if size > have:
                yield from fetcher.pieces(bundle, at + have, at + size - 1)
            have = 0
        return
    try:
        for piece in unpacker.unpacked(packed):
            fetcher.gained += len(piece)
            yield piece
    except ValueError:
        raise Refused("file hash")


class _Arriving:
    """A file on its way, with as much of it as an earlier wake has brought."""

    def __init__(self, size, sha256):
        self._size = size
        self._sha256 = sha256
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

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

FOLDER = "/update"
MANIFEST = "manifest"
_COPY = "/update/copy"
_NAME_BYTES = const(8)
_BLOCK_BYTES = const(4_096)
# What littlefs takes for folders and while it renames, and what the spool needs until the next wake.
_MARGIN_BLOCKS = const(16)
# So many files in one answer at most: their names and hashes have to be kept meanwhile.
_MOST_IN_ONE = const(16)
_MARKS = const(2_048)


def fill(manifest, fetcher, state):
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
    _fetch(slot, manifest, fetcher)


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


def _fetch(slot, manifest, fetcher):
    bundle, at = manifest.bundle_sha256(), 0
    run, begin = [], 0  # neighbours, which come in one answer
    for path, size, sha256 in manifest.files():
        is_missing = not _is(slot + "/" + path, size, sha256)
        if is_missing:
            run.append((path, size, bytes(sha256)))
            begin = begin if len(run) > 1 else at
        if (run and not is_missing) or len(run) == _MOST_IN_ONE:
            _fetch_run(slot, run, begin, bundle, fetcher)
            run = []
        at += size
    if run:
        _fetch_run(slot, run, begin, bundle, fetcher)


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


def _fetch_run(slot, run, begin, bundle, fetcher):
    """These files, which lie one behind the other in the bundle from `begin` on."""
    end = begin + sum([size for _, size, _ in run]) - 1
    begun = (MANIFEST, _part_of(run[0][2]))
    spare.keep_only(FOLDER, lambda name: name in begun)
    arriving = _Arriving(run[0])
    pieces, piece = None, b""
    try:
        for entry in run:
            if entry is not run[0]:
                arriving = _Arriving(entry)
            while arriving.wants:
                if pieces is None:
                    pieces = fetcher.pieces(bundle, begin + arriving.length, end)
                if not piece:
                    piece = next(pieces)
                count = min(arriving.wants, len(piece))
                arriving.write(piece[:count])
                piece = piece[count:]
            arriving.put_at(slot + "/" + entry[0])
            if pieces is None:
                begin += entry[1]
    except StopIteration:
        raise Refused("bundle length")
    finally:
        arriving.close()


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

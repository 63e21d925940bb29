"""What a release is made of: the manifest, a CBOR map of at most 8 KiB, verified by TUF before anybody reads it here.

Everything in it is checked all the same: what the release keys have signed by mistake must not take the node's own files either.
"""

import hashlib
import sys

from micropython import const

from node import cbor

MOST_BYTES = const(8_192)
_FORMAT = const(1)
_IMAGE_FORMAT = const(2)  # with an image, which a node of before does not take
_ARRAY = const(4)
_MAP = const(5)
_MPY_FORMAT = const(0xFF)
_HASH_BYTES = const(32)
_MOST_FILE_BYTES = const(65_536)
MOST_FILES = const(120)


class Manifest:
    """Its fields. The files are read from flash whenever they are wanted: in memory they would take as much as a whole talk."""

    def __init__(self, path):
        """Raises ValueError with what is wrong with it, OSError when it cannot be read."""
        self._path = path
        self._n_files = self._files_at = 0
        try:
            fields = self._fields()
            self.version = fields["version"]
            self.counter = fields["counter"]
            self.models = fields["models"]
            self.mpy = fields["mpy"]
            self.micropython = tuple(fields["micropython"])
            self.built_utc_s = fields["built_utc_s"]
            self.allows_downgrade = fields["allow_downgrade"] is True
            self.image = _image(fields.get("image"))
            wanted = _IMAGE_FORMAT if self.image else _FORMAT
            is_right = fields["format"] == wanted and type(self.version) is str
            is_right = is_right and type(self.counter) is int and type(self.built_utc_s) is int
            self._check_files()
        except (ValueError, KeyError, TypeError):
            is_right = False
        if not is_right:
            raise ValueError("manifest malformed")

    def files(self):
        """(path in the slot, bytes, SHA-256) of each file, sorted by path."""
        with open(self._path, "rb") as file:
            reader = _Reader(file, self._files_at)
            for _ in range(self._n_files):
                yield tuple(reader.item(0))

    def _fields(self):
        """All but the files, of which the place is kept."""
        fields = {}
        with open(self._path, "rb") as file:
            reader = _Reader(file, 0)
            for _ in range(reader.count(_MAP)):
                key = reader.item(0)
                if key != "files":
                    fields[key] = reader.item(0)
                    continue
                self._n_files = reader.count(_ARRAY)
                self._files_at = reader.at
                for _ in range(self._n_files):
                    reader.item(0)
            if reader.at != reader.size:
                raise ValueError
        return fields

    def _check_files(self):
        before = ""
        for path, size, sha256 in self.files():
            if not _is_file(path, size, sha256) or path <= before:
                raise ValueError
            before = path
        if not before or self._n_files > MOST_FILES:
            raise ValueError

    def fault(self, model):
        """Why this node cannot run it; "" when it can."""
        if model not in self.models:
            return "wrong model"
        if self.mpy != sys.implementation._mpy & _MPY_FORMAT:
            return "mpy format"
        if not self.image and tuple(sys.implementation.version)[:3] < self.micropython:
            return "MicroPython too old"
        return ""

    def bundle_sha256(self):
        """By which the server knows what a slot runs (hex)."""
        digest = hashlib.sha256()
        for path, size, sha256 in self.files():
            digest.update(path.encode() + b"\0" + str(size).encode() + b"\0")
            digest.update(sha256)
        return digest.digest().hex()


class _Reader(cbor.Reader):
    """Item by item from a file."""

    def __init__(self, file, at):
        super().__init__(b"", at)
        self._file = file
        self.size = file.seek(0, 2)
        file.seek(at)

    def count(self, major):
        """Of what an array or a map holds, whose head comes next."""
        initial = self.take(1)[0]
        if initial >> 5 != major:
            raise ValueError
        return self.countable(self.argument(initial & 31))

    def countable(self, number):
        if number > self.size - self.at:
            raise ValueError
        return number

    def take(self, length):
        self.at += length
        if self.at > self.size:
            raise ValueError
        return self._file.read(length)


def _image(field):
    """(bytes, SHA-256 in hex) of the MicroPython that the release brings; None when it brings none."""
    if field is None:
        return None
    size, sha256, _ = field
    if type(size) is not int or size < 1 or len(sha256) != _HASH_BYTES:
        raise ValueError
    return size, bytes(sha256).hex()


def _is_file(path, size, sha256):
    """True for a module of the slot: never what has to work when a slot does not, never a way out of the slot."""
    if type(path) is not str or not path.startswith("node/") or not path.endswith(".mpy"):
        return False
    for part in path.split("/"):
        if not part or part[0] == "." or len(part) > 60:
            return False
    if type(size) is not int or not 0 <= size <= _MOST_FILE_BYTES:
        return False
    return len(sha256) == _HASH_BYTES

"""The manifest of a release for one node model: what a slot consists of (deterministic CBOR; keys in the order of `Manifest`).

It is the target that release keys sign. Boot files are never in it: they have to work when a slot does not. A release that also brings a whole
MicroPython has a manifest of format 2, with `image` at its end; a node that does not know how to take one refuses it as malformed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from fleet_server.wire import app_image, cbor
from fleet_server.wire.errors import WireError

FORMAT = 1
IMAGE_FORMAT = 2
MPY_FORMAT = 6
MOST_BYTES = 8 * 1024
MOST_NOTES_BYTES = 500
MOST_SLOT_BYTES = 120 * 1024
"""Of compiled files in one slot (docs/budgets.md)."""
MOST_FILE_BYTES = 64 * 1024
MOST_FILES = 120
TARGET_SUFFIX = ".cbor"

_U32 = 2**32 - 1
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")
_MODEL = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PATH = re.compile(r"node(/[A-Za-z0-9_]+)+\.mpy")
_MOST_PATH = 64
_KEYS = (
    "format", "version", "counter", "models", "mpy", "micropython", "built_utc_s", "allow_downgrade", "notes", "files",
)  # fmt: skip
_IMAGE_KEYS = (*_KEYS, "image")


@dataclass(frozen=True, order=True)
class BundleFile:
    """One file of a slot; `path` is relative to the slot, `sha256` the hash's 32 bytes."""

    path: str
    size_bytes: int
    sha256: bytes


@dataclass(frozen=True)
class Image:
    """A whole MicroPython: its app image (`wire.app_image`) by size and hash (32 bytes), and which version it is."""

    size_bytes: int
    sha256: bytes
    micropython: tuple[int, int, int]


@dataclass(frozen=True)
class Manifest:
    """`counter` grows with every release of a model; `micropython` is the lowest version that may run it, `image` the one that it brings."""

    version: str
    counter: int
    models: tuple[str, ...]
    micropython: tuple[int, int, int]
    built_utc_s: int
    files: tuple[BundleFile, ...]
    notes: str = ""
    allow_downgrade: bool = False
    mpy: int = MPY_FORMAT
    image: Image | None = None

    @property
    def bundle_sha256(self) -> str:
        return bundle_sha256(self.files)

    @property
    def size_bytes(self) -> int:
        """Of all files of the slot together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def file_hashes(self) -> set[str]:
        """Of all files that a node may ask for (hex), the image among them."""
        found = {file.sha256.hex() for file in self.files}
        return found if self.image is None else found | {self.image.sha256.hex()}


def bundle_sha256(files: Iterable[BundleFile]) -> str:
    """What a node says that it runs (hex): of every file's path, size and hash, so that no file has to be read for it.

    >>> bundle_sha256([BundleFile("node/cycle.mpy", 3, bytes(32))])
    'b9e3785be9e29580010635e73bd43d0aa3bfdcbc8d9d5badaea6ff0ffb31215a'
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.path}\0{file.size_bytes}\0".encode())
        digest.update(file.sha256)
    return digest.hexdigest()


def target_path(model: str, version: str) -> str:
    """What the manifest is called as a target.

    >>> target_path("tree-3", "0.7.0")
    'tree-3/0.7.0.cbor'
    """
    return f"{model}/{version}{TARGET_SUFFIX}"


def is_version(text: str) -> bool:
    """Whether a release can be called so."""
    return _VERSION.fullmatch(text) is not None and ".." not in text


def is_bundle_path(path: str) -> bool:
    """Whether a file of a slot can be called so: a module below `node`, so none of the boot files and nothing above the slot."""
    return len(path) <= _MOST_PATH and _PATH.fullmatch(path) is not None


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes that are signed.

    Raises:
        WireError: no node could take it; says why.
    """
    values: tuple[object, ...] = (
        FORMAT if manifest.image is None else IMAGE_FORMAT,
        manifest.version,
        manifest.counter,
        list(manifest.models),
        manifest.mpy,
        list(manifest.micropython),
        manifest.built_utc_s,
        manifest.allow_downgrade,
        manifest.notes,
        [[file.path, file.size_bytes, file.sha256] for file in manifest.files],
    )
    keys: tuple[str, ...] = _KEYS
    if manifest.image is not None:
        image = manifest.image
        keys = _IMAGE_KEYS
        values += ([image.size_bytes, image.sha256, list(image.micropython)],)
    data = cbor.map_head(len(keys)) + b"".join(
        cbor.encode(key) + cbor.encode(value) for key, value in zip(keys, values, strict=True)
    )
    _check(manifest, len(data))
    return data


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest. Safe for any bytes.

    Raises:
        WireError: it is none, says something that cannot be, or is spelt otherwise than `encode_manifest` does.
    """
    if len(data) > MOST_BYTES:
        _refuse(f"has {len(data)} bytes; at most {MOST_BYTES} are allowed")
    content = cbor.decode_only(data)
    if not isinstance(content, dict) or tuple(content) not in (_KEYS, _IMAGE_KEYS):
        _refuse(f"is no map of {', '.join(_KEYS)}, in this order")
    wanted = IMAGE_FORMAT if "image" in content else FORMAT
    if content["format"] != wanted:
        _refuse(f"is of format {content['format']!r}, not {wanted}")
    manifest = _manifest(content)
    if encode_manifest(manifest) != data:
        _refuse("is not spelt as it has to be")
    return manifest


def _manifest(content: dict[str, Any]) -> Manifest:
    for key, kind in _KINDS.items():
        if type(content[key]) is not kind:
            _refuse(f"has no possible {key}")
    if not all(type(model) is str for model in content["models"]):
        _refuse("has no possible models")
    if not _is_version_list(content["micropython"]):
        _refuse("has no possible micropython")
    for entry in content["files"]:
        if type(entry) is not list or [type(part) for part in entry] != [str, int, bytes]:
            _refuse("has an entry of files that is no path, size and hash")
    return Manifest(
        version=content["version"],
        counter=content["counter"],
        models=tuple(content["models"]),
        mpy=content["mpy"],
        micropython=tuple(content["micropython"]),
        built_utc_s=content["built_utc_s"],
        allow_downgrade=content["allow_downgrade"],
        notes=content["notes"],
        files=tuple(BundleFile(*entry) for entry in content["files"]),
        image=_image(content["image"]) if "image" in content else None,
    )


def _image(entry: object) -> Image:
    if type(entry) is not list or [type(part) for part in entry] != [int, bytes, list]:
        _refuse("has an image that is no size, hash and version")
    size_bytes, sha256, version = entry
    if not _is_version_list(version):
        _refuse("has an image that is no MicroPython version")
    return Image(size_bytes, sha256, tuple(version))


def _is_version_list(value: list[Any]) -> bool:
    return [type(part) for part in value] == [int, int, int]


_KINDS: dict[str, type] = {
    "version": str, "counter": int, "models": list, "mpy": int, "micropython": list, "built_utc_s": int,
    "allow_downgrade": bool, "notes": str, "files": list,
}  # fmt: skip


def _check(manifest: Manifest, length: int) -> None:
    """Everything a node checks again before it takes a single file."""
    if not is_version(manifest.version):
        _refuse(f"has a version that is none: {manifest.version!r}")
    if not 1 <= manifest.counter <= _U32:
        _refuse("has a counter that is not from 1 to 2³² − 1")
    if not manifest.models or not all(_MODEL.fullmatch(model) for model in manifest.models):
        _refuse("names no node model, or one that cannot be")
    if manifest.mpy != MPY_FORMAT:
        _refuse(f"is for .mpy format {manifest.mpy}; nodes run {MPY_FORMAT}")
    if not all(0 <= part < 1000 for part in manifest.micropython):
        _refuse("has a MicroPython version that is none")
    if not 0 <= manifest.built_utc_s <= _U32:
        _refuse("has a build date that no node can hold")
    if len(manifest.notes.encode()) > MOST_NOTES_BYTES:
        _refuse(f"has notes of more than {MOST_NOTES_BYTES} bytes")
    if any(letter < " " and letter != "\n" for letter in manifest.notes):
        _refuse("has notes with signs that cannot be printed")
    _check_files(manifest)
    if manifest.image is not None:
        _check_image(manifest.image, manifest.micropython)
    if length > MOST_BYTES:
        _refuse(f"has {length} bytes; at most {MOST_BYTES} are allowed")


def _check_files(manifest: Manifest) -> None:
    if not manifest.files:
        _refuse("names no file")
    for file in manifest.files:
        if not is_bundle_path(file.path):
            _refuse(f"names a file that may not be in a bundle: {file.path!r}")
        if not 0 <= file.size_bytes <= MOST_FILE_BYTES or len(file.sha256) != 32:
            _refuse(f"has no possible size or hash of {file.path}")
    if len(manifest.files) > MOST_FILES:
        _refuse(f"names {len(manifest.files)} files; a node takes {MOST_FILES}")
    paths = [file.path for file in manifest.files]
    if paths != sorted(set(paths)):
        _refuse("does not name its files sorted and once each")
    if manifest.size_bytes > MOST_SLOT_BYTES:
        _refuse(f"comes to {manifest.size_bytes} bytes; a slot holds {MOST_SLOT_BYTES}")


def _check_image(image: Image, lowest: tuple[int, int, int]) -> None:
    if not 0 < image.size_bytes <= app_image.MOST_BYTES or len(image.sha256) != 32:
        _refuse(f"has no possible image; an app partition holds {app_image.MOST_BYTES} bytes")
    if not all(0 <= part < 1000 for part in image.micropython):
        _refuse("has an image that is no MicroPython version")
    if image.micropython < lowest:
        brought, needed = app_image.dotted(image.micropython), app_image.dotted(lowest)
        _refuse(f"brings MicroPython {brought}, but its files need {needed}")


def _refuse(why: str) -> NoReturn:
    raise WireError("manifest_wrong", f"The manifest {why}.")

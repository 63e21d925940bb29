"""A whole MicroPython as an ESP32 starts it from an app partition: read from its bytes, nothing is believed that can be checked.

ESP-IDF, "App Image Format" (API guides): a header of 24 bytes, segments with a head of 8 bytes each, padding, one byte that is the XOR of
all segments' bytes and 0xEF, and the SHA-256 of all that. What goes on after that is no app alone: MicroPython's `.bin` begins
with a boot loader, its `.app-bin` is the app.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NoReturn

from fleet_server.wire.errors import WireError

MOST_BYTES = 0x180000
"""Of an app partition, in the layout of MicroPython's ESP32_GENERIC-OTA (hardware/virtual_board/flash.py has it as a table)."""
CHIP_IDS: Mapping[str, int] = MappingProxyType({"esp32": 0, "esp32s3": 9, "esp32c3": 5})
"""By the names of our board files; the numbers are ESP-IDF's `esp_chip_id_t`."""

Version = tuple[int, int, int]

_MAGIC = 0xE9
_HEADER = struct.Struct("<BBBBIB3sHBHH4sB")
_SEGMENT = struct.Struct("<II")
_CHECKSUM_SEED = 0xEF
_ALIGNMENT = 16
_HASH_BYTES = 32
_MOST_SEGMENTS = 16  # ESP_IMAGE_MAX_SEGMENTS
# The banner of its prompt (py/modsys.c), which every MicroPython holds as text.
_BANNER = re.compile(
    rb"MicroPython v(\d{1,3})\.(\d{1,3})\.(\d{1,3})[^\0\n]{0,48}? on \d{4}-\d\d-\d\d"
)


@dataclass(frozen=True)
class AppImage:
    """For which chip it is, and which MicroPython."""

    chip_id: int
    micropython: Version


def read_image(data: bytes) -> AppImage:
    """Read an image to its last byte. Safe for any bytes.

    Raises:
        WireError: a node could not start it, or it is no MicroPython; says why.
    """
    if len(data) > MOST_BYTES:
        _refuse(f"has {len(data)} bytes; a node's app partition holds {MOST_BYTES}")
    if len(data) < _HEADER.size or data[0] != _MAGIC:
        _refuse("does not begin as the image of an ESP32 does; take the .app-bin file")
    fields = _HEADER.unpack_from(data)
    segments, chip_id, has_hash = fields[1], fields[7], fields[12]
    at, checksum = _walk(data, segments)
    if data[at - 1] != checksum:
        _refuse("is damaged: its checksum is another; load it again")
    if has_hash != 1:
        _refuse("has no hash of its own at the end, as MicroPython's images have")
    if len(data) < at + _HASH_BYTES:
        _refuse("ends too early; load it again")
    if data[at : at + _HASH_BYTES] != hashlib.sha256(data[:at]).digest():
        _refuse("is damaged: its hash is another; load it again")
    if len(data) != at + _HASH_BYTES:
        _refuse("goes on after the image's end; take the .app-bin file, without boot loader")
    return AppImage(chip_id, _version(data))


def check_image(data: bytes, *, chip: str, micropython: Version | None = None) -> AppImage:
    """The image, held to what it has to be.

    Args:
        chip: as our board files name it.
        micropython: what it says to be; None: whatever it is.

    Raises:
        WireError: it is for another chip, is another MicroPython, or cannot be read.
    """
    image = read_image(data)
    if CHIP_IDS.get(chip) != image.chip_id:
        names = {number: name for name, number in CHIP_IDS.items()}
        other = names.get(image.chip_id, f"chip {image.chip_id}")
        _refuse(f"is for {other}; this node model has an {chip}")
    if micropython is not None and micropython != image.micropython:
        _refuse(f"is MicroPython {dotted(image.micropython)}, not {dotted(micropython)}")
    return image


def dotted(version: Version) -> str:
    """A version as nodes and people write it.

    >>> dotted((1, 28, 0))
    '1.28.0'
    """
    return ".".join(map(str, version))


def _walk(data: bytes, segments: int) -> tuple[int, int]:
    """(where the checksum ends, what it has to be)."""
    if not 1 <= segments <= _MOST_SEGMENTS:
        _refuse(f"has {segments} segments; an image has 1 to {_MOST_SEGMENTS}")
    at, checksum = _HEADER.size, _CHECKSUM_SEED
    for _ in range(segments):
        if at + _SEGMENT.size > len(data):
            _refuse("ends too early; load it again")
        _, length = _SEGMENT.unpack_from(data, at)
        at += _SEGMENT.size
        if at + length > len(data):
            _refuse("ends too early; load it again")
        checksum ^= _xor(data[at : at + length])
        at += length
    at += -(at + 1) % _ALIGNMENT + 1
    if at > len(data):
        _refuse("ends too early; load it again")
    return at, checksum


def _xor(data: bytes) -> int:
    """All bytes by exclusive or: halves on each other, so that a megabyte takes no time."""
    width = 1 << max(0, (len(data) - 1).bit_length())
    number = int.from_bytes(data, "little")
    while width > 1:
        width //= 2
        number = (number >> (8 * width)) ^ (number & ((1 << (8 * width)) - 1))
    return number


def _version(data: bytes) -> Version:
    found = {tuple(map(int, match.groups())) for match in _BANNER.finditer(data)}
    if len(found) != 1:
        _refuse("is no MicroPython: its name and version are not in it")
    major, minor, micro = found.pop()
    return major, minor, micro


def _refuse(why: str) -> NoReturn:
    raise WireError("image_wrong", f"The MicroPython image {why}.")

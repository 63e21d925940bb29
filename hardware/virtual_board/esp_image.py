"""Images as an ESP32 boots them, by Espressif's "Firmware Image Format" (documentation of esptool, version 5).

The board's MicroPython is not in its flash: the machine comes from `vm_module.py`. What lies at the boot address is a
token that says that MicroPython was flashed. It is a whole image all the same, so that tools that look at header,
chip, checksum and hash take it, and `is_bootable` asks only what the ROM asks first.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import re
import struct

BOOT_ADDRESS = 0x1000  # of an ESP32's second-stage boot loader
_MAGIC = 0xE9
_HEADER = struct.Struct("<BBBBI")  # magic, segments, flash mode, flash size and frequency, entry
# write-protect pin, drive settings, chip, three revisions, reserved, whether a hash follows
_EXTENDED_HEADER = struct.Struct("<B3sHBHH4sB")
_SEGMENT = struct.Struct("<II")  # load address, length
_CHECKSUM_SEED = 0xEF
_CHECKSUM_ALIGNMENT = 16
_MODE_DIO = 2
_SIZE_4MB_AT_40MHZ = 0x20
_NO_WRITE_PROTECT_PIN = 0xEE
_ANY_REVISION = 0xFFFF
_DATA_RAM = 0x3FFB0000
# MicroPython's banner (py/modsys.c), and what this board takes for code that panics.
_BANNER = re.compile(rb"MicroPython v(\d+)\.(\d+)\.(\d+)[^\0\n]* on \d{4}-\d\d-\d\d")
_PANICS = b"panics at its start\0"


def token_image(content: bytes = b"MicroPython of the virtual board", *, chip_id: int = 0) -> bytes:
    """An image with one segment that holds `content`; `chip_id` 0 is the ESP32."""
    segment = content + bytes(-len(content) % 4)
    image = _HEADER.pack(_MAGIC, 1, _MODE_DIO, _SIZE_4MB_AT_40MHZ, _DATA_RAM)
    image += _EXTENDED_HEADER.pack(
        _NO_WRITE_PROTECT_PIN, bytes(3), chip_id, 0, 0, _ANY_REVISION, bytes(4), True
    )
    image += _SEGMENT.pack(_DATA_RAM, len(segment)) + segment
    image += bytes(-(len(image) + 1) % _CHECKSUM_ALIGNMENT)
    image += bytes([functools.reduce(operator.xor, segment, _CHECKSUM_SEED)])
    return image + hashlib.sha256(image).digest()


def micropython(
    version: str, *, comes_up: bool = True, chip_id: int = 0, more: bytes = b""
) -> bytes:
    """An image that the board takes for that MicroPython, of which it holds the banner; else it panics before the first line of Python."""
    content = f"MicroPython v{version} on 2026-01-01\0".encode() + more
    return token_image(content if comes_up else content + _PANICS, chip_id=chip_id)


def version_in(image: bytes) -> tuple[int, ...] | None:
    """Which MicroPython an image is; None when it holds no banner: then it is the machine's own."""
    match = _BANNER.search(image)
    return None if match is None else tuple(map(int, match.groups()))


def panics(image: bytes) -> bool:
    """Whether it resets before the first line of Python."""
    return _PANICS in image


def is_app(header: bytes, *, chip_id: int = 0) -> bool:
    """Whether a boot loader would start what begins like this: magic and chip (`esp_image_verify`)."""
    return header[:1] == bytes([_MAGIC]) and header[12:14] == chip_id.to_bytes(2, "little")


def is_bootable(first_byte: bytes) -> bool:
    """Whether the ROM would start what begins like this at the boot address."""
    return first_byte == bytes([_MAGIC])

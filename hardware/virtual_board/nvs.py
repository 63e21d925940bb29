"""The board's non-volatile storage: small values by namespace and key, safe against power loss.

The partition holds two halves of 8 KiB. One is live: a header with a generation, then records that are only
ever appended (the last of a key counts, a tombstone erases it). When it is full, the living records are copied
to the other half and that half's header is written last. A record or header cut short fails its CRC and
does not exist. Not Espressif's format: nothing but the board reads it.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from hardware.virtual_board.flash import SECTOR_BYTES, PowerCut, region

if TYPE_CHECKING:
    from hardware.virtual_board.flash import Flash

_HEADER = struct.Struct("<4sII")  # magic, generation, CRC-32
_RECORD = struct.Struct("<BBBBHI")  # magic, type, length of namespace, of key, of value, CRC-32
_MAGIC = b"NVB1"
_RECORD_MAGIC = 0x5A
_TOMBSTONE, _BLOB, _I32 = 0, 1, 2

# ESP-IDF's numbers, as `OSError.errno` on the node (negative).
NOT_FOUND = -0x1102
INVALID_LENGTH = -0x110C
NO_SPACE = -0x1105
VALUE_TOO_LONG = -0x110E
KEY_TOO_LONG = -0x1109

_LONGEST_NAME = 15
_LONGEST_VALUE = 4000  # ESP-IDF allows a blob almost a page


class Nvs:
    """The store, read from flash when it is made. Raises OSError with ESP-IDF's numbers."""

    def __init__(self, flash: Flash) -> None:
        self._flash = flash
        self._start = region("nvs").offset
        self._half_bytes = region("nvs").size // 2
        self._values: dict[tuple[str, str], tuple[int, bytes]] = {}
        generations = [self._generation(0), self._generation(1)]
        self._generation_now = max(generations)
        self._live = generations.index(self._generation_now)
        self._end = _HEADER.size
        if self._generation_now:
            self._read_half()
        else:
            self._begin_half(0, generation=1)

    def blob(self, namespace: str, key: str) -> bytes:
        """The blob's bytes."""
        return self._get(namespace, key, _BLOB)

    def i32(self, namespace: str, key: str) -> int:
        """The signed 32-bit number."""
        return int(struct.unpack("<i", self._get(namespace, key, _I32))[0])

    def set_blob(self, namespace: str, key: str, value: bytes) -> None:
        """On return the value is on flash."""
        self._set(namespace, key, _BLOB, value)

    def set_i32(self, namespace: str, key: str, value: int) -> None:
        """On return the value is on flash."""
        self._set(namespace, key, _I32, struct.pack("<i", value))

    def erase(self, namespace: str, key: str) -> None:
        """On return the key is gone from flash."""
        if (namespace, key) not in self._values:
            raise OSError(NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")
        self._set(namespace, key, _TOMBSTONE, b"")

    def _get(self, namespace: str, key: str, kind: int) -> bytes:
        found = self._values.get((namespace, key))
        if found is None or found[0] != kind:
            raise OSError(NOT_FOUND, "ESP_ERR_NVS_NOT_FOUND")
        return found[1]

    def _set(self, namespace: str, key: str, kind: int, value: bytes) -> None:
        if max(len(namespace.encode()), len(key.encode())) > _LONGEST_NAME:
            raise OSError(KEY_TOO_LONG, "ESP_ERR_NVS_KEY_TOO_LONG")
        if len(value) > _LONGEST_VALUE:
            raise OSError(VALUE_TOO_LONG, "ESP_ERR_NVS_VALUE_TOO_LONG")
        if self._values.get((namespace, key)) == (kind, value):
            return  # ESP-IDF, too, writes nothing when nothing changes
        record = _record(namespace, key, kind, value)
        if self._end + len(record) > self._half_bytes:
            self._move_to_other_half(without=(namespace, key))
            if self._end + len(record) > self._half_bytes:
                raise OSError(NO_SPACE, "ESP_ERR_NVS_NOT_ENOUGH_SPACE")
        self._append(record)
        self._remember(namespace, key, kind, value)

    def _remember(self, namespace: str, key: str, kind: int, value: bytes) -> None:
        if kind == _TOMBSTONE:
            self._values.pop((namespace, key), None)
        else:
            self._values[namespace, key] = (kind, value)

    def _append(self, record: bytes) -> None:
        at = self._half_start(self._live) + self._end
        self._end += len(record)
        if not self._flash.program(at, record):
            raise PowerCut

    def _half_start(self, half: int) -> int:
        return self._start + half * self._half_bytes

    def _generation(self, half: int) -> int:
        raw = self._flash.read(self._half_start(half), _HEADER.size)
        magic, generation, crc = _HEADER.unpack(raw)
        intact = magic == _MAGIC and crc == zlib.crc32(raw[:8])
        return int(generation) if intact else 0

    def _begin_half(self, half: int, *, generation: int, content: bytes = b"") -> None:
        start = self._half_start(half)
        for sector in range(start, start + self._half_bytes, SECTOR_BYTES):
            if not self._flash.erase(sector):
                raise PowerCut
        if content and not self._flash.program(start + _HEADER.size, content):
            raise PowerCut
        head = struct.pack("<4sI", _MAGIC, generation)
        if not self._flash.program(start, head + struct.pack("<I", zlib.crc32(head))):
            raise PowerCut
        self._live, self._generation_now = half, generation
        self._end = _HEADER.size + len(content)

    def _move_to_other_half(self, *, without: tuple[str, str]) -> None:
        # The old value of the key about to be written is kept: a cut before its new record must not
        # lose it. Only when that would not fit is there no room.
        content = b"".join(
            _record(name, key, kind, value) for (name, key), (kind, value) in self._values.items()
        )
        if _HEADER.size + len(content) > self._half_bytes:
            raise OSError(NO_SPACE, f"no room for {without[1]}")
        self._begin_half(1 - self._live, generation=self._generation_now + 1, content=content)

    def _read_half(self) -> None:
        raw = self._flash.read(self._half_start(self._live), self._half_bytes)
        while self._end + _RECORD.size <= len(raw):
            magic, kind, name_size, key_size, size, crc = _RECORD.unpack_from(raw, self._end)
            if magic != _RECORD_MAGIC:
                break
            start = self._end + _RECORD.size
            body = raw[start : start + name_size + key_size + size]
            if crc != zlib.crc32(raw[self._end : self._end + 6] + body):
                # Torn by a power cut. What follows is no longer erased: continue on the other half.
                self._move_to_other_half(without=("", ""))
                return
            name, key = body[:name_size].decode(), body[name_size : name_size + key_size].decode()
            self._remember(name, key, kind, body[name_size + key_size :])
            self._end = start + len(body)


def _record(namespace: str, key: str, kind: int, value: bytes) -> bytes:
    name, key_bytes = namespace.encode(), key.encode()
    head = struct.pack("<BBBBH", _RECORD_MAGIC, kind, len(name), len(key_bytes), len(value))
    body = name + key_bytes + value
    return head + struct.pack("<I", zlib.crc32(head + body)) + body

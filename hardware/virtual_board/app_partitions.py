"""The two partitions of an ESP32 that hold MicroPython, and which of them the boot loader starts.

By ESP-IDF's "Over The Air Updates" (esp_ota_ops, app roll-back): `otadata` holds two entries of 32 bytes, each in a sector of its own:
sequence u32, 20 bytes of label, state u32, CRC-32 of the sequence. The valid one with the higher sequence names the partition
(sequence − 1) mod 2. A new image is started once as "pending"; is it still pending at the next reset, it is given up.

The board's machine is not in its flash: whichever is started runs the same MicroPython, but says that it is the version whose banner the
image holds. What begins as no image of an ESP32 is not started; what panics resets at once.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from hardware.virtual_board.esp_image import is_app, panics, version_in
from hardware.virtual_board.flash import SECTOR_BYTES, PowerCut, Region, region

if TYPE_CHECKING:
    from collections.abc import Callable

    from hardware.virtual_board.flash import Flash

APPS = ("ota_0", "ota_1")
_ENTRY = struct.Struct("<I20sII")
_NEW, _PENDING, _VALID, _ABORTED = 0, 1, 2, 4


class AppPartitions:
    """What the boot loader and `esp32.Partition` make of a chip."""

    def __init__(self, flash: Flash) -> None:
        self._flash = flash
        self._otadata = region("otadata")
        self.running = APPS[0]

    def boot(self) -> str:
        """What the boot loader does at a reset: the partition that is started."""
        chosen = self._chosen()
        if chosen is None:
            self.running = APPS[0]
            return self.running
        place, sequence, state = chosen
        if state == _PENDING or not self._is_image(APPS[(sequence - 1) % 2]):
            self._write(place, sequence, _ABORTED)
            return self.boot()
        if state == _NEW:
            self._write(place, sequence, _PENDING)
        self.running = APPS[(sequence - 1) % 2]
        if state == _NEW and panics(self._content()):
            return self.boot()
        return self.running

    def version(self) -> tuple[int, ...] | None:
        """Which MicroPython was started; None: the machine's own."""
        return None if self._chosen() is None else version_in(self._content())

    def select(self, label: str) -> None:
        """Start another one from the next reset on. Raises OSError: it holds no image."""
        if not self._is_image(label):
            raise OSError(-0x1503, "ESP_ERR_OTA_VALIDATE_FAILED")
        sequences = [sequence for sequence, _ in self._entries() if sequence]
        sequence = max(sequences, default=0) + 1
        if (sequence - 1) % 2 != APPS.index(label):
            sequence += 1
        places = [place for place, (known, _) in enumerate(self._entries()) if not known]
        older = 0 if self._entries()[0][0] <= self._entries()[1][0] else 1
        self._write(places[0] if places else older, sequence, _NEW)

    def keep(self) -> None:
        """The running one works: it is started from now on."""
        chosen = self._chosen()
        if chosen is not None and chosen[2] == _PENDING:
            self._write(chosen[0], chosen[1], _VALID)

    def operations(
        self, memory: Callable[[int, int], memoryview]
    ) -> dict[str, Callable[[str], str | int | None]]:
        """Host calls of the machine's `esp32.Partition`; `memory` is a window on its memory."""

        def read(payload: str) -> None:
            label, offset, address, size = _parts(payload)
            memory(address, size)[:] = self._flash.read(_place(label, offset, size), size)

        def write(payload: str) -> None:
            label, offset, address, size = _parts(payload)
            if not self._flash.program(_place(label, offset, size), bytes(memory(address, size))):
                raise PowerCut

        def erase(payload: str) -> None:
            label, offset, _, _ = _parts(payload + " 0 0")
            if not self._flash.erase(_place(label, offset, SECTOR_BYTES)):
                raise PowerCut

        return {
            "app_running": lambda _: self.running,
            "app_boot": self.select,
            "app_keep": lambda _: self.keep(),
            "app_read": read,
            "app_write": write,
            "app_erase": erase,
        }

    def _is_image(self, label: str) -> bool:
        # The first one's image lies where esptool writes it on boards of one partition (flash.py).
        return label == APPS[0] or is_app(self._flash.read(region(label).offset, 16))

    def _content(self) -> bytes:
        part = region(self.running)
        return self._flash.read(part.offset, part.size)

    def _chosen(self) -> tuple[int, int, int] | None:
        """(place, sequence, state) of the entry that counts; None when there is none."""
        entries = [
            (place, sequence, state)
            for place, (sequence, state) in enumerate(self._entries())
            if sequence and state != _ABORTED
        ]
        return max(entries, key=lambda entry: entry[1], default=None)

    def _entries(self) -> list[tuple[int, int]]:
        """(sequence, state) of both; sequence 0 for one that is empty or damaged."""
        found = []
        for place in range(2):
            raw = self._flash.read(self._otadata.offset + place * SECTOR_BYTES, _ENTRY.size)
            sequence, _, state, crc = _ENTRY.unpack(raw)
            is_whole = crc == zlib.crc32(raw[:4], 0xFFFFFFFF) & 0xFFFFFFFF
            found.append((sequence, state) if is_whole and sequence != 0xFFFFFFFF else (0, 0))
        return found

    def _write(self, place: int, sequence: int, state: int) -> None:
        start = self._otadata.offset + place * SECTOR_BYTES
        raw = struct.pack("<I", sequence)
        entry = _ENTRY.pack(sequence, b"\xff" * 20, state, zlib.crc32(raw, 0xFFFFFFFF) & 0xFFFFFFFF)
        if not self._flash.erase(start) or not self._flash.program(start, entry):
            raise PowerCut


def _parts(payload: str) -> tuple[str, int, int, int]:
    label, offset, address, size = payload.split()
    return label, int(offset), int(address), int(size)


def _place(label: str, offset: int, size: int) -> int:
    part: Region = region(label)
    if label not in APPS or offset < 0 or offset + size > part.size:
        raise OSError(22, "outside of the partition")
    return part.offset + offset

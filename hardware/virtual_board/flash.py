"""The board's 4 MiB flash: one file, with a partition table, NVS, two app partitions and littlefs.

The file is the chip's image byte for byte, except that what was never erased is a hole (zeros) and takes
no disk. Every program and erase goes straight to the file (`pwrite`): a killed process leaves what a power
cut at that operation would. `fsync` is not used: the board survives kill -9, not its computer's power cut.

`PowerCut` ends a run at a chosen operation; nothing after it reaches the flash.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hardware.virtual_board.esp_image import BOOT_ADDRESS, token_image

FLASH_BYTES = 4 << 20
SECTOR_BYTES = 4096
_TABLE_AT = 0x8000


@dataclass(frozen=True)
class Region:
    """One partition: ESP-IDF type and subtype, place and size in bytes."""

    label: str
    kind: int
    subtype: int
    offset: int
    size: int


# Espressif's two-OTA layout for 4 MiB as MicroPython's ESP32_GENERIC-OTA image has it.
PARTITIONS = (
    Region("nvs", 1, 2, 0x9000, 0x4000),
    Region("otadata", 1, 0, 0xD000, 0x2000),
    Region("phy_init", 1, 1, 0xF000, 0x1000),
    Region("ota_0", 0, 0x10, 0x10000, 0x180000),
    Region("ota_1", 0, 0x11, 0x190000, 0x180000),
    Region("vfs", 1, 0x81, 0x310000, 0xF0000),
)


def region(label: str) -> Region:
    """The partition of that name."""
    return next(part for part in PARTITIONS if part.label == label)


class PowerCut(Exception):
    """The supply failed at a chosen flash operation."""


@dataclass
class PowerCutPlan:
    """Cut the power at the `at_operation`-th program or erase (from 1) after this plan is set.

    `torn`: that operation itself is done by half; otherwise it is complete and the next never happens.
    """

    at_operation: int
    torn: bool = False


@dataclass
class FlashCounters:
    """What the flash has been asked to do, since it was opened."""

    programs: int = 0
    erases: int = 0
    bytes_programmed: int = 0
    erases_by_sector: Counter[int] = field(default_factory=Counter)


@dataclass
class Flash:
    """The chip, open, by one at a time (OSError). `power_cut` may be set at any time; `is_cut` stays True until a new power-on."""

    path: Path
    power_cut: PowerCutPlan | None = None
    counters: FlashCounters = field(default_factory=FlashCounters)
    is_cut: bool = False

    def __post_init__(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise OSError(errno.EBUSY, "in use by another program", str(self.path)) from None
        # littlefs reads 32 to 128 bytes at a time; a mapping makes that a copy, not a system call.
        # Linux keeps it coherent with what `pwrite` writes.
        self._chip = mmap.mmap(self._file, FLASH_BYTES, prot=mmap.PROT_READ)

    def close(self) -> None:
        """Give the file back; safe to repeat."""
        if self._file >= 0:
            self._chip.close()
            os.close(self._file)
            self._file = -1

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the chip."""
        return self._chip[offset : offset + size]

    def program(self, offset: int, data: bytes) -> bool:
        """Program erased flash; False when the power is (or has just been) cut."""
        if self.is_cut:
            return False
        cut = self._reaches_cut()
        if cut and self.power_cut and self.power_cut.torn:
            data = data[: len(data) // 2]
        os.pwrite(self._file, data, offset)
        self.counters.programs += 1
        self.counters.bytes_programmed += len(data)
        return not self.is_cut

    def erase(self, offset: int) -> bool:
        """Erase one sector; False when the power is (or has just been) cut."""
        if self.is_cut:
            return False
        size = SECTOR_BYTES
        if self._reaches_cut() and self.power_cut and self.power_cut.torn:
            size //= 2
        os.pwrite(self._file, b"\xff" * size, offset)
        self.counters.erases += 1
        self.counters.erases_by_sector[offset // SECTOR_BYTES] += 1
        return not self.is_cut

    def erase_all(self) -> None:
        """Erase the whole chip."""
        os.pwrite(self._file, b"\xff" * FLASH_BYTES, 0)

    def _reaches_cut(self) -> bool:
        if self.power_cut is None:
            return False
        self.power_cut.at_operation -= 1
        self.is_cut = self.power_cut.at_operation <= 0
        return self.is_cut


def make_empty_flash(path: Path) -> None:
    """Write a chip as MicroPython leaves it when flashed: its image, a partition table, erased NVS, no file system."""
    with path.open("wb") as file:
        file.truncate(FLASH_BYTES)
        file.seek(BOOT_ADDRESS)
        file.write(token_image())
        table = _partition_table()
        file.seek(_TABLE_AT)
        file.write(table.ljust(SECTOR_BYTES, b"\xff"))
        for label in ("nvs", "otadata"):
            part = region(label)
            file.seek(part.offset)
            file.write(b"\xff" * part.size)


def _partition_table() -> bytes:
    """ESP-IDF's binary table: 32-byte entries, then an entry with the MD5 of what precedes it."""
    entries = b"".join(
        struct.pack("<HBBII16sI", 0x50AA, p.kind, p.subtype, p.offset, p.size, p.label.encode(), 0)
        for p in PARTITIONS
    )
    digest = hashlib.md5(entries, usedforsecurity=False).digest()
    return entries + b"\xeb\xeb" + b"\xff" * 14 + digest

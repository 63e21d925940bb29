"""What tells one chip of the family from another when it is asked over its serial port.

Register addresses and bits: Espressif's Technical Reference Manuals of the three chips (SPI, eFuse and UART registers).
Only the ESP32 is a whole board here; the others are there to be recognised, so that a bench that is given the wrong
one says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MAGIC_AT = 0x40001000  # a word of every ROM that esptool knows chips by
_RTC_XTAL_40_MHZ = 12800 << 7  # RTCCALICFG1: 40 MHz counted by 8 ticks of the 8 MHz clock (below)


@dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
        name: as people write it.
        option: as esptool's `--chip` and our command line write it.
        boot_banner: what its ROM prints first.
        spi_base: registers of the SPI controller that the flash hangs on; `spi_user2_at` and `spi_data_at` are offsets
            of the command to send and of the data that came back.
        security_chip_id: what GET_SECURITY_INFO tells; None for a chip that does not know the command.
        registers: address -> value after a reset, for a MAC address.
        has_board: whether there is a board round it that does more than tell what it is.
    """

    name: str
    option: str
    boot_banner: str
    spi_base: int
    spi_user2_at: int
    spi_data_at: int
    security_chip_id: int | None
    registers: Callable[[bytes], Mapping[int, int]]
    has_board: bool = False


def _esp32_registers(mac: bytes) -> Mapping[int, int]:
    fuses, uart, rtc, system = 0x3FF5A000, 0x3FF40000, 0x3FF5F000, 0x3FF66000
    return {
        _MAGIC_AT: 0x00F01D83,
        fuses + 0x04: int.from_bytes(mac[2:], "big"),
        fuses + 0x08: int.from_bytes(mac[:2], "big"),
        fuses + 0x0C: 1 << 9 | 1 << 15,  # package D0WD, first bit of revision 3
        fuses + 0x10: 8,  # MHz of the internal clock
        fuses + 0x14: 1 << 20 | 1 << 24,  # second bit of revision 3, minor revision 1
        uart + 0x14: 40_000_000 // 115_200,  # clock divider at the ROM's 115,200 baud
        rtc + 0x6C: _RTC_XTAL_40_MHZ,
        system + 0x7C: 1 << 31,  # third bit of revision 3
    }


def _s3_registers(mac: bytes) -> Mapping[int, int]:
    return {
        0x60007000 + 0x44: int.from_bytes(mac[2:], "big"),
        0x60007000 + 0x48: int.from_bytes(mac[:2], "big"),
        0x60000000 + 0x14: 40_000_000 // 115_200,
    }


def _c3_registers(mac: bytes) -> Mapping[int, int]:
    return {
        0x60008800 + 0x44: int.from_bytes(mac[2:], "big"),
        0x60008800 + 0x48: int.from_bytes(mac[:2], "big"),
        0x60000000 + 0x14: 40_000_000 // 115_200,
    }


ESP32 = Chip(
    "ESP32",
    "esp32",
    "ets Jul 29 2019 12:21:46",
    spi_base=0x3FF42000,
    spi_user2_at=0x24,
    spi_data_at=0x80,
    security_chip_id=None,
    registers=_esp32_registers,
    has_board=True,
)
ESP32_S3 = Chip(
    "ESP32-S3",
    "esp32s3",
    "ESP-ROM:esp32s3-20210327",
    spi_base=0x60002000,
    spi_user2_at=0x20,
    spi_data_at=0x58,
    security_chip_id=9,
    registers=_s3_registers,
)
ESP32_C3 = Chip(
    "ESP32-C3",
    "esp32c3",
    "ESP-ROM:esp32c3-api1-20210207",
    spi_base=0x60002000,
    spi_user2_at=0x20,
    spi_data_at=0x58,
    security_chip_id=5,
    registers=_c3_registers,
)
CHIPS = {chip.option: chip for chip in (ESP32, ESP32_S3, ESP32_C3)}

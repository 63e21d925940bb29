"""The loader's answers to requests that are wrong; what esptool asks is in `test_served_board_tools.py`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardware.virtual_board.cable.chips import ESP32, ESP32_C3, Chip
from hardware.virtual_board.cable.rom_loader import SYNC_HEAD, RomLoader
from hardware.virtual_board.cable.slip import SlipDecoder, encode
from hardware.virtual_board.flash import FLASH_BYTES, SECTOR_BYTES, Flash, make_empty_flash

FLASH_BEGIN, FLASH_DATA, DEFLATE_BEGIN, DEFLATE_DATA = 0x02, 0x03, 0x10, 0x11
MEMORY_END, READ_REGISTER, SLOW_READ, MD5, SECURITY_INFO = 0x06, 0x0A, 0x0E, 0x13, 0x14
ERASE_FLASH, READ_FLASH = 0xD0, 0xD2
INVALID, FAILED, WRONG_CHECKSUM, WRONG_DEFLATE = 5, 6, 7, 0x0B


class Client:
    """Sends requests, takes answers apart."""

    def __init__(self, flash: Flash, chip: Chip = ESP32) -> None:
        self._sent = b""
        self.loader = RomLoader(chip, flash, mac=bytes(range(6)), send=self._take)

    def packets(self, data: bytes) -> list[bytes]:
        """What comes back for these bytes."""
        self._sent = b""
        self.loader.received(data)
        return SlipDecoder().feed(self._sent)

    def error_of(self, op: int, data: bytes, *, check: int | None = None) -> int:
        """0 when it was done."""
        (answer,) = self.packets(encode(request(op, data, check)))
        direction, answered, _size, _value = struct.unpack_from("<BBHI", answer)
        assert (direction, answered) == (1, op)
        status = answer[-2:] if self.is_stub else answer[-4:]
        assert bool(status[0]) == bool(status[1])
        return status[1]

    is_stub = False

    def run_stub(self) -> None:
        _, greeting = self.packets(encode(request(MEMORY_END, struct.pack("<II", 0, 0x40080000))))
        assert greeting == b"OHAI"
        self.is_stub = True

    def _take(self, data: bytes) -> None:
        self._sent += data


def request(op: int, data: bytes, check: int | None = None) -> bytes:
    if check is None:
        check = 0xEF
        for byte in data[16:]:
            check ^= byte
    return struct.pack("<BBHI", 0, op, len(data), check) + data


def block(content: bytes) -> bytes:
    return struct.pack("<IIII", len(content), 0, 0, 0) + content


def begin(offset: int, size: int) -> bytes:
    return struct.pack("<IIII", size, 1, 0x400, offset)


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Flash]:
    make_empty_flash(tmp_path / "flash.bin")
    opened = Flash(tmp_path / "flash.bin")
    yield opened
    opened.close()


@pytest.fixture
def client(flash: Flash) -> Client:
    return Client(flash)


@pytest.mark.parametrize(
    ("op", "data", "error"),
    [
        (0x7F, b"", INVALID),
        (SECURITY_INFO, b"", INVALID),
        (ERASE_FLASH, b"", INVALID),
        (FLASH_BEGIN, b"\0\0", INVALID),
        (FLASH_DATA, block(b"abcd"), INVALID),  # not begun
        (FLASH_BEGIN, begin(FLASH_BYTES - 4, 8), FAILED),
        (FLASH_BEGIN, begin(FLASH_BYTES - 8, 8), 0),
        (MD5, struct.pack("<IIII", FLASH_BYTES, 1, 0, 0), FAILED),
        (SLOW_READ, struct.pack("<II", 0, 65), INVALID),
        (READ_REGISTER, b"", INVALID),
    ],
)
def test_a_request_that_cannot_be_done_is_answered_with_its_error(
    client: Client, op: int, data: bytes, error: int
) -> None:
    assert client.error_of(op, data) == error


def test_a_block_with_a_wrong_checksum_is_not_written(client: Client, flash: Flash) -> None:
    assert client.error_of(FLASH_BEGIN, begin(0x10000, 4)) == 0

    assert client.error_of(FLASH_DATA, block(b"abcd"), check=0) == WRONG_CHECKSUM
    assert flash.read(0x10000, 4) == b"\xff" * 4
    assert client.error_of(FLASH_DATA, block(b"abcd")) == 0
    assert flash.read(0x10000, 5) == b"abcd\xff"


def test_compressed_data_that_is_none_or_too_long_is_refused(client: Client, flash: Flash) -> None:
    assert client.error_of(DEFLATE_BEGIN, begin(0x10000, 8)) == 0
    assert client.error_of(DEFLATE_DATA, block(b"no zlib")) == WRONG_DEFLATE

    assert client.error_of(DEFLATE_BEGIN, begin(0x10000, 8)) == 0
    assert client.error_of(DEFLATE_DATA, block(zlib.compress(b"123456789"))) == FAILED

    assert client.error_of(DEFLATE_BEGIN, begin(0x10000, 8)) == 0
    assert client.error_of(DEFLATE_DATA, block(zlib.compress(b"12345678"))) == 0
    assert flash.read(0x10000, 8) == b"12345678"


def test_the_rom_erases_first_and_the_stub_as_it_comes_along(client: Client, flash: Flash) -> None:
    for at in (0x10000, 0x10000 + SECTOR_BYTES):
        flash.program(at, b"old")
    client.run_stub()
    assert client.error_of(FLASH_BEGIN, begin(0x10000, 2 * SECTOR_BYTES)) == 0
    assert client.error_of(FLASH_DATA, block(b"new")) == 0
    assert flash.read(0x10000, 4) == b"new\xff"
    assert flash.read(0x10000 + SECTOR_BYTES, 3) == b"old"

    rom = Client(flash)
    assert rom.error_of(FLASH_BEGIN, begin(0x10000, 2 * SECTOR_BYTES)) == 0
    assert flash.read(0x10000, 2 * SECTOR_BYTES) == b"\xff" * 2 * SECTOR_BYTES


def test_a_stub_sends_no_further_ahead_than_it_was_allowed(client: Client, flash: Flash) -> None:
    flash.program(0x10000, bytes(range(40)))
    client.run_stub()
    asked = struct.pack("<IIII", 0x10000, 40, 10, 2)

    _, *first = client.packets(encode(request(READ_FLASH, asked)))
    then = [client.packets(encode(struct.pack("<I", done))) for done in (10, 20, 30, 40)]

    assert [len(packet) for packet in first] == [10, 10]
    assert [[len(packet) for packet in packets] for packets in then] == [[10], [10], [], [16]]


def test_a_sync_ends_a_read_that_nobody_acknowledges(client: Client, flash: Flash) -> None:
    client.run_stub()
    client.packets(encode(request(READ_FLASH, struct.pack("<IIII", 0, 4096, 10, 2))))

    answers = client.packets(encode(SYNC_HEAD + b"\x55" * 32))

    assert len(answers) == 8
    assert client.error_of(MD5, struct.pack("<IIII", 0, 16, 0, 0)) == 0


def test_noise_before_a_request_does_not_cost_the_request(client: Client) -> None:
    noise = b"\x00\xc0\x12\xdb\xff" + bytes(300)

    answers = client.packets(noise + encode(request(READ_REGISTER, struct.pack("<I", 0x40001000))))

    assert struct.unpack_from("<BBHI", answers[-1])[3] == 0x00F01D83


def test_a_chip_without_a_board_says_what_it_is_and_refuses_its_flash(flash: Flash) -> None:
    client = Client(flash, ESP32_C3)

    assert client.error_of(SECURITY_INFO, b"") == 0
    assert client.error_of(FLASH_BEGIN, begin(0, 4)) == FAILED

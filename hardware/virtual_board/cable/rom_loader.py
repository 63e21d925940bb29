"""The loader in a chip's ROM, and the stub that esptool puts in its place: what they answer, byte for byte.

Protocol: "Serial Protocol" in the documentation of esptool 5. A request is `00 op size16 check32 data`, an answer
`01 op size16 value32 data status`; everything in SLIP frames. The stub is not run: it is taken, greeted with "OHAI" as it
would greet, and from then on its dialect is spoken (two status bytes instead of four, binary MD5, more commands).

What lives here: the dialogue, on a chip's registers and its flash. Not here: how a board gets into its loader and out
again (`wire.py`, `served_board.py`). Left out: running code from RAM, secure boot, encryption, burning eFuses.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import struct
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from hardware.virtual_board.cable import slip
from hardware.virtual_board.flash import FLASH_BYTES, SECTOR_BYTES

if TYPE_CHECKING:
    from hardware.virtual_board.cable.chips import Chip
    from hardware.virtual_board.flash import Flash

SYNC_HEAD = b"\x00\x08\x24\x00\x00\x00\x00\x00\x07\x07\x12\x20"
"""How every SYNC request begins, behind its first END."""

_REQUEST = struct.Struct("<BBHI")
_REQUEST_DIRECTION, _ANSWER_DIRECTION = 0, 1
_SYNC_ANSWERS = 8  # esptool counts on them
_CHECKSUM_SEED = 0xEF
_BLOCK_HEAD = struct.Struct("<IIII")  # length, sequence, two words of nothing; the block follows
_SLOW_READ_BYTES = 64
_ACKNOWLEDGEMENT_BYTES = 4  # how many bytes of a READ_FLASH have come
_SYNC, _MEMORY_END, _READ_REGISTER, _RUN_USER_CODE = 0x08, 0x06, 0x0A, 0xD3
_WITH_CHECKSUM = (0x03, 0x07, 0x11)

_INVALID, _FAILED, _WRONG_CHECKSUM, _WRONG_DEFLATE = 0x05, 0x06, 0x07, 0x0B  # errors of the ROM
_STUB_GREETING = b"OHAI"

# The flash chip, as it answers RDID: GigaDevice, 4 MiB.
_JEDEC_ID = bytes.fromhex("c84016")
_SPI_READ_ID = 0x9F
_SPI_START = 1 << 18
_COMMAND_BITS = 0xFF


class _Refused(Exception):
    """The request is answered with an error."""

    def __init__(self, error: int) -> None:
        super().__init__(f"error {error:#04x}")
        self.error = error


class RomLoader:
    """One stay in the loader, from the reset that entered it. `has_finished`: the client asked to run what is flashed."""

    def __init__(
        self, chip: Chip, flash: Flash, *, mac: bytes, send: Callable[[bytes], None]
    ) -> None:
        self.has_finished = False
        self._chip = chip
        self._flash = flash
        self._send = send
        self._registers = dict(chip.registers(mac))
        self._decoder = slip.SlipDecoder()
        self._is_stub = False
        self._write: _FlashWrite | None = None
        self._reading: _FlashRead | None = None
        self._commands: dict[int, Callable[[bytes], bytes]] = {
            0x02: self._flash_begin,
            0x03: self._flash_data,
            0x04: self._flash_end,
            0x05: self._nothing_to_do,  # MEM_BEGIN
            0x06: self._nothing_to_do,  # MEM_END, see `_answer`
            0x07: self._memory_data,
            0x09: self._write_register,
            0x0A: self._read_register,
            0x0B: self._nothing_to_do,  # SPI_SET_PARAMS
            0x0D: self._nothing_to_do,  # SPI_ATTACH
            0x0E: self._read_flash_slowly,
            0x0F: self._nothing_to_do,  # CHANGE_BAUDRATE: there is no baud rate here
            0x10: self._deflate_begin,
            0x11: self._flash_data,
            0x12: self._flash_end,
            0x13: self._flash_md5,
        }
        if chip.security_chip_id is not None:
            self._commands[0x14] = self._security_info
        self._stub_commands: dict[int, Callable[[bytes], bytes]] = {
            0xD0: self._erase_flash,
            0xD1: self._erase_region,
            0xD2: self._read_flash,
        }

    @property
    def between_packets(self) -> bytes:
        """What has come since the last packet and is not the beginning of one."""
        rest = self._decoder.unfinished
        return b"" if rest[:1] == bytes([_REQUEST_DIRECTION]) else rest

    def received(self, data: bytes) -> None:
        """Take bytes from the client and answer what they complete."""
        for packet in self._decoder.feed(data):
            if self._reading is not None and len(packet) == _ACKNOWLEDGEMENT_BYTES:
                self._reading.acknowledged()
                self._go_on_reading()
            elif len(packet) >= _REQUEST.size:
                self._reading = None
                self._take(packet)

    def _take(self, packet: bytes) -> None:
        direction, op, size, check = _REQUEST.unpack_from(packet)
        data = packet[_REQUEST.size :]
        if direction != _REQUEST_DIRECTION or size != len(data):
            return
        if op == _SYNC:
            # The value tells the ROM from a stub that is still there.
            for _ in range(_SYNC_ANSWERS):
                self._answer(op, b"", value=0 if self._is_stub else 0x20120707)
            return
        try:
            self._carry_out(op, data, check)
        except _Refused as refusal:
            self._answer(op, b"", error=refusal.error)

    def _carry_out(self, op: int, data: bytes, check: int) -> None:
        commands = {**self._commands, **(self._stub_commands if self._is_stub else {})}
        if op == _RUN_USER_CODE and self._is_stub:
            self.has_finished = True  # unanswered
            return
        if op not in commands:
            raise _Refused(_INVALID)
        if op in _WITH_CHECKSUM and check != _checksum(data[_BLOCK_HEAD.size :]):
            raise _Refused(_WRONG_CHECKSUM)
        try:
            result = commands[op](data)
        except (struct.error, IndexError):
            raise _Refused(_INVALID) from None
        value = 0
        if op == _READ_REGISTER:
            value, result = int.from_bytes(result, "little"), b""
        self._answer(op, result, value=value)
        if op == _MEMORY_END and struct.unpack("<II", data)[1]:
            self._is_stub = True
            self._send(slip.encode(_STUB_GREETING))
        if self._reading is not None:
            self._go_on_reading()

    def _answer(self, op: int, data: bytes, *, value: int = 0, error: int = 0) -> None:
        status = bytes([1, error] if error else [0, 0])
        # A stub says it in two bytes, a ROM adds two that mean nothing.
        if not self._is_stub:
            status += bytes(2)
        body = data + status
        head = _REQUEST.pack(_ANSWER_DIRECTION, op, len(body), value)
        self._send(slip.encode(head + body))

    def _nothing_to_do(self, _data: bytes) -> bytes:
        return b""

    def _memory_data(self, data: bytes) -> bytes:
        """A piece of the stub; it will not be run, so it need not be kept."""
        (length, *_) = _BLOCK_HEAD.unpack_from(data)
        if length != len(data) - _BLOCK_HEAD.size:
            raise _Refused(_INVALID)
        return b""

    # --- what the chip is ---

    def _security_info(self, _data: bytes) -> bytes:
        """Flags, how often encryption was switched, key purposes, chip, version of this answer."""
        return struct.pack("<IB7sII", 0, 0, bytes(7), self._chip.security_chip_id, 0)

    def _read_register(self, data: bytes) -> bytes:
        (address,) = struct.unpack_from("<I", data)
        return struct.pack("<I", self._registers.get(address, 0))

    def _write_register(self, data: bytes) -> bytes:
        for at in range(0, len(data), 16):
            address, value, mask, _delay_us = struct.unpack_from("<IIII", data, at)
            before = self._registers.get(address, 0)
            self._registers[address] = (before & ~mask | value & mask) & 0xFFFFFFFF
            if address == self._chip.spi_base and self._registers[address] & _SPI_START:
                self._talk_to_flash_chip()
        return b""

    def _talk_to_flash_chip(self) -> None:
        """What was asked of the SPI controller by register; it is done at once."""
        base = self._chip.spi_base
        self._registers[base] &= ~_SPI_START
        command = self._registers.get(base + self._chip.spi_user2_at, 0) & _COMMAND_BITS
        answer = _JEDEC_ID if command == _SPI_READ_ID else b""
        self._registers[base + self._chip.spi_data_at] = int.from_bytes(answer, "little")

    # --- flash: write ---

    def _flash_begin(self, data: bytes) -> bytes:
        size, _blocks, _block_bytes, offset = struct.unpack_from("<IIII", data)
        self._begin_write(offset, size, inflate=None)
        return b""

    def _deflate_begin(self, data: bytes) -> bytes:
        size, _blocks, _block_bytes, offset = struct.unpack_from("<IIII", data)
        self._begin_write(offset, size, inflate=zlib.decompressobj())
        return b""

    def _begin_write(self, offset: int, size: int, *, inflate: zlib._Decompress | None) -> None:
        self._check_place(offset, size)
        self._write = _FlashWrite(self._flash, offset, size, inflate)
        if not self._is_stub:
            self._write.erase_to(offset + size)

    def _flash_data(self, data: bytes) -> bytes:
        (length, *_) = _BLOCK_HEAD.unpack_from(data)
        block = data[_BLOCK_HEAD.size :]
        if self._write is None or length != len(block):
            raise _Refused(_INVALID)
        self._write.take(block)
        return b""

    def _flash_end(self, data: bytes) -> bytes:
        (stay,) = struct.unpack_from("<I", data)
        self._write = None
        self.has_finished = not stay
        return b""

    def _erase_flash(self, _data: bytes) -> bytes:
        self._flash.erase_all()
        return b""

    def _erase_region(self, data: bytes) -> bytes:
        offset, size = struct.unpack_from("<II", data)
        self._check_place(offset, size)
        if offset % SECTOR_BYTES or size % SECTOR_BYTES:
            raise _Refused(_INVALID)
        for sector in range(offset, offset + size, SECTOR_BYTES):
            self._flash.erase(sector)
        return b""

    def _check_place(self, offset: int, size: int) -> None:
        if not self._chip.has_board or offset + size > FLASH_BYTES:
            raise _Refused(_FAILED)

    # --- flash: read ---

    def _flash_md5(self, data: bytes) -> bytes:
        offset, size, *_ = struct.unpack_from("<IIII", data)
        self._check_place(offset, size)
        digest = hashlib.md5(self._flash.read(offset, size), usedforsecurity=False)
        return digest.digest() if self._is_stub else digest.hexdigest().encode()

    def _read_flash_slowly(self, data: bytes) -> bytes:
        offset, size = struct.unpack_from("<II", data)
        if size > _SLOW_READ_BYTES:
            raise _Refused(_INVALID)
        self._check_place(offset, size)
        return self._flash.read(offset, size).ljust(_SLOW_READ_BYTES, b"\0")

    def _read_flash(self, data: bytes) -> bytes:
        offset, size, block_bytes, most_ahead = struct.unpack_from("<IIII", data)
        self._check_place(offset, size)
        if not block_bytes or not most_ahead:
            raise _Refused(_INVALID)
        self._reading = _FlashRead(self._flash.read(offset, size), block_bytes, most_ahead)
        return b""

    def _go_on_reading(self) -> None:
        assert self._reading is not None  # noqa: S101 - the callers have looked
        for frame in self._reading.due():
            self._send(slip.encode(frame))
        if self._reading.is_done:
            self._reading = None


class _FlashWrite:
    """A stretch of flash being written, block by block.

    The ROM erases all of it when it begins, the stub each sector when it comes to it.
    """

    def __init__(
        self, flash: Flash, offset: int, size: int, inflate: zlib._Decompress | None
    ) -> None:
        self._flash = flash
        self._at = offset
        self._end = offset + size
        self._erased_to = offset - offset % SECTOR_BYTES
        self._inflate = inflate

    def erase_to(self, end: int) -> None:
        while self._erased_to < end:
            self._flash.erase(self._erased_to)
            self._erased_to += SECTOR_BYTES

    def take(self, block: bytes) -> None:
        try:
            content = block if self._inflate is None else self._inflate.decompress(block)
        except zlib.error:
            raise _Refused(_WRONG_DEFLATE) from None
        if self._inflate is not None and self._at + len(content) > self._end:
            raise _Refused(_FAILED)
        # Uncompressed, the last block is filled up to its length.
        content = content[: self._end - self._at]
        self.erase_to(self._at + len(content))
        self._flash.program(self._at, content)
        self._at += len(content)


class _FlashRead:
    """A stretch of flash on its way out: so many blocks ahead of what is acknowledged, then the MD5 of it all."""

    def __init__(self, content: bytes, block_bytes: int, most_ahead: int) -> None:
        self.is_done = False
        self._blocks = [
            content[at : at + block_bytes] for at in range(0, len(content), block_bytes)
        ]
        self._digest = hashlib.md5(content, usedforsecurity=False).digest()
        self._sent = self._acknowledged = 0
        self._most_ahead = most_ahead

    def acknowledged(self) -> None:
        self._acknowledged += 1

    def due(self) -> list[bytes]:
        """What may be sent now."""
        until = min(self._acknowledged + self._most_ahead, len(self._blocks))
        due, self._sent = self._blocks[self._sent : until], max(self._sent, until)
        if self._acknowledged >= len(self._blocks):
            self.is_done = True
            due = [*due, self._digest]
        return due


def _checksum(data: bytes) -> int:
    return functools.reduce(operator.xor, data, _CHECKSUM_SEED)

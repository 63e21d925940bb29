"""What every Modbus RTU probe on RS485 has in common: frames, silence, exceptions, and what happens to an answer on the way.

Sources: Modbus Application Protocol V1.1b3 (§6.3, §6.12, §7) and Modbus over Serial Line V1.02 (§2.5.1, appendix B: CRC). What
a probe keeps in which register is its own affair (one file per maker).
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import uniform
from hardware.virtual_board.probes.faults import ActiveFault, Source
from hardware.virtual_board.probes.powered import Fitting, PoweredProbe
from hardware.virtual_board.wiring import HearsLine, UartDevice, UartSettings

READ_HOLDING_REGISTERS = 0x03
READ_INPUT_REGISTERS = 0x04
WRITE_REGISTERS = 0x10

ILLEGAL_FUNCTION = 0x01
ILLEGAL_DATA_ADDRESS = 0x02
ILLEGAL_DATA_VALUE = 0x03

_THINKS_US = 12_000


def crc16(data: bytes) -> int:
    """Modbus CRC: polynomial A001h mirrored, start FFFFh; sent low byte first.

    >>> crc16(bytes.fromhex("0103000000 06")).to_bytes(2, "little").hex()
    'c5c8'
    """
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def frame(body: bytes) -> bytes:
    """A Modbus RTU frame: body and its CRC."""
    return body + crc16(body).to_bytes(2, "little")


class Refused(Exception):
    """The probe answers a request with this exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


class Silent(Exception):
    """The probe does not answer such a request."""


class ModbusProbe(PoweredProbe, ABC):
    """One probe on the bus. Silent without its supply, for other addresses, and to a master of another speed or parity.

    `sources`: the truth of each property that it measures; when one of them ends, the probe is off its cable. A maker's probe says
    what it keeps (`registers`) and what writing does (`written`).
    """

    functions: tuple[int, ...] = (READ_HOLDING_REGISTERS,)
    warm_up_us = 0
    baudrate = 9600
    parity: int | None = None

    def __init__(
        self, sources: Mapping[str, Source], *, address: int = 1, **fitting: Unpack[Fitting]
    ) -> None:
        super().__init__(**fitting)
        self.sources = sources
        self._address = address
        self._line = UartSettings(self.baudrate, 8, self.parity)

    # --- what a maker's probe says of itself ---

    @abstractmethod
    def registers(self, start: int, count: int, now_us: int) -> bytes:
        """The content of `count` registers from `start` on. Raises Refused, Silent."""

    def written(self, start: int, values: bytes, now_us: int) -> None:
        """Take what is written from `start` on. Raises Refused, Silent."""
        raise Refused(ILLEGAL_FUNCTION)

    # --- the wire ---

    def line_set(self, settings: UartSettings) -> None:
        self._line = settings

    def receive(self, data: bytes, now_us: int) -> list[tuple[int, bytes]]:
        """Take a request frame; give what comes back and how many µs after the request's end."""
        active = self.faults.active(now_us / 1e6)
        if self._is_silent(active, now_us):
            return []
        if len(data) < 4 or frame(data[:-2]) != data or data[0] != self._address:
            return []
        try:
            answer = self._answer(data, now_us)
        except Silent:
            return []
        return self._on_the_way(frame(answer), active, now_us)

    def _is_silent(self, active: dict[Fault, ActiveFault], now_us: int) -> bool:
        return (
            self.powered_at_us is None
            or now_us - self.powered_at_us < self.warm_up_us
            or (self._line.baudrate, self._line.bits) != (self.baudrate, 8)
            or self._line.parity != self.parity
            or Fault.DISCONNECTED in active
            or any(source(now_us / 1e6) is None for source in self.sources.values())
        )

    def _answer(self, request: bytes, now_us: int) -> bytes:
        address, function = request[0], request[1]
        try:
            if function in self.functions:
                return self._read(request, now_us)
            if function == WRITE_REGISTERS:
                return self._write(request, now_us)
            raise Refused(ILLEGAL_FUNCTION)
        except Refused as refused:
            return bytes([address, function | 0x80, refused.code])

    def _read(self, request: bytes, now_us: int) -> bytes:
        if len(request) != 8:
            raise Refused(ILLEGAL_DATA_VALUE)
        start, count = struct.unpack(">HH", request[2:6])
        content = self.registers(start, count, now_us)
        return request[:2] + bytes([len(content)]) + content

    def _write(self, request: bytes, now_us: int) -> bytes:
        if len(request) < 9 or len(request) != 9 + request[6]:
            raise Refused(ILLEGAL_DATA_VALUE)
        (start,) = struct.unpack(">H", request[2:4])
        self.written(start, request[7:-2], now_us)
        return request[:6]

    def _on_the_way(
        self, answer: bytes, active: dict[Fault, ActiveFault], now_us: int
    ) -> list[tuple[int, bytes]]:
        delay_us = _THINKS_US
        if slow := active.get(Fault.SLOW):
            delay_us += round(slow.strength * 1e6)
        if Fault.BAD_CRC in active:
            hit = int(uniform(*self.dice, "bit", now_us) * 8 * len(answer))
            damaged = bytearray(answer)
            damaged[hit // 8] ^= 1 << hit % 8
            answer = bytes(damaged)
        if Fault.HALF_FRAME in active:
            answer = answer[: len(answer) // 2]
        if Fault.NOISE in active:
            # The bus floats until the driver takes it: stray bytes stand before the answer.
            stray = bytes(int(uniform(*self.dice, "stray", now_us, n) * 256) for n in range(3))
            answer = stray + answer
        return [(delay_us, answer)]


def block(start: int, count: int, content: bytes, first: int = 0) -> bytes:
    """`count` registers from `start` out of a block that begins at register `first`. Raises Refused as §6.3 says.

    >>> block(1, 1, b"abcd")
    b'cd'
    """
    if not 1 <= count <= 125:
        raise Refused(ILLEGAL_DATA_VALUE)
    if start < first or start + count > first + len(content) // 2:
        raise Refused(ILLEGAL_DATA_ADDRESS)
    return content[2 * (start - first) : 2 * (start - first + count)]


class Rs485Bus:
    """Several probes on one pair of wires: everybody hears, those answer whose address it is."""

    def __init__(self, probes: Iterable[UartDevice]) -> None:
        self.probes = list(probes)

    def receive(self, data: bytes, now_us: int) -> list[tuple[int, bytes]]:
        return [reply for probe in self.probes for reply in probe.receive(data, now_us)]

    def line_set(self, settings: UartSettings) -> None:
        for probe in self.probes:
            if isinstance(probe, HearsLine):
                probe.line_set(settings)

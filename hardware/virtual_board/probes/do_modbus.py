"""Optical oxygen probe with thermometer on RS485, Modbus RTU, as DFRobot's SEN0681.

Sources: DFRobot wiki SEN0681 (holding registers 0 saturation, 2 mg/L, 4 °C, each a float32 with the high word first;
warm-up, 1.7 s between measurements, ±3 %, ±0.5 °C); Modbus Application Protocol V1.1b3 (§6.3, §7) and Modbus over
Serial Line V1.02 (§2.5.1, appendix B: CRC). Address 1, 9600 8N1. This one is set to give saturation in per cent.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import exp

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian, uniform
from hardware.virtual_board.probes.faults import ActiveFault, FaultSwitch, Source, disturbed, fouled

READ_HOLDING_REGISTERS = 0x03
ILLEGAL_FUNCTION = 0x01
ILLEGAL_DATA_ADDRESS = 0x02
ILLEGAL_DATA_VALUE = 0x03

# register → (property, smallest step that the probe tells)
_REGISTERS: Mapping[int, tuple[str, float]] = {
    0: ("oxygen_saturation", 0.01),
    2: ("dissolved_oxygen", 0.001),
    4: ("water_temperature", 0.01),
}
_REGISTER_COUNT = 6

_WARM_UP_US = 375_000
_MEASURE_US = 1_700_000
# The dye and the electronics settle with this time constant; after the 8 s of the data sheet 0.04 % are left.
_SETTLING_S = 1.0
_THINKS_US = 12_000
_NOISE = {"oxygen_saturation": 0.15, "dissolved_oxygen": 0.012, "water_temperature": 0.02}


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


class DoModbus:
    """One probe. Silent without its supply and for other addresses; `power_pin` None: always powered.

    `tolerance` scales its gain, offset and noise: 1 as built, 0 the ideal part of the data sheet.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        serial: str,
        seed: int = 0,
        address: int = 1,
        power_pin: int | None = None,
        tolerance: float = 1.0,
        faults: FaultSwitch | None = None,
    ) -> None:
        self.faults = faults or FaultSwitch()
        self._sources = sources
        self._dice = (seed, serial)
        self._address = address
        self._power_pin = power_pin
        self._powered_at_us: int | None = None if power_pin is not None else -(10**12)
        # Within the data sheet's ±3 % and ±0.5 °C; one optical gain for both oxygen figures.
        self._gain = 1 + tolerance * between(-0.024, 0.024, *self._dice, "gain")
        self._noise = tolerance
        self._offset_c = tolerance * between(-0.4, 0.4, *self._dice, "offset")

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        if pin != self._power_pin:
            return
        if not level:
            self._powered_at_us = None
        elif self._powered_at_us is None:
            self._powered_at_us = now_us

    def receive(self, data: bytes, now_us: int) -> list[tuple[int, bytes]]:
        """Take a request frame; give what comes back and how many µs after the request's end."""
        active = self.faults.active(now_us / 1e6)
        if self._is_silent(active, now_us):
            return []
        if len(data) < 4 or frame(data[:-2]) != data or data[0] != self._address:
            return []
        return self._on_the_way(frame(self._answer(data, now_us)), active, now_us)

    def _is_silent(self, active: dict[Fault, ActiveFault], now_us: int) -> bool:
        return (
            self._powered_at_us is None
            or now_us - self._powered_at_us < _WARM_UP_US
            or Fault.DISCONNECTED in active
            or any(source(now_us / 1e6) is None for source in self._sources.values())
        )

    def _answer(self, request: bytes, now_us: int) -> bytes:
        address, function = request[0], request[1]
        if function != READ_HOLDING_REGISTERS:
            return bytes([address, function | 0x80, ILLEGAL_FUNCTION])
        if len(request) != 8:
            return bytes([address, function | 0x80, ILLEGAL_DATA_VALUE])
        start, count = struct.unpack(">HH", request[2:6])
        if not 1 <= count <= 125:
            return bytes([address, function | 0x80, ILLEGAL_DATA_VALUE])
        if start + count > _REGISTER_COUNT:
            return bytes([address, function | 0x80, ILLEGAL_DATA_ADDRESS])
        words = b"".join(
            struct.pack(">f", self._measure(*_REGISTERS[register], now_us))
            for register in sorted(_REGISTERS)
        )
        wanted = words[2 * start : 2 * (start + count)]
        return bytes([address, function, len(wanted)]) + wanted

    def _measure(self, name: str, resolution: float, now_us: int) -> float:
        """The figure of the probe's last finished measurement; 0 before the first."""
        assert self._powered_at_us is not None  # noqa: S101 - a silent probe does not measure
        since_us = now_us - self._powered_at_us - _WARM_UP_US
        finished = since_us // _MEASURE_US
        if finished == 0:
            return 0.0
        at_us = self._powered_at_us + _WARM_UP_US + finished * _MEASURE_US
        at_s = at_us / 1e6
        active = self.faults.active(at_s)
        value = disturbed(self._sources[name], active, at_s)
        if value is None:
            return 0.0
        if name == "water_temperature":
            value += self._offset_c
        else:
            settled = 1 - exp(-finished * _MEASURE_US / 1e6 / _SETTLING_S)
            value = fouled(value, active, at_s) * self._gain * settled
        value += self._noise * _NOISE[name] * gaussian(*self._dice, name, at_us)
        return max(0.0, round(value / resolution) * resolution)

    def _on_the_way(
        self, answer: bytes, active: dict[Fault, ActiveFault], now_us: int
    ) -> list[tuple[int, bytes]]:
        delay_us = _THINKS_US
        if slow := active.get(Fault.SLOW):
            delay_us += round(slow.strength * 1e6)
        if Fault.BAD_CRC in active:
            hit = int(uniform(*self._dice, "bit", now_us) * 8 * len(answer))
            damaged = bytearray(answer)
            damaged[hit // 8] ^= 1 << hit % 8
            answer = bytes(damaged)
        if Fault.HALF_FRAME in active:
            answer = answer[: len(answer) // 2]
        if Fault.NOISE in active:
            # The bus floats until the driver takes it: stray bytes stand before the answer.
            stray = bytes(int(uniform(*self._dice, "stray", now_us, n) * 256) for n in range(3))
            answer = stray + answer
        return [(delay_us, answer)]

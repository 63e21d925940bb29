"""Optical oxygen probe with thermometer on RS485, Modbus RTU, as DFRobot's SEN0681.

Source: DFRobot wiki SEN0681 (holding registers 0 saturation, 2 mg/L, 4 °C, each a float32 with the high word first;
warm-up, 1.7 s between measurements, ±3 %, ±0.5 °C). Address 1, 9600 8N1. This one is set to give saturation in per cent.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import exp, nan
from typing import Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian
from hardware.virtual_board.probes.faults import Source, disturbed, fouled
from hardware.virtual_board.probes.modbus import ModbusProbe, block
from hardware.virtual_board.probes.powered import Fitting

# register → (property, smallest step that the probe tells)
_REGISTERS: Mapping[int, tuple[str, float]] = {
    0: ("oxygen_saturation", 0.01),
    2: ("dissolved_oxygen", 0.001),
    4: ("water_temperature", 0.01),
}

_WARM_UP_US = 375_000
_MEASURE_US = 1_700_000
# The dye and the electronics settle with this time constant; after the 8 s of the data sheet 0.04 % are left.
_SETTLING_S = 1.0
_NOISE = {"oxygen_saturation": 0.15, "dissolved_oxygen": 0.012, "water_temperature": 0.02}


class Sen0681(ModbusProbe):
    """One probe."""

    warm_up_us = _WARM_UP_US

    def __init__(
        self, sources: Mapping[str, Source], *, address: int = 1, **fitting: Unpack[Fitting]
    ) -> None:
        super().__init__(sources, address=address, **fitting)
        # Within the data sheet's ±3 % and ±0.5 °C; one optical gain for both oxygen figures.
        self._gain = 1 + self.tolerance * between(-0.024, 0.024, *self.dice, "gain")
        self._offset_c = self.tolerance * between(-0.4, 0.4, *self.dice, "offset")

    def registers(self, start: int, count: int, now_us: int) -> bytes:
        content = b"".join(
            struct.pack(">f", self._measure(*_REGISTERS[register], now_us))
            for register in sorted(_REGISTERS)
        )
        return block(start, count, content)

    def _measure(self, name: str, resolution: float, now_us: int) -> float:
        """The figure of the probe's last finished measurement; 0 before the first."""
        assert self.powered_at_us is not None  # noqa: S101 - a silent probe does not measure
        since_us = now_us - self.powered_at_us - _WARM_UP_US
        finished = since_us // _MEASURE_US
        if finished == 0:
            return 0.0
        at_us = self.powered_at_us + _WARM_UP_US + finished * _MEASURE_US
        at_s = at_us / 1e6
        active = self.faults.active(at_s)
        value = disturbed(self.sources[name], active, at_s)
        if value is None:
            return 0.0
        if Fault.INVALID in active:
            return nan
        if name == "water_temperature":
            value += self._offset_c
        else:
            settled = 1 - exp(-finished * _MEASURE_US / 1e6 / _SETTLING_S)
            value = fouled(value, active, at_s) * self._gain * settled
        value += self.tolerance * _NOISE[name] * gaussian(*self.dice, name, at_us)
        return max(0.0, round(value / resolution) * resolution)

"""Soil moisture probe on RS485, Modbus RTU, as Truebner's SMT100.

Source: Truebner AN002 as implemented by slowtec (truebner-smt100, src/modbus, whose test bytes anchor ours): holding registers
0 (T + 100 °C) · 100, 1 water content in hundredths of a per cent, 2 permittivity in hundredths, 3 counts; 8E1. Permittivity of
a soil whose water content alone is known: Topp, Davis and Annan 1980, the inverse fit. Nothing is published of the counts: their
curve here is ours, falling as the oscillator slows down.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import sqrt
from typing import Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian
from hardware.virtual_board.probes.faults import ActiveFault, Source, disturbed
from hardware.virtual_board.probes.modbus import (
    READ_HOLDING_REGISTERS,
    READ_INPUT_REGISTERS,
    ModbusProbe,
    block,
)
from hardware.virtual_board.probes.powered import Fitting
from hardware.virtual_board.scene_models import permittivity_of

NO_VALUE = 0xFFFF

_WARM_UP_US = 280_000
_COUNTS_IN_AIR = 20_000
_NOISE = {"soil_water_content": 0.001, "soil_permittivity": 0.05, "soil_temperature": 0.02}


class Smt100(ModbusProbe):
    """One probe. What is left out of `sources` follows from the water content, or is 20 °C."""

    functions = (READ_HOLDING_REGISTERS, READ_INPUT_REGISTERS)
    warm_up_us = _WARM_UP_US
    parity = 0

    def __init__(
        self, sources: Mapping[str, Source], *, address: int = 1, **fitting: Unpack[Fitting]
    ) -> None:
        super().__init__(sources, address=address, **fitting)
        # Within the data sheet's ±3 % water content and ±0.4 °C.
        self._offset = self.tolerance * between(-0.025, 0.025, *self.dice, "water")
        self._gain = 1 + self.tolerance * between(-0.03, 0.03, *self.dice, "permittivity")
        self._offset_c = self.tolerance * between(-0.3, 0.3, *self.dice, "offset")

    def registers(self, start: int, count: int, now_us: int) -> bytes:
        if Fault.INVALID in self.faults.active(now_us / 1e6):
            return block(start, count, struct.pack(">5H", *4 * (NO_VALUE,), self._address))
        water = self._measured("soil_water_content", now_us)
        permittivity = self._measured("soil_permittivity", now_us)
        temperature_c = self._measured("soil_temperature", now_us)
        if permittivity is None:
            permittivity = permittivity_of(water or 0.0)
        numbers = (
            100 * ((20.0 if temperature_c is None else temperature_c + self._offset_c) + 100),
            10_000 * (0.0 if water is None else water + self._offset),
            100 * permittivity * self._gain,
            _COUNTS_IN_AIR / sqrt(max(permittivity, 0.01)),
            self._address,
        )
        content = struct.pack(">5H", *(min(max(round(one), 0), NO_VALUE - 1) for one in numbers))
        return block(start, count, content)

    def _measured(self, name: str, now_us: int) -> float | None:
        if name not in self.sources:
            return None
        now_s = now_us / 1e6
        active: dict[Fault, ActiveFault] = self.faults.active(now_s)
        value = disturbed(self.sources[name], active, now_s)
        assert value is not None  # noqa: S101 - a silent probe does not measure
        return value + self.tolerance * _NOISE[name] * gaussian(*self.dice, name, now_us)

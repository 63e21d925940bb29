"""Optical probes on RS485, Modbus RTU, as Yosemitech's Y504-A (oxygen) and Y511-A (turbidity, with a wiper).

Sources: Yosemitech's Modbus instructions for its turbidity probes (figures 25–27: 0x2600, four registers, temperature and
value as float32 with the low byte first) and EnviroDIY's YosemitechModbus and ModularSensors, which have these probes in the
field: reading 0x2500 without a register sets the measurement going, 0x2E00 ends it, writing 0x3100 without a value has the
wiper turn, 0x2604 is the Y511's error code; the oxygen is a ratio; silence to whatever is not in the instructions; times.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Mapping
from math import exp, nan
from typing import Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian, uniform
from hardware.virtual_board.probes.faults import Source, disturbed, fouled
from hardware.virtual_board.probes.modbus import ModbusProbe, Silent
from hardware.virtual_board.probes.powered import Fitting

START, VALUES, STOP, WIPE = 0x2500, 0x2600, 0x2E00, 0x3100

_WIPE_US = 10_000_000
_ERROR_CODE = 0x01


class _Yosemitech(ModbusProbe):
    """What both have in common. Without the start command there is nothing but zeros."""

    value_name = ""
    settling_s = 1.0
    measure_us = 1_000_000
    noise = 0.0

    def __init__(
        self, sources: Mapping[str, Source], *, address: int = 1, **fitting: Unpack[Fitting]
    ) -> None:
        super().__init__(sources, address=address, **fitting)
        self._started_us: int | None = None
        # Within the maker's ±0.2 °C.
        self._offset_c = self.tolerance * between(-0.15, 0.15, *self.dice, "offset")

    def switched_on(self, now_us: int) -> None:
        self._started_us = None

    def registers(self, start: int, count: int, now_us: int) -> bytes:
        if (start, count) == (START, 0):
            if self._started_us is None:
                self._started_us = now_us
            return b""
        if start == STOP and count in (0, 1):
            self._started_us = None
            return b"\0\0" * count
        content = struct.pack("<ff", *self.figures(now_us)) + self.tail_at(now_us)
        if start != VALUES or not 1 <= count <= len(content) // 2:
            raise Silent
        return content[: 2 * count]

    def tail_at(self, now_us: int) -> bytes:
        """What follows the two floats."""
        return b""

    @abstractmethod
    def value_at(self, value: float, at_us: int) -> float:
        """What this part makes of the truth."""

    def figures(self, now_us: int) -> tuple[float, float]:
        """(temperature, value) of the last finished measurement; zeros before the first."""
        if self._started_us is None or now_us - self._started_us < self.measure_us:
            return 0.0, 0.0
        finished = (now_us - self._started_us) // self.measure_us
        at_us = self._started_us + finished * self.measure_us
        settled = 1 - exp(-finished * self.measure_us / 1e6 / self.settling_s)
        value = self.truth(self.value_name, at_us)
        temperature_c = self.truth("water_temperature", at_us)
        noise = self.tolerance * self.noise * gaussian(*self.dice, "value", at_us)
        return (
            20.0 if temperature_c is None else temperature_c + self._offset_c,
            0.0 if value is None else max(0.0, self.value_at(value, at_us) * settled + noise),
        )

    def truth(self, name: str, at_us: int) -> float | None:
        """The truth in its published unit, as the faults let it through; None when nobody has said it."""
        if name not in self.sources:
            return None
        at_s = at_us / 1e6
        return disturbed(self.sources[name], self.faults.active(at_s), at_s)


class Y504(_Yosemitech):
    """Oxygen saturation as a ratio."""

    warm_up_us = 350_000
    value_name = "oxygen_saturation"
    settling_s = 1.2
    measure_us = 1_700_000
    noise = 0.001

    def value_at(self, value: float, at_us: int) -> float:
        # Within the maker's ±1 %.
        gain = 1 + self.tolerance * between(-0.008, 0.008, *self.dice, "gain")
        at_s = at_us / 1e6
        return fouled(value, self.faults.active(at_s), at_s) * gain / 100

    def figures(self, now_us: int) -> tuple[float, float]:
        temperature_c, ratio = super().figures(now_us)
        return temperature_c, nan if Fault.INVALID in self.faults.active(now_us / 1e6) else ratio


class Y511(_Yosemitech):
    """Turbidity, an error code, and a wiper that blinds the probe while it turns."""

    warm_up_us = 1_100_000
    value_name = "turbidity"
    settling_s = 6.0
    measure_us = 4_000_000
    noise = 0.05

    def __init__(
        self, sources: Mapping[str, Source], *, address: int = 1, **fitting: Unpack[Fitting]
    ) -> None:
        super().__init__(sources, address=address, **fitting)
        self.wipes: list[int] = []

    def value_at(self, value: float, at_us: int) -> float:
        if any(at <= at_us < at + _WIPE_US for at in self.wipes[-1:]):
            return 1000 * uniform(*self.dice, "brush", at_us)
        # Within the maker's ±5 %.
        return value * (1 + self.tolerance * between(-0.04, 0.04, *self.dice, "gain"))

    def written(self, start: int, values: bytes, now_us: int) -> None:
        if start != WIPE or values or Fault.NO_WIPER in self.faults.active(now_us / 1e6):
            raise Silent
        self.wipes.append(now_us)

    def tail_at(self, now_us: int) -> bytes:
        is_ill = Fault.INVALID in self.faults.active(now_us / 1e6)
        return bytes([_ERROR_CODE if is_ill else 0, 0])

"""A capacitive soil probe of the SEN0193 kind: an oscillator and a rectifier, so that wet soil means a low voltage.

Sources: DFRobot wiki SEN0193 (0 to 3.0 V, 5 mA; the two readings in air and in water, 520 and 260 of 1023 at 5 V); settling in
about 150 ms (several published measurements). The truth is the index between those two; unit by unit the voltages differ.
"""

from __future__ import annotations

from math import exp
from typing import Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian
from hardware.virtual_board.probes.faults import Source, disturbed
from hardware.virtual_board.probes.powered import Fitting, PoweredProbe

AIR_MV = 2540.0
WATER_MV = 1270.0

_SETTLING_US = 150_000
_NOISE_UV = 2_500.0
_SUPPLY_UV = 3_300_000


class Capacitive(PoweredProbe):
    """One probe on a gated supply. Its two voltages lie near `AIR_MV` and `WATER_MV`."""

    def __init__(self, index: Source, **fitting: Unpack[Fitting]) -> None:
        super().__init__(**fitting)
        self._index = index
        self.air_mv = AIR_MV + self.tolerance * between(-110.0, 110.0, *self.dice, "air")
        self.water_mv = WATER_MV + self.tolerance * between(-110.0, 110.0, *self.dice, "water")
        self._noise_uv = self.tolerance * _NOISE_UV
        self._asked = 0

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        now_s = now_us / 1e6
        active = self.faults.active(now_s)
        index = disturbed(self._index, active, now_s)
        if self.powered_at_us is None or Fault.DISCONNECTED in active or index is None:
            return 0
        if Fault.SHORT in active:
            return _SUPPLY_UV
        settled = 1 - exp(-(now_us - self.powered_at_us) / _SETTLING_US)
        self._asked += 1
        noise_uv = self._noise_uv * gaussian(*self.dice, "adc", now_us, self._asked)
        clean_uv = 1000 * (self.air_mv + (self.water_mv - self.air_mv) * index) * settled
        return max(round(clean_uv + noise_uv), 0)

"""A contact at the end of a cable, with one resistor in series and one in parallel, as the ADC pin under its pull-up sees it.

Source: Ohm's law. 1 % resistors; a float switch bounces for a few milliseconds when the water moves it.
"""

from __future__ import annotations

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian, uniform
from hardware.virtual_board.probes.faults import FaultSwitch, Source, disturbed

_ADC_NOISE_UV = 1_500.0
_CONTACT_OHM = 0.5


class Contact:
    """`is_closed` gives 1 or 0. `tolerance` scales how far the resistors are off, and the noise."""

    def __init__(
        self,
        is_closed: Source,
        *,
        power_pin: int,
        pull_ohm: float,
        series_ohm: float,
        parallel_ohm: float,
        supply_uv: int,
        serial: str,
        seed: int = 0,
        tolerance: float = 1.0,
        faults: FaultSwitch | None = None,
    ) -> None:
        self.faults = faults or FaultSwitch()
        self._is_closed = is_closed
        self._power_pin = power_pin
        self._supply_uv = supply_uv
        self._dice = (seed, serial)
        self._pull_ohm, self._series_ohm, self._parallel_ohm = (
            ohm * (1 + tolerance * between(-0.008, 0.008, *self._dice, name))
            for name, ohm in (
                ("pull", pull_ohm),
                ("series", series_ohm),
                ("parallel", parallel_ohm),
            )
        )
        self._noise_uv = tolerance * _ADC_NOISE_UV
        self._asked = 0

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        if not levels.get(self._power_pin):
            return 0
        self._asked += 1
        ohm = self._resistance(now_us / 1e6)
        share = 1.0 if ohm is None else ohm / (ohm + self._pull_ohm)
        noise_uv = self._noise_uv * gaussian(*self._dice, "adc", now_us, self._asked)
        return min(max(round(self._supply_uv * share + noise_uv), 0), self._supply_uv)

    def _resistance(self, now_s: float) -> float | None:
        """Ω between the cable's wires; None: endless."""
        active = self.faults.active(now_s)
        is_closed = disturbed(self._is_closed, active, now_s)
        if Fault.SHORT in active:
            return _CONTACT_OHM
        if Fault.DISCONNECTED in active or is_closed is None:
            return None
        if Fault.BOUNCE in active:
            is_closed = uniform(*self._dice, "bounce", self._asked) < 0.5
        return self._series_ohm + (_CONTACT_OHM if is_closed else self._parallel_ohm)

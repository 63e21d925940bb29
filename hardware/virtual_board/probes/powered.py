"""What every probe with a supply of its own has in common: since when it has one, its faults, and its dice."""

from __future__ import annotations

from typing import Required, TypedDict

from hardware.virtual_board.probes.faults import FaultSwitch

_ALWAYS_US = -(10**12)  # long before any simulated time: warmed up and settled


class Fitting(TypedDict, total=False):
    """How one part is fitted. `power_pin` None: always powered.

    `tolerance` scales its errors and noise: 1 as built, 0 the ideal part of the data sheet.
    """

    serial: Required[str]
    seed: int
    power_pin: int | None
    tolerance: float
    faults: FaultSwitch | None


class PoweredProbe:
    """One part. `powered_at_us`: since when it has its supply, None without one."""

    def __init__(
        self,
        *,
        serial: str,
        seed: int = 0,
        power_pin: int | None = None,
        tolerance: float = 1.0,
        faults: FaultSwitch | None = None,
    ) -> None:
        self.faults = faults or FaultSwitch()
        self.dice = (seed, serial)
        self.tolerance = tolerance
        self._power_pin = power_pin
        self.powered_at_us: int | None = _ALWAYS_US if power_pin is None else None

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        """A GPIO has another level; other pins than the supply's are passed over."""
        if pin != self._power_pin:
            return
        if not level:
            self.powered_at_us = None
            self.switched_off()
        elif self.powered_at_us is None:
            self.powered_at_us = now_us
            self.switched_on(now_us)

    def switched_on(self, now_us: int) -> None:
        """The supply has come."""

    def switched_off(self) -> None:
        """The supply has gone."""

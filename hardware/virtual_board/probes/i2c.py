"""What every I²C probe of ours has in common: supply, silence, and a bus that somebody keeps low."""

from __future__ import annotations

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.faults import FaultSwitch


class I2cProbe:
    """One probe under one address. It acknowledges nothing without its supply; `power_pin` None: always powered."""

    warm_up_us = 0

    def __init__(
        self, *, serial: str, seed: int, power_pin: int | None, faults: FaultSwitch | None
    ) -> None:
        self.faults = faults or FaultSwitch()
        self.dice = (seed, serial)
        self._power_pin = power_pin
        self.powered_at_us: int | None = None if power_pin is not None else -(10**12)

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        if pin != self._power_pin:
            return
        if not level:
            self.powered_at_us = None
        elif self.powered_at_us is None:
            self.powered_at_us = now_us
            self.switched_on(now_us)

    def switched_on(self, now_us: int) -> None:
        """The supply has come."""

    def holds_line(self, now_us: int) -> bool:
        return self.powered_at_us is not None and Fault.BUS_HELD in self.faults.active(now_us / 1e6)

    def is_awake(self, now_us: int) -> bool:
        """Whether it acknowledges its address."""
        return self.powered_at_us is not None and now_us - self.powered_at_us >= self.warm_up_us

"""What every I²C probe of ours has in common: supply, silence, and a bus that somebody keeps low."""

from __future__ import annotations

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.powered import PoweredProbe


class I2cProbe(PoweredProbe):
    """One probe under one address. It acknowledges nothing without its supply."""

    warm_up_us = 0

    def holds_line(self, now_us: int) -> bool:
        return self.powered_at_us is not None and Fault.BUS_HELD in self.faults.active(now_us / 1e6)

    def is_awake(self, now_us: int) -> bool:
        """Whether it acknowledges its address."""
        return self.powered_at_us is not None and now_us - self.powered_at_us >= self.warm_up_us

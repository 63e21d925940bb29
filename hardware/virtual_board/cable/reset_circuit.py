"""The auto-reset circuit of a DevKit: two transistors between the lines of the serial port and EN and IO0 of the chip.

    DTR  RTS   EN    IO0        (asserted = 1; ESP32-DevKitC V4 schematics, Espressif)
     0    0    high  high
     1    1    high  high
     1    0    high  low
     0    1    low   high

EN rises slowly, over a capacitor: a client that sets one line after the other passes through "both asserted" on its way
from reset to download, and the chip must not start there. On a cable that takes microseconds; over RFC 2217 every step
takes the client 50 ms and more, so the capacitor here is a big one, and IO0 counts as low when it was so at any time
while EN rose. Pure: the moments are arguments.
"""

from __future__ import annotations

RISE_S = 0.25


class ResetCircuit:
    """Where the lines stand, and what becomes of the chip by that."""

    def __init__(self) -> None:
        self.is_held = False
        self._started_rising_s = 0.0
        self._is_rising = False
        self._was_io0_low = False

    def set_lines(self, *, dtr: bool, rts: bool, now_s: float) -> None:
        """The lines are so from now on."""
        if rts and not dtr:
            self.is_held, self._is_rising = True, False
            return
        if self.is_held and not self._is_rising:
            self._is_rising, self._was_io0_low = True, False
            self._started_rising_s = now_s
        self._was_io0_low = self._was_io0_low or (dtr and not rts)

    def starts_in_s(self, now_s: float) -> float | None:
        """How long until the chip starts, 0 when it may now; None while it is held, or runs already."""
        if not self._is_rising:
            return None
        return max(0.0, self._started_rising_s + RISE_S - now_s)

    def start(self) -> bool:
        """The chip starts; whether into its loader."""
        self.is_held = self._is_rising = False
        return self._was_io0_low

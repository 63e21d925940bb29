"""A probe on a 4–20 mA loop, seen as the voltage over a shunt by an ADS1115: microamperes.

NAMUR NE 43: below 3.6 and above 21 mA the probe says that it is ill. Nearly nothing is a broken loop, for what is fed by
the loop draws some milliamperes as long as it works; far above what any probe lets through, its wires touch.
"""

import time

from micropython import const

from node import errors
from node.bus.ads1115 import CONVERSION_MS, UV_PER_STEP, Ads1115
from node.errors import SensorError
from node.sensors.supplied import Supplied

_LOWEST_UA = const(3_600)
_HIGHEST_UA = const(21_000)
_BROKEN_UA = const(1_000)
_SHORTED_UA = const(30_000)
_ATTEMPTS = const(3)


class CurrentLoop(Supplied):
    def __init__(self, pins, options):
        super().__init__(pins, options)
        self._adc = None  # type: Ads1115 | None
        self._attempts = 0

    def ready_in(self, now_ms):
        return max(0, self._wait_ms - time.ticks_diff(now_ms, self._since_ms))

    def read(self, deadline):
        """(microamperes,), or None while the ADC converts. Raises SensorError: absent, timeout, frame, open, short, range."""
        if self._adc is None:
            self._adc = Ads1115(self._pins, self._options)
            self._adc.begin()
            return self._later()
        steps = self._adc.steps()
        if steps is None:
            return self._later()
        return (_checked(microamperes(steps, self._options["shunt_milliohm"])),)

    def _later(self):
        self._attempts += 1
        if self._attempts > _ATTEMPTS:
            raise SensorError(errors.TIMEOUT)
        self._wait(time.ticks_ms(), CONVERSION_MS)


def microamperes(steps, shunt_milliohm):
    """The current through the shunt, to the nearest microampere."""
    return (steps * UV_PER_STEP * 1_000 + shunt_milliohm // 2) // shunt_milliohm


def _checked(current_ua):
    if current_ua < _BROKEN_UA:
        raise SensorError(errors.OPEN)
    if current_ua > _SHORTED_UA:
        raise SensorError(errors.SHORT)
    if not _LOWEST_UA <= current_ua <= _HIGHEST_UA:
        raise SensorError(errors.RANGE)
    return current_ua


Driver = CurrentLoop

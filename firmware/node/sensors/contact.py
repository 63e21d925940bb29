"""A supervised contact (float switch, reed): open or closed, and whether its cable is whole.

    pin power ──[ pull ]──┬── cable ──[ series ]──┬── contact ──┬── ground
                          └── pin adc             └─[ parallel ]┘

Both resistors sit at the contact. Closed is `series`, open is `series` + `parallel`; a cut cable is endless, a short is nothing.
It tells a state, not how often it changed: in deep sleep nobody counts.
"""

import time

import machine
from micropython import const

from node import errors
from node.bus import adc
from node.errors import SensorError

_SETTLE_MS = const(2)
_LOOKS = const(5)
_PAUSE_MS = const(5)


class Contact:
    """`options`: supply_uv, pull_ohm, series_ohm, parallel_ohm."""

    def __init__(self, pins, options):
        self._power = machine.Pin(pins["power"], machine.Pin.IN)
        self._adc = pins["adc"]
        self._options = options

    def start(self, now_ms):
        pass

    def ready_in(self, now_ms):
        return 0

    def read(self, deadline):
        """(1,) closed or (0,) open. Raises SensorError: short, open (cable), range (no such resistance), spread (it bounces)."""
        self._power.init(machine.Pin.OUT, value=1)
        time.sleep_ms(_SETTLE_MS)
        first = self._look()
        for _ in range(_LOOKS - 1):
            time.sleep_ms(_PAUSE_MS)
            if self._look() != first:
                raise SensorError(errors.SPREAD)
        if isinstance(first, str):
            raise SensorError(first)
        return (first,)

    def stop(self):
        self._power.init(machine.Pin.IN)

    def _look(self):
        options = self._options
        uv = adc.read_uv(self._adc)
        ohm = adc.ratio_ohm(options["pull_ohm"], uv, options["supply_uv"] - uv)
        return state(ohm, options["series_ohm"], options["parallel_ohm"])


def state(ohm, series_ohm, parallel_ohm):
    """1 closed, 0 open, or a reason; a quarter either way is left to resistors, contact and converter."""
    opened_ohm = series_ohm + parallel_ohm
    if ohm < series_ohm // 2:
        return errors.SHORT
    if _is_near(ohm, series_ohm):
        return 1
    if _is_near(ohm, opened_ohm):
        return 0
    return errors.OPEN if ohm > 2 * opened_ohm else errors.RANGE


def _is_near(ohm, nominal_ohm):
    return 4 * abs(ohm - nominal_ohm) <= nominal_ohm


Driver = Contact

"""Atlas Scientific EZO for pH, dissolved oxygen or conductivity: the reading as a whole number of its last digit.

The circuit forgets the water's temperature when its supply goes, so every wake tells it before it measures: what another
probe measured in this wake, or the circuit's own default. Which of the two it was can be seen in the pack.
"""

import time

from micropython import const

from node import errors
from node.bus.i2c_ezo import Ezo, scaled
from node.errors import SensorError
from node.sensors.supplied import Supplied

_TELL_MS = const(300)
_BUSY_MS = const(100)
_BUSY_LIMIT = const(20)


class EzoProbe(Supplied):
    """`given`: the water's temperature in hundredths of a degree, or None; set before the first `read`."""

    def __init__(self, pins, options):
        super().__init__(pins, options)
        self._ezo = Ezo(pins, options)
        self._is_idle = True
        self._is_measuring = False
        self._busy = 0
        self.given = None  # type: int | None

    def ready_in(self, now_ms):
        return max(0, self._wait_ms - time.ticks_diff(now_ms, self._since_ms))

    def read(self, deadline):
        """(whole number,), or None when the circuit has to be asked again. Raises SensorError: absent, timeout, frame, range."""
        if self._is_idle:
            self._is_idle = False
            self._tell_temperature()
            return None
        text = self._ezo.answer()
        if text is None:
            self._wait_on()
            return None
        if not self._is_measuring:
            self._measure(text)
            return None
        value = scaled(text.split(",")[0], self._options["digits"])
        if not self._options["lowest"] <= value <= self._options["highest"]:
            raise SensorError(errors.RANGE)
        return (value,)

    def _wait_on(self):
        self._busy += 1
        if self._busy > _BUSY_LIMIT:
            raise SensorError(errors.TIMEOUT)
        self._wait(time.ticks_ms(), _BUSY_MS)

    def _tell_temperature(self):
        centi = self._options["default_centi"] if self.given is None else self.given
        sign = "-" if centi < 0 else ""
        self._ezo.command("T,%s%d.%02d" % (sign, abs(centi) // 100, abs(centi) % 100))
        self._wait(time.ticks_ms(), _TELL_MS)

    def _measure(self, text):
        if text:
            # To "T,…" it only says that it is done.
            raise SensorError(errors.FRAME)
        self._is_measuring = True
        self._ezo.command("R")
        self._wait(time.ticks_ms(), self._options["measure_ms"])


Driver = EzoProbe

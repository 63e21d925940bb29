"""Optical oxygen probe on Modbus RTU (SEN0681): saturation %, oxygen mg/L, temperature °C, each a float32.

The four bytes go out as the probe sent them; only the test for the range looks at the number.
"""

import struct
import time

from node import errors
from node.bus.modbus import Modbus
from node.errors import SensorError
from node.power import Supply

_ATTEMPTS = 3
# (lowest, highest) by register: the probe's own ranges; water at its freezing point may read a little below 0 °C.
_RANGES = {0: (0, 200), 2: (0, 20), 4: (-2, 50)}


class OxygenProbe:
    def __init__(self, pins, options):
        self._pins = pins
        self._options = options
        self._supply = Supply(pins)
        self._ready_ms = options["warm_up_ms"] + options["stabilise_ms"] + options["measure_ms"]
        self._started_ms = 0
        self._modbus = None

    def start(self, now_ms):
        """Switch the probe on."""
        self._supply.on()
        self._started_ms = now_ms

    def ready_in(self, now_ms):
        return max(0, self._ready_ms - time.ticks_diff(now_ms, self._started_ms))

    def read(self, deadline):
        """Four bytes, or a reason, for each register. Raises SensorError: timeout, frame, crc."""
        options = self._options
        registers = options["registers"]
        first = min(registers)
        content = self._read(first, max(registers) + 2 - first, deadline)
        return [_checked(register, content[2 * (register - first) :][:4]) for register in registers]

    def stop(self):
        if self._modbus is not None:
            self._modbus.close()
        self._supply.off()

    def _read(self, first, count, deadline):
        options = self._options
        self._modbus = Modbus(self._pins, options)
        for attempt in range(_ATTEMPTS):
            try:
                return self._modbus.read_registers(
                    options["address"], options["function"], first, count, deadline
                )
            except SensorError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise SensorError(errors.TIMEOUT)


def _checked(register, content):
    (value,) = struct.unpack(">f", content)
    lowest, highest = _RANGES.get(register, (-1_000_000, 1_000_000))
    # Not a number fails every comparison.
    return content if lowest <= value <= highest else errors.RANGE


Driver = OxygenProbe

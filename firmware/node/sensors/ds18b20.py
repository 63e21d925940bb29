"""Maxim DS18B20, on three wires and always supplied: the signed sixteenths of a degree of its scratchpad."""

import struct
import time

from micropython import const

from node import errors
from node.bus.one_wire import OneWire
from node.errors import SensorError

_CONVERT_T = const(0x44)
_READ_SCRATCHPAD = const(0xBE)
_SCRATCHPAD_BYTES = const(9)
_POWER_ON_VALUE = const(1360)  # 85.0 °C: nothing was converted since power came on
_LOWEST = const(-880)
_HIGHEST = const(2000)
_ATTEMPTS = const(3)


class DS18B20:
    def __init__(self, pins, options):
        self._bus = OneWire(pins["data"])
        self._convert_ms = options["convert_ms"]
        self._started_ms = 0
        self._is_second = False

    def start(self, now_ms):
        """Begin a conversion. Raises SensorError(absent)."""
        self._bus.command(_CONVERT_T)
        self._started_ms = now_ms

    def ready_in(self, now_ms):
        return max(0, self._convert_ms - time.ticks_diff(now_ms, self._started_ms))

    def read(self, deadline):
        """(sixteenths,), or None when it has to convert once more. Raises SensorError: absent, short, crc, por, range."""
        scratchpad = self._scratchpad()
        (raw,) = struct.unpack_from("<h", scratchpad)
        if raw == _POWER_ON_VALUE:
            if self._is_second:
                raise SensorError(errors.POWER_ON_RESET)
            self._is_second = True
            self.start(time.ticks_ms())
            return None
        if not _LOWEST <= raw <= _HIGHEST:
            raise SensorError(errors.RANGE)
        return (raw,)

    def stop(self):
        pass

    def _scratchpad(self):
        buffer = bytearray(_SCRATCHPAD_BYTES)
        for attempt in range(_ATTEMPTS):
            try:
                self._bus.command(_READ_SCRATCHPAD)
                self._bus.read(buffer)
                return buffer
            except SensorError as error:
                if error.code != errors.CRC or attempt == _ATTEMPTS - 1:
                    raise
        raise SensorError(errors.CRC)


Driver = DS18B20

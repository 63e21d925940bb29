"""Maxim DS18B20, on three wires and always supplied: the signed sixteenths of a degree of its scratchpad."""

import struct
import time

from micropython import const

from node import errors
from node.bus.one_wire import OneWire
from node.errors import SensorError

_CONVERT_T = const(0x44)
_READ_SCRATCHPAD = const(0xBE)
_WRITE_SCRATCHPAD = const(0x4E)
_SCRATCHPAD_BYTES = const(9)
_POWER_ON_VALUE = const(1360)  # 85.0 °C: nothing was converted since power came on
_CONFIGURATION = const(4)
_TWELVE_BITS = const(0x7F)
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
        """(sixteenths,), or None when it has to convert once more. Raises SensorError: absent, short, crc, por, range, frame."""
        scratchpad = self._scratchpad()
        (raw,) = struct.unpack_from("<h", scratchpad)
        reason = _once_more(raw, scratchpad[_CONFIGURATION])
        if reason is not None:
            if self._is_second:
                raise SensorError(reason)
            self._is_second = True
            if reason == errors.FRAME:
                self._bus.command(_WRITE_SCRATCHPAD, scratchpad[2:4] + bytes((_TWELVE_BITS,)))
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


def _once_more(raw, configuration):
    """Why this reading does not count, if a second conversion may put it right; else None."""
    if configuration != _TWELVE_BITS:
        # With less than twelve bits the last ones say nothing (data sheet, table 2).
        return errors.FRAME
    return errors.POWER_ON_RESET if raw == _POWER_ON_VALUE else None


Driver = DS18B20

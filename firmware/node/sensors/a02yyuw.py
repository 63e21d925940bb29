"""DFRobot A02YYUW: looks down at the water by ultrasound and tells its distance ten times a second, asked or not.

A frame is FF, distance in mm (high byte, low byte) and the low byte of the sum of these three. `tx` is wired to the probe's RX:
at rest it is high, which chooses its steadier, processed values.
"""

import time

import machine
from micropython import const

from node import errors
from node.errors import SensorError
from node.sensors.supplied import Supplied

_BAUD = const(9600)
_HEAD = const(0xFF)
_FRAME = const(4)
# Nearer it is blind; above come its signs for "no echo" and "another one disturbs me" (FFFDh, FFFEh).
_BLIND_MM = const(30)
_FARTHEST_MM = const(4500)
_WINDOW_MS = const(4_000)
_NAP_MS = const(20)


class A02yyuw(Supplied):
    """`options`: uart, warm_up_ms, readings, spread_mm."""

    def read(self, deadline):
        """(mm,), the middle one of several. Raises SensorError: absent, frame, crc, range, timeout, spread."""
        pins, options = self._pins, self._options
        uart = machine.UART(
            options["uart"],
            baudrate=_BAUD,
            bits=8,
            parity=None,
            stop=1,
            tx=pins["tx"],
            rx=pins["rx"],
            timeout=0,
        )
        try:
            heard = _Heard()
            limit = deadline.within(_WINDOW_MS)
            while len(heard.distances_mm) < options["readings"] and limit.left_ms():
                heard.take(uart.read() or b"")
                time.sleep_ms(_NAP_MS)
        finally:
            uart.deinit()
        if len(heard.distances_mm) < options["readings"]:
            raise SensorError(heard.reason())
        return (middle(heard.distances_mm, options["spread_mm"]),)


class _Heard:
    """What came so far: distances within the range, and signs of what else."""

    def __init__(self):
        self.distances_mm = []
        self._rest = b""
        self._is_out_of_range = False
        self._is_damaged = False
        self._is_silent = True

    def take(self, received):
        if received:
            self._is_silent = False
        rest = self._rest + received
        while len(rest) >= _FRAME:
            if rest[0] != _HEAD:
                rest = rest[1:]
            elif sum(rest[: _FRAME - 1]) & 0xFF != rest[_FRAME - 1]:
                self._is_damaged = True
                rest = rest[1:]
            else:
                self._note(rest[1] << 8 | rest[2])
                rest = rest[_FRAME:]
        self._rest = rest

    def reason(self):
        """Why there are too few distances."""
        if self._is_silent:
            return errors.ABSENT
        if self._is_out_of_range:
            return errors.RANGE
        if self.distances_mm:
            return errors.TIMEOUT
        return errors.CRC if self._is_damaged else errors.FRAME

    def _note(self, distance_mm):
        if _BLIND_MM < distance_mm <= _FARTHEST_MM:
            self.distances_mm.append(distance_mm)
        else:
            self._is_out_of_range = True


def middle(distances_mm, spread_mm):
    """The median; most have to lie within `spread_mm` of it. Raises SensorError(spread)."""
    count = len(distances_mm)
    median = sorted(distances_mm)[count // 2]
    if 2 * len([one for one in distances_mm if abs(one - median) <= spread_mm]) <= count:
        raise SensorError(errors.SPREAD)
    return median


Driver = A02yyuw

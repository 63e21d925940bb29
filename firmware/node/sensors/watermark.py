"""Irrometer Watermark 200SS: ohms, from a pulse in each polarity.

    pin a ──[ probe R ]──┬──[ series Rx ]── pin b
                         └── pin adc

a high: R_A = Rx (Vs − V1) / V1. b high: R_B = Rx V2 / (Vs − V2). Their mean goes out; their spread is a fault sign. Direct
current would move the electrodes' ions, hence short pulses, opposite ones in pairs, and pins that float in between.
"""

import time

import machine
from micropython import const

from node import errors
from node.bus import adc
from node.errors import SensorError

_SHORT_OHM = const(300)
_OPEN_OHM = const(35_000)
# The ADC ends at 3.1 V: with a nearly shorted probe the first polarity can only say "below this".
_CLIPPED_UV = const(3_000_000)
_SPREAD_OHM = const(200)
_SPREAD_PERCENT = const(15)


class Watermark:
    def __init__(self, pins, options):
        self._a = machine.Pin(pins["a"], machine.Pin.IN)
        self._b = machine.Pin(pins["b"], machine.Pin.IN)
        self._adc = pins["adc"]
        self._series_ohm = options["series_ohm"]
        self._supply_uv = options["supply_uv"]
        self._pulse_us = options["pulse_us"]
        self._pause_ms = options["pause_ms"]
        self._started_ms = 0
        self._first_uv = 0

    def start(self, now_ms):
        self._first_uv = self._pulse(self._a, self._b)
        self._started_ms = now_ms

    def ready_in(self, now_ms):
        return max(0, self._pause_ms - time.ticks_diff(now_ms, self._started_ms))

    def read(self, deadline):
        """(ohms,). Raises SensorError: short, open, spread."""
        second_uv = self._pulse(self._b, self._a)
        return (resistance_ohm(self._first_uv, second_uv, self._series_ohm, self._supply_uv),)

    def stop(self):
        self._a.init(machine.Pin.IN)
        self._b.init(machine.Pin.IN)

    def _pulse(self, high, low):
        low.init(machine.Pin.OUT, value=0)
        high.init(machine.Pin.OUT, value=1)
        try:
            time.sleep_us(self._pulse_us)
            return adc.read_uv(self._adc)
        finally:
            high.init(machine.Pin.IN)
            low.init(machine.Pin.IN)


def resistance_ohm(first_uv, second_uv, series_ohm, supply_uv):
    """The probe's resistance from both polarities' voltages. Raises SensorError: short, open, spread."""
    first = adc.ratio_ohm(series_ohm, supply_uv - first_uv, first_uv)
    second = adc.ratio_ohm(series_ohm, second_uv, supply_uv - second_uv)
    if first_uv >= _CLIPPED_UV and second <= first + _SPREAD_OHM:
        first = second
    if first < _SHORT_OHM and second < _SHORT_OHM:
        raise SensorError(errors.SHORT)
    if first >= _OPEN_OHM and second >= _OPEN_OHM:
        raise SensorError(errors.OPEN)
    mean = (first + second) // 2
    if abs(first - second) > _SPREAD_OHM + mean * _SPREAD_PERCENT // 100:
        raise SensorError(errors.SPREAD)
    if mean < _SHORT_OHM:
        raise SensorError(errors.SHORT)
    if mean >= _OPEN_OHM:
        raise SensorError(errors.OPEN)
    return mean


Driver = Watermark

"""ADC1 through the chip's calibration. ADC2 is out of use while the radio is on, so nothing here may need it."""

import machine
from micropython import const

_ENDLESS_OHM = const(1_000_000)


def read_uv(pin):
    """Microvolts at a pin, up to about 3.1 V; below about 0.1 V it says 0."""
    return machine.ADC(machine.Pin(pin), atten=machine.ADC.ATTN_11DB).read_uv()


def median_uv(pin, count):
    """The middle one of `count` readings."""
    return sorted([read_uv(pin) for _ in range(count)])[count // 2]


def middle_uv(pin, count):
    """(median, spread) of `count` readings; the spread leaves out the outer eighths."""
    readings = sorted([read_uv(pin) for _ in range(count)])
    outer = count // 8
    return readings[count // 2], readings[count - 1 - outer] - readings[outer]


def ratio_ohm(known_ohm, over, under):
    """known_ohm · over / under, from 0 to 1 MΩ: the resistor that stands to `known_ohm` as these voltages to each other."""
    if under <= 0:
        return _ENDLESS_OHM
    return min(_ENDLESS_OHM, max(0, (known_ohm * over + under // 2) // under))

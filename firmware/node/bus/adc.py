"""ADC1 through the chip's calibration. ADC2 is out of use while the radio is on, so nothing here may need it."""

import machine


def read_uv(pin):
    """Microvolts at a pin, up to about 3.1 V; below about 0.1 V it says 0."""
    return machine.ADC(machine.Pin(pin), atten=machine.ADC.ATTN_11DB).read_uv()


def median_uv(pin, count):
    """The middle one of `count` readings."""
    return sorted([read_uv(pin) for _ in range(count)])[count // 2]

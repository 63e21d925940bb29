"""TI ADS1115, a 16-bit ADC on I²C: one conversion of one input against ground, at ±4.096 V and 16 per second."""

from micropython import const

from node import errors
from node.bus.i2c import I2cDevice
from node.errors import SensorError

_CONVERSION = const(0)
_CONFIG = const(1)
# OS (begin; reads 1 when done) · MUX 1xx (AINx against GND) · PGA 001 (±4.096 V) · MODE single · 16 SPS · no comparator
_BEGIN = const(0x8000)
_SETTINGS = const(0x4323)
_INPUT_SHIFT = const(12)
_OVERFLOW = const(0x7FFF)

UV_PER_STEP = const(125)
CONVERSION_MS = const(70)  # 62.5 ms, and the 10 % that its clock may be slow


class Ads1115:
    """`options`: i2c, address, input (0–3). `pins`: scl, sda."""

    def __init__(self, pins, options):
        self._device = I2cDevice(pins, options)
        self._settings = _SETTINGS | options["input"] << _INPUT_SHIFT

    def begin(self):
        """Begin a conversion. Raises SensorError: absent, timeout."""
        settings = self._settings | _BEGIN
        self._device.write(bytes((_CONFIG, settings >> 8, settings & 0xFF)))

    def steps(self):
        """The finished conversion in steps of 125 µV, or None while it runs.

        Raises SensorError: absent, timeout, frame (it measures something else: it was reset, or a bit fell over), short (beyond
        what it can measure).
        """
        settings = int.from_bytes(self._device.read_register(_CONFIG, 2), "big")
        if settings & ~_BEGIN != self._settings:
            raise SensorError(errors.FRAME)
        if not settings & _BEGIN:
            return None
        steps = int.from_bytes(self._device.read_register(_CONVERSION, 2), "big")
        if steps == _OVERFLOW:
            raise SensorError(errors.SHORT)
        return steps - 0x10000 if steps & 0x8000 else steps

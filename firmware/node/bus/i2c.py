"""One device on an I²C bus: bytes out and in, and what its silence means."""

from errno import ENODEV

import machine
from micropython import const

from node import errors
from node.errors import SensorError

_FREQUENCY_HZ = const(100_000)
_TIMEOUT_US = const(50_000)


class I2cDevice:
    """`options`: i2c (the bus's number), address. `pins`: scl, sda."""

    def __init__(self, pins, options):
        self._address = options["address"]
        self._bus = machine.I2C(
            options["i2c"],
            scl=machine.Pin(pins["scl"]),
            sda=machine.Pin(pins["sda"]),
            freq=_FREQUENCY_HZ,
            timeout=_TIMEOUT_US,
        )

    def write(self, data):
        """Raises SensorError: absent (nobody acknowledges), timeout (the bus is held)."""
        try:
            self._bus.writeto(self._address, data)
        except OSError as error:
            raise _sensor_error(error)

    def read(self, count):
        """`count` bytes; what a device does not send reads 0xFF. Raises as `write` does."""
        try:
            return self._bus.readfrom(self._address, count)
        except OSError as error:
            raise _sensor_error(error)

    def read_register(self, register, count):
        """`count` bytes from a register. Raises as `write` does."""
        try:
            return self._bus.readfrom_mem(self._address, register, count)
        except OSError as error:
            raise _sensor_error(error)


def _sensor_error(error):
    is_absent = error.args and error.args[0] == ENODEV
    return SensorError(errors.ABSENT if is_absent else errors.TIMEOUT)

"""One device on one 1-Wire pin: commands and replies, with the checks that every device shares."""

import machine
import onewire
from micropython import const

from node import errors
from node.errors import SensorError

_SKIP_ROM = const(0xCC)


class OneWire:
    """A bus with a single device."""

    def __init__(self, pin):
        self._bus = onewire.OneWire(machine.Pin(pin))

    def command(self, code, content=b""):
        """Address the device and give it a command with what belongs to it. Raises SensorError(absent)."""
        if not self._bus.reset():
            raise SensorError(errors.ABSENT)
        self._bus.writebyte(_SKIP_ROM)
        self._bus.writebyte(code)
        self._bus.write(content)

    def read(self, buffer):
        """Fill `buffer`; its last byte is the CRC-8 of those before it.

        Raises SensorError: absent (nobody speaks), short (the line stays low; zeros pass the CRC), crc.
        """
        self._bus.readinto(buffer)
        if all([byte == 0xFF for byte in buffer]):
            raise SensorError(errors.ABSENT)
        if not any(buffer):
            raise SensorError(errors.SHORT)
        if self._bus.crc8(buffer):
            raise SensorError(errors.CRC)

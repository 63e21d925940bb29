"""Atlas Scientific's EZO circuits on I²C: ASCII commands, answered by a status byte, text and a NUL.

There is no checksum: what is not printable, or does not end, is refused; a wrong digit cannot be seen.
"""

from micropython import const

from node import errors
from node.bus.i2c import I2cDevice
from node.errors import SensorError

_DONE = const(1)
_BUSY = const(254)
# Status, text, NUL: the longest reading, with every further figure switched on, is shorter.
_ANSWER_BYTES = const(40)


class Ezo:
    """One circuit. Every command needs its time before `answer` can give something."""

    def __init__(self, pins, options):
        self._device = I2cDevice(pins, options)

    def command(self, text):
        """Raises SensorError: absent, timeout."""
        self._device.write(text.encode())

    def answer(self):
        """The text of the answer, maybe empty; None while the circuit is busy.

        Raises SensorError: absent, timeout, frame (it did not understand, has nothing to say, or what it says is damaged).
        """
        data = self._device.read(_ANSWER_BYTES)
        if data[0] == _BUSY:
            return None
        end = data.find(b"\0", 1)
        if data[0] != _DONE or end < 0:
            raise SensorError(errors.FRAME)
        text = data[1:end]
        if not all([32 <= byte < 127 for byte in text]):
            raise SensorError(errors.FRAME)
        return str(text, "ascii")


def scaled(text, digits):
    """The decimal number `text` times 10^digits, exactly. Raises SensorError(frame) when it is none, or a finer one."""
    is_negative = text[:1] == "-"
    whole, _, part = text[is_negative:].partition(".")
    if not whole.isdigit() or len(whole) > 7 or len(part) > digits or not (part or "0").isdigit():
        raise SensorError(errors.FRAME)
    number = int(whole + part + "0" * (digits - len(part)))
    return -number if is_negative else number

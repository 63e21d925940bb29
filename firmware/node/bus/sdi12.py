"""SDI-12 1.4: one data wire, 1200 baud, 7 bits, even parity, negative logic; sensors sleep until a break wakes them.

The wire hangs on a UART with inverted lines, behind a three-state driver that `de` enables, and on its receiver. Every command
is sent after a break of its own and tried three times. What measures says how long it takes, and sends its values with a CRC.
"""

import time

import machine
from micropython import const

from node import errors
from node.errors import SensorError

_BAUD = const(1200)
# A zero at half the speed keeps the wire at spacing for nine bits: 15 ms, where a break has to last 12. What `sendbreak`
# does differs between versions of MicroPython, and the newest pulls the pin low: on an inverted line that is no break.
_BREAK_BAUD = const(600)
_MARK_MS = const(9)  # at least 8.33 ms before the first character
# The echo of our own command is over; a sensor waits 8.33 ms before it answers.
_TURN_MS = const(3)
# An answer begins within 15 ms, a character takes 8.33 ms, and the gap between two is at most 1.66 ms.
_FIRST_MS = const(40)
_GAP_MS = const(20)
_LONGEST_LINE = const(96)
_ATTEMPTS = const(3)
_PARTS = const(10)  # D0 to D9
_LONGEST_VALUE = const(9)  # sign, seven digits, point


class Sdi12:
    """One wire with its sensors. `pins`: tx, rx, de."""

    def __init__(self, pins, uart):
        self._enable = machine.Pin(pins["de"], machine.Pin.OUT, value=0)
        self._uart = machine.UART(uart, tx=pins["tx"], rx=pins["rx"])
        self._speed(_BAUD)

    def close(self):
        self._enable.value(0)
        self._uart.deinit()

    def query_address(self, deadline):
        """The address of the only sensor on the wire. Raises SensorError: absent, frame."""
        return self._ask("?!", _address_of, deadline)

    def start(self, address, kind, deadline):
        """Begin a measurement, `MC` or `CC`: (seconds until it is ready at the latest, number of values).

        Raises SensorError: absent, frame, error (it says that it has nothing to measure).
        """
        seconds, count = self._ask(
            address + kind + "!", lambda line: _promise(line, address, kind), deadline
        )
        if not count:
            raise SensorError(errors.ERROR)
        return seconds, count

    def await_request(self, address, seconds, deadline):
        """Wait until the sensor says that an `MC` is ready, or until it must be."""
        try:
            self._line(seconds * 1000 + _FIRST_MS, deadline)
        except SensorError:
            # A sensor that is not heard is asked for its values all the same.
            pass

    def values(self, address, count, deadline):
        """The values of the last measurement as texts with their signs. Raises SensorError: absent, timeout, crc, frame."""
        found = []
        for part in range(_PARTS):
            command = "{}D{}!".format(address, part)
            more = self._ask(command, lambda line: values_of(line, address), deadline)
            if not more:
                raise SensorError(errors.TIMEOUT)
            found.extend(more)
            if len(found) >= count:
                break
        if len(found) != count:
            raise SensorError(errors.FRAME)
        return found

    def _ask(self, command, understand, deadline):
        """What `understand` makes of the answer to a command."""
        for attempt in range(_ATTEMPTS):
            try:
                self._break(deadline)
                self._send(command, deadline)
                return understand(self._line(_FIRST_MS, deadline))
            except SensorError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise SensorError(errors.ABSENT)

    def _break(self, deadline):
        self._enable.value(1)
        self._speed(_BREAK_BAUD)
        self._uart.write(b"\x00")
        self._wait_sent(deadline)
        self._speed(_BAUD)
        time.sleep_ms(_MARK_MS)

    def _send(self, command, deadline):
        try:
            self._uart.write(command)
            self._wait_sent(deadline)
        finally:
            # Within 7.5 ms the wire belongs to the sensor.
            self._enable.value(0)
        time.sleep_ms(_TURN_MS)
        self._uart.read()

    def _line(self, first_ms, deadline):
        """One line without its end. Raises SensorError: absent (silence), frame (it breaks off or does not end)."""
        received = bytearray()
        limit = deadline.within(first_ms)
        while len(received) < _LONGEST_LINE:
            waiting = self._uart.any()
            if waiting:
                received.extend(self._uart.read(waiting) or b"")
                if received[-2:] == b"\r\n":
                    return str(bytes([byte & 0x7F for byte in received[:-2]]), "ascii")
                limit = deadline.within(_GAP_MS)
            elif limit.left_ms():
                time.sleep_ms(1)
            else:
                break
        raise SensorError(errors.FRAME if received else errors.ABSENT)

    def _speed(self, baud):
        self._uart.init(
            baudrate=baud,
            bits=7,
            parity=0,
            stop=1,
            timeout=0,
            timeout_char=0,
            invert=machine.UART.INV_TX | machine.UART.INV_RX,
        )

    def _wait_sent(self, deadline):
        while not self._uart.txdone():
            deadline.check("uart")
            time.sleep_us(200)


def values_of(line, address):
    """The texts of the values in an answer to `D`, wherever it begins behind noise. Raises SensorError: crc, frame."""
    start = line.find(address)
    while start >= 0:
        content = line[start:-3]
        if content and crc_text(content) == line[-3:]:
            return _texts(content[1:])
        start = line.find(address, start + 1)
    raise SensorError(errors.CRC)


def _texts(content):
    found = []
    for character in content:
        if character in "+-":
            found.append(character)
        elif not found:
            raise SensorError(errors.FRAME)
        else:
            found[-1] += character
    for text in found:
        if len(text) > _LONGEST_VALUE or not text[1:].replace(".", "", 1).isdigit():
            raise SensorError(errors.FRAME)
    return found


def scaled(text, decimals):
    """A value's text as an integer in units of 10^−decimals, rounded: ("+23.84", 1) is 238."""
    whole, _, fraction = text[1:].partition(".")
    fraction += "0" * (decimals + 1)
    number = (int((whole or "0") + fraction[: decimals + 1]) + 5) // 10
    return -number if text[0] == "-" else number


def crc_text(content):
    """The three characters that follow `content` (SDI-12 1.4, 4.4.12): a CRC-16 in six-bit pieces."""
    crc = 0
    for character in content:
        crc ^= ord(character)
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return "".join([chr(0x40 | crc >> shift & 0x3F) for shift in (12, 6, 0)])


def _address_of(line):
    line = line[-1:]
    if not (line.isalpha() or line.isdigit()):
        raise SensorError(errors.FRAME)
    return line


def _promise(line, address, kind):
    """(seconds, values): `atttn` of a measurement, `atttnn` of a concurrent one."""
    length = 6 if kind[0] == "C" else 5
    line = line[-length:]
    if len(line) != length or line[0] != address or not line[1:].isdigit():
        raise SensorError(errors.FRAME)
    return int(line[1:4]), int(line[4:])

"""Modbus RTU over RS485, as a master: one request, one reply, each with a limit.

Flushed before every request; the reply is found by address, function, length and CRC among whatever else is on the
line (an echo, noise of the driver switching).
"""

import struct
import time

import machine
from micropython import const

from node import errors
from node.errors import SensorError

_READ_HOLDING = const(3)
_EXCEPTION = const(0x80)
_REPLY_MS = const(300)
_LONGEST_NOISE = const(64)


class Modbus:
    """`options`: uart, baud. `pins`: tx, rx, and de (the RS485 driver's enable) where there is one."""

    def __init__(self, pins, options):
        self._baud = options["baud"]
        self._uart = machine.UART(
            options["uart"],
            baudrate=self._baud,
            bits=8,
            parity=None,
            stop=1,
            tx=pins["tx"],
            rx=pins["rx"],
        )
        self._enable = machine.Pin(pins["de"], machine.Pin.OUT, value=0) if "de" in pins else None

    def read_registers(self, address, function, first, count, deadline):
        """The registers' bytes. Raises SensorError: timeout (silence), frame (no such reply), crc."""
        request = struct.pack(">BBHH", address, function, first, count)
        self._send(request + _crc_bytes(request), deadline)
        return self._receive(address, function, 2 * count, deadline.within(_REPLY_MS))

    def close(self):
        self._uart.deinit()

    def _send(self, frame, deadline):
        self._uart.read()
        # 3.5 characters of silence before a frame; 1.75 ms from 19,200 baud on.
        time.sleep_us(max(1_750, 38_500_000 // self._baud))
        if self._enable is not None:
            self._enable.value(1)
        try:
            self._uart.write(frame)
            while not self._uart.txdone():
                deadline.check("uart")
                time.sleep_us(200)
        finally:
            if self._enable is not None:
                self._enable.value(0)

    def _receive(self, address, function, length, deadline):
        received = bytearray()
        while len(received) < length + 5 + _LONGEST_NOISE:
            waiting = self._uart.any()
            if waiting:
                received.extend(self._uart.read(waiting) or b"")
                content = find_reply(received, address, function, length)
                if content is not None:
                    return content
            elif deadline.left_ms():
                time.sleep_ms(2)
            else:
                break
        if not received:
            raise SensorError(errors.TIMEOUT)
        raise SensorError(_fault(received, address, function, length))


def find_reply(received, address, function, length):
    """The content of the reply within `received`; None when it is not (yet) there.

    Raises SensorError(frame) on the device's own exception reply.
    """
    for start in range(len(received) - 4):
        if received[start] != address:
            continue
        if received[start + 1] == function | _EXCEPTION and is_whole(received[start : start + 5]):
            raise SensorError(errors.FRAME)
        if received[start + 1] == function and received[start + 2] == length:
            frame = received[start : start + length + 5]
            if len(frame) == length + 5 and is_whole(frame):
                return bytes(frame[3:-2])
    return None


def is_whole(frame):
    """True when the frame's last two bytes are its CRC."""
    return _crc_bytes(frame[:-2]) == frame[-2:]


def _fault(received, address, function, length):
    for start in range(len(received) - length - 4):
        if received[start : start + 3] == bytes((address, function, length)):
            return errors.CRC
    return errors.FRAME


def _crc_bytes(frame):
    crc = 0xFFFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)

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

_WRITE_REGISTERS = const(16)
_EXCEPTION = const(0x80)
_REPLY_MS = const(300)
_LONGEST_NOISE = const(64)


_PARITY = {"even": 0, "odd": 1}


class Modbus:
    """`options`: uart, baud, parity where there is one. `pins`: tx, rx, and de (the RS485 driver's enable) where there is one."""

    def __init__(self, pins, options):
        self._baud = options["baud"]
        self._uart = machine.UART(
            options["uart"],
            baudrate=self._baud,
            bits=8,
            parity=_PARITY.get(options.get("parity")),
            stop=1,
            tx=pins["tx"],
            rx=pins["rx"],
        )
        self._enable = machine.Pin(pins["de"], machine.Pin.OUT, value=0) if "de" in pins else None

    def read_registers(self, address, function, first, count, deadline):
        """The registers' bytes. Raises SensorError: timeout (silence), frame (no such reply), crc."""
        request = struct.pack(">BBHH", address, function, first, count)
        self._send(request + _crc_bytes(request), deadline)
        return self._receive(
            address, bytes((function, 2 * count)), 2 * count, deadline.within(_REPLY_MS)
        )

    def command(self, address, register, deadline):
        """Write no register from `register` on: some probes take that for "do it". Raises SensorError as above."""
        place = struct.pack(">HH", register, 0)
        request = bytes((address, _WRITE_REGISTERS)) + place + b"\0"
        self._send(request + _crc_bytes(request), deadline)
        self._receive(address, bytes((_WRITE_REGISTERS,)) + place, 0, deadline.within(_REPLY_MS))

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

    def _receive(self, address, head, length, deadline):
        whole = 1 + len(head) + length + 2
        received = bytearray()
        while len(received) < whole + _LONGEST_NOISE:
            waiting = self._uart.any()
            if waiting:
                received.extend(self._uart.read(waiting) or b"")
                content = find_reply(received, address, head, length)
                if content is not None:
                    return content
            elif deadline.left_ms():
                time.sleep_ms(2)
            else:
                break
        if not received:
            raise SensorError(errors.TIMEOUT)
        raise SensorError(_fault(received, address, head, length))


def find_reply(received, address, head, length):
    """The `length` bytes after address and head of a reply within `received`; None when it is not (yet) there.

    Raises SensorError(frame) on the device's own exception reply.
    """
    exception = bytes((address, head[0] | _EXCEPTION))
    wanted = bytes((address,)) + head
    start = len(wanted)
    for at in range(len(received) - 4):
        if received[at : at + 2] == exception and is_whole(received[at : at + 5]):
            raise SensorError(errors.FRAME)
        if received[at : at + start] == wanted:
            frame = received[at : at + start + length + 2]
            if len(frame) == start + length + 2 and is_whole(frame):
                return bytes(frame[start:-2])
    return None


def is_whole(frame):
    """True when the frame's last two bytes are its CRC."""
    return _crc_bytes(frame[:-2]) == frame[-2:]


def _fault(received, address, head, length):
    wanted = bytes((address,)) + head
    for at in range(len(received) - len(wanted) - length - 1):
        if received[at : at + len(wanted)] == wanted:
            return errors.CRC
    return errors.FRAME


def _crc_bytes(frame):
    crc = 0xFFFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)

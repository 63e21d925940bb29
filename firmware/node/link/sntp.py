"""Time from a server by SNTP (RFC 4330): one small question, asked again a few times, with a limit on all of it."""

import os
import socket
import struct

from micropython import const

from node.errors import TimedOut
from node.link.wait import READ, Waiter

_PORT = const(123)
_CLIENT = b"\x23" + b"\0" * 39  # version 4, mode 3
_PACKET_BYTES = const(48)
_SERVER_MODE = const(4)
_UNSYNCHRONISED = const(3)
_NTP_TO_UNIX_S = const(2_208_988_800)
_ERA_S = const(0x100000000)
_ATTEMPTS = const(3)


def ask(server, clock, deadline):
    """(UTC in ms, uptime in ms of the same moment), or None when no believable answer came.

    `server`: host or host:port.
    """
    host, _, port = server.partition(":")
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        address = socket.getaddrinfo(host, int(port or _PORT), 0, socket.SOCK_DGRAM)[0][-1]
        udp.setblocking(False)
        for attempt in range(_ATTEMPTS):
            share = deadline.within(deadline.left_ms() // (_ATTEMPTS - attempt))
            answer = _exchange(udp, address, clock, share)
            if answer is not None:
                return answer
    except OSError:
        pass
    finally:
        udp.close()
    return None


def _exchange(udp, address, clock, deadline):
    nonce = os.urandom(8)
    sent_ms = clock.uptime_ms()
    udp.sendto(_CLIENT + nonce, address)
    waiter = Waiter(udp)
    try:
        while True:
            if not waiter.wait(READ, deadline, "sntp"):
                continue
            received_ms = clock.uptime_ms()
            served_ms = served_utc_ms(udp.recvfrom(_PACKET_BYTES)[0], nonce)
            if served_ms is not None:
                return served_ms, (sent_ms + received_ms) // 2
    except TimedOut:
        return None


def served_utc_ms(packet, nonce):
    """UTC that the server states, in ms; None when the packet is no answer to the question with this nonce."""
    if len(packet) < _PACKET_BYTES or packet[0] & 7 != _SERVER_MODE:
        return None
    if packet[0] >> 6 == _UNSYNCHRONISED or not 1 <= packet[1] <= 15 or packet[24:32] != nonce:
        return None
    seconds, fraction = struct.unpack_from(">II", packet, 40)
    if seconds < 0x80000000:
        seconds += _ERA_S  # the count of 1900 runs over in 2036
    return (seconds - _NTP_TO_UNIX_S) * 1000 + (fraction * 1000 >> 32)

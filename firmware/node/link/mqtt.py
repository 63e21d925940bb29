"""MQTT 3.1.1 (OASIS), as much as a node needs: one clean session, QoS 1, several publishes in flight.

The stream never blocks and every call takes a deadline. Keep-alive is longer than a session, so that no PINGREQ is needed.
Whatever the broker sends, a call ends in time with a result or with LinkError or OSError.
"""

import struct

from micropython import const

from node.errors import LinkError
from node.link.wait import READ, WRITE, Waiter

_CONNECT = const(0x10)
_CONNACK = const(2)
_PUBLISH = const(3)
_PUBLISH_QOS1 = const(0x32)
_PUBACK = const(4)
_SUBSCRIBE = const(0x82)
_SUBACK = const(9)
_PINGRESP = const(13)
_DISCONNECT = b"\xe0\x00"
_QOS = const(1)
_REFUSED = const(0x80)

_KEEP_ALIVE_S = const(60)
# What is longer goes out as it is: a copy would want as much memory once more, in one piece.
_COPIED_BYTES = const(384)
_IN_FLIGHT = const(8)
_ACK_MS = const(8_000)
_BUFFER_BYTES = const(256)
# A desired state of 4 KiB and its topic; longer packets are passed over.
_MAX_PACKET_BYTES = const(4_352)


class Client:
    """`stream` is the raw socket or the TLS stream above it; `on_message(topic, payload)` gets what arrives, as bytes or as a view."""

    def __init__(self, stream, raw, on_message):
        self._stream = stream
        self._waiter = Waiter(raw)
        self._on_message = on_message
        self._is_open = False
        self._buffer = bytearray(_BUFFER_BYTES)
        self._have = 0
        self._skip = 0
        self._connack = None
        self._suback = None
        self._last_id = 0
        self._in_flight = set()
        self._acks = b""

    def connect(self, client_id, deadline):
        """Open a clean session. Raises LinkError when the broker refuses."""
        name = client_id.encode()
        body = b"\x00\x04MQTT\x04\x02" + struct.pack(">HH", _KEEP_ALIVE_S, len(name)) + name
        self._send(_CONNECT, (body,), deadline)
        while self._connack is None:
            self._receive(deadline, "connack")
        if self._connack:
            raise LinkError("connack %d" % self._connack)

    def subscribe(self, topics, deadline):
        """Subscribe with QoS 1. Raises LinkError when the broker refuses any of them."""
        body = struct.pack(">H", self._next_id())
        for topic in topics:
            name = topic.encode()
            body += struct.pack(">H", len(name)) + name + b"\x01"
        self._send(_SUBSCRIBE, (body,), deadline)
        while self._suback is None:
            self._receive(deadline, "suback")
        if len(self._suback) != len(topics) or any([code >= _REFUSED for code in self._suback]):
            raise LinkError("suback")

    def publish(self, topic, parts, deadline):
        """Send with QoS 1; waits only while too many are on their way."""
        while len(self._in_flight) >= _IN_FLIGHT:
            self._await_ack(deadline)
        packet_id = self._next_id()
        name = topic.encode()
        head = struct.pack(">H", len(name)) + name + struct.pack(">H", packet_id)
        self._in_flight.add(packet_id)
        self._send(_PUBLISH_QOS1, (head,) + parts, deadline)
        while self._fill():
            deadline.check("broker")

    def settle(self, deadline):
        """Wait until everything sent was acknowledged."""
        while self._in_flight:
            self._await_ack(deadline)

    def wait(self, deadline):
        """Take what comes within a slice of the deadline. Raises TimedOut when that passed."""
        self._receive(deadline, "message")

    def disconnect(self, deadline):
        self._write(_DISCONNECT, deadline)

    def _await_ack(self, deadline):
        """Until one more is acknowledged. A broker that says nothing for so long is not there any more."""
        share = deadline.within(_ACK_MS)
        count = len(self._in_flight)
        while len(self._in_flight) >= count:
            self._receive(share, "puback")

    # --- sending ---

    def _next_id(self):
        self._last_id = self._last_id % 0xFFFF + 1
        return self._last_id

    def _send(self, kind, parts, deadline):
        length = sum([len(part) for part in parts])
        packet = bytearray(self._acks)
        self._acks = b""
        packet.append(kind)
        while True:
            packet.append(length & 127 | (128 if length > 127 else 0))
            length >>= 7
            if not length:
                break
        for part in parts:
            if len(part) > _COPIED_BYTES:
                self._write(packet, deadline)
                self._write(part, deadline)
                packet = bytearray()
            else:
                packet.extend(part)
        if packet:
            self._write(packet, deadline)

    def _write(self, data, deadline):
        view = memoryview(data)
        at = 0
        while at < len(data):
            written = self._stream.write(view[at:])
            if written:
                self._is_open = True
                at += written
                deadline.left_ms()
            elif self._is_open:
                self._waiter.wait(WRITE, deadline, "write")
            else:
                # The TLS handshake is still going on: it waits for the broker.
                self._waiter.wait(READ, deadline, "tls")

    # --- receiving ---

    def _receive(self, deadline, what):
        if self._acks:
            acks, self._acks = self._acks, b""
            self._write(acks, deadline)
        if not self._fill():
            self._waiter.wait(READ, deadline, what)
        deadline.check(what)

    def _fill(self):
        """Read once and handle what is whole; False when nothing is there."""
        count = self._stream.readinto(memoryview(self._buffer)[self._have :])
        if count is None:
            return False
        if count == 0:
            raise LinkError("broker closed")
        self._have += count
        self._handle_buffer()
        return True

    def _handle_buffer(self):
        while True:
            if self._skip:
                passed = min(self._skip, self._have)
                self._skip -= passed
                self._drop(passed)
                if self._skip:
                    return
            total, start = self._packet()
            if total is None:
                return
            if total > _MAX_PACKET_BYTES:
                self._skip = total
                continue
            if total > self._have:
                self._make_room(total)
                return
            self._handle(self._buffer[0], memoryview(self._buffer)[start:total])
            self._drop(total)

    def _packet(self):
        """(length of the packet at the buffer's begin, offset of its content), or (None, 0) while that is unknown."""
        length, shift = 0, 0
        for at in range(1, min(self._have, 5)):
            byte = self._buffer[at]
            length |= (byte & 127) << shift
            if byte < 128:
                return at + 1 + length, at + 1
            shift += 7
        if self._have >= 5:
            raise LinkError("mqtt length")
        return None, 0

    def _make_room(self, total):
        if total > len(self._buffer):
            larger = bytearray(total)
            larger[: self._have] = memoryview(self._buffer)[: self._have]
            self._buffer = larger

    def _drop(self, count):
        rest = bytes(memoryview(self._buffer)[count : self._have])
        if len(self._buffer) > _BUFFER_BYTES and len(rest) <= _BUFFER_BYTES:
            self._buffer = bytearray(_BUFFER_BYTES)
        self._buffer[: len(rest)] = rest
        self._have = len(rest)

    def _handle(self, first, content):
        kind = first >> 4
        if kind == _PUBLISH:
            self._handle_publish(first, content)
        elif kind == _PUBACK and len(content) == 2:
            self._in_flight.discard(struct.unpack(">H", content)[0])
        elif kind == _CONNACK and len(content) == 2:
            self._connack = content[1]
        elif kind == _SUBACK and len(content) > 2:
            self._suback = bytes(content[2:])
        elif kind != _PINGRESP:
            raise LinkError("mqtt packet %d" % kind)

    def _handle_publish(self, first, content):
        if len(content) < 2:
            raise LinkError("mqtt publish")
        end = 2 + struct.unpack_from(">H", content)[0]
        qos = first >> 1 & 3
        start = end + 2 if qos else end
        if start > len(content) or qos > _QOS:
            raise LinkError("mqtt publish")
        payload = content[start:]
        if len(self._buffer) <= _BUFFER_BYTES:
            payload = bytes(payload)
        # Else the buffer was made for this packet and is given away with it: there is no room for a copy of 4 KiB.
        self._on_message(bytes(content[2:end]), payload)
        if qos:
            self._acks += b"\x40\x02" + bytes(content[end:start])

"""A broker of a few lines that says exactly what a test wants it to say, over TCP or TLS.

Written from the MQTT 3.1.1 specification and sharing nothing with the firmware. One thread per connection; everything a
node published is kept in `published`, in order of arrival.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import cbor2
from scripted_server import ScriptedServer

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, DISCONNECT = 1, 3, 4, 8, 14


@dataclass
class Behaviour:
    """What the broker does. The default is a good broker with a server behind it.

    `answers` maps a packet type to what is sent instead of the proper answer; an empty string is silence.
    """

    answers: dict[int, bytes] = field(default_factory=dict)
    desired: bytes | None = cbor2.dumps(
        {
            "config": {"version": 1, "values": {}},
            "release": None,
            "commands": [],
            "certificate": None,
        }
    )
    receipt: bytes | None = b""  # empty: retained, nothing received yet
    gives_receipts: bool = True
    bytes_at_a_time: int = 0
    close_after: int | None = None  # packet type after which the broker hangs up
    extra_after_connect: bytes = b""
    floods: bool = False  # after the subscription, messages without end
    receipt_for: Callable[[int, int], bytes] | None = None


class ScriptedBroker(ScriptedServer):
    def __init__(
        self, context: ssl.SSLContext | None = None, address: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        super().__init__(address)
        self.behaviour = Behaviour()
        self.published: list[tuple[str, bytes]] = []
        self.subscriptions: list[str] = []
        self.client_ids: list[str] = []
        self.most_in_flight = 0
        self._context = context
        self._retained_receipt: bytes | None = None
        self._held: dict[int, set[int]] = {}  # spool: sequences that came
        self.receipts: dict[int, int] = {}  # spool: the sequence up to which nothing is missing
        self.begin()

    # --- what a node said ---

    def payloads(self, kind: str) -> list[bytes]:
        """Payloads published on `up/…/<kind>`."""
        return [payload for topic, payload in self.published if topic.endswith("/" + kind)]

    def packs(self) -> list[list[dict[int, object]]]:
        """Every telemetry pack, decoded, in order of arrival."""
        return [cbor2.loads(payload) for payload in self.payloads("tm")]

    def sequences(self) -> list[int]:
        return [int(pack[2][2]) for pack in self.packs()]  # type: ignore[call-overload]

    def state(self) -> dict[str, object]:
        """The last state message."""
        return dict(cbor2.loads(self.payloads("st")[-1]))

    def forget(self, *, after: int) -> None:
        """Begin anew after so many messages: no receipt is retained."""
        del self.published[after:]
        self._retained_receipt = None
        self._held.clear()
        self.receipts.clear()
        for payload in self.payloads("tm") + self.payloads("ev"):
            self._hold(cbor2.loads(payload))

    def _hold(self, pack: list[dict[int, int]]) -> set[int]:
        """Note that a pack has come; all of its spool that have."""
        held = self._held.setdefault(pack[1][2], set())
        held.add(pack[2][2])
        return held

    # --- the other side ---

    def serve(self, accepted: socket.socket) -> None:
        stream = accepted
        with contextlib.suppress(OSError, EOFError, ValueError):
            if self._context is not None:
                stream = self._context.wrap_socket(accepted, server_side=True)
            _Session(self, stream).run()
        with contextlib.suppress(OSError):
            stream.close()


class _Session:
    def __init__(self, broker: ScriptedBroker, stream: socket.socket) -> None:
        self._broker = broker
        self._stream = stream
        self._file = stream.makefile("rb")
        self._own_id = 0
        self._arrived: list[int] = []

    def run(self) -> None:
        try:
            while True:
                kind, flags, content = self._packet()
                if kind == DISCONNECT:
                    return
                self._handle(kind, flags, content)
                if kind == self._broker.behaviour.close_after:
                    return
        finally:
            self._file.close()

    def _handle(self, kind: int, flags: int, content: bytes) -> None:
        behaviour = self._broker.behaviour
        if kind == CONNECT:
            self._broker.client_ids.append(content[12:].decode())
            self._answer(kind, b"\x20\x02\x00\x00")
            self._send(behaviour.extra_after_connect)
        elif kind == SUBSCRIBE:
            topics = self._topics(content)
            self._broker.subscriptions += topics
            self._answer(kind, bytes((0x90, 2 + len(topics))) + content[:2] + b"\1" * len(topics))
            self._send_retained(topics)
            while self._broker.behaviour.floods:
                self._publish(topics[-1], b"flood")
        elif kind == PUBLISH:
            end = 2 + struct.unpack_from(">H", content)[0]
            topic = content[2:end].decode()
            assert flags == 2, "QoS 1 is what the wire says"
            payload = content[end + 2 :]
            self._broker.published.append((topic, payload))
            self._answer(kind, b"\x40\x02" + content[end : end + 2])
            if topic.endswith(("/tm", "/ev")):
                self._give_receipt(topic, payload)

    def _topics(self, content: bytes) -> list[str]:
        topics, at = [], 2
        while at < len(content):
            length = struct.unpack_from(">H", content, at)[0]
            topics.append(content[at + 2 : at + 2 + length].decode())
            at += 3 + length
        return topics

    def _send_retained(self, topics: list[str]) -> None:
        behaviour = self._broker.behaviour
        for topic in topics:
            if topic.endswith("/des") and behaviour.desired is not None:
                self._publish(topic, behaviour.desired)
            if topic.endswith("/rcpt") and behaviour.receipt is not None:
                self._publish(topic, self._broker._retained_receipt or behaviour.receipt)

    def _give_receipt(self, topic: str, payload: bytes) -> None:
        behaviour = self._broker.behaviour
        pack = cbor2.loads(payload)
        held = self._broker._hold(pack)
        if not behaviour.gives_receipts:
            return
        spool, oldest = pack[1][2], pack[0][2]
        seq = max(oldest - 1, self._broker.receipts.get(spool, 0))
        while seq + 1 in held:
            seq += 1
        self._broker.receipts[spool] = seq
        receipt = cbor2.dumps({"spool": spool, "seq": seq})
        if behaviour.receipt_for is not None:
            receipt = behaviour.receipt_for(spool, seq)
        self._broker._retained_receipt = receipt
        self._publish(topic.replace("up/", "dn/", 1)[:-2] + "rcpt", receipt)

    def _publish(self, topic: str, payload: bytes) -> None:
        self._own_id = self._own_id % 0xFFFF + 1
        name = topic.encode()
        content = struct.pack(">H", len(name)) + name + struct.pack(">H", self._own_id) + payload
        self._send(b"\x32" + _length(len(content)) + content)

    def _answer(self, kind: int, proper: bytes) -> None:
        self._send(self._broker.behaviour.answers.get(kind, proper))

    def _send(self, data: bytes) -> None:
        step = self._broker.behaviour.bytes_at_a_time
        if not step:
            self._stream.sendall(data)
            return
        for start in range(0, len(data), step):
            self._stream.sendall(data[start : start + step])
            time.sleep(0.001)

    def _packet(self) -> tuple[int, int, bytes]:
        first = self._read(1)[0]
        length = shift = 0
        while True:
            byte = self._read(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return first >> 4, first & 15, self._read(length)

    def _read(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise EOFError
        return data


def _length(length: int) -> bytes:
    out = bytearray()
    while True:
        out.append(length & 127 | (128 if length > 127 else 0))
        length >>= 7
        if not length:
            return bytes(out)

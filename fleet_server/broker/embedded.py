"""The embedded broker: amqtt behind mutual TLS, for demo and tests, on loopback only.

A subclass because the stock broker and its plugins are wrong or lax where isolation rests on them. What this one guarantees:

* A connection is who its certificate says: CN = client id, checked before any session is looked up, so that nobody
  displaces another; nodes and services each through their own door; the serial against the revocation list at every CONNECT.
* A client reads and writes only what `access.py` grants; nodes retain nothing, wills obey the same rules; every session is clean.
* A packet is at most 64 KiB and well formed, or the connection ends. Every handshake, CONNECT, packet and send has a time limit.
* The PUBACK of an upward message is sent after ingest's own, so an acknowledged message was stored.

amqtt is pinned; the attack table in tests/end_to_end/test_isolation.py is to be run on any change of it.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import structlog
from amqtt.adapters import BufferReader, StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker, RetainedApplicationMessage, Server
from amqtt.contexts import Action, BrokerConfig, ListenerConfig
from amqtt.mqtt import packet_class
from amqtt.mqtt.connack import (
    CONNECTION_ACCEPTED,
    IDENTIFIER_REJECTED,
    NOT_AUTHORIZED,
    UNACCEPTABLE_PROTOCOL_VERSION,
    ConnackPacket,
)
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.packet import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    UNSUBSCRIBE,
    MQTTFixedHeader,
)
from amqtt.mqtt.pingresp import PingRespPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session
from cryptography import x509
from cryptography.x509.oid import NameOID

from fleet_server.broker import access
from fleet_server.broker.access import Client, ListenerName
from fleet_server.broker.refusals import Refusal, Tally
from fleet_server.broker.revocations import RevocationList
from fleet_server.errors import FleetError, Invalid, Unavailable
from fleet_server.services.authority import (
    AuthorityFiles,
    check_pair,
    check_public_files,
    existing_files,
)
from fleet_server.services.fresh_files import Stamp, stamp_of
from fleet_server.settings import Settings, is_loopback

log = structlog.get_logger(__name__)

MAX_PACKET_BYTES = 64 * 1024
# A node on a bad line needs a second or two for its handshake. When a whole fleet comes at once, it is this machine that keeps them
# waiting: to end them then would throw away what was computed, and they come again.
HANDSHAKE_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
PACKET_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
# A client without keep-alive is let go after this silence.
IDLE_LIMIT_S = 120.0
# MQTT 3.1.1 section 3.1.2.10: one and a half times the keep-alive.
KEEP_ALIVE_GRACE = 1.5
# How long a message waits for an ingest that is not there; the node has given up long before.
HOLD_S = 30.0
# Unacknowledged messages of one client, after which no more are read from it.
WINDOW_PER_CLIENT = 64
# Unacknowledged messages at one subscriber; the same figure as in mosquitto's configuration.
WINDOW_PER_SUBSCRIBER = 2000
SEND_BUFFER_BYTES = 512 * 1024
TICK_S = 0.25
CLOSE_GRACE_S = 0.5
# From Python 3.12 on a server waits for connections that have not even said CONNECT.
SHUTDOWN_LIMIT_S = 3.0
BACKLOG = 1024
MAX_LENGTH_BYTES = 4
MQTT_3_1_1 = 4
_QOS_BITS = 0x06
_RETAIN_BIT = 0x01
_REQUIRED_FLAGS = {SUBSCRIBE: 0x02, UNSUBSCRIBE: 0x02, PUBACK: 0, PINGREQ: 0, DISCONNECT: 0}
_SUBSCRIPTION_REFUSED = 0x80
# After the length-prefixed "MQTT" and the protocol level (MQTT 3.1.1 section 3.1.2.3).
_CONNECT_FLAGS_AT = 7


class ConnectionRefused(Exception):
    """This connection ends, for a reason that is counted."""

    def __init__(self, refusal: Refusal, return_code: int | None = None) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
        self.return_code = return_code


@dataclass(frozen=True)
class Limits:
    """Time and size limits, in one place so that a test can change them."""

    handshake_s: float = HANDSHAKE_TIMEOUT_S
    connect_s: float = CONNECT_TIMEOUT_S
    packet_s: float = PACKET_TIMEOUT_S
    send_s: float = SEND_TIMEOUT_S
    idle_s: float = IDLE_LIMIT_S
    hold_s: float = HOLD_S
    packet_bytes: int = MAX_PACKET_BYTES


@dataclass(frozen=True)
class Message:
    """One application message on its way through."""

    topic: str
    payload: bytes
    qos: int


@dataclass(frozen=True)
class PeerCertificate:
    """What counts of a client's certificate, already verified by TLS."""

    common_name: str
    serial: int


class EmbeddedBroker(Broker):
    """The broker; one per process, run inside an event loop.

    Args:
        authority: The certificate authority's files.
        host: A loopback address.
        node_port: 0 = any; so is `service_port`.
        prefix: What stands in front of every topic.

    Raises:
        Invalid: `host` is not this machine.
    """

    def __init__(
        self,
        authority: AuthorityFiles,
        *,
        host: str = "127.0.0.1",
        node_port: int = 0,
        service_port: int = 0,
        prefix: str = "",
        tally: Tally | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not is_loopback(host):
            raise Invalid("The embedded broker serves this machine only; use mosquitto for others.")
        self._authority = authority
        self._ports = {ListenerName.NODES: node_port, ListenerName.SERVICES: service_port}
        self._host = host
        self.prefix = prefix
        self.tally = tally or Tally()
        self.limits = limits or Limits()
        self._revocations = {
            ListenerName.NODES: RevocationList(authority.issuing.crl),
            ListenerName.SERVICES: RevocationList(authority.services_authority.crl),
        }
        self._sockets: dict[ListenerName, socket.socket] = {}
        self._shown: Stamp = ()
        self._subscribed = asyncio.Event()
        self._wildcard_filters: set[str] = set()
        self._tick_task: asyncio.Task[None] | None = None
        self._published = self._delivered = self._unacknowledged = 0
        # amqtt's own `default` listener, which would be every address, is bound nowhere; the doors are opened below.
        super().__init__(BrokerConfig(listeners={"default": ListenerConfig(bind=None)}, plugins={}))

    @property
    def ports(self) -> dict[ListenerName, int]:
        """Port of each listener, once started."""
        return dict(self._ports)

    async def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: a port is taken, or there is no revocation list.
        """
        for revocations in self._revocations.values():
            revocations.load()
        # Here and not among amqtt's own steps, which would wrap the reason in a traceback of theirs.
        for name, port in self._ports.items():
            self._sockets[name] = self._bind(port)
            self._ports[name] = self._sockets[name].getsockname()[1]
        await super().start()
        self._tick_task = asyncio.create_task(self._tick())

    async def shutdown(self) -> None:
        """Stop listening, end every session."""
        if self._tick_task:
            self._tick_task.cancel()
            await asyncio.gather(self._tick_task, return_exceptions=True)
        for server in self._servers.values():
            server.instance.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_LIMIT_S):
                await super().shutdown()
        self.write_status()

    # --- what isolation rests on; each is a method of its own so that a test can show what happens without that one

    def certificate_of(self, writer: asyncio.StreamWriter) -> PeerCertificate:
        """The client's certificate; the handshake has verified it.

        Raises:
            ConnectionRefused: it has shown none.
        """
        return _peer_certificate(writer)

    def check_not_revoked(self, listener: ListenerName, certificate: PeerCertificate) -> None:
        """The handshake has looked, too, but at the list as it was when it began.

        Raises:
            ConnectionRefused: it is on the list.
        """
        self._revocations[listener].reload_when_changed()
        if certificate.serial in self._revocations[listener].serials:
            raise ConnectionRefused(Refusal.CERTIFICATE_REVOKED, NOT_AUTHORIZED)

    def name_of(self, certificate: PeerCertificate, client_id: str) -> str:
        """The name under which this client goes from here on: its certificate's, and no other.

        Raises:
            ConnectionRefused: it calls itself otherwise.
        """
        if client_id != certificate.common_name:
            raise ConnectionRefused(Refusal.CLIENT_ID_NOT_OWN, IDENTIFIER_REJECTED)
        return certificate.common_name

    def check_door(self, client: Client) -> None:
        """Raises ConnectionRefused when this name does not belong at this door."""
        if not access.may_enter(client):
            raise ConnectionRefused(Refusal.WRONG_LISTENER, NOT_AUTHORIZED)

    def may_publish(self, client: Client, topic: str) -> bool:
        return access.may_publish(client, topic, prefix=self.prefix)

    def may_subscribe(self, client: Client, topic_filter: str) -> bool:
        return access.may_subscribe(client, topic_filter, prefix=self.prefix)

    def may_retain(self, client: Client) -> bool:
        return not client.is_node

    def may_stay(self, client: Client, serial: int) -> bool:
        """False ends a session that lives: its certificate has been revoked since it came."""
        return serial not in self._revocations[client.listener].serials

    def may_leave_will(self, client: Client, topic: str, *, is_retained: bool) -> bool:
        return self.may_publish(client, topic) and (not is_retained or self.may_retain(client))

    # --- connections

    def make_context(self, listener: ListenerName) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        # A resumed session would skip the look at the certificate.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.load_cert_chain(
            self._authority.certificate("broker"), self._authority.key("broker")
        )
        is_for_nodes = listener is ListenerName.NODES
        context.load_verify_locations(
            self._authority.chain
            if is_for_nodes
            else self._authority.services_authority.certificate
        )
        self._revocations[listener].tell(context)
        context.sslobject_class = self._counting_handshakes()
        return context

    def _counting_handshakes(self) -> type[ssl.SSLObject]:
        """asyncio tells nobody about a handshake that failed; this SSL object does."""
        broker = self

        class CountingSSLObject(ssl.SSLObject):
            _overdue: asyncio.TimerHandle | None = None

            def do_handshake(self) -> None:
                if self._overdue is None:
                    self._overdue = broker._loop.call_later(
                        broker.limits.handshake_s, broker.tally.refuse, Refusal.HANDSHAKE_TIMED_OUT
                    )
                try:
                    super().do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as problem:
                    self._overdue.cancel()
                    broker.tally.refuse(Refusal.HANDSHAKE_FAILED, detail=str(problem.reason))
                    raise
                self._overdue.cancel()

        return CountingSSLObject

    async def _start_listeners(self) -> None:
        self._shown = stamp_of(*self._authority.read_by_broker)
        await self._open_doors(self._contexts())

    def _contexts(self) -> dict[ListenerName, ssl.SSLContext]:
        return {name: self.make_context(name) for name in self._sockets}

    async def _open_doors(self, contexts: dict[ListenerName, ssl.SSLContext]) -> None:
        for name, listening in self._sockets.items():
            server = await asyncio.start_server(
                partial(self.stream_connected, listener_name=name.value),
                sock=listening,
                ssl=contexts[name],
                ssl_handshake_timeout=self.limits.handshake_s,
                ssl_shutdown_timeout=CLOSE_GRACE_S,
                backlog=BACKLOG,
                limit=self.limits.packet_bytes,
            )
            self._servers[name.value] = Server(name.value, server)

    async def _take_certificates(self) -> None:
        """Show the broker's certificate, and trust the authorities, as they are now. Who is connected stays so.

        asyncio keeps to the context with which a door was opened: behind each a new one is opened at the same socket.
        """
        stamp = stamp_of(*self._authority.read_by_broker)
        if stamp == self._shown:
            return
        self._shown = stamp  # when the rest comes, that is another one
        try:
            check_pair(self._authority.folder, "broker")
            check_public_files(self._authority.folder)
            contexts = self._contexts()
        except (FleetError, OSError) as problem:  # half of it is there; the rest comes in a moment
            log.warning("certificate_not_taken", pair="broker", reason=str(problem))
            return
        before = [server.instance for server in self._servers.values()]
        for listening in self._sockets.values():
            self._loop.remove_reader(listening)
        # Who has just come in is at the old door still, which must not be gone before asyncio has noted that.
        await asyncio.sleep(0)
        self._sockets = {name: listening.dup() for name, listening in self._sockets.items()}
        await self._open_doors(contexts)
        for door in before:
            door.close()
        log.info("certificate_taken", pair="broker")

    def _bind(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            return socket.create_server((self._host, port), family=family, backlog=BACKLOG)
        except OSError as problem:
            raise Unavailable(
                f"Port {port} on {self._host} cannot be used: {problem.strerror}."
            ) from problem

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """One connection from its CONNECT to its end."""
        who: dict[str, object] = {
            "listener": listener_name,
            "peer": str(writer.get_extra_info("peername")),
        }
        try:
            handler = await self._admit(ListenerName(listener_name), reader, writer, who)
        except ConnectionRefused as refused:
            self.tally.refuse(refused.refusal, **who)
            await _hang_up(writer, refused.return_code)
            return
        except (OSError, asyncio.IncompleteReadError):
            self.tally.refuse(Refusal.CONNECT_MALFORMED, **who)
            writer.transport.abort()
            return
        try:
            await self._serve(handler)
        finally:
            handler.abort()

    async def _admit(
        self,
        listener: ListenerName,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        who: dict[str, object],
    ) -> FleetHandler:
        certificate = self.certificate_of(writer)
        who["certificate"] = certificate.common_name
        try:
            async with asyncio.timeout(self.limits.connect_s):
                kind, flags, body = await _read_packet(reader, self.limits.packet_bytes)
        except TimeoutError:
            raise ConnectionRefused(Refusal.CONNECT_TIMED_OUT) from None
        connect = await _parse_connect(kind, flags, body)
        self.check_not_revoked(listener, certificate)
        client = Client(self.name_of(certificate, connect.client_id or ""), listener)
        self.check_door(client)
        will = self._will_of(client, connect)
        await self._end_session(client.name)
        session = Session()
        session.client_id = client.name
        session.clean_session = True
        session.keep_alive = 0
        session.remote_address, session.remote_port = writer.get_extra_info("peername")[:2]
        handler = FleetHandler(self, client, certificate.serial, connect.keep_alive, will)
        handler.attach(session, StreamReaderAdapter(reader), StreamWriterAdapter(writer))
        handler.streams = (reader, writer)
        session.transitions.connect()
        self._sessions[client.name] = (session, handler)
        await handler.send(ConnackPacket.build(0, CONNECTION_ACCEPTED).to_bytes())
        return handler

    def _will_of(self, client: Client, connect: ConnectPacket) -> Message | None:
        if not connect.will_flag:
            return None
        topic = connect.will_topic or ""
        if not self.may_leave_will(client, topic, is_retained=connect.will_retain_flag):
            raise ConnectionRefused(Refusal.WILL_DENIED, NOT_AUTHORIZED)
        return Message(topic, bytes(connect.will_message or b""), connect.will_qos)

    async def _serve(self, handler: FleetHandler) -> None:
        session = handler.session
        assert session is not None  # noqa: S101 - attached in _admit
        log.debug("client_connected", client=handler.client.name)
        try:
            await handler.start()
            if handler.streams is not None:  # else it ended before amqtt began to listen for that
                await self._client_message_loop(session, handler)
        finally:
            if self._sessions.get(handler.client.name, (None, None))[1] is handler:
                del self._sessions[handler.client.name]
                await self._del_all_subscriptions(session)
        if handler.will is not None and not handler.has_said_goodbye:
            await self.route(handler.will)

    async def _end_session(self, client_id: str) -> None:
        """The old connection of the same client goes, with its subscriptions; stock amqtt leaves it alive."""
        session, handler = self._sessions.pop(client_id, (None, None))
        if session is None:
            return
        await self._del_all_subscriptions(session)
        if isinstance(handler, FleetHandler):
            handler.abort()

    # --- messages

    def _subscribers(self, topic: str) -> list[tuple[FleetHandler, int]]:
        """Connected subscribers of a topic with the QoS they asked for."""
        found = list(self._subscriptions.get(topic, ()))
        for topic_filter in self._wildcard_filters:
            if self._matches(topic, topic_filter):
                found += self._subscriptions.get(topic_filter, ())
        handlers = ((self._get_handler(session), qos) for session, qos in found)
        # One that has just ended may still be subscribed: trying it again and again would never let the loop end it.
        return [
            (handler, qos)
            for handler, qos in handlers
            if isinstance(handler, FleetHandler) and handler.streams is not None
        ]

    async def route(self, message: Message) -> bool:
        """Give a message to its subscribers; True when the publisher may be told that it arrived.

        Upward messages have arrived when ingest acknowledged them; what goes down to a node counts as arrived at
        once, because it is retained and read from the database again when in doubt.
        """
        self._published += 1
        up = f"{self.prefix}/up/" if self.prefix else "up/"
        if message.topic.startswith(up) and message.qos:
            return await self._route_up(message)
        for handler, qos in self._subscribers(message.topic):
            await handler.send_publish(message, qos=min(qos, message.qos), is_retained=False)
        return True

    async def _route_up(self, message: Message) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.hold_s):
                while True:
                    sent = [
                        handler.deliver(message, qos=qos)
                        for handler, qos in self._subscribers(message.topic)
                    ]
                    # gather costs a task each; there is one ingest, as a rule.
                    answers = [await sent[0]] if len(sent) == 1 else await asyncio.gather(*sent)
                    if any(answers):
                        self._delivered += 1
                        return True
                    self._subscribed.clear()
                    if not self._subscribers(message.topic):
                        await self._subscribed.wait()
        self._unacknowledged += 1
        return False

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        code = await super().add_subscription(subscription, session)
        if code != _SUBSCRIPTION_REFUSED:
            if "+" in subscription[0] or "#" in subscription[0]:
                self._wildcard_filters.add(subscription[0])
                self._wildcard_filters &= self._subscriptions.keys()
            self._subscribed.set()
        return code

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        handler = self._get_handler(session)
        if action is not Action.SUBSCRIBE or not isinstance(handler, FleetHandler):
            return action is not Action.SUBSCRIBE
        is_allowed = self.may_subscribe(handler.client, topic)
        if not is_allowed:
            self.tally.refuse(Refusal.SUBSCRIBE_DENIED, client=handler.client.name, topic=topic)
        return is_allowed

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Stock amqtt sends every client what others subscribed to; here it is the subscriber's own filter only."""
        topic_filter, qos = subscription
        handler = self._get_handler(session)
        if not isinstance(handler, FleetHandler):
            return
        if "+" in topic_filter or "#" in topic_filter:
            topics = [
                topic for topic in self._retained_messages if self._matches(topic, topic_filter)
            ]
        else:
            topics = [topic_filter] if topic_filter in self._retained_messages else []
        for topic in topics:
            kept = self._retained_messages[topic]
            message = Message(topic, bytes(kept.data), kept.qos or 0)
            await handler.send_publish(message, qos=min(qos, message.qos), is_retained=True)

    def retain(self, message: Message) -> None:
        """Keep the message for who subscribes later; an empty one forgets (MQTT 3.1.1 section 3.3.1.3)."""
        if message.payload:
            self._retained_messages[message.topic] = RetainedApplicationMessage(
                None, message.topic, message.payload, message.qos
            )
        else:
            self._retained_messages.pop(message.topic, None)

    # --- housekeeping

    async def _tick(self) -> None:
        """Let go who is silent or revoked, read certificates and revocation lists when they changed, write the status."""
        while True:
            now = self._loop.time()
            for revocations in self._revocations.values():
                revocations.reload_when_changed()
            await self._take_certificates()
            for _, handler in list(self._sessions.values()):
                if isinstance(handler, FleetHandler):
                    self._look_after(handler, now)
            self.write_status()
            await asyncio.sleep(TICK_S)

    def _look_after(self, handler: FleetHandler, now: float) -> None:
        if handler.streams is None:
            return
        if not self.may_stay(handler.client, handler.serial):
            self.tally.refuse(Refusal.CERTIFICATE_REVOKED, client=handler.client.name)
            handler.abort()
        elif now > handler.deadline:
            self.tally.refuse(Refusal.PACKET_TIMED_OUT, client=handler.client.name)
            handler.abort()

    def write_status(self) -> None:
        """Bring the status file up to date."""
        self.tally.write(
            clients=sorted(self._sessions),
            retained=len(self._retained_messages),
            published=self._published,
            delivered=self._delivered,
            unacknowledged=self._unacknowledged,
        )


class FleetHandler(BrokerProtocolHandler):
    """One admitted connection: reads strictly, sends within a time limit, acknowledges what has arrived."""

    _PACKET_IDS: ClassVar[int] = 0xFFFF

    def __init__(
        self,
        broker: EmbeddedBroker,
        client: Client,
        serial: int,
        keep_alive_s: int,
        will: Message | None,
    ) -> None:
        super().__init__(broker.plugins_manager, loop=broker._loop)
        self.broker = broker
        self.client = client
        self.serial = serial
        self.will = will
        self.has_said_goodbye = False
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._silence_limit_s = keep_alive_s * KEEP_ALIVE_GRACE or broker.limits.idle_s
        self.deadline = broker._loop.time() + self._silence_limit_s
        self._last_packet_id = 0
        # Packet id → who waits for its PUBACK; an id is free again only when the peer has acknowledged it.
        self._awaiting: dict[int, asyncio.Future[bool] | None] = {}
        self._window_in = asyncio.Semaphore(WINDOW_PER_CLIENT)
        self._window_out = asyncio.Semaphore(WINDOW_PER_SUBSCRIBER)
        self._publish_tasks: set[asyncio.Task[None]] = set()

    # --- sending

    async def send(self, data: bytes) -> None:
        """Write; cut the connection when the peer takes nothing for too long."""
        if self.streams is None:
            return
        writer = self.streams[1]
        transport = writer.transport
        if transport.is_closing():
            return
        writer.write(data)
        if transport.get_write_buffer_size() <= SEND_BUFFER_BYTES:
            return
        try:
            async with asyncio.timeout(self.broker.limits.send_s):
                await writer.drain()
        except TimeoutError:
            self.broker.tally.refuse(Refusal.SEND_TIMED_OUT, client=self.client.name)
            self.abort()
        except OSError:
            self.abort()

    async def _send_packet(self, packet: Any) -> None:
        await self.send(packet.to_bytes())

    async def send_publish(self, message: Message, *, qos: int, is_retained: bool) -> None:
        """Send a message without waiting for its PUBACK."""
        packet_id = self._next_packet_id(None) if qos else 0
        await self.send(_publish_bytes(message, qos, packet_id, is_retained=is_retained))

    async def deliver(self, message: Message, *, qos: int) -> bool:
        """Send a message and wait for its PUBACK; False when the connection ended before."""
        if not qos:
            await self.send_publish(message, qos=0, is_retained=False)
            return True
        async with self._window_out:
            if self.streams is None:
                return False
            arrived: asyncio.Future[bool] = self._loop.create_future()
            packet_id = self._next_packet_id(arrived)
            await self.send(_publish_bytes(message, 1, packet_id, is_retained=False))
            return await arrived

    def _next_packet_id(self, waiter: asyncio.Future[bool] | None) -> int:
        for _ in range(self._PACKET_IDS):
            self._last_packet_id = self._last_packet_id % self._PACKET_IDS + 1
            if self._last_packet_id not in self._awaiting:
                self._awaiting[self._last_packet_id] = waiter
                return self._last_packet_id
        self.abort()  # a client that never acknowledges anything
        raise ConnectionResetError

    # --- receiving

    async def _reader_loop(self) -> None:
        assert self.streams is not None  # noqa: S101 - set before start
        assert self._reader_ready is not None  # noqa: S101 - set by start
        self._reader_ready.set()
        reader = self.streams[0]
        try:
            while not self.has_said_goodbye:
                self.deadline = self._loop.time() + self._silence_limit_s
                kind, flags, body = await _read_packet(
                    reader, self.broker.limits.packet_bytes, self._packet_begun
                )
                self.deadline = math.inf  # from here on it is we who take our time
                await self._handle(kind, flags, body)
        except ConnectionRefused as refused:
            self.broker.tally.refuse(refused.refusal, client=self.client.name)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # gone; that is all there is to know
        finally:
            await self.handle_connection_closed()
            self._reader_stopped.set()
            self.abort(is_polite=True)

    def _packet_begun(self) -> None:
        self.deadline = self._loop.time() + self.broker.limits.packet_s

    async def _handle(self, kind: int, flags: int, body: bytes) -> None:
        if kind == PUBLISH:
            await self._take_publish(flags, body)
            return
        if _REQUIRED_FLAGS.get(kind) != flags:
            raise ConnectionRefused(Refusal.PACKET_MALFORMED)
        if kind == PUBACK:
            self._take_puback(body)
        elif kind == DISCONNECT:
            self.has_said_goodbye = True
        elif kind == PINGREQ:
            await self.send(PingRespPacket.build().to_bytes())
        else:
            _check_topics(body, bytes_after_each=1 if kind == SUBSCRIBE else 0)
            packet = await _parse(kind, flags, body)
            if kind == SUBSCRIBE:
                if any(qos > 2 for _, qos in packet.payload.topics):
                    raise ConnectionRefused(Refusal.PACKET_MALFORMED)
                packet.payload.topics[:] = [
                    (name, min(qos, 1)) for name, qos in packet.payload.topics
                ]
                await self.handle_subscribe(packet)
            else:
                await self.handle_unsubscribe(packet)

    def _take_puback(self, body: bytes) -> None:
        if len(body) != 2:
            raise ConnectionRefused(Refusal.PACKET_MALFORMED)
        waiter = self._awaiting.pop(int.from_bytes(body), None)
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    async def _take_publish(self, flags: int, body: bytes) -> None:
        message, packet_id = _parse_publish(flags, body)
        is_retained = bool(flags & _RETAIN_BIT)
        if not self.broker.may_publish(self.client, message.topic):
            self._refuse_publish(Refusal.PUBLISH_DENIED, message)
        elif is_retained and not self.broker.may_retain(self.client):
            self._refuse_publish(Refusal.RETAIN_DENIED, message)
        else:
            if is_retained:
                self.broker.retain(message)
            # The next packets are read while this one is on its way, up to the window.
            await self._window_in.acquire()
            task = asyncio.create_task(self._pass_on(message, packet_id))
            self._publish_tasks.add(task)
            task.add_done_callback(self._passed_on)
            return
        if message.qos:
            # MQTT 3.1.1 section 3.3.5 knows no refusal: acknowledge without effect, as mosquitto does.
            await self.send(_puback_bytes(packet_id))

    def _refuse_publish(self, refusal: Refusal, message: Message) -> None:
        self.broker.tally.refuse(refusal, client=self.client.name, topic=message.topic)

    async def _pass_on(self, message: Message, packet_id: int) -> None:
        if await self.broker.route(message) and message.qos:
            await self.send(_puback_bytes(packet_id))

    def _passed_on(self, task: asyncio.Task[None]) -> None:
        self._window_in.release()
        self._publish_tasks.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is not None and not isinstance(problem, OSError):
            log.error("message_lost_in_broker", client=self.client.name, exc_info=problem)

    # --- ending

    def abort(self, *, is_polite: bool = False) -> None:
        """End the connection now, or, when polite, after what was written has gone out. Safe to repeat."""
        if self.streams is None:
            return
        reader, writer = self.streams
        self.streams = None
        for task in self._publish_tasks:
            task.cancel()
        for waiter in self._awaiting.values():
            if waiter is not None and not waiter.done():
                waiter.set_result(False)
        if self._reader_task and self._reader_task is not asyncio.current_task():
            self._reader_task.cancel()
        if self._disconnect_waiter is not None and not self._disconnect_waiter.done():
            self._disconnect_waiter.set_result(None)
        if is_polite:
            writer.close()
            self._loop.call_later(CLOSE_GRACE_S, writer.transport.abort)
        else:
            writer.transport.abort()
        reader.feed_eof()

    async def stop(self) -> None:
        self.abort()


async def run(
    settings: Settings,
    *,
    host: str,
    node_port: int,
    service_port: int,
    on_ready: Callable[[EmbeddedBroker], None],
) -> None:
    """Run the broker until SIGTERM or SIGINT; ports and counters stand in the data folder's status file.

    Raises:
        AuthorityMissing: there are no certificates yet.
        Unavailable: a port is taken.
    """
    authority = existing_files(settings.ca_dir)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    broker = EmbeddedBroker(
        authority,
        host=host,
        node_port=node_port,
        service_port=service_port,
        prefix=settings.topic_prefix,
        tally=Tally(settings.broker_status_path),
    )
    await broker.start()
    ports = {name.value: port for name, port in broker.ports.items()}
    broker.tally.facts |= {"pid": os.getpid(), "host": host, "ports": ports}
    broker.write_status()
    on_ready(broker)
    await stop.wait()
    await broker.shutdown()


def _peer_certificate(writer: asyncio.StreamWriter) -> PeerCertificate:
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if der is None:
        raise ConnectionRefused(Refusal.HANDSHAKE_FAILED)
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    common_name = str(names[0].value) if len(names) == 1 else ""
    return PeerCertificate(common_name, certificate.serial_number)


async def _read_packet(
    reader: asyncio.StreamReader,
    most_bytes: int,
    on_first_byte: Callable[[], None] = lambda: None,
) -> tuple[int, int, bytes]:
    """One packet: its type, its flags and what follows the fixed header (MQTT 3.1.1 section 2.2)."""
    first = (await reader.readexactly(1))[0]
    on_first_byte()
    length = 0
    for position in range(MAX_LENGTH_BYTES):
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << (7 * position)
        if not byte & 0x80:
            break
    else:
        raise ConnectionRefused(Refusal.PACKET_MALFORMED)
    if length > most_bytes:
        raise ConnectionRefused(Refusal.PACKET_TOO_LARGE)
    return first >> 4, first & 0x0F, await reader.readexactly(length) if length else b""


async def _parse_connect(kind: int, flags: int, body: bytes) -> ConnectPacket:
    if kind != CONNECT or flags:
        raise ConnectionRefused(Refusal.CONNECT_MALFORMED)
    try:
        connect = await _parse(kind, flags, body)
        assert isinstance(connect, ConnectPacket)  # noqa: S101 - by its type
        if connect.proto_name != "MQTT" or connect.proto_level != MQTT_3_1_1:
            raise ConnectionRefused(Refusal.PROTOCOL_UNSUPPORTED, UNACCEPTABLE_PROTOCOL_VERSION)
        has_half_a_will = connect.will_flag and None in (connect.will_topic, connect.will_message)
        is_reserved_bit_set = bool(body[_CONNECT_FLAGS_AT] & 1)
        if is_reserved_bit_set or has_half_a_will or connect.will_qos > 1:
            raise ConnectionRefused(Refusal.CONNECT_MALFORMED)
    except ConnectionRefused as refused:
        if refused.refusal is Refusal.PACKET_MALFORMED:
            raise ConnectionRefused(Refusal.CONNECT_MALFORMED) from refused
        raise
    return connect


def _check_topics(body: bytes, *, bytes_after_each: int) -> None:
    """A list of topic filters has at least one and ends where the packet ends; amqtt would take what there is."""
    position = 2
    while position < len(body) and position + 2 <= len(body):
        length = int.from_bytes(body[position : position + 2])
        position += 2 + length + bytes_after_each
    if position != len(body) or position == 2:
        raise ConnectionRefused(Refusal.PACKET_MALFORMED)


async def _parse(kind: int, flags: int, body: bytes) -> Any:
    """A packet by amqtt's own classes, which raise all sorts of things on garbage."""
    header = MQTTFixedHeader(kind, flags, len(body))
    try:
        return await packet_class(header).from_stream(BufferReader(body), fixed_header=header)
    except Exception as problem:
        raise ConnectionRefused(Refusal.PACKET_MALFORMED) from problem


def _parse_publish(flags: int, body: bytes) -> tuple[Message, int]:
    """MQTT 3.1.1 section 3.3; QoS 2 is not spoken here."""
    qos = (flags & _QOS_BITS) >> 1
    topic_end = 2 + int.from_bytes(body[:2])
    payload_start = topic_end + (2 if qos else 0)
    if qos > 1 or len(body) < payload_start or topic_end == 2:
        raise ConnectionRefused(Refusal.PACKET_MALFORMED)
    packet_id = int.from_bytes(body[topic_end:payload_start])
    try:
        topic = body[2:topic_end].decode()
    except UnicodeDecodeError as problem:
        raise ConnectionRefused(Refusal.PACKET_MALFORMED) from problem
    if "\0" in topic or (qos and not packet_id):
        raise ConnectionRefused(Refusal.PACKET_MALFORMED)
    return Message(topic, body[payload_start:], qos), packet_id


def _publish_bytes(message: Message, qos: int, packet_id: int, *, is_retained: bool) -> bytes:
    name = message.topic.encode()
    head = len(name).to_bytes(2) + name + (packet_id.to_bytes(2) if qos else b"")
    flags = qos << 1 | (_RETAIN_BIT if is_retained else 0)
    header = MQTTFixedHeader(PUBLISH, flags, len(head) + len(message.payload))
    return header.to_bytes() + head + message.payload


def _puback_bytes(packet_id: int) -> bytes:
    return bytes((PUBACK << 4, 2)) + packet_id.to_bytes(2)


async def _hang_up(writer: asyncio.StreamWriter, return_code: int | None) -> None:
    """Say why, when MQTT has a word for it, and close."""
    if return_code is not None and not writer.transport.is_closing():
        writer.write(ConnackPacket.build(0, return_code).to_bytes())
    writer.close()
    asyncio.get_running_loop().call_later(CLOSE_GRACE_S, writer.transport.abort)

"""The consumer (`fleet ingest`): stores what the nodes publish, and acknowledges it to the broker afterwards.

* A message is acknowledged only after the transaction that stored it (or put it into quarantine) is on disk. One transaction
  takes a whole batch: whatever came in while the one before was being written.
* While the database is away nothing is acknowledged; the batch is kept and tried again, the broker holds back the rest.
  A process that dies loses nothing: its session at the broker is not clean, what it had not acknowledged comes again.
* A message that cannot be stored is singled out and never holds up the others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import paho.mqtt.client as mqtt
import structlog
from paho.mqtt.reasoncodes import ReasonCode
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock
from fleet_server.errors import FleetError, Unavailable
from fleet_server.mqtt.connection import (
    CERTIFICATES_UNUSABLE,
    KEEP_ALIVE_S,
    MAX_IN_FLIGHT,
    ServiceClient,
    make_client,
    service_address,
    service_client_id,
)
from fleet_server.services import ingest
from fleet_server.services.authority import ingest_group
from fleet_server.services.ingest import Arrival, Message
from fleet_server.settings import Settings
from fleet_server.wire.errors import WireError
from fleet_server.wire.topics import SERVICE_INGEST, TopicKind, parse_topic

log = structlog.get_logger(__name__)

# Half of what the brokers send without acknowledgement: while one half is being stored, the other comes in.
BATCH_SIZE = MAX_IN_FLIGHT // 2
# A transaction costs as much as some forty packs in it. Fewer than `ENOUGH` wait for more, until nothing came for `GATHER_S`
# (enough to gather one node's burst, nothing for a person), in a stream without a pause until `GATHER_AT_MOST_S`. Who has
# enough does not wait: the nodes may be holding back the rest until these are acknowledged.
ENOUGH = 200
GATHER_S = 0.005
GATHER_AT_MOST_S = 0.05
FIRST_BACK_OFF_S, LAST_BACK_OFF_S = 0.2, 5.0
_POLL_S = 0.2

_OUR_FAULT = WireError("server_failed", "Our own code could not work on it; the log says why.")

_DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeoutError, Unavailable)


class Delivery(NamedTuple):
    """One message in hand: its content, and what it is acknowledged by."""

    message: Message | Arrival
    packet_id: int
    qos: int
    connection: int
    """Which connection it came by: after a new one the broker gives packet ids out again."""


class Consumer:
    """One ingest process.

    Args:
        name: Tells several ingest processes apart; they then share the work (not on the embedded broker).

    Raises:
        AuthorityMissing: it has a name, and the group's name is not here.
    """

    def __init__(
        self, settings: Settings, sessions: sessionmaker[Session], *, name: str | None = None
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._name = name
        self._filter = ingest_filter(settings, is_one_of_several=name is not None)
        self._received: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._connection = 0
        self._lock = threading.Lock()
        self._subscribed = threading.Event()
        self._client: ServiceClient | None = None

    def run(self, stop: threading.Event, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Store until `stop`; waits for broker and database as long as they are away.

        Raises:
            PairUnusable: ingest cannot show the broker who it is.
            AuthorityMissing: there are no certificates at all.
        """
        client = self._open(stop)
        if client is None:
            return
        is_announced = False
        try:
            while not stop.is_set():
                if not is_announced and self._subscribed.is_set():
                    is_announced = True
                    on_ready()
                batch = self._next_batch()
                if batch:
                    self._acknowledge(client, self._store(batch, stop))
        finally:
            client.disconnect()
            client.loop_stop()

    # --- broker

    def _open(self, stop: threading.Event) -> ServiceClient | None:
        """A client that connects, and comes back, by itself; None when stopped before the broker was ever started."""
        back_off_s = FIRST_BACK_OFF_S
        while not stop.is_set():
            try:
                address = service_address(self._settings)
                client = make_client(
                    self._settings,
                    address,
                    SERVICE_INGEST,
                    client_id=service_client_id(SERVICE_INGEST, self._name),
                    is_clean=False,
                    reconnects=True,
                )
            except CERTIFICATES_UNUSABLE:
                raise
            except (FleetError, OSError) as problem:
                log.warning("ingest_waits_for_broker", reason=str(problem), seconds=back_off_s)
                stop.wait(back_off_s)
                back_off_s = min(back_off_s * 2, LAST_BACK_OFF_S)
                continue
            client.on_connect = self._on_connect
            client.on_subscribe = self._on_subscribe
            client.on_disconnect = self._on_disconnect
            client.on_message = self._on_message
            client.connect_async(address.host, address.port, keepalive=KEEP_ALIVE_S)
            client.loop_start()
            return client
        return None

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _: object
    ) -> None:
        if reason.is_failure:
            log.error("broker_refuses_ingest", reason=str(reason))
            return
        with self._lock:
            self._connection += 1
        client.subscribe(self._filter, qos=1)
        log.info("ingest_connected")

    def _on_subscribe(
        self, _client: mqtt.Client, _data: object, _id: int, reasons: list[ReasonCode], _: object
    ) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            log.error("broker_refuses_subscription", reasons=refused)
            return
        self._subscribed.set()

    def _on_disconnect(self, *_: object) -> None:
        with self._lock:
            self._connection += 1
        self._subscribed.clear()
        log.warning("ingest_disconnected")

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.retain:
            # A copy that the broker kept; nodes retain nothing, and what was sent live has been stored.
            client.ack(message.mid, message.qos)
            log.warning("retained_message_ignored", topic=message.topic)
            return
        try:
            received = _read_topic(
                message.topic, bytes(message.payload), self._settings.topic_prefix
            )
        except Exception:
            # It stays at the broker. Without this the network's thread would end, and nothing would be heard any more.
            log.exception("message_left_at_broker", packet_id=message.mid)
            return
        self._received.put(Delivery(_read(received), message.mid, message.qos, self._connection))

    def _acknowledge(self, client: ServiceClient, batch: Sequence[Delivery]) -> None:
        """Tell the broker, for what came by the present connection; the rest comes again and is recognised."""
        with self._lock:
            client.acknowledge(
                delivery.packet_id
                for delivery in batch
                if delivery.qos == 1 and delivery.connection == self._connection
            )

    # --- database

    def _next_batch(self) -> list[Delivery]:
        """What is there, at most `BATCH_SIZE`; empty when nothing comes for a while."""
        try:
            batch = [self._received.get(timeout=_POLL_S)]
        except queue.Empty:
            return []
        latest = time.monotonic() + GATHER_AT_MOST_S
        self._take_waiting(batch)
        while len(batch) < ENOUGH and time.monotonic() < latest:
            time.sleep(GATHER_S)
            if not self._take_waiting(batch):
                break
        return batch

    def _take_waiting(self, batch: list[Delivery]) -> bool:
        """Add what waits to the batch; False when there was nothing."""
        before = len(batch)
        while len(batch) < BATCH_SIZE:
            try:
                batch.append(self._received.get_nowait())
            except queue.Empty:
                break
        return len(batch) > before

    def _store(self, batch: Sequence[Delivery], stop: threading.Event) -> Sequence[Delivery]:
        """Store, however long the database is away. Returns what is stored: nothing when stopped before that."""
        back_off_s = FIRST_BACK_OFF_S
        while True:
            try:
                return self._store_or_single_out(batch)
            except _DATABASE_AWAY as problem:
                log.warning(
                    "ingest_waits_for_database",
                    reason=str(problem).splitlines()[0],
                    messages=len(batch),
                    seconds=back_off_s,
                )
                if stop.wait(back_off_s):
                    return ()
                back_off_s = min(back_off_s * 2, LAST_BACK_OFF_S)

    def _store_or_single_out(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        """One transaction; when some message breaks it, halves, down to the one at fault. Returns what is stored."""
        try:
            self._store_batch([delivery.message for delivery in batch])
        except _DATABASE_AWAY:
            raise
        except Exception:
            if len(batch) == 1:
                log.exception("message_not_storable", node_id=batch[0].message.node_id)
                return batch if self._set_aside(batch[0].message) else ()
            middle = len(batch) // 2
            first = self._store_or_single_out(batch[:middle])
            return (*first, *self._store_or_single_out(batch[middle:]))
        return batch

    def _set_aside(self, message: Message | Arrival) -> bool:
        """Quarantine what our own code fails on (what the database refuses, `store_batch` sorts out by itself).

        False when not even that is possible: the message stays unacknowledged at the broker, and the stream goes on.
        """
        try:
            self._store_batch([_failed(message)])
        except _DATABASE_AWAY:
            raise
        except Exception:
            log.exception("message_left_at_broker", node_id=message.node_id)
            return False
        return True

    def _store_batch(self, messages: list[Message | Arrival]) -> None:
        with self._sessions() as session:
            result = ingest.store_batch(session, messages, now=clock.now())
        log.debug("batch_stored", messages=len(messages), result=repr(result))


def _read(message: Message) -> Message | Arrival:
    """Read here, in the network's thread, while the other one waits for the disk."""
    try:
        return ingest.read_message(message, now=message.received_at or clock.now())
    except Exception:
        # A mistake of ours must not end the network's thread: met again when it is stored, it is singled out.
        log.exception("message_not_readable", node_id=message.node_id)
        return message


def _failed(message: Message | Arrival) -> Arrival:
    """The message as one to be kept aside. A pack keeps its number where it could be read: it has arrived, and holds up no receipt."""
    if isinstance(message, Message):
        received_s = int((message.received_at or clock.now()).timestamp())
        message = Arrival("unknown", message.node_id, message.payload, received_s, _OUR_FAULT)
    fault = WireError(_OUR_FAULT.code, _OUR_FAULT.sentence, message.identity)
    return message._replace(content=fault)


def ingest_filter(settings: Settings, *, is_one_of_several: bool) -> str:
    """All of `up/`: what is no topic of ours belongs into quarantine, not into nothing.

    Several share a group (MQTT 5.0 section 4.8.2, which mosquitto speaks in 3.1.1, too) whose name no node knows: mosquitto lets
    anybody join a group and gives every member its share, also one that may not read it, for whom the message is then dropped.
    """
    tree = f"{settings.topic_prefix}/up/#" if settings.topic_prefix else "up/#"
    return f"$share/{ingest_group(settings.ca_dir)}/{tree}" if is_one_of_several else tree


def _read_topic(name: str, payload: bytes, prefix: str) -> Message:
    """The message as ingest takes it; on an unknown topic the sender is still the one that the broker let write there."""
    kind, node_id = _sender(name, prefix)
    return Message(kind, node_id, payload, clock.now())


@lru_cache(maxsize=10_000)
def _sender(name: str, prefix: str) -> tuple[TopicKind | None, str]:
    try:
        topic = parse_topic(name, prefix=prefix)
    except (WireError, ValueError):
        levels = name.removeprefix(f"{prefix}/" if prefix else "").split("/")
        return None, levels[1] if len(levels) > 1 else ""
    return topic.kind, topic.node_id

"""The publisher (`fleet worker`): drains the outbox to the retained topics `dn/…`.

Truth is in the database; the broker only shows it. Two rules keep it so:

* What is published is read when it is claimed, and a connection that broke takes everything it had in hand with it
  (a client of its own per connection): an old receipt is never sent after a newer one.
* The retained topic `dn/_fleet/epoch` holds how much had been published when it was written. When it is missing, or is not what
  the database says, the broker has lost or regained memory, and everything is published again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import paho.mqtt.client as mqtt
import structlog
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock
from fleet_server.errors import FleetError, Unavailable
from fleet_server.mqtt.connection import (
    CERTIFICATES_UNUSABLE,
    CONNECT_TIMEOUT_S,
    KEEP_ALIVE_S,
    ServiceAddress,
    make_client,
    service_address,
    service_client_id,
)
from fleet_server.services import publishing
from fleet_server.services.publishing import DueMessage
from fleet_server.settings import Settings
from fleet_server.wire.topics import SERVICE_CONTROL, topic_name

log = structlog.get_logger(__name__)

EPOCH_TOPIC = "dn/_fleet/epoch"
# A receipt shall reach a node that lingers for two seconds; this is the larger part of its way.
POLL_S = 0.05
BATCH_SIZE = 500
# Both brokers send a retained message right after the SUBACK; what is not there by then does not exist.
EPOCH_GRACE_S = 0.5
EPOCH_EVERY_S = 1.0
# Well under the lease, after which another publisher may take the same rows.
PUBACK_TIMEOUT_S = 5.0
FIRST_BACK_OFF_S, LAST_BACK_OFF_S = 0.2, 5.0


class Publisher:
    """One publisher process.

    Args:
        name: Tells several publishers apart at the broker.
    """

    def __init__(
        self, settings: Settings, sessions: sessionmaker[Session], *, name: str | None = None
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._name = name
        self._in_hand: list[DueMessage] = []
        self._claimed_at = 0.0
        self._epoch = ""
        self._epoch_due_at = 0.0

    def run(self, stop: threading.Event, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Publish until `stop`; waits for broker and database as long as they are away.

        Raises:
            PairUnusable: the worker cannot show the broker who it is.
            AuthorityMissing: there are no certificates at all.
        """
        back_off_s = FIRST_BACK_OFF_S
        announce = _once(on_ready)
        while not stop.is_set():
            try:
                with self._connected() as link:
                    self._give_back_what_was_in_hand()
                    self._check_epoch(link)
                    announce()
                    back_off_s = FIRST_BACK_OFF_S
                    self._drain(link, stop)
            except CERTIFICATES_UNUSABLE:
                raise
            except (FleetError, OSError, DBAPIError) as problem:
                log.warning("publisher_waits", reason=_sentence(problem), seconds=back_off_s)
                stop.wait(back_off_s)
                back_off_s = min(back_off_s * 2, LAST_BACK_OFF_S)

    @contextmanager
    def _connected(self) -> Iterator[_Link]:
        address = service_address(self._settings)
        client = make_client(
            self._settings,
            address,
            SERVICE_CONTROL,
            client_id=service_client_id(SERVICE_CONTROL, self._name),
            is_clean=True,
            reconnects=False,
        )
        link = _Link(client, prefix=self._settings.topic_prefix)
        try:
            link.open(address)
            yield link
        finally:
            link.close()

    def _check_epoch(self, link: _Link) -> None:
        """Publish everything again when the broker's memory is not that of the database."""
        found = link.read_retained(EPOCH_TOPIC)
        with self._sessions() as session:
            expected = _epoch(session)
            if found != expected:
                nodes = publishing.mark_everything_changed(session, now=clock.now())
                log.info("resync_begun", nodes=nodes, broker_epoch=found, database_epoch=expected)
        self._epoch = found or ""
        self._epoch_due_at = 0.0

    def _drain(self, link: _Link, stop: threading.Event) -> None:
        while not stop.is_set():
            if not self._publish_due(link):
                self._publish_epoch_when_due(link)
                link.raise_when_lost()
                stop.wait(POLL_S)

    def _publish_due(self, link: _Link) -> int:
        """One batch: claim, publish, wait for the PUBACKs, confirm. Returns how many were due."""
        with self._sessions() as session:
            if not publishing.count_due(session):
                return 0
            messages = publishing.claim_due(
                session,
                wall_now=datetime.now(UTC),
                limit=BATCH_SIZE,
                now=clock.now(),
                secret_key=self._settings.session_key,
            )
            self._in_hand, self._claimed_at = messages, time.monotonic()
            arrived = link.publish(messages)
            publishing.mark_published(session, arrived)
            if len(arrived) < len(messages):
                publishing.give_back(session, messages)
            self._in_hand = []
        link.raise_when_lost()
        if len(arrived) < len(messages):
            raise Unavailable("The broker does not acknowledge what it is sent.")
        log.debug("states_published", count=len(arrived))
        return len(messages)

    def _give_back_what_was_in_hand(self) -> None:
        """After trouble with the database: nobody should wait until the claim runs out. The connection it was sent by is closed.

        A claim that may have run out is left alone: it may be another publisher's by now.
        """
        if self._in_hand and time.monotonic() < self._claimed_at + publishing.LEASE_S / 2:
            with self._sessions() as session:
                publishing.give_back(session, self._in_hand)
        self._in_hand = []

    def _publish_epoch_when_due(self, link: _Link) -> None:
        """Written only when nothing waits: everything it counts is at the broker already."""
        now = time.monotonic()
        if now < self._epoch_due_at:
            return
        self._epoch_due_at = now + EPOCH_EVERY_S
        with self._sessions() as session:
            epoch = _epoch(session)
        if epoch != self._epoch and link.publish_text(EPOCH_TOPIC, epoch):
            self._epoch = epoch


class _Link:
    """One connection to the broker, from its CONNECT to its end; never used again after that."""

    def __init__(self, client: mqtt.Client, *, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._answered = threading.Event()
        self._refused: str | None = None
        self._lost = threading.Event()
        self._retained: dict[str, str] = {}
        self._retained_came = threading.Event()
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message

    def open(self, address: ServiceAddress) -> None:
        self._client.connect(address.host, address.port, keepalive=KEEP_ALIVE_S)
        self._client.loop_start()
        if not self._answered.wait(CONNECT_TIMEOUT_S):
            raise Unavailable(f"The broker {address.host}:{address.port} does not answer.")
        if self._refused:
            raise Unavailable(f"The broker refuses {SERVICE_CONTROL}: {self._refused}.")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def raise_when_lost(self) -> None:
        if self._lost.is_set():
            raise Unavailable("The connection to the broker was lost.")

    def read_retained(self, topic: str) -> str | None:
        """What the broker keeps under a topic; None when it keeps nothing."""
        name = self._named(topic)
        self._retained_came.clear()
        self._client.subscribe(name, qos=1)
        self._retained_came.wait(EPOCH_GRACE_S)
        self.raise_when_lost()
        self._client.unsubscribe(name)
        return self._retained.get(name)

    def publish(self, messages: list[DueMessage]) -> list[DueMessage]:
        """Publish retained; returns those that the broker has acknowledged."""
        sent = []
        for message in messages:
            topic = topic_name(message.kind, message.node_id, prefix=self._prefix)
            sent.append((message, self._client.publish(topic, message.payload, qos=1, retain=True)))
        deadline = time.monotonic() + PUBACK_TIMEOUT_S
        return [message for message, info in sent if self._has_arrived(info, deadline)]

    def publish_text(self, topic: str, text: str) -> bool:
        info = self._client.publish(self._named(topic), text, qos=1, retain=True)
        return self._has_arrived(info, time.monotonic() + PUBACK_TIMEOUT_S)

    def _has_arrived(self, info: mqtt.MQTTMessageInfo, deadline: float) -> bool:
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        while not info.is_published():
            left_s = deadline - time.monotonic()
            if left_s <= 0 or self._lost.is_set():
                return False
            info.wait_for_publish(min(left_s, POLL_S))
        return True

    def _named(self, topic: str) -> str:
        return f"{self._prefix}/{topic}" if self._prefix else topic

    def _on_connect(
        self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _: object
    ) -> None:
        self._refused = str(reason) if reason.is_failure else None
        self._answered.set()

    def _on_disconnect(self, *_: object) -> None:
        self._lost.set()
        self._answered.set()

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        client.ack(message.mid, message.qos)
        if message.retain:
            self._retained[message.topic] = message.payload.decode("ascii", "replace")
            self._retained_came.set()


def _epoch(session: Session) -> str:
    return str(publishing.published_total(session))


def _once(action: Callable[[], None]) -> Callable[[], None]:
    waiting = [action]

    def run() -> None:
        if waiting:
            waiting.pop()()

    return run


def _sentence(problem: BaseException) -> str:
    return str(problem).strip().splitlines()[0] if str(problem) else type(problem).__name__

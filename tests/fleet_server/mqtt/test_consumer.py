"""`fleet ingest` at both brokers: acknowledged means stored, whatever dies in between."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from brokers import (
    PUBACK,
    Certificates,
    RawClient,
    RunningBroker,
    at_work,
    node_client,
    running_broker,
    running_embedded,
    settings_for,
    wait_until,
)
from factories import SimulatedNode, deployed_node
from mqtt_services import NODE_ID, database_away
from servers import PostgresqlServer
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.broker import mosquitto
from fleet_server.broker.access import Client
from fleet_server.broker.embedded import EmbeddedBroker
from fleet_server.errors import NotFound
from fleet_server.models import Channel, Pack, Quarantine, Receipt
from fleet_server.mqtt import consumer
from fleet_server.mqtt.consumer import Consumer, Delivery, ingest_filter
from fleet_server.services import ingest
from fleet_server.services.ingest import Arrival, Message
from fleet_server.services.verifying import verify
from fleet_server.settings import Settings, load_settings

TOPIC = f"up/{NODE_ID}/tm"
Sessions = sessionmaker[Session]


def stored(sessions: Sessions) -> list[int]:
    """Sequence numbers in the database, in order, with repetitions."""
    with sessions() as session:
        return list(session.scalars(select(Pack.seq).order_by(Pack.seq)))


def quarantined(sessions: Sessions) -> int:
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(Quarantine)) or 0


@pytest.mark.parametrize("kind", ["embedded"], indirect=True)
def test_node_gets_its_puback_when_the_pack_is_in_the_database(
    settings: Settings, sessions: Sessions, node: RawClient
) -> None:
    with at_work(Consumer(settings, sessions)):
        node.publish_and_wait(TOPIC, SimulatedNode(NODE_ID).pack().payload)
        assert stored(sessions) == [1]


def test_burst_is_stored_and_acknowledged_completely(
    settings: Settings, sessions: Sessions, node: RawClient
) -> None:
    packs = SimulatedNode(NODE_ID).packs(range(1, 301))
    with at_work(Consumer(settings, sessions)):
        for pack in packs[:50]:
            node.publish(TOPIC, pack.payload)
        for pack in packs[50:]:
            node.wait_for(PUBACK)
            node.publish(TOPIC, pack.payload)
        wait_until(lambda: len(stored(sessions)) >= 300)
    assert stored(sessions) == list(range(1, 301))

    # All of it was acknowledged: another process is not given any of it again.
    taken: list[bytes] = []

    class Watched(Consumer):
        def _acknowledge(self, client: Any, batch: Sequence[Delivery]) -> None:
            taken.extend(delivery.message.payload for delivery in batch)
            super()._acknowledge(client, batch)

    late = SimulatedNode(NODE_ID).pack(301).payload
    with at_work(Watched(settings, sessions)):
        node.publish(TOPIC, late)
        wait_until(lambda: late in taken)
    assert taken == [late]


class NeverAcknowledges(Consumer):
    """To the broker the same as one that died between the commit and the acknowledgement."""

    def _acknowledge(self, *_: object) -> None:
        pass


def test_pack_committed_but_not_acknowledged_comes_again_and_is_stored_once(
    kind: str, settings: Settings, sessions: Sessions, node: RawClient
) -> None:
    pack = SimulatedNode(NODE_ID).pack().payload
    with at_work(NeverAcknowledges(settings, sessions)):
        node.publish(TOPIC, pack)
        wait_until(lambda: stored(sessions) == [1])
    taken: list[Delivery] = []

    class Watched(Consumer):
        def _acknowledge(self, client: Any, batch: Sequence[Delivery]) -> None:
            taken.extend(batch)
            super()._acknowledge(client, batch)

    with at_work(Watched(settings, sessions)):
        wait_until(lambda: taken)
        if kind == "embedded":
            node.wait_for(PUBACK)
    assert taken[0].message.payload == pack
    assert stored(sessions) == [1]


def test_nothing_is_acknowledged_while_the_database_is_away(
    kind: str, settings: Settings, sessions: Sessions, node: RawClient
) -> None:
    acknowledged = threading.Event()

    class Watched(Consumer):
        def _acknowledge(self, client: Any, batch: Sequence[Delivery]) -> None:
            super()._acknowledge(client, batch)
            acknowledged.set()

    with at_work(Watched(settings, sessions)):
        with database_away(sessions, "pack"):
            for pack in SimulatedNode(NODE_ID).packs((1, 2, 3)):
                node.publish(TOPIC, pack.payload)
            assert not acknowledged.wait(1.0)
            if kind == "embedded":
                with pytest.raises(TimeoutError):
                    node.wait_for(PUBACK, timeout_s=0.2)
        wait_until(lambda: stored(sessions) == [1, 2, 3])
        wait_until(acknowledged.is_set)


GARBAGE = {
    "empty": b"",
    "random": random.Random(1).randbytes(200),
    "64 KiB": random.Random(2).randbytes(65_000),
    "valid CBOR of the wrong shape": b"\xa1\x01\x02",
    "another node's pack": SimulatedNode("n-000002").pack(1).payload,
    "the year 2106": SimulatedNode(NODE_ID).pack(1, at_s=2**32 - 1).payload,
}


def test_garbage_goes_to_quarantine_and_the_stream_goes_on(
    settings: Settings, sessions: Sessions, node: RawClient
) -> None:
    good = SimulatedNode(NODE_ID, oldest=2).pack(2).payload
    with at_work(Consumer(settings, sessions)):
        for nonsense in GARBAGE.values():
            node.publish_and_wait(TOPIC, nonsense)
        node.publish_and_wait(TOPIC, good)
        wait_until(lambda: stored(sessions) == [2])
    assert quarantined(sessions) == len(GARBAGE)


@pytest.mark.parametrize("kind", ["embedded"], indirect=True)
def test_pack_that_our_own_code_fails_on_is_kept_aside_under_its_number_and_holds_up_no_receipt(
    settings: Settings, sessions: Sessions, node: RawClient
) -> None:
    with sessions() as session, db.writing(session):  # deployed by a version that knew more
        session.execute(update(Channel).where(Channel.key == "t30").values(conversion="later"))
    simulated = SimulatedNode(NODE_ID)
    with at_work(Consumer(settings, sessions)):
        node.publish_and_wait(TOPIC, simulated.pack(1).payload)
        node.publish_and_wait(TOPIC, simulated.pack(2, readings={"bat": 3900}).payload)
        wait_until(lambda: stored(sessions) == [2])
    with sessions() as session:
        kept = session.scalars(select(Quarantine)).one()
        assert (kept.reason, kept.kind) == ("server_failed", "telemetry")
        assert (kept.spool, kept.seq) == (simulated.spool, 1)
        assert session.get_one(Receipt, NODE_ID).seq == 2
        assert verify(session).packs_damaged == 0


class LetsNodesWriteMore(EmbeddedBroker):
    def may_publish(self, client: Client, topic: str) -> bool:
        return topic.startswith(f"up/{client.name}/")


def let_nodes_write_more(configuration: Path) -> None:
    with configuration.with_name(mosquitto.ACCESS_FILE).open("a") as rules:
        rules.write("pattern write up/%u/#\n")


@contextmanager
def wider_broker(kind: str, certificates: Certificates, folder: Path) -> Iterator[RunningBroker]:
    """As another city may have set it up: nodes write all of `up/<their id>/`."""
    with (
        running_embedded(certificates, kind=LetsNodesWriteMore)
        if kind == "embedded"
        else running_broker(kind, certificates, folder, rewrite=let_nodes_write_more)
    ) as broker:
        yield broker


ODD_TOPICS = ("unheard-of", "", "tm/", "tm/more", "/tm", "TM", "ünknown")


def test_topic_of_nobody_goes_to_quarantine_where_the_broker_lets_it_through(
    kind: str, certificates: Certificates, tmp_path: Path, sessions: Sessions
) -> None:
    """Our own access rules do not (`fill_the_store_under_ones_own_name` in tests/end_to_end/defences.py)."""
    good = SimulatedNode(NODE_ID).pack(1).payload
    with (
        wider_broker(kind, certificates, tmp_path) as broker,
        node_client(broker, certificates.node(NODE_ID)) as node,
        at_work(Consumer(settings_for(tmp_path, broker), sessions)),
    ):
        assert node.connect(NODE_ID) == 0
        for name in ODD_TOPICS:
            node.publish_and_wait(f"up/{NODE_ID}/{name}", b"on " + name.encode())
        node.publish_and_wait(TOPIC, good)
        wait_until(lambda: stored(sessions) == [1])
    with sessions() as session:
        kept = session.execute(select(Quarantine.node_id, Quarantine.reason)).all()
    assert [tuple(row) for row in kept] == [(NODE_ID, "topic_unknown")] * len(ODD_TOPICS)


def test_group_of_several_ingest_processes_has_a_name_of_its_own_in_every_fleet(
    tmp_path: Path,
) -> None:
    filters = set()
    for fleet in ("bochum", "herne"):
        Certificates(tmp_path / fleet / "ca")
        settings = load_settings({}, data_dir=tmp_path / fleet, broker_url="mqtts://127.0.0.1:8883")
        filters.add(ingest_filter(settings, is_one_of_several=True))
        assert ingest_filter(settings, is_one_of_several=False) == "up/#"
    assert len(filters) == 2
    assert all(re.fullmatch(r"\$share/[0-9a-f]{32}/up/#", name) for name in filters)


def test_ingest_with_a_name_but_without_the_groups_name_says_what_to_do(tmp_path: Path) -> None:
    Certificates(tmp_path / "ca").files.ingest_group.unlink()
    settings = load_settings({}, data_dir=tmp_path, broker_url="mqtts://127.0.0.1:8883")
    with pytest.raises(NotFound, match="fleet ca init"):
        ingest_filter(settings, is_one_of_several=True)


def _is_worked_on(message: Message | Arrival) -> bool:
    """Not only kept aside."""
    return isinstance(message, Message) or message.reason is None


@pytest.mark.parametrize("kind", ["embedded"], indirect=True)
def test_message_that_our_code_fails_on_holds_up_nobody(
    settings: Settings, sessions: Sessions, node: RawClient
) -> None:
    packs = [pack.payload for pack in SimulatedNode(NODE_ID).packs(range(1, 11))]

    class Faulty(Consumer):
        def _store_batch(self, messages: list[Message | Arrival]) -> None:
            if any(one.payload == packs[4] and _is_worked_on(one) for one in messages):
                raise ZeroDivisionError
            super()._store_batch(messages)

    with at_work(Faulty(settings, sessions)):
        for pack in packs:
            node.publish(TOPIC, pack)
        wait_until(lambda: len(stored(sessions)) == 9)
        wait_until(lambda: quarantined(sessions) == 1)
    assert 5 not in stored(sessions)


@pytest.mark.parametrize("kind", ["embedded"], indirect=True)
def test_message_that_our_code_fails_to_read_holds_up_nobody(
    settings: Settings, sessions: Sessions, node: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = [pack.payload for pack in SimulatedNode(NODE_ID).packs(range(1, 11))]
    read_message = ingest.read_message

    def faulty(message: Message, *, now: datetime) -> Arrival:
        if message.payload == packs[4] and message.kind is not None:
            raise ZeroDivisionError
        return read_message(message, now=now)

    monkeypatch.setattr(ingest, "read_message", faulty)
    with at_work(Consumer(settings, sessions)):
        for pack in packs:
            node.publish(TOPIC, pack)
        wait_until(lambda: len(stored(sessions)) == 9)
        wait_until(lambda: quarantined(sessions) == 1)
    assert 5 not in stored(sessions)


@pytest.mark.parametrize("kind", ["embedded"], indirect=True)
def test_message_whose_topic_our_code_fails_on_does_not_end_the_networks_thread(
    settings: Settings, sessions: Sessions, node: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_topic = consumer._read_topic

    def faulty(name: str, payload: bytes, prefix: str) -> Message:
        if payload == b"poison":
            raise ZeroDivisionError
        return read_topic(name, payload, prefix)

    monkeypatch.setattr(consumer, "_read_topic", faulty)
    with at_work(Consumer(settings, sessions)):
        node.publish(TOPIC, b"poison")
        node.publish(TOPIC, SimulatedNode(NODE_ID).pack(1).payload)
        wait_until(lambda: stored(sessions) == [1])


def test_consumer_comes_back_after_the_broker_was_away(
    kind: str, certificates: Certificates, tmp_path: Path, sessions: Sessions
) -> None:
    def talk(broker: RunningBroker, seq: int) -> None:
        with node_client(broker, certificates.node(NODE_ID)) as node:
            assert node.connect(NODE_ID) == 0
            node.publish(TOPIC, SimulatedNode(NODE_ID).pack(seq).payload)
            wait_until(lambda: seq in stored(sessions))

    with running_broker(kind, certificates, tmp_path) as first:
        settings = settings_for(tmp_path, first)
        service = at_work(Consumer(settings, sessions))
        service.__enter__()
        talk(first, 1)
        ports = {"node_port": first.node_port, "service_port": first.service_port}
    try:
        with running_broker(kind, certificates, tmp_path, **ports) as second:
            talk(second, 2)
    finally:
        service.__exit__(None, None, None)
    assert stored(sessions) == [1, 2]


@pytest.mark.needs_mosquitto
@pytest.mark.parametrize("kind", ["mosquitto"], indirect=True)
def test_message_that_the_broker_retained_is_not_taken_for_a_new_one(
    settings: Settings, sessions: Sessions, node: RawClient
) -> None:
    node.publish_and_wait(TOPIC, b"kept", is_retained=True)
    with at_work(Consumer(settings, sessions)):
        node.publish_and_wait(TOPIC, SimulatedNode(NODE_ID).pack().payload)
        wait_until(lambda: stored(sessions) == [1])
    assert quarantined(sessions) == 0


@pytest.mark.needs_mosquitto
@pytest.mark.parametrize("kind", ["mosquitto"], indirect=True)
def test_two_ingest_processes_share_the_work(
    settings: Settings, sessions: Sessions, node: RawClient
) -> None:
    taken: dict[str, int] = {}

    class Counting(Consumer):
        def _store_batch(self, messages: list[Message]) -> None:
            taken[self._name or ""] = taken.get(self._name or "", 0) + len(messages)
            super()._store_batch(messages)

    with (
        at_work(Counting(settings, sessions, name="one")),
        at_work(Counting(settings, sessions, name="two")),
    ):
        for pack in SimulatedNode(NODE_ID).packs(range(1, 41)):
            node.publish(TOPIC, pack.payload)
        wait_until(lambda: len(stored(sessions)) == 40)
    assert set(taken) == {"one", "two"}
    assert sum(taken.values()) == 40


@pytest.mark.needs_postgresql
@pytest.mark.parametrize("kind", ["embedded"], indirect=True)
def test_stopped_postgresql_is_waited_for(
    settings: Settings, postgresql_server: PostgresqlServer, node: RawClient
) -> None:
    with postgresql_server.fresh() as url:
        engine = db.make_engine(url)
        real = db.session_factory(engine)
        with real() as session:
            deployed_node(session, NODE_ID)
        with at_work(Consumer(settings, real)):
            node.publish_and_wait(TOPIC, SimulatedNode(NODE_ID).pack(1).payload)
            postgresql_server.stop()
            try:
                node.publish(TOPIC, SimulatedNode(NODE_ID).pack(2).payload)
                with pytest.raises(TimeoutError):
                    node.wait_for(PUBACK, timeout_s=0.5)
            finally:
                postgresql_server.start()
            node.wait_for(PUBACK, timeout_s=10)
            assert stored(real) == [1, 2]
        engine.dispose()

"""What nodes are told: coalesced, read fresh, never going back, claimed by one publisher at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from factories import NOON, SimulatedNode, deployed_node, register_node
from sqlalchemy.orm import Session, sessionmaker

from fleet_server.errors import NotFound
from fleet_server.services import configuring, publishing
from fleet_server.services.configuring import ConfigurationWrong
from fleet_server.services.ingest import store_batch
from fleet_server.wire.desired import Receipt, decode_desired, decode_receipt
from fleet_server.wire.topics import TopicKind

WALL = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)


def drain(session: Session) -> dict[TopicKind, bytes]:
    messages = publishing.claim_due(session, wall_now=WALL)
    publishing.mark_published(session, messages)
    return {message.kind: message.payload for message in messages}


def test_both_retained_messages_are_due_from_enrolment_on(session: Session) -> None:
    register_node(session, "n-000001")
    told = drain(session)
    assert decode_receipt(told[TopicKind.RECEIPT]) == Receipt(spool=0, seq=0)
    wanted = decode_desired(told[TopicKind.DESIRED])
    assert (wanted.config_version, wanted.config_values) == (
        1,
        {"sample_s": 900, "publish_s": 3600},
    )
    assert drain(session) == {}


def test_receipt_is_what_it_is_when_it_is_claimed_not_when_it_moved(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    for seq in range(1, 5):
        store_batch(session, [node.pack(seq)], now=NOON)
    receipt = decode_receipt(drain(session)[TopicKind.RECEIPT])
    assert receipt == Receipt(spool=node.spool, seq=4)


def test_change_while_a_publisher_is_at_it_stays_due(session: Session) -> None:
    deployed_node(session)
    drain(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(1)], now=NOON)
    claimed = publishing.claim_due(session, wall_now=WALL)
    store_batch(session, [node.pack(2)], now=NOON)
    assert publishing.claim_due(session, wall_now=WALL) == []
    publishing.mark_published(session, claimed)
    assert decode_receipt(drain(session)[TopicKind.RECEIPT]).seq == 2


def test_claim_of_a_publisher_that_died_runs_out(sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        register_node(session, "n-000001")
        assert len(publishing.claim_due(session, wall_now=WALL)) == 2
    with sessions() as session:
        assert publishing.claim_due(session, wall_now=WALL + timedelta(seconds=1)) == []
        later = WALL + timedelta(seconds=publishing.LEASE_S)
        assert len(publishing.claim_due(session, wall_now=later)) == 2


def test_claim_that_is_given_back_is_due_at_once(session: Session) -> None:
    register_node(session, "n-000001")
    publishing.give_back(session, publishing.claim_due(session, wall_now=WALL))
    assert publishing.count_due(session) == 2
    assert len(drain(session)) == 2


def test_everything_is_due_again_after_the_broker_lost_its_memory(session: Session) -> None:
    register_node(session, "n-000001")
    drain(session)
    assert publishing.mark_everything_changed(session, now=NOON) == 1
    assert len(drain(session)) == 2


def test_configuration_rises_with_a_change_and_only_then(session: Session) -> None:
    register_node(session, "n-000001")
    drain(session)
    assert configuring.configure_node(session, "n-000001", {"publish_s": 1800}, now=NOON) == 2
    assert configuring.configure_node(session, "n-000001", {"publish_s": 1800}, now=NOON) == 2
    wanted = decode_desired(drain(session)[TopicKind.DESIRED])
    assert (wanted.config_version, wanted.config_values) == (
        2,
        {"sample_s": 900, "publish_s": 1800},
    )


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    "settings",
    [
        {"sample_s": 59},
        {"publish_s": 86_401},
        {"sample_s": 900.5},
        {"sample_s": True},
        {"colour": 1},
        {"sample_s": 7200},
    ],
)
def test_setting_that_no_node_takes_is_refused(
    session: Session, settings: dict[str, float | bool]
) -> None:
    register_node(session, "n-000001")
    with pytest.raises(ConfigurationWrong):
        configuring.configure_node(session, "n-000001", settings, now=NOON)


def test_node_that_is_not_there_cannot_be_configured(session: Session) -> None:
    with pytest.raises(NotFound):
        configuring.configure_node(session, "n-ffffff", {"sample_s": 900}, now=NOON)

"""A node is judged by its own schedule."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import NOON, SimulatedNode, deployed_node, register_node
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import NodeStatus
from fleet_server.services import configuring
from fleet_server.services.health import Freshness, fleet_health, has_freshness
from fleet_server.services.ingest import store_batch


@pytest.mark.parametrize(
    ("silent_s", "publish_every_s", "judged"),
    [
        (0, 3600, Freshness.FRESH),
        (5400, 3600, Freshness.FRESH),
        (5401, 3600, Freshness.LATE),
        (10_800, 3600, Freshness.LATE),
        (10_801, 3600, Freshness.OFFLINE),
        (5401, 86_400, Freshness.FRESH),
    ],
)
def test_silence_is_judged_by_the_nodes_own_schedule(
    session: Session, silent_s: int, publish_every_s: int, judged: Freshness
) -> None:
    deployed_node(session)
    store_batch(session, [SimulatedNode().state()], now=NOON)
    with db.writing(session):
        session.get_one(NodeStatus, "n-000001").publish_s = publish_every_s
    now = NOON + timedelta(seconds=silent_s)

    (health,) = fleet_health(session, now=now)

    assert health.freshness is judged
    found = [
        one
        for one in Freshness
        if session.scalar(select(NodeStatus.node_id).where(has_freshness(one, now=now)))
    ]
    assert found == [judged]


@pytest.mark.parametrize(
    ("level", "silent_h", "judged"),
    [
        ("normal", 2, Freshness.LATE),
        ("low", 5, Freshness.FRESH),
        ("low", 7, Freshness.LATE),
        ("low", 13, Freshness.OFFLINE),
        ("mute", 5, Freshness.FRESH),
        ("mute", 99, Freshness.MUTED),
        ("stop", 99, Freshness.MUTED),
        ("of a later firmware", 2, Freshness.LATE),
    ],
)
def test_a_node_that_spares_its_battery_is_judged_by_what_it_said(
    session: Session, level: str, silent_h: int, judged: Freshness
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    said = [node.event(1, "battery", {"level": "mute", "mv": 3340})]
    said += [node.event(2, "battery", {"level": level, "mv": 3490}), node.state()]
    store_batch(session, said, now=NOON)

    now = NOON + timedelta(hours=silent_h)
    (health,) = fleet_health(session, now=now)

    assert health.freshness is judged
    judged_by_database = select(NodeStatus.node_id).where(has_freshness(judged, now=now))
    assert session.scalar(judged_by_database) == "n-000001"


def test_what_a_node_said_of_its_battery_ends_with_that_battery(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.event(1, "battery", {"level": "mute", "mv": 3340})], now=NOON)
    swapped = SimulatedNode(power_up=0x9002)
    store_batch(session, [swapped.state(), swapped.pack(2)], now=NOON)

    (health,) = fleet_health(session, now=NOON + timedelta(hours=2))

    assert health.freshness is Freshness.LATE


def test_node_that_was_never_heard_is_not_called_offline(session: Session) -> None:
    register_node(session, "n-000001")
    (health,) = fleet_health(session, now=NOON)
    assert health.freshness is Freshness.NEVER_SEEN
    assert health.site is None


def test_configured_schedule_counts(session: Session) -> None:
    deployed_node(session)
    store_batch(session, [SimulatedNode().pack()], now=NOON)
    configuring.configure_node(session, "n-000001", {"publish_s": 900}, now=NOON)
    (health,) = fleet_health(session, now=NOON + timedelta(hours=1))
    assert health.publish_every_s == 900
    assert health.freshness is Freshness.OFFLINE
    assert health.site is not None
    assert health.site.code == "n-000001-site"


def test_list_of_nodes_takes_one_statement_however_many_there_are(
    engine: Engine, session: Session
) -> None:
    for number in range(1, 6):
        deployed_node(session, f"n-{number:06x}")
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert len(fleet_health(session, now=NOON)) == 5
    assert len([one for one in statements if one.startswith("SELECT")]) == 1

"""Commands to nodes: told until they are answered or expire, answered once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.errors import FleetError, NotFound, Refused
from fleet_server.models import AuditEntry, Configuration, Node
from fleet_server.services import commanding, configuring, layering, ordering, publishing
from fleet_server.services.commanding import CommandState, CommandsWaiting, CommandWrong
from fleet_server.services.ingest import store_batch
from fleet_server.services.selecting import Selection
from fleet_server.wire.desired import DesiredState
from fleet_server.wire.states import NodeState
from fleet_server.wire.topics import TopicKind

NODE = "n-000001"


@pytest.fixture
def node(session: Session) -> SimulatedNode:
    deployed_node(session, NODE)
    deployed_node(session, "n-000002")
    return SimulatedNode(NODE)


def order(session: Session, name: str, **arguments: Any) -> int:
    return commanding.order_command(session, NODE, name, arguments, now=NOON)


def told(session: Session, *, later: timedelta = timedelta()) -> DesiredState:
    states = publishing.desired_states(
        session, [NODE], now=NOON + later, secret_key=configuring.no_secret_key
    )
    return states[NODE]


def state(session: Session, *, later: timedelta = timedelta()) -> tuple[CommandState, str | None]:
    session.expire_all()
    (one,) = commanding.commands_of(session, NODE, now=NOON + later)
    return one.state, one.result


def answer(session: Session, node: SimulatedNode, command_id: float, result: str, seq: int) -> None:
    details = {"id": command_id, "name": "reboot", "result": result, "boots": 7}
    store_batch(session, [node.event(seq, "answer", details)], now=NOON)


def test_a_command_is_told_until_it_is_answered(session: Session, node: SimulatedNode) -> None:
    number = order(session, "resend", **{"from": 10, "to": 20})
    (wanted,) = told(session).commands
    assert wanted == {
        "id": number,
        "name": "resend",
        "args": {"from": 10, "to": 20},
        "expires": int((NOON + timedelta(hours=24)).timestamp()),
    }
    assert state(session) == (CommandState.PENDING, None)
    publishing.mark_published(session, publishing.claim_due(session, wall_now=NOON))
    answer(session, node, number, "done", seq=1)
    assert state(session) == (CommandState.ANSWERED, "done")
    (due,) = [
        message
        for message in publishing.claim_due(session, wall_now=NOON)
        if message.kind is TopicKind.DESIRED
    ]
    assert due.node_id == NODE
    assert told(session).commands == ()
    (one,) = commanding.commands_of(session, NODE, now=NOON)
    assert (list(one.details), one.answered_at) == ([["boots", 7]], NOON)


def test_a_command_expires_by_itself_and_a_late_answer_still_counts(
    session: Session, node: SimulatedNode
) -> None:
    number = order(session, "reboot")
    day = timedelta(hours=24)
    assert state(session, later=day - timedelta(seconds=1)) == (CommandState.PENDING, None)
    assert state(session, later=day) == (CommandState.EXPIRED, None)
    assert told(session, later=day).commands == ()
    answer(session, node, number, "done", seq=1)
    assert state(session, later=day) == (CommandState.ANSWERED, "done")


def test_a_node_that_heard_of_it_too_late_says_that_it_expired(
    session: Session, node: SimulatedNode
) -> None:
    answer(session, node, order(session, "reboot"), "expired", seq=1)
    assert state(session) == (CommandState.EXPIRED, "expired")


@pytest.mark.parametrize("first", ["done", "interrupted"])
def test_of_two_answers_the_one_counts_that_is_not_interrupted(
    session: Session, node: SimulatedNode, first: str
) -> None:
    number = order(session, "reboot")
    second = {"done": "interrupted", "interrupted": "done"}[first]
    answer(session, node, number, first, seq=1)
    answer(session, node, number, second, seq=2)
    answer(session, node, number, "failed", seq=3)
    assert state(session) == (CommandState.ANSWERED, "done")


def test_an_answer_to_what_was_never_ordered_or_to_another_nodes_order_changes_nothing(
    session: Session, node: SimulatedNode
) -> None:
    number = order(session, "reboot")
    for seq, wrong in enumerate((number ^ 1, number + 0.5, 1 << 40, -1), start=1):
        answer(session, node, wrong, "done", seq)
    answer(session, SimulatedNode("n-000002"), number, "done", seq=1)
    assert state(session) == (CommandState.PENDING, None)


WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("dance", {}, "dance is no command of a node; there are resend, dump_log"),
    ("reboot", {"soon": 1}, "reboot takes no soon."),
    ("resend", {"from": 1}, "resend needs to=…; from and to are numbers of packs"),
    ("resend", {"from": 2, "to": 1}, "from must be at most to."),
    ("resend", {"from": "1", "to": 2}, "resend: from cannot be 1;"),
    ("resend", {"from": 1, "to": 1 << 32}, "to cannot be 4294967296"),
    ("factory_reset", {}, "confirm it with confirm=n-000001."),
    ("factory_reset", {"confirm": "n-000002"}, "confirm it with confirm=n-000001."),
)


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(("name", "arguments", "says"), WRONG)
def test_what_no_node_would_do_is_refused_with_one_sentence(
    session: Session, node: SimulatedNode, name: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(CommandWrong) as refusal:
        order(session, name, **arguments)
    assert says in str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_a_node_that_is_gone_or_has_enough_to_do_is_told_nothing_more(
    session: Session, node: SimulatedNode
) -> None:
    for _ in range(commanding.MAX_PENDING):
        order(session, "reboot")
    with pytest.raises(CommandsWaiting):
        order(session, "reboot")
    with db.writing(session):
        session.get_one(Node, "n-000002").state = NodeState.REVOKED
    refused: list[tuple[str, type[FleetError]]] = [("n-000002", Refused), ("n-ffffff", NotFound)]
    for node_id, kind in refused:
        with pytest.raises(kind):
            commanding.order_command(session, node_id, "reboot", {}, now=NOON)
    for lifetime in (timedelta(seconds=59), timedelta(days=8)):
        with pytest.raises(CommandWrong):
            commanding.order_command(session, NODE, "reboot", {}, now=NOON, lifetime=lifetime)


def test_a_factory_reset_also_wants_what_was_provisioned(
    session: Session, node: SimulatedNode
) -> None:
    configuring.configure_node(session, NODE, {"sample_s": 300, "low_mv": 3300}, now=NOON)
    order(session, "factory_reset", confirm=NODE)
    assert told(session).config_version == 3
    assert told(session).config_values == {"sample_s": 900, "publish_s": 3600}


def order_for_two(session: Session) -> ordering.OrderReport:
    both = Selection(node_ids=(NODE, "n-000002"))
    return ordering.order_for_many(session, both, "self_test", {}, now=NOON)


def ordered_in_audit(session: Session) -> list[object]:
    query = (
        select(AuditEntry.details)
        .where(AuditEntry.action == "commands_ordered")
        .order_by(AuditEntry.seq)
    )
    return [details["nodes"] for details in session.scalars(query)]


def test_order_for_many_skips_who_has_enough_to_do_and_is_in_the_log(
    session: Session, node: SimulatedNode
) -> None:
    for _ in range(commanding.MAX_PENDING):
        order(session, "self_test")
    report = order_for_two(session)
    assert (dict(report.counts), report.busy) == ({"told": 1, "busy": 1}, [NODE])
    assert ordered_in_audit(session) == [1]


def test_orderer_who_dies_half_way_has_ordered_nothing_unseen(
    session: Session, node: SimulatedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layering, "NODES_AT_ONCE", 1)
    monkeypatch.setattr(ordering, "_report", lambda *given: _die(*given))
    preview = ordering.OrderReport(None, {ordering.OrderOutcome.TOLD: 2}, [])
    monkeypatch.setattr(ordering, "preview_order", lambda *_, **__: preview)
    with pytest.raises(InterruptedError):
        order_for_two(session)
    assert len(commanding.commands_of(session, NODE, now=NOON)) == 1
    assert ordered_in_audit(session) == [2]


def _die(*_: object) -> ordering.OrderReport:
    raise InterruptedError


def test_nobody_else_orders_anything_of_a_node_while_many_are_told(
    session: Session, sessions: sessionmaker[Session], node: SimulatedNode
) -> None:
    if session.get_bind().dialect.name == "sqlite":
        return  # has one writer anyway
    with db.writing(session):
        order_for_two(session)
        query = select(Configuration).where(Configuration.node_id == NODE)
        with sessions() as other, pytest.raises(OperationalError):
            other.scalar(query.with_for_update(nowait=True))

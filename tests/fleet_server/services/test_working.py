"""Work orders: made once, done in order, told to whom they concern."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import NOON, deployed_node, register_node
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import AuditEntry, Role, Scope, User, WorkKind, WorkState
from fleet_server.services import accounts, rights, working
from fleet_server.services.working import WorkFilter, WorkOver, WorkWanted, WorkWrong

DAY = timedelta(days=1)


def wanted(node_id: str = "n-000001", **more: object) -> WorkWanted:
    given: dict[str, object] = {"kind": WorkKind.BATTERY, "due_at": NOON + DAY, "node_id": node_id}
    return WorkWanted(**{**given, **more})  # type: ignore[arg-type]


def test_order_goes_from_open_over_begun_to_done_and_the_log_has_each_step(
    session: Session,
) -> None:
    deployment = deployed_node(session)
    rights.act_as(session, rights.Actor("anna", frozenset(rights.Right)))
    order = working.order_work(session, wanted(summary="It is low."), now=NOON)
    assert order.site_id == deployment.site_id
    working.begin_work(session, order.id, now=NOON + DAY)
    working.finish_work(session, order.id, now=NOON + 2 * DAY)
    line = working.order_of(session, order.id)
    assert (line.order.state, line.order.begun_by, line.order.ended_by) == ("done", "anna", "anna")
    assert line.order.ended_at == NOON + 2 * DAY
    actions = session.scalars(
        select(AuditEntry.action)
        .where(AuditEntry.subject == f"work order {order.id}")
        .order_by(AuditEntry.seq)
    )
    assert list(actions) == ["work_ordered", "work_begun", "work_finished"]
    for step in (working.begin_work, working.finish_work, working.cancel_work):
        with pytest.raises(WorkOver, match="is done; it cannot be"):
            step(session, order.id, now=NOON)


def test_one_cause_has_one_unfinished_order(session: Session) -> None:
    deployed_node(session)
    first = working.order_work(session, wanted(cause="battery n-000001"), now=NOON)
    again = working.order_work(session, wanted(cause="battery n-000001"), now=NOON + DAY)
    assert again.id == first.id
    working.cancel_work(session, first.id, now=NOON)
    later = working.order_work(session, wanted(cause="battery n-000001"), now=NOON + DAY)
    assert later.id != first.id


def test_list_begins_with_what_is_overdue_and_goes_on_by_keys(session: Session) -> None:
    deployed_node(session)
    due = [NOON + DAY, NOON - DAY, NOON, NOON - DAY]
    orders = [working.order_work(session, wanted(due_at=at), now=NOON - 9 * DAY) for at in due]
    working.cancel_work(session, orders[2].id, now=NOON)
    first = working.work_lines(session, WorkFilter(), limit=2)
    assert [line.order.id for line in first] == [orders[1].id, orders[3].id]
    assert [line.is_overdue(NOON) for line in first] == [True, True]
    last = first[-1].order
    rest = working.work_lines(session, WorkFilter(), limit=9, after=(last.due_at, last.id))
    assert [line.order.id for line in rest] == [orders[0].id]
    cancelled = working.work_lines(session, WorkFilter(states=[WorkState.CANCELLED]), limit=9)
    assert [line.order.id for line in cancelled] == [orders[2].id]


def test_mine_is_what_is_assigned_to_me_to_my_role_or_to_nobody(session: Session) -> None:
    deployed_node(session)
    accounts.create_user(session, "anna", "correct horse battery", now=NOON, roles=[Role.TECHNICIAN])  # fmt: skip
    accounts.create_user(session, "bert", "correct horse battery", now=NOON, roles=[Role.OPERATOR])
    assigned = [
        {"assigned_to": "anna"},
        {"assigned_to": "bert"},
        {"assigned_role": Role.TECHNICIAN},
        {"assigned_role": Role.OPERATOR},
        {},
    ]
    orders = [working.order_work(session, wanted(**one), now=NOON) for one in assigned]
    anna = session.scalars(select(User).where(User.name == "anna")).one()
    lines = working.work_lines(session, WorkFilter(mine=anna), limit=9)
    assert [line.order.id for line in lines] == [orders[0].id, orders[2].id, orders[4].id]
    assert lines[0].assignee == "anna"


@pytest.mark.parametrize(
    ("more", "kind", "sentence"),
    [
        ({"node_id": None}, WorkWrong, "at a node or a site"),
        ({"node_id": "n-999999"}, NotFound, "no node n-999999"),
        ({"site_id": 77}, NotFound, "no site 77"),
        ({"assigned_to": "nobody"}, NotFound, "no account 'nobody'"),
        ({"summary": "x" * 501}, WorkWrong, "at most 500"),
    ],
)
def test_order_that_cannot_be_is_refused(
    session: Session, more: dict[str, object], kind: type[Exception], sentence: str
) -> None:
    register_node(session, "n-000001")
    with pytest.raises(kind, match=sentence):
        working.order_work(session, wanted(**more), now=NOON)
    assert working.work_lines(session, WorkFilter(), limit=9) == []


def test_work_out_of_scope_is_not_there(session: Session) -> None:
    deployed_node(session)
    order = working.order_work(session, wanted(), now=NOON)
    right = rights.rights_of([Role.TECHNICIAN])
    rights.act_as(session, rights.Actor("wanda", right, Scope.WATERS))
    assert working.work_lines(session, WorkFilter(), limit=9) == []
    with pytest.raises(NotFound, match=f"no work order {order.id}"):
        working.begin_work(session, order.id, now=NOON)
    with pytest.raises(NotFound):
        working.order_work(session, wanted(), now=NOON)

"""Work orders: who shall do what where until when, and how far it is.

A person orders work on a page; another part of the server calls `order_work` with a `cause` of its own, and gets the unfinished order that
there is of that cause instead of a second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, or_, select, tuple_
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Said
from fleet_server.models import Deployment, Node, Role, Site, User, WorkKind, WorkOrder, WorkState
from fleet_server.services import auditing, keyset, rights, sites

UNFINISHED = (WorkState.OPEN, WorkState.BEGUN)
_LONGEST_SUMMARY = 500
_LONGEST_CAUSE = 120
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2199, 12, 31, tzinfo=UTC)
_HIGHEST_ID = 2**31 - 1
_ALLOWED = {
    WorkState.BEGUN: (WorkState.OPEN,),
    WorkState.DONE: UNFINISHED,
    WorkState.CANCELLED: UNFINISHED,
}
_WORDS = {
    WorkState.BEGUN: Said("begun"),
    WorkState.DONE: Said("finished"),
    WorkState.CANCELLED: Said("cancelled"),
}


class WorkWrong(Invalid):
    """The order cannot be like this."""

    code = "work_wrong"


class WorkOver(Conflict):
    """The order is not in the state that this needs."""

    code = "work_over"


@dataclass(frozen=True)
class WorkWanted:
    """What shall be done. `node_id` or `site_id` (or both); `cause`: stable name of what wants it, where no person does."""

    kind: WorkKind
    due_at: datetime
    node_id: str | None = None
    site_id: int | None = None
    summary: str = ""
    assigned_to: str | None = None
    assigned_role: Role | None = None
    cause: str | None = None


@dataclass(frozen=True)
class WorkLine:
    """One order as lists show it."""

    order: WorkOrder
    node_label: str | None
    site_code: str | None
    site_name: str | None
    assignee: str | None

    def is_overdue(self, now: datetime) -> bool:
        return self.order.state in UNFINISHED and self.order.due_at < now


@dataclass(frozen=True)
class WorkFilter:
    """Which orders; by default all that are not over. `mine`: assigned to this person, to one of the roles, or to nobody."""

    states: Sequence[WorkState] = UNFINISHED
    kind: WorkKind | None = None
    node_id: str | None = None
    site_id: int | None = None
    mine: User | None = None


def order_work(session: Session, wanted: WorkWanted, *, now: datetime) -> WorkOrder:
    """A new order; of a `cause` that has an unfinished one, that one. Committed on return, or part of the caller's transaction.

    Raises:
        WorkWrong: it is about nothing, or a text is too long.
        NotFound: node, site or person is not there, or not the actor's business.
    """
    summary = wanted.summary.strip().replace("\r\n", "\n").replace("\0", "")
    if len(summary) > _LONGEST_SUMMARY:
        raise WorkWrong(
            "What is to be done has at most %(longest)s characters.", longest=_LONGEST_SUMMARY
        )
    if wanted.cause is not None and not 1 <= len(wanted.cause) <= _LONGEST_CAUSE:
        raise WorkWrong("A cause has 1 to %(longest)s characters.", longest=_LONGEST_CAUSE)
    if not _EARLIEST <= wanted.due_at <= _LATEST:
        raise WorkWrong(
            "Work is due between %(earliest_year)s and %(latest_year)s.",
            earliest_year=_EARLIEST.year,
            latest_year=_LATEST.year,
        )
    if wanted.node_id is None and wanted.site_id is None:
        raise WorkWrong("Work is done at a node or a site; name one.")
    with db.writing(session):
        _check_place(session, wanted.node_id, wanted.site_id)
        known = _unfinished_of(session, wanted.cause)
        if known is not None:
            return known
        order = WorkOrder(
            kind=wanted.kind,
            state=WorkState.OPEN,
            summary=summary,
            node_id=wanted.node_id,
            site_id=_site_id(session, wanted),
            due_at=wanted.due_at,
            assigned_to=_person_id(session, wanted.assigned_to),
            assigned_role=wanted.assigned_role,
            cause=wanted.cause,
            ordered_at=now,
            ordered_by=rights.actor_of(session).name,
        )
        session.add(order)
        session.flush()
        auditing.record(
            session,
            "work_ordered",
            subject=f"work order {order.id}",
            now=now,
            kind=wanted.kind.value,
            node=wanted.node_id,
            site=order.site_id,
            cause=wanted.cause,
        )
    return order


def begin_work(session: Session, order_id: int, *, now: datetime) -> WorkOrder:
    """Somebody is at it. Committed on return.

    Raises:
        NotFound: no such order.
        WorkOver: it is begun, done or cancelled already.
    """
    return _move(session, order_id, WorkState.BEGUN, now=now)


def finish_work(session: Session, order_id: int, *, now: datetime) -> WorkOrder:
    """It is done. Committed on return. Raises NotFound, WorkOver."""
    return _move(session, order_id, WorkState.DONE, now=now)


def cancel_work(session: Session, order_id: int, *, now: datetime) -> WorkOrder:
    """Nobody has to do it any more. Committed on return. Raises NotFound, WorkOver."""
    return _move(session, order_id, WorkState.CANCELLED, now=now)


def order_of(session: Session, order_id: int) -> WorkLine:
    """One order that is the actor's business. Raises NotFound."""
    row = session.execute(_lines().where(WorkOrder.id == order_id)).first()
    if row is None:
        raise NotFound("There is no work order %(order_id)s.", order_id=order_id)
    line = WorkLine(*row)
    try:
        _check_place(session, line.order.node_id, line.order.site_id)
    except NotFound as problem:
        raise NotFound("There is no work order %(order_id)s.", order_id=order_id) from problem
    return line


def work_page(
    session: Session, wanted: WorkFilter, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[WorkLine]:
    """`work_lines` in pages. One statement.

    Raises:
        KeyWrong: no page of this list ends there.
    """
    lines = work_lines(session, wanted, limit=limit + 1, after=_after(after))
    if len(lines) <= limit:
        return keyset.Page(lines, None)
    last = lines[limit - 1].order
    return keyset.Page(lines[:limit], (int(last.due_at.timestamp()), last.id))


def _after(key: keyset.Key | None) -> tuple[datetime, int] | None:
    if key is None:
        return None
    due_s, order_id = (*key, None, None)[:2]
    if len(key) != 2 or not (isinstance(due_s, int) and isinstance(order_id, int)):
        raise keyset.KeyWrong("This page follows none of this list; begin the list again.")
    if not _EARLIEST.timestamp() <= due_s <= _LATEST.timestamp():
        raise keyset.KeyWrong("This page follows none of this list; begin the list again.")
    return datetime.fromtimestamp(due_s, UTC), min(order_id, _HIGHEST_ID)


def work_lines(
    session: Session,
    wanted: WorkFilter,
    *,
    limit: int,
    after: tuple[datetime, int] | None = None,
) -> list[WorkLine]:
    """Orders that are the actor's business, what is due first first: so the overdue come before all. One statement.

    Args:
        after: (due_at, id) of the last line of the page before.
    """
    query = (
        _lines()
        .where(*_conditions(wanted), *_in_scope(session))
        .order_by(WorkOrder.due_at, WorkOrder.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(WorkOrder.due_at, WorkOrder.id) > after)
    return [WorkLine(*row) for row in session.execute(query)]


def _lines() -> Select[*tuple[Any, ...]]:
    return (
        select(WorkOrder, Node.label, Site.code, Site.name, User.name)
        .outerjoin(Node, Node.node_id == WorkOrder.node_id)
        .outerjoin(Site, Site.id == WorkOrder.site_id)
        .outerjoin(User, User.id == WorkOrder.assigned_to)
    )


def _conditions(wanted: WorkFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [WorkOrder.state.in_(list(wanted.states))]
    if wanted.kind is not None:
        found.append(WorkOrder.kind == wanted.kind)
    if wanted.node_id is not None:
        found.append(WorkOrder.node_id == wanted.node_id)
    if wanted.site_id is not None:
        found.append(WorkOrder.site_id == wanted.site_id)
    if wanted.mine is not None:
        roles = [one.role for one in wanted.mine.roles]
        is_nobodys = WorkOrder.assigned_to.is_(None) & WorkOrder.assigned_role.is_(None)
        found.append(
            or_(
                WorkOrder.assigned_to == wanted.mine.id,
                WorkOrder.assigned_role.in_(roles),
                is_nobodys,
            )
        )
    return found


def _in_scope(session: Session) -> list[ColumnElement[bool]]:
    models = rights.node_models(session)
    if models is None:
        return []
    kinds = rights.actor_of(session).site_kinds
    return [
        or_(WorkOrder.site_id.is_(None), Site.kind.in_(kinds)),
        or_(WorkOrder.node_id.is_(None), Node.model.in_(models)),
    ]


def _move(session: Session, order_id: int, state: WorkState, *, now: datetime) -> WorkOrder:
    with db.writing(session):
        order_of(session, order_id)
        order = session.get_one(WorkOrder, order_id, with_for_update=True, populate_existing=True)
        if order.state not in _ALLOWED[state]:
            raise WorkOver(
                "Work order %(order_id)s is %(state)s; it cannot be %(deed)s.",
                order_id=order_id,
                state=WorkState(order.state),
                deed=_WORDS[state],
            )
        by = rights.actor_of(session).name
        order.state = state
        if state is WorkState.BEGUN:
            order.begun_at, order.begun_by = now, by
        else:
            order.ended_at, order.ended_by = now, by
        subject = f"work order {order_id}"
        auditing.record(session, f"work_{_WORDS[state]}", subject=subject, now=now)
    return order


def _check_place(session: Session, node_id: str | None, site_id: int | None) -> None:
    if node_id is not None:
        node = session.get(Node, node_id)
        if node is None:
            raise NotFound("There is no node %(node_id)s.", node_id=node_id)
        rights.check_node_model(session, node.model, node_id=node_id)
    if site_id is not None:
        sites.site_of(session, site_id)


def _site_id(session: Session, wanted: WorkWanted) -> int | None:
    """Work at a node is work at the site where it stands."""
    if wanted.site_id is not None or wanted.node_id is None:
        return wanted.site_id
    return session.scalar(
        select(Deployment.site_id).where(
            Deployment.node_id == wanted.node_id, Deployment.to_at.is_(None)
        )
    )


def _person_id(session: Session, name: str | None) -> int | None:
    if name is None:
        return None
    person = session.scalar(select(User.id).where(User.name == name, User.is_active))
    if person is None:
        raise NotFound("There is no account %(name)r.", name=name)
    return person


def _unfinished_of(session: Session, cause: str | None) -> WorkOrder | None:
    if cause is None:
        return None
    return session.scalar(
        select(WorkOrder).where(WorkOrder.cause == cause, WorkOrder.state.in_(UNFINISHED))
    )

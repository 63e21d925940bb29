"""Calls for help, once each, with the cause: one look over the whole fleet in a few statements, and what people do with alerts.

An alert is open once per kind and subject however often it is seen. It ends by itself when its condition was gone for its rule's
`clear_after_s`. While nobody is heard, or most nodes of a place, one alert says so and those about single nodes are held back: it is
not the nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.elements import ColumnElement

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound
from fleet_server.models import Alert, AlertKind, Node, Severity, WorkOrder
from fleet_server.services import alert_scopes, alert_survey, auditing, bulk, rights, telling
from fleet_server.services.alert_rules import Rule
from fleet_server.services.alert_survey import Found

NOTE_MAX_LENGTH = 500
_IDS_AT_ONCE = 1000


@dataclass
class Look:
    """What one look over the fleet did. All of it is committed."""

    opened: int = 0
    closed: int = 0
    escalated: int = 0


@dataclass(frozen=True)
class AlertOverview:
    """An alert as people see it; `label` is the node's, None where it is about many."""

    id: int
    kind: AlertKind
    severity: Severity
    subject: str
    node_id: str | None
    label: str | None
    details: Mapping[str, Any]
    opened_at: datetime
    well_since: datetime | None
    closed_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str | None
    escalated_at: datetime | None
    work_order_id: int | None


@dataclass(frozen=True)
class Wanted:
    """Which alerts a list shows. `is_open` None: both."""

    is_open: bool | None = True
    kinds: Collection[AlertKind] = field(default_factory=tuple)
    severities: Collection[Severity] = field(default_factory=tuple)
    node_id: str | None = None
    is_acknowledged: bool | None = None


def look(session: Session, *, now: datetime, wall_now: datetime, is_quick: bool = False) -> Look:
    """Open, end and escalate alerts as the fleet stands at `now`, and put messages about it into the queue.

    Committed on return; safe to repeat. The number of statements does not depend on how many nodes there are, and only what changes is
    written: readings wait for that, not for the looking.

    Args:
        wall_now: by which messages and jobs are due.
        is_quick: only what changes by the minute.
    """
    seen = alert_survey.survey(session, now=now, wall_now=wall_now, is_quick=is_quick)
    with db.writing(session):
        newest = session.scalar(select(func.max(Alert.id))) or 0
        _open(session, seen.found, now=now)
        _set(session, seen.taken_in, closed_at=now)
        _set(session, seen.gone, Alert.well_since.is_(None), well_since=now)
        _set(session, seen.back, well_since=None)
        _end(session, seen.rules, now)
        escalated = _escalate(session, seen.forgotten, now=now)
        return _tell(session, newest, escalated, now=now, wall_now=wall_now)


def _open(session: Session, found: Sequence[Found], *, now: datetime) -> None:
    """What is open already stays as it is."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    rows = [
        {
            "kind": one.kind,
            "subject": one.subject,
            "node_id": one.node_id,
            "severity": one.severity,
            "details": dict(one.details),
            "opened_at": now,
        }
        for one in found
    ]
    if rows:
        session.execute(insert(Alert).on_conflict_do_nothing(), rows)


def _set(
    session: Session, ids: Sequence[int], *conditions: ColumnElement[bool], **values: Any
) -> None:
    """Of these alerts, those that are still open."""
    for some in bulk.chunks(ids, _IDS_AT_ONCE):
        session.execute(
            update(Alert)
            .where(Alert.id.in_(some), Alert.closed_at.is_(None), *conditions)
            .values(**values)
            .execution_options(synchronize_session=False)
        )


def _end(session: Session, held: Mapping[AlertKind, Rule], now: datetime) -> None:
    over = or_(
        *(
            and_(
                Alert.kind == kind,
                Alert.well_since <= now - timedelta(seconds=rule.clear_after_s),
            )
            for kind, rule in held.items()
        )
    )
    session.execute(
        update(Alert)
        .where(Alert.closed_at.is_(None), over)
        .values(closed_at=now)
        .execution_options(synchronize_session=False)
    )


def _escalate(session: Session, forgotten: Sequence[int], *, now: datetime) -> list[int]:
    """Alerts that nobody has taken up in time become more urgent, once. Returns the newest of them that still want it."""
    _set(
        session,
        forgotten,
        Alert.acknowledged_at.is_(None),
        Alert.escalated_at.is_(None),
        escalated_at=now,
        severity=case((Alert.severity == Severity.NOTICE, Severity.WARNING), else_=Severity.URGENT),
    )
    return [
        alert_id
        for some in bulk.chunks(forgotten, _IDS_AT_ONCE)
        for alert_id in session.scalars(
            select(Alert.id).where(Alert.id.in_(some), Alert.escalated_at == now)
        )
    ]


def _tell(
    session: Session, newest: int, escalated: Sequence[int], *, now: datetime, wall_now: datetime
) -> Look:
    """Messages about what this look changed: one per recipient and occasion, however many alerts it is about."""
    is_new = Alert.id > newest
    counts = session.execute(
        select(
            func.coalesce(func.sum(case((is_new, 1), else_=0)), 0),
            func.coalesce(func.sum(case((and_(Alert.closed_at == now, ~is_new), 1), else_=0)), 0),
        ).where(or_(is_new, Alert.closed_at == now))
    ).one()
    result = Look(int(counts[0]), int(counts[1]), len(escalated))
    occasions: dict[str, tuple[int, ColumnElement[bool]]] = {
        "opened": (result.opened, and_(is_new, Alert.closed_at.is_(None))),
        "closed": (result.closed, and_(Alert.closed_at == now, ~is_new, _is_well())),
        "escalated": (
            result.escalated,
            and_(Alert.closed_at.is_(None), Alert.escalated_at == now),
        ),
    }
    for occasion, (count, which) in occasions.items():
        if count:
            telling.enqueue(session, occasion, which, now=now, wall_now=wall_now)
    return result


def _is_well() -> ColumnElement[bool]:
    """What ended because it is well: not because another alert says it now (the silent place, or offline instead of late)."""
    worse = aliased(Alert)
    is_offline = select(worse.id).where(
        worse.node_id == Alert.node_id,
        worse.kind == AlertKind.OFFLINE,
        worse.closed_at.is_(None),
    )
    is_worse = and_(Alert.kind == AlertKind.LATE, is_offline.correlate(Alert).exists())
    return and_(Alert.well_since.is_not(None), ~is_worse)


# ------------------------------------------------------------------------------------------------------ what people do


def acknowledge(session: Session, alert_id: int, *, note: str, now: datetime) -> Alert:
    """Somebody looks after it: it is not escalated. Committed on return; a second time changes the note.

    Raises:
        NotFound: no such alert for the actor.
        Conflict: it is over.
        Invalid: the note is too long.
    """
    told = note.strip()
    if len(told) > NOTE_MAX_LENGTH or not told.replace("\n", " ").replace("\r", " ").isprintable():
        raise Invalid(
            "A note has at most %(longest)s printable characters.", longest=NOTE_MAX_LENGTH
        )
    with db.writing(session):
        alert = session.get(Alert, alert_id, with_for_update=True, populate_existing=True)
        if alert is None or not _is_in_scope(session, alert_id):
            raise NotFound("There is no alert %(alert_id)s.", alert_id=alert_id)
        if alert.closed_at is not None:
            raise Conflict(
                "Alert %(alert_id)s is over since %(closed_at)s.",
                alert_id=alert_id,
                closed_at=alert.closed_at,
            )
        alert.acknowledged_at = now
        alert.acknowledged_by = rights.actor_of(session).name
        alert.note = told or None
        auditing.record(
            session,
            "alert_acknowledged",
            subject=alert.subject,
            now=now,
            alert=alert_id,
            kind=alert.kind,
            note=told,
        )
    return alert


def alerts(
    session: Session,
    wanted: Wanted,
    *,
    limit: int,
    before_id: int | None = None,
    ids: Collection[int] = (),
) -> list[AlertOverview]:
    """Newest first, those that the actor has to do with. One statement.

    Args:
        ids: only these; none: all.
    """
    query = (
        select(Alert, Node.label, _work_order_id())
        .outerjoin(Node, Node.node_id == Alert.node_id)
        .where(*_conditions(session, wanted))
        .order_by(Alert.id.desc())
        .limit(limit)
        .execution_options(populate_existing=True)
    )
    if before_id is not None:
        query = query.where(Alert.id < before_id)
    if ids:
        query = query.where(Alert.id.in_(ids))
    return [_overview(alert, label, order_id) for alert, label, order_id in session.execute(query)]


def open_counts(session: Session) -> dict[tuple[AlertKind, Severity], int]:
    """How many alerts are open, of those that the actor has to do with. One statement."""
    rows = session.execute(
        select(Alert.kind, Alert.severity, func.count())
        .outerjoin(Node, Node.node_id == Alert.node_id)
        .where(*_conditions(session, Wanted()))
        .group_by(Alert.kind, Alert.severity)
    )
    return {(AlertKind(kind), Severity(severity)): count for kind, severity, count in rows}


def _conditions(session: Session, wanted: Wanted) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.is_open is not None:
        found.append(Alert.closed_at.is_(None) if wanted.is_open else Alert.closed_at.is_not(None))
    if wanted.kinds:
        found.append(Alert.kind.in_(wanted.kinds))
    if wanted.severities:
        found.append(Alert.severity.in_(wanted.severities))
    if wanted.node_id is not None:
        found.append(Alert.node_id == wanted.node_id)
    if wanted.is_acknowledged is not None:
        is_taken = Alert.acknowledged_at.is_not(None)
        found.append(is_taken if wanted.is_acknowledged else ~is_taken)
    found += alert_scopes.concerns(rights.actor_of(session).site_kinds)
    return found


def _is_in_scope(session: Session, alert_id: int) -> bool:
    return bool(alerts(session, Wanted(is_open=None), limit=1, ids=[alert_id]))


def _work_order_id() -> Any:
    """The unfinished order that the alert led to."""
    return (
        select(WorkOrder.id)
        .where(
            WorkOrder.cause == "alert " + Alert.kind + " " + Alert.subject,
            WorkOrder.state.in_(("open", "begun")),
        )
        .correlate(Alert)
        .scalar_subquery()
    )


def _overview(alert: Alert, label: str | None, work_order_id: int | None) -> AlertOverview:
    return AlertOverview(
        id=alert.id,
        kind=AlertKind(alert.kind),
        severity=Severity(alert.severity),
        subject=alert.subject,
        node_id=alert.node_id,
        label=label,
        details=alert.details,
        opened_at=alert.opened_at,
        well_since=alert.well_since,
        closed_at=alert.closed_at,
        acknowledged_at=alert.acknowledged_at,
        acknowledged_by=alert.acknowledged_by,
        note=alert.note,
        escalated_at=alert.escalated_at,
        work_order_id=work_order_id,
    )

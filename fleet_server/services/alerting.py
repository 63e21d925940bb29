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

from sqlalchemy import (
    Integer,
    Select,
    String,
    and_,
    case,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound
from fleet_server.models import (
    Alert,
    AlertKind,
    Campaign,
    CampaignState,
    Deployment,
    Node,
    NodeStatus,
    Severity,
    Site,
)
from fleet_server.services import alert_rules, auditing, release_repository, rights, telling
from fleet_server.services.alert_conditions import (
    CONDITIONS,
    QUICK,
    is_silenced,
    is_watched,
)
from fleet_server.services.alert_rules import Rule
from fleet_server.services.telling import Told

FLEET = "fleet"
NOTE_MAX_LENGTH = 500
# Boot, Wi-Fi and TLS vary by minutes: before that a node that is due is not overdue.
_GRACE = timedelta(minutes=2)
_TOLD_AT_MOST = 200
"""So many alerts stand in one message by name; of more it says how many."""
_SILENT_KINDS = (AlertKind.LATE, AlertKind.OFFLINE)


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


@dataclass(frozen=True)
class Wanted:
    """Which alerts a list shows. `is_open` None: both."""

    is_open: bool | None = True
    kinds: Collection[AlertKind] = field(default_factory=tuple)
    severities: Collection[Severity] = field(default_factory=tuple)
    node_id: str | None = None
    is_acknowledged: bool | None = None


@dataclass
class _View:
    """What all steps of one look share. `is_fleet_silent`: it is, or was a moment ago."""

    session: Session
    now: datetime
    rules: Mapping[AlertKind, Rule]
    open_kinds: set[str]
    is_fleet_silent: bool = False


def look(session: Session, *, now: datetime, wall_now: datetime, is_quick: bool = False) -> Look:
    """Open, end and escalate alerts as the fleet stands at `now`, and put messages about it into the queue.

    Committed on return; safe to repeat. The number of statements does not depend on how many nodes there are.

    Args:
        wall_now: by which messages are due.
        is_quick: only what changes by the minute.
    """
    with db.writing(session):
        held = alert_rules.rules(session)
        newest = session.scalar(select(func.max(Alert.id))) or 0
        open_kinds = set(
            session.scalars(select(Alert.kind).where(Alert.closed_at.is_(None)).distinct())
        )
        view = _View(session, now, held, open_kinds)
        _look_at_the_fleet(view)
        view.is_fleet_silent = _is_fleet_silent(view)
        _look_at_places(view)
        for kind in QUICK if is_quick else CONDITIONS:
            _look_at_nodes(view, kind)
        if not is_quick:
            _look_at_signatures(view)
        _look_at_campaigns(view)
        _end(session, held, now)
        escalated = _escalate(session, held, now)
        return _tell(session, newest, escalated, now=now, wall_now=wall_now)


# ------------------------------------------------------------------------------------------------------ about many nodes


def _look_at_the_fleet(view: _View) -> None:
    """Nobody is heard, though several were due one after the other: the broker, ingest or the network, not the nodes."""
    session, now = view.session, view.now
    rule = view.rules[AlertKind.FLEET_SILENT]
    thresholds = rule.thresholds
    nodes, last_heard = session.execute(
        select(func.count(), func.max(NodeStatus.last_heard_at))
        .select_from(Node)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .where(is_watched(), NodeStatus.last_heard_at.is_not(None))
    ).one()
    is_silent = False
    due = 0
    if last_heard is not None and now - last_heard >= timedelta(seconds=thresholds["silent_s"]):
        due = session.scalar(
            select(func.count())
            .select_from(Node)
            .join(NodeStatus, NodeStatus.node_id == Node.node_id)
            .where(
                is_watched(), NodeStatus.due_at > last_heard, NodeStatus.due_at <= now - _GRACE
            )
        ) or 0  # fmt: skip
        # In a small fleet as many cannot be due; half of it will do, but never one node alone.
        is_silent = due >= max(2, min(thresholds["due_nodes"], (nodes + 1) // 2))
    details = {"due_nodes": due, "nodes": nodes, "last_heard_at": _moment(last_heard)}
    found = [_Found(FLEET, None, details)] if is_silent and rule.is_active else []
    still_silent = select(literal(FLEET)).where(literal(is_silent or _is_unheard(session)))
    _keep(view, AlertKind.FLEET_SILENT, found, still_silent, Alert.subject)


def _is_unheard(session: Session) -> bool:
    """Whether nobody was heard since the open alert about the whole fleet began."""
    opened_at = session.scalar(
        select(Alert.opened_at).where(
            Alert.kind == AlertKind.FLEET_SILENT, Alert.closed_at.is_(None)
        )
    )
    if opened_at is None:
        return False
    last_heard = session.scalar(select(func.max(NodeStatus.last_heard_at)))
    return last_heard is None or last_heard < opened_at


def _look_at_places(view: _View) -> None:
    """Most nodes of one place (about a square kilometre) or one Wi-Fi network are late together."""
    session, now = view.session, view.now
    rule = view.rules[AlertKind.PLACE_SILENT]
    thresholds = rule.thresholds
    for prefix, group in (("place ", _place()), ("network ", _network())):
        late = func.sum(case((NodeStatus.late_at < now, 1), else_=0))
        nodes = func.count()
        grouped = (
            select(
                group.label("subject"),
                nodes.label("nodes"),
                late.label("silent"),
                func.min(Site.name).label("near"),
            )
            .select_from(Node)
            .join(NodeStatus, NodeStatus.node_id == Node.node_id)
            .join(Deployment, and_(Deployment.node_id == Node.node_id, Deployment.to_at.is_(None)))
            .join(Site, Site.id == Deployment.site_id)
            .where(is_watched(), NodeStatus.last_heard_at.is_not(None), group.is_not(None))
            .group_by(group)
            .having(nodes >= thresholds["nodes"], late * 100 >= nodes * thresholds["share_pct"])
        )
        found = []
        if rule.is_active and not view.is_fleet_silent:
            found = [
                _Found(
                    row.subject,
                    None,
                    {"nodes": row.nodes, "silent_nodes": int(row.silent), "near": row.near},
                )
                for row in session.execute(grouped)
            ]
        still = select(grouped.subquery().c.subject)
        mine = Alert.subject.startswith(prefix)
        _keep(view, AlertKind.PLACE_SILENT, found, still, Alert.subject, only=mine)
        if found:
            _take_in(session, group, [one.subject for one in found], now)


def _place() -> ColumnElement[Any]:
    """The hundredth of a degree, about 1.1 km by 0.7 km, that the node's site is in."""

    def hundredths(degrees: Any) -> ColumnElement[Any]:
        return cast(cast(func.round(degrees * 100), Integer), String)

    return literal("place ") + hundredths(Site.latitude) + "/" + hundredths(Site.longitude)


def _network() -> ColumnElement[Any]:
    return literal("network ") + NodeStatus.network


def _take_in(
    session: Session, group: ColumnElement[Any], subjects: Sequence[str], now: datetime
) -> None:
    """Alerts about single nodes of a silent place end: the one about the place says it."""
    members = (
        select(Node.node_id)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .join(Deployment, and_(Deployment.node_id == Node.node_id, Deployment.to_at.is_(None)))
        .join(Site, Site.id == Deployment.site_id)
        .where(group.in_(subjects))
    )
    session.execute(
        update(Alert)
        .where(Alert.kind.in_(_SILENT_KINDS), Alert.closed_at.is_(None), Alert.node_id.in_(members))
        .values(closed_at=now)
        .execution_options(synchronize_session=False)
    )


def _is_fleet_silent(view: _View) -> bool:
    """Whether it is, or was a moment ago: those that sleep cannot know yet that it is over."""
    rule = view.rules[AlertKind.FLEET_SILENT]
    recovering = view.now - timedelta(seconds=rule.thresholds["recovery_s"])
    silent = select(Alert.id).where(
        Alert.kind == AlertKind.FLEET_SILENT,
        or_(Alert.closed_at.is_(None), Alert.closed_at > recovering),
    )
    return view.session.scalar(silent.limit(1)) is not None


# ------------------------------------------------------------------------------------------------------ about one node


@dataclass(frozen=True)
class _Found:
    """Something that an alert should be open about."""

    subject: str
    node_id: str | None
    details: Mapping[str, Any]


def _look_at_nodes(view: _View, kind: AlertKind) -> None:
    now, rule, condition = view.now, view.rules[kind], CONDITIONS[kind]
    nodes = (
        select(Node.node_id)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .where(is_watched())
    )
    found: list[_Found] = []
    is_held = kind in _SILENT_KINDS and view.is_fleet_silent
    if rule.is_active and not is_held:
        details = condition.details(now)
        named: list[ColumnElement[Any]] = [column.label(name) for name, column in details.items()]
        is_open = (
            select(Alert.id)
            .where(Alert.kind == kind, Alert.node_id == Node.node_id, Alert.closed_at.is_(None))
            .correlate(Node)
        )
        begun = nodes.add_columns(*named).where(
            condition.begins(rule.thresholds, now), ~is_open.exists(), ~is_silenced(now)
        )
        if kind in _SILENT_KINDS:
            begun = begun.where(~_is_in_a_silent_place(view.rules[AlertKind.PLACE_SILENT], now))
        found = [
            _Found(
                f"node {row.node_id}",
                row.node_id,
                {name: _plain(getattr(row, name)) for name in details},
            )
            for row in view.session.execute(begun)
        ]
    lasting = nodes.where(condition.lasts(rule.thresholds, now))
    _keep(view, kind, found, lasting, Alert.node_id)


def _is_in_a_silent_place(rule: Rule, now: datetime) -> ColumnElement[bool]:
    recovering = now - timedelta(seconds=rule.thresholds["recovery_s"])
    silent = select(Alert.subject).where(
        Alert.kind == AlertKind.PLACE_SILENT,
        or_(Alert.closed_at.is_(None), Alert.closed_at > recovering),
    )
    return (
        select(Deployment.id)
        .join(Site, Site.id == Deployment.site_id)
        .where(
            Deployment.node_id == Node.node_id,
            Deployment.to_at.is_(None),
            or_(_place().in_(silent), _network().in_(silent)),
        )
        .correlate(Node, NodeStatus)
        .exists()
    )


# --------------------------------------------------------------------------------------------------- about the releases


def _look_at_signatures(view: _View) -> None:
    """What is signed of the releases runs out: somebody has to sign, or the schedule does not do its work."""
    expiring = release_repository.expiring(view.session, now=view.now)
    found = [
        _Found(f"role {row.role}", None, {"role": row.role, "expires_at": _moment(row.expires_at)})
        for row in expiring
    ]
    lasting = select(Alert.subject).where(
        Alert.kind == AlertKind.SIGNATURE, Alert.subject.in_([one.subject for one in found])
    )
    is_active = view.rules[AlertKind.SIGNATURE].is_active
    _keep(view, AlertKind.SIGNATURE, found if is_active else [], lasting, Alert.subject)


def _look_at_campaigns(view: _View) -> None:
    """A campaign has paused by itself: somebody has to decide how it goes on."""
    paused = view.session.scalars(
        select(Campaign).where(Campaign.state == CampaignState.PAUSED, Campaign.paused_by.is_(None))
    )
    found = [
        _Found(
            f"campaign {one.id}",
            None,
            {"version": one.version, "model": one.model, "reason": one.reason},
        )
        for one in paused
    ]
    lasting = select(Alert.subject).where(
        Alert.kind == AlertKind.CAMPAIGN, Alert.subject.in_([one.subject for one in found])
    )
    is_active = view.rules[AlertKind.CAMPAIGN].is_active
    _keep(view, AlertKind.CAMPAIGN, found if is_active else [], lasting, Alert.subject)


# ------------------------------------------------------------------------------------------------------ open, end, escalate


def _keep(
    view: _View,
    kind: AlertKind,
    found: Sequence[_Found],
    lasting: Select[Any],
    key: Any,
    *,
    only: ColumnElement[bool] | None = None,
) -> None:
    """Open what was found and is not open yet; note of the open ones which are over, and which after all are not."""
    session, now = view.session, view.now
    if not found and kind not in view.open_kinds:
        return
    known = {one.subject for one in found}
    if found and found[0].node_id is None:
        known -= set(
            session.scalars(
                select(Alert.subject).where(
                    Alert.kind == kind,
                    Alert.closed_at.is_(None),
                    Alert.subject.in_([one.subject for one in found]),
                )
            )
        )
    rows = [
        {
            "kind": kind,
            "subject": one.subject,
            "node_id": one.node_id,
            "severity": view.rules[kind].severity,
            "details": dict(one.details),
            "opened_at": now,
        }
        for one in found
        if one.subject in known
    ]
    if rows:
        session.execute(insert(Alert), rows)
    lasts = key.in_(lasting)
    mine = [Alert.kind == kind, Alert.closed_at.is_(None)]
    if only is not None:
        mine.append(only)
    for condition, since in (
        (and_(Alert.well_since.is_(None), ~lasts), now),
        (and_(Alert.well_since.is_not(None), lasts), None),
    ):
        session.execute(
            update(Alert)
            .where(*mine, condition)
            .values(well_since=since)
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


def _escalate(session: Session, held: Mapping[AlertKind, Rule], now: datetime) -> list[int]:
    """Alerts that nobody has taken up in time become more urgent, once. Returns the newest of them."""
    forgotten = [
        and_(
            Alert.kind == kind,
            Alert.opened_at <= now - timedelta(seconds=rule.escalate_after_s),
        )
        for kind, rule in held.items()
        if rule.escalate_after_s is not None
    ]
    silenced = select(Node.node_id).where(is_silenced(now))
    due = [
        Alert.closed_at.is_(None),
        Alert.well_since.is_(None),
        Alert.acknowledged_at.is_(None),
        Alert.escalated_at.is_(None),
        or_(*forgotten),
        or_(Alert.node_id.is_(None), Alert.node_id.not_in(silenced)),
    ]
    if not forgotten:
        return []
    ids = list(session.scalars(select(Alert.id).where(*due).order_by(Alert.id.desc())))
    if ids:
        session.execute(
            update(Alert)
            .where(*due)
            .values(
                escalated_at=now,
                severity=case(
                    (Alert.severity == Severity.NOTICE, Severity.WARNING), else_=Severity.URGENT
                ),
            )
            .execution_options(synchronize_session=False)
        )
    return ids


def _tell(
    session: Session, newest: int, escalated: Sequence[int], *, now: datetime, wall_now: datetime
) -> Look:
    """Messages about what this look changed: one per recipient and occasion, however many alerts it is about."""
    is_new = Alert.id > newest
    ended = and_(Alert.closed_at == now, ~is_new)
    counts = session.execute(
        select(
            func.coalesce(func.sum(case((is_new, 1), else_=0)), 0),
            func.coalesce(func.sum(case((ended, 1), else_=0)), 0),
        ).where(or_(is_new, Alert.closed_at == now))
    ).one()
    result = Look(int(counts[0]), int(counts[1]), len(escalated))
    occasions: dict[str, tuple[ColumnElement[bool], int]] = {
        "opened": (and_(is_new, Alert.closed_at.is_(None)), result.opened),
        "closed": (ended, result.closed),
        "escalated": (Alert.id.in_(escalated[:_TOLD_AT_MOST]), result.escalated),
    }
    for occasion, (which, count) in occasions.items():
        if count:
            told = [
                Told(alert, model, label)
                for alert, model, label in session.execute(
                    select(Alert, Node.model, Node.label)
                    .outerjoin(Node, Node.node_id == Alert.node_id)
                    .where(which)
                    .order_by(Alert.node_id.is_not(None), Alert.id.desc())
                    .limit(_TOLD_AT_MOST)
                    .execution_options(populate_existing=True)
                )
            ]
            telling.enqueue(session, occasion, told, count=count, now=now, wall_now=wall_now)
    return result


def _plain(value: Any) -> Any:
    """As JSON keeps it, in whole numbers."""
    if isinstance(value, datetime):
        return _moment(value)
    return round(value) if isinstance(value, float) else value


def _moment(value: datetime | None) -> str | None:
    return None if value is None else f"{value:%Y-%m-%dT%H:%M:%SZ}"


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
        raise Invalid(f"A note has at most {NOTE_MAX_LENGTH} printable characters.")
    with db.writing(session):
        alert = session.get(Alert, alert_id, with_for_update=True, populate_existing=True)
        if alert is None:
            raise NotFound(f"There is no alert {alert_id}.")
        if alert.node_id is not None:
            node = session.get_one(Node, alert.node_id)
            rights.check_node_model(session, node.model, node_id=node.node_id)
        if alert.closed_at is not None:
            raise Conflict(f"Alert {alert_id} is over since {_moment(alert.closed_at)}.")
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
    session: Session, wanted: Wanted, *, limit: int, before_id: int | None = None
) -> list[AlertOverview]:
    """Newest first, those that the actor has to do with. One statement."""
    query = (
        select(Alert, Node.label)
        .outerjoin(Node, Node.node_id == Alert.node_id)
        .where(*_conditions(session, wanted))
        .order_by(Alert.id.desc())
        .limit(limit)
        .execution_options(populate_existing=True)
    )
    if before_id is not None:
        query = query.where(Alert.id < before_id)
    return [_overview(alert, label) for alert, label in session.execute(query)]


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
    models = rights.node_models(session)
    if models is not None:
        found.append(or_(Alert.node_id.is_(None), Node.model.in_(models)))
    return found


def _overview(alert: Alert, label: str | None) -> AlertOverview:
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
    )

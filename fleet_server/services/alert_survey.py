"""What is wrong at this moment, and which open alerts it ends: read in statements of their own, before anything is written.

Judging a hundred thousand nodes takes seconds; no writer of SQLite waits for that. What is found may be a moment old when it is written
(`services.alerting.look`): the next look mends it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Integer, Select, String, and_, case, cast, func, literal, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

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
from fleet_server.services import alert_rules, release_repository, revision_list, scheduling
from fleet_server.services.alert_conditions import (
    CONDITIONS,
    QUICK,
    is_silenced,
    is_watched,
)
from fleet_server.services.alert_rules import Rule

FLEET = "fleet"
REVISIONS = "revisions"
"""The job that works off revisions."""
# Boot, Wi-Fi and TLS vary by minutes: before that a node that is due is not overdue.
_GRACE = timedelta(minutes=2)
_SILENT_KINDS = (AlertKind.LATE, AlertKind.OFFLINE)


@dataclass(frozen=True)
class Found:
    """Something that an alert should be open about."""

    kind: AlertKind
    severity: Severity
    subject: str
    node_id: str | None
    details: Mapping[str, Any]


@dataclass
class Survey:
    """Alerts by their ids: `gone` are over and were not yet, `back` are not over after all, `taken_in` are said by an alert about many."""

    rules: Mapping[AlertKind, Rule]
    found: list[Found] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    taken_in: list[int] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)


@dataclass
class _View:
    """What all steps share. `is_fleet_silent`: it is, or was a moment ago; `silent_places`: subjects found just now."""

    session: Session
    now: datetime
    rules: Mapping[AlertKind, Rule]
    survey: Survey
    is_fleet_silent: bool = False
    silent_places: list[str] = field(default_factory=list)


def survey(session: Session, *, now: datetime, wall_now: datetime, is_quick: bool) -> Survey:
    """Look at everything. Writes nothing; the number of statements does not depend on how many nodes there are.

    Args:
        wall_now: by which jobs are due.
        is_quick: only what changes by the minute.
    """
    rules = alert_rules.rules(session)
    made = Survey(rules)
    view = _View(session, now, rules, made)
    _look_at_the_fleet(view)
    view.is_fleet_silent = _is_fleet_silent(view)
    _look_at_places(view)
    _look_at_jobs(view, wall_now)
    for kind in QUICK if is_quick else CONDITIONS:
        _look_at_nodes(view, kind)
    if not is_quick:
        _look_at_signatures(view)
    _look_at_campaigns(view)
    made.forgotten = _forgotten(view)
    return made


def _note(view: _View, kind: AlertKind, subject: str, node_id: str | None, **details: Any) -> None:
    severity = view.rules[kind].severity
    plain = {name: _plain(value) for name, value in details.items()}
    view.survey.found.append(Found(kind, severity, subject, node_id, plain))


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
                is_watched(),
                NodeStatus.due_at > last_heard,
                NodeStatus.due_at <= now - _GRACE,
                ~is_silenced(now),
            )
        ) or 0  # fmt: skip
        # In a small fleet as many cannot be due; half of it will do, but never one node alone.
        is_silent = due >= max(2, min(thresholds["due_nodes"], (nodes + 1) // 2))
    if is_silent and rule.is_active:
        _note(
            view, AlertKind.FLEET_SILENT, FLEET, None,
            due_nodes=due, nodes=nodes, last_heard_at=last_heard,
        )  # fmt: skip
    subjects = [FLEET] if is_silent or _is_unheard(session) else []
    _judge(view, AlertKind.FLEET_SILENT, subjects)


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
    """Most nodes of one place (about a square kilometre) or one Wi-Fi network are late together.

    Nodes that nobody is called for neither make a place silent nor keep it from being so.
    """
    rule = view.rules[AlertKind.PLACE_SILENT]
    for prefix, group in (("place ", _place()), ("network ", _network())):
        found = view.session.execute(_silent_groups(group, rule, view.now)).all()
        called = [row for row in found if _is_silent(row.called, row.called_silent, rule)]
        if rule.is_active and not view.is_fleet_silent:
            for row in called:
                _note(
                    view, AlertKind.PLACE_SILENT, row.subject, None,
                    nodes=row.nodes, silent_nodes=row.silent, near=row.near,
                    tree_nodes=row.trees, water_nodes=row.nodes - row.trees,
                )  # fmt: skip
            view.silent_places += [row.subject for row in called]
        subjects = [row.subject for row in found]
        _judge(view, AlertKind.PLACE_SILENT, subjects, only=Alert.subject.startswith(prefix))
        if view.silent_places:
            view.survey.taken_in += _taken_in(view.session, group, view.silent_places)


def _silent_groups(group: ColumnElement[Any], rule: Rule, now: datetime) -> Select[Any]:
    """Places or networks most of whose nodes are late; `called` are those nodes that no maintenance window covers."""
    silenced = is_silenced(now)
    is_late = NodeStatus.late_at < now
    nodes, silent = func.count(), _sum(is_late)
    called, called_silent = _sum(~silenced), _sum(and_(is_late, ~silenced))
    share = rule.thresholds["share_pct"]
    return (
        select(
            group.label("subject"),
            nodes.label("nodes"),
            silent.label("silent"),
            called.label("called"),
            called_silent.label("called_silent"),
            _sum(Site.kind == "tree").label("trees"),
            func.min(Site.name).label("near"),
        )
        .select_from(Node)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .join(Deployment, and_(Deployment.node_id == Node.node_id, Deployment.to_at.is_(None)))
        .join(Site, Site.id == Deployment.site_id)
        .where(is_watched(), NodeStatus.last_heard_at.is_not(None), group.is_not(None))
        .group_by(group)
        .having(
            nodes >= rule.thresholds["nodes"],
            or_(silent * 100 >= nodes * share, called_silent * 100 >= called * share),
        )
    )


def _sum(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return cast(func.sum(case((condition, 1), else_=0)), Integer)


def _is_silent(nodes: int, silent: int, rule: Rule) -> bool:
    enough: bool = nodes >= rule.thresholds["nodes"]
    return enough and silent * 100 >= nodes * rule.thresholds["share_pct"]


def _place() -> ColumnElement[Any]:
    """The hundredth of a degree, about 1.1 km by 0.7 km, that the node's site is in."""

    def hundredths(degrees: Any) -> ColumnElement[Any]:
        return cast(cast(func.round(degrees * 100), Integer), String)

    return literal("place ") + hundredths(Site.latitude) + "/" + hundredths(Site.longitude)


def _network() -> ColumnElement[Any]:
    return literal("network ") + NodeStatus.network


def _taken_in(session: Session, group: ColumnElement[Any], subjects: Sequence[str]) -> list[int]:
    """Alerts about single nodes of a silent place: the one about the place says it."""
    members = (
        select(Node.node_id)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .join(Deployment, and_(Deployment.node_id == Node.node_id, Deployment.to_at.is_(None)))
        .join(Site, Site.id == Deployment.site_id)
        .where(group.in_(subjects))
    )
    return list(
        session.scalars(
            select(Alert.id).where(
                Alert.kind.in_(_SILENT_KINDS),
                Alert.closed_at.is_(None),
                Alert.node_id.in_(members),
            )
        )
    )


def _is_fleet_silent(view: _View) -> bool:
    """Whether it is, or was a moment ago: those that sleep cannot know yet that it is over."""
    if any(one.kind is AlertKind.FLEET_SILENT for one in view.survey.found):
        return True
    return view.session.scalar(
        select(Alert.id)
        .where(Alert.kind == AlertKind.FLEET_SILENT, _is_or_was_open(view, AlertKind.FLEET_SILENT))
        .limit(1)
    ) is not None  # fmt: skip


def _is_or_was_open(view: _View, kind: AlertKind) -> ColumnElement[bool]:
    recovering = view.now - timedelta(seconds=view.rules[kind].thresholds["recovery_s"])
    return or_(Alert.closed_at.is_(None), Alert.closed_at > recovering)


# ------------------------------------------------------------------------------------------------------ about the server


def _look_at_jobs(view: _View, wall_now: datetime) -> None:
    """What the worker, or a timer beside it, should have done and did not."""
    rule = view.rules[AlertKind.JOB]
    troubled = scheduling.troubled_jobs(
        view.session,
        wall_now=wall_now,
        failing=timedelta(seconds=rule.thresholds["failing_s"]),
        overdue=timedelta(seconds=rule.thresholds["overdue_s"]),
        backup_overdue=timedelta(seconds=rule.thresholds["backup_s"]),
    )
    if rule.is_active:
        for one in troubled:
            held: dict[str, Any] = {}
            if one.name == REVISIONS and one.trouble == "fails":
                held = {"revision": revision_list.waiting(view.session).faulty_id}
            _note(
                view, AlertKind.JOB, f"job {one.name}", None,
                job=one.name, trouble=one.trouble, reason=one.reason, ran_at=one.ran_at, **held,
            )  # fmt: skip
    _judge(view, AlertKind.JOB, [f"job {one.name}" for one in troubled])


# --------------------------------------------------------------------------------------- about releases and campaigns


def _look_at_signatures(view: _View) -> None:
    """What is signed of the releases runs out: somebody has to sign, or the schedule does not do its work."""
    expiring = release_repository.expiring(view.session, now=view.now)
    if view.rules[AlertKind.SIGNATURE].is_active:
        for row in expiring:
            _note(
                view, AlertKind.SIGNATURE, f"role {row.role}", None,
                role=row.role, expires_at=row.expires_at,
            )  # fmt: skip
    _judge(view, AlertKind.SIGNATURE, [f"role {row.role}" for row in expiring])


def _look_at_campaigns(view: _View) -> None:
    """A campaign has paused by itself: somebody has to decide how it goes on."""
    paused = view.session.scalars(
        select(Campaign).where(Campaign.state == CampaignState.PAUSED, Campaign.paused_by.is_(None))
    ).all()
    if view.rules[AlertKind.CAMPAIGN].is_active:
        for one in paused:
            _note(
                view, AlertKind.CAMPAIGN, f"campaign {one.id}", None,
                version=one.version, model=one.model, reason=one.reason, stop=one.stop,
            )  # fmt: skip
    _judge(view, AlertKind.CAMPAIGN, [f"campaign {one.id}" for one in paused])


# ------------------------------------------------------------------------------------------------------ about one node


def _look_at_nodes(view: _View, kind: AlertKind) -> None:
    now, rule, condition = view.now, view.rules[kind], CONDITIONS[kind]
    is_held = kind in _SILENT_KINDS and view.is_fleet_silent
    if rule.is_active and not is_held:
        details = condition.details(now)
        named: list[ColumnElement[Any]] = [column.label(name) for name, column in details.items()]
        # Not asked node by node: which index SQLite would take for that depends on the order in which they were made.
        called = select(Alert.node_id).where(
            Alert.kind == kind, Alert.closed_at.is_(None), Alert.node_id.is_not(None)
        )
        begun = (
            select(Node.node_id, *named)
            .join(NodeStatus, NodeStatus.node_id == Node.node_id)
            .where(
                is_watched(),
                condition.begins(rule.thresholds, now),
                Node.node_id.not_in(called),
                ~is_silenced(now),
            )
        )
        if kind in _SILENT_KINDS:
            begun = begun.where(~_is_in_a_silent_place(view))
        for row in view.session.execute(begun):
            told = {name: getattr(row, name) for name in details}
            _note(view, kind, f"node {row.node_id}", row.node_id, **told)
    # Asked alert by alert: joined, SQLite would begin with all nodes.
    lasts = (
        select(Node.node_id)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .where(Node.node_id == Alert.node_id, is_watched(), condition.lasts(rule.thresholds, now))
        .correlate(Alert)
        .exists()
    )
    rows = view.session.execute(
        select(Alert.id, Alert.well_since, lasts).where(
            Alert.kind == kind, Alert.closed_at.is_(None)
        )
    )
    _sort_out(view.survey, [(row[0], row[1], bool(row[2])) for row in rows])


def _is_in_a_silent_place(view: _View) -> ColumnElement[bool]:
    silent = select(Alert.subject).where(
        Alert.kind == AlertKind.PLACE_SILENT, _is_or_was_open(view, AlertKind.PLACE_SILENT)
    )
    found = view.silent_places
    return (
        select(Deployment.id)
        .join(Site, Site.id == Deployment.site_id)
        .where(
            Deployment.node_id == Node.node_id,
            Deployment.to_at.is_(None),
            or_(*(one.in_(given) for one in (_place(), _network()) for given in (silent, found))),
        )
        .correlate(Node, NodeStatus)
        .exists()
    )


# ------------------------------------------------------------------------------------------------------ what is open


def _judge(
    view: _View,
    kind: AlertKind,
    lasting: Collection[str],
    *,
    only: ColumnElement[bool] | None = None,
) -> None:
    """Of the open alerts of a kind: which are over, and which after all are not. `lasting`: subjects that are not."""
    query = select(Alert.id, Alert.well_since, Alert.subject).where(
        Alert.kind == kind, Alert.closed_at.is_(None)
    )
    if only is not None:
        query = query.where(only)
    known = set(lasting)
    rows = view.session.execute(query)
    _sort_out(view.survey, [(row[0], row[1], row[2] in known) for row in rows])


def _sort_out(made: Survey, rows: Sequence[tuple[int, datetime | None, bool]]) -> None:
    made.gone += [one for one, well_since, lasts in rows if well_since is None and not lasts]
    made.back += [one for one, well_since, lasts in rows if well_since is not None and lasts]


def _forgotten(view: _View) -> list[int]:
    """Open alerts that nobody has taken up in the time that their rule gives, the newest first."""
    late = [
        and_(
            Alert.kind == kind,
            Alert.opened_at <= view.now - timedelta(seconds=rule.escalate_after_s),
        )
        for kind, rule in view.rules.items()
        if rule.escalate_after_s is not None
    ]
    if not late:
        return []
    return list(
        view.session.scalars(
            select(Alert.id)
            .outerjoin(Node, Node.node_id == Alert.node_id)
            .where(
                Alert.closed_at.is_(None),
                Alert.well_since.is_(None),
                Alert.acknowledged_at.is_(None),
                Alert.escalated_at.is_(None),
                or_(*late),
                or_(Alert.node_id.is_(None), ~is_silenced(view.now)),
            )
            .order_by(Alert.id.desc())
        )
    )


def _plain(value: Any) -> Any:
    """As JSON keeps it, in whole numbers."""
    if isinstance(value, datetime):
        return moment_text(value)
    return round(value) if isinstance(value, float) else value


def moment_text(value: datetime) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%SZ}"

"""What makes each alert about one node, as conditions that the database judges for all nodes at once.

All of them are about `node` joined with `node_status`; what else one needs it asks for in a subquery of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ColumnElement

from fleet_server.models import (
    AlertKind,
    Channel,
    Deployment,
    Event,
    Node,
    NodeDay,
    NodeGroup,
    NodeGroupMember,
    NodeStatus,
    NodeTrend,
    Observation,
    Silence,
    Site,
)
from fleet_server.services import health, trends
from fleet_server.services.health import Freshness
from fleet_server.wire.states import NodeState, QualityFlag

Thresholds = Mapping[str, int]
Truth = ColumnElement[bool]


@dataclass(frozen=True)
class Condition:
    """`begins` and `lasts` (which holds a little longer) of a kind; `details` are columns that say how bad it is."""

    begins: Callable[[Thresholds, datetime], Truth]
    lasts: Callable[[Thresholds, datetime], Truth]
    details: Callable[[datetime], Mapping[str, ColumnElement[Any]]] = field(default=lambda _now: {})


def is_watched() -> Truth:
    """Only a node that is at its site and not worked on calls for help."""
    return Node.state == NodeState.DEPLOYED


def is_silenced(now: datetime) -> Truth:
    """Some maintenance window covers the node at `now`."""
    site_code = (
        select(Site.code)
        .join(Deployment, Deployment.site_id == Site.id)
        .where(Deployment.node_id == Node.node_id, Deployment.to_at.is_(None))
        .correlate(Node)
        .scalar_subquery()
    )
    in_group = (
        select(NodeGroup.id)
        .join(NodeGroupMember, NodeGroupMember.group_id == NodeGroup.id)
        .where(NodeGroupMember.node_id == Node.node_id, NodeGroup.name == Silence.key)
        .correlate(Node, Silence)
        .exists()
    )
    return (
        select(Silence.id)
        .where(
            Silence.from_at <= now,
            Silence.to_at > now,
            or_(
                Silence.scope == "all",
                and_(Silence.scope == "node", Silence.key == Node.node_id),
                and_(Silence.scope == "model", Silence.key == Node.model),
                and_(Silence.scope == "site", Silence.key == site_code),
                and_(Silence.scope == "group", in_group),
            ),
        )
        .correlate(Node)
        .exists()
    )


def _since(name: str, column: Any) -> Callable[[datetime], Mapping[str, ColumnElement[Any]]]:
    return lambda _now: {name: column}


def _late(_: Thresholds, now: datetime) -> Truth:
    return health.has_freshness(Freshness.LATE, now=now)


def _offline(_: Thresholds, now: datetime) -> Truth:
    return health.has_freshness(Freshness.OFFLINE, now=now)


def _trend_column(column: Any) -> Any:
    return select(column).where(NodeTrend.node_id == Node.node_id).correlate(Node).scalar_subquery()


def _battery(name: str) -> Callable[[Thresholds, datetime], Truth]:
    def holds(thresholds: Thresholds, _now: datetime) -> Truth:
        few = (
            select(NodeTrend.node_id)
            .where(NodeTrend.node_id == Node.node_id, NodeTrend.battery_days_low < thresholds[name])
            .correlate(Node)
        )
        return few.exists()

    return holds


def _drift(name: str) -> Callable[[Thresholds, datetime], Truth]:
    return lambda thresholds, _now: func.abs(NodeStatus.drift_ppm) > thresholds[name]


def _spool(thresholds: Thresholds, now: datetime) -> Truth:
    """More than it should hold, and more than on each of the two days before: receipts do not arrive."""
    today = trends.day_of(now)
    return and_(
        NodeStatus.spool_depth >= thresholds["packs"],
        NodeStatus.spool_depth > _depth(today - 1),
        _depth(today - 1) > _depth(today - 2),
    )


def _depth(day: int) -> Any:
    days = aliased(NodeDay)
    return (
        select(days.spool_depth)
        .where(days.node_id == Node.node_id, days.day == day)
        .correlate(Node)
        .scalar_subquery()
    )


def _restarts(now: datetime) -> Any:
    """How often it was switched on or reset since yesterday began, and crashed in a day."""
    days, crashes = aliased(NodeDay), aliased(Event)
    resets = (
        select(func.coalesce(func.sum(days.power_ups), 0))
        .where(days.node_id == Node.node_id, days.day >= trends.day_of(now) - 1)
        .correlate(Node)
        .scalar_subquery()
    )
    crashed = (
        select(func.count())
        .where(
            crashes.node_id == Node.node_id,
            crashes.name == "crash",
            crashes.happened_at > now - timedelta(days=1),
        )
        .correlate(Node)
        .scalar_subquery()
    )
    return resets + crashed


def _reboots(name: str) -> Callable[[Thresholds, datetime], Truth]:
    return lambda thresholds, now: _restarts(now) >= thresholds[name]


def _certificate(name: str) -> Callable[[Thresholds, datetime], Truth]:
    return lambda thresholds, now: (
        Node.certificate_expires_at < now + timedelta(days=thresholds[name])
    )


def _sensor(thresholds: Thresholds, _now: datetime) -> Truth:
    """A channel whose newest readings are all missing."""
    failed: Truth = _failed_channels(thresholds["readings"]).exists()
    return failed


def _failed_channels(readings: int) -> Any:
    newest = (
        select(Observation.flag)
        .where(Observation.datastream_id == Channel.datastream_id)
        .order_by(Observation.sampled_at.desc())
        .limit(readings)
        .correlate(Channel)
        .subquery()
    )
    failed = (
        select(func.count())
        .select_from(newest)
        .where(newest.c.flag == QualityFlag.MISSING)
        .scalar_subquery()
    )
    return (
        select(Channel.key)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .where(
            Deployment.node_id == Node.node_id,
            Channel.to_at.is_(None),
            Deployment.to_at.is_(None),
            failed >= readings,
        )
        .correlate(Node)
    )


def _radio(drop: str) -> Callable[[Thresholds, datetime], Truth]:
    def holds(thresholds: Thresholds, _now: datetime) -> Truth:
        fell = NodeTrend.rssi_before_dbm - NodeTrend.rssi_now_dbm >= thresholds[drop]
        weak = NodeTrend.rssi_now_dbm <= thresholds["below_dbm"]
        if drop != "drop_db":
            weak = NodeTrend.rssi_now_dbm.is_not(None)
        worse = select(NodeTrend.node_id).where(NodeTrend.node_id == Node.node_id, fell, weak)
        return worse.correlate(Node).exists()

    return holds


CONDITIONS: Mapping[AlertKind, Condition] = {
    AlertKind.OFFLINE: Condition(
        _offline, _offline, _since("last_heard_at", NodeStatus.last_heard_at)
    ),
    AlertKind.LATE: Condition(_late, _late, _since("last_heard_at", NodeStatus.last_heard_at)),
    AlertKind.BATTERY: Condition(
        _battery("days"),
        _battery("clear_days"),
        lambda _now: {
            "days_low": _trend_column(NodeTrend.battery_days_low),
            "days_high": _trend_column(NodeTrend.battery_days_high),
            "battery_mv": NodeStatus.battery_mv,
        },
    ),
    AlertKind.CLOCK_DRIFT: Condition(
        _drift("ppm"), _drift("clear_ppm"), _since("drift_ppm", NodeStatus.drift_ppm)
    ),
    AlertKind.SPOOL_GROWING: Condition(
        _spool,
        lambda thresholds, _now: NodeStatus.spool_depth >= thresholds["clear_packs"],
        _since("packs", NodeStatus.spool_depth),
    ),
    AlertKind.REBOOT_LOOP: Condition(
        _reboots("restarts"),
        _reboots("clear_restarts"),
        lambda now: {"restarts": _restarts(now), "reset_cause": NodeStatus.reset_cause},
    ),
    AlertKind.CERTIFICATE: Condition(
        _certificate("days"),
        _certificate("clear_days"),
        _since("expires_at", Node.certificate_expires_at),
    ),
    AlertKind.SENSOR: Condition(
        _sensor,
        _sensor,
        lambda _now: {
            "channel": _failed_channels(1).order_by(Channel.key).limit(1).scalar_subquery()
        },
    ),
    AlertKind.RADIO: Condition(
        _radio("drop_db"),
        _radio("clear_drop_db"),
        lambda _now: {
            "before_dbm": _trend_column(NodeTrend.rssi_before_dbm),
            "now_dbm": _trend_column(NodeTrend.rssi_now_dbm),
        },
    ),
}

QUICK = (AlertKind.OFFLINE, AlertKind.LATE)
"""Judged at every look; the others, which change by the hour, less often."""

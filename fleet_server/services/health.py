"""Whether nodes report as they should: judged by each node's own schedule, never by the broker's connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ScalarSelect, select
from sqlalchemy.orm import Session

from fleet_server.models import (
    Configuration,
    Deployment,
    Event,
    Node,
    NodeStatus,
    Pack,
    Receipt,
    Site,
)
from fleet_server.services import rights
from fleet_server.wire.configuration import PUBLISH_S
from fleet_server.wire.states import BATTERY_LOW_PERIODS, BatteryLevel, NodeState

# Boot, Wi-Fi and TLS vary by minutes; half a period more is a missed publish, not a late one.
LATE_AFTER_PERIODS = 1.5
# Three publishes in a row that did not come through are more than bad luck on the radio.
OFFLINE_AFTER_PERIODS = 3.5
DEFAULT_PUBLISH_S = 3600
BATTERY_EVENT = "battery"


class Freshness(StrEnum):
    """How a node stands against its own schedule."""

    FRESH = "fresh"
    LATE = "late"
    OFFLINE = "offline"
    MUTED = "muted"  # silent because its battery is low, as it said
    NEVER_SEEN = "never_seen"


@dataclass(frozen=True)
class NodeHealth:
    """One node with what the fleet page shows about it. `publish_every_s`: as its battery lets it."""

    node: Node
    status: NodeStatus
    receipt: Receipt
    site: Site | None
    freshness: Freshness
    publish_every_s: int
    battery_level: BatteryLevel


def freshness(last_heard_at: datetime | None, *, publish_every_s: int, now: datetime) -> Freshness:
    """Judge when a node was last heard.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    >>> freshness(datetime(2026, 7, 1, 10, tzinfo=UTC), publish_every_s=3600, now=noon)
    <Freshness.LATE: 'late'>
    """
    if last_heard_at is None:
        return Freshness.NEVER_SEEN
    periods = (now - last_heard_at).total_seconds() / publish_every_s
    if periods <= LATE_AFTER_PERIODS:
        return Freshness.FRESH
    return Freshness.LATE if periods <= OFFLINE_AFTER_PERIODS else Freshness.OFFLINE


def fleet_health(
    session: Session, *, now: datetime, node_id: str | None = None
) -> list[NodeHealth]:
    """All nodes in service that the actor has to do with (or the one asked for), by label, in one statement."""
    query = (
        select(Node, NodeStatus, Receipt, Configuration.settings, Site, _battery_details())
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .join(Receipt, Receipt.node_id == Node.node_id)
        .join(Configuration, Configuration.node_id == Node.node_id)
        .outerjoin(Deployment, (Deployment.node_id == Node.node_id) & Deployment.to_at.is_(None))
        .outerjoin(Site, Site.id == Deployment.site_id)
        .order_by(Node.label, Node.node_id)
    )
    models = rights.node_models(session)
    if models is not None:
        query = query.where(Node.model.in_(models))
    if node_id is None:
        query = query.where(Node.state.in_((NodeState.ENROLLED, NodeState.ACTIVE)))
    else:
        query = query.where(Node.node_id == node_id)
    return [
        _judged(node, status, receipt, settings, site, _battery_level(details), now=now)
        for node, status, receipt, settings, site, details in session.execute(query)
    ]


def _battery_details() -> ScalarSelect[list[list[float | str]]]:
    """What a node last said of its battery's level since it was switched on."""
    return (
        select(Event.details)
        .join(Pack, Pack.id == Event.pack_id)
        .where(
            Event.node_id == Node.node_id,
            Event.name == BATTERY_EVENT,
            Pack.power_up == NodeStatus.power_up,
        )
        .order_by(Event.pack_id.desc())
        .limit(1)
        .correlate(Node, NodeStatus)
        .scalar_subquery()
    )


def _battery_level(details: list[list[float | str]] | None) -> BatteryLevel:
    level = next((value for key, value in details or [] if key == "level"), None)
    return BatteryLevel(level) if level in tuple(BatteryLevel) else BatteryLevel.NORMAL


def _judged(
    node: Node,
    status: NodeStatus,
    receipt: Receipt,
    settings: Mapping[str, object],
    site: Site | None,
    battery_level: BatteryLevel,
    *,
    now: datetime,
) -> NodeHealth:
    wanted = settings.get(PUBLISH_S)
    publish_every_s = wanted if isinstance(wanted, int) else DEFAULT_PUBLISH_S
    if battery_level is not BatteryLevel.NORMAL:
        publish_every_s *= BATTERY_LOW_PERIODS
    judged = freshness(status.last_heard_at, publish_every_s=publish_every_s, now=now)
    is_silent = judged in (Freshness.LATE, Freshness.OFFLINE)
    if is_silent and battery_level in (BatteryLevel.MUTE, BatteryLevel.STOP):
        judged = Freshness.MUTED
    return NodeHealth(node, status, receipt, site, judged, publish_every_s, battery_level)

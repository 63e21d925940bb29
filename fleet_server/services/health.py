"""Whether nodes report as they should: judged by each node's own schedule, never by the broker's connection.

When a node will be late or silent stands in its `node_status`, computed by the database from when it was heard, its publishing
interval and its battery's level; kept here: the interval (`follow_configuration`) and the level (`note_battery_events`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from fleet_server import db
from fleet_server.models import (
    Configuration,
    Deployment,
    Node,
    NodeStatus,
    Receipt,
    Site,
)
from fleet_server.services import bulk, rights
from fleet_server.services.node_life import OUT_OF_SERVICE
from fleet_server.wire.configuration import PUBLISH_S, WIFI
from fleet_server.wire.senml import EventPack
from fleet_server.wire.states import BATTERY_LOW_PERIODS, BatteryLevel

# Boot, Wi-Fi and TLS vary by minutes; half a period more is a missed publish, not a late one.
LATE_AFTER_PERIODS = 1.5
# Two publishes in a row that did not come through are more than bad luck on the radio.
OFFLINE_AFTER_PERIODS = 3.0
DEFAULT_PUBLISH_S = 3600
BATTERY_EVENT = "battery"
_NODES_AT_ONCE = 500
_RADIO_OFF = (BatteryLevel.MUTE, BatteryLevel.STOP)


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


def freshness(status: NodeStatus, *, now: datetime) -> Freshness:
    """How a node stands at `now`; `has_freshness` asks the database the same."""
    if status.late_at is None or status.offline_at is None:
        return Freshness.NEVER_SEEN
    if now <= status.late_at:
        return Freshness.FRESH
    if battery_level(status) in _RADIO_OFF:
        return Freshness.MUTED
    return Freshness.LATE if now <= status.offline_at else Freshness.OFFLINE


def has_freshness(wanted: Freshness, *, now: datetime) -> ColumnElement[bool]:
    """A condition on `node_status`: nodes that stand so at `now`. `late_at` is indexed."""
    muted = and_(
        NodeStatus.battery_level.in_(_RADIO_OFF),
        NodeStatus.battery_power_up == NodeStatus.power_up,
    )
    is_muted = func.coalesce(muted, False)
    conditions: dict[Freshness, ColumnElement[bool]] = {
        Freshness.NEVER_SEEN: NodeStatus.late_at.is_(None),
        Freshness.FRESH: NodeStatus.late_at >= now,
        Freshness.MUTED: and_(NodeStatus.late_at < now, is_muted),
        Freshness.LATE: and_(NodeStatus.late_at < now, NodeStatus.offline_at >= now, ~is_muted),
        Freshness.OFFLINE: and_(NodeStatus.late_at < now, NodeStatus.offline_at < now, ~is_muted),
    }
    return conditions[wanted]


def battery_level(status: NodeStatus) -> BatteryLevel:
    """What a node last said of its battery's level since it was switched on."""
    if status.battery_power_up is None or status.battery_power_up != status.power_up:
        return BatteryLevel.NORMAL
    return BatteryLevel(status.battery_level)


def publish_every_s(status: NodeStatus) -> int:
    """How often the node is to be heard, as its battery lets it."""
    spares = battery_level(status) is not BatteryLevel.NORMAL
    return status.publish_s * (BATTERY_LOW_PERIODS if spares else 1)


def fleet_health(
    session: Session, *, now: datetime, node_id: str | None = None
) -> list[NodeHealth]:
    """All nodes in service that the actor has to do with (or the one asked for), by label, in one statement."""
    query = (
        select(Node, NodeStatus, Receipt, Site)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .join(Receipt, Receipt.node_id == Node.node_id)
        .outerjoin(Deployment, (Deployment.node_id == Node.node_id) & Deployment.to_at.is_(None))
        .outerjoin(Site, Site.id == Deployment.site_id)
        .order_by(Node.label, Node.node_id)
    )
    models = rights.node_models(session)
    if models is not None:
        query = query.where(Node.model.in_(models))
    if node_id is None:
        query = query.where(Node.state.not_in(OUT_OF_SERVICE))
    else:
        query = query.where(Node.node_id == node_id)
    query = query.execution_options(populate_existing=True)  # what the database computes too
    return [
        NodeHealth(
            node,
            status,
            receipt,
            site,
            freshness(status, now=now),
            publish_every_s(status),
            battery_level(status),
        )
        for node, status, receipt, site in session.execute(query)
    ]


def follow_configuration(session: Session, node_ids: Iterable[str] | None = None) -> None:
    """What nodes are told decides when they are late: after a change of configurations, in its transaction.

    Args:
        node_ids: whose changed; None looks at all, and writes only where something differs.
    """
    differing = _differing(session) if node_ids is None else sorted(node_ids)
    for some in bulk.chunks(differing, _NODES_AT_ONCE):
        _follow(session, some)


def _differing(session: Session) -> list[str]:
    """Nodes whose schedule is not that of their configuration: read, so that nobody who writes waits for looking at all."""
    return list(
        session.scalars(
            select(NodeStatus.node_id)
            .join(Configuration, Configuration.node_id == NodeStatus.node_id)
            .where(_differs())
            .order_by(NodeStatus.node_id)
        )
    )


def _interval() -> ColumnElement[int]:
    return func.coalesce(Configuration.settings[PUBLISH_S].as_integer(), DEFAULT_PUBLISH_S)


def _network() -> ColumnElement[str]:
    network: ColumnElement[str] = Configuration.settings[(WIFI, 0, 0)].as_string()
    return network


def _differs() -> ColumnElement[bool]:
    return or_(
        NodeStatus.publish_s.is_distinct_from(_interval()),
        NodeStatus.network.is_distinct_from(_network()),
    )


def _follow(session: Session, node_ids: Sequence[str]) -> None:
    with db.writing(session):
        session.execute(
            update(NodeStatus)
            .where(
                Configuration.node_id == NodeStatus.node_id,
                NodeStatus.node_id.in_(node_ids),
                _differs(),
            )
            .values(publish_s=_interval(), network=_network())
            .execution_options(synchronize_session=False)
        )


def note_battery_events(session: Session, packs: Iterable[EventPack]) -> None:
    """Levels that nodes reported; part of the caller's transaction. The later of two wins."""
    levels = {
        pack.node_id: (_level(pack), pack.power_up) for pack in packs if pack.event == BATTERY_EVENT
    }
    for node_id, (level, power_up) in levels.items():
        session.execute(
            update(NodeStatus)
            .where(NodeStatus.node_id == node_id)
            .values(battery_level=level, battery_power_up=power_up)
        )


def _level(pack: EventPack) -> BatteryLevel:
    said = next((value for key, value in pack.details if key == "level"), None)
    return BatteryLevel(said) if said in tuple(BatteryLevel) else BatteryLevel.NORMAL

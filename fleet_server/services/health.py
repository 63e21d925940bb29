"""Whether nodes report as they should: judged by each node's own schedule, never by the broker's connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.models import Configuration, Deployment, Node, NodeStatus, Receipt, Site
from fleet_server.wire.configuration import PUBLISH_S
from fleet_server.wire.states import NodeState

# Boot, Wi-Fi and TLS vary by minutes; half a period more is a missed publish, not a late one.
LATE_AFTER_PERIODS = 1.5
# Three publishes in a row that did not come through are more than bad luck on the radio.
OFFLINE_AFTER_PERIODS = 3.5
DEFAULT_PUBLISH_S = 3600


class Freshness(StrEnum):
    """How a node stands against its own schedule."""

    FRESH = "fresh"
    LATE = "late"
    OFFLINE = "offline"
    NEVER_SEEN = "never_seen"


@dataclass(frozen=True)
class NodeHealth:
    """One node with what the fleet page shows about it."""

    node: Node
    status: NodeStatus
    receipt: Receipt
    site: Site | None
    freshness: Freshness
    publish_every_s: int


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
    """All nodes in service (or the one asked for), by label, in one statement."""
    query = (
        select(Node, NodeStatus, Receipt, Configuration.settings, Site)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .join(Receipt, Receipt.node_id == Node.node_id)
        .join(Configuration, Configuration.node_id == Node.node_id)
        .outerjoin(Deployment, (Deployment.node_id == Node.node_id) & Deployment.to_at.is_(None))
        .outerjoin(Site, Site.id == Deployment.site_id)
        .order_by(Node.label, Node.node_id)
    )
    if node_id is None:
        query = query.where(Node.state.in_((NodeState.ENROLLED, NodeState.ACTIVE)))
    else:
        query = query.where(Node.node_id == node_id)
    return [
        _judged(node, status, receipt, settings, site, now=now)
        for node, status, receipt, settings, site in session.execute(query)
    ]


def _judged(
    node: Node,
    status: NodeStatus,
    receipt: Receipt,
    settings: Mapping[str, object],
    site: Site | None,
    *,
    now: datetime,
) -> NodeHealth:
    wanted = settings.get(PUBLISH_S)
    publish_every_s = wanted if isinstance(wanted, int) else DEFAULT_PUBLISH_S
    judged = freshness(status.last_heard_at, publish_every_s=publish_every_s, now=now)
    return NodeHealth(node, status, receipt, site, judged, publish_every_s)

"""The list of nodes: filtered, sorted and cut into pages in the database, for as many as there are. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select
from sqlalchemy.orm import Session

from fleet_server.models import (
    Deployment,
    Node,
    NodeGroup,
    NodeGroupMember,
    NodeStatus,
    NodeTag,
    Receipt,
    Site,
)
from fleet_server.services import fleet_totals, health, keyset, rights
from fleet_server.services.node_life import OUT_OF_SERVICE

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_LABEL = keyset.Sorting((Node.label, Node.node_id), (str, str))  # type: ignore[arg-type] # columns of a class
# Those of whom nothing is known come first, as if it were the least: they call for a look.
_HEARD_AT = func.coalesce(NodeStatus.last_heard_at, literal(_NEVER, NodeStatus.last_heard_at.type))
_HEARD = keyset.Sorting((_HEARD_AT, Node.node_id), (datetime, str))  # type: ignore[arg-type] # a column of a class
_BATTERY = keyset.Sorting(
    (func.coalesce(NodeStatus.battery_mv, -1), Node.node_id),  # type: ignore[arg-type] # as above
    (int, str),
)


def _both_ways(name: str, sorting: keyset.Sorting) -> dict[str, keyset.Sorting]:
    other_way = keyset.Sorting(sorting.columns, sorting.kinds, is_descending=True)
    return {name: sorting, f"-{name}": other_way}


SORTINGS = {
    **_both_ways("label", _LABEL),
    **_both_ways("heard", _HEARD),
    **_both_ways("battery", _BATTERY),
}


@dataclass(frozen=True)
class NodeFilter:
    """All that is given must hold. `label` is how the label begins."""

    model: str | None = None
    state: str | None = None
    site: str | None = None  # its code
    group: str | None = None  # its name
    tag: str | None = None
    label: str | None = None
    firmware_version: str | None = None
    battery_below_mv: int | None = None
    heard_before: datetime | None = None  # or never
    health: str | None = None  # a word of fleet_totals.HEALTH_WORDS


@dataclass(frozen=True)
class NodeLine:
    """One node in a list."""

    id: str
    label: str
    model: str
    state: str
    health: str
    enrolled_at: datetime | None
    site_id: int | None
    site_code: str | None
    site_name: str | None
    last_heard_at: datetime | None
    spool_depth: int | None
    battery_mv: int | None
    firmware_version: str | None
    last_error: str | None
    receipt_seq: int | None


def node_page(
    session: Session,
    wanted: NodeFilter,
    *,
    now: datetime,
    sort: str = "label",
    limit: int,
    after: keyset.Key | None = None,
) -> keyset.Page[NodeLine]:
    """Nodes that the actor has to do with. One statement."""
    return keyset.page_of(
        session,
        _nodes(session, wanted, now),
        SORTINGS[sort],
        limit=limit,
        after=after,
        made=lambda row: _line(row, now),
    )


def node_ids(session: Session, wanted: NodeFilter, *, now: datetime, limit: int) -> list[str]:
    """Ids of nodes that the actor has to do with, by label; at most `limit`. One statement."""
    found = _nodes(session, wanted, now).order_by(*_LABEL.order()).limit(limit)
    return [row.Node.node_id for row in session.execute(found)]


def labels(session: Session, ids: Collection[str]) -> Mapping[str, str]:
    """Labels by node id. One statement."""
    rows = session.execute(select(Node.node_id, Node.label).where(Node.node_id.in_(list(ids))))
    return {row.node_id: row.label for row in rows}


def _nodes(session: Session, wanted: NodeFilter, now: datetime) -> Select[*tuple[Any, ...]]:
    query = (
        select(Node, NodeStatus, Receipt.seq, Site.id, Site.code, Site.name)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .join(Receipt, Receipt.node_id == Node.node_id)
        .outerjoin(Deployment, (Deployment.node_id == Node.node_id) & Deployment.to_at.is_(None))
        .outerjoin(Site, Site.id == Deployment.site_id)
        .where(*conditions(wanted, now=now))
    )
    models = rights.node_models(session)
    return query if models is None else query.where(Node.model.in_(models))


def conditions(wanted: NodeFilter, *, now: datetime) -> list[ColumnElement[bool]]:
    """What holds for Node and NodeStatus."""
    found: list[ColumnElement[bool]] = []
    if wanted.model is not None:
        found.append(Node.model == wanted.model)
    if wanted.state is not None:
        found.append(Node.state == wanted.state)
    if wanted.site is not None:
        at_site = select(Deployment.node_id).join(Site, Site.id == Deployment.site_id)
        found.append(
            Node.node_id.in_(at_site.where(Site.code == wanted.site, Deployment.to_at.is_(None)))
        )
    if wanted.group is not None:
        members = select(NodeGroupMember.node_id).join(
            NodeGroup, NodeGroup.id == NodeGroupMember.group_id
        )
        found.append(Node.node_id.in_(members.where(NodeGroup.name == wanted.group)))
    if wanted.tag is not None:
        tagged = select(NodeTag.node_id).where(NodeTag.tag == wanted.tag)
        found.append(Node.node_id.in_(tagged))
    if wanted.health is not None:
        # A node that is out of service stands nowhere in the counts either.
        found += [
            fleet_totals.has_health(wanted.health, now=now),
            Node.state.not_in(OUT_OF_SERVICE),
        ]
    if wanted.label:
        found.append(Node.label.startswith(wanted.label, autoescape=True))
    if wanted.firmware_version is not None:
        found.append(NodeStatus.version == wanted.firmware_version)
    if wanted.battery_below_mv is not None:
        found.append(NodeStatus.battery_mv < wanted.battery_below_mv)
    if wanted.heard_before is not None:
        found.append(wanted.heard_before > _HEARD_AT)
    return found


def _health_word(status: NodeStatus, now: datetime) -> str:
    word = health.freshness(status, now=now)
    is_troubled = word is health.Freshness.FRESH and bool(status.last_error)
    return fleet_totals.TROUBLED if is_troubled else word.value


def _line(row: Any, now: datetime) -> NodeLine:
    node, status = row.Node, row.NodeStatus
    return NodeLine(
        id=node.node_id,
        label=node.label,
        model=node.model,
        state=node.state,
        health=_health_word(status, now),
        enrolled_at=node.enrolled_at,
        site_id=row.id,
        site_code=row.code,
        site_name=row.name,
        last_heard_at=status.last_heard_at,
        spool_depth=status.spool_depth,
        battery_mv=status.battery_mv,
        firmware_version=status.version,
        last_error=status.last_error,
        receipt_seq=row.seq or None,
    )

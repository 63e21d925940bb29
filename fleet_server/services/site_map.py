"""Where sites are and how they stand, for a map: each on its own while they are few, counted in a grid when they are many. Reads only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Integer, cast, func, select
from sqlalchemy.orm import Session

from fleet_server.models import Configuration, Deployment, NodeStatus, Site
from fleet_server.services import health
from fleet_server.services.health import Freshness
from fleet_server.services.overviews import Shown, seen
from fleet_server.services.sites import Box, SiteFilter
from fleet_server.wire.configuration import PUBLISH_S

MOST_SINGLE_SITES = 2000
"""More are counted by the database; each on its own would take a second to read and tell nothing on a map of this size."""
_COLUMNS, _ROWS = 24, 18


class SiteHealth(StrEnum):
    """How the nodes of a site stand against their schedules: the worst of them. Ordered from what asks for somebody to what does not."""

    OFFLINE = "offline"
    LATE = "late"
    NEVER_SEEN = "never_seen"
    FRESH = "fresh"
    BARE = "bare"
    CLOSED = "closed"


_WORST_FIRST = tuple(SiteHealth)


@dataclass(frozen=True)
class MapPoint:
    """One site."""

    site_id: int
    code: str
    name: str
    latitude: float
    longitude: float
    health: SiteHealth


@dataclass(frozen=True)
class MapCell:
    """Sites too many to be told apart; the position is their mean."""

    count: int
    latitude: float
    longitude: float
    box: Box


@dataclass(frozen=True)
class SiteMap:
    """`points` or `cells`; `box` holds all of them; None when there is nothing."""

    total: int
    box: Box | None
    points: tuple[MapPoint, ...] = ()
    cells: tuple[MapCell, ...] = ()


def site_map(session: Session, wanted: SiteFilter, *, shown: Shown, now: datetime) -> SiteMap:
    """The sites of a filter that the actor may see. Two statements however many there are."""
    conditions = [seen(session, shown), *wanted.conditions()]
    total, west, south, east, north = session.execute(
        select(
            func.count(),
            func.min(Site.longitude),
            func.min(Site.latitude),
            func.max(Site.longitude),
            func.max(Site.latitude),
        ).where(*conditions)
    ).one()
    if not total:
        return SiteMap(0, None)
    box = Box(west, south, east, north)
    if total <= MOST_SINGLE_SITES:
        return SiteMap(total, box, points=_points(session, conditions, now))
    return SiteMap(total, box, cells=_cells(session, conditions, box))


def worst(states: Sequence[SiteHealth]) -> SiteHealth:
    """The one that asks most for somebody."""
    return min(states, key=_WORST_FIRST.index)


def _points(
    session: Session, conditions: Sequence[ColumnElement[bool]], now: datetime
) -> tuple[MapPoint, ...]:
    rows = session.execute(
        select(
            Site.id,
            Site.code,
            Site.name,
            Site.latitude,
            Site.longitude,
            Site.closed_at,
            NodeStatus.node_id,
            NodeStatus.last_heard_at,
            Configuration.settings,
        )
        .outerjoin(Deployment, (Deployment.site_id == Site.id) & Deployment.to_at.is_(None))
        .outerjoin(NodeStatus, NodeStatus.node_id == Deployment.node_id)
        .outerjoin(Configuration, Configuration.node_id == Deployment.node_id)
        .where(*conditions)
        .order_by(Site.id)
    )
    places = {}
    states: dict[int, list[SiteHealth]] = defaultdict(list)
    for row in rows:
        places[row.id] = row
        states[row.id].append(_state(row, now))
    return tuple(
        MapPoint(
            site_id=row.id,
            code=row.code,
            name=row.name,
            latitude=row.latitude,
            longitude=row.longitude,
            health=worst(states[row.id]),
        )
        for row in places.values()
    )


def _state(row: object, now: datetime) -> SiteHealth:
    node_id = getattr(row, "node_id", None)
    if getattr(row, "closed_at", None) is not None:
        return SiteHealth.CLOSED
    if node_id is None:
        return SiteHealth.BARE
    settings = getattr(row, "settings", None) or {}
    publish_s = settings.get(PUBLISH_S)
    judged = health.freshness(
        getattr(row, "last_heard_at", None),
        publish_every_s=publish_s if isinstance(publish_s, int) else health.DEFAULT_PUBLISH_S,
        now=now,
    )
    return SiteHealth.LATE if judged is Freshness.MUTED else SiteHealth(judged.value)


def _cells(
    session: Session, conditions: Sequence[ColumnElement[bool]], box: Box
) -> tuple[MapCell, ...]:
    # A little more than the box, so that what lies on its edge is in the last cell; and never nothing to divide by.
    width, height = (
        max(box.east - box.west, 1e-6) * 1.0001,
        max(box.north - box.south, 1e-6) * 1.0001,
    )
    column = cast(func.floor((Site.longitude - box.west) / width * _COLUMNS), Integer)
    row = cast(func.floor((Site.latitude - box.south) / height * _ROWS), Integer)
    rows = session.execute(
        select(
            func.count(),
            func.avg(Site.latitude),
            func.avg(Site.longitude),
            func.min(Site.longitude),
            func.min(Site.latitude),
            func.max(Site.longitude),
            func.max(Site.latitude),
        )
        .where(*conditions)
        .group_by(column, row)
        .order_by(column, row)
    )
    return tuple(
        MapCell(count, latitude, longitude, Box(west, south, east, north))
        for count, latitude, longitude, west, south, east, north in rows
    )

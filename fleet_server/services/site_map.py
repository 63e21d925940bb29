"""Where sites are and how they stand, for a map: each on its own while they are few, counted in a grid when they are many. Reads only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Integer, case, cast, func, select
from sqlalchemy.orm import Session

from fleet_server.models import Deployment, NodeStatus, Site
from fleet_server.services import health
from fleet_server.services.health import Freshness
from fleet_server.services.overviews import Shown, seen
from fleet_server.services.sites import Box, SiteFilter

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
    """Sites too many to be told apart; the position is their mean, `health` the worst of them."""

    count: int
    latitude: float
    longitude: float
    box: Box
    health: SiteHealth


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
    return SiteMap(total, box, cells=_cells(session, conditions, box, now))


def worst(states: Sequence[SiteHealth]) -> SiteHealth:
    """The one that asks most for somebody."""
    return min(states, key=_WORST_FIRST.index)


def _points(
    session: Session, conditions: Sequence[ColumnElement[bool]], now: datetime
) -> tuple[MapPoint, ...]:
    rows = session.execute(
        select(Site, NodeStatus)
        .outerjoin(Deployment, (Deployment.site_id == Site.id) & Deployment.to_at.is_(None))
        .outerjoin(NodeStatus, NodeStatus.node_id == Deployment.node_id)
        .where(*conditions)
        .order_by(Site.id)
        .execution_options(populate_existing=True)
    )
    places: dict[int, Site] = {}
    states: dict[int, list[SiteHealth]] = defaultdict(list)
    for site, status in rows:
        places[site.id] = site
        states[site.id].append(_state(site, status, now))
    return tuple(
        MapPoint(
            site_id=site.id,
            code=site.code,
            name=site.name,
            latitude=site.latitude,
            longitude=site.longitude,
            health=worst(states[site.id]),
        )
        for site in places.values()
    )


def _state(site: Site, status: NodeStatus | None, now: datetime) -> SiteHealth:
    if site.closed_at is not None:
        return SiteHealth.CLOSED
    if status is None:
        return SiteHealth.BARE
    judged = health.freshness(status, now=now)
    return SiteHealth.LATE if judged is Freshness.MUTED else SiteHealth(judged.value)


def _rank(now: datetime) -> ColumnElement[int]:
    """`_state` as the database asks it: the place in `_WORST_FIRST`."""
    return case(
        (Site.closed_at.is_not(None), _WORST_FIRST.index(SiteHealth.CLOSED)),
        (NodeStatus.node_id.is_(None), _WORST_FIRST.index(SiteHealth.BARE)),
        (
            health.has_freshness(Freshness.NEVER_SEEN, now=now),
            _WORST_FIRST.index(SiteHealth.NEVER_SEEN),
        ),
        (health.has_freshness(Freshness.FRESH, now=now), _WORST_FIRST.index(SiteHealth.FRESH)),
        (health.has_freshness(Freshness.OFFLINE, now=now), _WORST_FIRST.index(SiteHealth.OFFLINE)),
        else_=_WORST_FIRST.index(SiteHealth.LATE),
    )


def _cells(
    session: Session, conditions: Sequence[ColumnElement[bool]], box: Box, now: datetime
) -> tuple[MapCell, ...]:
    # A little more than the box, so that what lies on its edge is in the last cell; and never nothing to divide by.
    width = max(box.east - box.west, 1e-6) * 1.0001
    height = max(box.north - box.south, 1e-6) * 1.0001
    column = cast(func.floor((Site.longitude - box.west) / width * _COLUMNS), Integer)
    row = cast(func.floor((Site.latitude - box.south) / height * _ROWS), Integer)
    rows = session.execute(
        select(
            func.count(Site.id.distinct()),
            func.min(_rank(now)),
            func.avg(Site.latitude),
            func.avg(Site.longitude),
            func.min(Site.longitude),
            func.min(Site.latitude),
            func.max(Site.longitude),
            func.max(Site.latitude),
        )
        .outerjoin(Deployment, (Deployment.site_id == Site.id) & Deployment.to_at.is_(None))
        .outerjoin(NodeStatus, NodeStatus.node_id == Deployment.node_id)
        .where(*conditions)
        .group_by(column, row)
        .order_by(column, row)
    )
    return tuple(
        MapCell(count, latitude, longitude, Box(*corners), _WORST_FIRST[rank])
        for count, rank, latitude, longitude, *corners in rows
    )

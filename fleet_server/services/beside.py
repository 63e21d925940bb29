"""Which datastreams a quality test may look at beside one: of the same deployments, and the same property in the neighbourhood.

Neighbours are chosen by where sites are, never by what was measured, the longest known first: who comes later displaces nobody, so what
was said of the past stays true.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.models import Channel, Datastream, Site

NEIGHBOURS_WITHIN_M = 1000
NEIGHBOURS_MOST = 5
"""So many are looked at; the test wants three."""

_LEVEL = "calibrated"
_METRES_PER_DEGREE = 111_320.0  # of latitude; 40,075 km / 360


def streams_beside(session: Session, datastream: Datastream) -> dict[str, int]:
    """Datastreams of the same deployments by property, of several the one next in depth. One statement."""
    deployments = select(Channel.deployment_id).where(Channel.datastream_id == datastream.id)
    rows = session.execute(
        select(Channel.property, Channel.datastream_id, Channel.depth_cm)
        .where(Channel.deployment_id.in_(deployments))
        .order_by(Channel.id)
    )
    found: dict[str, tuple[int, int]] = {}
    for observed_property, datastream_id, depth_cm in rows:
        apart = (abs(depth_cm - datastream.depth_cm), datastream_id)
        found[observed_property] = min(found.get(observed_property, apart), apart)
    return {name: datastream_id for name, (_, datastream_id) in found.items()}


def neighbours_of(session: Session, datastream: Datastream) -> list[int]:
    """The same property at the same depth at sites of the same kind within `NEIGHBOURS_WITHIN_M`, those first that are known longest."""
    return around(session, datastream)[:NEIGHBOURS_MOST]


def around(session: Session, datastream: Datastream) -> list[int]:
    """All that could be its neighbours, and it theirs, by id. Two statements."""
    site = session.get_one(Site, datastream.site_id)
    return around_place(session, [datastream], site, site.latitude, site.longitude)


def around_place(
    session: Session,
    datastreams: Iterable[Datastream],
    site: Site,
    latitude: float,
    longitude: float,
) -> list[int]:
    """All that would be around these datastreams of a site if it lay there."""
    wanted = {(one.property, one.depth_cm) for one in datastreams}
    half_lat = NEIGHBOURS_WITHIN_M / _METRES_PER_DEGREE
    # At the poles nothing is left of a degree.
    half_lon = half_lat / max(math.cos(math.radians(latitude)), 0.01)
    rows = session.execute(
        select(
            Datastream.id,
            Datastream.property,
            Datastream.depth_cm,
            Site.latitude,
            Site.longitude,
        )
        .join(Site, Site.id == Datastream.site_id)
        .where(
            Site.id != site.id,
            Site.kind == site.kind,
            Datastream.level == _LEVEL,
            Datastream.property.in_({name for name, _ in wanted}),
            Site.latitude.between(latitude - 1.1 * half_lat, latitude + 1.1 * half_lat),
            Site.longitude.between(longitude - 1.1 * half_lon, longitude + 1.1 * half_lon),
        )
        .order_by(Datastream.id)
    )
    return [
        row.id
        for row in rows
        if (row.property, row.depth_cm) in wanted
        and _apart_m(latitude, longitude, row.latitude, row.longitude) <= NEIGHBOURS_WITHIN_M
    ]


def _apart_m(latitude: float, longitude: float, other_lat: float, other_lon: float) -> int:
    """Between two places near each other, on a sphere, in whole metres; the same from both sides."""
    middle = math.radians((latitude + other_lat) / 2.0)
    north = (other_lat - latitude) * _METRES_PER_DEGREE
    east = (other_lon - longitude) * _METRES_PER_DEGREE * math.cos(middle)
    return round(math.hypot(north, east))

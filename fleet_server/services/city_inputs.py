"""What the city's decisions are made from: sites with their streams and readings, as they were known at a moment. Reads only.

The same inputs serve the worker, an explanation and a rehearsal: nothing that was sampled or became known later is in them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session

from fleet_server import clock
from fleet_server.city import tree_status, water_status
from fleet_server.city.evidence import SUSPECT_FLAGS, TRUSTED_FLAGS, Reading, Stream
from fleet_server.city.tree_status import Tree, age_in_years
from fleet_server.city.water_status import AMMONIUM, Water
from fleet_server.models import Channel, Datastream, Deployment, NodeStatus, Observation, Site
from fleet_server.services import health, known_then

_CITY = ZoneInfo(clock.TIME_ZONE)
TREE_BACK = timedelta(hours=3)
"""Only a tree's newest readings decide; where none of them can be trusted, older ones are looked for."""
WATER_BACK = water_status.DAY
_DEFAULT_PERIOD_S = health.DEFAULT_PUBLISH_S
_LABORATORY = "external"
_MEASURED = "calibrated"


@dataclass(frozen=True)
class TreeInput:
    """A tree that is measured, or stood for: then `reference_id` is the site whose streams it has."""

    site: Site
    tree: Tree
    reference_id: int | None = None


@dataclass(frozen=True)
class WaterInput:
    """A water that is measured."""

    site: Site
    water: Water


def tree_inputs(
    session: Session, sites: Sequence[Site], *, at: datetime, back: timedelta = TREE_BACK
) -> list[TreeInput]:
    """These trees, each with what is measured at it, or at the tree that stands for its group. At most five statements."""
    streams = _streams(session, [site.id for site in sites], tree_status.PROPERTIES, at=at)
    bare = {site.tree_group for site in sites if site.id not in streams and site.tree_group}
    references = _references(session, bare)
    of_references = [site.id for site in references.values()]
    streams |= _streams(session, of_references, tree_status.PROPERTIES, at=at)
    filled = _filled(session, streams, at=at, back=back)
    return [_tree_input(site, references.get(site.tree_group or ""), filled, at) for site in sites]


def water_inputs(
    session: Session, sites: Sequence[Site], *, at: datetime, back: timedelta = WATER_BACK
) -> list[WaterInput]:
    """These waters, each with what is measured in it. At most six statements."""
    ids = [site.id for site in sites]
    streams = _streams(session, ids, water_status.PROPERTIES, at=at)
    filled = _filled(session, streams, at=at, back=back)
    laboratory = _filled(session, _laboratory_streams(session, ids), at=at, back=timedelta(0))
    periods = _periods(session, ids)
    return [
        WaterInput(
            site,
            Water(
                streams=tuple(filled.get(site.id, ())),
                period_s=periods.get(site.id, _DEFAULT_PERIOD_S),
                lowest_level_m=site.lowest_level_m,
                ammonium=next(iter(laboratory.get(site.id, ())), None),
            ),
        )
        for site in sites
    ]


def is_decided() -> Any:
    """The condition on `Site`: it is open, and something is or was measured there, or at the tree that stands for its group."""
    measured = select(Deployment.site_id).where(Deployment.site_id == Site.id).exists()
    reference = Site.__table__.alias("reference")
    stands = (
        select(reference.c.id)
        .where(reference.c.tree_group == Site.tree_group, reference.c.is_group_reference)
        .exists()
    )
    return and_(Site.closed_at.is_(None), or_(measured, stands))


def _tree_input(
    site: Site,
    reference: Site | None,
    streams: Mapping[int, Sequence[Stream]],
    at: datetime,
) -> TreeInput:
    tree = _tree(site, streams, at)
    if tree.streams or reference is None or reference.id == site.id:
        return TreeInput(site, tree)
    return TreeInput(site, tree_status.inferred(tree, _tree(reference, streams, at)), reference.id)


def _tree(site: Site, streams: Mapping[int, Sequence[Stream]], at: datetime) -> Tree:
    age_years = age_in_years(site.planted_year, at.astimezone(_CITY).year)
    return Tree(tuple(streams.get(site.id, ())), age_years, site.soil_class)


def _references(session: Session, groups: set[str]) -> dict[str, Site]:
    if not groups:
        return {}
    query = select(Site).where(
        Site.tree_group.in_(groups), Site.is_group_reference, Site.closed_at.is_(None)
    )
    return {site.tree_group or "": site for site in session.scalars(query)}


def _streams(
    session: Session, site_ids: Sequence[int], properties: Sequence[str], *, at: datetime
) -> dict[int, list[Stream]]:
    """By site: what a node that stands there at `at` measures, without readings."""
    if not site_ids:
        return {}
    rows = session.execute(
        select(
            Deployment.site_id,
            Datastream.id,
            Datastream.property,
            Datastream.depth_cm,
            func.min(Channel.from_at),
        )
        .join(Channel, Channel.deployment_id == Deployment.id)
        .join(Datastream, Datastream.id == Channel.datastream_id)
        .where(
            Deployment.site_id.in_(site_ids),
            Datastream.property.in_(properties),
            Datastream.level == _MEASURED,
            Deployment.from_at <= at,
            or_(Deployment.to_at.is_(None), Deployment.to_at > at),
            Channel.from_at <= at,
            or_(Channel.to_at.is_(None), Channel.to_at > at),
        )
        .group_by(Deployment.site_id, Datastream.id, Datastream.property, Datastream.depth_cm)
        .order_by(Datastream.property, Datastream.depth_cm, Datastream.id)
    )
    return _by_site(rows)


def _laboratory_streams(session: Session, site_ids: Sequence[int]) -> dict[int, list[Stream]]:
    rows = session.execute(
        select(
            Datastream.site_id,
            Datastream.id,
            Datastream.property,
            Datastream.depth_cm,
            Datastream.created_at,
        )
        .where(
            Datastream.site_id.in_(site_ids),
            Datastream.property == AMMONIUM,
            Datastream.level == _LABORATORY,
        )
        .order_by(Datastream.depth_cm, Datastream.id)
    )
    return _by_site(rows)


def _by_site(rows: Any) -> dict[int, list[Stream]]:
    found: dict[int, list[Stream]] = defaultdict(list)
    for site_id, datastream_id, observed_property, depth_cm, since in rows:
        found[site_id].append(Stream(datastream_id, observed_property, depth_cm, (), since))
    return dict(found)


def _filled(
    session: Session, streams: Mapping[int, Sequence[Stream]], *, at: datetime, back: timedelta
) -> dict[int, list[Stream]]:
    """The same streams with their readings sampled in (at − back, at]; where none of these can be trusted, with the last one before that
    could, and the last suspect one."""
    ids = [stream.datastream_id for some in streams.values() for stream in some]
    readings = readings_of(session, ids, from_at=at - back, to_at=at, known_at=at)
    missing = [one for one in ids if not any(reading.is_trusted for reading in readings[one])]
    for flags in (SUSPECT_FLAGS, TRUSTED_FLAGS):
        for datastream_id, reading in _last(session, missing, flags, at=at - back).items():
            readings[datastream_id].append(reading)
    for datastream_id in missing:
        readings[datastream_id].sort(key=lambda reading: reading.sampled_at)
    return {
        site_id: [
            replace(stream, readings=tuple(readings[stream.datastream_id])) for stream in some
        ]
        for site_id, some in streams.items()
    }


def readings_of(
    session: Session,
    datastream_ids: Sequence[int],
    *,
    from_at: datetime,
    to_at: datetime,
    known_at: datetime,
) -> dict[int, list[Reading]]:
    """By datastream, oldest first: sampled in (from_at, to_at], as it was known at `known_at`. One statement."""
    found: dict[int, list[Reading]] = {one: [] for one in datastream_ids}
    if not datastream_ids or from_at >= to_at:
        return found
    query = (
        _columns()
        .where(
            Observation.datastream_id.in_(datastream_ids),
            Observation.sampled_at > from_at,
            Observation.sampled_at <= to_at,
        )
        .order_by(Observation.sampled_at)
    )
    for datastream_id, *parts in session.execute(known_then.as_of(query, known_at)):
        found[datastream_id].append(Reading(*parts))
    return found


def _last(
    session: Session, datastream_ids: Sequence[int], flags: Sequence[int], *, at: datetime
) -> dict[int, Reading]:
    """The newest reading of each with one of these flags up to a moment, however old it is; by what is known of it now. One statement."""
    if not datastream_ids:
        return {}
    newest = (
        select(Observation.sampled_at)
        .where(
            Observation.datastream_id == Datastream.id,
            Observation.sampled_at <= at,
            Observation.value.is_not(None),
            Observation.flag.in_(flags),
        )
        .order_by(Observation.sampled_at.desc())
        .limit(1)
        .correlate(Datastream)
        .scalar_subquery()
    )
    query = (
        _columns()
        .join(Datastream, Datastream.id == Observation.datastream_id)
        .where(Datastream.id.in_(datastream_ids), Observation.sampled_at == newest)
    )
    return {row[0]: Reading(*row[1:]) for row in session.execute(query)}


def _columns() -> Select[*tuple[Any, ...]]:
    return select(
        Observation.datastream_id,
        Observation.sampled_at,
        Observation.value,
        Observation.u,
        Observation.flag,
    )


def _periods(session: Session, site_ids: Sequence[int]) -> dict[int, int]:
    """By site: how often something is to be heard of it, by the node that is heard most rarely."""
    rows = session.execute(
        select(Deployment.site_id, NodeStatus)
        .join(NodeStatus, NodeStatus.node_id == Deployment.node_id)
        .where(Deployment.site_id.in_(site_ids), Deployment.to_at.is_(None))
    )
    found: dict[int, int] = {}
    for site_id, status in rows:
        found[site_id] = max(found.get(site_id, 0), health.publish_every_s(status))
    return found

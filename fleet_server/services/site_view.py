"""What a page shows of one site: its data, what it measures, which nodes and probes were there. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.models import Channel, Deployment, Node, Sensor, Site
from fleet_server.services import day_means, overviews, sites


@dataclass(frozen=True)
class ProbePeriod:
    """One probe at one channel, from–to."""

    key: str
    property: str
    depth_cm: int
    sensor_type: str
    serial: str
    from_at: datetime
    to_at: datetime | None


@dataclass(frozen=True)
class Stay:
    """One node at the site, from–to, with its probes."""

    node_id: str
    label: str
    model: str
    from_at: datetime
    to_at: datetime | None
    probes: tuple[ProbePeriod, ...]


@dataclass(frozen=True)
class SiteView:
    site: Site
    overview: overviews.SiteOverview
    stays: tuple[Stay, ...]
    derived: tuple[overviews.Reading, ...]
    days: tuple[day_means.DaySeries, ...]
    not_derived: tuple[tuple[str, str], ...]
    """Property, and which of the site's details it lacks."""


def site_view(session: Session, site_id: int, *, now: datetime) -> SiteView:
    """One site that the actor has to do with; its stays newest first. Nine statements.

    Raises:
        NotFound: there is none.
    """
    site = sites.site_of(session, site_id)
    (overview,) = overviews.describe_sites(session, [site])
    deployments = session.execute(
        select(Deployment, Node.label, Node.model)
        .join(Node, Node.node_id == Deployment.node_id)
        .where(Deployment.site_id == site_id)
        .order_by(Deployment.from_at.desc(), Deployment.id.desc())
    ).all()
    probes = probes_of_deployments(session, [row.Deployment.id for row in deployments])
    stays = tuple(
        Stay(
            node_id=row.Deployment.node_id,
            label=row.label,
            model=row.model,
            from_at=row.Deployment.from_at,
            to_at=row.Deployment.to_at,
            probes=tuple(probes[row.Deployment.id]),
        )
        for row in deployments
    )
    return SiteView(
        site,
        overview,
        stays,
        tuple(overviews.derived_readings(session, site_id)),
        tuple(day_means.day_means(session, site_id, now=now)),
        tuple(day_means.not_derived(session, site_id)),
    )


def probes_of_deployments(
    session: Session, deployment_ids: Sequence[int]
) -> dict[int, list[ProbePeriod]]:
    """By deployment, which probe was at which channel and depth, from–to. One statement."""
    probes: dict[int, list[ProbePeriod]] = {one: [] for one in deployment_ids}
    channels = session.execute(
        select(Channel, Sensor.sensor_type, Sensor.serial)
        .join(Sensor, Sensor.id == Channel.sensor_id)
        .where(Channel.deployment_id.in_(deployment_ids))
        .order_by(Channel.property, Channel.depth_cm, Channel.key, Channel.from_at)
    )
    for channel, sensor_type, serial in channels:
        probes[channel.deployment_id].append(_period(channel, sensor_type, serial))
    return probes


def probes_of(session: Session, node_id: str) -> list[ProbePeriod]:
    """The probes that a node has where it stands, by channel; none at no site. One statement.

    The caller has checked that the node is the actor's business.
    """
    rows = session.execute(
        select(Channel, Sensor.sensor_type, Sensor.serial)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .join(Sensor, Sensor.id == Channel.sensor_id)
        .where(Deployment.node_id == node_id, Deployment.to_at.is_(None), Channel.to_at.is_(None))
        .order_by(Channel.property, Channel.depth_cm, Channel.key)
    )
    return [_period(*row) for row in rows]


def standing_of(session: Session, node_id: str) -> tuple[Site, datetime, dict[str, str]] | None:
    """Where a node stands, since when, and the serial number at each of its channels; None at no site. Two statements.

    The caller has checked that the node is the actor's business.
    """
    found = session.execute(
        select(Site, Deployment.from_at, Deployment.id)
        .join(Deployment, Deployment.site_id == Site.id)
        .where(Deployment.node_id == node_id, Deployment.to_at.is_(None))
    ).first()
    if found is None:
        return None
    site, since, deployment_id = found
    serials = session.execute(
        select(Channel.key, Sensor.serial)
        .join(Sensor, Sensor.id == Channel.sensor_id)
        .where(Channel.deployment_id == deployment_id, Channel.to_at.is_(None))
    )
    return site, since, {row.key: row.serial for row in serials}


def _period(channel: Channel, sensor_type: str, serial: str) -> ProbePeriod:
    return ProbePeriod(
        key=channel.key,
        property=channel.property,
        depth_cm=channel.depth_cm,
        sensor_type=sensor_type,
        serial=serial,
        from_at=channel.from_at,
        to_at=channel.to_at,
    )

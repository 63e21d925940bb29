"""What pages show: sites with their latest readings, nodes with their health, one node's series. Reads only.

Every function asks a fixed number of statements, however many nodes, sites or streams there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, or_, select, union_all
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import (
    IN_FORCE,
    Calibration,
    Channel,
    Datastream,
    Deployment,
    Event,
    Lineage,
    Node,
    Observation,
    ObservedRange,
    Pack,
    Quarantine,
    RawReading,
    Sensor,
    Site,
    ThinnedPack,
    ThinnedReading,
    observation_id,
)
from fleet_server.services import derivations, fleet_totals, health, rights
from fleet_server.wire.states import BatteryLevel

HOUSEKEEPING = ("wiper_age", "probe_counts", "reference_resistance", "battery_voltage")
"""What a node measures of itself: nothing for the public, and last for those who look after it."""

_PROPERTY_ORDER = (
    "soil_water_tension",
    "soil_water_content",
    "water_level",
    "contact_closed",
    "dissolved_oxygen",
    "oxygen_saturation",
    "water_temperature",
    "ph",
    "conductivity_25",
    "turbidity",
    "soil_temperature",
)
"""What decides comes first; what is not named follows by name."""


_property = property  # `property` is also the field that our models call so


@dataclass(frozen=True)
class Reading:
    """One observation as people see it; `expanded_u` is U = k·u in the reading's unit."""

    datastream_id: int
    property: str
    depth_cm: int
    unit: str
    sampled_at: datetime
    value: float | None
    expanded_u: float | None
    flag: int
    lineage_id: int
    pack_id: int | None

    @_property
    def observation_id(self) -> int:
        return observation_id(self.datastream_id, self.sampled_at)


@dataclass(frozen=True)
class NodeName:
    id: str
    label: str


@dataclass(frozen=True)
class SiteOverview:
    id: int
    name: str
    kind: str
    latitude: float
    longitude: float
    readings: tuple[Reading, ...]
    nodes: tuple[NodeName, ...] = ()
    code: str = ""
    closed_at: datetime | None = None

    @property
    def latest_at(self) -> datetime | None:
        return max((reading.sampled_at for reading in self.readings), default=None)


@dataclass(frozen=True)
class NodeOverview:
    """`missing_packs`: sequence numbers below the highest one stored that neither came nor were declared lost.

    Of those that were, the node kept the extremes of `thinned_packs`.
    """

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
    battery_level: BatteryLevel
    drift_ppm: float | None
    firmware_version: str | None
    micropython: str | None
    last_error: str | None
    packs: int
    missing_packs: int
    lost_packs: int
    thinned_packs: int
    receipt_seq: int | None


@dataclass(frozen=True)
class EventOverview:
    """What a node told about itself; `happened_at` is None while its time is not known."""

    name: str
    details: tuple[tuple[str, float | str], ...]
    happened_at: datetime | None
    pack_id: int


@dataclass(frozen=True)
class RangeOverview:
    """Between which values a datastream lay while the node could keep only extremes; U = k·u."""

    from_at: datetime
    to_at: datetime
    lowest: float | None
    expanded_u_lowest: float | None
    highest: float | None
    expanded_u_highest: float | None
    flag: int
    packs: int
    pack_id: int


@dataclass(frozen=True)
class ChannelOverview:
    """One datastream that a node feeds: its newest reading, and readings and ranges of some time, newest first."""

    datastream_id: int
    property: str
    depth_cm: int
    unit: str
    sensor: str
    calibration: str
    latest: Reading | None
    total: int
    rows: tuple[Reading, ...] = ()
    ranges: tuple[RangeOverview, ...] = ()


@dataclass(frozen=True)
class LineageLine:
    id: int
    sensor: str
    calibration: str
    software: str
    k: float


@dataclass(frozen=True)
class NodeReadings:
    channels: tuple[ChannelOverview, ...]
    lineages: tuple[LineageLine, ...]


@dataclass(frozen=True)
class Series:
    """Columns of one datastream in time order; `time_s` is UTC, `expanded_u` is U."""

    datastream: Datastream
    site_kind: str
    time_s: list[int] = field(default_factory=list)
    value: list[float | None] = field(default_factory=list)
    expanded_u: list[float | None] = field(default_factory=list)
    flag: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class QuarantineEntry:
    id: int
    node_id: str
    kind: str
    reason: str
    sentence: str
    received_at: datetime
    times_received: int
    size_bytes: int
    begin_hex: str


class Shown(StrEnum):
    """Which sites are listed."""

    PUBLIC = "public"
    OWN = "own"  # those that the actor has to do with
    BOTH = "both"


def seen(session: Session, shown: Shown) -> ColumnElement[bool]:
    """The condition on `Site`."""
    is_own = Site.kind.in_(rights.actor_of(session).site_kinds)
    if shown is Shown.OWN:
        return is_own
    is_public = Site.is_public.is_(True)
    return is_public if shown is Shown.PUBLIC else or_(is_public, is_own)


def describe_sites(session: Session, sites: Sequence[Site]) -> list[SiteOverview]:
    """These sites in their order, each with the latest reading of its calibrated datastreams, and its nodes. Two statements."""
    ids = [site.id for site in sites]
    readings: dict[int, list[Reading]] = defaultdict(list)
    for site_id, reading in _latest_readings(session, site_ids=ids):
        readings[site_id].append(reading)
    nodes: dict[int, list[NodeName]] = defaultdict(list)
    for site_id, node_id, label in session.execute(
        select(Deployment.site_id, Node.node_id, Node.label)
        .join(Node, Node.node_id == Deployment.node_id)
        .where(Deployment.to_at.is_(None), Deployment.site_id.in_(ids))
        .order_by(Node.label)
    ):
        nodes[site_id].append(NodeName(node_id, label))
    return [
        SiteOverview(
            id=site.id,
            name=site.name,
            kind=site.kind,
            latitude=site.latitude,
            longitude=site.longitude,
            readings=tuple(readings[site.id]),
            nodes=tuple(nodes[site.id]),
            code=site.code,
            closed_at=site.closed_at,
        )
        for site in sites
    ]


def _latest_readings(
    session: Session,
    datastream_ids: Iterable[int] | None = None,
    *,
    site_ids: Iterable[int] | None = None,
    level: str = "calibrated",
) -> list[tuple[int, Reading]]:
    """(site id, newest reading) of each datastream of a level: one index look-up per datastream."""
    newest = (
        select(func.max(Observation.sampled_at))
        .where(Observation.datastream_id == Datastream.id)
        .correlate(Datastream)
        .scalar_subquery()
    )
    query = (
        _readings()
        .add_columns(Datastream.site_id)
        .where(Datastream.level == level, Observation.sampled_at == newest)
        .order_by(Datastream.property, Datastream.depth_cm, Datastream.id)
    )
    if datastream_ids is not None:
        query = query.where(Datastream.id.in_(list(datastream_ids)))
    if site_ids is not None:
        query = query.where(Datastream.site_id.in_(list(site_ids)))
    found = [(row.site_id, _reading(row)) for row in session.execute(query)]
    return sorted(found, key=lambda one: rank(one[1].property))


def derived_readings(session: Session, site_id: int) -> list[Reading]:
    """The latest of what follows from a site's values. One statement.

    The caller has checked that the site is the actor's business.
    """
    latest = _latest_readings(session, site_ids=[site_id], level=derivations.LEVEL)
    return [reading for _, reading in latest]


def rank(property_name: str) -> int:
    """Where a property stands among others; stable sorting by it keeps the order of depths."""
    if property_name in HOUSEKEEPING:
        return len(_PROPERTY_ORDER) + 1 + HOUSEKEEPING.index(property_name)
    is_named = property_name in _PROPERTY_ORDER
    return _PROPERTY_ORDER.index(property_name) if is_named else len(_PROPERTY_ORDER)


def _readings() -> Select[*tuple[Any, ...]]:
    return (
        select(
            Observation.datastream_id,
            Observation.sampled_at,
            Observation.value,
            (Observation.u * Lineage.coverage_factor).label("expanded_u"),
            Observation.flag,
            Observation.lineage_id,
            Observation.pack_id,
            Datastream.property,
            Datastream.depth_cm,
            Datastream.unit,
        )
        .join(Datastream, Datastream.id == Observation.datastream_id)
        .join(Lineage, Lineage.id == Observation.lineage_id)
    )


def _reading(row: Any) -> Reading:
    return Reading(
        datastream_id=row.datastream_id,
        property=row.property,
        depth_cm=row.depth_cm,
        unit=row.unit,
        sampled_at=row.sampled_at,
        value=row.value,
        expanded_u=row.expanded_u,
        flag=row.flag,
        lineage_id=row.lineage_id,
        pack_id=row.pack_id,
    )


def node_overview(session: Session, node_id: str, *, now: datetime) -> NodeOverview:
    """One node that the actor has to do with. Two statements.

    Raises:
        NotFound: there is no node `node_id`.
    """
    found = health.fleet_health(session, now=now, node_id=node_id)
    if not found:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    one = found[0]
    packs = fleet_totals.pack_totals(session, node_id)
    return NodeOverview(
        id=one.node.node_id,
        label=one.node.label,
        model=one.node.model,
        state=one.node.state,
        health=health_word(one),
        enrolled_at=one.node.enrolled_at,
        site_id=one.site.id if one.site else None,
        site_code=one.site.code if one.site else None,
        site_name=one.site.name if one.site else None,
        last_heard_at=one.status.last_heard_at,
        spool_depth=one.status.spool_depth,
        battery_mv=one.status.battery_mv,
        battery_level=one.battery_level,
        drift_ppm=one.status.drift_ppm,
        firmware_version=one.status.version,
        micropython=one.status.micropython,
        last_error=one.status.last_error,
        packs=packs.stored,
        lost_packs=packs.lost,
        thinned_packs=packs.thinned,
        missing_packs=packs.missing,
        receipt_seq=one.receipt.seq or None,
    )


def node_events(session: Session, node_id: str, *, newest: int) -> list[EventOverview]:
    """The events that came last, newest first. One statement."""
    rows = session.execute(
        select(Event.name, Event.details, Event.happened_at, Event.pack_id)
        .where(Event.node_id == node_id)
        .order_by(Event.pack_id.desc())
        .limit(newest)
    )
    return [
        EventOverview(name, tuple((str(key), value) for key, value in details), at, pack_id)
        for name, details, at, pack_id in rows
    ]


def health_word(one: health.NodeHealth) -> str:
    """How it stands against its schedule; `troubled` when it reports in time, but with an error."""
    if one.freshness is health.Freshness.FRESH and one.status.last_error:
        return fleet_totals.TROUBLED
    return one.freshness.value


def newest_sample_at(session: Session, node_id: str) -> datetime | None:
    """Time of the newest observation in the node's datastreams."""
    latest = _latest_readings(session, _datastream_ids(session, node_id))
    return max((reading.sampled_at for _, reading in latest), default=None)


def _datastream_ids(session: Session, node_id: str) -> Sequence[int]:
    return session.scalars(
        select(Channel.datastream_id)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .where(Deployment.node_id == node_id)
        .distinct()
    ).all()


def node_readings(
    session: Session, node_id: str, *, begin: datetime, end: datetime, rows_per_channel: int
) -> NodeReadings:
    """Every datastream that the node feeds or fed, with its newest rows in begin ≤ sampled_at < end. Six statements."""
    channels = _current_channels(session, node_id)
    ids = list(channels)
    if not ids:
        return NodeReadings((), ())
    latest = {reading.datastream_id: reading for _, reading in _latest_readings(session, ids)}
    in_range = (Observation.sampled_at >= begin, Observation.sampled_at < end)
    counted = session.execute(
        select(Observation.datastream_id, func.count())
        .where(Observation.datastream_id.in_(ids), *in_range)
        .group_by(Observation.datastream_id)
    )
    totals = {row[0]: int(row[1]) for row in counted}
    newest = union_all(
        *(
            _readings()
            .where(Observation.datastream_id == datastream_id, *in_range)
            .order_by(Observation.sampled_at.desc())
            .limit(rows_per_channel)
            .subquery()
            .select()
            for datastream_id in ids
        )
    )
    rows: dict[int, list[Reading]] = defaultdict(list)
    for row in session.execute(newest):
        rows[row.datastream_id].append(_reading(row))
    for readings in rows.values():
        readings.sort(key=lambda reading: reading.sampled_at, reverse=True)
    ranges = _ranges(session, ids, begin=begin, end=end)
    used = {reading.lineage_id for readings in rows.values() for reading in readings}
    used |= {reading.lineage_id for reading in latest.values()}
    return NodeReadings(
        channels=tuple(
            ChannelOverview(
                datastream_id=datastream.id,
                property=datastream.property,
                depth_cm=datastream.depth_cm,
                unit=datastream.unit,
                sensor=f"{sensor.sensor_type} {sensor.serial}",
                calibration=_calibration_line(calibration),
                latest=latest.get(datastream.id),
                total=totals.get(datastream.id, 0),
                rows=tuple(rows[datastream.id]),
                ranges=tuple(ranges[datastream.id]),
            )
            for datastream, sensor, calibration in sorted(
                channels.values(), key=lambda one: rank(one[0].property)
            )
        ),
        lineages=_lineage_lines(session, used),
    )


def _ranges(
    session: Session, datastream_ids: Sequence[int], *, begin: datetime, end: datetime
) -> Mapping[int, list[RangeOverview]]:
    """Ranges that touch begin ≤ t < end, newest first."""
    rows = session.execute(
        select(ObservedRange, Lineage.coverage_factor)
        .join(Lineage, Lineage.id == ObservedRange.lineage_id)
        .where(
            ObservedRange.datastream_id.in_(datastream_ids),
            ObservedRange.from_at < end,
            ObservedRange.to_at >= begin,
        )
        .order_by(ObservedRange.from_at.desc())
    )
    found: dict[int, list[RangeOverview]] = defaultdict(list)
    for row, k in rows:
        found[row.datastream_id].append(
            RangeOverview(
                from_at=row.from_at,
                to_at=row.to_at,
                lowest=row.lowest,
                expanded_u_lowest=None if row.u_lowest is None else k * row.u_lowest,
                highest=row.highest,
                expanded_u_highest=None if row.u_highest is None else k * row.u_highest,
                flag=row.flag,
                packs=row.packs,
                pack_id=row.pack_id,
            )
        )
    return found


def _current_channels(
    session: Session, node_id: str
) -> Mapping[int, tuple[Datastream, Sensor, Calibration | None]]:
    """Datastream id → stream, its last probe on this node, and that probe's newest calibration."""
    query = (
        select(Datastream, Sensor, Calibration)
        .join(Channel, Channel.datastream_id == Datastream.id)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .join(Sensor, Sensor.id == Channel.sensor_id)
        .outerjoin(
            Calibration,
            (Calibration.sensor_id == Sensor.id)
            & (Calibration.property == Channel.property)
            & Calibration.status.in_(IN_FORCE),
        )
        .where(Deployment.node_id == node_id)
        .order_by(
            Datastream.property,
            Datastream.depth_cm,
            Datastream.id,
            Channel.from_at,
            Calibration.version,
        )
    )
    return {row[0].id: (row[0], row[1], row[2]) for row in session.execute(query)}


def _calibration_line(calibration: Calibration | None) -> str:
    if calibration is None:
        return ""
    return (
        f"#{calibration.id} v{calibration.version} {calibration.kind}: "
        f"{f'{calibration.curve:g} · x² + ' if calibration.curve else ''}"
        f"{calibration.slope:g} · x {calibration.offset:+g}, {calibration.reference}"
    )


def _lineage_lines(session: Session, ids: Iterable[int]) -> tuple[LineageLine, ...]:
    query = (
        select(Lineage, Sensor, Calibration)
        .join(Sensor, Sensor.id == Lineage.sensor_id)
        .join(Calibration, Calibration.id == Lineage.calibration_id)
        .where(Lineage.id.in_(list(ids)))
        .order_by(Lineage.id)
    )
    return tuple(
        LineageLine(
            id=lineage.id,
            sensor=f"{sensor.sensor_type} {sensor.serial}",
            calibration=f"#{calibration.id} v{calibration.version} {calibration.kind} "
            f"({calibration.property})",
            software=" · ".join(
                part
                for part in (lineage.conversion, lineage.rule_set, lineage.pipeline_version)
                if part
            ),
            k=lineage.coverage_factor,
        )
        for lineage, sensor, calibration in session.execute(query)
    )


def series(
    session: Session, node_id: str, datastream_id: int, *, begin: datetime, end: datetime
) -> Series:
    """One datastream of a node in begin ≤ sampled_at < end. Two statements.

    Raises:
        NotFound: this node feeds no such datastream.
    """
    found = session.execute(
        select(Datastream, Site.kind)
        .join(Site, Site.id == Datastream.site_id)
        .join(Channel, Channel.datastream_id == Datastream.id)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .where(Datastream.id == datastream_id, Deployment.node_id == node_id)
        .limit(1)
    ).first()
    if found is None or found[1] not in rights.actor_of(session).site_kinds:
        raise NotFound(
            "Node %(node_id)r feeds no datastream %(datastream_id)s.",
            node_id=node_id,
            datastream_id=datastream_id,
        )
    answer = Series(datastream=found[0], site_kind=found[1])
    query = (
        select(
            Observation.sampled_at,
            Observation.value,
            (Observation.u * Lineage.coverage_factor).label("expanded_u"),
            Observation.flag,
        )
        .join(Lineage, Lineage.id == Observation.lineage_id)
        .where(
            Observation.datastream_id == datastream_id,
            Observation.sampled_at >= begin,
            Observation.sampled_at < end,
        )
        .order_by(Observation.sampled_at)
    )
    for sampled_at, value, expanded_u, flag in session.execute(query):
        answer.time_s.append(int(sampled_at.timestamp()))
        answer.value.append(value)
        answer.expanded_u.append(expanded_u)
        answer.flag.append(flag)
    return answer


def quarantine_entries(
    session: Session, *, before_id: int | None = None, limit: int = 50
) -> list[QuarantineEntry]:
    """Newest first; `before_id` continues a list. One statement; the payload itself stays in the database."""
    query = select(
        Quarantine.id,
        Quarantine.node_id,
        Quarantine.kind,
        Quarantine.reason,
        Quarantine.sentence,
        Quarantine.received_at,
        Quarantine.times_received,
        func.length(Quarantine.payload).label("size_bytes"),
        func.substr(Quarantine.payload, 1, 12).label("begin"),
    ).order_by(Quarantine.id.desc())
    if before_id is not None:
        query = query.where(Quarantine.id < before_id)
    models = rights.node_models(session)
    if models is not None:
        own = select(Node.node_id).where(Node.model.in_(models))
        query = query.where(Quarantine.node_id.in_(own))
    return [
        QuarantineEntry(
            id=row.id,
            node_id=row.node_id,
            kind=row.kind,
            reason=row.reason,
            sentence=row.sentence,
            received_at=row.received_at,
            times_received=row.times_received,
            size_bytes=row.size_bytes,
            # SQLite: a part of an empty payload is NULL.
            begin_hex=bytes(row.begin or b"").hex(" "),
        )
        for row in session.execute(query.limit(limit))
    ]


@dataclass(frozen=True)
class PackOverview:
    """A pack as received with its raw readings and the node's label; a thinned one with what it stands for instead."""

    pack: Pack
    label: str
    readings: tuple[RawReading, ...]
    thinned: ThinnedPack | None
    extremes: tuple[ThinnedReading, ...]


def pack_overview(session: Session, pack_id: int) -> PackOverview:
    """One pack with what was read from it. Three statements.

    Raises:
        NotFound: there is no such pack.
    """
    found = session.execute(
        select(Pack, Node.label, ThinnedPack, Node.model)
        .join(Node, Node.node_id == Pack.node_id)
        .outerjoin(ThinnedPack, ThinnedPack.pack_id == Pack.id)
        .where(Pack.id == literal(pack_id))
    ).first()
    models = rights.node_models(session)
    if found is None or (models is not None and found[3] not in models):
        raise NotFound("There is no pack %(pack_id)s.", pack_id=pack_id)
    readings = session.scalars(
        select(RawReading).where(RawReading.pack_id == pack_id).order_by(RawReading.channel)
    ).all()
    extremes = session.scalars(
        select(ThinnedReading)
        .where(ThinnedReading.pack_id == pack_id)
        .order_by(ThinnedReading.channel)
    ).all()
    return PackOverview(
        pack=found[0],
        label=found[1],
        readings=tuple(readings),
        thinned=found[2],
        extremes=tuple(extremes),
    )

"""Our rows as SensorThings entities: where each set comes from, what it may be ordered and filtered by, how it reads.

Mapping: Thing = site, Location = its place, Datastream = (site, property, depth, level), which survives probe swaps, Sensor =
the serial-numbered probe, FeatureOfInterest = the sampled volume (site and depth), Observation = the version that is known, now or as of a moment.

A text that is made up for the feed (a Datastream's name) is made by the database, from where it is shown too: what a page is
ordered by is what a reader sees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Row,
    Select,
    String,
    case,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import Session

from fleet_server.feeds.sensorthings import vocabulary
from fleet_server.feeds.sensorthings.paths import MAX_ID
from fleet_server.models import (
    IN_FORCE,
    AggregateDetail,
    Calibration,
    Channel,
    Datastream,
    Deployment,
    DerivedStream,
    DriftCorrection,
    ExternalImport,
    ExternalValue,
    Lineage,
    Observation,
    ObservationCount,
    Pack,
    RawReading,
    Sensor,
    Site,
    observation_id,
    observation_key,
)
from fleet_server.services import aggregating, bulk, derivations, external_importing, known_then
from hardware import catalogue

OM_MEASUREMENT = "http://www.opengis.net/def/observationType/OGC-OM/2.0/OM_Measurement"
GEO_JSON = "application/geo+json"
_DEPTHS_PER_SITE = 100_000  # FeatureOfInterest id = site · 100,000 + depth in cm
_HIGHEST_DATASTREAM = 1 << 22
_DETAILS_AT_ONCE = 5_000

AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]
Companions = Mapping[str, Any]
"""What a batch of rows needs besides itself, fetched in a fixed number of statements."""


@dataclass(frozen=True)
class Attribute:
    """What `$orderby` and `$filter` may name: its columns in order, and the kind of its values."""

    columns: tuple[Any, ...]
    kind: (
        str  # id, number, text, time or interval (two times; ordered by its begin, then by its end)
    )
    is_nullable: bool = False


@dataclass(frozen=True)
class EntitySet:
    """One set: `source(only_public)` selects its rows, `key` orders them, `represent` writes one as JSON."""

    name: str
    source: Callable[[bool], AnySelect]
    attributes: Mapping[str, Attribute]
    represent: Callable[[AnyRow, Companions], dict[str, Any]]
    companions: Callable[[Session, Sequence[AnyRow]], Companions] = field(
        default=lambda _session, _rows: {}
    )

    @property
    def key(self) -> tuple[Any, ...]:
        return self.attributes["id"].columns

    def id_of(self, row: Any) -> int:
        if self.name == "Observations":
            return observation_id(row.datastream_id, row.sampled_at)
        return int(row.id)

    def has_id(self, entity_id: int) -> Any:
        """The condition for one id; None when no row can have it."""
        if not 0 < entity_id <= MAX_ID:
            return None
        if self.name != "Observations":
            return self.key[0] == literal(entity_id, BigInteger)
        datastream_id, sampled_at = observation_key(entity_id)
        if not 0 < datastream_id < _HIGHEST_DATASTREAM:
            return None
        return (Observation.datastream_id == datastream_id) & (Observation.sampled_at == sampled_at)

    def has_ids(self, ids: Sequence[int]) -> Any:
        if self.name == "Observations":
            return tuple_(*self.key).in_([observation_key(one) for one in ids])
        return self.key[0].in_(ids)


def iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _point(row: Any) -> dict[str, Any]:
    return {"type": "Point", "coordinates": [row.longitude, row.latitude]}


# --- texts, made by the database ---


def _joined(*parts: Any) -> ColumnElement[str]:
    """One text of columns and of our own words."""
    texts = (_word(part) if isinstance(part, str) else part for part in parts)
    return reduce(add, texts)


def _word(text: str) -> ColumnElement[str]:
    # Part of the statement: as a parameter each would count against the databases' limits, once per expanded parent.
    return literal(text, String, literal_execute=True)


def _titled(column: Any, titles: Mapping[str, str], otherwise: Any) -> ColumnElement[str]:
    """The title that belongs to a key in `column`."""
    return case(
        *((column == _word(key), _word(title)) for key, title in titles.items()), else_=otherwise
    )


def _at_depth(depth_cm: Any) -> ColumnElement[str]:
    return case(
        (depth_cm == literal_column("0"), _word("")),
        else_=_joined(" at ", cast(depth_cm, String), " cm depth"),
    )


# --- Things, Locations, HistoricalLocations: all are sites ---

_THING_DESCRIPTION = case(
    (Site.description != _word(""), Site.description),
    else_=_joined("A measured ", Site.kind, "."),
)
_LOCATION_DESCRIPTION = _joined("Where ", Site.name, " is (WGS84).")


def _sites(only_public: bool) -> AnySelect:
    query = select(
        Site.id,
        Site.code,
        Site.name,
        Site.kind,
        Site.latitude,
        Site.longitude,
        Site.created_at,
        _THING_DESCRIPTION.label("thing_description"),
        _LOCATION_DESCRIPTION.label("location_description"),
    )
    return query.where(Site.is_public) if only_public else query


def _thing(row: Any, _: Companions) -> dict[str, Any]:
    return {
        "name": row.name,
        "description": row.thing_description,
        "properties": {"code": row.code, "kind": row.kind},
    }


def _location(row: Any, _: Companions) -> dict[str, Any]:
    return {
        "name": row.name,
        "description": row.location_description,
        "encodingType": GEO_JSON,
        "location": _point(row),
    }


def _historical_location(row: Any, _: Companions) -> dict[str, Any]:
    return {"time": iso(row.created_at)}


# --- Datastreams ---


def _current_sensor() -> ColumnElement[Any]:
    """The probe that feeds a datastream now, or the last one that did; of means the one that feeds what they are made of."""
    return (
        select(Channel.sensor_id)
        .where(Channel.datastream_id == func.coalesce(Datastream.source_id, Datastream.id))
        .order_by(Channel.from_at.desc(), Channel.id.desc())
        .limit(1)
        .correlate(Datastream)
        .scalar_subquery()
    )


def _edge_of_time(edge: Callable[[Any], Any]) -> ColumnElement[Any]:
    return (
        select(edge(Observation.sampled_at))
        .where(Observation.datastream_id == Datastream.id)
        .correlate(Datastream)
        .scalar_subquery()
    )


_FIRST_AT, _LAST_AT = _edge_of_time(func.min), _edge_of_time(func.max)
_PROPERTY_NAME = _titled(
    Datastream.property,
    {known.key: known.name for known in vocabulary.OBSERVED_PROPERTIES},
    func.replace(Datastream.property, _word("_"), _word(" "), type_=String),
)
_MEASURED = _joined(_PROPERTY_NAME, _at_depth(Datastream.depth_cm))
_WHICH_VALUES = _titled(
    Datastream.level,
    {"hourly": "means of hours", "daily": "means of local days", "derived": "derived values"},
    _joined(Datastream.level, " values"),
)
_DATASTREAM_NAME = _joined(
    _MEASURED,
    ", ",
    Site.name,
    _titled(Datastream.level, {"hourly": ", hourly mean", "daily": ", daily mean"}, _word("")),
)
_DATASTREAM_DESCRIPTION = _joined(_MEASURED, " at ", Site.name, ", ", _WHICH_VALUES, ".")


def _datastreams(only_public: bool) -> AnySelect:
    query = select(
        Datastream.id,
        Datastream.site_id,
        Datastream.property,
        Datastream.unit,
        Datastream.depth_cm,
        Datastream.level,
        Datastream.source_id,
        Site.code,
        _DATASTREAM_NAME.label("name"),
        _DATASTREAM_DESCRIPTION.label("description"),
        _current_sensor().label("sensor_id"),
        _FIRST_AT.label("first_at"),
        _LAST_AT.label("last_at"),
    ).join(Site, Site.id == Datastream.site_id)
    return query.where(Site.is_public) if only_public else query


def _datastream_companions(session: Session, rows: Sequence[AnyRow]) -> Companions:
    sensors: dict[int, list[dict[str, Any]]] = defaultdict(list)
    query = (
        select(
            Channel.datastream_id,
            Channel.from_at,
            Channel.to_at,
            Channel.key,
            Sensor.id,
            Sensor.serial,
            Deployment.node_id,
        )
        .join(Sensor, Sensor.id == Channel.sensor_id)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .where(Channel.datastream_id.in_([row.source_id or row.id for row in rows]))
        .order_by(Channel.from_at, Channel.id)
    )
    for row in session.execute(query):
        sensors[row.datastream_id].append(
            {
                "sensorId": row.id,
                "serial": row.serial,
                "nodeId": row.node_id,
                "channel": row.key,
                "from": iso(row.from_at),
                "to": iso(row.to_at) if row.to_at else None,
            }
        )
    derived_ids = [row.id for row in rows if row.level == derivations.LEVEL]
    derived = (
        session.execute(
            select(DerivedStream.datastream_id, DerivedStream.inputs).where(
                DerivedStream.datastream_id.in_(derived_ids)
            )
        ).all()
        if derived_ids
        else []
    )
    return {
        "sensors": sensors,
        "derived": {row.datastream_id: sorted(row.inputs.values()) for row in derived},
    }


def _interval_end(level: str, begin_at: datetime) -> datetime | None:
    """Where the interval of a mean ends; None for a value of one instant."""
    if level not in aggregating.LEVELS:
        return None
    return datetime.fromtimestamp(aggregating.interval_end(level, int(begin_at.timestamp())), UTC)


def _datastream(row: Any, companions: Companions) -> dict[str, Any]:
    entity: dict[str, Any] = {
        "name": row.name,
        "description": row.description,
        "observationType": OM_MEASUREMENT,
        "unitOfMeasurement": vocabulary.unit_of_measurement(row.unit),
        "properties": {
            "property": row.property,
            "depthCm": row.depth_cm,
            "level": row.level,
            "siteCode": row.code,
            "sensors": companions["sensors"][row.source_id or row.id],
        },
    }
    if row.level in aggregating.LEVELS:
        entity["properties"]["meanOf"] = row.source_id
    if row.id in companions["derived"]:
        entity["properties"]["derivedFrom"] = companions["derived"][row.id]
    if row.first_at is not None:
        last_at = _interval_end(row.level, row.last_at) or row.last_at
        entity["phenomenonTime"] = f"{iso(row.first_at)}/{iso(last_at)}"
    return entity


# --- Sensors ---

_SENSOR_TITLE = _titled(
    Sensor.sensor_type,
    {one: catalogue.load_sensor_type(one).title for one in catalogue.sensor_type_ids()},
    Sensor.sensor_type,
)
_SENSOR_DESCRIPTION = _joined(_SENSOR_TITLE, ", serial number ", Sensor.serial)


def _sensors(only_public: bool) -> AnySelect:
    query = select(
        Sensor.id,
        Sensor.serial,
        Sensor.sensor_type,
        _SENSOR_DESCRIPTION.label("description"),
    )
    if not only_public:
        return query
    return query.where(
        Sensor.id.in_(
            select(Channel.sensor_id).where(Channel.datastream_id.in_(_public_datastreams()))
        )
    )


def _sensor_companions(session: Session, rows: Sequence[AnyRow]) -> Companions:
    calibrations: dict[int, list[Calibration]] = defaultdict(list)
    for calibration in session.scalars(
        select(Calibration)
        .where(Calibration.sensor_id.in_([row.id for row in rows]))
        # What held once has made values that were shown; drafts are nobody's business.
        .where(or_(Calibration.status.in_(IN_FORCE), Calibration.approved_at.is_not(None)))
        .order_by(Calibration.property, Calibration.version)
    ):
        calibrations[calibration.sensor_id].append(calibration)
    corrections: dict[int, list[DriftCorrection]] = defaultdict(list)
    for correction in session.scalars(
        select(DriftCorrection)
        .where(DriftCorrection.sensor_id.in_([row.id for row in rows]))
        .where(DriftCorrection.approved_at.is_not(None))
        .order_by(DriftCorrection.property, DriftCorrection.version)
    ):
        corrections[correction.sensor_id].append(correction)
    return {"calibrations": calibrations, "corrections": corrections}


def _sensor(row: Any, companions: Companions) -> dict[str, Any]:
    return {
        "name": row.serial,
        "description": row.description,
        "encodingType": "application/json",
        "metadata": {
            "serial": row.serial,
            "sensorType": row.sensor_type,
            "calibrations": [_calibration(one) for one in companions["calibrations"][row.id]],
            "corrections": [_correction(one) for one in companions["corrections"][row.id]],
        },
    }


def _calibration(row: Calibration) -> dict[str, Any]:
    return {
        "calibrationId": row.id,
        "property": row.property,
        "version": row.version,
        "kind": row.kind,
        "slope": row.slope,
        "offset": row.offset,
        "uAbsolute": row.u_absolute,
        "uRelative": row.u_relative,
        "uDriftAbsolutePerYear": row.u_drift_absolute,
        "uDriftRelativePerYear": row.u_drift_relative,
        "performedAt": iso(row.performed_at) if row.performed_at else None,
        "uSlope": row.u_slope,
        "uOffset": row.u_offset,
        "slopeOffsetCovariance": row.slope_offset_covariance,
        "curve": row.curve,
        "uCurve": row.u_curve,
        "offsetCurveCovariance": row.offset_curve_covariance,
        "slopeCurveCovariance": row.slope_curve_covariance,
        "k": row.coverage_factor,
        "validFrom": iso(row.valid_from),
        "validTo": iso(row.valid_to) if row.valid_to else None,
        "performedBy": row.performed_by,
        "reference": row.reference,
        "certificateSha256": row.certificate_sha256,
        **_standing(row),
    }


def _correction(row: DriftCorrection) -> dict[str, Any]:
    return {
        "correctionId": row.id,
        "property": row.property,
        "version": row.version,
        "from": iso(row.from_at),
        "to": iso(row.to_at),
        "fouling": row.fouling,
        "foulingRelative": row.fouling_relative,
        "lowStandard": row.low_standard,
        "lowReading": row.low_reading,
        "highStandard": row.high_standard,
        "highReading": row.high_reading,
        "rating": row.rating,
        **_standing(row),
    }


def _standing(row: Calibration | DriftCorrection) -> dict[str, Any]:
    """Whether it holds, and between when it did; why it was withdrawn was not written for everybody."""
    return {
        "status": row.status,
        "approvedAt": iso(row.approved_at) if row.approved_at else None,
        "withdrawnAt": iso(row.withdrawn_at) if row.withdrawn_at else None,
    }


# --- ObservedProperties: a fixed vocabulary, joined in as a table of constants ---

_PROPERTIES = union_all(
    *(
        select(
            literal_column(str(known.id), Integer).label("id"),
            _word(known.key).label("key"),
            _word(known.name).label("name"),
            _word(known.description).label("description"),
            _word(known.definition).label("definition"),
        )
        for known in vocabulary.OBSERVED_PROPERTIES
    )
).subquery("observed_property")


def _observed_properties(_only_public: bool) -> AnySelect:
    return select(_PROPERTIES.c.id, _PROPERTIES.c.key)


def _observed_property(row: Any, _: Companions) -> dict[str, Any]:
    known = vocabulary.BY_ID[row.id]
    return {
        "name": known.name,
        "description": known.description,
        "definition": known.definition,
        "properties": {"property": known.key},
    }


# --- FeaturesOfInterest ---

_SAMPLED = (
    select(
        (
            cast(Datastream.site_id, BigInteger) * literal_column(str(_DEPTHS_PER_SITE))
            + Datastream.depth_cm
        ).label("id"),
        Datastream.site_id,
        Datastream.depth_cm,
    )
    .distinct()
    .subquery("sampled_volume")
)
_FEATURE_NAME = _joined(Site.name, _at_depth(_SAMPLED.c.depth_cm))
_FEATURE_DESCRIPTION = _joined(
    "The ",
    _titled(Site.kind, {"tree": "soil"}, Site.kind),
    _at_depth(_SAMPLED.c.depth_cm),
    " that is sampled at ",
    Site.name,
    ".",
)


def _features(only_public: bool) -> AnySelect:
    query = select(
        _SAMPLED.c.id,
        _SAMPLED.c.site_id,
        _SAMPLED.c.depth_cm,
        _FEATURE_NAME.label("name"),
        _FEATURE_DESCRIPTION.label("description"),
        Site.latitude,
        Site.longitude,
    ).join(Site, Site.id == _SAMPLED.c.site_id)
    return query.where(Site.is_public) if only_public else query


def feature_id(site_id: int, depth_cm: int) -> int:
    return site_id * _DEPTHS_PER_SITE + depth_cm


def _feature(row: Any, _: Companions) -> dict[str, Any]:
    return {
        "name": row.name,
        "description": row.description,
        "encodingType": GEO_JSON,
        "feature": _point(row),
        "properties": {"depthCm": row.depth_cm},
    }


# --- Observations ---


def _public_datastreams() -> AnySelect:
    return select(Datastream.id).join(Site, Site.id == Datastream.site_id).where(Site.is_public)


def _observations(only_public: bool) -> AnySelect:
    query = select(
        Observation.datastream_id,
        Observation.sampled_at,
        Observation.value,
        Observation.u,
        Observation.flag,
        Observation.known_from,
        Observation.lineage_id,
        Observation.pack_id,
    )
    if only_public:
        query = query.where(Observation.datastream_id.in_(_public_datastreams()))
    return query


def _observation_companions(session: Session, rows: Sequence[AnyRow]) -> Companions:
    """Streams, lineages, channels, packs with their raw readings, earlier versions; a statement more each for means and for what others gave."""
    stream_ids = {row.datastream_id for row in rows}
    pack_ids = {row.pack_id for row in rows if row.pack_id is not None}
    streams = session.execute(
        select(Datastream.id, Datastream.site_id, Datastream.depth_cm, Datastream.level).where(
            Datastream.id.in_(stream_ids)
        )
    ).all()
    lineages = session.scalars(
        select(Lineage).where(Lineage.id.in_({row.lineage_id for row in rows}))
    )
    channels: dict[tuple[int, str], list[Channel]] = defaultdict(list)
    for channel, node_id in session.execute(
        select(Channel, Deployment.node_id)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .where(Channel.datastream_id.in_(stream_ids))
    ):
        channels[channel.datastream_id, node_id].append(channel)
    packs: dict[int, Any] = {}
    raw: dict[tuple[int, str], Any] = {}
    for row in session.execute(
        select(
            Pack.id,
            Pack.node_id,
            Pack.spool,
            Pack.seq,
            RawReading.channel,
            RawReading.raw_value,
            RawReading.status,
        )
        .join(RawReading, RawReading.pack_id == Pack.id)
        .where(Pack.id.in_(pack_ids))
    ):
        packs[row.id] = row
        raw[row.id, row.channel] = row
    return {
        "streams": {row.id: row for row in streams},
        "lineages": {row.id: row for row in lineages},
        "channels": channels,
        "packs": packs,
        "raw": raw,
        "given": _given(
            session, rows, {row.id for row in streams if row.level == external_importing.LEVEL}
        ),
        "earlier": known_then.earlier_versions(
            session, ((row.datastream_id, row.sampled_at) for row in rows)
        ),
        "details": _details(
            session, rows, {row.id for row in streams if row.level in aggregating.LEVELS}
        ),
    }


def _given(
    session: Session, rows: Sequence[AnyRow], stream_ids: set[int]
) -> Mapping[tuple[int, datetime, int], Any]:
    """What others gave, by datastream, instant and lineage; no statement where there is none of it."""
    keys = [(row.datastream_id, row.sampled_at) for row in rows if row.datastream_id in stream_ids]
    key = tuple_(ExternalValue.datastream_id, ExternalValue.sampled_at)
    found = {}
    for some in bulk.chunks(keys, _DETAILS_AT_ONCE):
        for row in session.execute(
            select(
                ExternalValue,
                Lineage.id,
                ExternalImport.kind,
                ExternalImport.source,
                ExternalImport.method,
                ExternalImport.instrument,
                ExternalImport.report_number,
            )
            .join(ExternalImport, ExternalImport.id == ExternalValue.import_id)
            .join(Lineage, Lineage.import_id == ExternalValue.import_id)
            .where(key.in_(some))
        ):
            found[row[0].datastream_id, row[0].sampled_at, row[1]] = row
    return found


def _details(
    session: Session, rows: Sequence[AnyRow], stream_ids: set[int]
) -> dict[tuple[int, datetime, datetime], AggregateDetail]:
    """What belongs to the versions of means, whichever are shown."""
    keys = [
        (row.datastream_id, row.sampled_at, row.known_from)
        for row in rows
        if row.datastream_id in stream_ids
    ]
    found = {}
    key = tuple_(
        AggregateDetail.datastream_id, AggregateDetail.sampled_at, AggregateDetail.known_from
    )
    for some in bulk.chunks(keys, _DETAILS_AT_ONCE):
        for one in session.scalars(select(AggregateDetail).where(key.in_(some))):
            found[one.datastream_id, one.sampled_at, one.known_from] = one
    return found


def _channel_of(row: Any, companions: Companions) -> Channel | None:
    """The channel that an observation came through: of its pack's node, in force when sampled."""
    pack = companions["packs"].get(row.pack_id)
    if pack is None:
        return None
    for channel in companions["channels"][row.datastream_id, pack.node_id]:
        is_over = channel.to_at is not None and channel.to_at <= row.sampled_at
        if channel.from_at <= row.sampled_at and not is_over:
            found: Channel = channel
            return found
    return None


def _version(row: Any, companions: Companions) -> int:
    """1 for what was known first of this instant, 2 for what replaced it."""
    earlier: Sequence[datetime] = companions["earlier"].get((row.datastream_id, row.sampled_at), ())
    return 1 + len([one for one in earlier if one < row.known_from])


def _observation(row: Any, companions: Companions) -> dict[str, Any]:
    lineage: Lineage = companions["lineages"][row.lineage_id]
    k = lineage.coverage_factor
    level = companions["streams"][row.datastream_id].level
    end_at = _interval_end(level, row.sampled_at)
    return {
        "phenomenonTime": iso(row.sampled_at) + (f"/{iso(end_at)}" if end_at else ""),
        "resultTime": iso(row.known_from),
        "result": row.value,
        "resultQuality": {
            "flag": row.flag,
            "flagName": vocabulary.FLAG_NAMES[row.flag],
            "u": row.u,
            "k": k,
            "U": None if row.u is None else row.u * k,
        },
        "parameters": {
            "qcFlag": row.flag,
            "version": _version(row, companions),
            "calibrationId": lineage.calibration_id,
            "correctionId": int(lineage.correction) if lineage.correction.isdigit() else None,
            "sensorId": lineage.sensor_id,
            "lineageId": lineage.id,
            "conversion": lineage.conversion,
            "inputs": lineage.inputs,
            "pipelineVersion": lineage.pipeline_version,
            **_origin(row, companions),
            **_rests_on(row, companions),
        },
    }


def _rests_on(row: Any, companions: Companions) -> dict[str, Any]:
    """What a mean alone does not say."""
    detail = companions["details"].get((row.datastream_id, row.sampled_at, row.known_from))
    if detail is None:
        return {}
    return {
        "minimum": detail.minimum,
        "maximum": detail.maximum,
        "count": detail.count,
        "completeness": detail.completeness,
    }


def _origin(row: Any, companions: Companions) -> dict[str, Any]:
    """The raw reading and the pack that an observation was made from."""
    pack = companions["packs"].get(row.pack_id)
    if pack is None:
        return _given_origin(
            companions["given"].get((row.datastream_id, row.sampled_at, row.lineage_id))
        )
    origin = {"packId": pack.id, "nodeId": pack.node_id, "spool": pack.spool, "seq": pack.seq}
    channel = _channel_of(row, companions)
    raw = companions["raw"].get((pack.id, channel.key)) if channel else None
    if channel is None or raw is None:
        return origin
    return origin | {
        "channel": channel.key,
        "rawResult": raw.raw_value,
        "rawUnit": channel.raw_unit,
        "rawStatus": raw.status,
    }


def _given_origin(found: Any) -> dict[str, Any]:
    """Where a value comes from that no node measured, and how it stood there."""
    if found is None:
        return {}
    value: ExternalValue = found[0]
    origin = {
        "importId": value.import_id,
        "importKind": found.kind,
        "source": found.source,
        "method": found.method,
        "instrument": found.instrument,
        "reportNumber": found.report_number,
        "row": value.row,
        "given": value.given,
        "givenUnit": value.given_unit,
        "sample": value.sample,
    }
    if value.limit_sign:
        origin |= {"limitSign": value.limit_sign, "limit": value.limit_value}
    return origin


# --- what may be ordered and filtered by ---


def _ids(*columns: Any) -> Attribute:
    return Attribute(columns, "id")


def _text(column: Any) -> Attribute:
    return Attribute((column,), "text")


_SITE_ATTRIBUTES = {
    "id": _ids(Site.id),
    "name": _text(Site.name),
    "description": _text(_THING_DESCRIPTION),
    "properties/code": _text(Site.code),
    "properties/kind": _text(Site.kind),
}
_LOCATION_ATTRIBUTES = {
    "id": _ids(Site.id),
    "name": _text(Site.name),
    "description": _text(_LOCATION_DESCRIPTION),
}
_HISTORICAL_LOCATION_ATTRIBUTES = {
    "id": _ids(Site.id),
    "time": Attribute((Site.created_at,), "time"),
}
_DATASTREAM_ATTRIBUTES = {
    "id": _ids(Datastream.id),
    "name": _text(_DATASTREAM_NAME),
    "description": _text(_DATASTREAM_DESCRIPTION),
    "phenomenonTime": Attribute((_FIRST_AT, _LAST_AT), "interval", is_nullable=True),
    "properties/property": _text(Datastream.property),
    "properties/depthCm": Attribute((Datastream.depth_cm,), "number"),
    "properties/level": _text(Datastream.level),
    "properties/siteCode": _text(Site.code),
    "Thing/id": _ids(Datastream.site_id),
    "Thing/name": _text(Site.name),
    "ObservedProperty/name": _text(_PROPERTY_NAME),
}
_SENSOR_ATTRIBUTES = {
    "id": _ids(Sensor.id),
    "name": _text(Sensor.serial),
    "description": _text(_SENSOR_DESCRIPTION),
    "metadata/sensorType": _text(Sensor.sensor_type),
}
_OBSERVED_PROPERTY_ATTRIBUTES = {
    "id": _ids(_PROPERTIES.c.id),
    "name": _text(_PROPERTIES.c.name),
    "description": _text(_PROPERTIES.c.description),
    "definition": _text(_PROPERTIES.c.definition),
    "properties/property": _text(_PROPERTIES.c.key),
}
_OBSERVATION_ATTRIBUTES = {
    "id": _ids(Observation.datastream_id, Observation.sampled_at),
    "phenomenonTime": Attribute((Observation.sampled_at,), "time"),
    "resultTime": Attribute((Observation.known_from,), "time"),
    "result": Attribute((Observation.value,), "number", is_nullable=True),
    "Datastream/id": _ids(Observation.datastream_id),
}
_FEATURE_ATTRIBUTES = {
    "id": _ids(_SAMPLED.c.id),
    "name": _text(_FEATURE_NAME),
    "description": _text(_FEATURE_DESCRIPTION),
    "properties/depthCm": Attribute((_SAMPLED.c.depth_cm,), "number"),
}

SETS: dict[str, EntitySet] = {
    one.name: one
    for one in (
        EntitySet("Things", _sites, _SITE_ATTRIBUTES, _thing),
        EntitySet("Locations", _sites, _LOCATION_ATTRIBUTES, _location),
        EntitySet(
            "HistoricalLocations", _sites, _HISTORICAL_LOCATION_ATTRIBUTES, _historical_location
        ),
        EntitySet(
            "Datastreams", _datastreams, _DATASTREAM_ATTRIBUTES, _datastream, _datastream_companions
        ),
        EntitySet("Sensors", _sensors, _SENSOR_ATTRIBUTES, _sensor, _sensor_companions),
        EntitySet(
            "ObservedProperties",
            _observed_properties,
            _OBSERVED_PROPERTY_ATTRIBUTES,
            _observed_property,
        ),
        EntitySet(
            "Observations",
            _observations,
            _OBSERVATION_ATTRIBUTES,
            _observation,
            _observation_companions,
        ),
        EntitySet("FeaturesOfInterest", _features, _FEATURE_ATTRIBUTES, _feature),
    )
}


def to_one(set_name: str, navigation: str, row: Any, companions: Companions) -> int | None:
    """The id that a navigation to one entity leads to; None when there is none."""
    match set_name, navigation:
        case "HistoricalLocations", "Thing":
            return int(row.id)
        case "Datastreams", "Thing":
            return int(row.site_id)
        case "Datastreams", "Sensor":
            return None if row.sensor_id is None else int(row.sensor_id)
        case "Datastreams", "ObservedProperty":
            known = vocabulary.BY_KEY.get(row.property)
            return known.id if known else None
        case "Observations", "Datastream":
            return int(row.datastream_id)
        case "Observations", "FeatureOfInterest":
            stream = companions["streams"][row.datastream_id]
            return feature_id(stream.site_id, stream.depth_cm)
    raise AssertionError(f"{set_name}/{navigation} does not lead to one entity")


def to_many(set_name: str, navigation: str, row: Any) -> Any:
    """The condition on the target set that a navigation to many entities stands for."""
    match set_name, navigation:
        case (
            ("Things" | "Locations" | "HistoricalLocations"),
            ("Things" | "Locations" | "HistoricalLocations"),
        ):
            return Site.id == row.id
        case "Things", "Datastreams":
            return Datastream.site_id == row.id
        case "Sensors", "Datastreams":
            return _current_sensor() == row.id
        case "ObservedProperties", "Datastreams":
            return Datastream.property == row.key
        case "Datastreams", "Observations":
            return Observation.datastream_id == row.id
        case "FeaturesOfInterest", "Observations":
            return Observation.datastream_id.in_(_streams_of_feature(row))
    raise AssertionError(f"{set_name}/{navigation} does not lead to many entities")


def _streams_of_feature(row: Any) -> AnySelect:
    return select(Datastream.id).where(
        Datastream.site_id == row.site_id, Datastream.depth_cm == row.depth_cm
    )


def kept_count(set_name: str | None, row: Any, only_public: bool) -> AnySelect:
    """How many observations there are (of one Datastream or FeatureOfInterest), from the counts kept per month."""
    query = select(func.coalesce(func.sum(ObservationCount.count), 0))
    if only_public:
        query = query.where(ObservationCount.datastream_id.in_(_public_datastreams()))
    if set_name == "Datastreams" and row is not None:
        return query.where(ObservationCount.datastream_id == row.id)
    if set_name == "FeaturesOfInterest" and row is not None:
        return query.where(ObservationCount.datastream_id.in_(_streams_of_feature(row)))
    return query

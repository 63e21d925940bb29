"""Check points: what others measured at a site, beside what its probes showed at that instant. Reads only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session, aliased

from fleet_server.errors import Invalid, NotFound
from fleet_server.measurement import check_points as arithmetic
from fleet_server.measurement.trend import Trend
from fleet_server.models import (
    Channel,
    Datastream,
    ExternalImport,
    ExternalValue,
    Lineage,
    Observation,
    Sensor,
    Site,
    observation_id,
    observation_key,
)
from fleet_server.services import bulk, rights
from fleet_server.services.external_importing import LEVEL
from fleet_server.wire.states import QualityFlag

WINDOW = timedelta(hours=1)
LONGEST_WINDOW = timedelta(days=1)
NEWEST = 200
_WINDOWS_AT_ONCE = 100
_HIGHEST_DATASTREAM = 1 << 22
USELESS = (QualityFlag.BAD, QualityFlag.MISSING)
"""Flags of values that nothing is compared with."""


class WindowWrong(Invalid):
    """Values so far apart are not compared."""

    code = "window_wrong"


@dataclass(frozen=True)
class CheckPoint:
    """One value of others, and the probe's at that instant. What cannot be compared has no `measured`, and what nobody is sure of no `en`.

    `difference`: the probe's value less the other. `serial`, `is_corrected`: of the probe's value that lies nearest.
    """

    site_code: str
    observed_property: str
    depth_cm: int
    unit: str
    at: datetime
    observation_id: int
    import_id: int
    source: str
    given: float | None
    given_u: float | None
    given_flag: int
    limit_sign: str
    limit_value: float | None
    measured: arithmetic.Beside | None = None
    serial: str | None = None
    is_corrected: bool = False

    @property
    def difference(self) -> float | None:
        if self.measured is None or self.given is None:
            return None
        return self.measured.value - self.given

    @property
    def difference_u(self) -> float | None:
        """None: how sure one of the two is nobody said."""
        if self.measured is None or self.given_u is None or not math.isfinite(self.measured.u):
            return None
        return math.hypot(self.measured.u, self.given_u)

    @property
    def en(self) -> float | None:
        difference, u = self.difference, self.difference_u
        if difference is None or not u or self.measured is None or self.given_u is None:
            return None
        return arithmetic.normalized_error(difference, self.measured.u, self.given_u)

    @property
    def agrees(self) -> bool | None:
        return None if self.en is None else abs(self.en) <= 1.0


@dataclass(frozen=True)
class ProbeTrend:
    """How one probe's differences to others' values go with time, in the unit per day; from three check points on."""

    serial: str
    observed_property: str
    depth_cm: int
    unit: str
    count: int
    trend: Trend | None


def check_points(
    session: Session,
    *,
    site_code: str | None = None,
    serial: str | None = None,
    window: timedelta = WINDOW,
) -> list[CheckPoint]:
    """The newest two hundred values of others that have a probe beside them, newest first.

    Args:
        serial: only those beside values of this probe.

    Raises:
        WindowWrong: the window is none, or longer than a day.
    """
    if not timedelta(0) <= window <= LONGEST_WINDOW:
        raise WindowWrong("Values are compared that lie at most a day apart.")
    rows = session.execute(_others(session, site_code, serial)).all()
    around = _around(session, rows, int(window.total_seconds()))
    found = [_point(row, around.get(row.calibrated_id, []), window) for row in rows]
    return [one for one in found if serial is None or one.serial == serial]


def check_point_of(session: Session, public_id: int) -> CheckPoint:
    """The one of this observation of others, by its public id. Raises NotFound."""
    datastream_id, sampled_at = observation_key(public_id)
    row = None
    if 0 < datastream_id < _HIGHEST_DATASTREAM:
        query = _others(session, None, None).where(
            Datastream.id == datastream_id, Observation.sampled_at == sampled_at
        )
        row = session.execute(query).first()
    if row is None:
        raise NotFound("There is no check point %(public_id)s.", public_id=public_id)
    around = _around(session, [row], int(WINDOW.total_seconds()))
    return _point(row, around.get(row.calibrated_id, []), WINDOW)


def trends(points: Iterable[CheckPoint]) -> list[ProbeTrend]:
    """Of each probe and property among these."""
    groups: dict[tuple[str, str, int, str], list[CheckPoint]] = defaultdict(list)
    for one in points:
        if one.serial is not None and one.difference is not None and one.given_flag not in USELESS:
            groups[one.serial, one.observed_property, one.depth_cm, one.unit].append(one)
    found = []
    for (serial, name, depth_cm, unit), some in sorted(groups.items()):
        some.sort(key=lambda one: one.at)
        times_s = [int(one.at.timestamp()) for one in some]
        trend = arithmetic.difference_trend(times_s, [one.difference or 0.0 for one in some])
        found.append(ProbeTrend(serial, name, depth_cm, unit, len(some), trend))
    return found


def _others(session: Session, site_code: str | None, serial: str | None) -> Any:
    calibrated = aliased(Datastream)
    query = (
        select(
            Site.code,
            Datastream.property,
            Datastream.depth_cm,
            Datastream.unit,
            Datastream.id.label("external_id"),
            calibrated.id.label("calibrated_id"),
            Observation.sampled_at,
            Observation.value,
            Observation.u,
            Observation.flag,
            ExternalValue.limit_sign,
            ExternalValue.limit_value,
            ExternalValue.import_id,
            ExternalImport.source,
        )
        .join(Site, Site.id == Datastream.site_id)
        .join(
            calibrated,
            (calibrated.site_id == Datastream.site_id)
            & (calibrated.property == Datastream.property)
            & (calibrated.depth_cm == Datastream.depth_cm)
            & (calibrated.level == "calibrated"),
        )
        .join(Observation, Observation.datastream_id == Datastream.id)
        .join(Lineage, Lineage.id == Observation.lineage_id)
        .join(ExternalImport, ExternalImport.id == Lineage.import_id)
        .join(
            ExternalValue,
            (ExternalValue.datastream_id == Observation.datastream_id)
            & (ExternalValue.sampled_at == Observation.sampled_at)
            & (ExternalValue.import_id == Lineage.import_id),
        )
        .where(Datastream.level == LEVEL, Site.kind.in_(rights.actor_of(session).site_kinds))
        .order_by(Observation.sampled_at.desc(), Datastream.id)
        .limit(NEWEST)
    )
    if site_code is not None:
        query = query.where(Site.code == site_code)
    if serial is not None:
        query = query.where(_fed_by(calibrated.id, serial))
    return query


def _fed_by(datastream_id: Any, serial: str) -> ColumnElement[bool]:
    return (
        select(Channel.id)
        .join(Sensor, Sensor.id == Channel.sensor_id)
        .where(Channel.datastream_id == datastream_id, Sensor.serial == serial)
        .exists()
    )


def _around(session: Session, rows: Sequence[Any], window_s: int) -> Mapping[int, list[Any]]:
    """The probes' usable values around these instants, by datastream and time."""
    reach = timedelta(seconds=window_s)
    found: dict[int, dict[datetime, Any]] = defaultdict(dict)
    for some in bulk.chunks(rows, _WINDOWS_AT_ONCE):
        near = or_(
            *(
                (Observation.datastream_id == row.calibrated_id)
                & Observation.sampled_at.between(row.sampled_at - reach, row.sampled_at + reach)
                for row in some
            )
        )
        for one in session.execute(
            select(
                Observation.datastream_id,
                Observation.sampled_at,
                Observation.value,
                Observation.u,
                Lineage.correction,
                Sensor.serial,
            )
            .join(Lineage, Lineage.id == Observation.lineage_id)
            .join(Sensor, Sensor.id == Lineage.sensor_id)
            .where(near, Observation.value.is_not(None), Observation.flag.not_in(USELESS))
        ):
            found[one.datastream_id][one.sampled_at] = one
    return {stream: [values[at] for at in sorted(values)] for stream, values in found.items()}


def _point(row: Any, around: Sequence[Any], window: timedelta) -> CheckPoint:
    at_s = int(row.sampled_at.timestamp())
    measured = arithmetic.beside(
        [int(one.sampled_at.timestamp()) for one in around],
        [one.value for one in around],
        [math.nan if one.u is None else one.u for one in around],
        at_s=at_s,
        window_s=int(window.total_seconds()),
    )
    nearest = None
    if measured is not None:
        nearest = min(
            around, key=lambda one: abs((one.sampled_at - row.sampled_at).total_seconds())
        )
    return CheckPoint(
        site_code=row.code,
        observed_property=row.property,
        depth_cm=row.depth_cm,
        unit=row.unit,
        at=row.sampled_at,
        observation_id=observation_id(row.external_id, row.sampled_at),
        import_id=row.import_id,
        source=row.source,
        given=row.value,
        given_u=row.u,
        given_flag=row.flag,
        limit_sign=row.limit_sign,
        limit_value=row.limit_value,
        measured=measured,
        serial=None if nearest is None else nearest.serial,
        is_corrected=nearest is not None and bool(nearest.correction),
    )

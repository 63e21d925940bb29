"""Lists of calibrations, and of probes with when they have to be calibrated again. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import (
    IN_FORCE,
    Calibration,
    CalibrationKind,
    CalibrationStatus,
    Channel,
    Deployment,
    Node,
    Sensor,
    Site,
)
from fleet_server.services import keyset
from fleet_server.services.calibrating import in_scope
from hardware import catalogue

_NEWEST_FIRST = keyset.Sorting((Calibration.id,), (int,), is_descending=True)  # type: ignore[arg-type] # columns of a class
_BY_SERIAL = keyset.Sorting((Sensor.serial,), (str,))  # type: ignore[arg-type] # a column of a class


@dataclass(frozen=True)
class CalibrationLine:
    """One calibration as lists show it."""

    calibration: Calibration
    serial: str
    sensor_type: str


@dataclass(frozen=True)
class CalibrationFilter:
    """Which calibrations; by default all but the maker's."""

    status: CalibrationStatus | None = None
    serial: str | None = None
    property: str | None = None
    with_factory: bool = False


@dataclass(frozen=True)
class ProbeLine:
    """A probe with where it is (None: nowhere), since when its interval runs, and when what time adds to u is more than may stay (None: never).

    `calibrated_at`: when the last calibration of any of its properties was performed; None: never, then `since` is when it became known.
    """

    sensor: Sensor
    calibrated_at: datetime | None
    since: datetime
    every_days: int
    drift_due_at: datetime | None
    node_id: str | None
    node_label: str | None
    site_id: int | None
    site_name: str | None

    @property
    def due_at(self) -> datetime:
        by_interval = self.since + timedelta(days=self.every_days)
        return min(by_interval, self.drift_due_at or by_interval)

    @property
    def is_due_by_drift(self) -> bool:
        """Whether it is what time adds to u that makes it due, and not the interval of its type."""
        return self.drift_due_at is not None and self.due_at == self.drift_due_at

    def is_due(self, now: datetime) -> bool:
        return self.due_at <= now


def calibration_page(
    session: Session,
    wanted: CalibrationFilter,
    *,
    limit: int,
    after: keyset.Key | None = None,
) -> keyset.Page[CalibrationLine]:
    """Calibrations that are the actor's business, newest first. One statement."""
    conditions = [*in_scope(session), *_conditions(wanted)]
    query = (
        select(Calibration, Sensor.serial, Sensor.sensor_type)
        .join(Sensor, Sensor.id == Calibration.sensor_id)
        .where(*conditions)
    )
    return keyset.page_of(
        session,
        query,
        _NEWEST_FIRST,
        limit=limit,
        after=after,
        made=lambda row: CalibrationLine(row[0], row[1], row[2]),
    )


def _conditions(wanted: CalibrationFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.status is not None:
        yield Calibration.status == wanted.status
    if wanted.serial is not None:
        yield Sensor.serial == wanted.serial
    if wanted.property is not None:
        yield Calibration.property == wanted.property
    if not wanted.with_factory:
        yield Calibration.kind != CalibrationKind.FACTORY


def probe_page(
    session: Session,
    *,
    now: datetime,
    limit: int,
    after: keyset.Key | None = None,
    is_due: bool = False,
    sensor_type: str | None = None,
    text: str = "",
) -> keyset.Page[ProbeLine]:
    """Probes by serial number, with when each has to be calibrated again. One statement.

    Args:
        is_due: only those whose time has come.
        text: part of the serial number, or of the label of the node that they are at.
    """
    since, calibrated = _since()
    query = _probes(since, calibrated).where(*in_scope(session))
    if is_due:
        query = query.where(_is_due(since, now))
    if sensor_type is not None:
        query = query.where(Sensor.sensor_type == sensor_type)
    if text:
        query = query.where(
            or_(
                Sensor.serial.icontains(text, autoescape=True),
                Node.label.icontains(text, autoescape=True),
            )
        )
    return keyset.page_of(session, query, _BY_SERIAL, limit=limit, after=after, made=_probe)


def due_count(session: Session, *, now: datetime) -> int:
    """How many probes have to be calibrated by now. One statement."""
    since, calibrated = _since()
    query = _probes(since, calibrated).where(*in_scope(session), _is_due(since, now))
    return session.scalar(select(func.count()).select_from(query.subquery())) or 0


def probe_of(session: Session, serial: str) -> ProbeLine:
    """One probe that is the actor's business. Raises NotFound."""
    since, calibrated = _since()
    query = _probes(since, calibrated).where(Sensor.serial == serial, *in_scope(session))
    row = session.execute(query).first()
    if row is None:
        raise NotFound("There is no sensor %(serial)s.", serial=serial)
    return _probe(row)


def _since() -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """Since when a probe's calibration counts, and when it was calibrated last."""
    calibrated = (
        # However far back it was made to hold: the probe was in its standards when it was performed.
        select(
            func.max(
                func.coalesce(
                    Calibration.performed_at,
                    Calibration.valid_from,
                    type_=Calibration.valid_from.type,
                )
            )
        )
        .where(
            Calibration.sensor_id == Sensor.id,
            Calibration.status.in_(IN_FORCE),
            Calibration.kind != CalibrationKind.FACTORY,
        )
        .correlate(Sensor)
        .scalar_subquery()
    )
    return func.coalesce(calibrated, Sensor.created_at, type_=Sensor.created_at.type), calibrated


def _drift_due() -> ColumnElement[Any]:
    """When the first of a probe's calibrations that hold now has become too unsure by time."""
    return (
        select(func.min(Calibration.drift_due_at, type_=Calibration.drift_due_at.type))
        .where(
            Calibration.sensor_id == Sensor.id,
            Calibration.status == CalibrationStatus.APPROVED,
        )
        .correlate(Sensor)
        .scalar_subquery()
    )


def _probes(since: ColumnElement[Any], calibrated: ColumnElement[Any]) -> Any:
    """Each probe once, with the node and site where it is now."""
    place = (
        select(func.max(Channel.deployment_id))
        .where(Channel.sensor_id == Sensor.id, Channel.to_at.is_(None))
        .correlate(Sensor)
        .scalar_subquery()
    )
    return (
        select(
            Sensor,
            calibrated.label("calibrated_at"),
            since.label("since"),
            _drift_due().label("drift_due_at"),
            Node.node_id,
            Node.label,
            Site.id.label("site_id"),
            Site.name.label("site_name"),
        )
        .select_from(Sensor)
        .outerjoin(Deployment, Deployment.id == place)
        .outerjoin(Node, Node.node_id == Deployment.node_id)
        .outerjoin(Site, Site.id == Deployment.site_id)
    )


def _probe(row: Any) -> ProbeLine:
    sensor, calibrated_at, since, drift_due_at, node_id, label, site_id, site_name = row[:8]
    every_days = catalogue.load_sensor_type(sensor.sensor_type).calibration.every_days
    return ProbeLine(
        sensor, calibrated_at, since, every_days, drift_due_at, node_id, label, site_id, site_name
    )


def _is_due(since: ColumnElement[Any], now: datetime) -> ColumnElement[bool]:
    """Every type has its own interval; what time adds may be too much before."""
    intervals = {
        name: now - timedelta(days=catalogue.load_sensor_type(name).calibration.every_days)
        for name in catalogue.sensor_type_ids()
    }
    return or_(
        _drift_due() <= now,
        *(and_(Sensor.sensor_type == name, since <= limit) for name, limit in intervals.items()),
    )

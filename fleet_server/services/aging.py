"""How much surer a probe was when it was calibrated: what a year adds to u, and from when on that is more than may stay.

What it adds is the word of who writes the calibration. `suggested` is what stands there when nobody says anything: what this very probe was
found to be off by at earlier visits, or, as long as these say too little, what is taken of its property.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from fleet_server.measurement import drift
from fleet_server.measurement.calibration import SECONDS_PER_YEAR
from fleet_server.measurement.drift import Growth
from fleet_server.models import (
    IN_FORCE,
    Calibration,
    CalibrationKind,
    CalibrationPoint,
    PointStage,
)
from fleet_server.services import observing

_LONGEST_YEARS = 50.0  # beyond it nobody waits for a date


@dataclass(frozen=True)
class Suggestion:
    """What a year adds. `visits`: at how many the probe's own past says so; 0: it is what is taken of its property."""

    growth: Growth
    visits: int


def suggested(
    session: Session, sensor_id: int, observed_property: str, *, before: datetime
) -> Suggestion:
    """What a year adds to this probe's u, by what was known before a time. One statement."""
    found = _visits(session, sensor_id, observed_property, before)
    growth = drift.growth_of_visits([error for error, _ in found], [years for _, years in found])
    if growth is not None:
        return Suggestion(growth, len(found))
    return Suggestion(drift.YEARLY_GROWTH.get(observed_property, drift.NO_GROWTH), 0)


def growth_of(calibration: Calibration) -> Growth:
    """What a year adds by this calibration."""
    return Growth(calibration.u_drift_absolute, calibration.u_drift_relative)


def due_at(calibration: Calibration, references: Sequence[float]) -> datetime | None:
    """When what time adds becomes more than may stay, at the highest of its standards; None: never, or in no time that matters."""
    value = max((abs(one) for one in references), default=0.0)
    years = drift.years_until_due(calibration.property, growth_of(calibration), value)
    if years is None or years > _LONGEST_YEARS:
        return None
    return observing.drifts_since(calibration) + timedelta(seconds=int(years * SECONDS_PER_YEAR))


def _visits(
    session: Session, sensor_id: int, observed_property: str, before: datetime
) -> list[tuple[float, float]]:
    """By visit: what the probe was off by in its standards before anything was changed (the largest), and years since the calibration then."""
    then = aliased(Calibration)
    rows = session.execute(
        select(Calibration.id, then, CalibrationPoint)
        .join(then, then.id == Calibration.previous_id)
        .join(CalibrationPoint, CalibrationPoint.calibration_id == Calibration.id)
        .where(
            Calibration.sensor_id == sensor_id,
            Calibration.property == observed_property,
            Calibration.status.in_(IN_FORCE),
            then.kind != CalibrationKind.FACTORY,  # its error is not what time did
            CalibrationPoint.stage == PointStage.AS_FOUND,
            CalibrationPoint.taken_at < before,
        )
        .order_by(Calibration.id, CalibrationPoint.id)
    )
    found: dict[int, tuple[float, float]] = {}
    for calibration_id, checked, point in rows:
        since = point.taken_at - observing.drifts_since(checked)
        years = since.total_seconds() / SECONDS_PER_YEAR
        if years <= 0.0:
            continue
        error = point.reference - _value_of(checked, point.indicated)
        known = found.get(calibration_id, (0.0, years))
        found[calibration_id] = max(known, (error, years), key=lambda one: abs(one[0]))
    return list(found.values())


def _value_of(calibration: Calibration, x: float) -> float:
    return calibration.offset + x * (calibration.slope + x * calibration.curve)

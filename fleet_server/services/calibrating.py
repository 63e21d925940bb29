"""Calibrations as records: a draft with its points and fit, its approval by another person, its withdrawal.

A draft makes no observation, whatever its numbers; points that somebody took are kept even when their fit cannot be trusted, and then it is
not approved. Of all approved versions of a sensor's property the newest that is valid at an instant makes the observation; no two begin at
one time, and a later one takes over from the one before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused, Said, Unavailable
from fleet_server.measurement.budget import own_after_calibration
from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.measurement.drift import Growth
from fleet_server.models import (
    IN_FORCE,
    Calibration,
    CalibrationKind,
    CalibrationPoint,
    CalibrationStatus,
    Channel,
    Deployment,
    DriftCorrection,
    Node,
    ObservedRange,
    PointStage,
    Sensor,
    Standard,
)
from fleet_server.services import (
    aging,
    auditing,
    certifying,
    fitting,
    observing,
    revising,
    rights,
    settling,
    standards,
)
from fleet_server.services.fitting import Fault, FitPoint
from fleet_server.services.settling import Verdict
from hardware import catalogue
from hardware.catalogue import Quantity

_MOST_POINTS = 60
_LONGEST_TEXT = 500
_LONGEST_NAME = 120
_LONGEST_STEP = 40
_MOST_CIRCUMSTANCES = 20
_LARGEST = 1e9
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2199, 12, 31, tzinfo=UTC)
PRESSURE = "pressure_hpa"
"""The circumstance that says what air-saturated water is worth."""
REVISION_REASON = "calibration {} of {} was {}"
"""Why a revision was ordered: the calibration's number, its probe's serial number, `approved` or `withdrawn`."""


class CalibrationWrong(Invalid):
    """A calibration or one of its points cannot be like this."""

    code = "calibration_wrong"


class CalibrationElsewhere(Conflict):
    """The calibration is not in the state in which this can be done."""

    code = "calibration_elsewhere"


class CalibrationChanged(Conflict):
    """It is not what was looked at any more."""

    code = "calibration_changed"


class FitRefused(Refused):
    """The fit cannot be trusted."""

    code = "fit_refused"


class TwoForOneTime(Conflict):
    """Another approved calibration is for the same time."""

    code = "two_for_one_time"


class NoOverlap(Conflict):
    """The time that it is valid for meets neither the calibration before nor the probe's work."""

    code = "no_overlap"


class ExtremesThere(Conflict):
    """Of some of the time that it is valid for there are only extremes, which cannot be corrected."""

    code = "extremes_there"


class CertificateChanged(Unavailable):
    """A certificate's hash is not the one that was approved."""

    code = "certificate_changed"


class FourEyes(Refused):
    """A calibration is approved by somebody who had no hand in it."""

    code = "four_eyes"


@dataclass(frozen=True)
class NewPoint:
    """The probe in a standard. What that is worth is `reference` with `u_reference`, or follows from `standard_id`.

    `step` names it within its stage; empty: it is counted.
    """

    indicated: float
    reference: float | None = None
    u_reference: float | None = None
    standard_id: int | None = None
    temperature_c: float | None = None
    u_indicated: float = 0.0
    stage: PointStage = PointStage.FIT
    step: str = ""
    taken_at: datetime | None = None
    note: str = ""
    steadiness: Mapping[str, float | str] | None = None


@dataclass(frozen=True)
class NewCalibration:
    """A draft. `u_absolute` and `u_relative`: the probe's own uncertainty beside the fit; None: what is usual after a
    calibration, and no more than its maker says.

    `u_drift_absolute` and `u_drift_relative`: what a year adds to it; None for both: as `aging` suggests.

    `environment`: what else was so (temperature, pressure), names → number or text. `valid_from` None: when it was performed.
    """

    serial: str
    property: str
    kind: CalibrationKind
    performed_by: str
    performed_at: datetime
    points: Sequence[NewPoint] = ()
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    environment: Mapping[str, float | str] = field(default_factory=dict)
    u_absolute: float | None = None
    u_relative: float | None = None
    reference: str = ""
    procedure: str = ""
    u_drift_absolute: float | None = None
    u_drift_relative: float | None = None


@dataclass(frozen=True)
class CalibrationRecord:
    """A calibration with its probe and its points, in the order in which they were taken."""

    calibration: Calibration
    sensor: Sensor
    points: Sequence[CalibrationPoint]
    standards: Mapping[int, Standard]
    previous: Calibration | None
    corrections: Sequence[DriftCorrection] = ()
    """Drift corrections that hold within its time: what becomes of them is said when it is approved or withdrawn."""

    @property
    def sha256(self) -> str:
        """Of all that an approval is about."""
        return certifying.digest(self.content())

    def content(self) -> dict[str, Any]:
        """All that an approval is about, as JSON."""
        return certifying.content(
            self.calibration, self.sensor, self.points, self.standards, self.previous
        )

    @property
    def faults(self) -> list[Fault]:
        """Why its fit cannot be trusted; empty for a good one."""
        told = (self.calibration.fit or {}).get("faults", [])
        return [Fault(one["code"], one["numbers"]) for one in told]


# ------------------------------------------------------------------------------------------------------------- drafts


def draft_calibration(session: Session, new: NewCalibration, *, now: datetime) -> CalibrationRecord:
    """A draft with what points there are, fitted. Committed on return.

    Raises:
        NotFound: no such probe or standard.
        CalibrationWrong: it cannot be like this.
        StandardExpired, StandardWrong: as `standards` has them.
    """
    with db.writing(session):
        sensor = held_sensor(session, new.serial)
        accuracy = delivered(sensor, new.property).accuracy
        _check_new(new, now)
        author = rights.actor_of(session).name
        growth = _growth(session, sensor, new)
        own = own_after_calibration(
            new.property,
            accuracy.absolute,
            accuracy.relative,
            has_slope=new.kind != CalibrationKind.OFFSET,
        )
        draft = Calibration(
            sensor_id=sensor.id,
            property=new.property,
            version=_newest_version(session, sensor.id, new.property) + 1,
            status=CalibrationStatus.DRAFT,
            kind=new.kind,
            slope=1.0,
            offset=0.0,
            u_absolute=own[0] if new.u_absolute is None else new.u_absolute,
            u_relative=own[1] if new.u_relative is None else new.u_relative,
            u_drift_absolute=growth.absolute,
            u_drift_relative=growth.relative,
            valid_from=new.valid_from or new.performed_at,
            valid_to=new.valid_to,
            performed_by=new.performed_by.strip(),
            performed_at=new.performed_at,
            procedure=new.procedure,
            reference=new.reference.strip(),
            environment=dict(new.environment),
            previous_id=_in_force_at(session, sensor.id, new.property, new.performed_at),
            author=author,
            edited_by=author,
            created_at=now,
        )
        session.add(draft)
        session.flush()
        for point in new.points:
            _put(session, draft, point, now=now)
        _fit_anew(session, draft)
        _note(session, "calibration_drafted", draft, sensor, now=now)
    return record_of(session, draft.id)


def put_point(
    session: Session, calibration_id: int, point: NewPoint, *, now: datetime
) -> CalibrationRecord:
    """Add a point to a draft, or put it in the place of the one with its step; fitted anew. Committed on return. Safe to repeat.

    Raises:
        NotFound, CalibrationElsewhere: no such draft.
        CalibrationWrong, StandardExpired, StandardWrong: the point cannot be like this.
    """
    with db.writing(session):
        draft, sensor = _held(session, calibration_id)
        _put(session, draft, point, now=now)
        _edited(session, draft, sensor, now=now)
    return record_of(session, calibration_id)


def drop_point(
    session: Session, calibration_id: int, *, step: str, stage: PointStage, now: datetime
) -> CalibrationRecord:
    """Take a point out of a draft. Committed on return. Raises NotFound, CalibrationElsewhere."""
    with db.writing(session):
        draft, sensor = _held(session, calibration_id)
        found = _point(session, calibration_id, stage, step)
        if found is None:
            raise NotFound("There is no point %(step)s.", step=step)
        session.delete(found)
        _edited(session, draft, sensor, now=now)
    return record_of(session, calibration_id)


def change_draft(
    session: Session, calibration_id: int, changes: Mapping[str, Any], *, now: datetime
) -> CalibrationRecord:
    """Change what is known of a draft beside its points; fitted anew. Committed on return.

    Args:
        changes: of `NewCalibration`: kind, valid_from, valid_to, performed_by, performed_at, environment, u_absolute, u_relative,
            u_drift_absolute, u_drift_relative, reference.
    """
    with db.writing(session):
        draft, sensor = _held(session, calibration_id)
        if "u_absolute" in changes:
            draft.fit = None  # which remembers the one before
        for name, value in changes.items():
            setattr(draft, name, value)
        as_new = NewCalibration(
            serial=sensor.serial,
            property=draft.property,
            kind=CalibrationKind(draft.kind),
            performed_by=draft.performed_by,
            performed_at=draft.performed_at or now,
            valid_from=draft.valid_from,
            valid_to=draft.valid_to,
            environment=draft.environment,
            u_absolute=draft.u_absolute,
            u_relative=draft.u_relative,
            u_drift_absolute=draft.u_drift_absolute,
            u_drift_relative=draft.u_drift_relative,
            reference=draft.reference,
        )
        _check_new(as_new, now)
        _edited(session, draft, sensor, now=now)
    return record_of(session, calibration_id)


def refit(session: Session, calibration_id: int, *, now: datetime) -> CalibrationRecord:
    """Fit a draft anew, and refuse when it cannot be trusted: its points stay. Committed on return.

    Raises:
        NotFound, CalibrationElsewhere: no such draft.
        FitRefused: with the reason.
    """
    with db.writing(session):
        draft, _ = _held(session, calibration_id)
        _fit_anew(session, draft)
    found = record_of(session, calibration_id)
    refuse_untrusted(found)
    return found


# ------------------------------------------------------------------------------------------------- approval and its end


def approve_calibration(
    session: Session,
    calibration_id: int,
    *,
    now: datetime,
    looked_at: str | None = None,
    valid_from: datetime | None = None,
    corrections: Mapping[int, Verdict] | None = None,
) -> CalibrationRecord:
    """A draft holds from `valid_from` on (by default as it says); what was observed since is made anew. Committed on return.

    Args:
        looked_at: `sha256` of the record that the approver saw; it must still be so.
        corrections: what becomes of each drift correction that holds within its time.

    Raises:
        NotFound, CalibrationElsewhere: no such draft.
        CorrectionsHold, NotHeld: as `settling.settle` has them.
        CalibrationChanged: it is another by now.
        FourEyes: the approver had a hand in it.
        FitRefused: there is no fit that can be trusted.
        TwoForOneTime: another one is approved for that time.
        NoOverlap: there is time between it and the one before, or it is valid for none that the probe worked.
        ExtremesThere: of a day of that time the node kept only extremes.
    """
    with db.writing(session):
        draft, sensor = _held(session, calibration_id)
        found = _record(session, draft, sensor)
        refuse_changed(found, looked_at)
        actor = rights.actor_of(session).name
        _refuse_own(actor, found)
        refuse_untrusted(found)
        draft.valid_from = valid_from or draft.valid_from
        check_times(draft.valid_from, draft.valid_to)
        others = _in_force(session, draft)
        _refuse_two_for_one_time(draft, others)
        _refuse_no_overlap(session, draft, others, now=now)
        draft.version = max([draft.version, *(one.version + 1 for one in others)])
        draft.previous_id = _in_force_at(session, sensor.id, draft.property, draft.valid_from)
        draft.status = CalibrationStatus.APPROVED
        draft.approved_by, draft.approved_at = actor, now
        session.flush()
        _restate([*others, draft])
        session.flush()
        settled = settling.settle(
            session, draft, sensor, corrections or {}, what="approved", now=now
        )
        _settle_readings(session, draft, sensor, what="approved", now=now)
        approved = _record(session, draft, sensor)
        draft.certificate = approved.content()
        draft.certificate_sha256 = certifying.digest(draft.certificate)
        _note(session, "calibration_approved", draft, sensor, now=now, sha256=draft.certificate_sha256, **settled)  # fmt: skip
    return record_of(session, calibration_id)


def withdraw_calibration(
    session: Session,
    calibration_id: int,
    *,
    reason: str,
    now: datetime,
    corrections: Mapping[int, Verdict] | None = None,
) -> CalibrationRecord:
    """It was a mistake, or a draft came to nothing; the record stays, what was observed with it is made anew. Committed on return.

    Args:
        corrections: what becomes of each drift correction that holds within its time, unless it is a draft.

    Raises:
        CorrectionsHold, NotHeld: as `settling.settle` has them.
        NotFound: no such calibration.
        CalibrationWrong: no reason is given.
        CalibrationElsewhere: it is withdrawn already, or it is the maker's.
        ExtremesThere: of a day of its time the node kept only extremes.
    """
    reason = _text(reason, Said("Reason"), least=1)
    with db.writing(session):
        calibration, sensor = _held(session, calibration_id, CalibrationStatus.DRAFT, *IN_FORCE)
        if calibration.kind == CalibrationKind.FACTORY:
            raise CalibrationElsewhere(
                "The maker's calibration cannot be withdrawn; approve one of your own."
            )
        was_in_force = calibration.status in IN_FORCE
        calibration.status = CalibrationStatus.WITHDRAWN
        calibration.withdrawn_by = rights.actor_of(session).name
        calibration.withdrawn_at, calibration.withdrawn_reason = now, reason
        session.flush()
        _restate(_in_force(session, calibration))
        session.flush()
        settled = {}
        if was_in_force:
            settled = settling.settle(
                session, calibration, sensor, corrections or {}, what="withdrawn", now=now
            )
            _settle_readings(session, calibration, sensor, what="withdrawn", now=now)
        _note(session, "calibration_withdrawn", calibration, sensor, now=now, reason=reason, **settled)  # fmt: skip
    return record_of(session, calibration_id)


def record_of(session: Session, calibration_id: int) -> CalibrationRecord:
    """One calibration that is the actor's business. Raises NotFound."""
    calibration = session.get(Calibration, calibration_id)
    if calibration is None:
        raise _unknown(calibration_id)
    sensor = session.get_one(Sensor, calibration.sensor_id)
    if not is_in_scope(session, sensor.id):
        raise _unknown(calibration_id)
    return _record(session, calibration, sensor)


def certificate_of(session: Session, calibration_id: int) -> tuple[Mapping[str, Any], str]:
    """What was approved, as it was then, and its hash.

    Raises:
        NotFound: no such calibration.
        CalibrationElsewhere: nobody approved it with us: a draft, or the maker's.
        CertificateChanged: it is not what was approved.
    """
    found = record_of(session, calibration_id).calibration
    if found.certificate is None or found.certificate_sha256 is None:
        raise CalibrationElsewhere(
            "Calibration %(calibration_id)s has no certificate: it is a draft, or the maker's.",
            calibration_id=calibration_id,
        )
    if certifying.digest(found.certificate) != found.certificate_sha256:
        raise CertificateChanged(
            "The certificate of calibration %(calibration_id)s is not what was approved: somebody changed it in the database. Compare it with the audit log and a backup.",
            calibration_id=calibration_id,
        )
    return found.certificate, found.certificate_sha256


# -------------------------------------------------------------------------------------------------------------- scope


def in_scope(session: Session) -> list[ColumnElement[bool]]:
    """Conditions for probes that the actor has to do with: at a node of the own kind now or once, or fit for one and never mounted."""
    models = rights.node_models(session)
    if models is None:
        return []
    mounted = select(Channel.id).where(Channel.sensor_id == Sensor.id).correlate(Sensor)
    own = (
        mounted.join(Deployment, Deployment.id == Channel.deployment_id)
        .join(Node, Node.node_id == Deployment.node_id)
        .where(Node.model.in_(models))
    )
    slots = (slot for model in models for slot in catalogue.load_node_model(model).slots)
    types = sorted({slot.sensor_type for slot in slots})
    return [or_(own.exists(), and_(~mounted.exists(), Sensor.sensor_type.in_(types)))]


def is_in_scope(session: Session, sensor_id: int) -> bool:
    """Whether the actor has to do with this probe."""
    return session.scalar(select(Sensor.id).where(Sensor.id == sensor_id, *in_scope(session))) is not None  # fmt: skip


def known_sensor(session: Session, serial: str) -> Sensor:
    """The probe with this serial number, if it is the actor's business. Raises NotFound."""
    found = session.scalar(select(Sensor).where(Sensor.serial == serial))
    if found is None or not is_in_scope(session, found.id):
        raise NotFound("There is no sensor %(serial)s.", serial=serial)
    return found


def held_sensor(session: Session, serial: str) -> Sensor:
    """The probe with this serial number; until the transaction ends nobody else calibrates or mounts it. Raises NotFound."""
    found = session.scalar(select(Sensor).where(Sensor.serial == serial).with_for_update())
    if found is None or not is_in_scope(session, found.id):
        raise NotFound("There is no sensor %(serial)s.", serial=serial)
    return found


def delivered(sensor: Sensor, observed_property: str) -> Quantity:
    """What a probe of its type delivers of this property. Raises CalibrationWrong when that is nothing."""
    sensor_type = catalogue.load_sensor_type(sensor.sensor_type)
    if observed_property not in [one.property for one in sensor_type.quantities]:
        raise CalibrationWrong(
            "Sensor %(serial)s is a %(sensor_type)s, which delivers no %(property)s.",
            serial=sensor.serial,
            sensor_type=sensor.sensor_type,
            property=observed_property,
        )
    return sensor_type.quantity(observed_property)


def _held(
    session: Session, calibration_id: int, *statuses: CalibrationStatus
) -> tuple[Calibration, Sensor]:
    """A calibration in one of the states (by default a draft), with its probe: whoever comes second waits, and sees what the first did."""
    sensor_id = session.scalar(
        select(Calibration.sensor_id).where(Calibration.id == calibration_id)
    )
    if sensor_id is None:
        raise _unknown(calibration_id)
    sensor = session.get_one(Sensor, sensor_id, with_for_update=True)
    found = session.get_one(Calibration, calibration_id, populate_existing=True)
    if not is_in_scope(session, sensor.id):
        raise _unknown(calibration_id)
    allowed = statuses or (CalibrationStatus.DRAFT,)
    if found.status not in allowed:
        state = CalibrationStatus(found.status)
        if not statuses:
            raise CalibrationElsewhere(
                "Calibration %(calibration_id)s is %(status)s; this can be done with a draft only.",
                calibration_id=calibration_id,
                status=state,
            )
        raise CalibrationElsewhere(
            "Calibration %(calibration_id)s is %(status)s already.",
            calibration_id=calibration_id,
            status=state,
        )
    return found, sensor


# ------------------------------------------------------------------------------------------------------------- points


def _put(session: Session, draft: Calibration, point: NewPoint, *, now: datetime) -> None:
    taken_at = point.taken_at or now
    _check_point(point, taken_at, now)
    reference, u_reference = _worth(session, draft, point, taken_at)
    step = point.step.strip() or _next_step(session, draft.id, point.stage)
    found = _point(session, draft.id, point.stage, step)
    if found is None:
        if _count(session, draft.id) >= _MOST_POINTS:
            raise CalibrationWrong("A calibration has at most %(most)s points.", most=_MOST_POINTS)
        found = CalibrationPoint(calibration_id=draft.id, stage=point.stage, step=step)
        session.add(found)
    found.indicated, found.u_indicated = float(point.indicated), float(point.u_indicated)
    found.reference, found.u_reference = reference, u_reference
    found.standard_id, found.temperature_c = point.standard_id, point.temperature_c
    found.taken_at, found.taken_by = taken_at, rights.actor_of(session).name
    found.steadiness = dict(point.steadiness) if point.steadiness is not None else None
    found.note = point.note.strip()
    session.flush()


def _worth(
    session: Session, draft: Calibration, point: NewPoint, taken_at: datetime
) -> tuple[float, float]:
    """What the point's standard is worth, and its standard uncertainty."""
    reference, u_reference = point.reference, point.u_reference
    if point.standard_id is not None:
        standard = standards.standard_of(session, point.standard_id)
        standards.check_usable(standard, draft.property, at=taken_at)
        pressure = draft.environment.get(PRESSURE)
        worth = standards.value_of(
            standard,
            temperature_c=point.temperature_c,
            pressure_hpa=float(pressure) if isinstance(pressure, int | float) else None,
        )
        if worth is not None and reference is not None:
            raise CalibrationWrong(
                "What standard %(name)s is worth follows from its data; give no other value.",
                name=standard.name,
            )
        reference = reference if worth is None else worth
        u_reference = standard.u if u_reference is None else u_reference
    if reference is None or u_reference is None:
        raise CalibrationWrong(
            "Say what the standard is worth and how well (its standard uncertainty), or which standard it is."
        )
    return float(reference), float(u_reference)


def _check_point(point: NewPoint, taken_at: datetime, now: datetime) -> None:
    numbers = [point.indicated, point.u_indicated]
    numbers += [
        one for one in (point.reference, point.u_reference, point.temperature_c) if one is not None
    ]
    if not all(math.isfinite(one) and abs(one) <= _LARGEST for one in numbers):
        raise CalibrationWrong(
            "A point's numbers are finite and below %(largest)s.", largest=f"{_LARGEST:g}"
        )
    if point.u_indicated < 0 or (point.u_reference is not None and point.u_reference <= 0):
        raise CalibrationWrong(
            "The uncertainty of a reading is not below zero, that of a standard is above zero."
        )
    if taken_at > now:
        raise CalibrationWrong("A point is taken now or before, not in the future.")
    if taken_at < _EARLIEST:
        raise CalibrationWrong(
            "A point is taken in %(earliest_year)s or later.", earliest_year=_EARLIEST.year
        )
    _text(point.note, Said("Note"))
    if len(point.step) > _LONGEST_STEP or not point.step.isprintable():
        raise CalibrationWrong(
            "The name of a step has at most %(longest)s characters.", longest=_LONGEST_STEP
        )


def _next_step(session: Session, calibration_id: int, stage: PointStage) -> str:
    taken = set(
        session.scalars(
            select(CalibrationPoint.step).where(
                CalibrationPoint.calibration_id == calibration_id, CalibrationPoint.stage == stage
            )
        )
    )
    return next(str(number) for number in range(1, _MOST_POINTS + 2) if str(number) not in taken)


def _count(session: Session, calibration_id: int) -> int:
    count = select(func.count()).where(CalibrationPoint.calibration_id == calibration_id)
    return session.scalar(count) or 0


def _point(
    session: Session, calibration_id: int, stage: PointStage, step: str
) -> CalibrationPoint | None:
    return session.scalar(
        select(CalibrationPoint).where(
            CalibrationPoint.calibration_id == calibration_id,
            CalibrationPoint.stage == stage,
            CalibrationPoint.step == step,
        )
    )


def _points(session: Session, calibration_id: int) -> list[CalibrationPoint]:
    query = select(CalibrationPoint).where(CalibrationPoint.calibration_id == calibration_id)
    return list(session.scalars(query.order_by(CalibrationPoint.stage, CalibrationPoint.id)))


# ---------------------------------------------------------------------------------------------------------------- fit


def _edited(session: Session, draft: Calibration, sensor: Sensor, *, now: datetime) -> None:
    draft.edited_by = rights.actor_of(session).name
    _fit_anew(session, draft)
    _note(session, "calibration_edited", draft, sensor, now=now)


def _fit_anew(session: Session, draft: Calibration) -> None:
    session.flush()
    taken = [one for one in _points(session, draft.id) if one.stage == PointStage.FIT]
    sensor = session.get_one(Sensor, draft.sensor_id)
    quantity = catalogue.load_sensor_type(sensor.sensor_type).quantity(draft.property)
    # What the points scatter may be the probe's own, and is added to what the draft says of it: not once more at each fit.
    u_probe = (draft.fit or {}).get("u_probe", draft.u_absolute)
    points = [_fit_point(session, one) for one in taken]
    fitted = fitting.fit_points(
        CalibrationKind(draft.kind),
        draft.property,
        points,
        u_probe=u_probe,
        factory_slope=quantity.factory.slope,
        before=_before(session, draft),
    )
    if isinstance(fitted, Fault):
        found, faults = CalibrationParameters(u_abs=u_probe), [fitted.as_json()]
        draft.degrees_of_freedom, draft.fit = None, {"faults": faults, "u_probe": u_probe}
    else:
        found = fitted.parameters
        draft.degrees_of_freedom = fitted.degrees_of_freedom
        references = fitting.references_of(fitted, points)
        draft.fit = {**fitted.as_json(), "u_probe": u_probe, "references": references}
    _take_numbers(draft, found)
    draft.drift_due_at = aging.due_at(draft, [one.reference for one in taken])
    if not draft.reference or draft.reference.startswith(_AGAINST):
        draft.reference = _against(session, taken)
    session.flush()


def _fit_point(session: Session, point: CalibrationPoint) -> FitPoint:
    standard = session.get(Standard, point.standard_id) if point.standard_id is not None else None
    return FitPoint(
        point.indicated,
        point.reference,
        point.u_reference,
        point.u_indicated,
        point.standard_id,
        0.0 if standard is None else standard.u,
    )


def _growth(session: Session, sensor: Sensor, new: NewCalibration) -> Growth:
    """What the author says that a year adds; who says nothing gets what is suggested."""
    if new.u_drift_absolute is None and new.u_drift_relative is None:
        return aging.suggested(session, sensor.id, new.property, before=new.performed_at).growth
    return Growth(new.u_drift_absolute or 0.0, new.u_drift_relative or 0.0)


def _before(session: Session, draft: Calibration) -> tuple[CalibrationParameters, float] | None:
    """Numbers of the calibration before, where that is not the maker's, and how many days ago it was."""
    before = session.get(Calibration, draft.previous_id) if draft.previous_id is not None else None
    if before is None or before.kind == CalibrationKind.FACTORY:
        return None
    since = (draft.performed_at or draft.valid_from) - (before.performed_at or before.valid_from)
    return observing.parameters_of(before), max(since.total_seconds(), 0.0) / 86_400.0


_AGAINST = "against "


def _against(session: Session, points: Iterable[CalibrationPoint]) -> str:
    """What the points were taken in, where nobody says it in words of their own."""
    ids = sorted({one.standard_id for one in points if one.standard_id is not None})
    named = [session.get_one(Standard, one) for one in ids]
    told = ", ".join(f"{one.name} {one.lot}".strip() for one in named)
    return f"{_AGAINST}{told}" if told else ""


def _take_numbers(draft: Calibration, found: CalibrationParameters) -> None:
    draft.offset, draft.slope, draft.curve = found.offset, found.slope, found.curve
    draft.u_offset, draft.u_slope, draft.u_curve = found.u_offset, found.u_slope, found.u_curve
    draft.slope_offset_covariance = found.cov
    draft.offset_curve_covariance = found.cov_offset_curve
    draft.slope_curve_covariance = found.cov_slope_curve
    draft.u_absolute, draft.coverage_factor = found.u_abs, found.k


def refuse_changed(found: CalibrationRecord, looked_at: str | None) -> None:
    """Raises CalibrationChanged when it is another than the one with this hash; None: whichever it is."""
    if looked_at is not None and looked_at != found.sha256:
        raise CalibrationChanged(
            "Calibration %(calibration_id)s was changed since you looked at it; look again.",
            calibration_id=found.calibration.id,
        )


def refuse_untrusted(found: CalibrationRecord) -> None:
    """Raises FitRefused when it has no fit that can be trusted."""
    if found.calibration.fit is None:
        raise FitRefused("There is no fit yet; give its points first.")
    for fault in found.faults:
        raise FitRefused(
            "The fit cannot be trusted. %(reason)s",
            reason=fitting.in_words(fault.code, fault.numbers),
            fault=fault.code,
        )


# ----------------------------------------------------------------------------------------------------------- approval


def _refuse_own(actor: str, found: CalibrationRecord) -> None:
    calibration = found.calibration
    hands = [calibration.author, calibration.edited_by, calibration.performed_by]
    hands += [point.taken_by for point in found.points]
    if rights.person(actor) in {rights.person(one) for one in hands}:
        raise FourEyes(
            "Calibration %(calibration_id)s is of %(author)s; somebody who had no hand in it has to approve it.",
            calibration_id=calibration.id,
            author=calibration.author,
        )


def _in_force(session: Session, calibration: Calibration) -> list[Calibration]:
    """Of the same property of the same probe, approved ones beside this, by when they begin."""
    return list(
        session.scalars(
            select(Calibration)
            .where(
                Calibration.sensor_id == calibration.sensor_id,
                Calibration.property == calibration.property,
                Calibration.status.in_(IN_FORCE),
                Calibration.id != calibration.id,
            )
            .order_by(Calibration.valid_from, Calibration.version)
            .execution_options(populate_existing=True)
        )
    )


def _refuse_two_for_one_time(draft: Calibration, others: Sequence[Calibration]) -> None:
    for other in others:
        begins_within = other.valid_from >= draft.valid_from and (
            draft.valid_to is None or other.valid_from < draft.valid_to
        )
        if begins_within:
            raise TwoForOneTime(
                "Version %(version)s is approved and begins at %(since)s, within the time of this one: withdraw it first, or let this one begin later or end there.",
                version=other.version,
                since=other.valid_from,
            )


def _refuse_no_overlap(
    session: Session, draft: Calibration, others: Sequence[Calibration], *, now: datetime
) -> None:
    if not any(
        other.valid_from <= draft.valid_from
        and (other.valid_to is None or other.valid_to >= draft.valid_from)
        for other in others
    ):
        last = max((one.valid_to for one in others if one.valid_to is not None), default=None)
        raise NoOverlap(
            "The calibration before ends at %(until)s, before this one begins: readings between them would have none. Let it begin there.",
            until=last or draft.valid_from,
        )
    if draft.valid_to is None or draft.valid_to > now:
        return
    worked = select(Channel.id).where(
        Channel.sensor_id == draft.sensor_id,
        Channel.property == draft.property,
        Channel.from_at < draft.valid_to,
        (Channel.to_at.is_(None)) | (Channel.to_at > draft.valid_from),
    )
    if session.scalar(worked.limit(1)) is None:
        raise NoOverlap(
            "Between %(since)s and %(until)s the probe was mounted nowhere: no reading would have this calibration.",
            since=draft.valid_from,
            until=draft.valid_to,
        )


def _restate(in_force: Iterable[Calibration]) -> None:
    """Superseded is whose time another that begins later takes to its end."""
    found = sorted(in_force, key=lambda one: one.valid_from)
    for place, one in enumerate(found):
        is_taken = any(_reaches_end_of(later, one) for later in found[place + 1 :])
        status = CalibrationStatus.SUPERSEDED if is_taken else CalibrationStatus.APPROVED
        if one.status != status:
            one.status = status


def _reaches_end_of(later: Calibration, one: Calibration) -> bool:
    if later.valid_to is None:
        return True
    return one.valid_to is not None and later.valid_to >= one.valid_to


def _settle_readings(
    session: Session, calibration: Calibration, sensor: Sensor, *, what: str, now: datetime
) -> None:
    """Have made anew what was observed within the calibration's time, and ingest look again: after what is in force has changed.

    Raises:
        ExtremesThere: of some of that time there are only extremes.
    """
    from_at, to_at = calibration.valid_from, calibration.valid_to
    _refuse_extremes(session, calibration)
    revising.order_revision(
        session,
        kind="calibration",
        reason=REVISION_REASON.format(calibration.id, sensor.serial, what),
        author=calibration.author,
        approver=rights.actor_of(session).name,
        sensor_id=calibration.sensor_id,
        observed_property=calibration.property,
        from_at=from_at,
        to_at=to_at,
        now=now,
    )


def _refuse_extremes(session: Session, calibration: Calibration) -> None:
    """Ranges of thinned packs are made once, and by no later calibration."""
    streams = revising.streams_of(
        session,
        sensor_id=calibration.sensor_id,
        observed_property=calibration.property,
        from_at=calibration.valid_from,
        to_at=calibration.valid_to,
    )
    query = select(func.max(ObservedRange.to_at)).where(
        ObservedRange.datastream_id.in_(streams), ObservedRange.to_at >= calibration.valid_from
    )
    if calibration.valid_to is not None:
        query = query.where(ObservedRange.from_at < calibration.valid_to)
    newest = session.scalar(query)
    if newest is not None:
        raise ExtremesThere(
            "Of a day until %(newest)s the node kept only extremes, which cannot be corrected, and this would be valid from %(since)s: let it hold from after that day.",
            newest=newest,
            since=calibration.valid_from,
        )


# ------------------------------------------------------------------------------------------------------------- checks


def _check_new(new: NewCalibration, now: datetime) -> None:
    if new.kind == CalibrationKind.FACTORY:
        raise CalibrationWrong("The maker's calibration comes with the probe; choose another kind.")
    _text(new.performed_by, Said("Performed by"), least=1, longest=_LONGEST_NAME)
    _text(new.reference, Said("Against what"))
    if not _EARLIEST <= new.performed_at <= now:
        raise CalibrationWrong(
            "A calibration was performed in %(earliest_year)s or later, and not in the future.",
            earliest_year=_EARLIEST.year,
        )
    check_times(new.valid_from or new.performed_at, new.valid_to)
    for u in (new.u_absolute, new.u_relative):
        if u is not None and not (math.isfinite(u) and 0 <= u <= _LARGEST):
            raise CalibrationWrong(
                "A probe's own uncertainty is a number from 0 to %(largest)s.",
                largest=f"{_LARGEST:g}",
            )
    for u in (new.u_drift_absolute, new.u_drift_relative):
        if u is not None and not (math.isfinite(u) and 0 <= u <= _LARGEST):
            raise CalibrationWrong(
                "What a year adds to u is a number from 0 to %(largest)s.",
                largest=f"{_LARGEST:g}",
            )
    _check_environment(new.environment)


def check_times(valid_from: datetime, valid_to: datetime | None) -> None:
    """Raises CalibrationWrong when no calibration can be valid like this."""
    if not _EARLIEST <= valid_from <= _LATEST or (valid_to is not None and valid_to > _LATEST):
        raise CalibrationWrong(
            "A calibration is valid between %(earliest_year)s and %(latest_year)s.",
            earliest_year=_EARLIEST.year,
            latest_year=_LATEST.year,
        )
    # To the second, as it is kept.
    if valid_to is not None and int(valid_to.timestamp()) <= int(valid_from.timestamp()):
        raise CalibrationWrong("A calibration ends after it begins.")


def _check_environment(environment: Mapping[str, float | str]) -> None:
    if len(environment) > _MOST_CIRCUMSTANCES:
        raise CalibrationWrong("At most %(most)s circumstances are kept.", most=_MOST_CIRCUMSTANCES)
    for name, value in environment.items():
        is_good = (
            isinstance(value, str) and len(value) <= _LONGEST_TEXT and not _means_infinite(value)
        )
        is_good = is_good or (
            isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _LARGEST
        )
        if not (is_good and 1 <= len(name) <= _LONGEST_STEP and name.isprintable()):
            raise CalibrationWrong(
                "A circumstance is a name with a finite number or a short text, like temperature_c: 21.5."
            )


def _means_infinite(text: str) -> bool:
    """Whether a text is `inf`, `nan` or a number beyond all: what was meant as a number is none."""
    try:
        return not math.isfinite(float(text))
    except ValueError:
        return False


def _text(text: str, what: str, *, least: int = 0, longest: int = _LONGEST_TEXT) -> str:
    trimmed = text.strip()
    if not least <= len(trimmed) <= longest or "\0" in text:
        raise CalibrationWrong(
            "%(what)s: %(least)s to %(longest)s characters.",
            what=what,
            least=least,
            longest=longest,
        )
    return trimmed


def _newest_version(session: Session, sensor_id: int, observed_property: str) -> int:
    newest = select(func.max(Calibration.version)).where(
        Calibration.sensor_id == sensor_id, Calibration.property == observed_property
    )
    return session.scalar(newest) or 0


def _in_force_at(
    session: Session, sensor_id: int, observed_property: str, at: datetime
) -> int | None:
    """Which approved one makes the observations at that time."""
    query = select(Calibration.id).where(
        Calibration.sensor_id == sensor_id,
        Calibration.property == observed_property,
        Calibration.status.in_(IN_FORCE),
        Calibration.valid_from <= at,
        (Calibration.valid_to.is_(None)) | (Calibration.valid_to > at),
    )
    return session.scalar(query.order_by(Calibration.version.desc()).limit(1))


def _record(session: Session, calibration: Calibration, sensor: Sensor) -> CalibrationRecord:
    points = _points(session, calibration.id)
    ids = sorted({one.standard_id for one in points if one.standard_id is not None})
    found = session.scalars(select(Standard).where(Standard.id.in_(ids))) if ids else ()
    return CalibrationRecord(
        calibration,
        sensor,
        points,
        {one.id: one for one in found},
        session.get(Calibration, calibration.previous_id) if calibration.previous_id else None,
        settling.holding_within(session, calibration),
    )


def _note(
    session: Session,
    action: str,
    calibration: Calibration,
    sensor: Sensor,
    *,
    now: datetime,
    **details: str,
) -> None:
    auditing.record(
        session,
        action,
        subject=f"calibration {calibration.id}",
        now=now,
        sensor=sensor.serial,
        property=calibration.property,
        version=calibration.version,
        **details,
    )


def _unknown(calibration_id: int) -> NotFound:
    return NotFound("There is no calibration %(calibration_id)s.", calibration_id=calibration_id)

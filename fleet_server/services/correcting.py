"""Drift corrections, of drift and fouling between two visits: drafted from what the visit found, rated, approved by a data steward, withdrawn.

A correction is a version of its own; its approval or withdrawal has everything made anew that the probe's values went into
(`revising.order_revision`). What is corrected by more than may be published is refused: it is no correction, the readings are bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused
from fleet_server.measurement import drift
from fleet_server.measurement.drift import Check, Correction
from fleet_server.models import (
    Calibration,
    Channel,
    CorrectionStatus,
    DriftCorrection,
    ExternalImport,
    Observation,
    Sensor,
)
from fleet_server.services import (
    calibrating,
    keyset,
    observing,
    rights,
    settling,
)

_BY_ID = keyset.Sorting((DriftCorrection.__table__.c.id,), (int,), is_descending=True)
_LONGEST_NOTE = 500
_LONGEST = timedelta(days=400)
UNPUBLISHABLE = "unpublishable"


class CorrectionWrong(Invalid):
    """A correction cannot be like this."""

    code = "correction_wrong"


class CorrectionElsewhere(Conflict):
    """The correction is not in a state in which this can be done."""

    code = "correction_elsewhere"


class CorrectionOutdated(Conflict):
    """What its visit read was read by a calibration that does not hold any more."""

    code = "correction_outdated"


class CorrectionRefused(Refused):
    """A rule forbids it."""

    code = "correction_refused"


@dataclass(frozen=True)
class NewCorrection:
    """What a visit found of a probe that was left right by the visit before; numbers as in `drift.Correction`.

    `from_import_id`: of others' measurements, where a check stands on one.
    """

    serial: str
    observed_property: str
    from_at: datetime
    to_at: datetime
    fouling: float = 0.0
    fouling_relative: float = 0.0
    low: Check | None = None
    high: Check | None = None
    note: str = ""
    from_import_id: int | None = None


def draft_correction(session: Session, new: NewCorrection, *, now: datetime) -> DriftCorrection:
    """Write a correction down; it changes nothing until it is approved. Committed on return.

    Raises:
        NotFound: no such probe that the actor has to do with.
        CorrectionWrong: numbers or times that cannot be.
        CorrectionRefused: the property is not rated.
        calibrating.CalibrationWrong: the probe does not measure it.
    """
    note = new.note.strip()
    if len(note) > _LONGEST_NOTE:
        raise CorrectionWrong("A note has at most %(most)s characters.", most=_LONGEST_NOTE)
    if new.to_at > now:
        raise CorrectionWrong("The later visit lies in the future.")
    if new.to_at - new.from_at > _LONGEST:
        raise CorrectionWrong(
            "Between two visits lie at most %(most)s days; give the times of both.",
            most=_LONGEST.days,
        )
    if new.observed_property not in drift.DRIFT_LIMITS:
        raise CorrectionRefused(
            "Values of %(property)s are not put right for drift; calibrate the probe anew.",
            property=new.observed_property,
        )
    correction = _arithmetic(new)
    with db.writing(session):
        sensor = calibrating.held_sensor(session, new.serial)
        calibrating.delivered(sensor, new.observed_property)
        row = DriftCorrection(
            sensor_id=sensor.id,
            property=new.observed_property,
            version=_newest_version(session, sensor.id, new.observed_property) + 1,
            status=CorrectionStatus.DRAFT,
            from_at=new.from_at,
            to_at=new.to_at,
            fouling=new.fouling,
            fouling_relative=new.fouling_relative,
            low_standard=None if new.low is None else new.low.standard,
            low_reading=None if new.low is None else new.low.reading,
            high_standard=None if new.high is None else new.high.standard,
            high_reading=None if new.high is None else new.high.reading,
            rating=_rating(session, sensor, new, correction),
            note=note,
            from_import_id=new.from_import_id,
            author=rights.actor_of(session).name,
            withdrawn_reason="",
            created_at=now,
        )
        session.add(row)
        session.flush()
        settling.note(session, "correction_drafted", row, sensor, now=now)
    return row


def approve_correction(session: Session, correction_id: int, *, now: datetime) -> DriftCorrection:
    """A draft holds, and the values between its visits are made anew. Committed on return.

    Raises:
        NotFound: no such correction.
        CorrectionElsewhere: it is no draft, or another one that is approved overlaps it.
        CorrectionOutdated: another calibration holds between its visits by now than when it was written, or the import that it stands on is
            withdrawn.
        CorrectionRefused: the actor wrote it, themselves or by a key, or so large a correction may not be published.
        Conflict: of a day between the visits only extremes are known.
    """
    with db.writing(session):
        row, sensor = _held(session, correction_id, CorrectionStatus.DRAFT)
        actor = rights.actor_of(session).name
        if rights.person(actor) == rights.person(row.author):
            raise CorrectionRefused(
                "Who wrote a drift correction does not approve it; ask somebody else."
            )
        if row.rating == UNPUBLISHABLE:
            raise CorrectionRefused(
                "So large a drift correction may not be published: mark the readings between the visits as bad instead."
            )
        overlapping = session.scalar(
            select(DriftCorrection.id).where(
                DriftCorrection.sensor_id == row.sensor_id,
                DriftCorrection.property == row.property,
                DriftCorrection.status == CorrectionStatus.APPROVED,
                DriftCorrection.from_at < row.to_at,
                DriftCorrection.to_at > row.from_at,
            )
        )
        if overlapping is not None:
            raise CorrectionElsewhere(
                "Drift correction %(other)s holds for a part of that time; withdraw it first.",
                other=overlapping,
            )
        _refuse_outdated(session, row)
        row.status, row.approved_by, row.approved_at = CorrectionStatus.APPROVED, actor, now
        session.flush()
        settling.revise(session, row, sensor, "approved", now=now)
        settling.note(session, "correction_approved", row, sensor, now=now)
    return row


def withdraw_correction(
    session: Session, correction_id: int, *, reason: str, now: datetime
) -> DriftCorrection:
    """It was a mistake, or a draft came to nothing; the record stays. Committed on return.

    Raises:
        NotFound: no such correction.
        CorrectionWrong: no reason is given.
        CorrectionElsewhere: it is withdrawn already.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= _LONGEST_NOTE:
        raise CorrectionWrong("Say why, in at most %(most)s characters.", most=_LONGEST_NOTE)
    with db.writing(session):
        row, sensor = _held(
            session, correction_id, CorrectionStatus.DRAFT, CorrectionStatus.APPROVED
        )
        settling.withdraw_held(session, row, sensor, reason=reason, now=now)
    return row


@dataclass(frozen=True)
class CorrectionRecord:
    """A correction with the serial number of its probe."""

    row: DriftCorrection
    serial: str

    def __getattr__(self, name: str) -> Any:
        """All that the row says."""
        return getattr(self.row, name)

    @property
    def low(self) -> Check | None:
        return observing.valid_correction(self.row).correction.low

    @property
    def high(self) -> Check | None:
        return observing.valid_correction(self.row).correction.high


def correction_page(
    session: Session,
    *,
    serial: str | None = None,
    status: CorrectionStatus | None = None,
    limit: int,
    after: keyset.Key | None = None,
) -> keyset.Page[CorrectionRecord]:
    """Corrections of probes that are the actor's business, newest first. Raises NotFound for a probe that is not there."""
    query = (
        select(DriftCorrection, Sensor.serial)
        .join(Sensor, Sensor.id == DriftCorrection.sensor_id)
        .where(*calibrating.in_scope(session))
    )
    if serial is not None:
        calibrating.known_sensor(session, serial)
        query = query.where(Sensor.serial == serial)
    if status is not None:
        query = query.where(DriftCorrection.status == status)
    return keyset.page_of(
        session,
        query,
        _BY_ID,
        limit=limit,
        after=after,
        made=lambda row: CorrectionRecord(row[0], row[1]),
    )


def record_of(session: Session, correction_id: int) -> CorrectionRecord:
    """One that is the actor's business. Raises NotFound."""
    row = session.get(DriftCorrection, correction_id)
    if row is None or not calibrating.is_in_scope(session, row.sensor_id):
        raise NotFound(
            "There is no drift correction %(correction_id)s.", correction_id=correction_id
        )
    return CorrectionRecord(row, session.get_one(Sensor, row.sensor_id).serial)


# ---------------------------------------------------------------------------------------------------------------- private


def _arithmetic(new: NewCorrection) -> Correction:
    try:
        correction = Correction(
            # To the second, as it is kept.
            from_s=int(new.from_at.timestamp()),
            to_s=int(new.to_at.timestamp()),
            fouling=new.fouling,
            fouling_relative=new.fouling_relative,
            low=new.low,
            high=new.high,
        )
    except ValueError as problem:
        raise CorrectionWrong(
            "The later visit comes after the earlier one, numbers are finite, and of two checks the first is in the lower standard and read lower."
        ) from problem
    if not (new.fouling or new.fouling_relative or new.low or new.high):
        raise CorrectionWrong(
            "There is nothing to put right: give fouling, or a check in a standard."
        )
    return correction


def _rating(session: Session, sensor: Sensor, new: NewCorrection, correction: Correction) -> str:
    """By the sum of |fouling| and |drift| at a typical value of the record, or at the standards where there is no record."""
    typical = session.scalar(
        select(func.avg(Observation.value))
        .join(Channel, Channel.datastream_id == Observation.datastream_id)
        .where(
            Channel.sensor_id == sensor.id,
            Channel.property == new.observed_property,
            Observation.sampled_at >= new.from_at,
            Observation.sampled_at < new.to_at,
        )
    )
    checks = [check for check in (new.low, new.high) if check is not None]
    if typical is None:
        typical = max((check.standard for check in checks), default=0.0)
    value = float(typical)
    fouling = abs(new.fouling) + abs(new.fouling_relative * value)
    without = Correction(
        correction.from_s, correction.to_s, low=correction.low, high=correction.high
    )
    ends = [correction.to_s]
    drifted, _ = drift.correct(ends, [value], [0.0], without)
    return drift.rating(new.observed_property, fouling + abs(float(drifted[0]) - value), value)


def _refuse_outdated(session: Session, row: DriftCorrection) -> None:
    """A calibration that came or went after the draft was written gives its readings other numbers; a withdrawn import was a mistake."""
    if row.from_import_id is not None:
        # Held until the end: nobody withdraws it meanwhile.
        given = session.get_one(ExternalImport, row.from_import_id, with_for_update=True)
        if given.withdrawn_at is not None:
            raise CorrectionOutdated(
                "Import %(import_id)s, which this drift correction stands on, was withdrawn: withdraw the draft, too.",
                import_id=given.id,
            )
    changed = session.scalar(
        select(Calibration.id)
        .where(
            Calibration.sensor_id == row.sensor_id,
            Calibration.property == row.property,
            Calibration.approved_at.is_not(None),
            or_(
                Calibration.approved_at > row.created_at, Calibration.withdrawn_at > row.created_at
            ),
            Calibration.valid_from < row.to_at,
            or_(Calibration.valid_to.is_(None), Calibration.valid_to > row.from_at),
        )
        .order_by(Calibration.id.desc())
        .limit(1)
    )
    if changed is not None:
        raise CorrectionOutdated(
            "Calibration %(calibration)s was approved or withdrawn after this was written: withdraw the draft, and write it anew with what the probe reads by the calibration of now.",
            calibration=changed,
        )


def _held(
    session: Session, correction_id: int, *statuses: CorrectionStatus
) -> tuple[DriftCorrection, Sensor]:
    """A correction in one of the states, with its probe: whoever comes second waits, and sees what the first did."""
    sensor_id = session.scalar(
        select(DriftCorrection.sensor_id).where(DriftCorrection.id == correction_id)
    )
    if sensor_id is None or not calibrating.is_in_scope(session, sensor_id):
        raise NotFound(
            "There is no drift correction %(correction_id)s.", correction_id=correction_id
        )
    sensor = session.get_one(Sensor, sensor_id, with_for_update=True)
    row = session.get_one(DriftCorrection, correction_id, populate_existing=True)
    if row.status not in statuses:
        raise CorrectionElsewhere(
            "Drift correction %(correction_id)s is %(status)s already.",
            correction_id=correction_id,
            status=CorrectionStatus(row.status),
        )
    return row, sensor


def _newest_version(session: Session, sensor_id: int, observed_property: str) -> int:
    found = session.scalar(
        select(func.max(DriftCorrection.version)).where(
            DriftCorrection.sensor_id == sensor_id, DriftCorrection.property == observed_property
        )
    )
    return found or 0

"""A calibration that comes or goes under a drift correction that holds: somebody says what becomes of it, or nothing happens."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from corrections import HOUR, LATER, measured, values
from factories import NOON
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import FleetError
from fleet_server.measurement.drift import Check
from fleet_server.models import (
    CalibrationKind,
    CalibrationStatus,
    CorrectionStatus,
    DriftCorrection,
    Revision,
)
from fleet_server.services import (
    auditing,
    calibrating,
    correcting,
    rehearsing,
    revising,
    revision_list,
    rights,
)
from fleet_server.services.calibrating import NewCalibration, NewPoint
from fleet_server.services.correcting import CorrectionOutdated, NewCorrection
from fleet_server.services.settling import CorrectionsHold, NotHeld, Verdict, verdicts_of
from fleet_server.services.verifying import verify

PROBE = ("n-000001/d30", "soil_temperature")
ICE = NewCalibration(*PROBE, CalibrationKind.OFFSET, "ada", NOON, (NewPoint(1.5, 0.0, 0.02),))
VISIT = NewCorrection(*PROBE, NOON, NOON + HOUR, low=Check(0.0, -0.4))


def act_as(session: Session, name: str) -> None:
    rights.act_as(session, rights.Actor(name, frozenset(rights.Right)))


def corrected_with_a_draft(session: Session) -> tuple[int, int]:
    """A drift correction that holds, and then the draft of a calibration from the beginning on: their numbers."""
    measured(session)
    act_as(session, "ada")
    visit = correcting.draft_correction(session, VISIT, now=LATER)
    draft = calibrating.draft_calibration(session, ICE, now=LATER).calibration.id
    act_as(session, "grace")
    correcting.approve_correction(session, visit.id, now=LATER)
    work_off(session)
    return visit.id, draft


def work_off(session: Session, now: datetime = LATER) -> None:
    while revising.advance(session, now=now):
        pass


@pytest.mark.parametrize(
    ("said", "refusal", "sentence"),
    [
        ({}, CorrectionsHold, "Drift correction 1 holds within its time"),
        ({7: Verdict.KEEP}, CorrectionsHold, "Drift correction 1 holds within its time"),
        ({1: Verdict.KEEP, 7: Verdict.KEEP}, NotHeld, "Drift correction 7 does not hold within"),
    ],
)
def test_calibration_under_a_correction_of_which_nothing_was_said_is_not_approved(
    session: Session, said: dict[int, Verdict], refusal: type[FleetError], sentence: str
) -> None:
    visit, draft = corrected_with_a_draft(session)
    before, revisions = values(session, "t30"), session.scalars(select(Revision.id)).all()
    for moment in (None, NOON + HOUR - timedelta(seconds=1)):  # a second of its time is enough
        with pytest.raises(refusal, match=sentence):
            calibrating.approve_calibration(
                session, draft, now=LATER, valid_from=moment, corrections=said
            )
    record = calibrating.record_of(session, draft)
    assert record.calibration.status == CalibrationStatus.DRAFT
    assert [one.id for one in record.corrections] == [visit]
    told = rehearsing.rehearse_approval(session, draft)
    assert [one.id for one in told.corrections] == [visit]
    assert (values(session, "t30"), session.scalars(select(Revision.id)).all()) == (
        before,
        revisions,
    )


def test_calibration_that_begins_where_a_correction_ends_needs_no_word(session: Session) -> None:
    _, draft = corrected_with_a_draft(session)
    assert not rehearsing.rehearse_approval(session, draft, valid_from=NOON + HOUR).corrections
    calibrating.approve_calibration(session, draft, now=LATER, valid_from=NOON + HOUR)


def test_correction_that_stays_puts_the_new_values_right_as_it_did_the_old(
    session: Session,
) -> None:
    visit, draft = corrected_with_a_draft(session)
    before = values(session, "t30")
    calibrating.approve_calibration(session, draft, now=LATER, corrections={visit: Verdict.KEEP})
    work_off(session)
    assert session.get_one(DriftCorrection, visit).status == CorrectionStatus.APPROVED
    assert values(session, "t30") == pytest.approx([(one or 0) - 1.5 for one in before])
    (noted,) = auditing.newest_entries(session, limit=1, action="calibration_approved")
    assert noted.details["corrections_keep"] == str(visit)
    assert verify(session).is_clean


def test_correction_that_is_withdrawn_with_it_is_gone_from_the_values_and_tells_why(
    session: Session,
) -> None:
    visit, draft = corrected_with_a_draft(session)
    said = {visit: Verdict.WITHDRAW}
    calibrating.approve_calibration(session, draft, now=LATER, corrections=said)
    work_off(session)
    row = session.get_one(DriftCorrection, visit)
    assert (row.status, row.withdrawn_by) == (CorrectionStatus.WITHDRAWN, "grace")
    assert row.withdrawn_reason == f"calibration {draft} was approved"
    assert values(session, "t30") == [18.375] * 4
    assert verify(session).is_clean
    lines = revision_list.revision_page(session, limit=2).items
    assert {line.revision.kind: bool(line.made_earlier) for line in lines} == {
        "correction": False,
        "calibration": True,
    }


def test_calibration_under_a_correction_is_not_withdrawn_without_a_word_either(
    session: Session,
) -> None:
    visit, draft = corrected_with_a_draft(session)
    keep = {visit: Verdict.KEEP}
    calibrating.approve_calibration(session, draft, now=LATER, corrections=keep)
    with pytest.raises(CorrectionsHold):
        calibrating.withdraw_calibration(session, draft, reason="x", now=LATER)
    assert calibrating.record_of(session, draft).calibration.status == CalibrationStatus.APPROVED
    calibrating.withdraw_calibration(
        session, draft, reason="x", now=LATER, corrections={visit: Verdict.WITHDRAW}
    )
    work_off(session)
    assert values(session, "t30") == [19.875] * 4


@pytest.mark.parametrize("is_withdrawn", [False, True])
def test_correction_that_was_written_by_the_calibration_before_is_not_approved(
    session: Session, is_withdrawn: bool
) -> None:
    measured(session)
    act_as(session, "ada")
    draft = calibrating.draft_calibration(session, ICE, now=LATER).calibration.id
    act_as(session, "grace")
    if is_withdrawn:
        calibrating.approve_calibration(session, draft, now=LATER)
    act_as(session, "ada")
    visit = correcting.draft_correction(session, VISIT, now=LATER)
    act_as(session, "grace")
    if is_withdrawn:
        calibrating.withdraw_calibration(session, draft, reason="x", now=LATER + HOUR)
    else:
        calibrating.approve_calibration(session, draft, now=LATER + HOUR)
    with pytest.raises(CorrectionOutdated, match=f"Calibration {draft} was approved or withdrawn"):
        correcting.approve_correction(session, visit.id, now=LATER + 2 * HOUR)
    assert session.get_one(DriftCorrection, visit.id).status == CorrectionStatus.DRAFT
    act_as(session, "ada")
    anew = correcting.draft_correction(session, VISIT, now=LATER + 2 * HOUR)
    act_as(session, "grace")
    correcting.approve_correction(session, anew.id, now=LATER + 2 * HOUR)


def test_nothing_stays_and_is_withdrawn_at_once() -> None:
    with pytest.raises(NotHeld, match="Drift correction 3 cannot both"):
        verdicts_of([3, 4], [3])

"""Drift and fouling that a visit found are put right between two visits: rated, approved by somebody else, provable, and taken back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from corrections import HOUR, LATER, measured, values
from factories import NOON
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, FleetError, NotFound
from fleet_server.measurement.drift import Check
from fleet_server.models import DriftCorrection, Lineage, Observation, ObservationHistory, Revision
from fleet_server.models.observation import observation_id
from fleet_server.services import correcting, revising, rights, version_history
from fleet_server.services.calibrating import CalibrationWrong
from fleet_server.services.correcting import CorrectionRefused, CorrectionWrong, NewCorrection
from fleet_server.services.ingest import store_batch
from fleet_server.services.verifying import verify

SAMPLE = timedelta(minutes=15)
VISIT = NewCorrection(
    "n-000001/d30", "soil_temperature", NOON, NOON + HOUR, low=Check(0.0, -0.4), note="ice water"
)


def act_as(session: Session, name: str) -> None:
    rights.act_as(session, rights.Actor(name, frozenset(rights.Right)))


def approved(session: Session, new: NewCorrection = VISIT) -> DriftCorrection:
    act_as(session, "ada")
    draft = correcting.draft_correction(session, new, now=LATER)
    act_as(session, "grace")
    return correcting.approve_correction(session, draft.id, now=LATER)


def work_off(session: Session) -> None:
    while revising.advance(session, now=LATER):
        pass


def test_correction_grows_from_one_visit_to_the_next_and_reaches_what_needs_the_value(
    session: Session,
) -> None:
    """The probe showed 0.4 K too little in ice water at the second visit; it was right at the first."""
    measured(session, 5)
    tensions = values(session, "r30")
    correction = approved(session)
    assert correction.rating == "good"
    assert values(session, "t30") == [19.875] * 5, "the worker has not come to it"
    assert verify(session).is_clean

    work_off(session)

    # A quarter, a half and three quarters of the hour; the second visit's own reading is right already.
    assert values(session, "t30") == pytest.approx([19.975, 20.075, 20.175, 19.875, 19.875])
    changed = [new != old for new, old in zip(values(session, "r30"), tensions, strict=True)]
    assert changed == [True, True, True, False, False]
    us = session.scalars(
        select(Observation.u)
        .join(Lineage, Lineage.id == Observation.lineage_id)
        .where(Lineage.correction == str(correction.id))
    ).all()
    factory_u = session.scalars(
        select(ObservationHistory.u).where(ObservationHistory.datastream_id == 4).limit(1)
    ).one()
    assert us == pytest.approx([(factory_u**2 + 0.12**2) ** 0.5] * 3)
    inputs = session.scalars(select(Lineage.inputs).where(Lineage.inputs.contains("/"))).all()
    assert inputs == [f"reference=none,temperature=4/{correction.id}"]
    tension = session.scalars(
        select(Observation).where(Observation.lineage_id == Lineage.id, Lineage.inputs.in_(inputs))
    ).first()
    assert tension is not None
    history = version_history.history_of(
        session, observation_id(tension.datastream_id, tension.sampled_at)
    )
    named = [one.made_by.inputs["temperature"] for one in history.versions]
    assert [one and one.id for one in named] == [4, 4], (
        "a corrected input is calibrated all the same"
    )
    assert verify(session).is_clean


def test_what_arrives_late_from_between_the_visits_is_put_right_at_once(session: Session) -> None:
    node = measured(session, 1)
    approved(session)
    store_batch(session, node.packs([2, 3]), now=LATER)
    assert values(session, "t30") == pytest.approx([19.875, 20.075, 20.175])
    work_off(session)
    assert values(session, "t30") == pytest.approx([19.975, 20.075, 20.175])
    assert verify(session).is_clean


def test_withdrawn_correction_gives_back_every_bit_and_keeps_what_was_shown(
    session: Session,
) -> None:
    measured(session, 4)
    before = values(session, "t30"), values(session, "r30")
    correction = approved(session)
    work_off(session)
    correcting.withdraw_correction(session, correction.id, reason="wrong ice", now=LATER)
    work_off(session)
    assert (values(session, "t30"), values(session, "r30")) == before
    kinds = session.scalars(select(Revision.kind)).all()
    assert kinds == ["correction", "correction"]
    assert verify(session).is_clean, (
        "also the versions that were corrected, by the correction that they name"
    )


def test_changed_number_of_a_correction_is_found(session: Session) -> None:
    measured(session, 4)
    approved(session)
    work_off(session)
    with db.writing(session):
        session.execute(update(DriftCorrection).values(low_reading=-0.39))
    assert verify(session).observations_not_reproducible > 0


def test_two_corrections_do_not_overlap_but_follow_each_other(session: Session) -> None:
    measured(session, 8)
    approved(session)
    later = NewCorrection(
        "n-000001/d30", "soil_temperature", NOON + HOUR, NOON + 2 * HOUR, fouling=0.2
    )
    approved(session, later)
    act_as(session, "ada")
    over = NewCorrection(
        "n-000001/d30", "soil_temperature", NOON + SAMPLE, NOON + 2 * HOUR, fouling=0.1
    )
    draft = correcting.draft_correction(session, over, now=LATER)
    act_as(session, "grace")
    with pytest.raises(Conflict, match="holds for a part of that time; withdraw it first"):
        correcting.approve_correction(session, draft.id, now=LATER)
    work_off(session)
    assert values(session, "t30")[6] == pytest.approx(20.025)
    assert verify(session).is_clean


def _changed(**numbers: object) -> NewCorrection:
    return replace(VISIT, **numbers)


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    ("new", "kind", "sentence"),
    [
        (_changed(serial="nix"), NotFound, "no sensor nix"),
        (_changed(observed_property="battery_voltage"), CorrectionRefused, "not put right"),
        (_changed(observed_property="ph"), CalibrationWrong, "which delivers no ph"),
        (_changed(low=None), CorrectionWrong, "nothing to put right"),
        (_changed(fouling=float("nan")), CorrectionWrong, "numbers are finite"),
        (_changed(to_at=NOON - HOUR), CorrectionWrong, "comes after the earlier"),
        (_changed(to_at=NOON + HOUR / 6000), CorrectionWrong, "comes after the earlier"),
        (_changed(to_at=LATER + HOUR), CorrectionWrong, "lies in the future"),
        (_changed(from_at=NOON - timedelta(days=500)), CorrectionWrong, "at most 400 days"),
        (_changed(high=Check(-1.0, 2.0)), CorrectionWrong, "of two checks the first"),
        (_changed(note="x" * 501), CorrectionWrong, "at most 500 characters"),
    ],
)
def test_correction_that_cannot_be_is_refused_and_nothing_is_written(
    session: Session, new: NewCorrection, kind: type[FleetError], sentence: str
) -> None:
    measured(session, 1)
    with pytest.raises(kind, match=sentence):
        correcting.draft_correction(session, new, now=LATER)
    assert session.scalars(select(DriftCorrection)).all() == []


@pytest.mark.parametrize(
    ("new", "author", "approver", "sentence"),
    [
        (VISIT, "ada", "ada", "Who wrote a drift correction does not approve it"),
        (VISIT, "key 7 of ada", "ada", "Who wrote a drift correction does not approve it"),
        (VISIT, "ada", "key 7 of ada", "Who wrote a drift correction does not approve it"),
        (
            _changed(low=Check(0.0, -2.1)),
            "ada",
            "grace",
            "So large a drift correction may not be published",
        ),
    ],
)
def test_own_and_too_large_corrections_are_not_approved_not_even_by_a_key(
    session: Session, new: NewCorrection, author: str, approver: str, sentence: str
) -> None:
    measured(session, 4)
    act_as(session, author)
    draft = correcting.draft_correction(session, new, now=LATER)
    act_as(session, approver)
    with pytest.raises(CorrectionRefused, match=sentence):
        correcting.approve_correction(session, draft.id, now=LATER)
    assert session.scalars(select(Revision)).all() == []

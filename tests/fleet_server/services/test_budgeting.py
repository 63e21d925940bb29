"""What a value's u is made of, to the bit of what is stored; and u that grows with the time since a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.measurement.drift import Check
from fleet_server.models import (
    CalibrationKind,
    Channel,
    Observation,
    ObservedRange,
    PointStage,
    Scope,
    Sensor,
    StandardKind,
    observation_id,
)
from fleet_server.services import (
    aging,
    budget_words,
    budgeting,
    calibrating,
    calibration_list,
    certificate_sheet,
    correcting,
    ingest,
    revising,
    rights,
    standards,
)
from fleet_server.services.budgeting import ValueBudget
from fleet_server.services.calibrating import CalibrationRecord, NewCalibration, NewPoint
from fleet_server.services.correcting import NewCorrection
from fleet_server.services.standards import NewStandard
from fleet_server.services.verifying import verify

DAY, YEAR = timedelta(days=1), timedelta(days=365.25)
YEAR_S = 31_557_600


def act(session: Session, name: str, scope: Scope = Scope.ALL) -> None:
    rights.act_as(session, rights.Actor(name, frozenset(rights.Right), scope))


def serial_of(session: Session, key: str) -> str:
    query = select(Sensor.serial).join(Channel, Channel.sensor_id == Sensor.id)
    return session.scalars(query.where(Channel.key == key)).one()


def drafted(session: Session, key: str, **more: Any) -> CalibrationRecord:
    """Ice water, twice, for a thermometer."""
    act(session, "tina")
    given = {
        "property": "soil_temperature",
        "kind": CalibrationKind.OFFSET,
        "points": (NewPoint(0.25, 0.0, 0.02), NewPoint(0.27, 0.0, 0.02)),
        "u_absolute": 0.1,
        "performed_at": NOON,
        **more,
    }
    new = NewCalibration(serial=serial_of(session, key), performed_by="tina", **given)
    return calibrating.draft_calibration(session, new, now=given["performed_at"])


def approved(session: Session, record: CalibrationRecord, **more: Any) -> CalibrationRecord:
    act(session, "dora")
    now = record.calibration.performed_at or NOON
    return calibrating.approve_calibration(session, record.calibration.id, now=now, **more)


def work_through(session: Session, now: datetime) -> None:
    while revising.advance(session, now=now):
        pass


def latest(session: Session, key: str) -> ValueBudget:
    return budgeting.budget_of(session, budgeting.latest_of_channel(session, "n-000001", key))


def u_of(found: ValueBudget) -> Mapping[str, float]:
    return {part.name: part.u for part in found.parts}


def test_parts_of_every_value_add_up_to_the_stored_u_whatever_calibrated_and_corrected_it(
    session: Session,
) -> None:
    deployed_node(session)
    ingest.store_batch(
        session,
        [SimulatedNode(started_s=NOON_S).pack(1), SimulatedNode(started_s=NOON_S).pack(2, readings={"r30": 2000, "t60": "crc", "r60": 5000})],
        now=NOON + DAY,
    )  # fmt: skip
    approved(session, drafted(session, "t30", u_drift_absolute=0.3))
    act(session, "ada")
    visit = NewCorrection(
        serial_of(session, "t30"), "soil_temperature", NOON, NOON + DAY, low=Check(0.0, -0.4)
    )
    correction = correcting.draft_correction(session, visit, now=NOON + DAY)
    act(session, "grace")
    correcting.approve_correction(session, correction.id, now=NOON + DAY)
    work_through(session, NOON + DAY)
    assert verify(session).is_clean

    rows = session.execute(
        select(Observation, Channel.key)
        .join(Channel, Channel.datastream_id == Observation.datastream_id)
        .where(Observation.value.is_not(None))
    ).all()
    budgets = {}
    for row, key in rows:
        found = budgeting.budget_of(session, observation_id(row.datastream_id, row.sampled_at))
        assert np.float32(found.u) == np.float32(row.u)
        assert sum(part.u**2 for part in found.parts) == pytest.approx(found.u**2, rel=1e-12)
        assert round(sum(part.share_pct for part in found.parts), 9) == 100.0
        assert all(one.u >= other.u for one, other in pairwise(found.parts))
        assert found.expanded_u == found.k * found.u
        budgets[key, row.sampled_at] = found
    assert len(budgets) == len(rows) > 8

    corrected = budgets["t30", NOON + timedelta(minutes=15)]
    parts = u_of(corrected)
    assert set(parts) == {"resolution", "reference", "probe", "drift", "correction"}
    assert parts["correction"] == pytest.approx(0.3 * 0.4)
    assert parts["reference"] == pytest.approx(0.02 / 2**0.5)
    assert parts["drift"] == pytest.approx(0.3 * 900 / YEAR_S, rel=1e-6)
    assert [one.calibration and one.calibration.performed_by for one in corrected.parts if one.name == "probe"] == ["tina"]  # fmt: skip
    tension = budgets["r30", NOON + timedelta(minutes=15)]
    by_name = {part.name: part for part in tension.parts}
    assert by_name["temperature"].calibration is not None
    assert by_name["temperature"].calibration.id == corrected.calibration.id
    alone = budgets["r60", NOON + timedelta(minutes=30)]
    assert "temperature_assumed" in u_of(alone)
    assert "thermometer" in {one.code for one in alone.remedies}

    history = budgeting.budget_of(session, corrected.id, version=1)
    assert history.version.number == 1
    assert "correction" not in u_of(history)
    with pytest.raises(NotFound, match="no version 9"):
        budgeting.budget_of(session, corrected.id, version=9)


def test_value_without_a_site_calibration_says_so_and_what_one_would_bring(
    session: Session,
) -> None:
    deployed_node(session)
    ingest.store_batch(session, [SimulatedNode(started_s=NOON_S).pack(1)], now=NOON + DAY)
    found = latest(session, "r30")
    assert "Nobody has calibrated this probe" in budget_words.standing_said(found)
    (sentence,) = budget_words.remedies_said(found)
    best = found.remedies[0]
    assert best.u < 0.85 * found.u
    assert sentence == f"A calibration where it works would bring u from {found.u:.3g} kPa to about {best.u:.3g} kPa."  # fmt: skip
    for part in found.parts:
        assert budget_words.part_said(part.name)
        assert budget_words.source_said(part, "watermark_tension")

    promised = {one.code: one.u for one in latest(session, "t30").remedies}["calibrate"]
    approved(session, drafted(session, "t30", u_absolute=None))
    ingest.store_batch(session, [SimulatedNode(started_s=NOON_S).pack(2)], now=NOON + DAY)
    calibrated = latest(session, "t30")
    assert calibrated.u == pytest.approx(promised, rel=0.05), "what was promised came true"
    assert budget_words.standing_said(calibrated) == "The probe was calibrated by tina at 2026-07-01T12:00:00Z."  # fmt: skip
    assert "Nothing that we know of" in budget_words.remedies_said(calibrated)[0]


def test_value_that_has_no_budget_is_refused_and_one_that_was_changed_is_found_out(
    session: Session,
) -> None:
    deployed_node(session)
    node = SimulatedNode(started_s=NOON_S)
    ingest.store_batch(session, [node.pack(1, readings={"t30": 318, "t60": "crc"})], now=NOON + DAY)
    with pytest.raises(NotFound, match=r"has no channel x9; it has bat, r30"):
        budgeting.latest_of_channel(session, "n-000001", "x9")
    with pytest.raises(NotFound, match="no value yet"):
        latest(session, "t60")
    failed = session.scalars(select(Observation).where(Observation.value.is_(None))).first()
    assert failed is not None
    with pytest.raises(budgeting.NoBudget, match="has no value"):
        budgeting.budget_of(session, observation_id(failed.datastream_id, failed.sampled_at))
    public_id = budgeting.latest_of_channel(session, "n-000001", "t30")
    act(session, "walter", Scope.WATERS)
    with pytest.raises(NotFound):
        budgeting.budget_of(session, public_id)
    act(session, "ada")
    with db.writing(session):
        session.execute(update(Observation).where(Observation.value == 19.875).values(u=0.001))
    session.expire_all()
    with pytest.raises(budgeting.BudgetDiffers, match=r"0\.001 is stored"):
        budgeting.budget_of(session, public_id)


def test_u_grows_with_the_time_since_a_calibration_and_every_way_gives_the_same_bits(
    session: Session,
) -> None:
    """Ingest, what comes late, a revision, a day of extremes, and the proof of everything."""
    deployed_node(session)
    node = SimulatedNode(started_s=NOON_S)
    ingest.store_batch(session, [node.pack(1), node.pack(2, at_s=NOON_S + YEAR_S)], now=NOON + 2 * YEAR)  # fmt: skip
    record = drafted(session, "t30", u_drift_absolute=0.3, u_drift_relative=0.01)
    act(session, "dora")
    calibrating.approve_calibration(session, record.calibration.id, now=NOON + 2 * YEAR)
    work_through(session, NOON + 2 * YEAR)
    ingest.store_batch(session, [node.pack(3, at_s=NOON_S + 2 * YEAR_S)], now=NOON + 2 * YEAR)
    stream = select(Channel.datastream_id).where(Channel.key == "t30")
    us = session.scalars(
        select(Observation.u)
        .where(Observation.datastream_id.in_(stream))
        .order_by(Observation.sampled_at)
    ).all()
    value = 19.875 - 0.26
    start = (0.1**2 + 0.02**2 / 2 + 0.0625**2 / 12) ** 0.5
    grown = (0.3**2 + (0.01 * value) ** 2) ** 0.5
    assert us == pytest.approx([(start**2 + (years * grown) ** 2) ** 0.5 for years in (900 / YEAR_S, 1, 2)], rel=1e-5)  # fmt: skip
    assert verify(session).is_clean
    found = latest(session, "t30")
    assert found.remedies[0].code == "calibrate_again"
    assert found.remedies[0].u == pytest.approx(start, rel=1e-6)

    day = SimulatedNode(started_s=NOON_S + YEAR_S, spool=0x51002)
    ingest.store_batch(session, [day.thinned(1, 90)], now=NOON + 2 * YEAR)
    row = session.scalars(select(ObservedRange).where(ObservedRange.datastream_id.in_(stream))).one()  # fmt: skip
    years = 1 + 90 * 900 / YEAR_S
    assert row.u_highest == pytest.approx((start**2 + (years * grown) ** 2) ** 0.5, rel=1e-6), (
        "as unsure as at its end"
    )
    assert verify(session).is_clean


def test_growth_comes_from_the_author_else_from_what_the_probe_was_found_off_by_else_from_its_kind(
    session: Session,
) -> None:
    deployed_node(session)
    first = approved(session, drafted(session, "t30")).calibration
    assert (first.u_drift_absolute, first.u_drift_relative) == (0.05, 0.0), "by its property"
    for number, error in ((1, 0.2), (2, -0.1)):
        at = NOON + number * YEAR
        # In ice: what the calibration then makes of the reading is beside 0 by the error.
        found = NewPoint(0.26 - error, 0.0, 0.02, stage=PointStage.AS_FOUND, step="found", taken_at=at)  # fmt: skip
        record = drafted(session, "t30", performed_at=at, points=(NewPoint(0.26, 0.0, 0.02), found))
        approved(session, record)
    suggestion = aging.suggested(session, first.sensor_id, "soil_temperature", before=NOON + 3 * YEAR)  # fmt: skip
    assert suggestion.visits == 2
    assert suggestion.growth.absolute == pytest.approx(((0.2**2 + 0.1**2) / 2) ** 0.5)
    third = drafted(session, "t30", performed_at=NOON + 3 * YEAR).calibration
    assert third.u_drift_absolute == pytest.approx(0.158, abs=1e-3)
    own = drafted(session, "t30", performed_at=NOON + 3 * YEAR, u_drift_absolute=0.0).calibration
    assert (own.u_drift_absolute, own.drift_due_at) == (0.0, None)
    with pytest.raises(calibrating.CalibrationWrong, match="What a year adds to u"):
        drafted(session, "t30", u_drift_absolute=-0.1)


def test_probe_is_due_when_what_time_adds_is_more_than_may_stay(session: Session) -> None:
    """0.2 K may stay; with 0.4 K a year U = 2u comes to it in a quarter, long before the type's interval."""
    deployed_node(session)
    record = drafted(session, "t30", u_drift_absolute=0.4)
    serial = record.sensor.serial
    before = calibration_list.probe_of(session, serial)
    approved(session, record)
    line = calibration_list.probe_of(session, serial)
    quarter = NOON + YEAR / 4
    assert line.due_at == quarter < before.due_at
    assert not line.is_due(quarter - DAY)
    assert line.is_due(quarter)
    for now, is_there in ((quarter - DAY, False), (quarter, True)):
        page = calibration_list.probe_page(session, now=now, limit=50, is_due=True)
        assert (serial in [one.sensor.serial for one in page.items]) is is_there
        assert calibration_list.due_count(session, now=now) == len(page.items)
    # A later one that grows more slowly takes its place.
    again = drafted(session, "t30", u_drift_absolute=0.01, performed_at=NOON + DAY)
    approved(session, again)
    assert calibration_list.probe_of(session, serial).due_at > quarter


def test_points_of_one_lot_share_what_its_certificate_leaves_open_and_the_certificate_says_so(
    session: Session,
) -> None:
    """Three points in one bottle of ±0.02 are hardly surer than one; as bottles of their own they would be 1.7 times surer."""
    deployed_node(session)
    act(session, "tina")
    ice = standards.add_standard(
        session,
        NewStandard(
            StandardKind.FIXED_POINT, "soil_temperature", "ice", 0.02, ((0.0, 0.0),), lot="L1"
        ),
        now=NOON,
    )
    points = tuple(NewPoint(0.25 + at / 100, standard_id=ice.id, temperature_c=0.0) for at in range(3))  # fmt: skip
    record = drafted(session, "t30", points=points)
    found = record.calibration
    assert found.u_offset == pytest.approx((0.02**2 + 0.01**2 / 3) ** 0.5, rel=1e-9)
    shared, *own = (found.fit or {})["references"]
    assert (shared["standard"], shared["points"], shared["u"]) == (ice.id, [1, 2, 3], 0.02)
    assert shared["moves"] == pytest.approx([0.02, 0.0, 0.0])
    assert len(own) == 3
    assert certificate_sheet.certificate_pdf(record.content(), record.sha256).startswith(b"%PDF")
    approved(session, record)
    ingest.store_batch(session, [SimulatedNode(started_s=NOON_S).pack(1)], now=NOON + DAY)
    by_name = {part.name: part for part in latest(session, "t30").parts}
    assert by_name["reference"].u == pytest.approx(found.u_offset)
    assert [one.name for one in by_name["reference"].standards] == ["ice"]
    assert "against ice L1" in budget_words.source_said(by_name["reference"], "sixteenths")

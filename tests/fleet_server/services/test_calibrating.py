"""Calibrations from a draft to their approval, and what is refused on the way."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.errors import FleetError, NotFound
from fleet_server.models import (
    AuditEntry,
    Calibration,
    CalibrationKind,
    CalibrationStatus,
    Channel,
    Observation,
    Revision,
    Scope,
    Sensor,
    StandardKind,
)
from fleet_server.services import (
    auditing,
    calibrating,
    calibration_list,
    certifying,
    deploying,
    ingest,
    rehearsing,
    revising,
    rights,
    standards,
)
from fleet_server.services.calibrating import CalibrationRecord, NewCalibration, NewPoint
from fleet_server.services.calibration_list import CalibrationFilter
from fleet_server.services.standards import NewStandard
from fleet_server.services.verifying import verify

pytestmark = pytest.mark.postgresql_at_night

DAY = timedelta(days=1)
LATER = NOON + timedelta(hours=6)
BUFFER_7 = NewStandard(
    StandardKind.SOLUTION,
    "ph",
    "phosphate buffer",
    0.01,
    points=((10.0, 6.923), (20.0, 6.881), (25.0, 6.865)),
    lot="L-7",
    expires_at=NOON + DAY,
)
TENSION = NewCalibration(
    serial="n-000001/w30",
    property="soil_water_tension",
    kind=CalibrationKind.LINEAR,
    performed_by="tina",
    performed_at=NOON,
    points=(NewPoint(10.0, 11.0, 0.5), NewPoint(40.0, 42.0, 0.5), NewPoint(80.0, 83.0, 0.5)),
    environment={"temperature_c": 21.5},
)


def act(session: Session, name: str, scope: Scope = Scope.ALL) -> None:
    rights.act_as(session, rights.Actor(name, frozenset(rights.Right), scope))


def draft(session: Session, **changes: Any) -> CalibrationRecord:
    act(session, "tina")
    return calibrating.draft_calibration(session, replace(TENSION, **changes), now=NOON)


def approve(session: Session, record: CalibrationRecord, **more: Any) -> CalibrationRecord:
    act(session, "dora")
    return calibrating.approve_calibration(
        session, record.calibration.id, **{"now": LATER, "looked_at": record.sha256, **more}
    )


def statuses(session: Session, record: CalibrationRecord) -> list[str]:
    """Of all versions of that property of that probe, the maker's first."""
    query = select(Calibration.status).where(
        Calibration.sensor_id == record.sensor.id,
        Calibration.property == record.calibration.property,
    )
    session.expire_all()
    return list(session.scalars(query.order_by(Calibration.version)))


def newest_value(session: Session, key: str = "r30") -> tuple[float, int]:
    """Value of a channel's newest observation, and the calibration that made it."""
    row = session.execute(
        text(
            "SELECT o.value, l.calibration_id FROM observation o JOIN lineage l ON l.id = o.lineage_id"
            " JOIN channel c ON c.datastream_id = o.datastream_id WHERE c.key = :key"
            " ORDER BY o.sampled_at DESC LIMIT 1"
        ),
        {"key": key},
    ).one()
    return row[0], row[1]


def test_draft_makes_nothing_and_its_approval_by_another_makes_what_comes_after(
    session: Session,
) -> None:
    deployed_node(session)
    record = draft(session)
    node = SimulatedNode(started_s=NOON_S - 86_400)
    ingest.store_batch(session, [node.pack(at_s=NOON_S + 60)], now=LATER)
    before, factory_id = newest_value(session)
    assert factory_id != record.calibration.id

    approved = approve(session, record)

    found = approved.calibration
    assert (found.status, found.approved_by, found.approved_at) == ("approved", "dora", LATER)
    assert found.certificate_sha256 == certifying.digest(found.certificate or {})
    assert statuses(session, record) == ["superseded", "approved"]
    ingest.store_batch(session, [node.pack(at_s=NOON_S + 900)], now=LATER)
    value, calibration_id = newest_value(session)
    assert calibration_id == found.id
    assert value == found.offset + found.slope * before
    assert verify(session).is_clean
    actions = session.scalars(
        select(AuditEntry.action)
        .where(AuditEntry.subject == f"calibration {found.id}")
        .order_by(AuditEntry.seq)
    )
    assert list(actions) == ["calibration_drafted", "calibration_approved"]
    assert auditing.verify_chain(session).fault is None


def test_certificate_that_somebody_changed_in_the_database_is_not_given_out(
    session: Session,
) -> None:
    deployed_node(session)
    approved = approve(session, draft(session)).calibration
    told, sha256 = calibrating.certificate_of(session, approved.id)
    assert sha256 == certifying.digest(told)
    with db.writing(session):
        approved.certificate = {**told, "performed_by": "somebody else"}
    with pytest.raises(calibrating.CertificateChanged, match="not what was approved"):
        calibrating.certificate_of(session, approved.id)
    with pytest.raises(calibrating.CalibrationElsewhere, match="has no certificate"):
        calibrating.certificate_of(session, approved.previous_id or 0)


def test_line_is_that_of_the_published_example_with_its_covariance(session: Session) -> None:
    """measurement.md §2: x, y, u of five points; offset, slope and covariance of GTC."""
    deployed_node(session)
    columns = zip(
        (0.5, 1, 1.5, 2, 2.5),
        (0.031, 0.118, 0.205, 0.301, 0.382),
        (0.008, 0.008, 0.010, 0.012, 0.012),
        strict=True,
    )
    points = tuple(NewPoint(x, y, u) for x, y, u in columns)
    found = draft(session, points=points).calibration
    assert found.offset == pytest.approx(-0.05809677, abs=1e-8)
    assert found.slope == pytest.approx(0.17685484, abs=1e-8)
    assert found.slope_offset_covariance == pytest.approx(-5.0278657e-5, rel=1e-6)
    assert (found.fit or {})["chi_squared"] == pytest.approx(0.2942, abs=1e-4)


def serial_of(session: Session, key: str) -> str:
    """Of the probe behind a channel."""
    query = select(Sensor.serial).join(Channel, Channel.sensor_id == Sensor.id)
    return session.scalars(query.where(Channel.key == key)).one()


def test_one_point_moves_zero_and_leaves_the_slope(session: Session) -> None:
    deployed_node(session)
    record = draft(
        session,
        serial=serial_of(session, "t30"),
        property="soil_temperature",
        kind=CalibrationKind.OFFSET,
        points=(NewPoint(0.3, 0.0, 0.02), NewPoint(0.32, 0.0, 0.02)),
    )
    found = record.calibration
    assert (found.offset, found.slope, found.u_slope) == (pytest.approx(-0.31), 1.0, 0.0)
    assert record.faults == []


SECOND = timedelta(seconds=1)
MOMENT = timedelta(milliseconds=600)
"""Too short to be told from nothing."""
NAN, INF = float("nan"), float("inf")


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        ({"serial": "nobody"}, "not_found", "no sensor nobody"),
        ({"property": "ph"}, "calibration_wrong", "delivers no ph"),
        ({"kind": CalibrationKind.FACTORY}, "calibration_wrong", "choose another kind"),
        ({"performed_by": " "}, "calibration_wrong", "Performed by: 1 to"),
        ({"performed_at": LATER}, "calibration_wrong", "not in the future"),
        ({"valid_to": NOON}, "calibration_wrong", "ends after it begins"),
        ({"valid_to": NOON + MOMENT}, "calibration_wrong", "ends after it begins"),
        ({"u_absolute": NAN}, "calibration_wrong", "own uncertainty"),
        ({"environment": {"temperature_c": INF}}, "calibration_wrong", "circumstance"),
        ({"points": (NewPoint(NAN, 1.0, 0.1),)}, "calibration_wrong", "finite"),
        ({"points": (NewPoint(1.0, INF, 0.1),)}, "calibration_wrong", "finite"),
        ({"points": (NewPoint(1e300, 1.0, 0.1),)}, "calibration_wrong", "finite and below"),
        ({"points": (NewPoint(1.0, 1.0, 0.0),)}, "calibration_wrong", "above zero"),
        ({"points": (NewPoint(1.0, 1.0),)}, "calibration_wrong", "which standard"),
        ({"points": (NewPoint(1.0, standard_id=77),)}, "not_found", "no standard 77"),
        ({"points": (NewPoint(1.0, standard_id=10**20),)}, "not_found", "no standard 1000"),
        ({"points": (NewPoint(1.0, 1.0, 0.1, taken_at=LATER),)}, "calibration_wrong", "future"),
        ({"points": (NewPoint(1.0, 1.0, 0.1),) * 61}, "calibration_wrong", "at most 60"),
    ],
)
def test_draft_that_cannot_be_is_refused_and_nothing_of_it_is_kept(
    session: Session, changes: dict[str, Any], code: str, sentence: str
) -> None:
    deployed_node(session)
    with pytest.raises(FleetError, match=sentence) as refused:
        draft(session, **changes)
    assert refused.value.code == code
    page = calibration_list.calibration_page(session, CalibrationFilter(), limit=9)
    assert page.items == []


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    ("points", "fault"),
    [
        ((), "too few points"),
        ((NewPoint(1.0, 1.0, 0.1),), "too few points: 1, where 2"),
        ((NewPoint(1.0, 1.0, 0.1), NewPoint(1.0, 2.0, 0.1)), "determine no line"),
        ((NewPoint(0.0, 0.0, 0.1), NewPoint(50.0, 50.0, 0.1)), "too few points: 2, where 3"),
        (tuple(NewPoint(x, 8 * x, 0.1) for x in (0.0, 10.0, 20.0)), "slope is 8"),
        (tuple(NewPoint(x, x, 0.1) for x in (0.0, 1.0, 2.0)), "lie only 2 apart"),
        (
            tuple(NewPoint(x, y, 0.1) for x, y in ((0, 0), (50, 60), (100, 100), (75, 75))),
            "beside the fit",
        ),
        (tuple(NewPoint(n * 1e-9, n * 5e8, 1e-9) for n in range(3)), "cannot be trusted"),
    ],
)
def test_fit_that_cannot_be_trusted_is_kept_as_a_draft_and_never_approved(
    session: Session, points: tuple[NewPoint, ...], fault: str
) -> None:
    deployed_node(session)
    record = draft(session, points=points)
    assert len(record.points) == len(points)
    with pytest.raises(calibrating.FitRefused, match=fault):
        calibrating.refit(session, record.calibration.id, now=NOON)
    with pytest.raises(calibrating.FitRefused, match=fault):
        approve(session, record)
    assert statuses(session, record) == ["approved", "draft"]


def test_who_had_a_hand_in_it_does_not_approve_it_not_even_by_a_key(session: Session) -> None:
    deployed_node(session)
    record = draft(session, performed_by="paul")
    act(session, "eva")
    record = calibrating.put_point(
        session, record.calibration.id, NewPoint(60.0, 62.5, 0.5), now=NOON
    )
    for name in ("tina", "key 3 of tina", "paul", "eva"):
        act(session, name)
        with pytest.raises(calibrating.FourEyes, match="somebody who had no hand in it"):
            calibrating.approve_calibration(session, record.calibration.id, now=LATER)
    assert approve(session, record).calibration.approved_by == "dora"


def test_draft_that_changed_since_it_was_looked_at_is_not_approved(session: Session) -> None:
    deployed_node(session)
    seen = draft(session)
    sha256 = seen.sha256
    again = NewPoint(80.0, 83.5, 0.5, step="3")
    calibrating.put_point(session, seen.calibration.id, again, now=NOON)
    with pytest.raises(calibrating.CalibrationChanged, match="look again"):
        approve(session, seen, looked_at=sha256)
    again = calibrating.record_of(session, seen.calibration.id)
    assert approve(session, again).calibration.status == CalibrationStatus.APPROVED


def test_step_taken_again_takes_the_place_of_the_one_before(session: Session) -> None:
    deployed_node(session)
    record = draft(session, points=())
    for indicated in (9.0, 10.0):
        point = NewPoint(indicated, 11.0, 0.5, step="wet")
        record = calibrating.put_point(session, record.calibration.id, point, now=NOON)
    assert [(one.step, one.indicated) for one in record.points] == [("wet", 10.0)]


@pytest.mark.also_on_postgresql
def test_two_approved_ones_never_begin_at_one_time(session: Session) -> None:
    deployed_node(session)
    first, second = draft(session), draft(session)
    approve(session, first)
    with pytest.raises(calibrating.TwoForOneTime, match="Version 2 is approved and begins at"):
        approve(session, second)
    with pytest.raises(calibrating.TwoForOneTime):
        approve(session, second, valid_from=NOON - DAY)
    later = approve(session, second, valid_from=NOON + timedelta(hours=1))
    assert statuses(session, later) == ["superseded", "superseded", "approved"]
    # Nor behind the service's back.
    with pytest.raises(IntegrityError), db.writing(session):
        session.execute(
            text(
                "UPDATE calibration SET valid_from = (SELECT valid_from FROM calibration WHERE id = :id), status = 'approved' WHERE id <> :id AND kind <> 'factory'"
            ),
            {"id": second.calibration.id},
        )


def test_one_that_ends_gives_back_to_the_one_before(session: Session) -> None:
    deployed_node(session)
    bounded = approve(session, draft(session, valid_to=NOON + DAY))
    assert statuses(session, bounded) == ["approved", "approved"]
    assert bounded.calibration.previous_id is not None


def test_time_without_any_calibration_is_refused(session: Session) -> None:
    deployed_node(session)
    record = draft(session)
    with db.writing(session):
        factory = session.scalars(
            select(Calibration).where(
                Calibration.sensor_id == record.sensor.id, Calibration.version == 1
            )
        ).one()
        factory.valid_to = NOON - DAY
    with pytest.raises(calibrating.NoOverlap, match="before this one begins"):
        approve(session, record)
    assert approve(session, record, valid_from=NOON - DAY).calibration.status == "approved"


def test_time_in_which_the_probe_was_nowhere_is_refused(session: Session) -> None:
    deployed_node(session, from_at=NOON - DAY)
    begin = NOON - 9 * DAY
    record = draft(session, performed_at=begin, valid_to=NOON - 2 * DAY, points=tuple(replace(one, taken_at=begin) for one in TENSION.points))  # fmt: skip
    with pytest.raises(calibrating.NoOverlap, match="mounted nowhere"):
        approve(session, record)


def values(session: Session, key: str) -> list[float | None]:
    stream = select(Channel.datastream_id).where(Channel.key == key)
    query = select(Observation.value).where(Observation.datastream_id.in_(stream))
    session.expire_all()
    return list(session.scalars(query.order_by(Observation.sampled_at)))


@pytest.mark.also_on_postgresql
def test_what_was_observed_since_is_made_anew_with_what_needs_it_and_taken_back_by_a_withdrawal(
    session: Session,
) -> None:
    """A tension needs its soil's temperature."""
    deployed_node(session)
    node = SimulatedNode(started_s=NOON_S - 3600)
    ingest.store_batch(session, node.packs(range(1, 9)), now=LATER)
    before = {key: values(session, key) for key in ("t30", "r30", "r60")}
    record = draft(
        session,
        serial=serial_of(session, "t30"),
        property="soil_temperature",
        kind=CalibrationKind.OFFSET,
        points=(NewPoint(0.5, 0.0, 0.02),),
    )

    act(session, "dora")
    rehearsed = rehearsing.rehearse_approval(session, record.calibration.id).streams
    assert {
        (one.stream.property, one.change.compared, one.change.changed) for one in rehearsed
    } == {
        ("soil_temperature", 5, 5),
        ("soil_water_tension", 5, 5),
    }
    assert [one.change.largest for one in rehearsed if one.stream.unit == "Cel"] == [0.5]
    assert statuses(session, record) == ["approved", "draft"]
    assert {key: values(session, key) for key in before} == before
    assert session.scalars(select(Revision)).all() == []

    approved = approve(session, record)  # it was performed at noon: five packs are from then on

    revision = session.scalars(select(Revision)).one()
    assert (revision.kind, revision.author, revision.approver) == ("calibration", "tina", "dora")
    while revising.advance(session, now=LATER):
        pass
    temperatures = values(session, "t30")
    changed = [new != old for new, old in zip(temperatures, before["t30"], strict=True)]
    assert changed == [False, False, False, True, True, True, True, True]
    assert temperatures[-1] == pytest.approx(19.875 - 0.5)
    assert [new != old for new, old in zip(values(session, "r30"), before["r30"], strict=True)] == changed  # fmt: skip
    assert values(session, "r60") == before["r60"]
    assert verify(session).is_clean
    act(session, "dora")
    calibrating.withdraw_calibration(
        session, approved.calibration.id, reason="wrong ice", now=LATER + DAY
    )
    while revising.advance(session, now=LATER + DAY):
        pass
    assert {key: values(session, key) for key in before} == before
    assert verify(session).is_clean


def test_day_of_which_there_are_only_extremes_is_not_given_another_calibration(
    session: Session,
) -> None:
    deployed_node(session)
    node = SimulatedNode(started_s=NOON_S)
    ingest.store_batch(session, [node.thinned(1, 8)], now=LATER)
    record = draft(session)
    with pytest.raises(calibrating.ExtremesThere, match="until 2026-07-01T14:00:00Z"):
        approve(session, record)
    assert statuses(session, record) == ["approved", "draft"]
    late = approve(session, record, valid_from=NOON + timedelta(hours=3))
    with pytest.raises(calibrating.CalibrationElsewhere):
        approve(session, late)


def test_withdrawn_one_gives_back_to_the_one_before_and_keeps_its_record(session: Session) -> None:
    deployed_node(session)
    approved = approve(session, draft(session))
    gone = calibrating.withdraw_calibration(
        session, approved.calibration.id, reason="wrong bottle", now=LATER
    )
    assert (gone.calibration.withdrawn_reason, gone.calibration.withdrawn_by) == ("wrong bottle", "dora")  # fmt: skip
    assert statuses(session, gone) == ["approved", "withdrawn"]
    assert len(gone.points) == 3
    for calibration_id, sentence in (
        (approved.calibration.id, "is withdrawn already"),
        (gone.calibration.previous_id, "maker's calibration cannot be withdrawn"),
    ):
        with pytest.raises(calibrating.CalibrationElsewhere, match=sentence):
            calibrating.withdraw_calibration(session, calibration_id or 0, reason="x", now=LATER)
    with pytest.raises(calibrating.CalibrationWrong, match="Reason: 1 to"):
        calibrating.withdraw_calibration(session, draft(session).calibration.id, reason="", now=LATER)  # fmt: skip


def test_expired_and_discarded_standards_are_refused_and_a_buffer_is_worth_what_its_temperature_makes_it(
    session: Session,
) -> None:
    deployed_node(session, model="pond-3")
    serial = session.scalars(select(Sensor.serial).where(Sensor.sensor_type == "ezo_ph")).one()
    act(session, "tina")
    buffer = standards.add_standard(session, BUFFER_7, now=NOON - DAY)
    new = NewCalibration(serial, "ph", CalibrationKind.OFFSET, "tina", NOON)
    record = calibrating.draft_calibration(session, new, now=NOON)
    point = NewPoint(7.0, standard_id=buffer.id, temperature_c=15.0)
    record = calibrating.put_point(session, record.calibration.id, point, now=NOON)
    (kept,) = record.points
    assert (kept.reference, kept.u_reference) == (pytest.approx(6.902), 0.01)
    assert record.calibration.reference == "against phosphate buffer L-7"
    refused = [
        (replace(point, temperature_c=None), NOON, "give its temperature"),
        (replace(point, temperature_c=40.0), NOON, "not at 40 °C"),
        (replace(point, reference=7.0), NOON, "give no other value"),
        (point, NOON + 2 * DAY, "lot L-7 expired on 2026-07-02T12:00:00Z"),
    ]
    for wrong, now, sentence in refused:
        with pytest.raises(FleetError, match=sentence):
            calibrating.put_point(session, record.calibration.id, wrong, now=now)
    standards.discard_standard(session, buffer.id, now=NOON)
    with pytest.raises(standards.StandardExpired, match="was discarded"):
        calibrating.put_point(session, record.calibration.id, point, now=NOON + timedelta(hours=1))
    assert [(one.step, one.indicated) for one in calibrating.record_of(session, record.calibration.id).points] == [("1", 7.0)]  # fmt: skip


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"property": "luck"}, "no property luck"),
        ({"name": ""}, "name has 1 to"),
        ({"u": 0.0}, "above zero"),
        ({"u": NAN}, "above zero"),
        ({"points": ()}, "1 to 40 pairs"),
        ({"points": ((20.0, INF),)}, "are numbers"),
        ({"points": ((20.0, 7.0), (10.0, 7.1))}, "ascend"),
        ({"kind": StandardKind.INSTRUMENT}, "give no values"),
        ({"kind": StandardKind.AIR_SATURATION, "points": ()}, "Only probes of oxygen"),
        ({"expires_at": datetime(2999, 1, 1, tzinfo=NOON.tzinfo)}, "expires between"),
    ],
)
def test_standard_that_cannot_be_is_refused(
    session: Session, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(standards.StandardWrong, match=sentence):
        standards.add_standard(session, replace(BUFFER_7, **changes), now=NOON)


def test_saturated_water_holds_what_temperature_and_pressure_make_of_it(session: Session) -> None:
    """Benson and Krause 1984: 9.09243 mg/L at 20 °C and 1 atm."""
    air = NewStandard(StandardKind.AIR_SATURATION, "dissolved_oxygen", "air", 0.05)
    made = standards.add_standard(session, air, now=NOON)
    worth = standards.value_of(made, temperature_c=20.0, pressure_hpa=1013.25)
    assert worth == pytest.approx(9.09243, abs=1e-5)
    for pressure_hpa, sentence in ((None, "give both"), (101.3, "between 500 and 1100 hPa")):
        with pytest.raises(standards.StandardWrong, match=sentence):
            standards.value_of(made, temperature_c=20.0, pressure_hpa=pressure_hpa)
    with pytest.raises(standards.StandardTaken):
        standards.add_standard(session, air, now=NOON)


@pytest.mark.also_on_postgresql
def test_two_approvers_at_once_have_one_winner(sessions: sessionmaker[Session]) -> None:
    with sessions() as session:
        deployed_node(session)
        records = [draft(session), draft(session)]
    told: list[str] = []
    start = threading.Barrier(4)

    def approve_it(record: CalibrationRecord) -> None:
        with sessions() as mine:
            start.wait()
            try:
                approve(mine, record)
                told.append("approved")
            except FleetError as problem:
                told.append(problem.code)

    threads = [threading.Thread(target=approve_it, args=(records[n % 2],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.count("approved") == 1
    assert set(told) <= {"approved", "two_for_one_time", "calibration_elsewhere"}
    with sessions() as session:
        found = session.scalars(select(Calibration).where(Calibration.kind != "factory")).all()
        assert sorted(one.status for one in found) == ["approved", "draft"]


def test_probe_is_due_after_its_types_interval_and_not_before(session: Session) -> None:
    deployed_node(session, model="pond-3")
    every = timedelta(days=90)  # hardware/sensors/ezo_ph.toml

    def due(now: datetime) -> set[str]:
        page = calibration_list.probe_page(session, now=now, limit=99, is_due=True)
        assert calibration_list.due_count(session, now=now) == len(page.items)
        assert all(line.is_due(now) and line.node_id == "n-000001" for line in page.items)
        return {line.sensor.sensor_type for line in page.items}

    assert "ezo_ph" not in due(NOON + every - DAY)
    assert "ezo_ph" in due(NOON + every)
    serial = session.scalars(select(Sensor.serial).where(Sensor.sensor_type == "ezo_ph")).one()
    points = (NewPoint(7.0, 6.88, 0.01), NewPoint(4.0, 4.0, 0.01))
    performed = NOON + DAY
    act(session, "tina")
    record = calibrating.draft_calibration(
        session,
        replace(TENSION, serial=serial, property="ph", points=points, performed_at=performed),
        now=performed,
    )
    assert "ezo_ph" in due(NOON + every)
    # It holds for the past, too; the probe was in its buffers when it was performed.
    approve(session, record, valid_from=NOON - 2 * every)
    assert "ezo_ph" not in due(NOON + every + DAY - SECOND)
    assert "ezo_ph" in due(NOON + every + DAY)


def test_calibrations_out_of_scope_are_not_there(session: Session) -> None:
    deployed_node(session)
    record = draft(session)
    act(session, "wanda", Scope.WATERS)
    assert calibration_list.calibration_page(session, CalibrationFilter(), limit=9).items == []
    assert calibration_list.probe_page(session, now=NOON, limit=9).items == []
    for call in (
        lambda: calibrating.record_of(session, record.calibration.id),
        lambda: calibrating.approve_calibration(session, record.calibration.id, now=LATER),
        lambda: calibrating.draft_calibration(session, TENSION, now=NOON),
        lambda: calibration_list.probe_of(session, TENSION.serial),
    ):
        with pytest.raises(NotFound):
            call()


def test_probe_takes_its_calibration_along_to_another_node(session: Session) -> None:
    deployed_node(session)
    approved = approve(session, draft(session))
    deploying.end_deployment(session, "n-000001", to_at=LATER, now=LATER)
    deployed_node(session, "n-000002", from_at=NOON - DAY)
    deploying.swap_sensor(
        session, "n-000002", "w30", serial=TENSION.serial, at=LATER + DAY, now=LATER + 2 * DAY
    )
    later_s = int((LATER + DAY).timestamp())
    pack = SimulatedNode(node_id="n-000002", started_s=later_s).pack()
    ingest.store_batch(session, [pack], now=LATER + 2 * DAY)
    assert newest_value(session)[1] == approved.calibration.id

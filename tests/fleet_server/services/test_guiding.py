"""Guided calibration with packs as a node in field mode sends them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.errors import FleetError, NotFound
from fleet_server.measurement import stability
from fleet_server.models import Calibration, Observation, StandardKind
from fleet_server.services import calibrating, guiding, ingest, rights, standards
from fleet_server.services.guiding import Live, Taking
from fleet_server.services.standards import NewStandard
from hardware import vocabulary

KEYS = {"ph": 7000.0, "tw": 320.0, "do": 850.0, "ec": 50_000.0, "bat": 3900.0}


class FieldNode:
    """A pond-3 that sends every 30 s."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.now = NOON
        self._node = SimulatedNode(started_s=NOON_S - 3600)
        deployed_node(session, model="pond-3")
        rights.act_as(session, rights.Actor("tina", frozenset(rights.Right)))

    def send(self, count: int, **readings: float) -> None:
        messages = []
        for _ in range(count):
            self.now += timedelta(seconds=30)
            values: Mapping[str, float | str] = {**KEYS, **readings}
            messages.append(self._node.pack(readings=values, at_s=int(self.now.timestamp())))
        ingest.store_batch(self.session, messages, now=self.now)

    def live(self, key: str) -> Live:
        (channel,) = [
            one for one in guiding.guided_channels(self.session, "n-000001") if one.key == key
        ]
        return guiding.live_readings(self.session, channel, now=self.now)


@pytest.fixture
def node(session: Session) -> FieldNode:
    return FieldNode(session)


def buffer(session: Session, name: str, worth: float, expires_at: datetime | None = None) -> int:
    made = NewStandard(StandardKind.SOLUTION, "ph", name, 0.01, ((20.0, worth),), "L", "", expires_at)  # fmt: skip
    return standards.add_standard(session, made, now=NOON).id


def test_three_buffers_step_by_step_end_in_a_draft_with_its_fit(
    session: Session, node: FieldNode
) -> None:
    worth = {"ph7": (6980, 6.88), "ph4": (4100, 4.0), "ph10": (9320, 9.22)}
    ids = {step: buffer(session, step, value) for step, (_, value) in worth.items()}
    record = guiding.begin_guided(session, "n-000001", "ph", now=NOON)
    calibration_id = record.calibration.id
    for step, (raw, _) in worth.items():
        node.send(6, ph=raw)
        taking = Taking(step, standard_id=ids[step], temperature_c=20.0)
        record = guiding.take_step(session, calibration_id, taking, now=node.now)
    assert [one.step for one in record.points] == list(worth)
    assert record.points[0].reference == 6.88
    assert (record.points[0].steadiness or {})["reason"] == ""
    assert record.faults == []
    assert record.calibration.slope == pytest.approx(1.0, abs=1e-6)
    assert record.calibration.performed_by == "tina"

    # Begun again after the phone was lost: it goes on.
    again = guiding.begin_guided(session, "n-000001", "ph", now=node.now)
    assert again.calibration.id == calibration_id
    node.send(6, ph=7040)
    taking = Taking("ph7", standard_id=ids["ph7"], temperature_c=20.0)
    repeated = guiding.take_step(session, calibration_id, taking, now=node.now)
    assert len(repeated.points) == 3
    assert {one.step: one.indicated for one in repeated.points}["ph7"] == pytest.approx(7.04, 1e-3)
    assert session.scalar(select(func.count()).where(Calibration.procedure == "ph")) == 1


def test_live_value_is_before_calibration_and_nothing_is_stored_by_looking(
    session: Session, node: FieldNode
) -> None:
    record = guiding.begin_guided(session, "n-000001", "ph", now=NOON)
    for indicated, reference in ((7.0, 6.0), (4.0, 3.0)):
        point = calibrating.NewPoint(indicated, reference, 0.01)
        calibrating.put_point(session, record.calibration.id, point, now=NOON)
    rights.act_as(session, rights.Actor("dora", frozenset(rights.Right)))
    calibrating.approve_calibration(session, record.calibration.id, now=NOON)
    node.send(6, ph=7000)
    before = session.scalar(select(func.count()).select_from(Observation))
    live = node.live("ph")
    published = session.scalars(select(Observation.value).order_by(Observation.sampled_at.desc()))
    assert 6.0 in [value and round(value, 1) for value in published]
    assert live.newest is not None
    assert live.newest[1] == pytest.approx(7.0, abs=0.01)
    assert live.temperature_c is not None
    assert session.scalar(select(func.count()).select_from(Observation)) == before


def test_step_waits_until_the_reading_stands_still(session: Session, node: FieldNode) -> None:
    number = buffer(session, "seven", 6.88)
    record = guiding.begin_guided(session, "n-000001", "ph", now=NOON)
    taking = Taking("ph7", standard_id=number)

    def refused(sentence: str, wrong: Taking = taking) -> None:
        with pytest.raises(FleetError, match=sentence):
            guiding.take_step(session, record.calibration.id, wrong, now=node.now)
        assert calibrating.record_of(session, record.calibration.id).points == []

    refused("No reading of the probe came")
    for raw in (6000, 6200, 6400, 6600, 6800, 7000):
        node.send(1, ph=raw)
    refused("does not stand still yet")
    refused("no step ph5", Taking("ph5"))
    node.send(6, ph=7000)
    assert node.live("ph").stability.is_stable
    refused("Choose the standard", Taking("ph7"))
    node.now += timedelta(minutes=4)
    refused("older than 3 minutes")
    node.now -= timedelta(minutes=4)
    taken = guiding.take_step(session, record.calibration.id, taking, now=node.now)
    assert taken.points[0].indicated == pytest.approx(7.0, abs=0.01)


def test_unsteady_reading_is_taken_when_somebody_says_so_and_the_point_remembers_it(
    session: Session, node: FieldNode
) -> None:
    record = guiding.begin_guided(session, "n-000001", "ph", now=NOON)
    number = buffer(session, "seven", 6.88)
    for raw in (6900, 7100, 6900, 7100, 6900):
        node.send(1, ph=raw)
    taking = Taking("ph7", standard_id=number, takes_unsteady=True)
    taken = guiding.take_step(session, record.calibration.id, taking, now=node.now)
    (point,) = taken.points
    assert (point.steadiness or {})["reason"] in ("slope", "spread")
    assert point.u_indicated > 0.03


def test_expired_buffer_is_refused_at_the_pond(session: Session, node: FieldNode) -> None:
    record = guiding.begin_guided(session, "n-000001", "ph", now=NOON)
    old = buffer(session, "old", 6.88, expires_at=NOON + timedelta(minutes=1))
    node.send(6)
    with pytest.raises(standards.StandardExpired, match="take a fresh one"):
        guiding.take_step(
            session, record.calibration.id, Taking("ph7", standard_id=old), now=node.now
        )


def test_saturated_water_is_worth_what_temperature_and_pressure_make_of_it(
    session: Session, node: FieldNode
) -> None:
    record = guiding.begin_guided(session, "n-000001", "do", now=NOON)
    node.send(8)
    for wrong, sentence in (
        (Taking("saturated"), "give both"),
        (Taking("saturated", temperature_c=20.0, pressure_hpa=10.0), "between 500 and 1100"),
        (Taking("saturated", temperature_c=70.0, pressure_hpa=1000.0), "between 0 and 40"),
    ):
        with pytest.raises(FleetError, match=sentence):
            guiding.take_step(session, record.calibration.id, wrong, now=node.now)
    good = Taking("saturated", temperature_c=20.0, pressure_hpa=1013.25)
    taken = guiding.take_step(session, record.calibration.id, good, now=node.now)
    assert taken.points[0].reference == pytest.approx(9.09243, abs=1e-5)
    assert taken.calibration.environment == {"pressure_hpa": 1013.25}
    node.send(8, do=5)
    zero = guiding.take_step(session, record.calibration.id, Taking("zero"), now=node.now)
    assert [one.reference for one in zero.points][1] == 0.0


def test_only_channels_with_a_procedure_are_guided(session: Session, node: FieldNode) -> None:
    keys = [one.key for one in guiding.guided_channels(session, "n-000001")]
    assert "ph" in keys
    assert "bat" not in keys
    for node_id, key in (("n-000001", "bat"), ("n-999999", "ph")):
        with pytest.raises(NotFound):
            guiding.begin_guided(session, node_id, key, now=NOON)


def test_every_procedure_has_limits_and_a_property_that_there_is() -> None:
    assert set(guiding.PROCEDURES) <= set(stability.LIMITS)
    assert set(guiding.PROCEDURES) <= set(vocabulary.PROPERTIES)

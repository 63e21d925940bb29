"""Packs of nodes with SDI-12, ultrasonic, capacitive and contact probes become observations that can be recomputed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.measurement.fits import capacitive_calibration
from fleet_server.models import Calibration, Channel, Datastream, Observation
from fleet_server.services.ingest import store_batch
from fleet_server.services.verifying import verify

SOIL = {
    "v30": 23_088, "t30": 173, "e30": 80, "v60": 25_924, "t60": 165, "e60": 95,
    "i10": 2_015, "bat": 3_900,
}  # fmt: skip
LEVEL = {"lvl": 1_500, "ta": 320, "full": 1, "bat": 3_900}


def observations(session: Session) -> dict[str, tuple[float | None, float | None, int]]:
    """Value, u and flag of the only observation of each channel."""
    rows = session.execute(
        select(Channel.key, Observation.value, Observation.u, Observation.flag)
        .join(Datastream, Datastream.id == Channel.datastream_id)
        .join(Observation, Observation.datastream_id == Datastream.id)
    ).all()
    return {row.key: (row.value, row.u, row.flag) for row in rows}


def calibrate_channel(session: Session, key: str, parameters: CalibrationParameters) -> None:
    """A second version for the sensor of this channel."""
    with db.writing(session):
        channel = session.scalars(select(Channel).where(Channel.key == key)).one()
        session.add(
            Calibration(
                sensor_id=channel.sensor_id,
                property=channel.property,
                version=2,
                status="approved",
                kind="linear",
                slope=parameters.slope,
                offset=parameters.offset,
                u_absolute=parameters.u_abs,
                u_relative=parameters.u_rel,
                u_slope=parameters.u_slope,
                u_offset=parameters.u_offset,
                slope_offset_covariance=parameters.cov,
                valid_from=NOON - timedelta(days=20),
                performed_by="anna",
                reference="air and water, 20 °C",
                created_at=NOON,
            )
        )


def test_soil_node_gives_water_content_temperature_conductivity_and_index(session: Session) -> None:
    deployed_node(session, model="tree-2")
    store_batch(session, [SimulatedNode(readings=SOIL).pack()], now=NOON)

    found = observations(session)

    assert {key: flag for key, (_, _, flag) in found.items()} == dict.fromkeys(SOIL, 1)
    assert found["v30"][0] == pytest.approx(0.178, abs=0.001)
    assert (found["t30"][0], found["e60"][0]) == (17.3, 95.0)
    assert found["i10"][0] == pytest.approx(0.413, abs=0.001)
    assert verify(session).counts()["observations_not_reproducible"] == 0


def test_capacitive_probe_with_its_own_two_points_is_four_times_as_sure(session: Session) -> None:
    deployed_node(session, model="tree-2")
    calibrate_channel(session, "i10", capacitive_calibration(2_640, 1_390, u_mv=5, u_index=0.02))
    store_batch(session, [SimulatedNode(readings=SOIL).pack()], now=NOON)

    value, u, flag = observations(session)["i10"]

    assert value == pytest.approx(0.5, abs=1e-9)
    assert u is not None
    assert u < 0.025
    assert flag == 1
    assert verify(session).counts()["observations_not_reproducible"] == 0


def test_level_that_was_never_compared_with_a_gauge_is_bad(session: Session) -> None:
    deployed_node(session, model="level-1")
    store_batch(session, [SimulatedNode(readings=LEVEL).pack()], now=NOON)

    found = observations(session)

    assert found["lvl"][0] == pytest.approx(-1.4965, abs=0.001)
    assert {key: flag for key, (_, _, flag) in found.items()} == {
        "lvl": 4,
        "ta": 1,
        "full": 1,
        "bat": 1,
    }


def test_level_with_the_height_of_its_probe_over_the_gauge_is_good(session: Session) -> None:
    deployed_node(session, model="level-1")
    gauge = CalibrationParameters(offset=2.5, u_offset=0.003, u_abs=0.006)
    calibrate_channel(session, "lvl", gauge)
    store_batch(session, [SimulatedNode(readings=LEVEL).pack()], now=NOON)

    value, u, flag = observations(session)["lvl"]

    assert value == pytest.approx(1.0035, abs=0.001)
    assert u is not None
    assert 0.012 < u < 0.015
    assert flag == 1
    assert verify(session).counts()["observations_not_reproducible"] == 0


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    ("key", "reason", "flag"),
    [
        ("v30", "absent", 9),
        ("v30", "crc", 9),
        ("v30", "frame", 9),
        ("v30", "timeout", 9),
        ("v30", "range", 4),
        ("i10", "range", 4),
        ("i10", "spread", 4),
    ],
)
def test_reason_becomes_an_observation_without_a_value(
    session: Session, key: str, reason: str, flag: int
) -> None:
    deployed_node(session, model="tree-2")
    store_batch(session, [SimulatedNode(readings=SOIL | {key: reason}).pack()], now=NOON)

    assert observations(session)[key] == (None, None, flag)


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(("ohm", "flag"), [(10_010, 1), (9_500, 3), (8_000, 4), ("open", 4)])
def test_reference_resistor_judges_the_tensions_of_its_node(
    session: Session, ohm: float | str, flag: int
) -> None:
    deployed_node(session)
    readings = {"r30": 2_000, "t30": 318, "r60": 5_000, "t60": 300, "ref": ohm}
    store_batch(session, [SimulatedNode(readings=readings).pack()], now=NOON)

    found = observations(session)

    assert {found[key][2] for key in ("r30", "r60")} == {flag}
    assert found["t30"][2] == 1
    assert verify(session).counts()["observations_not_reproducible"] == 0

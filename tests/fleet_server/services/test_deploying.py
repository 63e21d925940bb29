"""Readings belong to the site that their node was deployed at when they were sampled."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import NOON, NOON_S, SimulatedNode, deployed_node, register_node
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import Conflict, NotFound
from fleet_server.models import Calibration, Channel, Datastream, Observation, Sensor
from fleet_server.services import deploying
from fleet_server.services.deploying import AlreadyDeployed, NewSite, SiteExists, SiteWrong
from fleet_server.services.ingest import store_batch
from fleet_server.services.verifying import verify
from hardware import catalogue


def make_site(session: Session, code: str, kind: str = "tree") -> None:
    site = NewSite(code, code.title(), kind, 51.48, 7.22)
    deploying.create_site(session, site, is_public=True, now=NOON)


def test_deployment_makes_channels_sensors_datastreams_and_factory_calibrations(
    session: Session,
) -> None:
    deployed_node(session)
    model = catalogue.load_node_model("tree-3")
    channels = session.scalars(select(Channel)).all()
    assert {channel.key for channel in channels} == {channel.key for channel in model.channels}
    tension = next(channel for channel in channels if channel.key == "r60")
    stream = session.get_one(Datastream, tension.datastream_id)
    assert (stream.property, stream.unit, stream.depth_cm) == ("soil_water_tension", "kPa", 60)
    assert tension.needs == {"temperature": "t60", "reference": "ref"}
    assert len(session.scalars(select(Sensor)).all()) == len(model.slots)
    accuracy = catalogue.load_sensor_type("watermark_200ss").quantity("soil_water_tension").accuracy
    calibration = session.scalars(
        select(Calibration).where(Calibration.sensor_id == tension.sensor_id)
    ).one()
    assert (calibration.slope, calibration.offset) == (1.0, 0.0)
    assert (calibration.u_absolute, calibration.u_relative) == (
        accuracy.absolute,
        accuracy.relative,
    )


def test_span_of_a_level_probe_is_the_slope_of_its_factory_calibration(session: Session) -> None:
    deployed_node(session, model="pond-2")
    level = session.scalars(select(Channel).where(Channel.key == "lvl")).one()
    calibration = session.scalars(
        select(Calibration).where(Calibration.sensor_id == level.sensor_id)
    ).one()
    assert (calibration.slope, calibration.offset) == (2.0, 0.0)


def test_datastream_survives_a_node_swap(session: Session) -> None:
    deployed_node(session, "n-000001")
    store_batch(session, SimulatedNode().packs([1, 2]), now=NOON)
    swapped_at = NOON + timedelta(seconds=2700)
    deploying.end_deployment(session, "n-000001", to_at=swapped_at, now=NOON)
    register_node(session, "n-000002")
    deploying.deploy_node(
        session, "n-000002", site_code="n-000001-site", from_at=swapped_at, now=NOON
    )
    store_batch(session, SimulatedNode(node_id="n-000002").packs([3, 4]), now=NOON)
    assert len(session.scalars(select(Datastream.id)).all()) == 8
    assert len(session.scalars(select(Observation.pack_id)).all()) == 4 * 7
    assert verify(session).counts()["observations_not_reproducible"] == 0


def test_reading_sampled_before_the_move_belongs_to_the_old_site_however_late_it_comes(
    session: Session,
) -> None:
    deployed_node(session)
    make_site(session, "new")
    moved_at = NOON + timedelta(seconds=1800)
    deploying.end_deployment(session, "n-000001", to_at=moved_at, now=NOON)
    deploying.deploy_node(session, "n-000001", site_code="new", from_at=moved_at, now=NOON)
    node = SimulatedNode()
    store_batch(session, [node.pack(3, at_s=NOON_S + 2700), node.pack(1)], now=NOON)
    rows = session.execute(
        select(Datastream.site_id, Observation.sampled_at).join(
            Datastream, Datastream.id == Observation.datastream_id
        )
    ).all()
    assert {(site, at < moved_at) for site, at in rows} == {(1, True), (2, False)}


def test_move_is_seen_by_a_worker_that_stored_for_the_node_before(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(1)], now=NOON)
    make_site(session, "new")
    moved_at = NOON + timedelta(seconds=1800)
    deploying.end_deployment(session, "n-000001", to_at=moved_at, now=NOON)
    store_batch(session, [node.pack(2)], now=NOON)
    assert len(session.scalars(select(Observation.pack_id)).all()) == 7
    deploying.deploy_node(session, "n-000001", site_code="new", from_at=moved_at, now=NOON)
    store_batch(session, [node.pack(3)], now=NOON)
    assert len(session.scalars(select(Observation.pack_id)).all()) == 21


def test_sensor_known_by_its_serial_number_keeps_its_calibrations(session: Session) -> None:
    make_site(session, "old")
    make_site(session, "new")
    register_node(session, "n-000001")
    register_node(session, "n-000002")
    serials = {"w30": "W-4711"}
    deploying.deploy_node(
        session, "n-000001", site_code="old", from_at=NOON, now=NOON, serials=serials
    )
    later = NOON + timedelta(days=1)

    def deploy_again() -> None:
        deploying.deploy_node(
            session, "n-000002", site_code="new", from_at=later, now=NOON, serials=serials
        )

    with pytest.raises(Conflict, match="mounted at another node"):
        deploy_again()
    deploying.end_deployment(session, "n-000001", to_at=later, now=NOON)
    deploy_again()
    sensor = session.scalars(select(Sensor).where(Sensor.serial == "W-4711")).one()
    calibrations = select(Calibration.id).where(Calibration.sensor_id == sensor.id)
    assert len(session.scalars(calibrations).all()) == 1


def test_node_is_at_one_site_at_a_time(session: Session) -> None:
    deployed_node(session)
    make_site(session, "new")
    with pytest.raises(AlreadyDeployed):
        deploying.deploy_node(session, "n-000001", site_code="new", from_at=NOON, now=NOON)


def test_deployment_does_not_end_before_observations_that_it_has(session: Session) -> None:
    deployed_node(session)
    store_batch(session, SimulatedNode().packs([1, 2]), now=NOON)
    with pytest.raises(Conflict, match="observations"):
        deploying.end_deployment(session, "n-000001", to_at=NOON + timedelta(seconds=1), now=NOON)


def test_site_and_node_that_do_not_fit_are_refused(session: Session) -> None:
    register_node(session, "n-000001")
    make_site(session, "pond", kind="water")
    with pytest.raises(SiteWrong):
        deploying.deploy_node(session, "n-000001", site_code="pond", from_at=NOON, now=NOON)
    with pytest.raises(NotFound):
        deploying.deploy_node(session, "n-000001", site_code="nowhere", from_at=NOON, now=NOON)
    with pytest.raises(NotFound):
        deploying.deploy_node(session, "n-ffffff", site_code="pond", from_at=NOON, now=NOON)


@pytest.mark.parametrize("wrong", [{"kind": "road"}, {"latitude": 91.0}, {"longitude": -181.0}])
def test_site_that_cannot_be_is_refused(session: Session, wrong: dict[str, object]) -> None:
    given: dict[str, object] = {"kind": "tree", "latitude": 51.0, "longitude": 7.0, **wrong}
    with pytest.raises(SiteWrong):
        deploying.create_site(
            session,
            NewSite("a", "A", **given),  # type: ignore[arg-type]
            is_public=True,
            now=NOON,
        )


def test_code_of_a_site_is_given_once(session: Session) -> None:
    make_site(session, "a")
    with pytest.raises(SiteExists):
        make_site(session, "a")


def test_node_stands_nowhere_before_its_deployment_and_after_its_end(session: Session) -> None:
    deployed_node(session, "n-000001")
    register_node(session, "n-000002")
    assert [node.node_id for node in deploying.nodes_without_site(session)] == ["n-000002"]
    deploying.end_deployment(session, "n-000001", to_at=NOON + timedelta(days=1), now=NOON)
    assert len(deploying.nodes_without_site(session)) == 2

"""Probes and nodes are replaced, and history is kept: readings stay with the site, calibration travels with the sensor."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

import pytest
from databases import SqliteDatabases, hurried_engine
from factories import NOON, NOON_S, SimulatedNode, deployed_node, register_node
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, NotFound
from fleet_server.models import (
    AuditEntry,
    Calibration,
    Channel,
    Datastream,
    Deployment,
    Observation,
    Role,
    Scope,
    Sensor,
    Site,
)
from fleet_server.services import deploying, revising, rights, sites
from fleet_server.services.deploying import DepthWrong, NewSite, NotDeployed, SlotUnknown
from fleet_server.services.ingest import store_batch
from fleet_server.services.verifying import verify

STEP_S = 900


def at(seq: float) -> datetime:
    """Between the samples of SimulatedNode's packs."""
    return NOON + timedelta(seconds=int(seq * STEP_S))


def sensor_of(session: Session, key: str, sampled_at: datetime) -> list[str]:
    """Serial numbers of the probes whose calibration made that datastream's value at that time."""
    query = (
        select(Sensor.serial)
        .join(Calibration, Calibration.sensor_id == Sensor.id)
        .join(Channel, Channel.sensor_id == Sensor.id)
        .where(
            Channel.key == key,
            Channel.from_at <= sampled_at,
            (Channel.to_at.is_(None)) | (Channel.to_at > sampled_at),
        )
        .distinct()
    )
    return list(session.scalars(query))


def test_swapped_probe_feeds_the_same_datastream_with_its_own_calibration(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, node.packs([1, 2]), now=NOON)

    deploying.swap_sensor(session, "n-000001", "w30", serial="W-9", at=at(2.5), now=at(3))
    store_batch(session, node.packs([3]), now=at(4))

    streams = set(session.scalars(select(Channel.datastream_id).where(Channel.key == "r30")).all())
    assert len(streams) == 1
    times = session.scalars(
        select(Observation.sampled_at)
        .where(Observation.datastream_id.in_(streams))
        .order_by(Observation.sampled_at)
    ).all()
    assert times == [at(1), at(2), at(3)]
    assert sensor_of(session, "r30", at(2)) == ["n-000001/w30"]
    assert sensor_of(session, "r30", at(3)) == ["W-9"]
    assert verify(session).counts()["observations_not_reproducible"] == 0
    entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "sensor_swapped")).one()
    assert (entry.details["old"], entry.details["new"]) == ("n-000001/w30", "W-9")


def test_calibration_travels_with_the_probe_to_another_site(session: Session) -> None:
    deployed_node(session, "n-000001")
    deployed_node(session, "n-000002")
    deploying.swap_sensor(session, "n-000001", "w30", serial="W-1", at=at(1), now=at(1))
    with db.writing(session):
        probe = session.scalars(select(Sensor).where(Sensor.serial == "W-1")).one()
        factory = session.scalars(
            select(Calibration).where(Calibration.sensor_id == probe.id)
        ).one()
        assert factory.kind == "factory"
    deploying.swap_sensor(session, "n-000001", "w30", serial="W-2", at=at(2), now=at(2))
    deploying.swap_sensor(session, "n-000002", "w60", serial="W-1", at=at(3), now=at(3))
    calibrations = session.scalars(
        select(Calibration.id).where(Calibration.sensor_id == probe.id)
    ).all()
    assert calibrations == [factory.id]
    was_at = session.execute(
        select(Deployment.node_id, Channel.key)
        .join(Channel, Channel.deployment_id == Deployment.id)
        .where(Channel.sensor_id == probe.id)
        .order_by(Channel.from_at)
    ).all()
    assert [tuple(row) for row in was_at] == [("n-000001", "r30"), ("n-000002", "r60")]


def test_swap_that_is_noted_late_gives_the_new_probe_what_it_had_measured(
    session: Session,
) -> None:
    """W-9 was calibrated before; its readings were taken for the old probe's until somebody said that it was mounted."""
    deployed_node(session, "n-000002")
    deploying.swap_sensor(session, "n-000002", "w30", serial="W-9", at=at(-8), now=at(-8))
    deploying.swap_sensor(session, "n-000002", "w30", serial="W-8", at=at(-4), now=at(-4))
    with db.writing(session):
        probe = session.scalars(select(Sensor).where(Sensor.serial == "W-9")).one()
        session.add(
            Calibration(
                sensor_id=probe.id,
                property="soil_water_tension",
                version=2,
                status="approved",
                kind="linear",
                slope=1.0,
                offset=5.0,
                u_absolute=1.0,
                u_relative=0.0,
                valid_from=at(-8),
                performed_by="Ada",
                reference="tensiometer",
                created_at=at(-8),
            )
        )
    deployed_node(session, "n-000001")
    store_batch(session, SimulatedNode().packs([1, 2, 3]), now=at(3))

    def tensions() -> list[float | None]:
        query = (
            select(Observation.value)
            .join(Channel, Channel.datastream_id == Observation.datastream_id)
            .join(Deployment, Deployment.id == Channel.deployment_id)
            .where(Deployment.node_id == "n-000001", Channel.key == "r30", Channel.to_at.is_(None))
            .order_by(Observation.sampled_at)
        )
        return list(session.scalars(query))

    before = tensions()
    deploying.swap_sensor(session, "n-000001", "w30", serial="W-9", at=at(1.5), now=at(4))
    assert tensions() == before
    assert verify(session).is_clean, "what waits for its revision is judged by its own lineage"
    while revising.advance(session, now=at(5)):
        pass
    assert tensions() == [before[0], *(value + 5.0 for value in before[1:] if value is not None)]
    assert verify(session).is_clean


_IMPOSSIBLE_SWAPS = (
    ("w99", "W-9", 3.0, SlotUnknown, "tree-3 has no slot w99; it has w30"),
    ("w30", "n-000001/w30", 3.0, Conflict, "is in slot w30 already"),
    ("w30", "n-000001/d30", 3.0, Conflict, "is a ds18b20, not a watermark_200ss"),
    ("w30", "n-000001/w60", 3.0, Conflict, "is mounted at another node"),
    ("w30", "W-9", -9000, Conflict, "is in the slot since"),
    ("w30", " ", 3.0, deploying.SerialWrong, "A serial number has"),
)


def test_swap_that_cannot_be_is_refused_and_changes_nothing(session: Session) -> None:
    deployed_node(session)
    store_batch(session, SimulatedNode().packs([1, 2]), now=NOON)
    for slot, serial, seq, kind, sentence in _IMPOSSIBLE_SWAPS:
        with pytest.raises(kind, match=sentence):
            deploying.swap_sensor(session, "n-000001", slot, serial=serial, at=at(seq), now=at(3))
        session.expire_all()
        ended = session.scalars(select(Channel.to_at).where(Channel.to_at.is_not(None))).all()
        assert ended == []
        assert session.scalar(select(Sensor).where(Sensor.serial == "W-9")) is None


def test_probe_is_not_in_two_places_at_once_in_the_past_either(session: Session) -> None:
    deployed_node(session, "n-000001")
    deployed_node(session, "n-000002")
    deploying.swap_sensor(session, "n-000001", "w30", serial="W-2", at=at(5), now=at(5))
    with pytest.raises(Conflict, match="was mounted until 2026-07-01T13:15:00Z"):
        deploying.swap_sensor(
            session, "n-000002", "w30", serial="n-000001/w30", at=at(4), now=at(5)
        )


def test_swap_at_a_node_that_stands_nowhere_says_so(session: Session) -> None:
    register_node(session, "n-000001")
    with pytest.raises(NotDeployed, match="at no site"):
        deploying.swap_sensor(session, "n-000001", "w30", serial="W", at=at(1), now=at(1))


def test_new_node_takes_over_datastreams_probes_and_depths_of_the_old_one(session: Session) -> None:
    register_node(session, "n-000001")
    site = NewSite("linde", "Linde", "tree", 51.48, 7.22)
    deploying.create_site(session, site, is_public=True, now=NOON)
    deploying.deploy_node(
        session,
        "n-000001",
        site_code="linde",
        from_at=at(0),
        now=NOON,
        serials={"w30": "W-1"},
        depths_cm={"w30": 25, "d30": 25},
    )
    register_node(session, "n-000002")
    store_batch(session, SimulatedNode().packs([1]), now=at(1))

    deploying.replace_node(session, "n-000001", "n-000002", at=at(1.5), now=at(2))
    # One late pack of the old node, from before and from after; and one of the new node.
    store_batch(session, SimulatedNode().packs([2]), now=at(2))
    store_batch(session, SimulatedNode(node_id="n-000002").packs([3]), now=at(3))

    tension = session.scalars(
        select(Datastream).where(
            Datastream.property == "soil_water_tension", Datastream.depth_cm == 25
        )
    ).one()
    times = session.scalars(
        select(Observation.sampled_at).where(Observation.datastream_id == tension.id)
    ).all()
    assert sorted(times) == [at(1), at(3)]
    assert len(session.scalars(select(Datastream.id)).all()) == 8
    serials = session.scalars(
        select(Sensor.serial)
        .join(Channel, Channel.sensor_id == Sensor.id)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .where(Deployment.node_id == "n-000002")
    ).all()
    # What is in the ground stays; the box's own resistor and battery are the new box's.
    assert {"W-1", "n-000001/d30", "n-000002/ref", "n-000002/bat"} <= set(serials)
    open_now = session.scalars(select(Deployment.node_id).where(Deployment.to_at.is_(None))).all()
    assert open_now == ["n-000002"]
    assert verify(session).counts()["observations_not_reproducible"] == 0


def test_replacement_that_cannot_be_leaves_both_nodes_where_they_were(session: Session) -> None:
    deployed_node(session, "n-000001")
    register_node(session, "n-000002", model="pond-1")
    with pytest.raises(sites.SiteWrong, match="pond-1 is made for a water"):
        deploying.replace_node(session, "n-000001", "n-000002", at=at(1), now=at(1))
    session.expire_all()
    standing = session.scalars(select(Deployment)).one()
    assert (standing.node_id, standing.to_at) == ("n-000001", None)
    assert session.scalars(select(Channel.to_at).where(Channel.to_at.is_not(None))).all() == []


def test_depth_that_cannot_be_is_refused(session: Session) -> None:
    register_node(session, "n-000001")
    site = NewSite("linde", "Linde", "tree", 51.48, 7.22)
    deploying.create_site(session, site, is_public=True, now=NOON)
    for depths, kind, sentence in (
        ({"w30": 60}, DepthWrong, "same depth"),
        ({"w30": -1}, DepthWrong, "between 0 and"),
        ({"w99": 30}, SlotUnknown, "no slot w99"),
    ):
        with pytest.raises(kind, match=sentence):
            deploying.deploy_node(
                session, "n-000001", site_code="linde", from_at=at(0), now=NOON, depths_cm=depths
            )
        assert session.scalars(select(Deployment)).all() == []


def test_nothing_is_mounted_at_a_closed_site(session: Session) -> None:
    deployment = deployed_node(session, "n-000001")
    with pytest.raises(sites.SiteInUse, match="n-000001 stands at"):
        sites.close_site(session, deployment.site_id, now=at(1))
    deploying.end_deployment(session, "n-000001", to_at=at(1), now=at(1))
    sites.close_site(session, deployment.site_id, now=at(2))
    with pytest.raises(deploying.SiteClosed, match="is closed"):
        deploying.deploy_node(
            session, "n-000001", site_code="n-000001-site", from_at=at(3), now=at(3)
        )


def test_who_looks_after_waters_swaps_nothing_at_a_tree(session: Session) -> None:
    deployed_node(session)
    right = rights.rights_of([Role.TECHNICIAN])
    rights.act_as(session, rights.Actor("wanda", right, Scope.WATERS))
    with pytest.raises(NotFound, match="There is no node n-000001"):
        deploying.swap_sensor(session, "n-000001", "w30", serial="W-9", at=at(1), now=at(1))


# ------------------------------------------------------------------------------------------------------- random histories


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("swap"), st.sampled_from(["w30", "w60"]), st.sampled_from("ABC")),
        st.tuples(st.just("replace"), st.booleans(), st.just("")),
        st.tuples(st.just("move"), st.sampled_from(["one", "two"]), st.just("")),
    ),
    max_size=6,
)


@settings(max_examples=12)
@given(steps=_STEPS)
def test_history_is_kept_under_any_order_of_swaps_replacements_and_moves(
    sqlite_databases: SqliteDatabases, steps: list[tuple[str, str | bool, str]]
) -> None:
    """After each step a pack is sent: every value stays at the site where its node stood when it was sampled, and can be recomputed."""
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        with db.session_factory(engine)() as session:
            _live(session, steps)
        engine.dispose()


def _live(session: Session, steps: list[tuple[str, str | bool, str]]) -> None:
    for node_id in ("n-000001", "n-000002"):
        register_node(session, node_id)
    for code in ("one", "two"):
        new = NewSite(code, code, "tree", 51.48, 7.22)
        deploying.create_site(session, new, is_public=True, now=NOON)
    deploying.deploy_node(session, "n-000001", site_code="one", from_at=at(0), now=NOON)
    standing, site = "n-000001", "one"
    expected: list[tuple[str, datetime]] = []
    nodes = {node_id: SimulatedNode(node_id=node_id) for node_id in ("n-000001", "n-000002")}
    for number, (what, first, second) in enumerate(steps, start=1):
        then = at(2 * number - 0.5)
        with suppress(Conflict):  # probe taken, the same one again
            if what == "swap":
                deploying.swap_sensor(
                    session, standing, str(first), serial=second, at=then, now=then
                )
            elif what == "replace":
                other = "n-000002" if standing == "n-000001" else "n-000001"
                deploying.replace_node(
                    session, standing, other, at=then, now=then, keeps_probes=bool(first)
                )
                standing = other
            elif first != site:
                with db.writing(session):
                    deploying.end_deployment(session, standing, to_at=then, now=then)
                    deploying.deploy_node(
                        session, standing, site_code=str(first), from_at=then, now=then
                    )
                site = str(first)
        sampled = at(2 * number)
        pack = nodes[standing].pack(at_s=NOON_S + 2 * number * STEP_S)
        store_batch(session, [pack], now=sampled)
        expected.append((site, sampled))
    query = (
        select(Site.code, Observation.sampled_at)
        .join(Datastream, Datastream.site_id == Site.id)
        .join(Observation, Observation.datastream_id == Datastream.id)
        .where(Datastream.property == "soil_water_tension", Datastream.depth_cm == 30)
        .order_by(Observation.sampled_at)
    )
    assert [(code, when) for code, when in session.execute(query)] == expected
    report = verify(session).counts()
    assert report["observations_not_reproducible"] == 0
    assert report["readings_without_observation"] == 0
    # A probe's factory calibration was written once, however often it moved.
    rows = session.execute(select(Calibration.sensor_id, Calibration.property)).all()
    assert len(rows) == len(set(rows))

"""Probes beside each other: one that goes another way is found, and it does not matter whose values come first."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import pytest
from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.measurement.in_context import Context, judge
from fleet_server.measurement.quality import QualityTest, result_of
from fleet_server.measurement.rules import default_rules
from fleet_server.measurement.windows import Series
from fleet_server.models import Channel, Datastream, Deployment, JudgedStream, Observation, Site
from fleet_server.services import beside, deploying, flagging, judging, sites
from fleet_server.services.ingest import store_batch
from fleet_server.services.verification.judged import check_judged
from fleet_server.services.verification.report import Report

pytestmark = pytest.mark.postgresql_at_night

STEP_S = 3 * 3600
DAYS = 26
WRONG_FROM = 24 * 8
NODES = [f"n-{number:06x}" for number in range(1, 6)]
COUNT = DAYS * 8
BITS = 3 << (2 * QualityTest.NEIGHBOUR)


def _value(node: int, row: int) -> float:
    """Five thermometers at one depth, alike but for their level; the first goes its own way at last."""
    wave = 2.0 * ((row % 8) / 8.0) + 0.01 * ((row * 7 + node * 3) % 11)
    return 18.0 + node + wave + (5.0 if node == 0 and row >= WRONG_FROM else 0.0)


class City:
    """Nodes whose values are stored as if their packs had come, in any order."""

    def __init__(self, session: Session) -> None:
        self.session = session
        for node_id in NODES:
            deployed_node(session, node_id)
            store_batch(
                session, [SimulatedNode(node_id, started_s=self._at(-1) - 900).pack(1)], now=NOON
            )
        rows = session.execute(
            select(Deployment.node_id, Channel.datastream_id)
            .join(Channel, Channel.deployment_id == Deployment.id)
            .where(Channel.key == "t30")
            .order_by(Deployment.node_id)
        )
        self.streams = [row[1] for row in rows]
        self.first = {
            stream: session.execute(
                select(Observation.pack_id, Observation.lineage_id).where(
                    Observation.datastream_id == stream
                )
            ).one()
            for stream in self.streams
        }
        session.rollback()

    @staticmethod
    def _at(row: int) -> int:
        return int(NOON.timestamp()) + row * STEP_S

    def store(self, node: int, rows: Iterable[int]) -> None:
        stream = self.streams[node]
        pack_id, lineage_id = self.first[stream]
        with db.writing(self.session):
            self.session.add_all(
                Observation(
                    datastream_id=stream,
                    sampled_at=NOON + timedelta(seconds=row * STEP_S),
                    value=_value(node, row),
                    u=0.3,
                    flag=1,
                    tests=1,
                    lineage_id=lineage_id,
                    known_from=NOON,
                    pack_id=pack_id,
                )
                for row in rows
            )
        self.session.expunge_all()

    def judge(self) -> None:
        for _ in range(60):
            if not judging.judge_due(self.session, now=NOON + timedelta(days=DAYS)):
                return
        raise AssertionError("it is never done")

    def tests(self, node: int) -> list[int]:
        self.session.expire_all()
        return list(
            self.session.scalars(
                select(Observation.tests)
                .where(Observation.datastream_id == self.streams[node])
                .order_by(Observation.sampled_at)
            )
        )

    def results(self, node: int) -> list[int]:
        return [result_of(one, QualityTest.NEIGHBOUR) for one in self.tests(node)][1:]

    def is_clean(self) -> bool:
        report = Report()
        check_judged(self.session, report)
        self.session.rollback()
        return report.is_clean


@pytest.fixture
def city(session: Session) -> City:
    return City(session)


def test_probe_that_goes_another_way_than_its_neighbours_is_suspect_and_they_are_not(
    city: City,
) -> None:
    for node in range(5):
        city.store(node, range(COUNT))
    city.judge()
    results = city.results(0)
    ready = results.index(1)
    assert 20 * 8 <= ready < WRONG_FROM, "levels and usual deviations take their days"
    assert set(results[ready:WRONG_FROM]) == {1}
    assert set(results[WRONG_FROM : COUNT - 1]) == {2}
    for node in range(1, 5):
        assert 2 not in city.results(node)
    stream = city.session.get_one(Datastream, city.streams[0])
    at = NOON + timedelta(seconds=STEP_S * WRONG_FROM)
    said = {one.test: one for one in flagging.why(city.session, stream, at).reasons}
    assert said[QualityTest.NEIGHBOUR].kind == "above_neighbours"
    assert said[QualityTest.NEIGHBOUR].numbers["neighbours"] == 4
    assert city.is_clean()
    city.session.rollback()
    with db.writing(city.session):
        city.session.execute(
            update(Observation)
            .where(
                Observation.datastream_id.in_(city.streams[1:4]),
                Observation.sampled_at == NOON + timedelta(seconds=STEP_S * (COUNT - 20)),
            )
            .values(value=Observation.value + 9.0)
        )
    assert not city.is_clean(), "neighbours were others by now"


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 12))]
)
def test_whichever_order_values_come_in_the_tests_are_those_of_one_look_at_all(
    city: City, seed: int
) -> None:
    draw = random.Random(seed)
    waiting = {node: list(range(COUNT)) for node in range(5)}
    while any(waiting.values()):
        node = draw.choice([one for one, rows in waiting.items() if rows])
        rows = waiting[node]
        # A node may be silent for weeks, then send all at once; now and then a piece comes after what followed it.
        begin = draw.choice([0, 0, 0, min(40, len(rows) - 1)])
        taken = rows[begin : begin + draw.choice([40, 120, COUNT])]
        waiting[node] = [row for row in rows if row not in set(taken)]
        city.store(node, taken)
        if draw.random() < 0.4:
            city.judge()
    assert city.is_clean(), "what came last waits"
    for node in range(5):
        city.store(node, [COUNT])  # what came late is looked at with what comes next
    city.judge()
    assert city.is_clean()
    times_s = np.array([city._at(row) for row in range(-1, COUNT + 1)], np.int64)
    readings = [
        np.array([19.875, *(_value(node, row) for row in range(COUNT + 1))]) for node in range(5)
    ]
    for node in range(5):
        rules = default_rules("soil_temperature", 30)
        others = tuple(
            Series(times_s, values) for other, values in enumerate(readings) if other != node
        )
        whole = judge(Series(times_s, readings[node]), rules, Context(neighbours=others)) & BITS
        found = [tests & BITS for tests in city.tests(node)]
        assert found[:-2] == whole.tolist()[:-2], "the last are not judged yet"
        assert any(found)


def test_correction_and_late_day_of_a_neighbour_have_all_around_judged_again(city: City) -> None:
    for node in range(5):
        city.store(node, [row for row in range(COUNT) if node != 4 or not 80 <= row < 100])
    city.judge()
    city.store(4, range(80, 100))
    assert city.is_clean(), "who was judged without it is not claimed any more"
    before = {
        one.datastream_id: one.judged_to for one in city.session.scalars(select(JudgedStream)).all()
    }
    judging._judge_one(city.session, city.streams[4], now=NOON)
    city.session.expire_all()
    for one in city.session.scalars(select(JudgedStream)).all():
        if one.datastream_id in city.streams[:4]:
            assert one.judged_to < NOON + timedelta(seconds=STEP_S * 80)
            assert one.judged_to < before[one.datastream_id]
    city.judge()
    assert city.is_clean()


@pytest.mark.also_on_postgresql
def test_neighbours_are_near_alike_and_few_and_a_site_that_moves_gets_others(
    city: City,
) -> None:
    stream = city.session.get_one(Datastream, city.streams[0])
    assert beside.neighbours_of(city.session, stream) == city.streams[1:]
    for node in range(5):
        city.store(node, range(0, 40, 8))
    city.judge()
    site = city.session.get_one(Datastream, city.streams[1]).site_id
    city.session.rollback()
    sites.change_site(city.session, site, {"latitude": 51.4891}, now=NOON)
    assert beside.neighbours_of(city.session, stream) == city.streams[2:], "1012 m are too far"
    told = dict(
        city.session.execute(select(JudgedStream.datastream_id, JudgedStream.judged_to)).all()
    )
    assert {told[one] for one in city.streams} == {None}
    assert city.session.scalar(select(func.count()).select_from(Site)) == 5
    city.session.rollback()
    city.judge()


def test_node_that_is_mounted_again_with_a_probe_at_another_depth_has_its_site_judged_again(
    session: Session,
) -> None:
    """A tension at 30 cm asks the thermometer next to it whether the soil was frozen: another is nearer now."""
    begun = NOON - timedelta(days=2)
    deployed_node(session, from_at=begun)
    deploying.end_deployment(session, "n-000001", to_at=begun + timedelta(hours=1), now=NOON)
    deploying.deploy_node(
        session, "n-000001", site_code="n-000001-site",
        from_at=begun + timedelta(hours=2), now=NOON, depths_cm={"t30": 35, "r30": 28},
    )  # fmt: skip
    node = SimulatedNode()
    store_batch(session, [node.pack(seq) for seq in range(1, 30)], now=NOON)
    for _ in range(20):
        judging.judge_due(session, now=NOON + timedelta(days=1))
    stream = session.scalars(
        select(Datastream).where(
            Datastream.property == "soil_water_tension", Datastream.depth_cm == 28
        )
    ).one()
    before = beside.streams_beside(session, stream)["soil_temperature"]
    end_at = NOON + timedelta(hours=12)
    session.rollback()
    deploying.end_deployment(session, "n-000001", to_at=end_at, now=end_at)
    deploying.deploy_node(
        session, "n-000001", site_code="n-000001-site",
        from_at=end_at + timedelta(hours=1), now=end_at, depths_cm={"r30": 28},
    )  # fmt: skip
    assert beside.streams_beside(session, stream)["soil_temperature"] != before
    assert session.get_one(JudgedStream, stream.id).judged_to is None
    report = Report()
    check_judged(session, report)
    assert report.is_clean

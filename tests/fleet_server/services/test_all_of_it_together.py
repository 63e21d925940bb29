"""One pond through everything that can happen to its values, one after the other: each step is proved, and none takes away what was known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from corrections import HOUR
from external_world import LABORATORY, POND_FILE, POND_RULES, act_as
from factories import NOON, SimulatedNode, deployed_node
from flask.testing import FlaskClient
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.measurement.derived import percent_saturation
from fleet_server.measurement.drift import Check
from fleet_server.measurement.place import station_pressure
from fleet_server.measurement.quality import GrossRange
from fleet_server.measurement.rules import DEFAULTS, to_data
from fleet_server.models import (
    CalibrationKind,
    Channel,
    Datastream,
    Deployment,
    JudgedStream,
    Observation,
    Sensor,
    Site,
)
from fleet_server.services import (
    aggregating,
    calibrating,
    correcting,
    external_importing,
    flagging,
    judging,
    quality_rules,
    revising,
)
from fleet_server.services.calibrating import NewCalibration, NewPoint
from fleet_server.services.correcting import NewCorrection
from fleet_server.services.ingest import store_batch
from fleet_server.services.settling import Verdict
from fleet_server.services.verifying import verify
from tests.fleet_server.world_fixtures import World

OXYGEN, BEGIN = "dissolved_oxygen", NOON + timedelta(days=2)
LATE = range(9, 49)


class Pond:
    """A pond and one beside it, and what becomes of the first one's oxygen."""

    def __init__(self, session: Session, client: FlaskClient) -> None:
        self.session, self.client = session, client
        self.now = BEGIN
        self.saved: dict[str, list[tuple[str, str]]] = {}
        for node_id in ("n-000001", "n-000002"):
            deployed_node(session, node_id, model="pond-3")
        with db.writing(session):
            session.execute(update(Site).values(details={"altitude_m": "95"}))
        self.neighbour = SimulatedNode("n-000002", spool=0x51002)
        self.send(SimulatedNode(), range(1, 49))
        self.send(self.neighbour, range(1, min(LATE)))
        self.streams = {
            (node_id, key): datastream_id
            for node_id, key, datastream_id in session.execute(
                select(Deployment.node_id, Channel.key, Channel.datastream_id).join(
                    Channel, Channel.deployment_id == Deployment.id
                )
            )
        }
        self.oxygen, self.warmth = (self.streams["n-000001", key] for key in ("do", "tw"))
        self.probe = session.scalars(
            select(Sensor.serial)
            .join(Channel, Channel.sensor_id == Sensor.id)
            .where(Channel.datastream_id == self.oxygen)
        ).one()

    def send(self, node: SimulatedNode, seqs: range) -> None:
        packs = [
            node.pack(seq, readings={"tw": 300 + seq % 5, "ph": 8123, "do": 800 + 4 * seq})
            for seq in seqs
        ]
        store_batch(self.session, packs, now=max(self.now, BEGIN))

    def settle(self) -> None:
        """All that the worker does by schedule, until nothing is left to do."""
        for work in (revising.advance, judging.judge_due, aggregating.aggregate_due):
            for _ in range(60):
                if not work(self.session, now=self.now):
                    break
            else:
                raise AssertionError(f"{work.__name__} is never done")

    def read(self, *, as_of: str = "") -> list[tuple[str, str]]:
        """What the feed answers of every datastream of the first pond that there was at that time."""
        clock.use_clock(f"{int(self.now.timestamp())}@0x0")
        try:
            known = [path for path, _ in self.saved[as_of]] if as_of else self._paths()
            then = f"&asOf={as_of}" if as_of else ""
            answers = [self.client.get(f"/v1.1/{path}{then}") for path in known]
        finally:
            clock.use_clock(clock.REAL)
        assert {answer.status_code for answer in answers} == {200}
        return [
            (path, re.sub(r'&asof=[^&"]+', "", answer.text))
            for path, answer in zip(known, answers, strict=True)
        ]

    def _paths(self) -> list[str]:
        site = select(Datastream.site_id).where(Datastream.id == self.oxygen).scalar_subquery()
        ids = self.session.scalars(
            select(Datastream.id).where(Datastream.site_id == site).order_by(Datastream.id)
        ).all()
        self.session.rollback()
        return [f"Datastreams({one})/Observations?$count=true&$top=200" for one in ids]

    def rows(self, datastream_id: int) -> list[Observation]:
        self.session.expire_all()
        return list(
            self.session.scalars(
                select(Observation)
                .where(Observation.datastream_id == datastream_id)
                .order_by(Observation.sampled_at)
            )
        )

    def made_of(self, datastream_id: int, level: str, observed_property: str) -> list[Observation]:
        stream = select(Datastream.id).where(
            Datastream.source_id == datastream_id,
            Datastream.level == level,
            Datastream.property == observed_property,
        )
        return self.rows(self.session.scalars(stream).one())

    def calibrate(
        self, *, offset: float, growth: float, at: datetime = NOON, **more: object
    ) -> None:
        act_as(self.session, "ada")
        new = NewCalibration(
            self.probe, OXYGEN, CalibrationKind.OFFSET, "ada", at,
            (NewPoint(8.0, 8.0 + offset, 0.02), NewPoint(8.01, 8.01 + offset, 0.02)),
            u_drift_absolute=growth,
        )  # fmt: skip
        draft = calibrating.draft_calibration(self.session, new, now=self.now).calibration.id
        act_as(self.session, "grace")
        calibrating.approve_calibration(self.session, draft, now=self.now, **more)  # type: ignore[arg-type]


def what_happens(pond: Pond) -> Iterator[str]:
    """One thing after the other; what it is."""
    session = pond.session
    yield "measured"
    pond.calibrate(offset=0.5, growth=40.0)
    yield "calibrated, with what a year adds"
    own = replace(DEFAULTS[OXYGEN], gross=GrossRange("mg/L", fail=(0.0, 9.5), suspect=(0.0, 9.2)))
    quality_rules.set_rules(
        session, OXYGEN, to_data(own), reason="a shallow pond", author="grace", now=pond.now,
        datastream_id=pond.oxygen,
    )  # fmt: skip
    yield "judged by a range of its own"
    pond.send(pond.neighbour, LATE)
    judging._judge_one(session, pond.streams["n-000002", "do"], now=pond.now)
    reached = session.get_one(JudgedStream, pond.oxygen, populate_existing=True).judged_to
    assert reached is not None
    assert reached < NOON + timedelta(seconds=900 * min(LATE)), "it is set back by its neighbour"
    session.rollback()
    yield "judged again beside late values"
    act_as(session, "grace")
    rules = replace(POND_RULES, site_code="n-000001-site")
    made = external_importing.import_measurements(
        session, POND_FILE.encode(), rules, LABORATORY, now=pond.now
    )
    assert made.import_id is not None
    yield "measured by a laboratory, too"
    flagging.give_flag(
        session, pond.warmth, flag=4, from_at=NOON + HOUR, to_at=NOON + 2 * HOUR,
        reason="lay on the bank", author="grace", now=pond.now,
    )  # fmt: skip
    yield "flagged by a person"
    act_as(session, "ada")
    found = NewCorrection(pond.probe, OXYGEN, NOON + HOUR, NOON + 5 * HOUR, low=Check(0.0, -0.4))
    visit = correcting.draft_correction(session, found, now=pond.now).id
    act_as(session, "grace")
    correcting.approve_correction(session, visit, now=pond.now)
    yield "put right for drift"
    pond.calibrate(offset=0.7, growth=80.0, at=NOON + 2 * HOUR, corrections={visit: Verdict.KEEP})
    yield "calibrated under its correction"
    external_importing.withdraw_import(session, made.import_id, reason="another pond", now=pond.now)
    yield "without the laboratory"
    quality_rules.set_rules(
        session, OXYGEN, None, reason="as all", author="grace", now=pond.now,
        datastream_id=pond.oxygen,
    )  # fmt: skip
    yield "judged as all are"


def follows(pond: Pond) -> None:
    """Means and saturation are those of the values that are current now."""
    oxygen = {row.sampled_at: row for row in pond.rows(pond.oxygen)}
    warmth = {row.sampled_at: row for row in pond.rows(pond.warmth)}
    pressure_hpa = float(station_pressure(95.0))
    saturation = pond.made_of(pond.oxygen, "derived", "oxygen_saturation")
    assert len(saturation) > 30
    for row in saturation:
        of, at = oxygen[row.sampled_at], warmth[row.sampled_at]
        assert row.value == percent_saturation(of.value, at.value, 0.0, pressure_hpa)
        assert row.flag == max(of.flag, at.flag)
    means = pond.made_of(pond.oxygen, "hourly", OXYGEN)
    assert len(means) > 8
    for mean in means:
        went_in = [
            row.value or 0.0
            for at, row in oxygen.items()
            if mean.sampled_at <= at < mean.sampled_at + HOUR and row.flag != 4
        ]
        assert mean.value == pytest.approx(sum(went_in) / len(went_in) if went_in else None)


@pytest.fixture
def client(engine: Engine, sessions: sessionmaker[Session], tmp_path: Path) -> FlaskClient:
    url = engine.url.render_as_string(hide_password=False)
    return World(engine, sessions, url, tmp_path).app().test_client()


@pytest.mark.nightly
def test_values_means_and_what_follows_are_proved_after_every_step_and_known_as_they_were_before(
    client: FlaskClient, session: Session
) -> None:
    pond = Pond(session, client)
    told: list[str] = []
    for step in what_happens(pond):
        pond.settle()
        follows(pond)
        report = verify(session)
        assert report.is_clean, (step, report.findings)
        pond.now += HOUR / 2
        pond.saved[f"{pond.now:%Y-%m-%dT%H:%M:%SZ}"] = pond.read()
        told.append(step)
        pond.now += HOUR / 2
    answers = [dict(saved) for saved in pond.saved.values()]
    for number, (step, before, after) in enumerate(
        zip(told[1:], answers, answers[1:], strict=False)
    ):
        is_other = {path for path in before.keys() & after.keys() if before[path] != after[path]}
        assert is_other or before.keys() != after.keys() or number == 2, step
    for step, (moment, before) in zip(told, pond.saved.items(), strict=True):
        for (path, was), (_, then) in zip(before, pond.read(as_of=moment), strict=True):
            assert then == was, (step, path)

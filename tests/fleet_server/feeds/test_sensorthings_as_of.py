"""`asOf`: what was answered at a moment is answered again for that moment, byte by byte, whatever was corrected since."""

from __future__ import annotations

import json
import random
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from corrections import HOUR, calibrate
from factories import NOON, SimulatedNode, deployed_node
from flask.testing import FlaskClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock
from fleet_server.measurement.drift import Check
from fleet_server.models import CalibrationKind, Channel
from fleet_server.services import calibrating, correcting, revising, rights
from fleet_server.services.calibrating import NewCalibration, NewPoint
from fleet_server.services.correcting import NewCorrection
from fleet_server.services.ingest import store_batch
from tests.fleet_server.world_fixtures import World

pytestmark = pytest.mark.postgresql_at_night

STEPS = 10


@pytest.fixture
def client(engine: Engine, sessions: sessionmaker[Session], tmp_path: Path) -> FlaskClient:
    url = engine.url.render_as_string(hide_password=False)
    return World(engine, sessions, url, tmp_path).app().test_client()


def at(client: FlaskClient, moment: datetime, *addresses: str) -> list[str]:
    """The bodies that are answered when it is that moment."""
    clock.use_clock(f"{int(moment.timestamp())}@0x0")
    try:
        answers = [client.get(f"/v1.1/{address}") for address in addresses]
    finally:
        clock.use_clock(clock.REAL)
    assert [answer.status_code for answer in answers] == [200] * len(addresses)
    return [answer.text for answer in answers]


def addresses(streams: dict[str, int]) -> list[str]:
    return [
        f"Datastreams({streams['t30']})/Observations?$count=true",
        f"Datastreams({streams['r30']})/Observations?$orderby=phenomenonTime desc&$top=5&$select=result,resultTime,parameters,resultQuality",
        f"Datastreams({streams['r30']})?$expand=Observations($top=3;$count=true)",
        "Observations?$filter=phenomenonTime ge 2026-07-01T12:30:00Z and result gt 15 and phenomenonTime lt 2026-07-02T00:00:00Z&$top=1000",
    ]


@pytest.mark.also_on_postgresql
@pytest.mark.once_on_postgresql
@pytest.mark.parametrize("seed", range(2))
def test_answer_as_of_a_moment_is_the_answer_of_that_moment(
    client: FlaskClient, session: Session, seed: int
) -> None:
    """A random schedule of packs, late packs, corrections, and the switch to them."""
    chance = random.Random(seed)
    deployed_node(session)
    node = SimulatedNode()
    streams: dict[str, int] = dict(
        session.execute(select(Channel.key, Channel.datastream_id)).all()
    )
    asked = addresses(streams)
    waiting = list(range(1, 25))
    saved: dict[datetime, list[str]] = {}
    for step in range(STEPS):
        now = NOON + 12 * HOUR + step * timedelta(minutes=7)
        match chance.choice(("packs", "late", "calibrate", "switch")) if step else "packs":
            case "packs":
                taken, waiting = waiting[:3], waiting[3:]
            case "late":
                taken = [waiting.pop(chance.randrange(len(waiting)))] if waiting else []
            case "calibrate":
                taken = []
                from_at = NOON + chance.randrange(20) * timedelta(minutes=15)
                offset = chance.choice((-1.5, 0.25, 2.0))
                calibrate(
                    session, chance.choice(("t30", "r30")), offset=offset, from_at=from_at, now=now
                )
            case _:
                taken = []
                while revising.advance(session, now=now):
                    pass
        store_batch(session, node.packs(taken), now=now)
        saved[now] = at(client, now, *asked)

    end = NOON + 48 * HOUR
    for moment, answers in saved.items():
        then = f"asOf={moment:%Y-%m-%dT%H:%M:%SZ}"
        again = at(client, end, *(f"{one}{'&' if '?' in one else '?'}{then}" for one in asked))
        for address, before, after in zip(asked, answers, again, strict=True):
            # Links lead to what was known then, too.
            assert re.sub(r'&asof=[^&"]+', "", after) == before, (moment, address)
    assert len({tuple(one) for one in saved.values()}) > 3


def test_corrected_value_says_that_it_is_another_version_and_since_when(
    client: FlaskClient, session: Session
) -> None:
    deployed_node(session)
    store_batch(session, SimulatedNode().packs([1]), now=NOON + HOUR)
    calibrate(session, "t30", offset=-1.5, now=NOON + 2 * HOUR)
    while revising.advance(session, now=NOON + 2 * HOUR):
        pass
    stream = session.scalars(select(Channel.datastream_id).where(Channel.key == "t30")).one()
    (now,) = at(client, NOON + 3 * HOUR, f"Datastreams({stream})/Observations")
    (then,) = at(
        client, NOON + 3 * HOUR, f"Datastreams({stream})/Observations?asOf=2026-07-01T13:00:00Z"
    )
    assert ('"result": 18.375' in now, '"version": 2' in now) == (True, True)
    assert '"resultTime": "2026-07-01T14:00:00Z"' in now
    assert ('"result": 19.875' in then, '"version": 1' in then) == (True, True)
    assert '"resultTime": "2026-07-01T13:00:00Z"' in then


def test_value_put_right_for_drift_names_its_correction_whose_numbers_are_its_sensors(
    client: FlaskClient, session: Session
) -> None:
    deployed_node(session)
    store_batch(session, SimulatedNode().packs([1, 2]), now=NOON + HOUR)
    found = NewCorrection(
        "n-000001/d30", "soil_temperature", NOON, NOON + HOUR, low=Check(0.0, -0.4)
    )
    rights.act_as(session, rights.Actor("ada", frozenset(rights.Right)))
    draft = correcting.draft_correction(session, found, now=NOON + HOUR)
    rights.act_as(session, rights.Actor("grace", frozenset(rights.Right)))
    stream = session.scalars(select(Channel.datastream_id).where(Channel.key == "t30")).one()
    asked = (f"Datastreams({stream})/Observations", f"Datastreams({stream})/Sensor")
    values, sensor = at(client, NOON + 2 * HOUR, *asked)
    assert ('"correctionId": null' in values, '"corrections": []' in sensor) == (True, True)
    correcting.approve_correction(session, draft.id, now=NOON + 2 * HOUR)
    while revising.advance(session, now=NOON + 2 * HOUR):
        pass
    values, sensor = at(client, NOON + 3 * HOUR, *asked)
    assert values.count(f'"correctionId": {draft.id}') == 2
    assert f'"corrections": [{{"correctionId": {draft.id}, "property": "soil_temp' in sensor
    assert '"lowStandard": 0.0, "lowReading": -0.4, "highStandard": null' in sensor


def test_what_was_withdrawn_stays_in_its_probes_history_with_its_status_and_drafts_do_not(
    client: FlaskClient, session: Session
) -> None:
    deployed_node(session)
    store_batch(session, SimulatedNode().packs([1, 2]), now=NOON + HOUR)
    probe = ("n-000001/d30", "soil_temperature")
    visit = NewCorrection(*probe, NOON, NOON + HOUR, low=Check(0.0, -0.4))
    new = NewCalibration(*probe, CalibrationKind.OFFSET, "ada", NOON, (NewPoint(1.5, 0.0, 0.02),))

    def act_as(name: str) -> None:
        rights.act_as(session, rights.Actor(name, frozenset(rights.Right)))

    act_as("ada")
    corrections = [correcting.draft_correction(session, visit, now=NOON + HOUR) for _ in range(2)]
    records = [calibrating.draft_calibration(session, new, now=NOON + HOUR) for _ in range(2)]
    act_as("grace")
    numbers = [one.calibration.id for one in records]
    correcting.approve_correction(session, corrections[0].id, now=NOON + HOUR)
    correcting.withdraw_correction(session, corrections[0].id, reason="x", now=NOON + 2 * HOUR)
    calibrating.approve_calibration(session, numbers[0], now=NOON + HOUR)
    calibrating.withdraw_calibration(session, numbers[0], reason="x", now=NOON + 2 * HOUR)
    calibrating.withdraw_calibration(session, numbers[1], reason="x", now=NOON + 2 * HOUR)
    stream = session.scalars(select(Channel.datastream_id).where(Channel.key == "t30")).one()
    (told,) = at(client, NOON + 3 * HOUR, f"Datastreams({stream})/Sensor")
    metadata = json.loads(told)["metadata"]
    listed = [
        (one["calibrationId"], one["status"], one["withdrawnAt"])
        for one in metadata["calibrations"]
        if one["property"] == "soil_temperature"
    ]
    assert listed[1:] == [(numbers[0], "withdrawn", "2026-07-01T14:00:00Z")]
    assert listed[0][1:] == ("approved", None)
    (only,) = metadata["corrections"]
    assert (only["correctionId"], only["status"]) == (corrections[0].id, "withdrawn")
    assert (only["approvedAt"], only["withdrawnAt"]) == (
        "2026-07-01T13:00:00Z",
        "2026-07-01T14:00:00Z",
    )

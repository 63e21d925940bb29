"""Means of hours and days in the feed: datastreams of their own, with interval, extremes, completeness and what was known when."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from factories import NOON, SimulatedNode, deployed_node
from flask.testing import FlaskClient
from judged_world import Thermometer
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.models import Site
from fleet_server.services import aggregating, flagging, judging
from fleet_server.services.ingest import store_batch
from tests.fleet_server.world_fixtures import World

LATER = NOON + timedelta(days=2)


@pytest.fixture
def client(engine: Engine, sessions: sessionmaker[Session], tmp_path: Path) -> FlaskClient:
    url = engine.url.render_as_string(hide_password=False)
    return World(engine, sessions, url, tmp_path).app().test_client()


def read(client: FlaskClient, address: str) -> Any:
    clock.use_clock(f"{int((LATER + timedelta(days=1)).timestamp())}@0x0")
    try:
        answer = client.get(f"/v1.1/{address}")
    finally:
        clock.use_clock(clock.REAL)
    assert answer.status_code == 200, answer.text
    return answer.json


def test_means_are_datastreams_whose_observations_say_their_interval_and_what_they_rest_on(
    client: FlaskClient, session: Session
) -> None:
    world = Thermometer(session)
    world.judge()
    world.aggregate()
    source, hourly, daily = read(client, "Datastreams?$expand=Sensor,ObservedProperty&$orderby=id")[
        "value"
    ][-3:]
    source = next(
        one
        for one in read(client, "Datastreams?$expand=Sensor&$top=100")["value"]
        if one["@iot.id"] == hourly["properties"]["meanOf"]
    )
    assert [one["properties"]["level"] for one in (source, hourly, daily)] == [
        "calibrated",
        "hourly",
        "daily",
    ]
    assert hourly["name"] == f"{source['name']}, hourly mean"
    assert daily["unitOfMeasurement"] == source["unitOfMeasurement"]
    assert daily["ObservedProperty"]["properties"]["property"] == source["properties"]["property"]
    assert daily["Sensor"]["@iot.id"] == source["Sensor"]["@iot.id"]
    assert daily["properties"]["sensors"] == source["properties"]["sensors"]
    assert daily["phenomenonTime"] == "2026-06-30T22:00:00Z/2026-07-01T22:00:00Z"
    assert hourly["phenomenonTime"] == "2026-07-01T12:00:00Z/2026-07-02T00:00:00Z"

    page = read(
        client, f"Datastreams({hourly['@iot.id']})/Observations?$count=true&$orderby=phenomenonTime"
    )
    assert page["@iot.count"] == 12
    second = page["value"][1]
    assert second["phenomenonTime"] == "2026-07-01T13:00:00Z/2026-07-01T14:00:00Z"
    assert second["resultQuality"]["flag"] == 1
    told = second["parameters"]
    assert (told["count"], told["completeness"]) == (4, 1.0)
    assert told["minimum"] <= second["result"] <= told["maximum"]
    assert (told["conversion"], told["pipelineVersion"]) == ("mean of an hour", "aggregates/1")
    (day,) = read(client, f"Datastreams({daily['@iot.id']})/Observations")["value"]
    assert day["parameters"]["completeness"] < 0.75
    assert day["resultQuality"]["flagName"] == "suspect"


def test_as_of_gives_the_mean_with_the_extremes_that_were_known_then(
    client: FlaskClient, session: Session
) -> None:
    world = Thermometer(session)
    world.judge()
    world.aggregate()
    streams = read(client, "Datastreams?$top=100")["value"]
    hourly = next(one for one in streams if one["properties"]["level"] == "hourly")
    address = f"Datastreams({hourly['@iot.id']})/Observations?$filter=phenomenonTime eq 2026-07-01T20:00:00Z"
    before = read(client, address)["value"]
    flagging.give_flag(
        session,
        hourly["properties"]["meanOf"],
        flag=4,
        from_at=NOON + timedelta(hours=8),
        to_at=NOON + timedelta(hours=8, minutes=40),
        reason="roots",
        author="Ada",
        now=LATER + timedelta(hours=1),
    )
    world.judge(now=LATER + timedelta(hours=1))
    world.aggregate(now=LATER + timedelta(hours=2))
    after = read(client, address)["value"]
    assert [one["parameters"]["count"] for one in (*before, *after)] == [4, 1]
    assert [one["parameters"]["version"] for one in (*before, *after)] == [1, 2]
    assert read(client, f"{address}&asOf=2026-07-03T12:30:00Z")["value"] == before


def test_what_follows_from_values_is_a_datastream_that_names_them_and_what_was_stated(
    client: FlaskClient, session: Session
) -> None:
    deployed_node(session, model="pond-3")
    with db.writing(session):
        session.execute(update(Site).values(details={"altitude_m": "95"}))
    readings = {"tw": 300, "ph": 8123, "do": 912}
    store_batch(
        session,
        [SimulatedNode().pack(seq, readings=readings) for seq in range(1, 37)],
        now=NOON + timedelta(hours=9),
    )
    while judging.judge_due(session, now=LATER):
        pass
    while aggregating.aggregate_due(session, now=LATER):
        pass
    streams = {
        (one["properties"]["property"], one["properties"]["level"]): one
        for one in read(client, "Datastreams?$expand=Sensor,ObservedProperty&$top=100")["value"]
    }
    saturation = streams["oxygen_saturation", "derived"]
    assert saturation["properties"]["derivedFrom"] == sorted(
        streams[one, "calibrated"]["@iot.id"] for one in ("dissolved_oxygen", "water_temperature")
    )
    assert "meanOf" not in saturation["properties"]
    assert saturation["Sensor"] == streams["dissolved_oxygen", "calibrated"]["Sensor"]
    ammonia = streams["ammonia_fraction", "derived"]
    assert ammonia["ObservedProperty"]["name"] == "Fraction of un-ionised ammonia"
    one = read(client, f"Datastreams({saturation['@iot.id']})/Observations?$top=1")["value"][0]
    assert one["phenomenonTime"] == "2026-07-01T12:15:00Z"
    assert one["parameters"]["conversion"] == "percent_saturation"
    assert one["parameters"]["inputs"].startswith("pressure_hpa=1001.")
    assert "completeness" not in one["parameters"]

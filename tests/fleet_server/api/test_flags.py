"""What programs say of values, and what they are told of a value's flag."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from fleet_server.models import Datastream, Observation, Role, Scope, Site
from fleet_server.models.observation import observation_id
from fleet_server.services import accounts
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World

SERIES = "site_code=kortum&property=soil_temperature&depth_cm=30"
FLAG = {
    "site_code": "kortum",
    "property": "soil_temperature",
    "depth_cm": 30,
    "from_at": (NOW - timedelta(hours=2)).isoformat(),
    "to_at": (NOW - timedelta(hours=1)).isoformat(),
    "flag": "bad",
    "reason": "dug out",
}


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    return world.program(demo=False)


def test_values_are_flagged_told_why_and_taken_back(client: FlaskClient, world: World) -> None:
    made = client.post("/api/v1/flags", json=FLAG)
    assert made.status_code == 201
    assert (made.get_json()["flag"], made.get_json()["author"]) == (4, small_world.USER)
    assert client.get(made.headers["Location"]).get_json() == made.get_json()
    with world.sessions() as session:
        stream, at = session.execute(
            select(Observation.datastream_id, Observation.sampled_at)
            .join(Datastream, Datastream.id == Observation.datastream_id)
            .join(Site, Site.id == Datastream.site_id)
            .where(
                Site.code == "kortum",
                Datastream.property == "soil_temperature",
                Datastream.depth_cm == 30,
                Observation.flag == 4,
            )
            .limit(1)
        ).one()
    why = f"/api/v1/flags/why/{observation_id(stream, at)}"
    assert client.get(why).get_json()["person"]["reason"] == "dug out"
    assert client.get(why).get_json()["flag"] == 4
    back = client.post("/api/v1/flags", json={**FLAG, "flag": None, "reason": "another probe"})
    assert back.status_code == 201
    assert client.get(why).get_json()["flag"] == 1
    first = client.get(f"/api/v1/flags?{SERIES}&limit=1").get_json()
    second = client.get(first["next"]).get_json()
    said = [one["reason"] for page in (first, second) for one in page["items"]]
    assert said == ["another probe", "dug out"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"site_code": "nowhere"}, 404),
        ({"property": "ph"}, 404),
        ({"depth_cm": None}, 400),
        ({"to_at": FLAG["from_at"]}, 400),
        ({"from_at": "0001-01-01T00:00:00Z"}, 400),
        ({"from_at": "2026-07-01T12:00:00.2Z", "to_at": "2026-07-01T12:00:00.8Z"}, 400),
        ({"flag": "missing"}, 422),
        ({"reason": ""}, 422),
    ],
)
def test_flag_that_cannot_be_is_refused(
    client: FlaskClient, change: dict[str, Any], status: int
) -> None:
    assert client.post("/api/v1/flags", json={**FLAG, **change}).status_code == status


def test_what_is_not_there_or_not_ones_business_is_not_found(
    client: FlaskClient, world: World
) -> None:
    for address in ("why/1", f"why/{10**30}", "99", "why/2147483648"):
        assert client.get(f"/api/v1/flags/{address}").status_code == 404
    made = client.post("/api/v1/flags", json=FLAG).get_json()
    with world.sessions() as session:
        accounts.create_user(
            session, "waters", "correct horse battery", now=NOW,
            roles=[Role.DATA_STEWARD], scope=Scope.WATERS,
        )  # fmt: skip
    waters = world.program("waters", demo=False)
    assert waters.get(f"/api/v1/flags/{made['id']}").status_code == 404
    assert waters.post("/api/v1/flags", json=FLAG).status_code == 404

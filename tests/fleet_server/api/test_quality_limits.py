"""What programs read of limits, what others would change, and setting them."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from fleet_server.models import Role, Scope
from fleet_server.services import accounts
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World

SERIES = {"site_code": "kortum", "property": "soil_temperature", "depth_cm": 30}
IN_FORCE = "/api/v1/limits/in-force/soil_temperature"


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    return world.program(demo=False)


def test_limits_are_read_tried_set_and_listed(client: FlaskClient) -> None:
    found = client.get(IN_FORCE).get_json()
    assert found["version"] == 0
    limits = found["limits"]
    limits["gross"] |= {"fail": [0.0, 1.0], "suspect": [0.0, 1.0]}
    tried = client.post("/api/v1/limits/dry-run", json={**SERIES, "limits": limits})
    assert tried.status_code == 200
    told = tried.get_json()
    assert told["changed"] == sum(step["count"] for step in told["steps"])
    assert client.get("/api/v1/limits").get_json()["items"] == []
    given = {**SERIES, "limits": limits, "reason": "a cold room"}
    made = client.post("/api/v1/limits", json=given)
    assert made.status_code == 201
    (listed,) = client.get("/api/v1/limits?property=soil_temperature").get_json()["items"]
    assert listed == client.get(made.headers["Location"]).get_json() == made.get_json()
    assert (listed["version"], listed["author"], listed["limits"]) == (1, small_world.USER, limits)
    own = client.get(f"/api/v1/limits/in-force/series/{listed['datastream_id']}").get_json()
    assert (own["is_of_series"], own["limits"]["gross"]["fail"]) == (True, [0.0, 1.0])
    assert client.get(IN_FORCE).get_json()["version"] == 0
    back = {**SERIES, "limits": None, "reason": "another room"}
    assert client.post("/api/v1/limits", json=back).status_code == 201


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"limits": {}}, 400),
        ({"limits": {"gross": {"unit": "Cel", "fail": [0, 10**400], "suspect": [0, 1]}}}, 400),
        ({"limits": None, "site_code": "nowhere"}, 404),
        ({"limits": None, "property": "wind", "site_code": None}, 404),
        ({"limits": "none"}, 422),
        ({"limits": None, "reason": ""}, 422),
    ],
)
def test_limits_that_cannot_be_are_refused(
    client: FlaskClient, change: dict[str, object], status: int
) -> None:
    given = {**SERIES, "reason": "why", **change}
    assert client.post("/api/v1/limits", json=given).status_code == status


def test_limits_of_others_sites_are_not_there(client: FlaskClient, world: World) -> None:
    given = {**SERIES, "limits": client.get(IN_FORCE).get_json()["limits"], "reason": "x"}
    made = client.post("/api/v1/limits", json=given).get_json()
    with world.sessions() as session:
        accounts.create_user(
            session, "limited", "correct horse battery", now=NOW,
            roles=[Role.DATA_STEWARD], scope=Scope.WATERS,
        )  # fmt: skip
    waters = world.program("limited", demo=False)
    assert waters.get(f"/api/v1/limits/{made['id']}").status_code == 404
    assert made["id"] not in [o["id"] for o in waters.get("/api/v1/limits").get_json()["items"]]
    assert waters.post("/api/v1/limits", json=given).status_code == 404
    whole = {**given, "site_code": None, "depth_cm": None}
    assert waters.post("/api/v1/limits", json=whole).status_code == 403

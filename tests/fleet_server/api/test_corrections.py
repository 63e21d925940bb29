"""Corrections of drift by programs: drafted, approved by somebody else, withdrawn; and what is not one's business."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from fleet_server.models import Role, Scope
from fleet_server.services import accounts
from tests.fleet_server.small_world import NOW, PASSWORD
from tests.fleet_server.world_fixtures import World

DRIFT = {
    "serial": "n-000001/d30",
    "property": "soil_temperature",
    "from_at": (NOW - timedelta(hours=3)).isoformat(),
    "to_at": (NOW - timedelta(hours=1)).isoformat(),
    "low": {"standard": 0.0, "reading": -0.4},
    "note": "ice water",
}


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    return world.program(demo=False)


@pytest.fixture(scope="module")
def grace(world: World) -> FlaskClient:
    with world.sessions() as session:
        accounts.create_user(session, "grace", PASSWORD, now=NOW, roles=[Role.DATA_STEWARD])
    return world.program("grace", demo=False)


def test_correction_from_the_draft_to_the_withdrawal(
    client: FlaskClient, grace: FlaskClient
) -> None:
    made = client.post("/api/v1/corrections", json=DRIFT)
    assert made.status_code == 201
    told = made.get_json()
    assert (told["status"], told["rating"], told["version"]) == ("draft", "good", 1)
    assert told["low"] == DRIFT["low"]
    address = made.headers["Location"]
    assert client.get(address).get_json() == told
    own = client.post(f"{address}/approve")
    assert (own.status_code, own.get_json()["code"]) == (403, "correction_refused")

    approved = grace.post(f"{address}/approve").get_json()
    assert (approved["status"], approved["approved_by"]) == ("approved", "grace")
    assert grace.post(f"{address}/approve").status_code == 409
    listed = client.get("/api/v1/corrections?serial=n-000001/d30&status=approved").get_json()
    assert [one["id"] for one in listed["items"]] == [told["id"]]

    withdrawn = grace.post(f"{address}/withdraw", json={"reason": "wrong ice"}).get_json()
    assert (withdrawn["status"], withdrawn["withdrawn_reason"]) == ("withdrawn", "wrong ice")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"serial": "nix"}, 404),
        ({"property": "battery_voltage"}, 403),
        ({"low": None}, 400),
        ({"to_at": DRIFT["from_at"]}, 400),
        ({"high": {"standard": -1.0, "reading": 2.0}}, 400),
        ({"fouling": 1e300}, 422),
        ({"low": {"standard": 0.0}}, 422),
    ],
)
def test_correction_that_cannot_be_is_refused(
    client: FlaskClient, change: dict[str, Any], status: int
) -> None:
    assert client.post("/api/v1/corrections", json={**DRIFT, **change}).status_code == status


def test_who_looks_after_waters_sees_and_approves_nothing_of_a_tree(
    client: FlaskClient, world: World
) -> None:
    made = client.post("/api/v1/corrections", json=DRIFT).headers["Location"]
    with world.sessions() as session:
        accounts.create_user(
            session, "wanda", PASSWORD, now=NOW, roles=[Role.DATA_STEWARD], scope=Scope.WATERS
        )
    wanda = world.program("wanda", demo=False)
    assert wanda.get(made).status_code == 404
    assert wanda.post(f"{made}/approve").status_code == 404
    assert wanda.get("/api/v1/corrections").get_json()["items"] == []
    assert wanda.get("/api/v1/corrections?serial=n-000001/d30").status_code == 404
    assert wanda.post("/api/v1/corrections", json=DRIFT).status_code == 404

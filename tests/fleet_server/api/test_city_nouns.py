"""What programs are told of the city's decisions, and how they change its rules."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from fleet_server.models import Role, Scope
from fleet_server.services import accounts, city_states
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World

LIMITS = {"tension": [{"moderate_kpa": 20, "critical_kpa": 25}]}
RULES = {"kind": "trees", "body": LIMITS, "reason": "a dry year"}


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    with world.sessions() as session:
        city_states.evaluate_due(session, now=NOW)
        accounts.create_user(
            session, "waters", small_world.PASSWORD, now=NOW,
            roles=[Role.WATERS_OFFICE], scope=Scope.WATERS,
        )  # fmt: skip
    return world.program(demo=False)


def test_states_are_listed_the_worst_first_with_sentences_and_numbers(client: FlaskClient) -> None:
    found = client.get("/api/v1/city/states?kind=trees&limit=1").get_json()
    (first,) = found["items"]
    assert found["next"] is not None
    second = client.get(found["next"]).get_json()
    assert second["next"] is None
    assert {first["site_code"], second["items"][0]["site_code"]} == {"kortum", "hostile"}
    assert first["state"] == "good"
    reason = first["reasons"][0]
    assert reason["sentence"].startswith("Soil water tension at ")
    assert set(reason["numbers"]) == {"value", "expanded_u", "limit"}
    assert reason["datastream_id"]
    assert reason["sampled_at"].startswith("2026-07-14T")
    one = client.get(f"/api/v1/city/states/{first['site_code']}").get_json()
    assert one == first


def test_states_of_one_kind_may_be_narrowed(client: FlaskClient) -> None:
    none = client.get("/api/v1/city/states?kind=waters&state=emergency").get_json()
    assert none == {"items": [], "next": None}
    for query in ("", "?kind=bushes", "?kind=trees&state=thirsty"):
        assert client.get(f"/api/v1/city/states{query}").status_code == 422


def test_rules_are_set_read_and_taken_back_as_versions(client: FlaskClient) -> None:
    made = client.post("/api/v1/city/rules", json=RULES)
    assert made.status_code == 201
    shown = made.get_json()
    assert (shown["version"], shown["author"], shown["site_id"]) == (1, small_world.USER, None)
    assert shown["body"]["tension"][0]["critical_kpa"] == 25.0
    assert shown["body"]["oldest_reading_h"] == 24.0
    assert client.get(made.headers["Location"]).get_json() == shown
    own = client.post("/api/v1/city/rules", json={**RULES, "site_code": "kortum"}).get_json()
    assert (own["version"], own["site_id"] is not None) == (1, True)
    back = client.post("/api/v1/city/rules", json={**RULES, "body": None}).get_json()
    assert (back["version"], back["body"]) == (2, None)
    listed = client.get("/api/v1/city/rules?kind=trees").get_json()["items"]
    assert [one["id"] for one in listed] == [back["id"], own["id"], shown["id"]]


@pytest.mark.parametrize(
    ("changes", "status", "detail"),
    [
        ({"body": {"tension": 1}}, 400, "trees.tension must be a list"),
        ({"body": {"drought": 1}}, 400, "trees has no drought"),
        ({"reason": " "}, 400, "why the rules become other ones"),
        ({"site_code": "nowhere"}, 404, "nowhere"),
        ({"site_code": "stadtpark"}, 404, "of the trees"),
        ({"tree_group": "Nowhere"}, 404, "Nowhere"),
        ({"site_code": "kortum", "tree_group": "x"}, 400, "not for both"),
    ],
)
def test_what_are_no_rules_is_refused_with_a_sentence(
    client: FlaskClient, changes: dict[str, object], status: int, detail: str
) -> None:
    answer = client.post("/api/v1/city/rules", json={**RULES, **changes})
    assert (answer.status_code, detail in answer.get_json()["detail"]) == (status, True)


def test_an_office_has_to_do_with_its_own_kind(client: FlaskClient, world: World) -> None:
    made = client.post("/api/v1/city/rules", json=RULES)
    waters = world.program("waters", demo=False)
    assert waters.get("/api/v1/city/states?kind=trees").status_code == 404
    assert waters.get("/api/v1/city/states/kortum").status_code == 404
    assert waters.get(made.headers["Location"]).status_code == 404
    assert waters.post("/api/v1/city/rules", json=RULES).status_code == 404
    assert waters.get("/api/v1/city/rules").get_json()["items"] == []
    own = {"kind": "waters", "body": {"silent_periods": 2}, "reason": "ours"}
    assert waters.post("/api/v1/city/rules", json=own).status_code == 201

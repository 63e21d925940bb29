"""Others' measurements by programs, and how the open feed names where they come from, now and as of before."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from external_world import POND_RULES
from flask.testing import FlaskClient

from fleet_server.models import Role, Scope
from fleet_server.services import accounts
from tests.fleet_server.small_world import NOW, PASSWORD
from tests.fleet_server.world_fixtures import World

ADDRESS = "/api/v1/measurements"
HAND = {
    "site": "stadtpark",
    "property": "water_level",
    "value": "142,5",
    "unit": "cm",
    "u": "0,5",
    "at": (NOW - timedelta(hours=1)).isoformat(),
    "source": "Ada",
    "instrument": "staff gauge",
}


def body(text: str, **changes: Any) -> dict[str, Any]:
    """A laboratory's file of the pond, with its rules."""
    rules = {**POND_RULES.stored(), "site_code": "stadtpark"}
    return {
        "kind": "laboratory",
        "source": "Umweltlabor",
        "report_number": "4711",
        "content": base64.b64encode(text.encode()).decode(),
        "rules": {**rules, **changes.pop("rules", {})},
        **changes,
    }


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    return world.program(demo=False)


@pytest.fixture(scope="module")
def grace(world: World) -> FlaskClient:
    with world.sessions() as session:
        accounts.create_user(session, "grace", PASSWORD, now=NOW, roles=[Role.DATA_STEWARD])
        for name, scope, role in (
            ("tilda", Scope.TREES, Role.DATA_STEWARD),
            ("looker", Scope.ALL, Role.AUDITOR),
        ):
            accounts.create_user(session, name, PASSWORD, now=NOW, roles=[role], scope=scope)
    return world.program("grace", demo=False)


def test_file_is_rehearsed_imported_and_withdrawn_and_the_feed_says_where_values_come_from(
    client: FlaskClient, grace: FlaskClient, world: World
) -> None:
    file = "Zeit;O2;T\n14.07.2026 13:00;8,1;20,5\n14.07.2026 13:15;< 0,5;\n"
    told = client.post(f"{ADDRESS}/import", json=body(file, is_rehearsal=True)).get_json()
    assert (told["import_id"], told["new"], told["limits"]) == (None, 3, 1)
    made = client.post(f"{ADDRESS}/import", json=body(file)).get_json()
    one = f"{ADDRESS}/{made['import_id']}"
    assert client.get(one).get_json()["rules"]["time"] == "Zeit"
    content = client.get(f"{one}/file").get_json()["content"]
    assert base64.b64decode(content).decode() == file
    again = client.post(f"{ADDRESS}/import", json=body(file))
    assert (again.status_code, again.get_json()["code"]) == (409, "already_imported")

    streams = client.get("/v1.1/Datastreams?$top=1000").get_json()["value"]
    [stream] = [
        one
        for one in streams
        if one["properties"]["level"] == "external"
        and one["properties"]["property"] == "dissolved_oxygen"
    ]
    wanted = f"/v1.1/Datastreams({stream['@iot.id']})/Observations?$orderby=phenomenonTime"
    first, second = client.get(wanted).get_json()["value"]
    assert (first["result"], first["resultQuality"]["u"] > 0) == (8.1, True)
    parameters = first["parameters"]
    assert (parameters["source"], parameters["reportNumber"]) == ("Umweltlabor", "4711")
    assert (parameters["row"], parameters["given"], parameters["sensorId"]) == (2, "8,1", None)
    assert (second["result"], second["parameters"]["limitSign"]) == (None, "<")
    assert second["parameters"]["limit"] == 0.5
    assert client.get(f"/v1.1/Datastreams({stream['@iot.id']})/Sensor").status_code == 404

    history = client.get(f"/api/v1/observations/{first['@iot.id']}").get_json()
    [version] = history["versions"]
    assert version["made_by"]["sensor"] is None
    assert version["made_by"]["given"]["given"] == "8,1"
    points = client.get(f"{ADDRESS}/check-points?site=stadtpark").get_json()["items"]
    assert {one["property"] for one in points} >= {"dissolved_oxygen", "water_temperature"}
    assert any(one["en"] is not None for one in points)

    gone = grace.post(f"{one}/withdraw", json={"reason": "no"}).get_json()
    assert (gone["withdrawn_by"], gone["withdrawn_reason"]) == ("grace", "no")
    assert client.get(wanted).get_json()["value"] == []
    assert world.program("tilda", demo=False).get(one).status_code == 404


def test_hand_reading_is_made_and_found(client: FlaskClient, grace: FlaskClient) -> None:
    made = client.post(f"{ADDRESS}/hand-readings", json=HAND)
    assert made.status_code == 201
    assert made.get_json()["kind"] == "hand"
    assert client.get(made.headers["Location"]).status_code == 200
    listed = grace.get(f"{ADDRESS}?site=stadtpark").get_json()["items"]
    assert made.get_json()["id"] in [one["id"] for one in listed]
    assert grace.get(f"{ADDRESS}?site=kortum").get_json()["items"] == []


@pytest.mark.parametrize(
    ("given", "status", "sentence"),
    [
        (body("Zeit;O2;T\n", content="%%%"), 400, "no base64"),
        (body("x", rules={"time": 5}), 400, "no rules"),
        (body("x", rules={"sweet": 5}), 400, "no rules"),
        (body("Zeit;X;T\n1;2;3\n"), 400, "no column 'O2'"),
        (body("x", source=""), 422, "source"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(
    client: FlaskClient, given: dict[str, Any], status: int, sentence: str
) -> None:
    told = client.post(f"{ADDRESS}/import", json=given)
    assert told.status_code == status
    assert sentence in told.text


def test_wrong_cells_are_told_and_nothing_comes_in(client: FlaskClient) -> None:
    before = len(client.get(ADDRESS).get_json()["items"])
    told = client.post(
        f"{ADDRESS}/import", json=body("Zeit;O2;T\n14.07.2026 13:00;acht;20\n")
    ).get_json()
    assert (told["import_id"], told["wrong_count"]) == (None, 1)
    assert told["wrong"][0]["sentence"] == "'acht' is no number."
    assert len(client.get(ADDRESS).get_json()["items"]) == before


def test_who_only_looks_takes_nothing_down(grace: FlaskClient, world: World) -> None:
    looker = world.program("looker", demo=False)
    assert looker.post(f"{ADDRESS}/hand-readings", json=HAND).status_code == 403
    assert looker.get(ADDRESS).status_code == 200
    tilda = world.program("tilda", demo=False)
    told = tilda.post(f"{ADDRESS}/hand-readings", json=HAND)
    assert (told.status_code, "no site stadtpark" in told.text) == (400, True)

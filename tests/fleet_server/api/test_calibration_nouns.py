"""What programs do with standards and calibrations."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from fleet_server.models import Role
from fleet_server.services import accounts, certifying
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World

SERIAL = "n-000002/o2"
BASE = "/api/v1/calibrations"
POINTS = [
    {"indicated": 8.0, "reference": 8.2, "u_reference": 0.1, "step": "air"},
    {"indicated": 0.1, "reference": 0.0, "u_reference": 0.05, "step": "zero"},
]
DRAFT = {
    "serial": SERIAL,
    "property": "dissolved_oxygen",
    "performed_by": "tina",
    "points": POINTS,
    "environment": {"pressure_hpa": 1003.5},
}


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    return world.program(demo=False)


@pytest.fixture(scope="module")
def steward(world: World) -> FlaskClient:
    with world.sessions() as session:
        accounts.create_user(
            session, "dora", small_world.PASSWORD, now=NOW, roles=[Role.DATA_STEWARD]
        )
    return world.program("dora", demo=False)


def test_draft_is_made_once_changed_by_who_read_it_and_approved_by_who_looked_at_it(
    client: FlaskClient, steward: FlaskClient
) -> None:
    key = {"Idempotency-Key": "do-1"}
    made, again = (client.post(BASE, json=DRAFT, headers=key) for _ in range(2))
    assert (made.status_code, made.get_json()) == (201, again.get_json())
    address = made.headers["Location"]
    public = "/v1.1/Sensors?$filter=name eq 'n-000002/o2'"
    (sensor,) = client.get(public).get_json()["value"]
    versions = {one["version"] for one in sensor["metadata"]["calibrations"]}
    assert versions == {1}  # a draft is nobody's business yet
    seen = client.get(address)
    assert seen.get_json()["faults"] == []
    assert seen.get_json()["parameters"]["slope"] == pytest.approx(8.2 / 7.9)
    change = {"environment": {"pressure_hpa": 1000.0}, "valid_from": "2026-07-14T12:00:01Z"}
    tag = {"If-Match": seen.headers["ETag"]}
    assert client.patch(address, json=change, headers=tag).status_code == 200
    assert client.patch(address, json=change, headers=tag).status_code == 412
    own = client.post(f"{address}/approve", json={"sha256": "0" * 64})
    assert (own.status_code, own.get_json()["code"]) == (409, "calibration_changed")
    extra = {**POINTS[0], "step": "third", "reference": 8.3}
    assert len(client.post(f"{address}/points", json=extra).get_json()["points"]) == 3
    dropped = client.post(f"{address}/points/drop", json={"step": "third"}).get_json()
    assert [one["step"] for one in dropped["points"]] == ["air", "zero"]
    sha256 = client.get(address).get_json()["sha256"]
    own = client.post(f"{address}/approve", json={"sha256": sha256})
    assert (own.status_code, own.get_json()["code"]) == (403, "four_eyes")

    begin = {"sha256": sha256, "valid_from": "2026-07-14T09:00:00Z"}
    (change,) = steward.post(f"{address}/rehearse-approval", json=begin).get_json()["changes"]
    assert (change["property"], change["changed"]) == ("dissolved_oxygen", change["compared"])
    assert change["largest"] > 0
    assert client.get(address).get_json()["status"] == "draft"

    approved = steward.post(f"{address}/approve", json={"sha256": sha256}).get_json()

    assert (approved["status"], approved["approval"]["by"]) == ("approved", "dora")
    told = client.get(f"{address}/certificate").get_json()
    assert told["sha256"] == certifying.digest(told["certificate"]) == approved["sha256"]
    (line,) = client.get(f"{BASE}?serial={SERIAL}&status=approved").get_json()["items"]
    assert line["approved_by"] == "dora"
    gone = steward.post(f"{address}/withdraw", json={"reason": "wrong pressure"}).get_json()
    assert (gone["status"], gone["withdrawn_reason"]) == ("withdrawn", "wrong pressure")
    with_factory = client.get(f"{BASE}?serial={SERIAL}&with_factory=true&limit=1").get_json()
    assert with_factory["next"] is not None


def test_standard_is_added_listed_and_discarded(client: FlaskClient) -> None:
    air = {"kind": "air_saturation", "property": "dissolved_oxygen", "name": "air", "u": 0.05}
    made = client.post("/api/v1/standards", json=air)
    assert made.status_code == 201
    assert client.post("/api/v1/standards", json=air).get_json()["code"] == "standard_taken"
    usable = "/api/v1/standards?property=dissolved_oxygen&is_usable=true"
    assert [one["id"] for one in client.get(usable).get_json()["items"]] == [made.get_json()["id"]]
    draft = client.post(BASE, json={**DRAFT, "points": []}).headers["Location"]
    point = {"indicated": 8.9, "standard_id": made.get_json()["id"], "temperature_c": 20.0}
    record = client.post(f"{draft}/points", json={**point, "step": "air"}).get_json()
    assert record["points"][0]["reference"] == pytest.approx(9.0, abs=0.05)
    untrusted = client.post(f"{draft}/fit")
    assert (untrusted.status_code, untrusted.get_json()["code"]) == (403, "fit_refused")
    assert "too few points" in untrusted.get_json()["detail"]
    assert client.post(f"{made.headers['Location']}/discard").get_json()["discarded_at"]
    assert client.get(usable).get_json()["items"] == []


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"serial": "nobody"}, 404),
        ({"property": "ph"}, 400),
        ({"kind": "factory"}, 422),
        ({"points": [{"indicated": "much"}]}, 422),
        ({"points": [{"indicated": 1.0}]}, 400),
        ({"environment": {"a": [1]}}, 400),
        ({"performed_at": "2027-01-01T00:00:00Z"}, 400),
    ],
)
def test_draft_that_cannot_be_is_refused(
    client: FlaskClient, change: dict[str, Any], status: int
) -> None:
    assert client.post(BASE, json={**DRAFT, **change}).status_code == status
    assert client.get(f"{BASE}/999999/certificate").status_code == 404


def test_probes_are_listed_with_when_they_are_due(client: FlaskClient) -> None:
    found = client.get("/api/v1/sensors?sensor_type=do_modbus").get_json()["items"]
    assert [(one["serial"], one["node_id"], one["every_days"]) for one in found] == [
        (SERIAL, "n-000002", 90)
    ]
    assert client.get("/api/v1/sensors?is_due=true").get_json()["items"] == []


def test_steps_are_taken_by_a_program_when_the_reading_stands_still(client: FlaskClient) -> None:
    channel = {"node_id": "n-000002", "key": "tw"}
    begun = client.post(f"{BASE}/guided", json=channel).get_json()
    assert client.post(f"{BASE}/guided", json=channel).get_json()["calibration"] == begun["calibration"]  # fmt: skip
    address = f"{BASE}/{begun['calibration']}"
    live = client.get(f"{address}/live").get_json()  # a node that sends every quarter of an hour
    assert (live["unit"], live["is_steady"], live["why_not"]) == ("Cel", False, "few")
    assert live["steps"] == [{"step": "ice", "worth": "fixed", "taken": None}]
    early = client.post(f"{address}/take", json={"step": "ice"})
    assert (early.status_code, early.get_json()["code"]) == (409, "not_steady")
    taken = client.post(f"{address}/take", json={"step": "ice", "takes_unsteady": True}).get_json()
    assert taken["points"][0]["steadiness"]["reason"] == "few"
    assert client.post(f"{BASE}/guided", json={**channel, "key": "bat"}).status_code == 404

"""What programs do with sites, probes and work orders."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from fleet_server.models import Role, Scope
from fleet_server.services import accounts
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World

LINDE = {"code": "linde", "name": "Linde", "kind": "tree", "latitude": 51.48, "longitude": 7.22}
ORDER = {"kind": "battery", "due_at": "2026-07-20T12:00:00Z", "node_id": "n-000001"}


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    return world.program(demo=False)


def _changed(client: FlaskClient, address: str, change: dict[str, Any]) -> Any:
    tag = client.get(address).headers["ETag"]
    return client.patch(address, json=change, headers={"If-Match": tag})


def test_site_is_made_with_what_is_known_changed_and_closed(client: FlaskClient) -> None:
    known = {"species": "Tilia", "planted_year": 1950, "details": {"street": "Ring"}}
    made = client.post("/api/v1/sites", json={**LINDE, **known})
    assert made.status_code == 201
    address = made.headers["Location"]
    assert {name: made.get_json()[name] for name in known} == known
    changed = _changed(client, address, {"species": None, "latitude": 51.5})
    assert (changed.get_json()["species"], changed.get_json()["latitude"]) == (None, 51.5)
    assert changed.get_json()["planted_year"] == 1950
    wrong = _changed(client, address, {"planted_year": 3000})
    assert (wrong.status_code, wrong.get_json()["code"]) == (400, "site_wrong")
    assert client.post(f"{address}/close").status_code == 204
    assert client.get(address).get_json()["closed_at"] is not None
    listed = client.get("/api/v1/sites?state=closed&text=LINDE").get_json()["items"]
    assert [site["code"] for site in listed] == ["linde"]
    assert client.post(f"{address}/reopen").status_code == 204
    busy = client.post("/api/v1/sites/kortum/close")
    assert (busy.status_code, busy.get_json()["code"]) == (409, "site_in_use")


def test_work_is_ordered_once_per_cause_listed_begun_and_finished(client: FlaskClient) -> None:
    made = client.post("/api/v1/work-orders", json={**ORDER, "cause": "battery n-000001"})
    again = client.post("/api/v1/work-orders", json={**ORDER, "cause": "battery n-000001"})
    assert made.status_code == 201
    assert again.get_json()["id"] == made.get_json()["id"]
    assert made.get_json()["site_code"] == "kortum"
    sooner = client.post("/api/v1/work-orders", json={**ORDER, "due_at": "2026-07-15T12:00:00Z"})
    listed = "/api/v1/work-orders?node_id=n-000001&kind=battery"
    first = client.get(f"{listed}&limit=1").get_json()
    second = client.get(first["next"]).get_json()
    order = [line["id"] for page in (first, second) for line in page["items"]]
    assert order == [sooner.get_json()["id"], made.get_json()["id"]]
    address = made.headers["Location"]
    assert client.post(f"{address}/begin").get_json()["begun_by"] == small_world.USER
    assert client.post(f"{address}/finish").get_json()["state"] == "done"
    over = client.post(f"{address}/cancel")
    assert (over.status_code, over.get_json()["code"]) == (409, "work_over")
    done = client.get("/api/v1/work-orders?state=done&site_code=kortum").get_json()["items"]
    assert [line["id"] for line in done] == [made.get_json()["id"]]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"node_id": None}, 400),
        ({"node_id": "n-ffffff"}, 404),
        ({"site_code": "nowhere"}, 404),
        ({"assigned_to": "nobody"}, 404),
        ({"kind": "dance"}, 422),
        ({"due_at": "0001-01-01T00:00:00Z"}, 400),
    ],
)
def test_order_that_cannot_be_is_refused(
    client: FlaskClient, change: dict[str, Any], status: int
) -> None:
    assert client.post("/api/v1/work-orders", json={**ORDER, **change}).status_code == status
    assert client.get("/api/v1/work-orders?after=WyIiLDFd").status_code == 400


def test_probe_is_swapped_and_node_replaced_by_a_program(client: FlaskClient) -> None:
    (stands,) = client.get("/api/v1/deployments?node_id=n-000003&is_open=true").get_json()["items"]
    address = f"/api/v1/deployments/{stands['id']}"
    at = (NOW + timedelta(seconds=1)).isoformat()
    swap = {"slot": "w30", "serial": "W-9", "at": at}
    assert client.post(f"{address}/swap-sensor", json=swap).status_code == 204
    twice = client.post(f"{address}/swap-sensor", json=swap)
    assert (twice.status_code, twice.get_json()["code"]) == (409, "conflict")
    later = (NOW + timedelta(seconds=2)).isoformat()
    busy = client.post(f"{address}/replace", json={"by_node_id": "n-000001", "at": later})
    assert (busy.status_code, busy.get_json()["code"]) == (409, "already_deployed")
    assert client.get(address).get_json()["to_at"] is None
    client.patch(
        address, json={"to_at": later}, headers={"If-Match": client.get(address).headers["ETag"]}
    )
    channels = client.get(address).get_json()["channels"]
    assert [(one["serial"], one["to_at"] is None) for one in channels if one["key"] == "r30"] == [("n-000003/w30", False), ("W-9", False)]  # fmt: skip
    assert {one["depth_cm"] for one in channels if one["key"] in ("r30", "r60")} == {30, 60}
    depths = {"node_id": "n-000003", "site_code": "hostile", "from_at": later, "depths_cm": {"w30": 25}}  # fmt: skip
    assert client.post("/api/v1/deployments", json=depths).status_code == 201
    ended = client.post(f"{address}/swap-sensor", json={**swap, "at": later})
    assert (ended.status_code, "has ended" in ended.get_json()["detail"]) == (409, True)


LATER = "2027-01-01T00:00:00Z"
NOT_YET = {
    "a deployment": ("", {"node_id": "n-000004", "site_code": "hostile", "from_at": LATER}),
    "a swap": ("/1/swap-sensor", {"slot": "w30", "serial": "W-10", "at": LATER}),
    "a replacement": ("/1/replace", {"by_node_id": "n-000004", "at": LATER}),
}


@pytest.mark.parametrize("case", NOT_YET)
def test_nothing_is_mounted_in_the_future(client: FlaskClient, case: str) -> None:
    address, given = NOT_YET[case]
    refused = client.post(f"/api/v1/deployments{address}", json=given)
    assert (refused.status_code, refused.get_json()["code"]) == (400, "invalid")
    assert "lies in the future" in refused.get_json()["detail"]


def test_site_is_found_by_a_code_with_a_slash(client: FlaskClient) -> None:
    """As cadastres number trees within a street."""
    made = client.post("/api/v1/sites", json={**LINDE, "code": "Ring/12"})
    address = made.headers["Location"]
    assert client.get(address).get_json()["code"] == "Ring/12"
    assert client.post(f"{address}/close").status_code == 204
    assert client.get(address).get_json()["closed_at"] is not None


def test_waters_office_sees_and_orders_no_work_at_trees(world: World, client: FlaskClient) -> None:
    order = client.post("/api/v1/work-orders", json=ORDER).headers["Location"]
    with world.sessions() as session:
        roles, scope = [Role.OPERATOR], Scope.WATERS
        accounts.create_user(
            session, "nora", small_world.PASSWORD, now=NOW, roles=roles, scope=scope
        )
    nora = world.program("nora", demo=False)
    assert nora.get("/api/v1/work-orders").get_json()["items"] == []
    assert nora.get(order).status_code == 404
    assert nora.post(f"{order}/cancel").status_code == 404
    assert nora.post("/api/v1/work-orders", json=ORDER).status_code == 404
    assert nora.post("/api/v1/sites/kortum/close").status_code == 404


TREES = (
    "Baumnr;Baumart;Ostwert;Nordwert\n"
    "9001;Tilia cordata;376136,71;5704913,89\n"
    "9002;Tilia cordata;5704913,89;376136,71\n"
).encode("cp1252")
FILE = {"Content-Type": "application/octet-stream"}


def test_file_of_sites_is_rehearsed_then_imported_once_and_told_by_row(
    world: World, tmp_path: Path
) -> None:
    client = world.program(demo=False, files_url=tmp_path.as_uri())
    address = "/api/v1/sites/import?kind=tree&map=name=Baumart"
    rehearsed = client.post(f"{address}&dry_run=true", data=TREES, headers=FILE)
    report = rehearsed.get_json()
    assert (rehearsed.status_code, report["is_dry_run"], report["new"]) == (200, True, ["9001"])
    assert report["counts"] == {"new": 1, "changed": 0, "same": 0, "wrong": 1}
    assert [(row["row"], row["code"]) for row in report["wrong"]] == [(3, "place_wrong")]
    assert (report["crs"], report["columns"]["name"]) == ("EPSG:25832", "Baumart")
    assert client.get("/api/v1/sites/9001").status_code == 404

    headers = {**FILE, "Idempotency-Key": "trees-1"}
    first, again = (client.post(address, data=TREES, headers=headers) for _ in range(2))
    assert first.get_json() == again.get_json() == {**report, "is_dry_run": False}
    assert client.get("/api/v1/sites/9001").get_json()["name"] == "Tilia cordata"
    assert [path.read_bytes() for path in (tmp_path / "imports").iterdir()] == [TREES]
    renamed = TREES.replace(b"Tilia cordata;376", b"Linde;376")
    told = client.post(address, data=renamed, headers=FILE).get_json()
    assert told["changed"] == [{"code": "9001", "fields": ["name", "species"]}]


@pytest.mark.parametrize(
    ("query", "data", "status", "code"),
    [
        ("", b"", 400, "file_wrong"),
        ("", b"PK\x03\x04", 400, "file_wrong"),
        ("?crs=EPSG:31466", TREES, 400, "system_unknown"),
        ("", b"code;Ort\n1;da\n", 400, "system_unknown"),
        ("?map=height=Baumnr", TREES, 400, "file_wrong"),
        ("?map=Baumnr", TREES, 422, "does_not_fit"),
        ("?kind=bush", TREES, 422, "does_not_fit"),
        ("?crs=4326&map=code=nowhere", TREES, 400, "file_wrong"),
    ],
)
def test_file_that_cannot_be_imported_is_one_problem(
    client: FlaskClient, query: str, data: bytes, status: int, code: str
) -> None:
    answer = client.post(f"/api/v1/sites/import{query}", data=data, headers=FILE)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


def test_file_sent_as_a_form_or_too_long_or_by_a_stranger_is_not_read(
    client: FlaskClient,
) -> None:
    address = "/api/v1/sites/import"
    assert client.post(address, data={"file": "x"}).status_code == 415
    two_mb = b"code;x;y\n" + b"a" * (2 * 1024 * 1024)
    assert client.post(address, data=two_mb, headers=FILE).get_json()["code"] == "file_wrong"
    assert client.post(address, data=bytes(11 * 1024 * 1024), headers=FILE).status_code == 413
    stranger = client.application.test_client()
    assert stranger.post(address, data=two_mb, headers=FILE).status_code == 401
    assert client.get(address).get_json()["code"] == "not_found"  # a site could be called so

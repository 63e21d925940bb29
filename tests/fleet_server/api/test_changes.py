"""Programs group nodes, want settings of many, and order commands to many."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from fleet_server.models import Role
from fleet_server.services import accounts, staging
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World


@pytest.fixture(scope="module")
def programs(sqlite_world: World) -> tuple[FlaskClient, FlaskClient]:
    """Of two operators, on a server where more than one node needs an approval."""
    made = []
    for name in ("anna", "bert"):
        with sqlite_world.sessions() as session:
            accounts.create_user(
                session, name, small_world.PASSWORD, now=NOW, roles=[Role.OPERATOR]
            )
        made.append(sqlite_world.program(name, demo=False, approval_above=1))
    return made[0], made[1]


def read(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.get_json()


def test_a_change_is_previewed_proposed_approved_and_taken_back(
    sqlite_world: World, programs: tuple[FlaskClient, FlaskClient]
) -> None:
    anna, bert = programs
    wish = {"layer_kind": "model", "layer_key": "tree-3", "settings": {"sample_s": 300}}
    preview = read(anna.post("/api/v1/changes/preview", json=wish))
    assert preview["counts"] == {"changes": 2, "has_it": 0, "overridden": 0, "cannot": 0}
    assert preview["changed"] == {"sample_s": "300"}
    made = anna.post("/api/v1/changes", json={**wish, "canaries": 1, "soak_s": 0})
    address = made.headers["Location"]
    assert read(made, 201)["state"] == "awaiting_approval"
    own = anna.post(f"{address}/approve")
    assert (own.status_code, own.get_json()["code"]) == (403, "four_eyes")
    approved = read(bert.post(f"{address}/approve"))
    assert (approved["state"], approved["approved_by"], approved["wave"]) == ("running", "bert", 1)
    assert [wave["told"] for wave in approved["waves"]] == [1, 0]
    nodes = read(anna.get(f"{address}/nodes"))["items"]
    assert [one["told_at"] is None for one in nodes] == [False, True]
    drifting = read(anna.get("/api/v1/drift?model=tree-3&reason=waiting"))["items"]
    assert nodes[0]["node_id"] in [one["node_id"] for one in drifting]
    paused = read(bert.post(f"{address}/pause", json={"reason": "storm"}))
    assert (paused["state"], paused["reason"]) == ("paused", "storm")
    other = anna.post("/api/v1/changes", json={**wish, "settings": {"sample_s": 600}})
    assert (other.status_code, other.get_json()["code"]) == (409, "change_under_way")
    assert read(bert.post(f"{address}/roll-back", json={}))["state"] == "rolling_back"
    with sqlite_world.sessions() as session:
        staging.advance_all(session, now=NOW)
    listed = read(anna.get("/api/v1/changes?limit=1"))["items"]
    assert listed[0]["state"] == "rolled_back"
    assert read(anna.get("/api/v1/layers"))["items"] == []


def test_a_group_is_made_changed_and_forgotten(programs: tuple[FlaskClient, FlaskClient]) -> None:
    anna, _ = programs
    rule = {"near": {"latitude": 51.48, "longitude": 7.21, "radius_m": 100}}
    made = anna.post("/api/v1/groups", json={"name": "centre", "rule": rule})
    assert read(made, 201)["members"] == 1
    address, tag = made.headers["Location"], made.headers["ETag"]
    joined = anna.post(f"{address}/join", json={"site_kind": "water"})
    assert read(joined) == {"nodes": 1}
    members = read(anna.get(f"{address}/members"))["items"]
    assert [(one["node_id"], one["by_hand"], one["by_rule"]) for one in members] == [
        ("n-000001", False, True),
        ("n-000002", True, False),
    ]
    assert anna.post(f"{address}/leave", json={"group": "centre"}).get_json() == {"nodes": 1}
    changed = anna.patch(address, json={"rule": None}, headers={"If-Match": tag})
    assert (read(changed)["rule"], changed.get_json()["members"]) == (None, 0)
    assert anna.delete(address, headers={"If-Match": tag}).status_code == 412
    assert anna.delete(address, headers={"If-Match": changed.headers["ETag"]}).status_code == 204
    tagged = {"node_ids": ["n-000001"], "tag_with": "young"}
    assert read(anna.post("/api/v1/tags", json=tagged)) == {"nodes": 1}
    assert anna.post("/api/v1/tags", json={"tag_with": "x"}).status_code == 400


def test_a_command_to_many_is_rehearsed_confirmed_and_listed(
    programs: tuple[FlaskClient, FlaskClient],
) -> None:
    anna, _ = programs
    order = {"name": "reboot", "site_kind": "tree"}
    rehearsed = read(anna.post("/api/v1/commands/order?dry_run=true", json=order))
    assert (rehearsed["told"], rehearsed["batch"]) == (2, None)
    refused = anna.post("/api/v1/commands/order", json=order)
    assert (refused.status_code, refused.get_json()["code"]) == (403, "not_confirmed")
    other = {**order, "name": "self_test", "confirmed_nodes": 3}
    assert anna.post("/api/v1/commands/order", json=other).status_code == 403
    done = read(anna.post("/api/v1/commands/order", json={**order, "confirmed_nodes": 2}))
    first = read(anna.get(f"/api/v1/commands?batch={done['batch']}&limit=1"))
    rest = read(anna.get(first["next"]))
    listed = [*first["items"], *rest["items"]]
    assert sorted(one["node_id"] for one in listed) == ["n-000001", "n-000003"]
    assert rest["next"] is None
    assert anna.post(f"/api/v1/commands/{listed[0]['id']}/cancel").status_code == 204
    canceled = read(anna.get("/api/v1/commands?state=canceled"))["items"]
    assert [one["id"] for one in canceled] == [listed[0]["id"]]


def test_many_are_done_to_as_rehearsed_or_not_at_all(
    programs: tuple[FlaskClient, FlaskClient],
) -> None:
    anna, _ = programs
    address, wish = (
        "/api/v1/nodes/configure",
        {"node_ids": ["n-000002"], "settings": {"low_mv": 3250}},
    )
    rehearsed = read(anna.post(f"{address}?dry_run=true", json=wish))
    wanted = {"If-Match": f'"{rehearsed["tag"]}"'}
    assert read(anna.post(address, json=wish, headers=wanted))["tag"] == rehearsed["tag"]
    again = anna.post(address, json=wish, headers=wanted)  # by now it is so already
    assert (again.status_code, again.get_json()["code"]) == (412, "rehearsal_outdated")
    assert anna.post(address, json=wish, headers={"If-Match": "*"}).status_code == 200


def test_schema_of_a_model_is_one_document(programs: tuple[FlaskClient, FlaskClient]) -> None:
    anna, _ = programs
    found = read(anna.get("/api/v1/models/tree-3/configuration-schema"))["schema"]
    assert found["properties"]["every_s"]["properties"].keys() >= {"r30", "t30"}
    assert anna.get("/api/v1/models/tree-9/configuration-schema").status_code == 404


def test_many_nodes_one_by_one_are_no_way_around_an_approval(
    programs: tuple[FlaskClient, FlaskClient],
) -> None:
    anna, _ = programs
    wish = {"node_ids": ["n-000001", "n-000003"], "settings": {"low_mv": 3300}}
    refused = anna.post("/api/v1/nodes/configure", json=wish)
    assert (refused.status_code, refused.get_json()["code"]) == (403, "approval_wanted")
    assert anna.post("/api/v1/nodes/configure?dry_run=true", json=wish).status_code == 200

"""Programs plan campaigns, approve those of others, watch them, and ask why a node is not updated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from databases import SqliteDatabases
from factories import NOON, register_node
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.models import Role, Scope
from fleet_server.services import accounts, campaign_steps
from tests.fleet_server.services.campaign_fleet import Talker, add_release
from tests.fleet_server.small_world import PASSWORD
from tests.fleet_server.world_fixtures import World


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SqliteDatabases
) -> Iterator[World]:
    """Four nodes at trees, one at a pond, a release for the former; an author, an approver, and who looks after waters."""
    with sqlite_databases.fresh() as url:
        engine = db.make_engine(url)
        sessions: sessionmaker[Session] = db.session_factory(engine)
        people = {
            "anna": ([Role.RELEASE_AUTHOR, Role.RELEASE_APPROVER], Scope.ALL),
            "bert": ([Role.RELEASE_APPROVER], Scope.ALL),
            "wanda": ([Role.RELEASE_AUTHOR], Scope.WATERS),
        }
        with sessions() as session:
            for name, (roles, scope) in people.items():
                accounts.create_user(session, name, PASSWORD, now=NOON, roles=roles, scope=scope)
            for number in (1, 2, 3, 4):
                node_id = register_node(session, f"n-{number:06x}", label=f"tree-0{number}")
                Talker(session, node_id).say(NOON)
            register_node(session, "n-000005", label="pond-05", model="pond-1")
            add_release(session)
        clock.use_clock(f"{int(NOON.timestamp())}@0x0")
        yield World(engine, sessions, url, tmp_path_factory.mktemp("campaigns"))
        clock.use_clock(clock.REAL)
        engine.dispose()


@pytest.fixture(scope="module")
def anna(world: World) -> FlaskClient:
    return world.program("anna", demo=False)


@pytest.fixture(scope="module")
def bert(world: World) -> FlaskClient:
    return world.program("bert", demo=False)


def read(answer: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.get_json()


WISH = {"release_id": 1, "canaries": 1, "shares_pct": [100], "soak_s": 0, "minimum_reached": 1}


def test_a_campaign_is_previewed_planned_approved_by_another_and_watched(
    world: World, anna: FlaskClient, bert: FlaskClient
) -> None:
    preview = read(anna.post("/api/v1/campaigns/preview", json=WISH))
    assert (preview["counts"], preview["waves"]) == (
        {"updates": 4, "has_it": 0, "newer": 0},
        [1, 3],
    )
    key = {"Idempotency-Key": "once"}
    made = anna.post("/api/v1/campaigns", json=WISH, headers=key)
    again = anna.post("/api/v1/campaigns", json=WISH, headers=key)
    assert read(made, 201) == read(again, 201)
    address = made.headers["Location"]
    assert read(anna.get("/api/v1/campaigns"))["items"] == [read(anna.get(address))]
    assert read(made, 201)["state"] == "draft"
    assert read(bert.post(f"{address}/start"), 403)["code"] == "not_allowed"
    assert read(anna.post(f"{address}/start"))["state"] == "awaiting_approval"
    why = read(anna.get("/api/v1/nodes/n-000001/updates"))["why"]
    assert why["code"] == "awaiting_approval"
    assert "wartet darauf" in why["sentence_de"]
    assert read(anna.post(f"{address}/approve"), 403)["code"] == "four_eyes"
    approved = read(bert.post(f"{address}/approve"))
    assert (approved["state"], approved["approved_by"]) == ("scheduled", "bert")
    with world.sessions() as session:
        campaign_steps.advance_all(session, now=NOON)
    shown = read(anna.get(address))
    assert (shown["state"], shown["wave"]) == ("running", 1)
    assert [wave["stages"] for wave in shown["waves"]] == [{"offered": 1}, {"planned": 3}]
    nodes = read(anna.get(f"{address}/nodes?stage=offered"))["items"]
    (canary,) = [one["node_id"] for one in nodes]
    updates = read(anna.get(f"/api/v1/nodes/{canary}/updates"))["updates"]
    assert [(one["version"], one["stage"]) for one in updates] == [("0.8.0", "offered")]
    page = read(anna.get(f"{address}/nodes?limit=3"))
    assert len(page["items"]) == 3
    assert len(read(anna.get(page["next"]))["items"]) == 1
    paused = read(anna.post(f"{address}/pause", json={"reason": "heat"}))
    assert (paused["state"], paused["reason"]) == ("paused", "heat")
    assert read(anna.post(f"{address}/pause", json={}), 409)["code"] == "campaign_elsewhere"
    assert (
        read(anna.post(f"{address}/resume", json={"tries_again": True}), 403)["code"] == "four_eyes"
    )
    assert read(bert.post(f"{address}/resume", json={"tries_again": True}))["state"] == "running"
    assert read(bert.post(f"{address}/nodes/{canary}/retry"), 403)["code"] == "not_allowed"
    assert read(anna.post(f"{address}/abort", json={}))["state"] == "aborted"


@pytest.mark.parametrize(
    ("wish", "status"),
    [
        ({"release_id": 99}, 404),
        ({"shares_pct": [50]}, 400),
        ({"shares_pct": []}, 422),
        ({"hours_from_min": 60}, 400),
        ({"target": {"model": "pond-1"}}, 400),
        ({"target": {"label": "nobody"}}, 400),
        ({"target": {"health": "splendid"}}, 422),
        ({"time_outs_s": {"planned": 60}}, 422),
        ({"ends_at": "2020-01-01T00:00:00Z"}, 400),
        ({"bytes_per_s": 0}, 422),
    ],
)
def test_campaign_that_cannot_be_is_answered_with_a_sentence(
    anna: FlaskClient, wish: dict[str, Any], status: int
) -> None:
    before = read(anna.get("/api/v1/campaigns"))
    problem = read(anna.post("/api/v1/campaigns", json={**WISH, **wish}), status)
    assert problem["detail"].endswith(".")
    assert read(anna.get("/api/v1/campaigns")) == before


def test_who_looks_after_waters_sees_nothing_of_the_trees_campaigns(
    world: World, anna: FlaskClient
) -> None:
    address = anna.post("/api/v1/campaigns", json=WISH).headers["Location"]
    wanda = world.program("wanda", demo=False)
    assert read(wanda.get("/api/v1/campaigns"))["items"] == []
    for path in (address, f"{address}/nodes", "/api/v1/nodes/n-000001/updates"):
        read(wanda.get(path), 404)
    for deed in ("start", "abort", "pause"):
        read(wanda.post(f"{address}/{deed}", json={}), 404)
    read(wanda.post("/api/v1/campaigns", json=WISH), 404)


def test_terms_are_changed_by_who_has_read_them(anna: FlaskClient, bert: FlaskClient) -> None:
    made = anna.post("/api/v1/campaigns", json={**WISH, "bytes_per_s": 1000})
    address, tag = made.headers["Location"], made.headers["ETag"]
    night = {"hours_from_min": 1320, "hours_until_min": 300}
    assert anna.patch(address, json=night).status_code == 428
    assert bert.patch(address, json=night, headers={"If-Match": tag}).status_code == 403
    changed = read(anna.patch(address, json=night, headers={"If-Match": tag}))
    assert (changed["hours_from_min"], changed["bytes_per_s"]) == (1320, 1000)
    outdated = anna.patch(address, json={"at_once": 9}, headers={"If-Match": tag})
    assert outdated.status_code == 412
    half = anna.patch(address, json={"hours_from_min": None}, headers={"If-Match": "*"})
    assert (half.status_code, half.get_json()["code"]) == (400, "campaign_wrong")
    assert read(anna.post(f"{address}/abort", json={}))["state"] == "aborted"
    ended = anna.patch(address, json={"at_once": 9}, headers={"If-Match": "*"})
    assert (ended.status_code, ended.get_json()["code"]) == (409, "campaign_elsewhere")

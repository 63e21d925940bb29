"""Kept views of the list of nodes: one's own, and those that are shared."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import insert, text

from fleet_server import db
from fleet_server.models import Role, SavedView
from fleet_server.services import accounts
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World

VIEWS = "/api/v1/views"
PONDS = {"name": "ponds", "filter": {"model": "pond-1", "battery_below_mv": "4500"}}


@pytest.fixture(scope="module")
def anna(world: World) -> FlaskClient:
    """An administrator's program."""
    return world.program(demo=False)


@pytest.fixture(scope="module")
def tom(world: World) -> FlaskClient:
    """Somebody who may only look."""
    with world.sessions() as session:
        accounts.create_user(session, "tom", small_world.PASSWORD, now=NOW, roles=[Role.AUDITOR])
    return world.program("tom", demo=False)


def _names(client: FlaskClient) -> list[str]:
    return [view["name"] for view in client.get(VIEWS).get_json()["items"]]


def _tag(client: FlaskClient, address: str) -> dict[str, str]:
    return {"If-Match": client.get(address).headers["ETag"]}


def test_view_is_kept_followed_changed_shared_and_taken_away(
    anna: FlaskClient, tom: FlaskClient
) -> None:
    made = anna.post(VIEWS, json=PONDS)
    assert made.status_code == 201
    address = made.headers["Location"]
    shown = anna.get(address).get_json()
    assert (shown["filter"], shown["is_shared"]) == (PONDS["filter"], False)
    found = anna.get(shown["nodes"]).get_json()["items"]
    assert [node["id"] for node in found] == ["n-000002"]
    assert tom.get(address).status_code == 404
    assert _names(tom) == []

    change = {
        "is_shared": True,
        "name": "all ponds",
        "filter": {"model": "pond-1", "sort": "-label"},
    }
    assert anna.patch(address, json=change).status_code == 428
    changed = anna.patch(address, json=change, headers=_tag(anna, address))
    assert changed.get_json()["filter"] == change["filter"]
    assert _names(tom) == ["all ponds"]
    assert tom.delete(address, headers=_tag(tom, address)).status_code == 404
    assert anna.delete(address, headers=_tag(anna, address)).status_code == 204
    assert anna.get(address).status_code == 404


def test_administrator_takes_away_what_somebody_else_shares_and_not_what_is_their_own(
    anna: FlaskClient, tom: FlaskClient
) -> None:
    shared = tom.post(VIEWS, json={**PONDS, "is_shared": True}).headers["Location"]
    private = tom.post(VIEWS, json={**PONDS, "name": "mine"}).headers["Location"]
    assert anna.delete(shared, headers=_tag(anna, shared)).status_code == 204
    assert anna.delete(private, headers={"If-Match": "*"}).status_code == 404
    assert _names(tom) == ["mine"]


def test_name_is_given_once_by_an_owner(anna: FlaskClient, tom: FlaskClient) -> None:
    for name in ("a", "b"):
        assert anna.post(VIEWS, json={**PONDS, "name": name}).status_code == 201
    assert tom.post(VIEWS, json={**PONDS, "name": "a"}).status_code == 201
    again = anna.post(VIEWS, json={**PONDS, "name": " a "})
    assert (again.status_code, again.get_json()["code"]) == (409, "view_exists")
    (second,) = [view for view in anna.get(VIEWS).get_json()["items"] if view["name"] == "b"]
    address = f"{VIEWS}/{second['id']}"
    renamed = anna.patch(address, json={"name": "a"}, headers=_tag(anna, address))
    assert (renamed.status_code, renamed.get_json()["code"]) == (409, "view_exists")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"colour": "red"}, "colour"),
        ({"battery_below_mv": "low"}, "battery_below_mv: Not a valid integer."),
        ({"health": "unwell"}, "health: Must be one of: fresh, troubled"),
        ({"heard_before": "noon"}, "heard_before: Not a valid datetime."),
        ({"model": "x" * 201}, "model"),
        ({"limit": "5"}, "limit"),
    ],
)
def test_filter_that_the_list_would_refuse_is_not_kept(
    anna: FlaskClient, given: dict[str, Any], says: str
) -> None:
    answer = anna.post(VIEWS, json={"name": "wrong", "filter": given})
    assert answer.status_code == 422
    assert says in answer.get_json()["detail"]
    assert "wrong" not in _names(anna)


def test_two_that_make_the_same_at_one_moment_are_told_apart(
    anna: FlaskClient, world: World
) -> None:
    """On SQLite the second waits and finds the first; on PostgreSQL neither sees the other before it is too late."""
    given = {**PONDS, "name": "race"}
    with world.sessions() as session, ThreadPoolExecutor(1) as pool:
        is_postgresql = world.engine.dialect.name == "postgresql"
        with db.writing(session):
            row = {"owner": small_world.USER, "name": "race", "query": "", "is_shared": False}
            session.execute(insert(SavedView).values(**row, saved_at=NOW))
            second = pool.submit(anna.post, VIEWS, json=given)
            while is_postgresql and not _waits(world):
                assert not second.done()
        answer = second.result()
    expected = "crossed" if is_postgresql else "view_exists"
    assert (answer.status_code, answer.get_json()["code"]) == (409, expected)


def _waits(world: World) -> bool:
    with world.engine.connect() as connection:
        return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_pages_of_views_are_the_whole_list_whatever_the_names(
    anna: FlaskClient, world: World
) -> None:
    for name in ("Ä", "ß \N{SNOWMAN}", "?&="):
        assert anna.post(VIEWS, json={**PONDS, "name": name}).status_code == 201
    address, seen = f"{VIEWS}?limit=2", []
    while address:
        page = anna.get(address).get_json()
        seen += [view["name"] for view in page["items"]]
        address = page["next"]
    assert seen == _names(anna)
    assert {"Ä", "ß \N{SNOWMAN}", "?&="} <= set(seen)

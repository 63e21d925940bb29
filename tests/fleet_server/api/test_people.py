"""What an administrator does with people over the API: list, add, change and let in again; never more than they may, and never a secret twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from fleet_server.http_shared.limits import limiter
from fleet_server.models import Role, Scope
from fleet_server.services import accounts, keys, logins, second_factor
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World, log_in

PEOPLE, NODES = "/api/v1/people", "/api/v1/nodes"
NORA = {"name": "nora", "roles": ["operator", "auditor"], "scope": "waters"}


class Administrator:
    """Asks from a browser, with the token that changes want there; and has a key, which is for other things."""

    def __init__(self, world: World, name: str, *, scope: Scope = Scope.ALL) -> None:
        roles = [Role.ADMINISTRATOR]
        with world.sessions() as session:
            owner = accounts.create_user(
                session, name, small_world.PASSWORD, now=NOW, roles=roles, scope=scope
            )
            made = keys.make_key(
                session,
                owner.id,
                roles=roles,
                scope=scope,
                lifetime=timedelta(days=1),
                note="people",
                now=NOW,
            )
        self.id, self.key_id, self.name = owner.id, made.key.id, name
        self.key = {"Authorization": f"Bearer {made.secret}"}
        app = world.app(demo=False)
        self.client: FlaskClient = app.test_client()
        log_in(self.client, name=name)
        token = self.client.get("/api/v1/me").get_json()["csrf_token"]
        self.headers = {"X-CSRFToken": token}
        self._program = app.test_client()

    def ask(self, method: str, address: str, *, tag: str | None = None, **given: Any) -> Any:
        headers = {**self.headers, **({"If-Match": tag} if tag else {})}
        return self.client.open(address, method=method, headers=headers, **given)

    def ask_by_key(self, method: str, address: str, **given: Any) -> Any:
        return self._program.open(address, method=method, headers=self.key, **given)

    def change(self, address: str, change: dict[str, Any]) -> Any:
        tag = self.ask("GET", address).headers["ETag"]
        return self.ask("PATCH", address, tag=tag, json=change)


@pytest.fixture(scope="module", autouse=True)
def without_limits() -> Iterator[None]:
    limiter.enabled = False  # tests log in more often than people
    yield
    limiter.enabled = True


@pytest.fixture(scope="module")
def boss(world: World) -> Administrator:
    return Administrator(world, "boss")


@pytest.fixture(scope="module")
def nora(boss: Administrator) -> str:
    """Her address."""
    made = boss.ask("POST", PEOPLE, json=NORA)
    assert made.status_code == 201, made.text
    assert boss.ask("GET", made.headers["Location"]).get_json() == made.get_json()
    shown = {name: made.get_json()[name] for name in NORA}
    assert shown == {**NORA, "roles": sorted(NORA["roles"])}
    return str(made.headers["Location"])


def test_people_are_listed_by_name_and_filtered(boss: Administrator, nora: str) -> None:
    def names(query: str) -> list[str]:
        return [one["name"] for one in boss.ask("GET", f"{PEOPLE}?{query}").get_json()["items"]]

    assert names("") == sorted(names(""))
    assert names("role=auditor") == ["nora"]
    assert "nora" not in names("is_active=false")
    first = boss.ask("GET", f"{PEOPLE}?limit=1").get_json()
    second = boss.ask("GET", first["next"]).get_json()
    assert [first["items"][0]["name"], second["items"][0]["name"]] == names("")[:2]
    assert boss.ask("GET", f"{PEOPLE}?role=king").status_code == 422


def test_list_of_people_asks_the_same_statements_for_many(
    boss: Administrator, world: World
) -> None:
    counts = []
    for turn in range(2):
        with world.sessions() as session:
            for number in range(1 + 9 * turn):
                name = f"extra {turn} {number}"
                accounts.create_user(session, name, None, now=NOW, roles=[Role.OPERATOR])
        with world.statements() as statements:
            boss.ask("GET", PEOPLE)
        counts.append(len([one for one in statements if not one.startswith("BEGIN")]))
    assert counts[0] == counts[1] <= 3


def test_roles_scope_and_door_are_changed_by_who_read_them(boss: Administrator, nora: str) -> None:
    changed = boss.change(nora, {"roles": ["technician"]})
    assert (changed.get_json()["roles"], changed.get_json()["scope"]) == (["technician"], "waters")
    closed = boss.change(nora, {"is_active": False, "scope": "all"}).get_json()
    assert (closed["is_active"], closed["scope"]) == (False, "all")
    assert boss.ask("PATCH", nora, json={"is_active": True}).status_code == 428
    assert boss.ask("PATCH", nora, tag='"old"', json={"is_active": True}).status_code == 412
    assert boss.change(nora, {"is_active": True}).get_json()["is_active"]
    entries = boss.ask("GET", "/api/v1/audit?subject=account%20nora&limit=1").get_json()["items"]
    assert (entries[0]["actor"], entries[0]["action"]) == (boss.name, "account_opened")


def test_what_cannot_be_is_told_by_its_code(boss: Administrator, nora: str) -> None:
    again = boss.ask("POST", PEOPLE, json=NORA)
    assert (again.status_code, again.get_json()["code"]) == (409, "account_exists")
    for wrong in ({**NORA, "roles": []}, {**NORA, "scope": "moon"}, {"name": "x"}):
        assert boss.ask("POST", PEOPLE, json=wrong).status_code == 422
    assert boss.ask("POST", f"{nora}/second-factor/remove").status_code == 404
    assert boss.ask("GET", f"{PEOPLE}/999999").status_code == 404


def test_code_from_the_api_lets_somebody_in_and_out_again(
    boss: Administrator, nora: str, world: World
) -> None:
    told = boss.ask("POST", f"{nora}/reset").get_json()
    assert told["link"] == f"http://127.0.0.1:8080/reset#{told['code']}"
    with world.sessions() as session:
        user = accounts.finish_reset(session, told["code"], "three words of mine", now=NOW)
        secret = logins.begin(session, user.id, browser="?", now=NOW)
        second_factor.begin(session, user, secret_key="k" * 32, now=NOW)
    assert boss.ask("POST", f"{nora}/log-out").status_code == 204
    assert boss.ask("POST", f"{nora}/second-factor/remove").status_code == 204
    with world.sessions() as session:
        assert logins.find(session, secret) is None


def test_key_is_seen_without_its_secret_and_revoked(boss: Administrator, world: World) -> None:
    other = Administrator(world, "other")
    address = f"{PEOPLE}/{other.id}/keys/{other.key_id}"
    listed = boss.ask("GET", f"{PEOPLE}/{other.id}/keys")
    assert [one["id"] for one in listed.get_json()["items"]] == [other.key_id]
    assert "sk_" not in listed.text
    assert other.ask_by_key("GET", NODES).status_code == 200
    tag = boss.ask("GET", address).headers["ETag"]
    assert boss.ask("DELETE", address, tag=tag).status_code == 204
    assert other.ask_by_key("GET", NODES).status_code == 401
    assert boss.ask("GET", address).get_json()["revoked_at"] is not None
    elsewhere = f"{PEOPLE}/{boss.id}/keys/{other.key_id}"
    assert boss.ask("GET", elsewhere).status_code == 404


def test_administrators_key_neither_sees_nor_changes_people(
    boss: Administrator, nora: str, world: World
) -> None:
    """A key asks for no second factor: who finds one does not become everything with it."""
    before = boss.ask("GET", nora).get_json()
    for method, address, given in (
        ("GET", PEOPLE, {}),
        ("POST", PEOPLE, {"json": {**NORA, "name": "accomplice", "roles": ["administrator"]}}),
        ("POST", f"{nora}/reset", {}),
        ("POST", f"{nora}/second-factor/remove", {}),
    ):
        answer = boss.ask_by_key(method, address, **given)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "not_allowed"), address
        assert "No key may do this" in answer.get_json()["detail"]
    assert boss.ask("GET", nora).get_json() == before


def test_administrator_of_the_trees_has_nothing_to_do_with_others(world: World) -> None:
    trees = Administrator(world, "trees boss", scope=Scope.TREES)
    listed = trees.ask("GET", PEOPLE).get_json()["items"]
    assert [one["name"] for one in listed] == ["trees boss"]
    for method, below in (
        ("GET", ""),
        ("PATCH", ""),
        ("POST", "/reset"),
        ("POST", "/log-out"),
        ("POST", "/second-factor/remove"),
        ("GET", "/keys"),
    ):
        given = {"json": {"is_active": False}} if method == "PATCH" else {}
        answer = trees.ask(method, f"{PEOPLE}/1{below}", tag="*", **given)
        assert answer.status_code == 404, (method, below)
    made = trees.ask("POST", PEOPLE, json={**NORA, "name": "accomplice", "scope": "all"})
    assert (made.status_code, made.get_json()["code"]) == (403, "beyond_scope")


def test_password_stands_in_no_answer(boss: Administrator) -> None:
    shown = boss.ask("GET", f"{PEOPLE}?limit=200").text
    assert small_world.USER in shown
    assert "argon2" not in shown
    assert "password" not in shown

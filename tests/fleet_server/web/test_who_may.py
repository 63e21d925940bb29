"""Who may call what: the table in docs/security/access.md, the code, and what really happens are one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule

from fleet_server.http_shared import access
from fleet_server.http_shared.limits import limiter
from fleet_server.models import Role, Scope
from fleet_server.services import accounts, rights
from tests.fleet_server import small_world
from tests.fleet_server.access_table import BEGIN, END, TABLE, endpoints, table_of
from tests.fleet_server.world_fixtures import World, log_in

# Values for the variable parts of addresses: things that are there.
_PARTS = {
    "node_id": "n-000001",
    "pack_id": "1",
    "datastream_id": "1",
    "name": "x",
    "resource": "Things",
    "filename": "pages.css",
    # Nobody's: who may, finds nothing, and ends no session that this test needs.
    "login_id": "999999",
    "user_id": "999999",
}
_VARIABLE = re.compile(r"<(?:\w+:)?(\w+)>")
# Anything else is a number or a name that need not be there.
_OTHER_PART = "1"


@pytest.fixture(scope="module")
def app(sqlite_world: World) -> Flask:
    made = sqlite_world.app(demo=False)
    made.config["WTF_CSRF_ENABLED"] = False  # who may not is refused before, who may is not asked
    return made


def test_table_in_the_documentation_is_what_the_code_says(app: Flask) -> None:
    text = TABLE.read_text(encoding="utf-8")
    documented = text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    wanted = table_of(app)
    assert documented == wanted, "python -m tests.fleet_server.access_table writes it anew"


class Doors:
    """All views of an application, behind which nothing is done as long as they are `hollow`.

    A request is judged before its view sees it: who is refused never gets as far, and a page that ten may see need not be made
    ten times.
    """

    def __init__(self, app: Flask) -> None:
        self.hollow = False
        for endpoint, view in app.view_functions.items():
            app.view_functions[endpoint] = self._door(view)

    def _door(self, view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)  # and with what it says of who may
        def door(*args: Any, **parts: Any) -> Any:
            return "" if self.hollow else view(*args, **parts)

        return door


@pytest.mark.parametrize(
    "goes_in",
    [
        pytest.param(1, id="one of each door looks behind it"),
        pytest.param(len(Role), marks=pytest.mark.nightly, id="all look behind it"),
    ],
)
def test_every_role_gets_through_where_the_table_says_so_and_nowhere_else(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch, goes_in: int
) -> None:
    """Real requests of real accounts; refused is a login page, 401 or 403 of the code `not_allowed`."""
    app = sqlite_world.app(demo=False)
    app.config["WTF_CSRF_ENABLED"] = False
    doors = Doors(app)
    clients: dict[str, Any] = {"nobody": app.test_client()}
    with sqlite_world.sessions() as session:
        for role in Role:
            accounts.create_user(
                session,
                f"{goes_in} {role}",
                small_world.PASSWORD,
                now=small_world.NOW,
                roles=[role],
            )
    monkeypatch.setattr(limiter, "enabled", False)
    for role in Role:
        clients[role] = app.test_client()
        log_in(clients[role], name=f"{goes_in} {role}")
    wrong = []
    for rule, method in endpoints(app):
        if rule.endpoint in ("web.logout",):
            continue  # open to all, and it would end what this test needs
        said = access.access_of(app, rule, method)
        gone_in = 0
        for who, client in clients.items():
            roles = [] if who == "nobody" else [Role(who)]
            allowed = said.is_open or (
                bool(roles) and (said.right is None or said.right in rights.rights_of(roles))
            )
            doors.hollow = allowed and gone_in >= goes_in
            gone_in += allowed
            if _is_let_in(client, rule, method) != allowed:
                wrong.append(f"{who} {method} {rule.rule}: allowed={allowed}")
    assert not wrong, "\n".join(wrong)


def _is_let_in(client: Any, rule: Rule, method: str) -> bool:
    address = _VARIABLE.sub(lambda found: _PARTS.get(found[1], _OTHER_PART), rule.rule)
    answer = client.open(address, method=method, headers={"Accept": "application/json"})
    answer.close()
    assert answer.status_code < 500, f"{method} {address}: {answer.status_code}"
    if answer.status_code == 403:
        return bool((answer.json or {}).get("code") != "not_allowed")
    leads_to_login = answer.status_code == 302 and "/login" in answer.headers["Location"]
    return answer.status_code != 401 and not leads_to_login


def test_view_that_does_not_say_who_may_call_it_stops_the_start(app: Flask) -> None:
    silent = Flask("silent")
    silent.add_url_rule("/secret", view_func=lambda: "everything")
    with pytest.raises(LookupError, match="GET /secret"):
        access.register_access(silent)


def test_out_of_scope_is_not_there(sqlite_world: World) -> None:
    """Who looks after waters finds no tree: not in lists, not by its address, not through its packs."""
    with sqlite_world.sessions() as session:
        accounts.create_user(
            session,
            "wanda",
            small_world.PASSWORD,
            now=small_world.NOW,
            roles=[Role.OPERATOR],
            scope=Scope.WATERS,
        )
    client = sqlite_world.app(demo=False).test_client()
    log_in(client, name="wanda")
    nodes = client.get("/api/v1/nodes").json
    assert nodes is not None
    assert [node["id"] for node in nodes["items"]] == ["n-000002"]
    assert "Kortumstraße" not in client.get("/fleet/sites").text
    assert client.get("/fleet/nodes/n-000002").status_code == 200
    assert client.get("/fleet/nodes/n-000001").status_code == 404
    assert client.get("/fleet/packs/1").status_code == 404  # a tree's
    assert client.get("/fleet/nodes/n-000001/series/1?since=1780000000&until=1780003600").status_code == 404  # fmt: skip


def test_right_that_is_taken_away_is_gone_with_the_next_click(sqlite_world: World) -> None:
    with sqlite_world.sessions() as session:
        accounts.create_user(
            session, "leaving", small_world.PASSWORD, now=small_world.NOW, roles=[Role.OPERATOR]
        )
    client = sqlite_world.app(demo=False).test_client()
    log_in(client, name="leaving")
    assert client.get("/fleet/").status_code == 200
    with sqlite_world.sessions() as session:
        accounts.set_active(session, "leaving", is_active=False, now=small_world.NOW)
    assert client.get("/fleet/").status_code == 302

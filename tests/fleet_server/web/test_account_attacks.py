"""What somebody tries to get in as another, or to do more than they may: each attack has no effect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyotp
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from structlog.testing import capture_logs

from fleet_server import clock
from fleet_server.http_shared.access import for_everybody_logged_in
from fleet_server.http_shared.limits import limiter
from fleet_server.models import Base, Role, Scope, User
from fleet_server.services import accounts, keys, passwords, second_factor
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW, PASSWORD
from tests.fleet_server.world_fixtures import World, csrf_token, log_in

COOKIE = "stadtsensor"
NEW_PASSWORD = "another horse, another battery"
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass
class City:
    """A server with people, and how to come to it as one of them."""

    world: World
    app: Flask
    made: int = 0

    def person(
        self, *roles: Role, scope: Scope = Scope.ALL, password: str | None = PASSWORD
    ) -> User:
        """A new account with these roles."""
        self.made += 1
        with self.world.sessions() as session:
            return accounts.create_user(
                session,
                f"person {self.made}",
                password,
                now=NOW,
                roles=roles or (Role.OPERATOR,),
                scope=scope,
            )

    def browser(self, user: User | None = None) -> FlaskClient:
        """A browser, in which `user` is logged in."""
        client = self.app.test_client()
        if user is not None:
            log_in(client, name=user.name)
        return client

    def key(self, owner: User, *, scope: Scope = Scope.ALL) -> dict[str, str]:
        """Headers with a new key of all that its owner may."""
        with self.world.sessions() as session:
            made = keys.make_key(
                session,
                owner.id,
                roles=[Role(row.role) for row in owner.roles],
                scope=scope,
                lifetime=timedelta(days=1),
                note="test",
                now=NOW,
            )
        return {"Authorization": f"Bearer {made.secret}"}


@pytest.fixture(scope="module")
def city(sqlite_world: World) -> Iterator[City]:
    app = sqlite_world.app(demo=False)
    limiter.enabled = False  # tests log in more often than people
    yield City(sqlite_world, app)
    limiter.enabled = True


def _cookie(client: FlaskClient) -> str:
    found = client.get_cookie(COOKIE)
    assert found is not None
    return str(found.value)


def _is_logged_in(client: FlaskClient) -> bool:
    return client.get("/fleet/account").status_code == 200


def _token(client: FlaskClient, path: str = "/fleet/account") -> str:
    return csrf_token(client.get(path).text)


# --- sessions ---


def test_session_that_an_attacker_planted_is_not_the_one_that_the_victim_logs_in_with(
    city: City,
) -> None:
    """Planted: a cookie of the attacker's own, with a form's token that the attacker knows."""
    attacker, victim = city.person(), city.person()
    attackers = city.browser(attacker)
    known_token = _token(attackers)
    victims = city.browser()
    victims.set_cookie(COOKIE, _cookie(attackers))
    answer = victims.post(
        "/login", data={"name": victim.name, "password": PASSWORD, "csrf_token": known_token}
    )
    assert answer.status_code == 303
    assert victim.name in victims.get("/fleet/account").text
    assert not _is_logged_in(attackers)  # what was planted ended with the victim's login
    forged = victims.post("/fleet/account/sessions/end-others", data={"csrf_token": known_token})
    assert forged.status_code == 400


def test_copied_cookie_is_dead_after_logout(city: City) -> None:
    victims = city.browser(city.person())
    copied = _cookie(victims)
    thief = city.browser()
    thief.set_cookie(COOKIE, copied)
    assert _is_logged_in(thief)
    victims.post("/logout", data={"csrf_token": _token(victims)})
    thief.set_cookie(COOKIE, copied)  # as it was; the answer has changed the thief's
    assert not _is_logged_in(thief)


@pytest.mark.parametrize("way", ["this one", "all others", "new password", "closed", "by others"])
def test_session_elsewhere_can_be_ended(city: City, way: str) -> None:
    user = city.person()
    here, elsewhere = city.browser(user), city.browser(user)
    page = here.get("/fleet/account").text
    if way == "this one":
        here.post(str(re.findall(r"/fleet/account/sessions/\d+/end", page)[0]), data={"csrf_token": csrf_token(page)})  # fmt: skip
    elif way == "all others":
        here.post("/fleet/account/sessions/end-others", data={"csrf_token": csrf_token(page)})
    elif way == "new password":
        answer = here.post(
            "/fleet/account/password",
            data={"old": PASSWORD, "new": NEW_PASSWORD, "again": NEW_PASSWORD, "csrf_token": csrf_token(page)},
        )  # fmt: skip
        assert answer.status_code == 303
    else:
        boss = city.browser(city.person(Role.ADMINISTRATOR))
        deed = {"closed": "close", "by others": "sessions/end"}[way]
        address = f"/fleet/people/{user.id}"
        answer = boss.post(f"{address}/{deed}", data={"csrf_token": _token(boss, address)})
        assert answer.status_code == 303
    assert not _is_logged_in(elsewhere)
    assert _is_logged_in(here) is (way in ("this one", "all others", "new password"))


def test_nobody_ends_a_session_of_somebody_else(city: City) -> None:
    victims = city.browser(city.person())
    with city.world.sessions() as session:
        login_id = session.scalar(text("SELECT max(id) FROM login_session"))
    attackers = city.browser(city.person())
    address = f"/fleet/account/sessions/{login_id}/end"
    answer = attackers.post(address, data={"csrf_token": _token(attackers)})
    assert answer.status_code == 404
    assert _is_logged_in(victims)


# --- forged requests ---


def test_no_form_of_another_site_changes_anything(city: City) -> None:
    """Every address that changes something, with the cookie of an administrator and without the form's token."""
    boss = city.person(Role.ADMINISTRATOR)
    client, key = city.browser(boss), city.key(boss)
    let_through = []
    for rule in city.app.url_map.iter_rules():
        for method in CHANGING & (rule.methods or set()):
            address = re.sub(r"<[^>]+>", "1", rule.rule)
            address = address.replace("/nodes/1", "/nodes/n-000001")
            for headers in ({}, key):
                answer = client.open(address, method=method, headers=headers)
                if answer.status_code != 400 or not re.search(
                    "out of date|csrf_token", answer.text
                ):
                    let_through.append(f"{method} {rule.rule} {headers} {answer.status_code}")
    assert not let_through
    assert _is_logged_in(client)


def test_program_needs_no_token_of_a_form_and_a_browser_does_whatever_key_it_bears(
    city: City,
) -> None:
    """On an address of the API that changes something, put there for this test."""
    app = city.world.app(demo=False)
    app.add_url_rule(
        "/api/v1/changed", view_func=for_everybody_logged_in(lambda: "done"), methods=["POST"]
    )
    place = City(city.world, app, made=city.made + 2000)
    user = place.person()
    nobody, browser, key = place.browser(), place.browser(user), place.key(user)
    token = {"X-CSRFToken": _token(browser)}
    told = [
        client.post("/api/v1/changed", headers=headers).status_code
        for client, headers in (
            (nobody, key),
            (nobody, {}),
            (browser, {}),
            (browser, key),
            (browser, token),
            (browser, {**key, **token}),
        )
    ]
    assert told == [200, 401, 400, 400, 200, 200]
    assert nobody.post("/fleet/account/keys", headers=key).status_code == 400  # a page's form


# --- keys ---


def test_program_is_given_no_cookie_with_which_its_next_request_would_be_a_browsers(
    city: City,
) -> None:
    client, key = city.browser(), city.key(city.person())
    me = client.get("/api/v1/me", headers=key)
    assert me.json is not None
    assert (me.json["csrf_token"], client.get_cookie(COOKIE)) == (None, None)
    assert client.post("/api/v1/sites", headers=key, json={}).status_code == 422


def test_key_opens_programs_addresses_and_no_page(city: City) -> None:
    client, key = city.browser(), city.key(city.person(Role.ADMINISTRATOR))
    shouted = {"Authorization": key["Authorization"].replace("Bearer", "BEARER")}
    for headers in (key, shouted):
        assert client.get("/api/v1/nodes", headers=headers).status_code == 200
    for page in ("/fleet/", "/fleet/account", "/fleet/people", "/fleet/audit"):
        assert client.get(page, headers=key).status_code == 302
    assert client.get_cookie(COOKIE) is None or not _is_logged_in(client)


@pytest.mark.parametrize("path", ["/api/v1/nodes", "/v1.1/Things"])
@pytest.mark.parametrize("fault", ["unknown", "revoked", "expired", "closed"])
def test_key_that_is_good_for_nothing_is_refused_with_401_and_a_sentence(
    city: City, fault: str, path: str
) -> None:
    owner = city.person()
    key = city.key(owner)
    with city.world.sessions() as session:
        if fault == "revoked":
            newest = keys.keys_of(session, owner.id)[0]
            keys.revoke_key(session, newest.id, owner_id=owner.id, now=NOW)
        if fault == "closed":
            accounts.set_active(session, owner.name, is_active=False, now=NOW)
    if fault == "unknown":
        key["Authorization"] += "x"
    if fault == "expired":
        clock.use_clock(f"{int((NOW + timedelta(days=2)).timestamp())}@0x0")
    answer = city.browser().get(path, headers=key)
    clock.use_clock(f"{int(NOW.timestamp())}@0x0")
    assert answer.status_code == 401, answer.text
    assert answer.json is not None
    assert answer.json["code"] == "key_refused"
    assert "API key" in answer.json["detail"]
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_key_sees_what_its_owner_sees_and_loses_it_with_its_owner(city: City) -> None:
    owner = city.person(Role.OPERATOR, scope=Scope.WATERS)
    client, key = city.browser(), city.key(owner, scope=Scope.WATERS)

    def seen() -> list[str]:
        return [node["id"] for node in client.get("/api/v1/nodes", headers=key).json["items"]]  # type: ignore[index]

    assert seen() == ["n-000002"]
    with city.world.sessions() as session:
        accounts.allow(session, owner.name, roles=[Role.OPERATOR], scope=Scope.TREES, now=NOW)
    assert client.get("/api/v1/nodes", headers=key).status_code == 401


def test_key_with_more_than_its_owner_may_is_refused_by_the_form(city: City) -> None:
    client = city.browser(city.person(Role.OPERATOR, scope=Scope.TREES))
    for wrong, said in (
        ({"role": "administrator", "scope": "trees"}, "a key may what its owner may at most"),
        ({"role": "operator", "scope": "all"}, "has to do with trees only, and so has a key."),
    ):
        answer = client.post(
            "/fleet/account/keys",
            data={**wrong, "days": "30", "note": "x", "csrf_token": _token(client)},
        )
        assert answer.status_code == 400
        assert said in answer.text
        assert "sk_" not in answer.text


# --- who is who ---


def test_answers_do_not_tell_which_names_exist(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by their words, not by their work: as many passwords are tried, through the lock and after it."""
    tried: list[str] = []
    real = passwords.is_right

    def count(password_hash: str, password: str) -> bool:
        tried.append(password_hash[:9])
        return real(password_hash, password)

    monkeypatch.setattr(passwords, "is_right", count)
    there, closed, new = city.person(), city.person(), city.person(password=None)
    with city.world.sessions() as session:
        accounts.set_active(session, closed.name, is_active=False, now=NOW)
    told = {}
    for name in (there.name, closed.name, new.name, "nobody at all"):
        client, begun = city.browser(), len(tried)
        token = _token(client, "/login")
        answers = [
            client.post("/login", data={"name": name, "password": "wrong", "csrf_token": token})
            for _ in range(accounts.FREE_FAILURES + 2)
        ]
        told[name] = (
            [answer.status_code for answer in answers],
            [re.findall(r'role="alert">([^<]+)', answer.text) for answer in answers],
            tried[begun:],
        )
    assert told[there.name][1][-1] == ["Too many wrong passwords; try again in 30 s."]
    assert all(one == told[there.name] for one in told.values())


def test_reset_tells_nobody_whether_a_code_was_ever_good(city: City) -> None:
    codes = {"never": "x" * 32}
    with city.world.sessions() as session:
        for fate in ("used", "expired", "replaced"):
            name = city.person().name
            codes[fate] = accounts.begin_reset(session, name, now=NOW)
    with city.world.sessions() as session:
        accounts.begin_reset(session, name, now=NOW)
    assert _reset(city, codes["used"]).status_code == 303
    before = {fate: _reset(city, codes[fate]).status_code for fate in ("never", "used", "replaced")}
    assert set(before.values()) == {403}, before
    clock.use_clock(f"{int((NOW + accounts.RESET_LIFETIME).timestamp())}@0x0")
    answers = {fate: _reset(city, code) for fate, code in codes.items()}
    clock.use_clock(f"{int(NOW.timestamp())}@0x0")
    assert {answer.status_code for answer in answers.values()} == {403}
    said = {tuple(re.findall(r'role="alert">([^<]+)', one.text)) for one in answers.values()}
    assert said == {("This code is not good any more; ask an administrator for a new one.",)}


def _reset(city: City, code: str, password: str = NEW_PASSWORD) -> Any:
    client = city.browser()
    return client.post(
        "/reset",
        data={"code": code, "new": password, "again": password, "csrf_token": _token(client, "/reset")},
    )  # fmt: skip


def test_code_for_a_new_password_ends_sessions_and_stands_in_no_address_log_or_row(
    city: City,
) -> None:
    user, boss = city.person(), city.browser(city.person(Role.ADMINISTRATOR))
    elsewhere, address = city.browser(user), f"/fleet/people/{user.id}"
    with capture_logs() as logged:
        shown = boss.post(f"{address}/reset", data={"csrf_token": _token(boss, address)})
        code = str(re.search(r"/reset#([\w-]+)", shown.text)[1])  # type: ignore[index]
        assert shown.headers["Cache-Control"] == "no-store"
        assert _is_logged_in(elsewhere)  # nobody is put out by a code that is not used
        done = _reset(city, f" http://127.0.0.1:8080/reset#{code} ")  # the whole link was pasted
    assert done.status_code == 303
    assert code not in done.headers["Location"]
    assert code not in str(logged)
    assert not _is_logged_in(elsewhere)
    client = city.browser()
    form = {"name": user.name, "password": NEW_PASSWORD, "csrf_token": _token(client, "/login")}
    assert client.post("/login", data=form).status_code == 303
    with city.world.sessions() as session:
        kept = [str(session.execute(table.select()).all()) for table in Base.metadata.sorted_tables if table.name in ("audit_entry", "password_reset")]  # fmt: skip
    assert code not in str(kept)


def test_code_does_not_get_around_the_second_factor_nor_open_a_closed_account(city: City) -> None:
    user = city.person()
    secret = _second_factor(city, user)
    with city.world.sessions() as session:
        code = accounts.begin_reset(session, user.name, now=NOW)
    assert _reset(city, code).status_code == 303
    client = city.browser()
    form = {"name": user.name, "password": NEW_PASSWORD, "csrf_token": _token(client, "/login")}
    assert client.post("/login", data=form).status_code == 403
    later = pyotp.TOTP(secret).at(NOW + timedelta(seconds=30))
    assert client.post("/login", data={**form, "code": later}).status_code == 303
    with city.world.sessions() as session:
        code = accounts.begin_reset(session, user.name, now=NOW)
        accounts.set_active(session, user.name, is_active=False, now=NOW)
    assert _reset(city, code).status_code == 403
    with city.world.sessions() as session:
        accounts.set_active(session, user.name, is_active=True, now=NOW)
    assert _reset(city, code).status_code == 403


def _second_factor(city: City, user: User) -> str:
    key = city.app.config["FLEET_SETTINGS"].session_key()
    with city.world.sessions() as session:
        second_factor.begin(session, user, secret_key=key, now=NOW)
        secret = second_factor.unconfirmed_secret(session, user, secret_key=key)
        assert secret is not None
        code = pyotp.TOTP(secret).at(NOW)
        second_factor.confirm(session, user, code, secret_key=key, now=NOW)
    return secret


def test_code_of_the_app_that_was_looked_at_is_good_for_nobody_else(city: City) -> None:
    user = city.person()
    secret = _second_factor(city, user)
    code = pyotp.TOTP(secret).at(NOW + timedelta(seconds=30))
    statuses = []
    for _ in range(2):
        client = city.browser()
        token = _token(client, "/login")
        form = {"name": user.name, "password": PASSWORD, "code": code, "csrf_token": token}
        statuses.append(client.post("/login", data=form).status_code)
    assert statuses == [303, 403]


def test_second_factor_is_not_taken_off_by_who_finds_a_browser_open(city: City) -> None:
    user = city.person()
    client = city.browser(user)
    _second_factor(city, user)
    form = {"password": "I do not know it", "csrf_token": _token(client)}
    assert client.post("/fleet/account/second-factor/remove", data=form).status_code == 400
    form["password"] = PASSWORD
    assert client.post("/fleet/account/second-factor/remove", data=form).status_code == 303


@pytest.fixture
def strict(city: City) -> City:
    """Administrators must have a second factor here."""
    app = city.world.app(demo=False, require_totp=True)
    return City(city.world, app, made=city.made + 1000)


def test_administrator_without_second_factor_gets_nowhere_but_to_it_where_that_is_required(
    strict: City,
) -> None:
    boss, operator = strict.person(Role.ADMINISTRATOR), strict.person(Role.OPERATOR)
    client = strict.browser(boss)
    for path in ("/fleet/", "/fleet/account", "/fleet/people", "/fleet/audit"):
        answer = client.get(path)
        assert (answer.status_code, answer.location) == (302, "/fleet/account/second-factor"), path
    assert "Stadtparkteich" not in client.get("/").text  # not public
    program = client.get("/api/v1/nodes")
    assert (program.status_code, program.json["code"]) == (403, "second_factor_wanted")  # type: ignore[index]
    token = _token(client, "/fleet/account/second-factor")
    assert client.post("/fleet/account/keys", data={"csrf_token": token}).status_code == 302
    assert strict.browser(operator).get("/fleet/").status_code == 200

    client.post("/fleet/account/second-factor", data={"csrf_token": token})
    page = client.get("/fleet/account/second-factor").text
    secret = str(re.search(r"<code>([A-Z2-7]{32})</code>", page)[1])  # type: ignore[index]
    code = pyotp.TOTP(secret).at(NOW)
    done = client.post(
        "/fleet/account/second-factor/confirm", data={"code": code, "csrf_token": token}
    )
    assert len(re.findall(r"<li>[a-z2-7-]{19}</li>", done.text)) == second_factor.RECOVERY_CODES
    assert client.get("/fleet/people").status_code == 200


# --- more than one may ---


def test_administrator_of_the_trees_cannot_become_or_take_over_who_has_all(city: City) -> None:
    boss = city.person(Role.ADMINISTRATOR)
    client = city.browser(city.person(Role.ADMINISTRATOR, scope=Scope.TREES))
    token = _token(client, "/fleet/people")
    assert boss.name not in client.get("/fleet/people").text
    for deed in ("", "/allow", "/reset", "/close", "/open", "/sessions/end", "/second-factor/remove", "/keys/1/revoke"):  # fmt: skip
        method = "POST" if deed else "GET"
        answer = client.open(
            f"/fleet/people/{boss.id}{deed}",
            method=method,
            data={"csrf_token": token, "role": "technician", "scope": "trees"},
        )
        assert answer.status_code == 404, deed
    form = {"name": "accomplice", "role": "administrator", "scope": "all", "csrf_token": token}
    answer = client.post("/fleet/people", data=form)
    assert answer.status_code == 400
    assert "You can give the scope trees only, which is your own." in answer.text


@pytest.mark.parametrize("name", ["machine", "console root", "Key 7 of anna", "token 3"])
def test_name_under_which_the_audit_log_knows_others_is_not_given(city: City, name: str) -> None:
    client = city.browser(city.person(Role.ADMINISTRATOR))
    token = _token(client, "/fleet/people")
    form = {"name": name, "role": "operator", "scope": "all", "csrf_token": token}
    assert client.post("/fleet/people", data=form).status_code == 400


def test_old_password_is_not_guessed_in_a_browser_that_was_left_open(city: City) -> None:
    client = city.browser(city.person())
    form = {"old": "wrong", "new": NEW_PASSWORD, "again": NEW_PASSWORD, "csrf_token": _token(client)}  # fmt: skip
    said = [
        re.findall(r'role="alert">([^<]+)', client.post("/fleet/account/password", data=form).text)
        for _ in range(accounts.FREE_FAILURES + 1)
    ]
    assert said[0] == ["The old password is wrong."]
    assert said[-1] == ["Too many wrong passwords; try again in 30 s."]


def test_limits_hold_where_passwords_and_codes_are_tried(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "enabled", True)
    client = city.world.app(demo=False).test_client()
    log_in(client, name=small_world.USER)
    for path, page in (
        ("/reset", "/reset"),
        ("/fleet/account/password", "/fleet/account"),
        ("/fleet/account/second-factor/confirm", "/fleet/account"),
    ):
        token = _token(client, page)
        statuses = [client.post(path, data={"csrf_token": token}).status_code for _ in range(11)]
        assert statuses[10] == 429, path
        assert 429 not in statuses[:9], path

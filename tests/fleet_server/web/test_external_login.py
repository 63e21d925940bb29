"""Logging in at another place: real OpenID Connect with a little provider on this machine, and what attackers try with it."""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyotp
import pytest
from flask import Flask
from flask.testing import FlaskClient
from joserfc import jwt
from joserfc.jwk import OctKey
from sqlalchemy import select

from fleet_server import clock
from fleet_server.app import create_app
from fleet_server.http_shared.limits import limiter
from fleet_server.models import ExternalIdentity, Role, User
from fleet_server.services import accounts, auditing, second_factor
from fleet_server.settings import SettingWrong
from tests.fleet_server.small_world import NOW, PASSWORD
from tests.fleet_server.web.login_place import (
    KEY,
    SECRET,
    STRANGERS_KEY,
    LoginPlace,
    base64url,
    running_login_place,
    signed,
    unsigned,
)
from tests.fleet_server.world_fixtures import World, csrf_token, log_in

# By database and settings: making one takes longer than what is asked of it.
_APPS: dict[tuple[object, ...], Flask] = {}


@pytest.fixture(scope="module")
def running_place() -> Iterator[LoginPlace]:
    with running_login_place() as place:
        yield place


@pytest.fixture
def place(running_place: LoginPlace) -> Iterator[LoginPlace]:
    running_place.person = {"sub": "248289761001", "preferred_username": "jana"}
    running_place.changes, running_place.discovery = {}, {}
    running_place.sign = signed
    limiter.enabled = False  # tests log in more often than people
    yield running_place
    limiter.enabled = True


def _browser(world: World, place: LoginPlace, **settings: str) -> FlaskClient:
    given = {**place.settings(), **settings}
    key = (world.url, *sorted(given.items()))
    if key not in _APPS:
        _APPS[key] = world.app(demo=False, **given)
    return _APPS[key].test_client()


def _go_there(client: FlaskClient, next_page: str = "") -> str:
    """Address of the other place that the browser is sent to."""
    query = {"next": next_page} if next_page else {}
    answer = client.get("/login/external", query_string=query)
    assert answer.status_code == 302, answer.text
    return str(answer.headers["Location"])


def _come_in(client: FlaskClient, place: LoginPlace, next_page: str = "") -> Any:
    """The whole way there and back."""
    return client.get(place.authorize(_go_there(client, next_page)))


def _is_in(client: FlaskClient) -> bool:
    return client.get("/fleet/account").status_code == 200


def _account(world: World, subject: str) -> User | None:
    with world.sessions() as session:
        found = session.scalar(select(ExternalIdentity).where(ExternalIdentity.subject == subject))
        return None if found is None else accounts.find_account(session, found.user_id)


# --- who comes in, as whom ---


def test_who_is_vouched_for_gets_an_account_without_roles_and_the_same_one_next_time(
    world: World, place: LoginPlace
) -> None:
    client = _browser(world, place)
    page = client.get("/login?next=/fleet/sites").text
    assert "Log in with City Login" in page
    came = _come_in(client, place, next_page="/fleet/sites")
    assert (came.status_code, came.headers["Location"]) == (303, "/fleet/account")
    page = client.get("/fleet/account").text
    assert "may do nothing yet" in page
    assert "jana: no role yet" in page
    # Nothing is offered that would not work.
    assert not re.search(r'action="/fleet/account/(password|mail|keys|external-login)', page)
    assert client.get("/fleet/nodes").status_code == 403
    first = _account(world, "248289761001")
    assert first is not None
    assert (first.name, [row.role for row in first.roles]) == ("jana", [])
    with world.sessions() as session:
        accounts.allow(session, "jana", roles=[Role.OPERATOR], scope="all", now=NOW)

    place.person["preferred_username"] = "jana.mueller"  # names change, the subject does not
    again = _browser(world, place)
    came = _come_in(again, place, next_page="/fleet/sites")
    assert (came.status_code, came.headers["Location"]) == (303, "/fleet/sites")
    assert again.get("/fleet/sites").status_code == 200
    second = _account(world, "248289761001")
    assert second is not None
    assert (second.id, second.name) == (first.id, "jana")
    with world.sessions() as session:
        entries = auditing.newest_entries(session, limit=9, subject="account jana")
    assert [(one.action, one.actor) for one in reversed(entries)] == [
        ("account_made", f"login 127.0.0.1:{place.port}"),
        ("login_linked", f"login 127.0.0.1:{place.port}"),
        ("logged_in", "jana"),
        ("account_allowed", "machine"),
        ("logged_in", "jana"),
    ]


def test_name_of_somebody_who_is_there_already_is_nobodys_door(
    sqlite_world: World, place: LoginPlace
) -> None:
    """Who calls themselves `operator` at the other place gets an account beside, never that of the operator."""
    client = _browser(sqlite_world, place)
    for number, name in enumerate(("operator", "machine", "console root", "\u202e", "x" * 200)):
        place.person = {"sub": f"stranger {number}", "preferred_username": name}
        assert _come_in(client, place).status_code == 303
        account = _account(sqlite_world, f"stranger {number}")
        assert account is not None
        assert account.name != name
        assert not account.roles
        client.post("/logout", data={"csrf_token": csrf_token(client.get("/fleet/account").text)})


def test_roles_follow_the_claim_at_each_login(sqlite_world: World, place: LoginPlace) -> None:
    mapped = {
        "oidc_roles_claim": "groups",
        "oidc_roles": "fleet ops=operator, audit=auditor",
        "oidc_scope": "trees",
    }
    for groups, roles in (
        (["fleet ops", "audit", "cooks"], [Role.AUDITOR, Role.OPERATOR]),
        ("audit", [Role.AUDITOR]),
        (["administrator", 7, None], []),
        (None, []),
    ):
        place.person = {"sub": "grouped", "preferred_username": "gro", "groups": groups}
        assert _come_in(_browser(sqlite_world, place, **mapped), place).status_code == 303
        account = _account(sqlite_world, "grouped")
        assert account is not None
        assert ([row.role for row in account.roles], account.scope) == (roles, "trees")


def test_second_factor_of_the_account_is_asked_for_all_the_same(
    sqlite_world: World, place: LoginPlace
) -> None:
    place.person = {"sub": "careful", "preferred_username": "careful"}
    client = _browser(sqlite_world, place)
    _come_in(client, place)
    account = _account(sqlite_world, "careful")
    key = client.application.config["FLEET_SETTINGS"].session_key()
    with sqlite_world.sessions() as session:
        assert account is not None
        second_factor.begin(session, account, secret_key=key, now=NOW)
        secret = second_factor.unconfirmed_secret(session, account, secret_key=key)
        assert secret is not None
        app = pyotp.TOTP(secret)
        codes = second_factor.confirm(session, account, app.at(NOW), secret_key=key, now=NOW)

    client = _browser(sqlite_world, place)
    came = _come_in(client, place)
    assert came.headers["Location"] == "/login/external/code"
    assert not _is_in(client)
    token = csrf_token(client.get("/login/external/code").text)
    wrong = client.post("/login/external/code", data={"code": "000000", "csrf_token": token})
    assert (wrong.status_code, _is_in(client)) == (403, False)
    right = client.post("/login/external/code", data={"code": codes[0], "csrf_token": token})
    assert (right.status_code, _is_in(client)) == (303, True)

    # Guesses lock the account, as at the other form.
    client = _browser(sqlite_world, place)
    _come_in(client, place)
    token = csrf_token(client.get("/login/external/code").text)
    for _ in range(accounts.FREE_FAILURES):
        client.post("/login/external/code", data={"code": "000000", "csrf_token": token})
    locked = client.post("/login/external/code", data={"code": codes[1], "csrf_token": token})
    assert "Too many wrong passwords" in locked.text
    assert not _is_in(client)


def test_closed_account_stays_closed(sqlite_world: World, place: LoginPlace) -> None:
    place.person = {"sub": "gone", "preferred_username": "gone"}
    _come_in(_browser(sqlite_world, place), place)
    with sqlite_world.sessions() as session:
        accounts.set_active(session, "gone", is_active=False, now=NOW)
    client = _browser(sqlite_world, place)
    came = _come_in(client, place)
    assert (came.status_code, _is_in(client)) == (403, False)
    assert "Your account is closed" in came.text


def test_account_is_linked_by_who_knows_its_password_and_unlinked_again(
    sqlite_world: World, place: LoginPlace
) -> None:
    with sqlite_world.sessions() as session:
        accounts.create_user(session, "linda", PASSWORD, now=NOW, roles=[Role.OPERATOR])
    place.person = {"sub": "linda's subject"}
    client = _browser(sqlite_world, place)
    log_in(client, name="linda")
    token = csrf_token(client.get("/fleet/account").text)
    address = "/fleet/account/external-login"
    wrong = client.post(address, data={"csrf_token": token, "password": "wrong"})
    assert wrong.headers["Location"] == "/fleet/account"
    told = client.post(address, data={"csrf_token": token, "password": PASSWORD}).text
    there = told.partition('class="button" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert client.get(place.authorize(there)).headers["Location"] == "/fleet/account"
    assert "you can log in with City Login, too" in client.get("/fleet/account").text

    other = _browser(sqlite_world, place)
    assert _come_in(other, place, next_page="/fleet/sites").headers["Location"] == "/fleet/sites"
    account = _account(sqlite_world, "linda's subject")
    assert account is not None
    assert account.name == "linda"
    client.post(f"{address}/unlink", data={"csrf_token": token})
    assert _account(sqlite_world, "linda's subject") is None


# --- attacks ---


def _hs256(claims: dict[str, Any]) -> str:
    """Signed with what is public, as if it were a shared secret."""
    body = ".".join(base64url({"alg": "HS256", "kid": "one"}, claims))
    digest = hmac.digest(KEY.as_pem(private=False), body.encode(), "sha256")
    return f"{body}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


TAMPERED: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], str]]] = {
    "another login's nonce": ({"nonce": "another"}, signed),
    "no nonce": ({"nonce": None}, signed),
    "a token for another server": ({"aud": "another"}, signed),
    "a token for another server that names us": ({"aud": "another", "azp": "stadtsensor"}, signed),
    "a token for several, got by another": ({"aud": ["stadtsensor", "x"], "azp": "x"}, signed),
    "a token of another issuer": ({"iss": "https://login.example.org"}, signed),
    "a token that has expired": ({"exp": int(time.time()) - 3600}, signed),
    "a token from tomorrow": ({"iat": int(time.time()) + 86_400}, signed),
    "nobody": ({"sub": None}, signed),
    "a subject without a name": ({"sub": ""}, signed),
    "a subject that nobody sees": ({"sub": " ", "preferred_username": None}, signed),
    "a subject without an end": ({"sub": "x" * 10_000}, signed),
    "a subject that is no text": ({"sub": {"a": 1}}, signed),
    "no signature": ({}, unsigned),
    "a stranger's signature": ({}, lambda it: jwt.encode({"alg": "RS256", "kid": "one"}, it, STRANGERS_KEY)),
    "the public key as a secret": ({}, _hs256),
    "the client's secret as a key": (
        {},
        lambda it: jwt.encode({"alg": "HS256"}, it, OctKey.import_key(SECRET), algorithms=["HS256"]),
    ),
    "no token": ({}, lambda _it: "nonsense"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("attack", TAMPERED)
def test_token_that_does_not_hold_lets_nobody_in(
    sqlite_world: World, place: LoginPlace, attack: str
) -> None:
    place.changes, place.sign = TAMPERED[attack]
    client = _browser(sqlite_world, place)
    came = _come_in(client, place)
    assert (came.status_code, _is_in(client)) == (403, False), came.text
    assert "did not succeed" in came.text
    place.changes, place.sign = {}, signed
    assert _come_in(client, place).status_code == 303  # it was that, and nothing else


def test_address_to_come_back_by_is_good_once_and_in_its_own_browser_only(
    sqlite_world: World, place: LoginPlace
) -> None:
    """Replayed, brought to a victim's browser, or with a state that was guessed."""
    attacker, victim = _browser(sqlite_world, place), _browser(sqlite_world, place)
    back = place.authorize(_go_there(attacker))
    assert victim.get(back).status_code == 403  # who began nothing
    _go_there(victim)
    assert victim.get(back).status_code == 403  # who began another login
    assert not _is_in(victim)
    back = place.authorize(_go_there(attacker))
    state = back.partition("state=")[2].partition("&")[0]
    assert attacker.get(back.replace(state, "guessed")).status_code == 403
    assert attacker.get(back).status_code == 403  # a state is tried once
    back = place.authorize(_go_there(attacker))
    assert attacker.get(f"{back}".replace("iss=http", "iss=https")).status_code == 403  # mix-up
    back = place.authorize(_go_there(attacker))
    assert attacker.get(back).status_code == 303
    attacker.post("/logout", data={"csrf_token": csrf_token(attacker.get("/fleet/account").text)})
    assert attacker.get(back).status_code == 403


def test_code_that_was_caught_is_good_for_nobody_else(
    sqlite_world: World, place: LoginPlace
) -> None:
    """PKCE: the code of a victim's login, put into the attacker's own."""
    victim, attacker = _browser(sqlite_world, place), _browser(sqlite_world, place)
    caught = place.authorize(_go_there(victim)).partition("code=")[2].partition("&")[0]
    own = place.authorize(_go_there(attacker))
    own_code = own.partition("code=")[2].partition("&")[0]
    assert attacker.get(own.replace(own_code, caught)).status_code == 403
    assert not _is_in(attacker)


def test_login_that_took_too_long_is_none(
    sqlite_world: World, place: LoginPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = _browser(sqlite_world, place)
    monkeypatch.setattr("fleet_server.web.oidc.PATIENCE", -clock.now().resolution)
    assert _come_in(client, place).status_code == 403


def test_place_that_is_private_lies_or_is_away_is_not_asked_further(
    sqlite_world: World, place: LoginPlace
) -> None:
    asked = len(place.asked)
    closed = _browser(sqlite_world, place, oidc_hosts="")
    assert closed.get("/login/external").status_code == 503
    assert len(place.asked) == asked  # not a word to a private address
    for lie in (
        {"issuer": "https://login.example.org"},
        {"token_endpoint": "file:///etc/passwd"},
        {"jwks_uri": 7},
        {"authorization_endpoint": "https://["},
    ):
        place.discovery = lie
        answer = _browser(sqlite_world, place).get("/login/external")
        assert (answer.status_code, "cannot be asked" in answer.text) == (503, True)
    place.discovery = {"token_endpoint": "http://10.0.0.1/token"}  # not among the allowed
    assert _come_in(_browser(sqlite_world, place), place).status_code == 503


def test_neither_secret_nor_token_stands_in_log_or_page(
    sqlite_world: World, place: LoginPlace, capfd: pytest.CaptureFixture[str]
) -> None:
    client = _browser(sqlite_world, place)
    there = _go_there(client)
    assert SECRET not in there
    back = place.authorize(there)
    page = client.get(back).text + client.get("/fleet/account").text
    out = "".join(capfd.readouterr())
    assert "logged_in" in out  # there is a log to look into
    for secret in (SECRET, back.partition("code=")[2].partition("&")[0], "eyJ"):
        assert secret not in page + out


def test_roles_that_are_none_stop_the_start(sqlite_world: World, place: LoginPlace) -> None:
    settings = sqlite_world.settings(
        demo=False, **place.settings(), oidc_roles_claim="groups", oidc_roles="ops=king"
    )
    with pytest.raises(SettingWrong, match="oidc_roles"):
        create_app(settings, sqlite_world.sessions)


def test_without_another_place_nothing_is_shown_of_it(sqlite_world: World) -> None:
    client = sqlite_world.app(demo=False).test_client()
    assert "Log in with" not in client.get("/login").text
    assert client.get("/login/external").status_code == 404
    assert client.get("/login/external/back?code=a&state=b").status_code == 403

"""Pages about people, one's own account and the audit log, as who uses them sees them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import timedelta

import pyotp
import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from fleet_server import clock, db
from fleet_server.http_shared.limits import limiter
from fleet_server.models import AuditEntry, AuditHead, LoginSession, Role
from fleet_server.services import accounts, auditing
from tests.fleet_server.small_world import NOW, PASSWORD
from tests.fleet_server.world_fixtures import World, csrf_token, log_in

WORDS = "three words of mine"


@pytest.fixture(scope="module")
def boss(world: World) -> Iterator[FlaskClient]:
    """The browser of an administrator."""
    limiter.enabled = False
    client = world.app(demo=False).test_client()
    log_in(client)
    yield client
    limiter.enabled = True


def _post(client: FlaskClient, path: str, page: str, **form: object) -> str:
    token = csrf_token(client.get(page).text)
    answer = client.post(path, data={**form, "csrf_token": token}, follow_redirects=True)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_somebody_is_added_sets_a_password_is_given_other_rights_and_leaves(
    world: World, boss: FlaskClient
) -> None:
    shown = _post(boss, "/fleet/people", "/fleet/people", name="nora", role="operator", scope="trees")  # fmt: skip
    assert "Code for nora" in shown
    link = re.search(r"http://127.0.0.1:8080(/reset)#([\w-]+)", shown)
    assert link
    noras = world.app(demo=False).test_client()
    assert "log in with it" in _post(noras, "/reset", link[1], code=link[2], new=WORDS, again=WORDS)
    form = {"name": "nora", "password": WORDS}
    assert "nora" in _post(noras, "/login", "/login", **form)
    assert "Operator; Trees" in noras.get("/fleet/account").text

    row = re.search(r'href="(/fleet/people/\d+)">nora<', boss.get("/fleet/people").text)
    assert row
    page = _post(boss, f"{row[1]}/allow", row[1], role=["auditor", "technician"], scope="all")
    assert len(re.findall(r"checked", page)) == 2
    assert "Technician; Trees and waters" in noras.get("/fleet/account").text
    assert noras.get("/fleet/audit").status_code == 200

    page = _post(boss, f"{row[1]}/close", row[1])
    assert "The account is closed." in page
    assert noras.get("/fleet/").status_code == 302
    assert "Open the account again" in boss.get(row[1]).text
    told = boss.get("/fleet/audit?subject=account+nora").text
    for action in ("account_made", "password_reset_begun", "password_changed", "logged_in", "account_allowed", "account_closed"):  # fmt: skip
        assert action in told


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (
            {"name": "operator", "role": "operator"},
            "There is already an account &#39;operator&#39;.",
        ),
        ({"name": "", "role": "operator"}, "A name has 1 to 64 printable characters."),
        ({"name": "nobody"}, "Say what this person does; there are technicians, operators"),
    ],
    ids=["taken", "no name", "no role"],
)
def test_account_that_cannot_be_is_said_above_the_form_that_keeps_what_was_typed(
    boss: FlaskClient, form: dict[str, str], said: str
) -> None:
    token = csrf_token(boss.get("/fleet/people").text)
    answer = boss.post("/fleet/people", data={**form, "scope": "waters", "csrf_token": token})
    assert answer.status_code == 400
    assert said in answer.text
    assert '<option value="waters" selected>' in answer.text


@pytest.mark.parametrize("form", [{"role": "king", "scope": "all"}, {"role": "operator", "scope": "moon"}])  # fmt: skip
def test_role_or_scope_that_there_is_not_is_told_in_one_sentence(
    boss: FlaskClient, form: dict[str, str]
) -> None:
    token = csrf_token(boss.get("/fleet/people").text)
    answer = boss.post("/fleet/people/1/allow", data={**form, "csrf_token": token})
    assert answer.status_code == 400
    assert " wants one of " in answer.text


def test_last_administrator_stays(boss: FlaskClient) -> None:
    token = csrf_token(boss.get("/fleet/people/1").text)
    for deed, form in (("close", {}), ("allow", {"role": "operator", "scope": "all"})):
        answer = boss.post(f"/fleet/people/1/{deed}", data={**form, "csrf_token": token})
        assert answer.status_code == 400
        assert "make somebody else an administrator first" in answer.text


def test_people_are_listed_by_name_page_by_page_with_as_many_statements(
    world: World, boss: FlaskClient
) -> None:
    def listed(path: str) -> tuple[list[str], str | None, int]:
        with world.statements() as statements:
            page = boss.get(path).text
        further = re.search(r'href="([^"]+)">further names', page)
        names = re.findall(r'href="/fleet/people/\d+">([^<]+)<', page)
        asked = [one for one in statements if not one.startswith("BEGIN")]
        return names, further[1] if further else None, len(asked)

    few, none_further, at_first = listed("/fleet/people")
    assert none_further is None
    with world.sessions() as session:
        for number in range(60):
            accounts.create_user(
                session, f"zoe {number:02}", None, now=NOW, roles=[Role.TECHNICIAN, Role.AUDITOR]
            )
    first, further, asked = listed("/fleet/people")
    assert asked == at_first <= 4
    assert further is not None
    rest, nothing_further, _ = listed(further.replace("&amp;", "&"))
    assert nothing_further is None
    assert [*first, *rest] == sorted([*few, *(f"zoe {number:02}" for number in range(60))])


def test_key_is_shown_once_and_works_until_it_is_revoked(world: World, boss: FlaskClient) -> None:
    shown = _post(boss, "/fleet/account/keys", "/fleet/account", note="<b>report</b>", role="administrator", scope="all", days="30")  # fmt: skip
    secret = re.search(r"sk_[\w-]+", shown)
    assert secret
    program = world.app(demo=False).test_client()
    headers = {"Authorization": f"Bearer {secret[0]}"}
    assert program.get("/api/v1/nodes", headers=headers).status_code == 200
    page = boss.get("/fleet/account").text
    assert secret[0] not in page
    assert "&lt;b&gt;report&lt;/b&gt;" in page
    revoke = re.search(r'action="(/fleet/account/keys/\d+/revoke)"', page)
    assert revoke
    assert "is revoked" in _post(boss, revoke[1], "/fleet/account")
    assert program.get("/api/v1/nodes", headers=headers).status_code == 401


def test_second_factor_is_set_up_with_picture_or_letters_asked_for_and_taken_off(
    world: World, boss: FlaskClient
) -> None:
    with world.sessions() as session:
        accounts.create_user(session, "tom", PASSWORD, now=NOW, roles=[Role.OPERATOR])
    client = world.app(demo=False).test_client()
    log_in(client, name="tom")
    factor = "/fleet/account/second-factor"
    assert client.get(f"{factor}.svg").status_code == 404
    page = _post(client, factor, factor)
    picture = client.get(f"{factor}.svg")
    assert (picture.mimetype, picture.headers["Cache-Control"]) == ("image/svg+xml", "no-store")
    assert b"<svg" in picture.data
    secret = re.search(r"<code>([A-Z2-7]{32})</code>", page)
    assert secret
    token = csrf_token(page)
    wrong = client.post(f"{factor}/confirm", data={"code": "000000", "csrf_token": token})
    assert wrong.status_code == 400
    assert secret[1] in wrong.text  # it goes on
    totp = pyotp.TOTP(secret[1])
    codes = _post(client, f"{factor}/confirm", factor, code=totp.at(NOW))
    recovery = re.findall(r"<li>([a-z2-7-]{19})</li>", codes)
    assert len(recovery) == 10
    assert client.get(f"{factor}.svg").status_code == 404

    other = world.app(demo=False).test_client()
    form = {"name": "tom", "password": PASSWORD, "code": recovery[0]}
    _post(other, "/login", "/login", **form)
    assert "Recovery codes left: 9." in other.get("/fleet/account").text
    person = re.search(r'href="(/fleet/people/\d+)">tom<', boss.get("/fleet/people").text)
    assert person
    assert "set up" in boss.get(person[1]).text
    _post(boss, f"{person[1]}/second-factor/remove", person[1])
    log_in(world.app(demo=False).test_client(), name="tom")


def test_demo_says_that_its_clock_is_not_the_phones(world: World) -> None:
    client = world.app(clock="1783000000@1784000000x60").test_client()
    log_in(client)
    token = csrf_token(client.get("/fleet/account/second-factor").text)
    answer = client.post("/fleet/account/second-factor", data={"csrf_token": token})
    assert answer.status_code == 400
    assert "clock is not that of your phone" in answer.text


def test_session_is_listed_with_its_browser_and_seen_to_the_minute(world: World) -> None:
    client = world.app(demo=False).test_client()
    agent = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko Firefox/140.0"}
    token = csrf_token(client.get("/login").text)
    form = {"name": "operator", "password": PASSWORD, "csrf_token": token}
    client.post("/login", data=form, headers=agent)
    assert "Firefox, Linux" in client.get("/fleet/account").text
    writes = []
    for seconds in (1, 59, 61, 119, 120):
        clock.use_clock(f"{int((NOW + timedelta(seconds=seconds)).timestamp())}@0x0")
        with world.statements() as statements:
            client.get("/fleet/quarantine")
        writes.append(sum(one.startswith("UPDATE login_session") for one in statements))
    clock.use_clock(f"{int(NOW.timestamp())}@0x0")
    assert writes == [0, 0, 1, 0, 1]


def test_login_forgets_sessions_that_nobody_has_used_for_months(world: World) -> None:
    with world.sessions() as session:
        made = accounts.create_user(session, "rare", PASSWORD, now=NOW, roles=[Role.OPERATOR])
    log_in(world.app(demo=False).test_client(), name="rare")
    clock.use_clock(f"{int((NOW + timedelta(days=91)).timestamp())}@0x0")
    log_in(world.app(demo=False).test_client(), name="rare")
    clock.use_clock(f"{int(NOW.timestamp())}@0x0")
    with world.sessions() as session:
        kept = session.query(LoginSession).filter_by(user_id=made.id).count()
    assert kept == 1


# --- audit ---


def test_audit_page_says_that_the_log_is_whole_and_with_what_head(
    world: World, boss: FlaskClient
) -> None:
    with world.sessions() as session:
        head = auditing.log_head(session)
    page = boss.get("/fleet/audit").text
    assert "The log is whole" in page
    assert f"{head.seq}:{head.sha256}" in page


def test_audit_filters_stand_in_the_address_and_older_entries_behind_a_link(
    boss: FlaskClient, world: World
) -> None:
    with world.sessions() as session:
        for number in range(120):
            auditing.record(session, "node_configured", subject="node n-000777", now=NOW, version=number)  # fmt: skip
    path, seen = "/fleet/audit?subject=node+n-000777&action=node_configured", []
    while path:
        page = boss.get(path).text
        seen += [int(number) for number in re.findall(r"version=(\d+)", page)]
        older = re.search(r'href="([^"]+)">older', page)
        path = older[1].replace("&amp;", "&") if older else ""
    assert seen == list(range(119, -1, -1))
    assert "No entry fits." in boss.get("/fleet/audit?actor=nobody").text


@pytest.mark.parametrize("query", ["before=yesterday", "before=-1"])
def test_wrong_filter_is_told_in_one_sentence(boss: FlaskClient, query: str) -> None:
    answer = boss.get(f"/fleet/audit?{query}")
    assert answer.status_code == 400
    assert " wants " in answer.text


def test_audit_table_has_all_entries_and_no_cell_that_a_spreadsheet_would_run(
    boss: FlaskClient, world: World
) -> None:
    with world.sessions() as session:
        auditing.record(session, "told", subject='=HYPERLINK("http://evil.example")', now=NOW)
    answer = boss.get("/fleet/audit.csv")
    assert answer.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["seq"]) for row in rows] == list(range(len(rows), 0, -1))
    assert rows[0]["subject"] == '\'=HYPERLINK("http://evil.example")'
    filtered = boss.get("/fleet/audit.csv?action=told").text
    assert len(filtered.strip().splitlines()) == 2


def test_long_log_is_followed_when_somebody_asks(world: World, boss: FlaskClient) -> None:
    """Its length is what its head says: here the entries for it are missing."""

    def set_length(seq: int) -> None:
        with world.sessions() as session, db.writing(session):
            session.execute(update(AuditHead).values(seq=seq))

    with world.sessions() as session:
        length = auditing.log_head(session).seq
    set_length(1_000_000)
    page = boss.get("/fleet/audit?actor=operator").text
    ask = re.search(r'href="(/fleet/audit\?[^"]*check=1[^"]*)"', page)
    told = boss.get(ask[1].replace("&amp;", "&")).text if ask else ""
    set_length(length)
    assert "1,000,000 entries." in page
    assert "the last ones are missing" in told
    assert "The log is whole" in boss.get("/fleet/audit").text


def test_planted_change_is_shown_on_the_audit_page(world: World, boss: FlaskClient) -> None:
    with world.sessions() as session, db.writing(session):
        session.execute(update(AuditEntry).where(AuditEntry.seq == 2).values(actor="somebody"))
    page = boss.get("/fleet/audit").text
    assert "The log was changed:" in page
    assert "Entry 2 was changed." in page


@pytest.mark.parametrize(
    ("path", "most"),
    [("/fleet/account", 8), ("/fleet/people", 3), ("/fleet/people/1", 8), ("/fleet/audit", 7)],
)
def test_page_asks_few_statements(world: World, boss: FlaskClient, path: str, most: int) -> None:
    with world.statements() as statements:
        assert boss.get(path).status_code == 200
    asked = [one for one in statements if not one.startswith(("BEGIN", "PRAGMA"))]
    assert len(asked) <= most, asked


@pytest.mark.parametrize("path", ["/fleet/account", "/fleet/people", "/fleet/audit", "/reset"])
def test_page_speaks_german(boss: FlaskClient, path: str) -> None:
    page = boss.get(path, headers={"Accept-Language": "de"}).text
    assert '<html lang="de">' in page
    assert re.search("Passwort|Rollen|Protokoll", page)
    assert not re.search(r"\b(Second factor|Roles|Last login|Your account)\b", page)

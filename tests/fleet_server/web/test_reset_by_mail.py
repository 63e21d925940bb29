"""Who forgot a password gets a link by mail; who asks for another's learns nothing and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select

from fleet_server import clock, db
from fleet_server.http_shared.limits import limiter
from fleet_server.jobs.deliveries import deliver
from fleet_server.models import AlertKind, AuditEntry, Delivery, PasswordReset, Role
from fleet_server.models.alert import Channel
from fleet_server.services import accounts, telling
from fleet_server.services.telling import NewRecipient
from tests.fleet_server.jobs.listeners import MailServer, running_mail_server
from tests.fleet_server.small_world import NOW, PASSWORD
from tests.fleet_server.world_fixtures import World, csrf_token, log_in

NEW = "three words of mine"


@dataclass
class Post:
    """A server with a mail server, and what its worker does."""

    world: World
    app: Flask
    server: MailServer

    def ask(self, name: str, language: str = "en") -> str:
        client = self.app.test_client()
        headers = {"Accept-Language": language}
        token = csrf_token(client.get("/reset/ask", headers=headers).text)
        answer = client.post(
            "/reset/ask", data={"name": name, "csrf_token": token}, headers=headers
        )
        assert answer.status_code == 200
        return answer.text

    def work(self) -> list[tuple[str, str]]:
        """Send what waits; returns addresses and texts of the new mails."""
        self.server.mails = []
        with self.world.sessions() as session:
            deliver(session, self.app.config["FLEET_SETTINGS"], clock.now())
        return [(str(one["To"]), one.get_content()) for one in self.server.mails]

    def queue(self) -> list[Delivery]:
        with self.world.sessions() as session:
            return list(session.scalars(select(Delivery).order_by(Delivery.id)))

    def set_password(self, mailed: str) -> int:
        found = re.search(r"/reset#(\S+)", mailed)
        assert found, mailed
        client = self.app.test_client()
        given = {"code": found[1], "new": NEW, "again": NEW}
        given["csrf_token"] = csrf_token(client.get("/reset").text)
        return client.post("/reset", data=given).status_code


@pytest.fixture(scope="module")
def running() -> Iterator[MailServer]:
    with running_mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def post(world: World, running: MailServer) -> Iterator[Post]:
    app = world.app(demo=False, smtp_url=f"smtp://127.0.0.1:{running.port}")
    limiter.enabled = False
    with world.sessions() as session:
        for name, mail in (("anna", "anna@example.org"), ("bert", None), ("carl", "c@example.org")):
            accounts.create_user(session, name, PASSWORD, now=NOW, roles=[Role.OPERATOR], mail=mail)
        accounts.set_active(session, "carl", is_active=False, now=NOW)
    yield Post(world, app, running)
    limiter.enabled = True


@pytest.fixture(autouse=True)
def later(post: Post) -> None:
    """Each test begins after the pause that the one before may have begun."""
    clock.use_clock(f"{int((clock.now() + accounts.RESET_PAUSE).timestamp())}@0x0")
    post.server.refuses = None


def test_link_comes_by_mail_in_the_askers_language_and_is_good_once(post: Post) -> None:
    post.ask("anna", language="de")
    ((to, text),) = post.work()
    assert to == "anna@example.org"
    assert "um ein neues Passwort für anna gebeten" in text
    assert post.set_password(text) == 303
    assert post.set_password(text) == 403
    client = post.app.test_client()
    page = client.get("/login").text
    given = {"name": "anna", "password": NEW, "csrf_token": csrf_token(page)}
    assert client.post("/login", data=given).status_code == 303


def test_neither_answer_nor_work_tells_which_names_exist(post: Post) -> None:
    """The same page and the same statements for who is there, has no address, is closed, or is nobody."""
    told = {}
    for name in ("anna", "bert", "carl", "nobody at all", "x" * 500):
        with post.world.statements() as statements:
            page = post.ask(name)
        told[name] = (re.sub(r"(nonce|value)=\"[^\"]+\"", "", page), list(statements))
    assert "If there is such an account" in told["anna"][0]
    assert all(one == told["anna"] for one in told.values())
    assert [to for to, _ in post.work()] == ["anna@example.org"]
    assert not any(one.content[0].get("name") not in ("anna", None) for one in post.queue())
    with post.world.sessions() as session:
        codes = session.scalar(select(func.count()).select_from(PasswordReset))
    assert codes == 1


def test_mailbox_is_not_flooded_and_a_code_in_hand_stays_good(post: Post) -> None:
    with post.world.sessions() as session:
        code = accounts.begin_reset(session, "anna", now=clock.now())
    for _ in range(3):
        post.ask("anna")
    assert post.work() == []
    assert post.set_password(f"/reset#{code} ") == 303
    clock.use_clock(f"{int((clock.now() + accounts.RESET_PAUSE).timestamp())}@0x0")
    for _ in range(3):
        post.ask("anna")
    assert len(post.work()) == 1


def test_no_code_lies_in_the_queue_and_a_mail_that_failed_is_tried_with_another(post: Post) -> None:
    post.ask("anna")
    post.server.refuses = "451 come back later"
    assert post.work() == []
    (waiting,) = [one for one in post.queue() if one.delivered_at is None]
    assert waiting.content == [{"name": "anna", "language": "en"}]
    post.server.refuses = None
    with db.writing(post.world.sessions) as session:
        session.get_one(Delivery, waiting.id).due_at -= timedelta(hours=1)
    ((_, text),) = post.work()
    assert post.set_password(text) == 303


def test_alerts_go_before_what_anybody_can_ask_for(post: Post) -> None:
    post.ask("anna")
    new = NewRecipient("office", Channel.MAIL, "office@example.org", kinds=[AlertKind.LATE])
    key = post.app.config["FLEET_SETTINGS"].session_key
    with post.world.sessions() as session:
        row, _ = telling.add_recipient(session, new, now=NOW, secret_key=key)
        from_now = clock.now() + timedelta(days=999)
        telling.enqueue_test(session, row.id, now=from_now, wall_now=from_now)
        claimed = telling.claim_due(session, wall_now=from_now, limit=1)
    assert [one.occasion for one in claimed] == ["test"]


def test_address_is_changed_with_the_password_and_cannot_hold_another_header(post: Post) -> None:
    with post.world.sessions() as session:
        accounts.create_user(session, "dora", PASSWORD, now=NOW, roles=[Role.OPERATOR])
    client = post.app.test_client()
    log_in(client, name="dora")
    token = csrf_token(client.get("/fleet/account").text)

    def change(mail: str, password: str = PASSWORD) -> int:
        given = {"csrf_token": token, "mail": mail, "password": password}
        return client.post("/fleet/account/mail", data=given).status_code

    assert change("thief@example.org", "wrong") == 400
    for wrong in ("dora", "a@b, c@d", "a@b\nBcc: c@example.org", f"{'x' * 300}@example.org"):
        assert change(wrong) == 400, wrong
    assert change("dora@example.org") == 303
    assert 'value="dora@example.org"' in client.get("/fleet/account").text
    with post.world.sessions() as session:
        actions = (
            select(AuditEntry.action)
            .where(AuditEntry.subject == "account dora")
            .order_by(AuditEntry.seq)
        )
        assert "mail_changed" in session.scalars(actions).all()


def test_new_person_with_an_address_gets_the_link_and_nobody_sees_a_code(post: Post) -> None:
    with post.world.sessions() as session:
        accounts.create_user(session, "boss", PASSWORD, now=NOW, roles=[Role.ADMINISTRATOR])
    boss = post.app.test_client()
    log_in(boss, name="boss")
    given = {"name": "emil", "role": "operator", "scope": "all", "mail": "emil@example.org"}
    given["csrf_token"] = csrf_token(boss.get("/fleet/people").text)
    made = boss.post("/fleet/people", data=given)
    assert made.status_code == 303
    assert "A link goes to emil@example.org" in boss.get(made.headers["Location"]).text
    mails = dict(post.work())
    assert post.set_password(mails["emil@example.org"]) == 303
    again = boss.post(f"{made.headers['Location']}/reset/mail", data=given)
    assert again.status_code == 303

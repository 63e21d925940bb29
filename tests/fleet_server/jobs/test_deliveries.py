"""Who wants to hear of an alert is told by mail or webhook, until it arrived or was given up; never where nothing of ours may go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from brokers import free_port
from factories import NOON, register_node
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.jobs import sending
from fleet_server.jobs.deliveries import deliver
from fleet_server.models import Alert, AlertKind, AuditEntry, Delivery, Node, Severity
from fleet_server.models.alert import Channel
from fleet_server.services import telling
from fleet_server.services.telling import NewRecipient, RecipientExists, RecipientWrong
from fleet_server.settings import Settings, load_settings
from tests.fleet_server.jobs.listeners import (
    MailServer,
    WebServer,
    running_mail_server,
    running_web_server,
)

KEY = "k" * 32


@pytest.fixture(scope="module")
def mail_server() -> Iterator[MailServer]:
    with running_mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def web_server() -> Iterator[WebServer]:
    with running_web_server() as server:
        yield server


@pytest.fixture
def mail(mail_server: MailServer) -> MailServer:
    mail_server.mails, mail_server.recipients, mail_server.refuses = [], [], None
    return mail_server


@pytest.fixture
def web(web_server: WebServer) -> WebServer:
    web_server.came, web_server.status = [], 204
    return web_server


def settings(tmp_path: Path, **given: object) -> Settings:
    return load_settings({}, data_dir=tmp_path, secret_key=KEY, **given)


def recipient(session: Session, channel: Channel, address: str, **wishes: Any) -> tuple[int, str]:
    new = NewRecipient(wishes.pop("name", "office"), channel, address, **wishes)
    row, secret = telling.add_recipient(session, new, now=NOON, secret_key=lambda: KEY)
    return row.id, secret or ""


def tell(session: Session, kind: AlertKind, **fields: Any) -> None:
    """An alert about `n-000001` that was opened at noon."""
    severity = fields.pop("severity", Severity.WARNING)
    label = fields.pop("label", "tree-01")
    with db.writing(session):
        alert = Alert(
            kind=kind,
            subject="node n-000001",
            node_id="n-000001",
            severity=severity,
            details=fields,
            opened_at=NOON,
        )
        session.add(alert)
        session.flush()
        session.execute(update(Node).values(label=label))
        telling.enqueue(
            session, "opened", Alert.id == alert.id, now=NOON, wall_now=datetime.now(UTC)
        )
        alert.closed_at = NOON  # so that there may be another of its kind


def run(session: Session, given: Settings, *, after: timedelta = timedelta()) -> list[Delivery]:
    """Deliver as if `after` had passed; what became of each message."""
    if after:
        with db.writing(session):
            waiting = update(Delivery).where(Delivery.due_at > datetime.now(UTC))
            session.execute(waiting.values(due_at=datetime.now(UTC)))
    deliver(session, given, NOON)
    query = select(Delivery).order_by(Delivery.id).execution_options(populate_existing=True)
    return list(session.scalars(query))


def test_mail_says_what_is_wrong_in_the_recipients_language_and_no_line_of_it_is_forged(
    session: Session, mail: MailServer, tmp_path: Path
) -> None:
    register_node(session, "n-000001")
    recipient(session, Channel.MAIL, "baum@example.org, park@example.org")
    recipient(session, Channel.MAIL, "trees@example.org", name="english", language="en")
    tell(session, AlertKind.BATTERY, days_low=12, days_high=20, battery_mv=3460, label="Linde\r\nBcc: x@example.org")  # fmt: skip
    given = settings(tmp_path, smtp_url=f"smtp://127.0.0.1:{mail.port}", mail_from="a@example.org")

    done = run(session, given)

    assert all(one.delivered_at for one in done)
    german, english = mail.mails
    assert mail.recipients == ["baum@example.org", "park@example.org", "trees@example.org"]
    assert "reicht noch 12 bis 20 Tage" in german.get_content()
    assert "lasts 12 to 20 days more" in english.get_content()
    assert f"{given.public_url}/fleet/nodes/n-000001" in english.get_content().splitlines()
    assert german["Bcc"] is None
    assert german["Auto-Submitted"] == "auto-generated"
    assert run(session, given)
    assert len(mail.mails) == 2  # once


@pytest.mark.parametrize(
    ("wishes", "is_told"),
    [
        ({}, True),
        ({"kinds": [AlertKind.OFFLINE]}, True),
        ({"kinds": [AlertKind.BATTERY]}, False),
        ({"min_severity": Severity.URGENT}, False),
        ({"min_severity": Severity.NOTICE}, True),
        ({"site_kind": "tree"}, True),
        ({"site_kind": "water"}, False),
    ],
)
def test_everybody_hears_only_what_concerns_them(
    session: Session, wishes: dict[str, Any], is_told: bool
) -> None:
    register_node(session, "n-000001")
    recipient(session, Channel.MAIL, "a@example.org", **wishes)
    tell(session, AlertKind.OFFLINE)
    assert (telling.count_waiting(session) == (1, 0)) is is_told


def test_mail_server_that_is_away_is_tried_again_with_growing_pauses_and_given_up_in_the_end(
    session: Session, mail: MailServer, tmp_path: Path
) -> None:
    register_node(session, "n-000001")
    recipient(session, Channel.MAIL, "a@example.org")
    tell(session, AlertKind.OFFLINE)
    away = settings(tmp_path, smtp_url=f"smtp://127.0.0.1:{free_port()}")
    pauses = []
    for attempt in range(1, telling.ATTEMPTS + 1):
        before = datetime.now(UTC)
        (one,) = run(session, away, after=timedelta(days=1))
        assert one.attempts == attempt
        pauses.append(round((one.due_at - before).total_seconds() / 60))
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == 360
    assert one.dead_at is not None
    ((letter, name),) = telling.dead_letters(session)
    assert (name, telling.count_waiting(session)) == ("office", (0, 1))
    assert "cannot be used" in str(letter.last_error)
    # The mail server is back, and somebody has it tried again.
    telling.try_again(session, letter.id, now=NOON, wall_now=datetime.now(UTC))
    here = settings(tmp_path, smtp_url=f"smtp://127.0.0.1:{mail.port}")
    mail.refuses = "451 later"
    (one,) = run(session, here)
    assert one.last_error == "The mail server answered 451: later"
    mail.refuses = None
    (one,) = run(session, here, after=timedelta(days=1))
    assert one.delivered_at is not None
    telling.forget_old(session, wall_now=datetime.now(UTC) + telling.KEPT + timedelta(minutes=1))
    assert session.scalars(select(Delivery)).all() == []


def test_webhook_is_signed_so_that_its_receiver_can_tell_who_sent_it(
    session: Session, web: WebServer, tmp_path: Path
) -> None:
    register_node(session, "n-000001")
    _, secret = recipient(session, Channel.WEBHOOK, f"http://localhost:{web.port}/alerts?k=1")
    tell(session, AlertKind.OFFLINE, last_heard_at="2026-07-01T12:00:00Z")
    given = settings(tmp_path, webhook_hosts="localhost")

    (one,) = run(session, given)

    assert one.delivered_at is not None, one.last_error
    ((path, headers, body),) = web.came
    assert path == "/alerts?k=1"
    content = json.loads(body)
    assert content["type"] == "alert.opened"
    assert content["data"]["alerts"][0]["node_id"] == "n-000001"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert secret not in str(session.scalars(select(AuditEntry.details)).all())


def test_signature_is_that_of_the_published_example() -> None:
    """The worked example of the Standard Webhooks specification, "Verifying webhook authenticity"."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signed = sending.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    ("status", "is_dead"), [(302, False), (404, False), (500, False), (410, True)]
)
def test_any_other_answer_is_a_failure_and_nobody_is_followed_elsewhere(
    session: Session, web: WebServer, tmp_path: Path, status: int, is_dead: bool
) -> None:
    register_node(session, "n-000001")
    recipient(session, Channel.WEBHOOK, f"http://localhost:{web.port}/alerts")
    tell(session, AlertKind.OFFLINE)
    web.status = status
    (one,) = run(session, settings(tmp_path, webhook_hosts="localhost"))
    assert one.delivered_at is None
    assert (one.dead_at is not None) is is_dead
    assert str(status) in str(one.last_error)
    assert [path for path, _, _ in web.came] == ["/alerts"]


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "2130706433",  # the same as one number
        "[::1]",
        "[::ffff:127.0.0.1]",
        "10.0.0.7",
        "192.168.1.1",
        "169.254.169.254",  # where clouds keep their machines' secrets
        "[fe80::1]",
        "0.0.0.0",  # noqa: S104 - an address that must be refused
        "100.64.0.1",
        "224.0.0.1",
    ],
)
def test_webhook_into_a_private_network_is_refused_before_anything_is_sent(
    session: Session, web: WebServer, tmp_path: Path, host: str
) -> None:
    register_node(session, "n-000001")
    recipient(session, Channel.WEBHOOK, f"https://{host}:{web.port}/alerts")
    tell(session, AlertKind.OFFLINE)
    (one,) = run(session, settings(tmp_path))
    assert one.dead_at is not None
    assert "no public address" in str(one.last_error)
    assert web.came == []


def test_network_can_be_allowed_by_its_range(tmp_path: Path) -> None:
    given = settings(tmp_path, webhook_hosts="10.1.0.0/16, hooks.example.org")
    assert sending.look_up("10.1.2.3", 443, given) == ("10.1.2.3", 443)
    with pytest.raises(sending.NotSent):
        sending.look_up("10.2.2.3", 443, given)


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    ("channel", "address"),
    [
        (Channel.MAIL, "nobody"),
        (Channel.MAIL, "a@example.org,"),
        (Channel.MAIL, "a@example.org\r\nBcc: b@example.org"),
        (Channel.WEBHOOK, "ftp://example.org"),
        (Channel.WEBHOOK, "https://user:password@example.org/"),
        (Channel.WEBHOOK, "https://example.org:99999/"),
        (Channel.WEBHOOK, "https:///x"),
        (Channel.WEBHOOK, "https://example.org/\r\nX: y"),
    ],
)
def test_address_that_cannot_be_is_one_sentence(
    session: Session, channel: Channel, address: str
) -> None:
    with pytest.raises(RecipientWrong, match=r"\.$"):
        recipient(session, channel, address)


def test_who_is_told_no_more_gets_nothing_and_a_name_is_used_once(
    session: Session, mail: MailServer, tmp_path: Path
) -> None:
    register_node(session, "n-000001")
    number, _ = recipient(session, Channel.MAIL, "a@example.org")
    with pytest.raises(RecipientExists):
        recipient(session, Channel.MAIL, "b@example.org")
    telling.enqueue_test(session, number, now=NOON, wall_now=datetime.now(UTC))
    telling.set_recipient_active(session, number, is_active=False, now=NOON)
    tell(session, AlertKind.OFFLINE)
    (test,) = run(session, settings(tmp_path, smtp_url=f"smtp://127.0.0.1:{mail.port}"))
    assert (test.occasion, test.delivered_at) == ("test", None)
    assert mail.mails == []

"""Who is told of which alerts, and the queue of messages to them: each is tried until it arrives, or given up and shown.

How a message travels (SMTP, HTTP) is not known here; whoever sends claims what is due and says how it went. Claims and due times are
wall clock: they are between processes and other people's servers.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import case, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound
from fleet_server.models import Alert, AlertKind, AlertRecipient, Delivery, Severity
from fleet_server.models.alert import Channel
from fleet_server.services import auditing, sealing
from fleet_server.services.configuring import SecretKey
from fleet_server.services.mail_addresses import is_mail_address
from hardware import catalogue

FIRST_BACK_OFF, LAST_BACK_OFF = timedelta(minutes=1), timedelta(hours=6)
ATTEMPTS = 12
"""With these pauses about a day and a half: a mail server that is away over night is back by then."""
LEASE = timedelta(minutes=5)
KEPT = timedelta(days=30)
RESET = "reset"
"""The occasion of a link for a new password."""
SECRET_PREFIX = "whsec_"  # noqa: S105 - how Standard Webhooks marks a secret
_SECRET_BYTES = 24
_ERROR_LENGTH = 300
_NAME_LENGTH, _ADDRESS_LENGTH = 64, 500
_RANK = {Severity.NOTICE: 0, Severity.WARNING: 1, Severity.URGENT: 2}


class RecipientWrong(Invalid):
    """Nobody can be told like this."""

    code = "recipient_wrong"


class RecipientExists(Conflict):
    """The name is taken."""

    code = "recipient_exists"


@dataclass(frozen=True)
class Told:
    """An alert with what a message says of its node."""

    alert: Alert
    model: str | None
    label: str | None


@dataclass(frozen=True)
class NewRecipient:
    """Who shall be told. `kinds` None: all; `site_kind` None: trees and waters."""

    name: str
    channel: Channel
    address: str
    kinds: Sequence[AlertKind] | None = None
    min_severity: Severity = Severity.WARNING
    site_kind: str | None = None
    language: str = "de"


@dataclass(frozen=True)
class DueDelivery:
    """A message to send; say afterwards how it went."""

    id: int
    recipient: AlertRecipient | None  # None: whoever has the name in `content`
    occasion: str
    content: Sequence[dict[str, Any]]
    made_at: datetime
    attempts: int


def add_recipient(
    session: Session, new: NewRecipient, *, now: datetime, secret_key: SecretKey
) -> tuple[AlertRecipient, str | None]:
    """Somebody who is told from now on. Committed on return.

    Returns the recipient, and for a webhook the secret that its messages are signed with: it is shown this once.

    Raises:
        RecipientWrong: the address cannot be.
        RecipientExists: the name is taken.
    """
    _check(new)
    secret = None
    if new.channel is Channel.WEBHOOK:
        secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    with db.writing(session):
        taken = select(AlertRecipient.id).where(AlertRecipient.name == new.name)
        if session.scalar(taken) is not None:
            raise RecipientExists(f"There is already a recipient {new.name}.")
        row = AlertRecipient(
            name=new.name,
            channel=new.channel,
            address=new.address.strip(),
            sealed_secret=secret
            and sealing.seal(secret, owner=_owner(new.name), secret_key=secret_key()),
            kinds=None if new.kinds is None else [str(kind) for kind in new.kinds],
            min_severity=new.min_severity,
            site_kind=new.site_kind,
            language=new.language,
            is_active=True,
            made_at=now,
        )
        session.add(row)
        session.flush()
        auditing.record(
            session,
            "recipient_added",
            subject=f"recipient {new.name}",
            now=now,
            channel=str(new.channel),
            address=row.address,
            min_severity=str(new.min_severity),
        )
    return row, secret


def set_recipient_active(
    session: Session, recipient_id: int, *, is_active: bool, now: datetime
) -> AlertRecipient:
    """Tell them, or do not any more; what waits for them waits. Committed on return; safe to repeat."""
    with db.writing(session):
        row = session.get(AlertRecipient, recipient_id, with_for_update=True)
        if row is None:
            raise NotFound(f"There is no recipient {recipient_id}.")
        if row.is_active != is_active:
            row.is_active = is_active
            action = "recipient_told_again" if is_active else "recipient_told_no_more"
            auditing.record(session, action, subject=f"recipient {row.name}", now=now)
    return row


def recipients(session: Session) -> list[AlertRecipient]:
    """All of them by name. One statement."""
    return list(session.scalars(select(AlertRecipient).order_by(AlertRecipient.name)))


def secret_of(recipient: AlertRecipient, *, secret_key: SecretKey) -> bytes:
    """What messages to this webhook are signed with.

    Raises:
        SealBroken: it was sealed under another key.
    """
    text = sealing.unseal(
        recipient.sealed_secret or "", owner=_owner(recipient.name), secret_key=secret_key()
    )
    return base64.b64decode(text.removeprefix(SECRET_PREFIX))


def enqueue(
    session: Session,
    occasion: str,
    told: Sequence[Told],
    *,
    count: int,
    now: datetime,
    wall_now: datetime,
) -> None:
    """A message to everybody whom it concerns; part of the caller's transaction. Two statements.

    Args:
        count: how many alerts it is about, of which `told` are named.
    """
    rows = []
    for recipient in session.scalars(select(AlertRecipient).where(AlertRecipient.is_active)):
        concerned = [_content(one) for one in told if _concerns(recipient, one)]
        if concerned:
            more = max(0, count - len(told))
            rows.append(
                {
                    "recipient_id": recipient.id,
                    "occasion": occasion,
                    "content": [*concerned, *([{"more": more}] if more else [])],
                    "made_at": now,
                    "due_at": wall_now,
                    "attempts": 0,
                }
            )
    if rows:
        session.execute(insert(Delivery), rows)


def enqueue_test(session: Session, recipient_id: int, *, now: datetime, wall_now: datetime) -> None:
    """A message that says only that messages arrive. Committed on return."""
    with db.writing(session):
        if session.get(AlertRecipient, recipient_id) is None:
            raise NotFound(f"There is no recipient {recipient_id}.")
        session.add(
            Delivery(
                recipient_id=recipient_id,
                occasion="test",
                content=[],
                made_at=now,
                due_at=wall_now,
                attempts=0,
            )
        )


def ask_for_reset(
    session: Session, name: str, *, language: str, now: datetime, wall_now: datetime
) -> None:
    """A link for a new password to whoever has this name, and a mail address. Committed on return. One statement.

    Nobody looks here whether there is such an account: whatever the name, this is the same work. Who sends looks.
    """
    with db.writing(session):
        session.add(
            Delivery(
                recipient_id=None,
                occasion=RESET,
                content=[{"name": name, "language": language}],
                made_at=now,
                due_at=wall_now,
                attempts=0,
            )
        )


def forget(session: Session, delivery_id: int) -> None:
    """A message that concerns nobody; what somebody typed is not kept. Committed on return."""
    with db.writing(session):
        session.execute(delete(Delivery).where(Delivery.id == delivery_id))


def claim_due(session: Session, *, wall_now: datetime, limit: int = 20) -> list[DueDelivery]:
    """Claim messages that are due, oldest first, alerts before what anybody can ask for. Committed on return.

    A claim ends by itself after LEASE.
    """
    order = (case((Delivery.occasion == RESET, 1), else_=0), Delivery.due_at, Delivery.id)
    waiting = (Delivery.delivered_at.is_(None), Delivery.dead_at.is_(None))
    due = select(Delivery.id).where(
        *waiting,
        Delivery.due_at <= wall_now,
        or_(Delivery.claimed_until.is_(None), Delivery.claimed_until <= wall_now),
    )
    if session.scalar(due.limit(1)) is None:
        session.rollback()
        return []
    with db.writing(session):
        ids = session.scalars(
            due.order_by(*order).limit(limit).with_for_update(skip_locked=True)  # nothing on SQLite
        ).all()
        session.execute(
            update(Delivery).where(Delivery.id.in_(ids)).values(claimed_until=wall_now + LEASE)
        )
        rows = session.execute(
            select(Delivery, AlertRecipient)
            .outerjoin(AlertRecipient, AlertRecipient.id == Delivery.recipient_id)
            .where(Delivery.id.in_(ids))
            .order_by(*order)
            .execution_options(populate_existing=True)
        ).all()
    return [
        DueDelivery(
            row.id, recipient, row.occasion, row.content, row.made_at, row.attempts
        )
        for row, recipient in rows
    ]  # fmt: skip


def note_delivered(session: Session, delivery_id: int, *, wall_now: datetime) -> None:
    """It arrived. Committed on return."""
    with db.writing(session):
        session.execute(
            update(Delivery)
            .where(Delivery.id == delivery_id)
            .values(
                delivered_at=wall_now,
                claimed_until=None,
                last_error=None,
                attempts=Delivery.attempts + 1,
            )
        )


def note_failed(
    session: Session, due: DueDelivery, error: str, *, wall_now: datetime, is_final: bool = False
) -> None:
    """It did not arrive: it is due again later, or given up after ATTEMPTS tries. Committed on return.

    Args:
        is_final: it makes no sense to try again.
    """
    attempts = due.attempts + 1
    is_dead = is_final or attempts >= ATTEMPTS
    pause = min(FIRST_BACK_OFF * 2 ** (attempts - 1), LAST_BACK_OFF)
    with db.writing(session):
        session.execute(
            update(Delivery)
            .where(Delivery.id == due.id)
            .values(
                attempts=attempts,
                claimed_until=None,
                last_error=error[:_ERROR_LENGTH],
                due_at=wall_now + pause,
                dead_at=wall_now if is_dead else None,
            )
        )


def try_again(session: Session, delivery_id: int, *, now: datetime, wall_now: datetime) -> None:
    """Give a message that was given up another round of tries. Committed on return; safe to repeat."""
    with db.writing(session):
        row = session.get(Delivery, delivery_id, with_for_update=True, populate_existing=True)
        if row is None:
            raise NotFound(f"There is no message {delivery_id}.")
        if row.dead_at is None:
            return
        row.dead_at, row.attempts, row.due_at = None, 0, wall_now
        auditing.record(session, "message_tried_again", subject=f"message {delivery_id}", now=now)


def dead_letters(session: Session, *, limit: int = 50) -> list[tuple[Delivery, str]]:
    """Messages that were given up, newest first, with the recipient's name; who asked for a link is not told. One statement."""
    rows = session.execute(
        select(Delivery, func.coalesce(AlertRecipient.name, "–"))
        .outerjoin(AlertRecipient, AlertRecipient.id == Delivery.recipient_id)
        .where(Delivery.dead_at.is_not(None))
        .order_by(Delivery.dead_at.desc(), Delivery.id.desc())
        .limit(limit)
        .execution_options(populate_existing=True)
    )
    return [(row, name) for row, name in rows]


def count_waiting(session: Session) -> tuple[int, int]:
    """How many messages wait, and how many were given up. One statement."""
    waiting, dead = session.execute(
        select(
            func.count(Delivery.id).filter(Delivery.dead_at.is_(None)), func.count(Delivery.dead_at)
        ).where(Delivery.delivered_at.is_(None))
    ).one()
    return int(waiting), int(dead)


def forget_old(session: Session, *, wall_now: datetime) -> None:
    """Messages that arrived or were given up long ago. Committed on return."""
    before = wall_now - KEPT
    with db.writing(session):
        session.execute(
            delete(Delivery).where(or_(Delivery.delivered_at < before, Delivery.dead_at < before))
        )


def _owner(name: str) -> str:
    return f"recipient {name}"


def _concerns(recipient: AlertRecipient, told: Told) -> bool:
    if recipient.kinds is not None and told.alert.kind not in recipient.kinds:
        return False
    if _RANK[Severity(told.alert.severity)] < _RANK[Severity(recipient.min_severity)]:
        return False
    if recipient.site_kind is None or told.model is None:
        return True
    return catalogue.load_node_model(told.model).site_kind == recipient.site_kind


def _content(told: Told) -> dict[str, Any]:
    alert = told.alert
    return {
        "id": alert.id,
        "kind": alert.kind,
        "severity": alert.severity,
        "subject": alert.subject,
        "node_id": alert.node_id,
        "label": told.label,
        "details": alert.details,
        "opened_at": alert.opened_at.isoformat(),
        "closed_at": alert.closed_at and alert.closed_at.isoformat(),
    }


def _check(new: NewRecipient) -> None:
    if not 1 <= len(new.name) <= _NAME_LENGTH or not new.name.isprintable():
        raise RecipientWrong(f"A recipient has a name of 1 to {_NAME_LENGTH} characters.")
    if new.language not in ("de", "en"):
        raise RecipientWrong("A recipient's language is de or en.")
    if new.site_kind not in (None, "tree", "water"):
        raise RecipientWrong("A recipient hears of tree, water, or both.")
    address = new.address.strip()
    if len(address) > _ADDRESS_LENGTH:
        raise RecipientWrong(f"An address has at most {_ADDRESS_LENGTH} characters.")
    if new.channel is Channel.MAIL:
        if not all(is_mail_address(one.strip()) for one in address.split(",")):
            raise RecipientWrong(
                "Give e-mail addresses like office@example.org, separated by commas."
            )
        return
    try:
        parts = urlsplit(address)
        is_good = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or "@" in parts.netloc or not address.isascii() or not address.isprintable():
        raise RecipientWrong("Give the webhook's address like https://example.org/alerts.")

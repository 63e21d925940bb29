"""Who is told of which alerts, and the queue of messages to them: each is tried until it arrives, or given up and shown.

How a message travels (SMTP, HTTP) is not known here; whoever sends claims what is due and says how it went. Claims and due times are
wall clock: they are between processes and other people's servers.
"""

from __future__ import annotations

import base64
import secrets
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Select, case, delete, func, insert, or_, select, true, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, listed
from fleet_server.models import (
    Alert,
    AlertKind,
    AlertRecipient,
    Delivery,
    Node,
    Role,
    Scope,
    Severity,
    User,
)
from fleet_server.models.alert import Channel
from fleet_server.services import alert_scopes, auditing, keyset, rights, sealing
from fleet_server.services.configuring import SecretKey
from fleet_server.services.mail_addresses import is_mail_address
from fleet_server.services.rights import Right
from fleet_server.services.sites import KIND_WORDS

FIRST_BACK_OFF, LAST_BACK_OFF = timedelta(minutes=1), timedelta(hours=6)
ATTEMPTS = 12
"""With these pauses about a day and a half: a mail server that is away over night is back by then."""
LEASE = timedelta(minutes=5)
KEPT = timedelta(days=30)
RESET = "reset"
"""The occasion of a link for a new password."""
TOLD_AT_MOST = 200
"""So many alerts stand in one message by name; of more it says how many."""
SECRET_PREFIX = "whsec_"  # noqa: S105 - how Standard Webhooks marks a secret
_SECRET_BYTES = 24
_ERROR_LENGTH = 300
_NAME_LENGTH, _ADDRESS_LENGTH = 64, 500
_RANK = {Severity.NOTICE: 0, Severity.WARNING: 1, Severity.URGENT: 2}
_BY_NAME = keyset.Sorting((AlertRecipient.name, AlertRecipient.id), (str, int))  # type: ignore[arg-type] # columns of a class


class RecipientWrong(Invalid):
    """Nobody can be told like this."""

    code = "recipient_wrong"


class RecipientExists(Conflict):
    """The name is taken."""

    code = "recipient_exists"


@dataclass(frozen=True)
class NewRecipient:
    """Who shall be told. `kinds` None: all; `site_kind` None: trees and waters.

    `account`: a person's name instead of an address, who is told by mail of what is in the own scope.
    """

    name: str
    channel: Channel
    address: str = ""
    kinds: Sequence[AlertKind] | None = None
    min_severity: Severity = Severity.WARNING
    site_kind: str | None = None
    language: str = "de"
    account: str | None = None


@dataclass(frozen=True)
class DueDelivery:
    """A message to send; say afterwards how it went. `address` is where it goes now; None: the account has none, or is closed."""

    id: int
    recipient: AlertRecipient | None  # None: whoever has the name in `content`
    address: str | None
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
        RecipientExists: the name is taken, or the account is told already.
        NotFound: there is no such account.
        NotAllowed: it would be told of more than the actor has to do with.
    """
    _check(new)
    if new.account is None:
        _check_scope(session, new.site_kind)
    secret = None
    if new.channel is Channel.WEBHOOK:
        secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    with db.writing(session):
        taken = select(AlertRecipient.id).where(AlertRecipient.name == new.name)
        if session.scalar(taken) is not None:
            raise RecipientExists("There is already a recipient %(name)s.", name=new.name)
        row = AlertRecipient(
            name=new.name,
            channel=new.channel,
            user_id=None if new.account is None else _account_id(session, new.account),
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
            account=new.account,
            min_severity=str(new.min_severity),
        )
    return row, secret


def _check_scope(session: Session, site_kind: str | None) -> None:
    kinds = rights.actor_of(session).site_kinds
    if not set(kinds) >= ({site_kind} if site_kind else set(alert_scopes.SITE_KINDS)):
        raise rights.NotAllowed(
            "You can let others be told of %(kinds)s sites only; choose that.",
            kinds=listed(KIND_WORDS[kind] for kind in kinds),
            right=Right.OPERATE_NODES,
        )


def _account_id(session: Session, name: str) -> int:
    user = session.scalar(select(User).where(User.name == name, User.is_active))
    if user is None or rights.actor_of(session).scope not in (Scope.ALL, Scope(user.scope)):
        raise NotFound("There is no account %(name)r.", name=name)
    if session.scalar(select(AlertRecipient.id).where(AlertRecipient.user_id == user.id)):
        raise RecipientExists("%(name)s is told already.", name=name)
    return user.id


def set_recipient_active(
    session: Session, recipient_id: int, *, is_active: bool, now: datetime
) -> AlertRecipient:
    """Tell them, or do not any more; what waits for them waits. Committed on return; safe to repeat."""
    with db.writing(session):
        row = recipient(session, recipient_id)
        if row.is_active != is_active:
            row.is_active = is_active
            action = "recipient_told_again" if is_active else "recipient_told_no_more"
            auditing.record(session, action, subject=f"recipient {row.name}", now=now)
    return row


def remove_recipient(session: Session, recipient_id: int, *, now: datetime) -> None:
    """Forget somebody, and what waits for them. Committed on return. Raises NotFound."""
    with db.writing(session):
        row = recipient(session, recipient_id)
        session.execute(delete(Delivery).where(Delivery.recipient_id == row.id))
        session.delete(row)
        auditing.record(session, "recipient_removed", subject=f"recipient {row.name}", now=now)


def recipient(session: Session, recipient_id: int) -> AlertRecipient:
    """Raises NotFound when there is none, or it is beyond the actor's scope."""
    row = session.scalar(_recipients(session).where(AlertRecipient.id == recipient_id))
    if row is None:
        raise NotFound("There is no recipient %(recipient_id)s.", recipient_id=recipient_id)
    return row


def recipients(session: Session) -> list[AlertRecipient]:
    """All that are in the actor's scope, by name, with their accounts. Two statements at most."""
    return list(session.scalars(_recipients(session).order_by(AlertRecipient.name)))


def recipient_page(
    session: Session, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[AlertRecipient]:
    """As `recipients`, in pages."""
    return keyset.page_of(
        session,
        _recipients(session),
        _BY_NAME,
        limit=limit,
        after=after,
        made=lambda row: row[0],
    )


def _recipients(session: Session) -> Select[AlertRecipient]:
    query = (
        select(AlertRecipient)
        .outerjoin(User, User.id == AlertRecipient.user_id)
        .execution_options(populate_existing=True)
    )
    actor = rights.actor_of(session)
    if actor.scope is Scope.ALL:
        return query
    is_own = AlertRecipient.user_id.is_(None) & AlertRecipient.site_kind.in_(actor.site_kinds)
    return query.where(or_(is_own, User.scope == actor.scope))


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
    which: ColumnElement[bool],
    *,
    now: datetime,
    wall_now: datetime,
) -> None:
    """A message to everybody whom some of these alerts concern; part of the caller's transaction.

    Two statements for each different wish that recipients have, however many alerts there are.

    Args:
        which: condition on `alert`.
    """
    wishes: dict[_Wish, list[int]] = defaultdict(list)
    for recipient, user in session.execute(_told_recipients()):
        wish = _wish_of(recipient, user)
        if wish.site_kinds:
            wishes[wish].append(recipient.id)
    rows = []
    for wish, recipient_ids in wishes.items():
        content = _content(session, which, wish)
        rows += [
            {
                "recipient_id": recipient_id,
                "occasion": occasion,
                "content": content,
                "made_at": now,
                "due_at": wall_now,
                "attempts": 0,
            }
            for recipient_id in recipient_ids
            if content
        ]
    if rows:
        session.execute(insert(Delivery), rows)


@dataclass(frozen=True)
class _Wish:
    """What somebody wants to hear of. `kinds` empty: all."""

    kinds: tuple[str, ...]
    severities: tuple[Severity, ...]
    site_kinds: tuple[str, ...]


def _told_recipients() -> Select[AlertRecipient, User]:
    """Recipients with their accounts; of accounts those that are open."""
    return (
        select(AlertRecipient, User)
        .outerjoin(User, User.id == AlertRecipient.user_id)
        .where(AlertRecipient.is_active, or_(AlertRecipient.user_id.is_(None), User.is_active))
        .order_by(AlertRecipient.id)
    )


def _wish_of(recipient: AlertRecipient, user: User | None) -> _Wish:
    least = _RANK[Severity(recipient.min_severity)]
    return _Wish(
        tuple(recipient.kinds or ()),
        tuple(one for one in Severity if _RANK[one] >= least),
        tuple(
            kind
            for kind in alert_scopes.SITE_KINDS
            if recipient.site_kind in (None, kind) and (user is None or _may_see(user, kind))
        ),
    )


def _may_see(user: User, site_kind: str) -> bool:
    may = Right.SEE_FLEET in rights.rights_of([Role(row.role) for row in user.roles])
    return may and site_kind in rights.kinds_of(Scope(user.scope))


def _content(session: Session, which: ColumnElement[bool], wish: _Wish) -> list[dict[str, Any]]:
    """What a message says: the newest by name, those about many first, and how many more there are."""
    mine = [which, Alert.severity.in_(wish.severities), *alert_scopes.concerns(wish.site_kinds)]
    if wish.kinds:
        mine.append(Alert.kind.in_(wish.kinds))
    told = [
        _line(alert, label)
        for alert, label in session.execute(
            select(Alert, Node.label)
            .outerjoin(Node, Node.node_id == Alert.node_id)
            .where(*mine)
            .order_by(Alert.node_id.is_not(None), Alert.id.desc())
            .limit(TOLD_AT_MOST)
            .execution_options(populate_existing=True)
        )
    ]
    if len(told) == TOLD_AT_MOST:
        count = select(func.count()).select_from(Alert)
        count = count.outerjoin(Node, Node.node_id == Alert.node_id).where(*mine)
        more = (session.scalar(count) or 0) - len(told)
        told += [{"more": more}] if more else []
    return told


def _line(alert: Alert, label: str | None) -> dict[str, Any]:
    return {
        "id": alert.id,
        "kind": alert.kind,
        "severity": alert.severity,
        "subject": alert.subject,
        "node_id": alert.node_id,
        "label": label,
        "details": alert.details,
        "opened_at": alert.opened_at.isoformat(),
        "closed_at": alert.closed_at and alert.closed_at.isoformat(),
    }


def enqueue_test(session: Session, recipient_id: int, *, now: datetime, wall_now: datetime) -> None:
    """A message that says only that messages arrive. Committed on return."""
    with db.writing(session):
        recipient(session, recipient_id)
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


def forget_resets(session: Session) -> None:
    """Links for a new password that wait, or were given up: who asked may have got theirs since. Part of the caller's transaction."""
    with db.writing(session):
        session.execute(
            delete(Delivery).where(Delivery.occasion == RESET, Delivery.delivered_at.is_(None))
        )


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
            select(Delivery, AlertRecipient, User)
            .outerjoin(AlertRecipient, AlertRecipient.id == Delivery.recipient_id)
            .outerjoin(User, User.id == AlertRecipient.user_id)
            .where(Delivery.id.in_(ids))
            .order_by(*order)
            .execution_options(populate_existing=True)
        ).all()
    return [
        DueDelivery(
            row.id,
            recipient,
            _address(recipient, user),
            row.occasion,
            row.content,
            row.made_at,
            row.attempts,
        )
        for row, recipient, user in rows
    ]


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
        is_mine = select(Delivery.id).where(Delivery.id == delivery_id, _is_mine(session))
        if row is None or session.scalar(is_mine) is None:
            raise NotFound("There is no message %(delivery_id)s.", delivery_id=delivery_id)
        if row.dead_at is None:
            return
        row.dead_at, row.attempts, row.due_at = None, 0, wall_now
        auditing.record(session, "message_tried_again", subject=f"message {delivery_id}", now=now)


def dead_letters(session: Session, *, limit: int = 50) -> list[tuple[Delivery, str]]:
    """Messages that were given up, newest first, with the recipient's name; who asked for a link is not told. One statement."""
    rows = session.execute(
        select(Delivery, func.coalesce(AlertRecipient.name, "–"))
        .outerjoin(AlertRecipient, AlertRecipient.id == Delivery.recipient_id)
        .where(Delivery.dead_at.is_not(None), _is_mine(session))
        .order_by(Delivery.dead_at.desc(), Delivery.id.desc())
        .limit(limit)
        .execution_options(populate_existing=True)
    )
    return [(row, name) for row, name in rows]


def _is_mine(session: Session) -> ColumnElement[bool]:
    """Messages to recipients in the actor's scope; links for a new password are the business of who has all of it."""
    if rights.actor_of(session).scope is Scope.ALL:
        return true()
    return Delivery.recipient_id.in_(_recipients(session).with_only_columns(AlertRecipient.id))


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


def _address(recipient: AlertRecipient | None, user: User | None) -> str | None:
    if recipient is None:
        return None
    if user is None:
        return recipient.address
    return user.mail if user.is_active else None


def _owner(name: str) -> str:
    return f"recipient {name}"


def _check(new: NewRecipient) -> None:
    if not 1 <= len(new.name) <= _NAME_LENGTH or not new.name.isprintable():
        raise RecipientWrong(
            "A recipient has a name of 1 to %(longest)s characters.", longest=_NAME_LENGTH
        )
    if new.language not in ("de", "en"):
        raise RecipientWrong("A recipient's language is de or en.")
    if new.site_kind not in (None, "tree", "water"):
        raise RecipientWrong("A recipient hears of tree, water, or both.")
    address = new.address.strip()
    if new.account is not None:
        if address or new.channel is not Channel.MAIL:
            raise RecipientWrong("An account is told by mail, at its own address; give no other.")
        return
    if len(address) > _ADDRESS_LENGTH:
        raise RecipientWrong(
            "An address has at most %(longest)s characters.", longest=_ADDRESS_LENGTH
        )
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

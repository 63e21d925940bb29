"""Requests that may be sent again: a request with a key is done once, and answered alike each time for a day.

What it did and its answer are one transaction: a request that was cut off has done nothing, and may be sent again.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid
from fleet_server.models import KeptAnswer
from fleet_server.services import rights, sealing

KEPT_FOR = timedelta(hours=24)
# Longer than any request of ours takes; one whose process died is free after it.
_LEASE = timedelta(minutes=5)


class KeyReused(Invalid):
    """The key was for another request."""

    code = "idempotency_key_reused"


class StillWorkedOn(Conflict):
    """The same request is worked on."""

    code = "still_worked_on"


class AnswerLost(Conflict):
    """The request was done; what was answered can no longer be read."""

    code = "answer_lost"


@dataclass(frozen=True)
class Ticket:
    """The right to do a request. `answer`: it was done before, this was said."""

    key: str
    lease: str
    answer: str | None = None


def begin(
    session: Session, key: str, *, request_sha256: str, secret_key: str, now: datetime
) -> Ticket:
    """Take up a request of whoever acts in this session. Committed on return.

    Raises:
        KeyReused: this key was for another request.
        AnswerLost: it was done, under another secret_key.
        StillWorkedOn: the same request is worked on.
    """
    actor = rights.actor_of(session).name
    lease = secrets.token_hex(8)
    try:
        with db.writing(session):
            kept = session.get(KeptAnswer, (actor, key), with_for_update=True)
            if kept is not None and kept.begun_at <= now - KEPT_FOR:
                session.delete(kept)
                session.flush()
                kept = None
            if kept is None:
                kept = KeptAnswer(actor=actor, key=key, request_sha256=request_sha256, answer=None)
                session.add(kept)
            elif kept.request_sha256 != request_sha256:
                raise KeyReused("This Idempotency-Key was for another request; draw a new one.")
            elif kept.answer is not None:
                return Ticket(key, kept.lease, _said(kept, secret_key))
            elif kept.begun_at > now - _LEASE:
                raise StillWorkedOn("This request is worked on; ask again in a moment.")
            kept.lease, kept.begun_at = lease, now
            session.flush()
    except IntegrityError as error:  # another took it up at the same moment
        raise StillWorkedOn("This request is worked on; ask again in a moment.") from error
    return Ticket(key, lease)


def keep(session: Session, ticket: Ticket, answer: str, *, secret_key: str) -> None:
    """Note what was answered, in the transaction of what was done.

    Raises:
        StillWorkedOn: it took so long that somebody else took the request up; nothing is to be committed.
    """
    actor = rights.actor_of(session).name
    kept = session.get(
        KeptAnswer, (actor, ticket.key), with_for_update=True, populate_existing=True
    )
    if kept is None or kept.lease != ticket.lease:
        raise StillWorkedOn("This request took too long and was taken up again; ask once more.")
    kept.answer = sealing.seal(answer, owner=_owner(actor, ticket.key), secret_key=secret_key)
    session.flush()


def forget_old(session: Session, *, now: datetime) -> None:
    """Throw away the answers that nobody can ask for again. Committed on return, safe to repeat."""
    with db.writing(session):
        session.execute(delete(KeptAnswer).where(KeptAnswer.begun_at <= now - KEPT_FOR))


def give_up(session: Session, ticket: Ticket) -> None:
    """Nothing was done: the key is free again. Committed on return."""
    actor = rights.actor_of(session).name
    with db.writing(session):
        session.execute(
            delete(KeptAnswer).where(
                KeptAnswer.actor == actor,
                KeptAnswer.key == ticket.key,
                KeptAnswer.lease == ticket.lease,
                KeptAnswer.answer.is_(None),
            )
        )


def _said(kept: KeptAnswer, secret_key: str) -> str:
    try:
        owner = _owner(kept.actor, kept.key)
        return sealing.unseal(kept.answer or "", owner=owner, secret_key=secret_key)
    except sealing.SealBroken as error:
        raise AnswerLost(
            "This request was done, but its answer was sealed under another secret_key; look at what it did."
        ) from error


def _owner(actor: str, key: str) -> str:
    return f"answer to {actor}, {key}"

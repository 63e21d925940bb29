"""The job that sends what waits in the queue of messages."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from sqlalchemy.orm import Session

from fleet_server.errors import FleetError
from fleet_server.jobs import sending
from fleet_server.models.alert import Channel
from fleet_server.services import accounts, telling
from fleet_server.services.telling import DueDelivery
from fleet_server.settings import Settings

log = structlog.get_logger(__name__)


def deliver(session: Session, settings: Settings, now: datetime) -> None:
    """Send what is due. At least once: a worker that dies between sending and noting it sends it again, with the same id."""
    for due in telling.claim_due(session, wall_now=datetime.now(UTC)):
        try:
            if due.occasion == telling.RESET:
                _send_reset(session, due, settings, now)
            else:
                _send(due, settings)
        except sending.NotSent as problem:
            log.warning("message_not_sent", delivery=due.id, attempts=due.attempts + 1, reason=str(problem))  # fmt: skip
            _note_failure(session, due, problem, is_final=problem.is_final)
        except FleetError as problem:  # a secret that was sealed under another key
            log.error("message_not_sent", delivery=due.id, reason=str(problem))
            _note_failure(session, due, problem, is_final=True)
        else:
            telling.note_delivered(session, due.id, wall_now=datetime.now(UTC))
            log.info("message_sent", delivery=due.id, occasion=due.occasion)


def _send_reset(session: Session, due: DueDelivery, settings: Settings, now: datetime) -> None:
    """The code is made here and now: none lies in the queue, and a try that failed leaves none that is good."""
    wanted = due.content[0]
    begun = accounts.begin_mailed_reset(
        session, wanted["name"], now=now, is_repeated=due.attempts > 0
    )
    if begun is None:
        telling.forget(session, due.id)
        return
    sending.send_reset(begun, due, wanted["language"], settings)


def _send(due: DueDelivery, settings: Settings) -> None:
    if due.recipient is None:
        raise sending.NotSent("Nobody is to be told.", is_final=True)
    if not due.recipient.is_active:
        raise sending.NotSent("The recipient is told no more.", is_final=True)
    if due.address is None:
        raise sending.NotSent("The account is closed, or has no mail address.", is_final=True)
    if due.recipient.channel == Channel.MAIL:
        sending.send_mail(sending.compose_mail(due, due.recipient, settings), settings)
        return
    secret = telling.secret_of(due.recipient, secret_key=settings.session_key)
    sending.send_webhook(due, due.recipient.address, secret, settings, wall_now=datetime.now(UTC))


def _note_failure(
    session: Session, due: DueDelivery, problem: FleetError, *, is_final: bool
) -> None:
    telling.note_failed(session, due, str(problem), wall_now=datetime.now(UTC), is_final=is_final)

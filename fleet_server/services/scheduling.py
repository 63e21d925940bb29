"""Which job is due, and whose it is: of several workers one runs it, and one that died does not hold it up for long.

Jobs are between processes, so their times are wall clock; what a job does, it does by the fleet's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, literal, or_, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import Job

LEASE_S = 45
"""A job whose worker has not said for so long that it is at it is taken for dead; it is safe to run twice."""
BEAT_S = 15
"""So often a worker says so: two that come to nothing (a database that is busy, or away) do no harm."""
LONGEST_S = 600
"""A job that has not ended within this time is taken for stuck, and goes to another worker."""
BACKUP = "backup"
"""Not run here: `fleet db backup` says how it went."""
_LOOKS = "look_quickly"
"""Runs every minute while there is a worker."""
_ERROR_LENGTH = 500


def add_jobs(session: Session, names: Iterable[str], *, wall_now: datetime) -> None:
    """Make the rows of jobs that were never due before: they are due at once. Committed on return; safe to repeat."""
    with db.writing(session):
        known = set(session.scalars(select(Job.name)))
        session.add_all(Job(name=name, due_at=wall_now) for name in names if name not in known)


@dataclass(frozen=True)
class Claim:
    """A job in one worker's hand, until then unless it is renewed."""

    name: str
    until: datetime


def claim_due_job(session: Session, names: Sequence[str], *, wall_now: datetime) -> Claim | None:
    """The job of these that is due longest, claimed for who asks; None when none is. Committed on return."""
    is_free = or_(Job.claimed_until.is_(None), Job.claimed_until <= wall_now)
    due = select(Job.name).where(Job.name.in_(names), Job.due_at <= wall_now, is_free)
    if session.scalar(due.limit(1)) is None:
        session.rollback()  # a reading transaction that stays open would hold up SQLite's checkpoints
        return None
    until = wall_now + timedelta(seconds=LEASE_S)
    with db.writing(session):
        name = session.scalar(
            due.order_by(Job.due_at).limit(1).with_for_update(skip_locked=True)  # nothing on SQLite
        )
        if name is not None:
            session.execute(update(Job).where(Job.name == name).values(claimed_until=until))
    return None if name is None else Claim(name, until)


def renew_claim(session: Session, claim: Claim, *, wall_now: datetime) -> Claim | None:
    """Still at it; None when another worker has the job by now. Committed on return."""
    until = wall_now + timedelta(seconds=LEASE_S)
    with db.writing(session):
        kept = session.execute(
            update(Job).where(*_is_held(claim)).values(claimed_until=until).returning(Job.name)
        ).first()
    return None if kept is None else Claim(claim.name, until)


def _is_held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """Nobody claims a job before the claim before has ended, so no two claims of a job end in one second."""
    return Job.name == claim.name, Job.claimed_until == claim.until


def note_run(
    session: Session,
    name: str,
    *,
    every_s: float,
    wall_now: datetime,
    error: str | None,
    claim: Claim | None = None,
) -> None:
    """It ran; it is due again `every_s` from now. Committed on return.

    Args:
        claim: who ran it held it by this; nothing is noted when another worker has it by now.
    """
    with db.writing(session):
        session.execute(
            update(Job)
            .where(*((Job.name == name,) if claim is None else _is_held(claim)))
            .values(
                due_at=wall_now + timedelta(seconds=every_s),
                claimed_until=None,
                ran_at=wall_now,
                **_outcome(error, wall_now=wall_now),
            )
        )


def note_backup(session: Session, *, wall_now: datetime, error: str | None) -> None:
    """A backup was made, or could not be. Committed on return."""
    add_jobs(session, [BACKUP], wall_now=wall_now)
    made = {"ran_at": wall_now} if error is None else {}
    with db.writing(session):
        session.execute(
            update(Job)
            .where(Job.name == BACKUP)
            .values(**made, **_outcome(error, wall_now=wall_now))
        )


def _outcome(error: str | None, *, wall_now: datetime) -> dict[str, Any]:
    if error is None:
        return {"error": None, "failing_since": None}
    since = func.coalesce(Job.failing_since, literal(wall_now, Job.failing_since.type))
    return {"error": error[:_ERROR_LENGTH], "failing_since": since}


@dataclass(frozen=True)
class TroubledJob:
    """`trouble` is `fails` (then `reason` says why) or `overdue`."""

    name: str
    trouble: str
    reason: str | None
    ran_at: datetime | None


def looked_at(session: Session) -> datetime | None:
    """When a worker looked at the fleet last. One statement."""
    return session.scalar(select(Job.ran_at).where(Job.name == _LOOKS))


def troubled_jobs(
    session: Session,
    *,
    wall_now: datetime,
    failing: timedelta,
    overdue: timedelta,
    backup_overdue: timedelta,
) -> list[TroubledJob]:
    """Jobs that fail for so long, or should have ended by so much and have not, though a worker was there. One statement.

    A worker that was away does late what was due meanwhile: that is no trouble of the job.
    """
    rows = jobs(session)
    last_look = next((job.ran_at for job in rows if job.name == _LOOKS), None)
    found = []
    for job in rows:
        if job.failing_since is not None and job.failing_since + failing <= wall_now:
            found.append(TroubledJob(job.name, "fails", job.error, job.ran_at))
        elif _is_overdue(
            job, wall_now, last_look, backup_overdue if job.name == BACKUP else overdue
        ):
            found.append(TroubledJob(job.name, "overdue", None, job.ran_at))
    return found


def _is_overdue(
    job: Job, wall_now: datetime, last_look: datetime | None, allowed: timedelta
) -> bool:
    if job.name == BACKUP:
        return (job.ran_at or job.due_at) + allowed <= wall_now
    is_run = job.claimed_until is not None and job.claimed_until > wall_now
    return not is_run and last_look is not None and job.due_at + allowed <= last_look


def jobs(session: Session) -> list[Job]:
    """All jobs by name."""
    return list(session.scalars(select(Job).order_by(Job.name)))

"""Which job is due, and whose it is: of several workers one runs it, and one that died does not hold it up for long.

Jobs are between processes, so their times are wall clock; what a job does, it does by the fleet's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import Job

LEASE_S = 600
"""A job that has not ended within this time is taken for dead; it is safe to run twice."""
_ERROR_LENGTH = 500


def add_jobs(session: Session, names: Iterable[str], *, wall_now: datetime) -> None:
    """Make the rows of jobs that were never due before: they are due at once. Committed on return; safe to repeat."""
    with db.writing(session):
        known = set(session.scalars(select(Job.name)))
        session.add_all(Job(name=name, due_at=wall_now) for name in names if name not in known)


def claim_due_job(session: Session, names: Sequence[str], *, wall_now: datetime) -> str | None:
    """The job of these that is due longest, claimed for who asks; None when none is. Committed on return."""
    is_free = or_(Job.claimed_until.is_(None), Job.claimed_until <= wall_now)
    due = select(Job.name).where(Job.name.in_(names), Job.due_at <= wall_now, is_free)
    if session.scalar(due.limit(1)) is None:
        session.rollback()  # a reading transaction that stays open would hold up SQLite's checkpoints
        return None
    with db.writing(session):
        name = session.scalar(
            due.order_by(Job.due_at).limit(1).with_for_update(skip_locked=True)  # nothing on SQLite
        )
        if name is not None:
            session.execute(
                update(Job)
                .where(Job.name == name)
                .values(claimed_until=wall_now + timedelta(seconds=LEASE_S))
            )
    return name


def note_run(
    session: Session, name: str, *, every_s: float, wall_now: datetime, error: str | None
) -> None:
    """It ran; it is due again `every_s` from now. Committed on return."""
    with db.writing(session):
        session.execute(
            update(Job)
            .where(Job.name == name)
            .values(
                due_at=wall_now + timedelta(seconds=every_s),
                claimed_until=None,
                ran_at=wall_now,
                error=error[:_ERROR_LENGTH] if error else None,
            )
        )


def jobs(session: Session) -> list[Job]:
    """All jobs by name."""
    return list(session.scalars(select(Job).order_by(Job.name)))

"""What the worker does by schedule: when each job is due next, and how it went."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class Job(Base):
    """One row per job, and one for the backup, which a timer beside the worker makes. Moments are wall clock: they are between processes."""

    __tablename__ = "job"

    name: Mapped[str] = mapped_column(primary_key=True)
    due_at: Mapped[Moment]
    claimed_until: Mapped[Moment | None]
    ran_at: Mapped[Moment | None]
    error: Mapped[str | None]  # of the last run; None: it went well
    failing_since: Mapped[Moment | None]  # it has failed each time since then

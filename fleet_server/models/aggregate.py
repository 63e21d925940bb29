"""Means of hours and days: how far each datastream's are made, and what a mean alone does not say."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Double, ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class AggregatedStream(Base):
    """One datastream of which means are made: of every hour and local day that ended at `made_to` or before; None: of none yet.

    `due_to` is the end of the next hour. Values sampled from `dirty_from` to `dirty_to` (both included) came late or became other ones:
    what they went into is made again. `known_at`: since when the latest version of a mean is known, or of a value that is in one; who changes
    values makes theirs known later than that. So at every moment means are those of the values that were known.
    """

    __tablename__ = "aggregated_stream"
    __table_args__ = (
        CheckConstraint("(dirty_from IS NULL) = (dirty_to IS NULL)", name="dirty"),
        CheckConstraint("dirty_to >= dirty_from", name="order"),
    )

    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id"), primary_key=True, autoincrement=False
    )
    made_to: Mapped[Moment | None]
    due_to: Mapped[Moment]
    dirty_from: Mapped[Moment | None]
    dirty_to: Mapped[Moment | None]
    known_at: Mapped[Moment | None]


class AggregateDetail(Base):
    """What belongs to one version of a mean, current or replaced: insert only, found by the version's own key.

    `minimum` and `maximum` of the values that went in, None where none did; `count` of them; `completeness`: share of the instants of its
    interval, 0–1.
    """

    __tablename__ = "aggregate_detail"
    __table_args__ = (
        CheckConstraint("completeness BETWEEN 0 AND 1", name="completeness"),
        CheckConstraint('"count" >= 0', name="count"),
        {"sqlite_with_rowid": False},
    )

    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id"), primary_key=True, autoincrement=False
    )
    sampled_at: Mapped[Moment] = mapped_column(primary_key=True)
    known_from: Mapped[Moment] = mapped_column(primary_key=True)
    minimum: Mapped[float | None] = mapped_column(Double)
    maximum: Mapped[float | None] = mapped_column(Double)
    count: Mapped[int] = mapped_column(Integer)
    completeness: Mapped[float] = mapped_column(Double)

"""What the driver returned, in the driver's raw unit: never altered or deleted by corrections."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import ONCE_A_STATEMENT, Base, Moment

DUPLICATE_INSTANT = "duplicate_instant"
"""Status of a second reading of an instant that its datastream already has a value for."""


class RawReading(Base):
    """Insert only, but for `sampled_at` and what goes with it, filled once when an anchor gives a pack its time.

    `status` is None for a value, else the node's reason, or `duplicate_instant`. `time_interval_s` is the half-width of the
    interval that an estimated time lies in; None for a time that the node sent.
    """

    __tablename__ = "raw_reading"
    __table_args__ = (
        CheckConstraint("raw_value IS NOT NULL OR status IS NOT NULL", name="value_or_status"),
        {"sqlite_with_rowid": False},
    )

    pack_id: Mapped[int] = mapped_column(
        ForeignKey("pack.id", info=ONCE_A_STATEMENT), primary_key=True, autoincrement=False
    )
    channel: Mapped[str] = mapped_column(primary_key=True)
    raw_value: Mapped[float | None]
    status: Mapped[str | None]
    sampled_at: Mapped[Moment | None]
    time_estimated: Mapped[bool]
    time_interval_s: Mapped[int | None]

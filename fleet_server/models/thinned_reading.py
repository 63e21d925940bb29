"""The lowest and the highest raw value of one channel in the packs that a thinned pack stands for."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base


class ThinnedReading(Base):
    """Insert only. `status` is None for values, else the last reason: there was no value in any of the packs.

    Not a raw reading: nobody knows at which instants the two were measured.
    """

    __tablename__ = "thinned_reading"
    __table_args__ = (
        CheckConstraint(
            "(lowest IS NULL) = (highest IS NULL) AND (lowest IS NULL) = (status IS NOT NULL)",
            name="values_or_status",
        ),
        {"sqlite_with_rowid": False},
    )

    pack_id: Mapped[int] = mapped_column(
        ForeignKey("pack.id"), primary_key=True, autoincrement=False
    )
    channel: Mapped[str] = mapped_column(primary_key=True)
    lowest: Mapped[float | None]
    highest: Mapped[float | None]
    status: Mapped[str | None]

"""What a person said of a range of values. Never changed: a later one over the same values has the last word."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment, Small


class PersonFlag(Base):
    """`from_at` ≤ sampled_at < `to_at`. `flag` None: what persons said before of these values is taken back."""

    __tablename__ = "person_flag"
    __table_args__ = (
        CheckConstraint("flag IN (1, 3, 4)", name="flag"),
        CheckConstraint("to_at > from_at", name="order"),
        Index("ix_person_flag_datastream_id", "datastream_id", "id"),
    )

    id: Mapped[Key]
    datastream_id: Mapped[int] = mapped_column(ForeignKey("datastream.id"))
    from_at: Mapped[Moment]
    to_at: Mapped[Moment]
    flag: Mapped[Small | None]
    reason: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[Moment]

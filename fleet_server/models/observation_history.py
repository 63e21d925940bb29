"""Versions of observations that a revision replaced: what was known, from–to. Read only when somebody asks for it."""

from __future__ import annotations

from sqlalchemy import REAL, BigInteger, CheckConstraint, Double, ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment, Small


class ObservationHistory(Base):
    """Columns as in `Observation`; this version was the current one while `known_from` ≤ t < `known_to`. Insert only."""

    __tablename__ = "observation_history"
    __table_args__ = (
        CheckConstraint("flag IN (1, 2, 3, 4, 9)", name="flag"),
        CheckConstraint("known_to > known_from", name="order"),
        {"sqlite_with_rowid": False},
    )

    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id"), primary_key=True, autoincrement=False
    )
    sampled_at: Mapped[Moment] = mapped_column(primary_key=True)
    known_from: Mapped[Moment] = mapped_column(primary_key=True)
    value: Mapped[float | None] = mapped_column(Double)
    u: Mapped[float | None] = mapped_column(REAL)
    flag: Mapped[Small]
    tests: Mapped[int] = mapped_column(Integer)
    lineage_id: Mapped[int] = mapped_column(ForeignKey("lineage.id"))
    pack_id: Mapped[int | None] = mapped_column(BigInteger)
    known_to: Mapped[Moment]
    revision_id: Mapped[int] = mapped_column(ForeignKey("revision.id"))

"""Between which values a datastream lay while its node could keep only extremes. Never an observation."""

from __future__ import annotations

from sqlalchemy import REAL, CheckConstraint, Double, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Moment, Small


class ObservedRange(Base):
    """From a thinned pack that stands for `packs` packs, sampled from `from_at` to `to_at` (both included), about a day.

    Every value that there was lies between `lowest` and `highest`, each with its standard uncertainty; both are None when no
    pack had a value. In how many of the packs there was one is not known: at least in one. `flag` is the worse of the two
    values', and says nothing of packs without a value. A table of its own, so that nothing that reads observations takes an
    extreme for a reading.
    """

    __tablename__ = "observed_range"
    __table_args__ = (
        CheckConstraint("flag IN (1, 2, 3, 4, 9)", name="flag"),
        CheckConstraint("to_at >= from_at", name="order"),
        {"sqlite_with_rowid": False},
    )

    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id"), primary_key=True, autoincrement=False
    )
    from_at: Mapped[Moment] = mapped_column(primary_key=True)
    to_at: Mapped[Moment]
    lowest: Mapped[float | None] = mapped_column(Double)
    u_lowest: Mapped[float | None] = mapped_column(REAL)
    highest: Mapped[float | None] = mapped_column(Double)
    u_highest: Mapped[float | None] = mapped_column(REAL)
    flag: Mapped[Small]
    packs: Mapped[Big]
    lineage_id: Mapped[int] = mapped_column(ForeignKey("lineage.id"))
    known_from: Mapped[Moment]
    pack_id: Mapped[int] = mapped_column(ForeignKey("pack.id"))

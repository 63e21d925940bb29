"""How many observations a datastream has per month: kept in the same transaction, answers `$count`."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base


class ObservationCount(Base):
    """`month` is year · 100 + month in UTC, e.g. 202607."""

    __tablename__ = "observation_count"
    __table_args__ = ({"sqlite_with_rowid": False},)

    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id"), primary_key=True, autoincrement=False
    )
    month: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int]

"""Uptime ↔ UTC pair of one power-up: what gives a time to packs that were sent without one."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class Anchor(Base):
    """At `uptime_ms` of this power-up it was `utc_at`."""

    __tablename__ = "anchor"
    __table_args__ = ({"sqlite_with_rowid": False},)

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    power_up: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    uptime_ms: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    utc_at: Mapped[Moment]

"""What happened how often, per node: counts that no table of rows can answer."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big

PACKS_STORED = "packs_stored"
"""Packs stored, whatever their spool: as many as there are rows."""
PACKS_RESENT = "packs_resent"
"""Packs received again, harmless."""


class Counter(Base):
    """Per node, so that workers do not wait for each other; sum them for the fleet."""

    __tablename__ = "counter"
    __table_args__ = ({"sqlite_with_rowid": False},)

    name: Mapped[str] = mapped_column(primary_key=True)
    node_id: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[Big]

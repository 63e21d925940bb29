"""What a node reported about itself: the result of a command, a step of an update, a crash."""

from __future__ import annotations

from sqlalchemy import JSON, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class Event(Base):
    """Read from its pack; `details` keeps the order sent as a list of [key, value]."""

    __tablename__ = "event"
    __table_args__ = (
        Index("ix_event_node_id_pack_id", "node_id", "pack_id"),
        Index("ix_event_name", "name", "pack_id"),
    )

    pack_id: Mapped[int] = mapped_column(
        ForeignKey("pack.id"), primary_key=True, autoincrement=False
    )
    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"))
    name: Mapped[str]
    details: Mapped[list[list[float | str]]] = mapped_column(JSON)
    happened_at: Mapped[Moment | None]

"""What a node was told to do once, and what it answered."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class Command(Base):
    """Pending until it is answered, taken back or `expires_at` has passed. `batch`: ordered together with others of many nodes.

    `id` is drawn at random, never counted: a server restored from a backup must not give a number out again that its node
    remembers as done. `result` is the node's word for what became of it.
    """

    __tablename__ = "command"
    __table_args__ = (
        Index("ix_command_node_id_ordered_at", "node_id", "ordered_at"),
        Index("ix_command_ordered_at", "ordered_at", "id"),
        Index("ix_command_batch", "batch", "ordered_at", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"))
    name: Mapped[str]
    arguments: Mapped[dict[str, Any]] = mapped_column(JSON)
    ordered_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    result: Mapped[str | None]
    details: Mapped[list[list[float | str]] | None] = mapped_column(JSON)
    answered_at: Mapped[Moment | None]
    batch: Mapped[str | None]
    canceled_at: Mapped[Moment | None]

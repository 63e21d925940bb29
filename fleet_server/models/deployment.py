"""A node at a site, from–to."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class Deployment(Base):
    """`from_at` ≤ sampled_at < `to_at`; an open end is None. A node is at one site at a time."""

    __tablename__ = "deployment"
    __table_args__ = (
        CheckConstraint("to_at IS NULL OR to_at > from_at", name="order"),
        Index(
            "uq_deployment_open",
            "node_id",
            unique=True,
            sqlite_where=text("to_at IS NULL"),
            postgresql_where=text("to_at IS NULL"),
        ),
        Index("ix_deployment_node_id_from_at", "node_id", "from_at"),
        Index("ix_deployment_site_id", "site_id"),
    )

    id: Mapped[Key]
    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"))
    site_id: Mapped[int] = mapped_column(ForeignKey("site.id"))
    from_at: Mapped[Moment]
    to_at: Mapped[Moment | None]

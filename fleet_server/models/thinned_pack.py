"""What a node with a full spool kept of the packs that it gave up: a range of sequences, and when they were sampled."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Moment


class ThinnedPack(Base):
    """Read from its pack. `packs` of `from_seq` … `to_seq` (both included) could still be read when they were thinned.

    `from_at` and `to_at` are when the first and the last of them were sampled, None as long as that is not known.
    """

    __tablename__ = "thinned_pack"
    __table_args__ = (
        Index("ix_thinned_pack_node_id_spool_from_seq", "node_id", "spool", "from_seq"),
        CheckConstraint("to_seq >= from_seq", name="order"),
    )

    pack_id: Mapped[int] = mapped_column(
        ForeignKey("pack.id"), primary_key=True, autoincrement=False
    )
    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"))
    spool: Mapped[Big]
    from_seq: Mapped[Big]
    to_seq: Mapped[Big]
    packs: Mapped[Big]
    until_power_up: Mapped[Big]
    until_uptime_ms: Mapped[Big]
    from_at: Mapped[Moment | None]
    to_at: Mapped[Moment | None]

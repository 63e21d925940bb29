"""Sequence numbers that never came."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Moment

DECLARED_LOST = "declared_lost"
OPEN = "open"
BELOW_OLDEST = "below_oldest"
"""Reason: the node no longer holds it (`_oldest`)."""
THINNED = "thinned"
"""Reason: the node no longer holds it, but kept the extremes (`thinned_pack`)."""
SPOOL_REPLACED = "spool_replaced"
"""Reason: the node has begun another spool before it was sent."""


class Gap(Base):
    """`from_seq` … `to_seq`, both included. `declared_lost` when the node said that it no longer holds them, or uses another spool.

    Open gaps are not rows as a rule: while packs are under way every node has some, they are computed when asked for.
    """

    __tablename__ = "gap"
    __table_args__ = (
        CheckConstraint("to_seq >= from_seq", name="order"),
        CheckConstraint("state IN ('declared_lost', 'open')", name="state"),
    )

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    spool: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    from_seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    to_seq: Mapped[Big]
    state: Mapped[str]
    reason: Mapped[str]
    noticed_at: Mapped[Moment]

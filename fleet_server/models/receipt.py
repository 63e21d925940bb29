"""The server's word that everything of a spool up to a sequence number is stored. Moves in the pack's transaction."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Moment

NO_SPOOL = 0
"""Spool of a receipt before the node was first heard."""


class Receipt(Base):
    """One per node from its enrolment on, for the spool it uses now; `seq` 0 = nothing yet (sequences begin at 1).

    Whoever stores packs of a node, or changes what its channels mean, holds this row. `channels_version` rises with every such
    change: a worker that has the channels of that version in memory need not read them again.
    """

    __tablename__ = "receipt"

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    spool: Mapped[Big]
    seq: Mapped[Big]
    highest_seq: Mapped[Big]  # highest sequence of the spool that ever came, stored or quarantined
    channels_version: Mapped[int] = mapped_column(default=0)
    moved_at: Mapped[Moment | None]

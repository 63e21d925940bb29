"""What arrived and could not be stored as a pack, kept with its reason."""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, BigKey, Moment


class Quarantine(Base):
    """`node_id` is who the broker says sent it (the topic); spool and seq only where the identity was readable and its own.

    `payload` holds at most the first 64 KiB. The same bytes from the same node for the same reason are one row, counted.
    """

    __tablename__ = "quarantine"
    __table_args__ = (
        Index("ix_quarantine_node_id_spool_seq", "node_id", "spool", "seq"),
        Index("uq_quarantine_content", "node_id", "payload_sha256", "reason", unique=True),
    )

    id: Mapped[BigKey]
    node_id: Mapped[str]
    spool: Mapped[Big | None]
    seq: Mapped[Big | None]
    kind: Mapped[str]  # telemetry, event, state or unknown
    reason: Mapped[str]  # a stable name, e.g. cbor_malformed, body_differs
    sentence: Mapped[str]
    received_at: Mapped[Moment] = mapped_column(index=True)
    last_received_at: Mapped[Moment]
    times_received: Mapped[int]
    payload_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    payload: Mapped[bytes] = mapped_column(LargeBinary)

"""What one node sent for one sampling instant or event, as received: the truth of last resort."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import ONCE_A_STATEMENT, Base, Big, BigKey, Moment


class Pack(Base):
    """Insert only. `(node, spool, seq)` is its identity; storing it twice is impossible.

    `payload` holds the bytes as received; `payload_sha256` is of all of them, `body_sha256` of the part that is frozen in the
    node's spool and therefore the same in every copy. `claimed_at` is the sampling time as the node sent it, None when it
    did not know.
    """

    __tablename__ = "pack"
    __table_args__ = (
        UniqueConstraint("node_id", "spool", "seq"),
        Index(
            "ix_pack_without_time",  # those that wait for an anchor of their power-up
            "node_id",
            "power_up",
            sqlite_where=text("claimed_at IS NULL"),
            postgresql_where=text("claimed_at IS NULL"),
        ),
        CheckConstraint("kind IN ('telemetry', 'event')", name="kind"),
    )

    id: Mapped[BigKey]
    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id", info=ONCE_A_STATEMENT))
    spool: Mapped[Big]
    seq: Mapped[Big]
    kind: Mapped[str]
    received_at: Mapped[Moment]
    stored_at: Mapped[Moment]
    claimed_at: Mapped[Moment | None]
    power_up: Mapped[Big]
    uptime_ms: Mapped[Big]
    body_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    payload_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    payload: Mapped[bytes] = mapped_column(LargeBinary)

"""What must go out: states (receipt, desired), one coalesced row per node, written in the transaction that changed them."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Moment

RECEIPT = "receipt"
DESIRED = "desired"


class Outbox(Base):
    """A state that changed. The row says only *that*; what is published is read fresh, so it never goes back.

    `version` rises with every change, `published_version` follows when the broker has it; `claimed_until` is the lease of the
    publisher that is at it (wall clock: a lease is between processes, not in the fleet's time). Messages (webhooks, mails) will be
    rows of their own kind with a key of their own.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint("kind IN ('receipt', 'desired')", name="kind"),
        Index(
            "ix_outbox_due",
            "changed_at",
            sqlite_where=text("published_version < version"),
            postgresql_where=text("published_version < version"),
        ),
    )

    kind: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)  # node_id
    version: Mapped[Big]
    published_version: Mapped[Big]
    changed_at: Mapped[Moment]
    claimed_until: Mapped[Moment | None]

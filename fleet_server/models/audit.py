"""Who did what, when: rows that follow from one another, so that none can be changed or taken out unseen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Key, Moment


class AuditEntry(Base):
    """`sha256` covers the entry and `previous_sha256`, which is the entry's before (services.auditing says how)."""

    __tablename__ = "audit_entry"
    __table_args__ = (
        Index("ix_audit_entry_subject", "subject", "seq"),
        Index("ix_audit_entry_actor", "actor", "seq"),
    )

    seq: Mapped[Big] = mapped_column(primary_key=True, autoincrement=False)  # from 1, without holes
    at: Mapped[Moment]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    previous_sha256: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)


class AuditHead(Base):
    """Where the chain ends. Held by whoever adds to it, so that entries come one after the other."""

    __tablename__ = "audit_head"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[Key]
    seq: Mapped[Big]
    sha256: Mapped[str]

"""Every certificate that a node has or had, all for the node's one key."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class CertificateState(StrEnum):
    """What a certificate is to its node."""

    CURRENT = "current"  # the one that the node was last seen with
    OFFERED = "offered"  # signed, and not yet seen in use
    SUPERSEDED = "superseded"  # another one took its place; still good
    REVOKED = "revoked"


_STATES = ", ".join(f"'{state}'" for state in CertificateState)
_IS_CURRENT, _IS_OFFERED = text("state = 'current'"), text("state = 'offered'")


class Certificate(Base):
    """At most one of a node is current, and at most one is offered."""

    __tablename__ = "certificate"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        Index(
            "uq_certificate_current",
            "node_id",
            unique=True,
            sqlite_where=_IS_CURRENT,
            postgresql_where=_IS_CURRENT,
        ),
        Index(
            "uq_certificate_offered",
            "node_id",
            unique=True,
            sqlite_where=_IS_OFFERED,
            postgresql_where=_IS_OFFERED,
        ),
        Index("ix_certificate_renew_at", "state", "renew_at"),
        Index("ix_certificate_changed_at", "state", "changed_at"),
    )

    id: Mapped[Key]
    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), index=True)
    name: Mapped[str] = mapped_column(index=True)  # by which the node names it (wire.credentials)
    serial: Mapped[str] = mapped_column(unique=True)  # hexadecimal
    der: Mapped[bytes] = mapped_column(LargeBinary)
    issued_at: Mapped[Moment]
    renew_at: Mapped[Moment]  # after two thirds of its life
    expires_at: Mapped[Moment]
    state: Mapped[str]
    changed_at: Mapped[Moment]  # when it came to be in this state

"""The roots that nodes are told to trust while one takes the other's place."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class RootState(StrEnum):
    """Where a root stands in a roll-over."""

    NEXT = "next"  # nodes learn it; no listener shows it yet
    CURRENT = "current"  # the broker's certificate comes from it
    OLD = "old"  # nodes still trust it; only the nodes' listener shows it
    DROPPED = "dropped"


_STATES = ", ".join(f"'{state}'" for state in RootState)
_IS_CURRENT = text("state = 'current'")


class TrustedRoot(Base):
    """Empty until the first roll-over: nodes trust what the bench gave them."""

    __tablename__ = "trusted_root"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        Index(
            "uq_trusted_root_current",
            "state",
            unique=True,
            sqlite_where=_IS_CURRENT,
            postgresql_where=_IS_CURRENT,
        ),
    )

    name: Mapped[str] = mapped_column(primary_key=True)  # as wire.credentials names it
    der: Mapped[bytes] = mapped_column(LargeBinary)
    state: Mapped[str]
    expires_at: Mapped[Moment]
    changed_at: Mapped[Moment]

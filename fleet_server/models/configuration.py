"""What the server wants a node to be: its desired configuration."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class Configuration(Base):
    """One per node from its enrolment on: what its layers come to. Passwords in it are sealed.

    `version` rises with every change of `settings`; `sha256` is the hash that the node reports when it runs exactly these.
    `held_back`: why the node could not take what its layers want; `settings` are those before, then.
    """

    __tablename__ = "configuration"
    __table_args__ = (Index("ix_configuration_changed_at", "changed_at", "node_id"),)

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    version: Mapped[int]
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    sha256: Mapped[str]
    held_back: Mapped[str | None]
    renewed_certificate: Mapped[bytes | None] = mapped_column(LargeBinary)  # DER
    changed_at: Mapped[Moment]

"""What the server wants a node to be: its desired configuration."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class Configuration(Base):
    """One per node from its enrolment on; `version` rises with every change of `settings`. Passwords in it are sealed."""

    __tablename__ = "configuration"

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    version: Mapped[int]
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    renewed_certificate: Mapped[bytes | None] = mapped_column(LargeBinary)  # DER
    changed_at: Mapped[Moment]

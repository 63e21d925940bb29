"""What allows a bench to enrol nodes: a secret shown once, kept as its hash."""

from __future__ import annotations

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class EnrolmentToken(Base):
    """Good for `uses_left` more nodes until it expires or is revoked; only for nodes of `model` and with `label`, where it has those."""

    __tablename__ = "enrolment_token"
    __table_args__ = (CheckConstraint("uses_left >= 0", name="uses_left"),)

    id: Mapped[Key]
    token_sha256: Mapped[str] = mapped_column(unique=True)
    note: Mapped[str] = mapped_column(default="")
    uses_left: Mapped[int]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    model: Mapped[str | None]
    label: Mapped[str | None]
    made_by: Mapped[str | None]
    revoked_at: Mapped[Moment | None]

"""What lets somebody who has forgotten a password set a new one, once."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class PasswordReset(Base):
    """At most one per account; the row goes when it was used."""

    __tablename__ = "password_reset"

    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), primary_key=True)
    code_sha256: Mapped[str] = mapped_column(unique=True)
    made_at: Mapped[Moment]
    expires_at: Mapped[Moment]

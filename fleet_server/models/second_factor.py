"""An account's second factor: one-time codes of an app, and what helps when the phone is lost."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Moment


class SecondFactor(Base):
    """Asked for once it is confirmed. `last_step` is the time step of the newest code that was taken: none is taken twice."""

    __tablename__ = "second_factor"

    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), primary_key=True)
    sealed_secret: Mapped[str]
    begun_at: Mapped[Moment]
    confirmed_at: Mapped[Moment | None]
    last_step: Mapped[Big] = mapped_column(default=0)


class RecoveryCode(Base):
    """Good once instead of a code of the app; the row goes when it was used."""

    __tablename__ = "recovery_code"

    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), primary_key=True)
    code_sha256: Mapped[str] = mapped_column(primary_key=True)

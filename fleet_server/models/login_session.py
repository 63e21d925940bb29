"""One browser in which somebody is logged in: the cookie's secret as its hash, so that it can be ended from here."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fleet_server.models.base import Base, Key, Moment
from fleet_server.models.user import User


class LoginSession(Base):
    """`last_seen_at` is to the minute. `browser` is a short name for people, never the whole header."""

    __tablename__ = "login_session"
    __table_args__ = (Index("ix_login_session_user_id", "user_id"),)

    id: Mapped[Key]
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"))
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    begun_at: Mapped[Moment]
    last_seen_at: Mapped[Moment]
    ended_at: Mapped[Moment | None]
    browser: Mapped[str]
    user: Mapped[User] = relationship()

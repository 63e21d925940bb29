"""A person with a local account."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class User(Base):
    """`password_hash` is argon2id. `failures` counts wrong passwords in a row, `locked_until` follows from it."""

    __tablename__ = "user_account"  # `user` is a reserved word in PostgreSQL

    id: Mapped[Key]
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=True)
    failures: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[Moment | None]
    created_at: Mapped[Moment]
    last_login_at: Mapped[Moment | None]

"""What lets a program act for a person: a secret shown once, kept as its hash."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fleet_server.models.base import Base, Key, Moment
from fleet_server.models.user import Role, Scope, User

_ROLES = ", ".join(f"'{role}'" for role in Role)
_SCOPES = ", ".join(f"'{scope}'" for scope in Scope)


class ApiKey(Base):
    """Good until it expires or is revoked, and never for more than its owner may. `last_used_at` is to the hour.

    `held_at`: a backup brought it back, and nobody has said yet that it was not revoked in between; until then it is good for nothing.
    """

    __tablename__ = "api_key"
    __table_args__ = (
        CheckConstraint(f"scope IN ({_SCOPES})", name="scope"),
        Index("ix_api_key_user_id", "user_id"),
    )

    id: Mapped[Key]
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"))
    secret_sha256: Mapped[str] = mapped_column(unique=True)
    note: Mapped[str]
    scope: Mapped[str]
    created_at: Mapped[Moment]
    expires_at: Mapped[Moment]
    last_used_at: Mapped[Moment | None]
    revoked_at: Mapped[Moment | None]
    held_at: Mapped[Moment | None]
    user: Mapped[User] = relationship()
    roles: Mapped[list[ApiKeyRole]] = relationship(
        lazy="selectin", cascade="all, delete-orphan", order_by="ApiKeyRole.role"
    )


class ApiKeyRole(Base):
    """One role of one key."""

    __tablename__ = "api_key_role"
    __table_args__ = (CheckConstraint(f"role IN ({_ROLES})", name="role"),)

    api_key_id: Mapped[int] = mapped_column(ForeignKey("api_key.id"), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)

"""A person with a local account, and what the person may do."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fleet_server.models.base import Base, Key, Moment


class Role(StrEnum):
    """What somebody does for the fleet; what each may is in `services.rights`."""

    TECHNICIAN = "technician"
    OPERATOR = "operator"
    RELEASE_AUTHOR = "release_author"
    RELEASE_APPROVER = "release_approver"
    TREES_OFFICE = "trees_office"
    WATERS_OFFICE = "waters_office"
    DATA_STEWARD = "data_steward"
    AUDITOR = "auditor"
    ADMINISTRATOR = "administrator"


class Scope(StrEnum):
    """Which sites, and which nodes made for them, somebody has to do with."""

    TREES = "trees"
    WATERS = "waters"
    ALL = "all"


_ROLES = ", ".join(f"'{role}'" for role in Role)
_SCOPES = ", ".join(f"'{scope}'" for scope in Scope)


class User(Base):
    """`password_hash` is argon2id. `failures` counts wrong passwords in a row, `locked_until` follows from it."""

    __tablename__ = "user_account"  # `user` is a reserved word in PostgreSQL
    __table_args__ = (CheckConstraint(f"scope IN ({_SCOPES})", name="scope"),)

    id: Mapped[Key]
    name: Mapped[str] = mapped_column(unique=True)
    mail: Mapped[str | None]  # where a link for a new password goes, and messages to this person
    password_hash: Mapped[str]
    scope: Mapped[str] = mapped_column(default=Scope.ALL)
    is_active: Mapped[bool] = mapped_column(default=True)
    failures: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[Moment | None]
    created_at: Mapped[Moment]
    last_login_at: Mapped[Moment | None]
    roles: Mapped[list[UserRole]] = relationship(
        lazy="selectin", cascade="all, delete-orphan", order_by="UserRole.role"
    )


class UserRole(Base):
    """One role of one person."""

    __tablename__ = "user_role"
    __table_args__ = (CheckConstraint(f"role IN ({_ROLES})", name="role"),)

    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"), primary_key=True)
    role: Mapped[str] = mapped_column(primary_key=True)

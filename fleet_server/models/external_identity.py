"""Who a person is at another place's login (OpenID Connect)."""

from __future__ import annotations

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fleet_server.models.base import Base, Moment
from fleet_server.models.user import User


class ExternalIdentity(Base):
    """`issuer` and `subject` together never mean somebody else (OpenID Connect Core 1.0, 5.7); names and mail addresses may."""

    __tablename__ = "external_identity"
    __table_args__ = (UniqueConstraint("user_id", "issuer"),)

    issuer: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("user_account.id"))
    linked_at: Mapped[Moment]
    user: Mapped[User] = relationship()

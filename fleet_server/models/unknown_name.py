"""A name that nobody has and somebody tried to log in with."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class UnknownName(Base):
    """Counted as an account's wrong passwords are, so that no answer tells which names exist. Kept for a day, as a hash."""

    __tablename__ = "unknown_name"

    name_sha256: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[Moment | None]
    tried_at: Mapped[Moment]

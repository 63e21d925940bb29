"""Filters of the list of nodes that somebody wants to find again."""

from __future__ import annotations

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped

from fleet_server.models.base import Base, Key, Moment


class SavedView(Base):
    """`query` is that of the list's address; `owner` is the account's name. A shared one is shown to everybody."""

    __tablename__ = "saved_view"
    __table_args__ = (UniqueConstraint("owner", "name"),)

    id: Mapped[Key]
    owner: Mapped[str]
    name: Mapped[str]
    query: Mapped[str]
    is_shared: Mapped[bool]
    saved_at: Mapped[Moment]

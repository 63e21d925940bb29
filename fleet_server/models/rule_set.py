"""Limits of the quality tests as somebody set them, version by version; and how far each datastream is judged by them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class RuleSet(Base):
    """Of one property at all sites, or of one datastream (`datastream_id`). Never changed: the newest version is in force.

    `limits` is what `measurement.rules.to_data` writes; None: from here on the general ones hold again.
    """

    __tablename__ = "rule_set"
    __table_args__ = (
        UniqueConstraint("property", "datastream_id", "version"),
        CheckConstraint("version > 0", name="version"),
    )

    id: Mapped[Key]
    property: Mapped[str]
    datastream_id: Mapped[int | None] = mapped_column(ForeignKey("datastream.id"))
    version: Mapped[int]
    limits: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    reason: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[Moment]


class JudgedStream(Base):
    """One datastream whose values were judged in context up to `judged_to`; None: from its beginning again.

    `reached` is the latest `judged_to` there ever was: what was sampled later has no results yet. `due_at`: values of that time or later
    are worth another look.
    """

    __tablename__ = "judged_stream"

    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id"), primary_key=True, autoincrement=False
    )
    judged_to: Mapped[Moment | None]
    reached: Mapped[Moment]
    due_at: Mapped[Moment]

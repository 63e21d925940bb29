"""One property of one site at one depth. Survives probe and node swaps."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment

LEVELS = ("calibrated", "derived", "hourly", "daily", "forecast", "external")
_LEVELS = ", ".join(f"'{level}'" for level in LEVELS)


class Datastream(Base):
    """The id stays below 2²², so that an observation's public id stays below 2⁵³ (models/observation.py).

    `source_id`: of hourly and daily values the datastream whose means they are, of derived ones that of the leading input.
    """

    __tablename__ = "datastream"
    __table_args__ = (
        UniqueConstraint("site_id", "property", "depth_cm", "level"),
        CheckConstraint(f"level IN ({_LEVELS})", name="level"),
        CheckConstraint("id BETWEEN 1 AND 4194303", name="id"),
    )

    id: Mapped[Key]
    site_id: Mapped[int] = mapped_column(ForeignKey("site.id"))
    property: Mapped[str]
    unit: Mapped[str]
    depth_cm: Mapped[int]
    level: Mapped[str]
    created_at: Mapped[Moment]
    source_id: Mapped[int | None] = mapped_column(ForeignKey("datastream.id"), index=True)

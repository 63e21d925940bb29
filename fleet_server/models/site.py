"""A place that is measured: a tree or a water body."""

from __future__ import annotations

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class Site(Base):
    """`code` is the short name that scenes, imports and people use; the position is WGS84 in degrees."""

    __tablename__ = "site"
    __table_args__ = (
        CheckConstraint("kind IN ('tree', 'water')", name="kind"),
        CheckConstraint("latitude BETWEEN -90 AND 90", name="latitude"),
        CheckConstraint("longitude BETWEEN -180 AND 180", name="longitude"),
    )

    id: Mapped[Key]
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[str]
    latitude: Mapped[float]
    longitude: Mapped[float]
    description: Mapped[str] = mapped_column(default="")
    is_public: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[Moment]

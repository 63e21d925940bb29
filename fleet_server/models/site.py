"""A place that is measured: a tree or a water body."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class Site(Base):
    """`code` is the short name that scenes, imports and people use; the position is WGS84 in degrees.

    Never deleted: its readings stay. `closed_at`: nothing is mounted there any more. What the office knows of the place has columns where
    something reckons with it, and stands in `details` (name → text) where not.

    Trees of one species, age, soil and sealing bear the name of their `tree_group`; `is_group_reference`: what is measured here stands for
    those of them that have no probes.
    """

    __tablename__ = "site"
    __table_args__ = (
        CheckConstraint("kind IN ('tree', 'water')", name="kind"),
        CheckConstraint("latitude BETWEEN -90 AND 90", name="latitude"),
        CheckConstraint("longitude BETWEEN -180 AND 180", name="longitude"),
        Index("ix_site_name_id", "name", "id"),
        Index("ix_site_latitude_longitude", "latitude", "longitude"),
        Index("ix_site_tree_group", "tree_group", "id"),
        Index(
            "uq_site_group_reference",
            "tree_group",
            unique=True,
            sqlite_where=text("is_group_reference"),
            postgresql_where=text("is_group_reference"),
        ),
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
    closed_at: Mapped[Moment | None]
    species: Mapped[str | None]  # of a tree: Tilia cordata
    tree_number: Mapped[str | None]  # in the city's cadastre
    planted_year: Mapped[int | None]
    area_m2: Mapped[float | None]  # of a water body
    depth_m: Mapped[float | None]  # where it is deepest
    lowest_level_m: Mapped[
        float | None
    ]  # below it there is too little water, as the level is measured there
    soil_class: Mapped[str | None]  # KA5's short name: Sl4
    unsealed_m2: Mapped[float | None]  # ground around a tree that rain gets through
    crown_m2: Mapped[float | None]  # ground below a tree's crown
    tree_group: Mapped[str | None]
    is_group_reference: Mapped[bool] = mapped_column(default=False)
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)

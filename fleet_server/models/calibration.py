"""Versioned, time-valid mapping converted value → published value for one property of one sensor, with its uncertainty."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class Calibration(Base):
    """value = offset + slope · x, in the published unit. Never changed: a better one is a new version.

    u² = u_absolute² + (u_relative · value)² + the parameters' own share (u_slope, u_offset and their covariance).
    """

    __tablename__ = "calibration"
    __table_args__ = (
        UniqueConstraint("sensor_id", "property", "version"),
        CheckConstraint("valid_to IS NULL OR valid_to > valid_from", name="order"),
        CheckConstraint("kind IN ('factory', 'linear')", name="kind"),
    )

    id: Mapped[Key]
    sensor_id: Mapped[int] = mapped_column(ForeignKey("sensor.id"))
    property: Mapped[str]
    version: Mapped[int]
    kind: Mapped[str]
    slope: Mapped[float]
    offset: Mapped[float]
    u_absolute: Mapped[float]
    u_relative: Mapped[float]
    u_slope: Mapped[float] = mapped_column(default=0.0)
    u_offset: Mapped[float] = mapped_column(default=0.0)
    slope_offset_covariance: Mapped[float] = mapped_column(default=0.0)
    coverage_factor: Mapped[float] = mapped_column(default=2.0)  # k; U = k·u
    valid_from: Mapped[Moment]
    valid_to: Mapped[Moment | None]
    performed_by: Mapped[str]
    reference: Mapped[str]  # against what: the data sheet, a standard with its certificate
    created_at: Mapped[Moment]

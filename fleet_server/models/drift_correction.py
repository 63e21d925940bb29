"""What a probe lost between two visits, to be put right in its values: a record of its own, with versions and an approval."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class CorrectionStatus(StrEnum):
    """Where a correction stands."""

    DRAFT = "draft"
    APPROVED = "approved"
    WITHDRAWN = "withdrawn"


_STATUSES = ", ".join(f"'{status}'" for status in CorrectionStatus)


class DriftCorrection(Base):
    """Of one property of one sensor, `from_at` (as left) ≤ sampled_at < `to_at` (as found); numbers as in `measurement.drift.Correction`.

    Once approved its numbers never change: a better one is a new version, and the newest that is approved holds. `rating` is what the record
    is worth with it ("excellent" … "unpublishable"). `from_import_id`: the import whose value the probe was compared with at `to_at`, if one was.
    """

    __tablename__ = "drift_correction"
    __table_args__ = (
        UniqueConstraint("sensor_id", "property", "version"),
        CheckConstraint("to_at > from_at", name="order"),
        CheckConstraint(f"status IN ({_STATUSES})", name="status"),
        CheckConstraint("(low_standard IS NULL) = (low_reading IS NULL)", name="low"),
        CheckConstraint("(high_standard IS NULL) = (high_reading IS NULL)", name="high"),
        Index("ix_drift_correction_status", "status", "id"),
    )

    id: Mapped[Key]
    sensor_id: Mapped[int] = mapped_column(ForeignKey("sensor.id"))
    property: Mapped[str]
    version: Mapped[int]
    status: Mapped[str] = mapped_column(default=CorrectionStatus.DRAFT)
    from_at: Mapped[Moment]
    to_at: Mapped[Moment]
    fouling: Mapped[float] = mapped_column(default=0.0)
    fouling_relative: Mapped[float] = mapped_column(default=0.0)
    low_standard: Mapped[float | None]
    low_reading: Mapped[float | None]
    high_standard: Mapped[float | None]
    high_reading: Mapped[float | None]
    rating: Mapped[str]
    note: Mapped[str] = mapped_column(default="")
    from_import_id: Mapped[int | None] = mapped_column(ForeignKey("external_import.id"))
    author: Mapped[str]
    approved_by: Mapped[str | None]
    approved_at: Mapped[Moment | None]
    withdrawn_by: Mapped[str | None]
    withdrawn_at: Mapped[Moment | None]
    withdrawn_reason: Mapped[str] = mapped_column(default="")
    created_at: Mapped[Moment]

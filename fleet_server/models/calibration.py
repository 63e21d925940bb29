"""Versioned, time-valid mapping converted value → published value for one property of one sensor, with its uncertainty."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class CalibrationStatus(StrEnum):
    """Where a calibration stands."""

    DRAFT = "draft"  # points may still come; it makes no observation
    APPROVED = "approved"
    SUPERSEDED = "superseded"  # approved, and a later one holds from a later time on
    WITHDRAWN = "withdrawn"  # a mistake, or a draft that came to nothing; it makes no observation


IN_FORCE = (CalibrationStatus.APPROVED, CalibrationStatus.SUPERSEDED)
"""Those that make observations within the time that they are valid for."""


class CalibrationKind(StrEnum):
    """How a calibration's numbers were found."""

    FACTORY = "factory"  # the maker's, from the data sheet
    LINEAR = "linear"  # a line through two or more points
    QUADRATIC = "quadratic"
    OFFSET = "offset"  # one point or more; the slope stays the maker's


def _one_of(names: type[StrEnum]) -> str:
    return ", ".join(f"'{name}'" for name in names)


_APPROVED = text("status = 'approved'")


class Calibration(Base):
    """value = offset + slope · x + curve · x², in the published unit. Once approved its numbers never change: a better one is a new version.

    u² = u_absolute² + (u_relative · value)² + the parameters' own share (their uncertainties and covariances), and, in proportion to the
    years since it was performed, u_drift_absolute² + (u_drift_relative · value)².

    `author` made the draft, `edited_by` changed it last. `fit`: what the fit said beside its numbers; null while there is none. `procedure`:
    the guided one whose steps the points are, empty when they were entered by hand. `certificate`: all that was approved, as it was then, and
    its hash; null for the maker's and for drafts.
    """

    __tablename__ = "calibration"
    __table_args__ = (
        UniqueConstraint("sensor_id", "property", "version"),
        CheckConstraint("valid_to IS NULL OR valid_to > valid_from", name="order"),
        CheckConstraint(f"kind IN ({_one_of(CalibrationKind)})", name="kind"),
        CheckConstraint("u_drift_absolute >= 0 AND u_drift_relative >= 0", name="u_drift"),
        CheckConstraint(f"status IN ({_one_of(CalibrationStatus)})", name="status"),
        Index(
            "uq_calibration_approved",
            "sensor_id",
            "property",
            "valid_from",
            unique=True,
            sqlite_where=_APPROVED,
            postgresql_where=_APPROVED,
        ),
        Index("ix_calibration_status", "status", "id"),
    )

    id: Mapped[Key]
    sensor_id: Mapped[int] = mapped_column(ForeignKey("sensor.id"))
    property: Mapped[str]
    version: Mapped[int]
    status: Mapped[str] = mapped_column(default=CalibrationStatus.DRAFT)
    kind: Mapped[str]
    slope: Mapped[float]
    offset: Mapped[float]
    curve: Mapped[float] = mapped_column(default=0.0)
    u_absolute: Mapped[float]
    u_relative: Mapped[float]
    u_drift_absolute: Mapped[float] = mapped_column(default=0.0)  # that a year adds
    u_drift_relative: Mapped[float] = mapped_column(default=0.0)
    drift_due_at: Mapped[
        Moment | None
    ]  # when what time adds becomes more than may stay; null: it does not grow
    u_slope: Mapped[float] = mapped_column(default=0.0)
    u_offset: Mapped[float] = mapped_column(default=0.0)
    u_curve: Mapped[float] = mapped_column(default=0.0)
    slope_offset_covariance: Mapped[float] = mapped_column(default=0.0)
    offset_curve_covariance: Mapped[float] = mapped_column(default=0.0)
    slope_curve_covariance: Mapped[float] = mapped_column(default=0.0)
    coverage_factor: Mapped[float] = mapped_column(default=2.0)  # k; U = k·u
    degrees_of_freedom: Mapped[int | None]
    fit: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    valid_from: Mapped[Moment]
    valid_to: Mapped[Moment | None]
    performed_by: Mapped[str]
    performed_at: Mapped[Moment | None]
    procedure: Mapped[str] = mapped_column(default="")
    reference: Mapped[str]  # against what: the data sheet, a standard with its certificate
    environment: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    previous_id: Mapped[int | None] = mapped_column(ForeignKey("calibration.id"))
    author: Mapped[str] = mapped_column(default="")
    edited_by: Mapped[str] = mapped_column(default="")
    approved_by: Mapped[str | None]
    approved_at: Mapped[Moment | None]
    withdrawn_by: Mapped[str | None]
    withdrawn_at: Mapped[Moment | None]
    withdrawn_reason: Mapped[str] = mapped_column(default="")
    certificate: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    certificate_sha256: Mapped[str | None]
    created_at: Mapped[Moment]


class PointStage(StrEnum):
    """What a point is for."""

    FIT = "fit"
    AS_FOUND = "as_found"  # before anything was cleaned or changed; what drift is reckoned from
    AS_LEFT = "as_left"  # afterwards, with the new numbers: a check


class CalibrationPoint(Base):
    """The probe in one standard: `indicated`, its converted reading, against `reference`, what the standard is worth then.

    `step` names the point within its stage: a step that is taken again replaces it. `steadiness`: how still the readings stood of which
    `indicated` is the mean; null when somebody typed it.
    """

    __tablename__ = "calibration_point"
    __table_args__ = (
        UniqueConstraint("calibration_id", "stage", "step"),
        CheckConstraint(f"stage IN ({_one_of(PointStage)})", name="stage"),
        CheckConstraint("u_reference > 0", name="u_reference"),
        CheckConstraint("u_indicated >= 0", name="u_indicated"),
        Index("ix_calibration_point_standard_id", "standard_id"),
    )

    id: Mapped[Key]
    calibration_id: Mapped[int] = mapped_column(ForeignKey("calibration.id"))
    stage: Mapped[str] = mapped_column(default=PointStage.FIT)
    step: Mapped[str]
    indicated: Mapped[float]
    u_indicated: Mapped[float] = mapped_column(default=0.0)
    reference: Mapped[float]
    u_reference: Mapped[float]
    standard_id: Mapped[int | None] = mapped_column(ForeignKey("standard.id"))
    temperature_c: Mapped[float | None]
    taken_at: Mapped[Moment]
    taken_by: Mapped[str]
    steadiness: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    note: Mapped[str] = mapped_column(default="")

"""What made a value: thousands of rows, not a copy per value."""

from __future__ import annotations

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key


class Lineage(Base):
    """Sensor, formula, calibration, the calibrations of the formula's further inputs, rules and software of a value.

    `inputs` is `temperature=17` (input = calibration id) or `temperature=17/3` (with correction 3), comma-separated, empty when there are
    none. `correction` is the id of the drift correction, empty when there is none. Texts are never null, so that the unique constraint holds on both databases.
    """

    __tablename__ = "lineage"
    __table_args__ = (
        UniqueConstraint(
            "calibration_id",
            "inputs",
            "correction",
            "rule_set",
            "pipeline_version",
            "coverage_factor",
            "sensor_id",
            "conversion",
        ),
    )

    id: Mapped[Key]
    sensor_id: Mapped[int] = mapped_column(ForeignKey("sensor.id"))
    calibration_id: Mapped[int] = mapped_column(ForeignKey("calibration.id"))
    inputs: Mapped[str]
    conversion: Mapped[str]
    correction: Mapped[str]
    rule_set: Mapped[str]
    pipeline_version: Mapped[str]
    coverage_factor: Mapped[float]  # k; U = k·u

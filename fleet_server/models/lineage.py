"""What made a value: thousands of rows, not a copy per value."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key


class Lineage(Base):
    """Sensor, formula, calibration, the calibrations of the formula's further inputs, rules and software of a value.

    `inputs` is `temperature=17` (input = calibration id) or `temperature=17/3` (with correction 3), comma-separated, empty when there are
    none. `correction` is the id of the drift correction, empty when there is none. Texts are never null, so that the unique constraint holds on both databases.

    Of a value that no node measured: `import_id` alone, with no sensor and no calibration, `pipeline_version` what read the file, and one lineage
    for each import (decision 0097).
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
        CheckConstraint(
            "(import_id IS NULL) = (sensor_id IS NOT NULL)"
            " AND (sensor_id IS NULL) = (calibration_id IS NULL)",
            name="origin",
        ),
        Index("uq_lineage_import_id", "import_id", unique=True),
    )

    id: Mapped[Key]
    sensor_id: Mapped[int | None] = mapped_column(ForeignKey("sensor.id"))
    calibration_id: Mapped[int | None] = mapped_column(ForeignKey("calibration.id"))
    import_id: Mapped[int | None] = mapped_column(ForeignKey("external_import.id"))
    inputs: Mapped[str]
    conversion: Mapped[str]
    correction: Mapped[str]
    rule_set: Mapped[str]
    pipeline_version: Mapped[str]
    coverage_factor: Mapped[float]  # k; U = k·u

"""Corrections of what probes lost between two visits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "drift_correction",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sensor_id", sa.Integer(), nullable=False),
        sa.Column("property", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("from_at", _MOMENT, nullable=False),
        sa.Column("to_at", _MOMENT, nullable=False),
        sa.Column("fouling", sa.Double(), nullable=False),
        sa.Column("fouling_relative", sa.Double(), nullable=False),
        sa.Column("low_standard", sa.Double(), nullable=True),
        sa.Column("low_reading", sa.Double(), nullable=True),
        sa.Column("high_standard", sa.Double(), nullable=True),
        sa.Column("high_reading", sa.Double(), nullable=True),
        sa.Column("rating", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("approved_by", sa.String(), nullable=True),
        sa.Column("approved_at", _MOMENT, nullable=True),
        sa.Column("withdrawn_by", sa.String(), nullable=True),
        sa.Column("withdrawn_at", _MOMENT, nullable=True),
        sa.Column("withdrawn_reason", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.CheckConstraint("to_at > from_at", name=op.f("ck_drift_correction_order")),
        sa.CheckConstraint(
            "status IN ('draft', 'approved', 'withdrawn')", name=op.f("ck_drift_correction_status")
        ),
        sa.CheckConstraint(
            "(low_standard IS NULL) = (low_reading IS NULL)", name=op.f("ck_drift_correction_low")
        ),
        sa.CheckConstraint(
            "(high_standard IS NULL) = (high_reading IS NULL)",
            name=op.f("ck_drift_correction_high"),
        ),
        sa.ForeignKeyConstraint(
            ["sensor_id"], ["sensor.id"], name=op.f("fk_drift_correction_sensor_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_correction")),
        sa.UniqueConstraint(
            "sensor_id",
            "property",
            "version",
            name=op.f("uq_drift_correction_sensor_id_property_version"),
        ),
    )
    op.create_index("ix_drift_correction_status", "drift_correction", ["status", "id"])


def downgrade() -> None:
    op.drop_table("drift_correction")

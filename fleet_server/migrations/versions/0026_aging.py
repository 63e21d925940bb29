"""A calibration may say how much uncertainty a year adds. What was there says nothing of it, so that every stored u stays what it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_COLUMNS = ("u_drift_absolute", "u_drift_relative")


def upgrade() -> None:
    with op.batch_alter_table("calibration") as table:
        for name in _COLUMNS:
            table.add_column(sa.Column(name, sa.Double(), nullable=False, server_default="0"))
        table.add_column(sa.Column("drift_due_at", _MOMENT, nullable=True))
    with op.batch_alter_table("calibration") as table:
        for name in _COLUMNS:
            table.alter_column(name, server_default=None)
        table.create_check_constraint(
            op.f("ck_calibration_u_drift"), "u_drift_absolute >= 0 AND u_drift_relative >= 0"
        )


def downgrade() -> None:
    """The earlier version does not know that u grows: it finds values of such calibrations to be others."""
    with op.batch_alter_table("calibration") as table:
        table.drop_constraint(op.f("ck_calibration_u_drift"), type_="check")
        for name in (*_COLUMNS, "drift_due_at"):
            table.drop_column(name)

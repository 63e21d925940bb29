"""Calibrations as records: drafts and their approval, points, standards. What was there is approved; the newest version of each is in force."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_KINDS = ("factory", "linear", "quadratic", "offset")
_STATUSES = ("draft", "approved", "superseded", "withdrawn")
_STAGES = ("fit", "as_found", "as_left")
_STANDARDS = ("solution", "fixed_point", "air_saturation", "instrument")
_OLD_KINDS = ("factory", "linear")
_NEW_COLUMNS = (
    "status",
    "curve",
    "u_curve",
    "offset_curve_covariance",
    "slope_curve_covariance",
    "degrees_of_freedom",
    "fit",
    "performed_at",
    "procedure",
    "environment",
    "previous_id",
    "author",
    "edited_by",
    "approved_by",
    "approved_at",
    "withdrawn_by",
    "withdrawn_at",
    "withdrawn_reason",
    "certificate",
    "certificate_sha256",
)


def _in(column: str, names: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(name) for name in names)})"


def upgrade() -> None:
    _make_standards()
    with op.batch_alter_table("calibration") as table:
        table.add_column(sa.Column("status", sa.String(), nullable=False, server_default="approved"))  # fmt: skip
        for name in (
            "curve",
            "u_curve",
            "offset_curve_covariance",
            "slope_curve_covariance",
        ):
            table.add_column(sa.Column(name, sa.Double(), nullable=False, server_default="0"))
        table.add_column(sa.Column("degrees_of_freedom", sa.Integer(), nullable=True))
        table.add_column(sa.Column("fit", sa.JSON(), nullable=True))
        table.add_column(sa.Column("performed_at", _MOMENT, nullable=True))
        table.add_column(sa.Column("environment", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("previous_id", sa.Integer(), nullable=True))
        for name in ("procedure", "author", "edited_by", "withdrawn_reason"):
            table.add_column(sa.Column(name, sa.String(), nullable=False, server_default=""))
        for name in ("approved_by", "withdrawn_by", "certificate_sha256"):
            table.add_column(sa.Column(name, sa.String(), nullable=True))
        for name in ("approved_at", "withdrawn_at"):
            table.add_column(sa.Column(name, _MOMENT, nullable=True))
        table.add_column(sa.Column("certificate", sa.JSON(), nullable=True))
    op.execute(
        "UPDATE calibration SET author = performed_by, edited_by = performed_by,"
        " approved_by = performed_by, approved_at = created_at"
    )
    op.execute(
        "UPDATE calibration SET status = 'superseded' WHERE EXISTS (SELECT 1 FROM calibration AS later"
        " WHERE later.sensor_id = calibration.sensor_id AND later.property = calibration.property"
        " AND later.version > calibration.version)"
    )
    with op.batch_alter_table("calibration") as table:
        for name in _NEW_COLUMNS:
            table.alter_column(name, server_default=None)
        table.drop_constraint(op.f("ck_calibration_kind"), type_="check")
        table.create_check_constraint(op.f("ck_calibration_kind"), _in("kind", _KINDS))
        table.create_check_constraint(op.f("ck_calibration_status"), _in("status", _STATUSES))
        table.create_foreign_key(
            op.f("fk_calibration_previous_id"), "calibration", ["previous_id"], ["id"]
        )
    approved = sa.text("status = 'approved'")
    op.create_index(
        "uq_calibration_approved",
        "calibration",
        ["sensor_id", "property", "valid_from"],
        unique=True,
        sqlite_where=approved,
        postgresql_where=approved,
    )
    op.create_index("ix_calibration_status", "calibration", ["status", "id"])
    _make_points()


def _make_standards() -> None:
    op.create_table(
        "standard",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("property", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("lot", sa.String(), nullable=False),
        sa.Column("certificate", sa.String(), nullable=False),
        sa.Column("points", sa.JSON(), nullable=False),
        sa.Column("u", sa.Double(), nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("discarded_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_standard")),
        sa.UniqueConstraint("name", "lot", name=op.f("uq_standard_name_lot")),
        sa.CheckConstraint(_in("kind", _STANDARDS), name=op.f("ck_standard_kind")),
        sa.CheckConstraint("u > 0", name=op.f("ck_standard_u")),
    )


def _make_points() -> None:
    op.create_table(
        "calibration_point",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("calibration_id", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("indicated", sa.Double(), nullable=False),
        sa.Column("u_indicated", sa.Double(), nullable=False),
        sa.Column("reference", sa.Double(), nullable=False),
        sa.Column("u_reference", sa.Double(), nullable=False),
        sa.Column("standard_id", sa.Integer(), nullable=True),
        sa.Column("temperature_c", sa.Double(), nullable=True),
        sa.Column("taken_at", _MOMENT, nullable=False),
        sa.Column("taken_by", sa.String(), nullable=False),
        sa.Column("steadiness", sa.JSON(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["calibration_id"],
            ["calibration.id"],
            name=op.f("fk_calibration_point_calibration_id"),
        ),
        sa.ForeignKeyConstraint(
            ["standard_id"], ["standard.id"], name=op.f("fk_calibration_point_standard_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibration_point")),
        sa.UniqueConstraint(
            "calibration_id",
            "stage",
            "step",
            name=op.f("uq_calibration_point_calibration_id_stage_step"),
        ),
        sa.CheckConstraint(_in("stage", _STAGES), name=op.f("ck_calibration_point_stage")),
        sa.CheckConstraint("u_reference > 0", name=op.f("ck_calibration_point_u_reference")),
        sa.CheckConstraint("u_indicated >= 0", name=op.f("ck_calibration_point_u_indicated")),
    )
    op.create_index("ix_calibration_point_standard_id", "calibration_point", ["standard_id"])


def downgrade() -> None:
    """Without drafts, which the earlier version would take for calibrations, and without points and standards."""
    op.drop_table("calibration_point")
    op.drop_table("standard")
    op.drop_index("ix_calibration_status", "calibration")
    op.drop_index("uq_calibration_approved", "calibration")
    op.execute("UPDATE calibration SET previous_id = NULL")
    op.execute("DELETE FROM calibration WHERE status IN ('draft', 'withdrawn')")
    op.execute("UPDATE calibration SET kind = 'linear' WHERE kind <> 'factory'")
    with op.batch_alter_table("calibration") as table:
        table.drop_constraint(op.f("fk_calibration_previous_id"), type_="foreignkey")
        for name in ("status", "kind"):
            table.drop_constraint(op.f(f"ck_calibration_{name}"), type_="check")
        table.create_check_constraint(op.f("ck_calibration_kind"), _in("kind", _OLD_KINDS))
        for name in _NEW_COLUMNS:
            table.drop_column(name)

"""Measurements that no node made, and lineages that name their import instead of a probe."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_KINDS = ("calibration", "correction", "rules", "software", "swap", "quality_control")
_ORIGIN = (
    "(import_id IS NULL) = (sensor_id IS NOT NULL)"
    " AND (sensor_id IS NULL) = (calibration_id IS NULL)"
)


def upgrade() -> None:
    _create_imports()
    _create_values()
    with op.batch_alter_table("lineage") as lineages:
        lineages.alter_column("sensor_id", existing_type=sa.Integer(), nullable=True)
        lineages.alter_column("calibration_id", existing_type=sa.Integer(), nullable=True)
        lineages.add_column(sa.Column("import_id", sa.Integer(), nullable=True))
        lineages.create_foreign_key(
            op.f("fk_lineage_import_id"), "external_import", ["import_id"], ["id"]
        )
        lineages.create_check_constraint(op.f("ck_lineage_origin"), _ORIGIN)
    op.create_index("uq_lineage_import_id", "lineage", ["import_id"], unique=True)
    with op.batch_alter_table("drift_correction") as corrections:
        corrections.add_column(sa.Column("from_import_id", sa.Integer(), nullable=True))
        corrections.create_foreign_key(
            op.f("fk_drift_correction_from_import_id"),
            "external_import",
            ["from_import_id"],
            ["id"],
        )
    _allow_kinds((*_KINDS, "import"))


def downgrade() -> None:
    """What was imported goes, with its versions: the version before knows nothing that came from no pack."""
    imported = "SELECT id FROM lineage WHERE import_id IS NOT NULL"
    external = "SELECT id FROM datastream WHERE level = 'external'"
    for table in ("observation", "observation_history"):
        op.execute(f"DELETE FROM {table} WHERE lineage_id IN ({imported})")  # noqa: S608 - our own words
    op.execute("DELETE FROM lineage WHERE import_id IS NOT NULL")
    op.execute("DELETE FROM external_value")
    for table in ("observation_count", "revision_stream"):
        op.execute(f"DELETE FROM {table} WHERE datastream_id IN ({external})")  # noqa: S608 - our own words
    op.execute("DELETE FROM datastream WHERE level = 'external'")
    op.execute("DELETE FROM revision WHERE kind = 'import'")
    _allow_kinds(_KINDS)
    with op.batch_alter_table("drift_correction") as corrections:
        corrections.drop_constraint(op.f("fk_drift_correction_from_import_id"), type_="foreignkey")
        corrections.drop_column("from_import_id")
    op.drop_index("uq_lineage_import_id", "lineage")
    with op.batch_alter_table("lineage") as lineages:
        lineages.drop_constraint(op.f("ck_lineage_origin"), type_="check")
        lineages.drop_constraint(op.f("fk_lineage_import_id"), type_="foreignkey")
        lineages.drop_column("import_id")
        lineages.alter_column("sensor_id", existing_type=sa.Integer(), nullable=False)
        lineages.alter_column("calibration_id", existing_type=sa.Integer(), nullable=False)
    op.drop_table("external_value")
    op.drop_table("external_import")


def _create_imports() -> None:
    op.create_table(
        "external_import",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("instrument", sa.String(), nullable=False),
        sa.Column("report_number", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("file_name", sa.String(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("content_sha256", sa.String(), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("reader_version", sa.String(), nullable=False),
        sa.Column("values_count", sa.Integer(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("imported_at", _MOMENT, nullable=False),
        sa.Column("withdrawn_by", sa.String(), nullable=True),
        sa.Column("withdrawn_at", _MOMENT, nullable=True),
        sa.Column("withdrawn_reason", sa.String(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('hand', 'laboratory', 'third_party')", name=op.f("ck_external_import_kind")
        ),
        sa.CheckConstraint(
            "(withdrawn_at IS NULL) = (withdrawn_by IS NULL)",
            name=op.f("ck_external_import_withdrawn"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_external_import")),
    )
    op.create_index("ix_external_import_content_sha256", "external_import", ["content_sha256"])


def _create_values() -> None:
    op.create_table(
        "external_value",
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sampled_at", _MOMENT, nullable=False),
        sa.Column("import_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("u", sa.REAL(), nullable=True),
        sa.Column("flag", sa.SmallInteger(), nullable=False),
        sa.Column("limit_sign", sa.String(), nullable=False),
        sa.Column("limit_value", sa.Double(), nullable=True),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("given", sa.String(), nullable=False),
        sa.Column("given_unit", sa.String(), nullable=False),
        sa.Column("sample", sa.String(), nullable=False),
        sa.CheckConstraint("flag IN (1, 2, 3, 4, 9)", name=op.f("ck_external_value_flag")),
        sa.CheckConstraint(
            "limit_sign IN ('', '<', '>')", name=op.f("ck_external_value_limit_sign")
        ),
        sa.CheckConstraint(
            "(limit_sign = '') = (limit_value IS NULL)", name=op.f("ck_external_value_limit_value")
        ),
        sa.CheckConstraint(
            "value IS NULL OR limit_value IS NULL", name=op.f("ck_external_value_value")
        ),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_external_value_datastream_id")
        ),
        sa.ForeignKeyConstraint(
            ["import_id"], ["external_import.id"], name=op.f("fk_external_value_import_id")
        ),
        sa.PrimaryKeyConstraint(
            "datastream_id", "sampled_at", "import_id", name=op.f("pk_external_value")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_external_value_import_id", "external_value", ["import_id", "row"])


def _allow_kinds(kinds: tuple[str, ...]) -> None:
    allowed = ", ".join(f"'{kind}'" for kind in kinds)
    with op.batch_alter_table("revision") as revisions:
        revisions.drop_constraint(op.f("ck_revision_kind"), type_="check")
        revisions.create_check_constraint(op.f("ck_revision_kind"), f"kind IN ({allowed})")

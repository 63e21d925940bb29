"""Means of hours and days, and values that follow from others."""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_KIND = "aggregates"
_LEVELS = "level IN ('hourly', 'daily', 'derived')"
_LEVELS_BEFORE = "level IN ('calibrated', 'hourly', 'daily', 'forecast', 'external')"
_LEVELS_NOW = "level IN ('calibrated', 'derived', 'hourly', 'daily', 'forecast', 'external')"


def upgrade() -> None:
    with op.batch_alter_table("datastream") as datastreams:
        datastreams.add_column(sa.Column("source_id", sa.Integer(), nullable=True))
        datastreams.create_foreign_key(
            op.f("fk_datastream_source_id"), "datastream", ["source_id"], ["id"]
        )
        datastreams.drop_constraint(op.f("ck_datastream_level"), type_="check")
        datastreams.create_check_constraint(op.f("ck_datastream_level"), _LEVELS_NOW)
    op.create_index(op.f("ix_datastream_source_id"), "datastream", ["source_id"])
    op.create_table(
        "aggregated_stream",
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("made_to", _MOMENT, nullable=True),
        sa.Column("due_to", _MOMENT, nullable=False),
        sa.Column("dirty_from", _MOMENT, nullable=True),
        sa.Column("dirty_to", _MOMENT, nullable=True),
        sa.Column("known_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "(dirty_from IS NULL) = (dirty_to IS NULL)", name=op.f("ck_aggregated_stream_dirty")
        ),
        sa.CheckConstraint("dirty_to >= dirty_from", name=op.f("ck_aggregated_stream_order")),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_aggregated_stream_datastream_id")
        ),
        sa.PrimaryKeyConstraint("datastream_id", name=op.f("pk_aggregated_stream")),
    )
    op.create_table(
        "aggregate_detail",
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sampled_at", _MOMENT, nullable=False),
        sa.Column("known_from", _MOMENT, nullable=False),
        sa.Column("minimum", sa.Double(), nullable=True),
        sa.Column("maximum", sa.Double(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("completeness", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "completeness BETWEEN 0 AND 1", name=op.f("ck_aggregate_detail_completeness")
        ),
        sa.CheckConstraint('"count" >= 0', name=op.f("ck_aggregate_detail_count")),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_aggregate_detail_datastream_id")
        ),
        sa.PrimaryKeyConstraint(
            "datastream_id", "sampled_at", "known_from", name=op.f("pk_aggregate_detail")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "derived_stream",
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("formula", sa.String(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.Column("stated", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_derived_stream_datastream_id")
        ),
        sa.PrimaryKeyConstraint("datastream_id", name=op.f("pk_derived_stream")),
    )
    _allow_kinds([*_kinds(), _KIND])


def downgrade() -> None:
    """Means and what was derived go: they can be made again. Their versions go with the revisions that replaced them."""
    of_means = f"datastream_id IN (SELECT id FROM datastream WHERE {_LEVELS})"  # noqa: S608 - our own words
    for table in ("observation", "observation_history", "observation_count", "revision_stream"):
        op.execute(f"DELETE FROM {table} WHERE {of_means}")  # noqa: S608 - our own words
    op.execute(f"DELETE FROM revision WHERE kind = '{_KIND}'")  # noqa: S608 - our own words
    _allow_kinds([kind for kind in _kinds() if kind != _KIND])
    op.drop_table("derived_stream")
    op.drop_table("aggregate_detail")
    op.drop_table("aggregated_stream")
    op.drop_index(op.f("ix_datastream_source_id"), "datastream")
    with op.batch_alter_table("datastream") as datastreams:
        datastreams.drop_constraint(op.f("fk_datastream_source_id"), type_="foreignkey")
        datastreams.drop_column("source_id")
    op.execute(f"DELETE FROM datastream WHERE {_LEVELS}")  # noqa: S608 - our own words
    with op.batch_alter_table("datastream") as datastreams:
        datastreams.drop_constraint(op.f("ck_datastream_level"), type_="check")
        datastreams.create_check_constraint(op.f("ck_datastream_level"), _LEVELS_BEFORE)


def _kinds() -> list[str]:
    """Those that the table knows now: other migrations add theirs."""
    for check in sa.inspect(op.get_bind()).get_check_constraints("revision"):
        if check["name"] == "ck_revision_kind":
            return re.findall(r"'([a-z_]+)'", check["sqltext"])
    raise LookupError("revision has no check of its kinds")


def _allow_kinds(kinds: list[str]) -> None:
    is_open = sa.text("state <> 'done'")
    # A table that SQLite makes anew would have a whole index in the place of one for a part.
    op.drop_index("ix_revision_open", "revision")
    allowed = ", ".join(f"'{kind}'" for kind in kinds)
    with op.batch_alter_table("revision") as changed:
        changed.drop_constraint(op.f("ck_revision_kind"), type_="check")
        changed.create_check_constraint(op.f("ck_revision_kind"), f"kind IN ({allowed})")
    op.create_index(
        "ix_revision_open", "revision", ["id"], sqlite_where=is_open, postgresql_where=is_open
    )

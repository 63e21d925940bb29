"""Revisions of observations, and the versions that they replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_KINDS = "kind IN ('calibration', 'correction', 'rules', 'software', 'swap', 'quality_control')"
_OPEN = sa.text("state <> 'done'")
_NOT_SWITCHED = sa.text("switched_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("approver", sa.String(), nullable=True),
        sa.Column("from_at", _MOMENT, nullable=True),
        sa.Column("to_at", _MOMENT, nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("ordered_at", _MOMENT, nullable=False),
        sa.Column("known_at", _MOMENT, nullable=True),
        sa.Column("backup", sa.String(), nullable=True),
        sa.Column("fault", sa.String(), nullable=True),
        sa.CheckConstraint(_KINDS, name=op.f("ck_revision_kind")),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'done')", name=op.f("ck_revision_state")
        ),
        sa.CheckConstraint(
            "from_at IS NULL OR to_at IS NULL OR to_at > from_at", name=op.f("ck_revision_order")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revision")),
    )
    op.create_index(
        "ix_revision_open", "revision", ["id"], sqlite_where=_OPEN, postgresql_where=_OPEN
    )
    op.create_table(
        "revision_stream",
        sa.Column("revision_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("switched_at", _MOMENT, nullable=True),
        sa.Column("compared", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Integer(), nullable=False),
        sa.Column("largest_change", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revision.id"], name=op.f("fk_revision_stream_revision_id")
        ),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_revision_stream_datastream_id")
        ),
        sa.PrimaryKeyConstraint("revision_id", "datastream_id", name=op.f("pk_revision_stream")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_revision_stream_open",
        "revision_stream",
        ["datastream_id"],
        sqlite_where=_NOT_SWITCHED,
        postgresql_where=_NOT_SWITCHED,
    )
    op.create_table(
        "observation_history",
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sampled_at", _MOMENT, nullable=False),
        sa.Column("known_from", _MOMENT, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("u", sa.REAL(), nullable=True),
        sa.Column("flag", sa.SmallInteger(), nullable=False),
        sa.Column("tests", sa.Integer(), nullable=False),
        sa.Column("lineage_id", sa.Integer(), nullable=False),
        sa.Column("pack_id", sa.BigInteger(), nullable=True),
        sa.Column("known_to", _MOMENT, nullable=False),
        sa.Column("revision_id", sa.Integer(), nullable=False),
        sa.CheckConstraint("flag IN (1, 2, 3, 4, 9)", name=op.f("ck_observation_history_flag")),
        sa.CheckConstraint("known_to > known_from", name=op.f("ck_observation_history_order")),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_observation_history_datastream_id")
        ),
        sa.ForeignKeyConstraint(
            ["lineage_id"], ["lineage.id"], name=op.f("fk_observation_history_lineage_id")
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revision.id"], name=op.f("fk_observation_history_revision_id")
        ),
        sa.PrimaryKeyConstraint(
            "datastream_id", "sampled_at", "known_from", name=op.f("pk_observation_history")
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("observation_history")
    op.drop_table("revision_stream")
    op.drop_table("revision")

"""Thinned packs: what nodes with a full spool kept of the packs that they gave up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("node_status", sa.Column("thinned", sa.BigInteger(), nullable=True))
    op.add_column("node_status", sa.Column("lost", sa.BigInteger(), nullable=True))
    op.create_table(
        "thinned_pack",
        sa.Column("pack_id", _BIG_KEY, autoincrement=False, nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("spool", sa.BigInteger(), nullable=False),
        sa.Column("from_seq", sa.BigInteger(), nullable=False),
        sa.Column("to_seq", sa.BigInteger(), nullable=False),
        sa.Column("packs", sa.BigInteger(), nullable=False),
        sa.Column("until_power_up", sa.BigInteger(), nullable=False),
        sa.Column("until_uptime_ms", sa.BigInteger(), nullable=False),
        sa.Column("from_at", _MOMENT, nullable=True),
        sa.Column("to_at", _MOMENT, nullable=True),
        sa.CheckConstraint("to_seq >= from_seq", name=op.f("ck_thinned_pack_order")),
        sa.ForeignKeyConstraint(["pack_id"], ["pack.id"], name=op.f("fk_thinned_pack_pack_id")),
        sa.ForeignKeyConstraint(
            ["node_id"], ["node.node_id"], name=op.f("fk_thinned_pack_node_id")
        ),
        sa.PrimaryKeyConstraint("pack_id", name=op.f("pk_thinned_pack")),
    )
    op.create_index(
        "ix_thinned_pack_node_id_spool_from_seq", "thinned_pack", ["node_id", "spool", "from_seq"]
    )
    op.create_table(
        "thinned_reading",
        sa.Column("pack_id", _BIG_KEY, autoincrement=False, nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("lowest", sa.Double(), nullable=True),
        sa.Column("highest", sa.Double(), nullable=True),
        sa.Column("status", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(lowest IS NULL) = (highest IS NULL) AND (lowest IS NULL) = (status IS NOT NULL)",
            name=op.f("ck_thinned_reading_values_or_status"),
        ),
        sa.ForeignKeyConstraint(["pack_id"], ["pack.id"], name=op.f("fk_thinned_reading_pack_id")),
        sa.PrimaryKeyConstraint("pack_id", "channel", name=op.f("pk_thinned_reading")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "observed_range",
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("from_at", _MOMENT, nullable=False),
        sa.Column("to_at", _MOMENT, nullable=False),
        sa.Column("lowest", sa.Double(), nullable=True),
        sa.Column("u_lowest", sa.REAL(), nullable=True),
        sa.Column("highest", sa.Double(), nullable=True),
        sa.Column("u_highest", sa.REAL(), nullable=True),
        sa.Column("flag", sa.SmallInteger(), nullable=False),
        sa.Column("packs", sa.BigInteger(), nullable=False),
        sa.Column("lineage_id", sa.Integer(), nullable=False),
        sa.Column("known_from", _MOMENT, nullable=False),
        sa.Column("pack_id", _BIG_KEY, nullable=False),
        sa.CheckConstraint("flag IN (1, 2, 3, 4, 9)", name=op.f("ck_observed_range_flag")),
        sa.CheckConstraint("to_at >= from_at", name=op.f("ck_observed_range_order")),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_observed_range_datastream_id")
        ),
        sa.ForeignKeyConstraint(
            ["lineage_id"], ["lineage.id"], name=op.f("fk_observed_range_lineage_id")
        ),
        sa.ForeignKeyConstraint(["pack_id"], ["pack.id"], name=op.f("fk_observed_range_pack_id")),
        sa.PrimaryKeyConstraint("datastream_id", "from_at", name=op.f("pk_observed_range")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("observed_range")
    op.drop_table("thinned_reading")
    op.drop_index("ix_thinned_pack_node_id_spool_from_seq", "thinned_pack")
    op.drop_table("thinned_pack")
    op.drop_column("node_status", "lost")
    op.drop_column("node_status", "thinned")

"""Limits of quality tests, how far each datastream is judged by them, and what persons said."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "rule_set",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("property", sa.String(), nullable=False),
        sa.Column("datastream_id", sa.Integer(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_rule_set_version")),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_rule_set_datastream_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rule_set")),
        sa.UniqueConstraint(
            "property",
            "datastream_id",
            "version",
            name=op.f("uq_rule_set_property_datastream_id_version"),
        ),
    )
    op.create_table(
        "judged_stream",
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("judged_to", _MOMENT, nullable=True),
        sa.Column("reached", _MOMENT, nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_judged_stream_datastream_id")
        ),
        sa.PrimaryKeyConstraint("datastream_id", name=op.f("pk_judged_stream")),
    )
    op.create_table(
        "person_flag",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("datastream_id", sa.Integer(), nullable=False),
        sa.Column("from_at", _MOMENT, nullable=False),
        sa.Column("to_at", _MOMENT, nullable=False),
        sa.Column("flag", sa.SmallInteger(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.CheckConstraint("flag IN (1, 3, 4)", name=op.f("ck_person_flag_flag")),
        sa.CheckConstraint("to_at > from_at", name=op.f("ck_person_flag_order")),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_person_flag_datastream_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person_flag")),
    )
    op.create_index("ix_person_flag_datastream_id", "person_flag", ["datastream_id", "id"])


def downgrade() -> None:
    op.drop_table("person_flag")
    op.drop_table("judged_stream")
    op.drop_table("rule_set")

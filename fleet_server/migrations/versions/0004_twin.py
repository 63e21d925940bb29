"""What nodes are told and how they stand to it: commands with their answers, the state of a configuration."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("node_status", sa.Column("config_state", sa.String(), nullable=True))
    op.add_column("node_status", sa.Column("config_reason", sa.String(), nullable=True))
    op.create_table(
        "command",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("arguments", sa.JSON(), nullable=False),
        sa.Column("ordered_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=True),
        sa.Column("answered_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_command_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_command")),
    )
    op.create_index("ix_command_node_id_ordered_at", "command", ["node_id", "ordered_at"])


def downgrade() -> None:
    op.drop_table("command")
    op.drop_column("node_status", "config_reason")
    op.drop_column("node_status", "config_state")

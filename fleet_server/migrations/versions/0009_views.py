"""Views of the list of nodes that people keep; how many packs of each node are stored, kept beside them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "saved_view",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("query", sa.String(), nullable=False),
        sa.Column("is_shared", sa.Boolean(), nullable=False),
        sa.Column("saved_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_view")),
        sa.UniqueConstraint("owner", "name", name=op.f("uq_saved_view_owner_name")),
    )
    op.execute(
        "INSERT INTO counter (name, node_id, count)"
        " SELECT 'packs_stored', node_id, count(*) FROM pack GROUP BY node_id"
    )


def downgrade() -> None:
    op.execute("DELETE FROM counter WHERE name = 'packs_stored'")
    op.drop_table("saved_view")

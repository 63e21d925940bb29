"""What another revision made of a revision's values while it waited; what holds one up, with its parts apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("revision", sa.Column("fault_parts", sa.JSON(), nullable=True))
    op.create_table(
        "revision_made_earlier",
        sa.Column("revision_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("by_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.CheckConstraint("changed > 0", name=op.f("ck_revision_made_earlier_changed")),
        sa.ForeignKeyConstraint(
            ["revision_id", "datastream_id"],
            ["revision_stream.revision_id", "revision_stream.datastream_id"],
            name=op.f("fk_revision_made_earlier_revision_id_datastream_id"),
        ),
        sa.ForeignKeyConstraint(
            ["by_id"], ["revision.id"], name=op.f("fk_revision_made_earlier_by_id")
        ),
        sa.PrimaryKeyConstraint(
            "revision_id", "datastream_id", "by_id", name=op.f("pk_revision_made_earlier")
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("revision_made_earlier")
    op.drop_column("revision", "fault_parts")

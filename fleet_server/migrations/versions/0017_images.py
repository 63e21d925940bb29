"""Releases that bring a whole MicroPython, campaigns that move it, and which one a node says that it runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_COLUMNS: tuple[tuple[str, str, type[sa.String] | type[sa.Integer]], ...] = (
    ("release", "image_sha256", sa.String),
    ("release", "image_bytes", sa.Integer),
    ("release", "image_micropython", sa.String),
    ("campaign", "image_sha256", sa.String),
    ("campaign", "micropython", sa.String),
    ("node_status", "micropython", sa.String),
    ("node_status", "image_sha256", sa.String),
)


def upgrade() -> None:
    for table, column, kind in _COLUMNS:
        op.add_column(table, sa.Column(column, kind(), nullable=True))


def downgrade() -> None:
    for table, column, _ in reversed(_COLUMNS):
        op.drop_column(table, column)

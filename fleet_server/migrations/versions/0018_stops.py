"""Why a campaign stopped is kept by code and parts, so that every reader is told in their language."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("campaign", sa.Column("stop", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("campaign", "stop")

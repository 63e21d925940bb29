"""Tests that were not made before (neighbours, a probe's own signs): all values are judged again."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    due_at = int(_BEGINNING.timestamp()) if is_sqlite else _BEGINNING
    judged = sa.table("judged_stream", sa.column("judged_to"), sa.column("due_at"))
    op.execute(judged.update().values(judged_to=sa.null(), due_at=sa.literal(due_at)))


def downgrade() -> None:
    """What is judged stays judged; the older software judges it again by itself."""
    upgrade()

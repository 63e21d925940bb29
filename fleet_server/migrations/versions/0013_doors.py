"""People of another place's login, where a person's mail goes, keys that wait for a word after a restore, resets in the queue of messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_OCCASIONS_BEFORE = "occasion IN ('opened', 'escalated', 'closed', 'test')"
_OCCASIONS = "occasion IN ('opened', 'escalated', 'closed', 'test', 'reset')"
_WAITING = sa.text("delivered_at IS NULL AND dead_at IS NULL")


def upgrade() -> None:
    op.add_column("user_account", sa.Column("mail", sa.String(), nullable=True))
    op.add_column("api_key", sa.Column("held_at", _MOMENT, nullable=True))
    op.create_table(
        "external_identity",
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("linked_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user_account.id"], name=op.f("fk_external_identity_user_id")
        ),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_external_identity")),
        sa.UniqueConstraint("user_id", "issuer", name=op.f("uq_external_identity_user_id_issuer")),
    )
    _change_delivery(_OCCASIONS, may_lack_recipient=True)


def downgrade() -> None:
    op.execute("DELETE FROM delivery WHERE recipient_id IS NULL")
    _change_delivery(_OCCASIONS_BEFORE, may_lack_recipient=False)
    op.drop_table("external_identity")
    op.drop_column("api_key", "held_at")
    op.drop_column("user_account", "mail")


def _change_delivery(occasions: str, *, may_lack_recipient: bool) -> None:
    op.drop_index("ix_delivery_due", "delivery")
    with op.batch_alter_table("delivery") as deliveries:
        deliveries.drop_constraint(op.f("ck_delivery_occasion"), type_="check")
        deliveries.alter_column(
            "recipient_id", existing_type=sa.Integer(), nullable=may_lack_recipient
        )
        deliveries.create_check_constraint(op.f("ck_delivery_occasion"), occasions)
    op.create_index(
        "ix_delivery_due", "delivery", ["due_at"], sqlite_where=_WAITING, postgresql_where=_WAITING
    )

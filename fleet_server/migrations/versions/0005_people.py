"""What people may do, and what was done: roles, scopes, the audit log. Accounts that exist keep all they could: administrators."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_ROLES = (
    "technician",
    "operator",
    "release_author",
    "release_approver",
    "trees_office",
    "waters_office",
    "data_steward",
    "auditor",
    "administrator",
)
_FIRST_SHA256 = "0" * 64


def upgrade() -> None:
    roles = op.create_table(
        "user_role",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.CheckConstraint(
            "role IN ({})".format(", ".join(f"'{role}'" for role in _ROLES)),
            name=op.f("ck_user_role_role"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["user_account.id"], name=op.f("fk_user_role_user_id")
        ),
        sa.PrimaryKeyConstraint("user_id", "role", name=op.f("pk_user_role")),
    )
    with op.batch_alter_table("user_account") as accounts:
        accounts.add_column(sa.Column("scope", sa.String(), server_default="all", nullable=False))
        accounts.create_check_constraint(
            op.f("ck_user_account_scope"), "scope IN ('trees', 'waters', 'all')"
        )
    account = sa.table("user_account", sa.column("id"))
    op.execute(
        roles.insert().from_select(
            ["user_id", "role"], sa.select(account.c.id, sa.literal("administrator"))
        )
    )
    op.create_table(
        "audit_entry",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("previous_sha256", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_entry")),
        sa.UniqueConstraint("sha256", name=op.f("uq_audit_entry_sha256")),
    )
    op.create_index("ix_audit_entry_subject", "audit_entry", ["subject", "seq"])
    op.create_index("ix_audit_entry_actor", "audit_entry", ["actor", "seq"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.execute(head.insert().values(id=1, seq=0, sha256=_FIRST_SHA256))


def downgrade() -> None:
    op.drop_table("audit_head")
    op.drop_table("audit_entry")
    with op.batch_alter_table("user_account") as accounts:
        accounts.drop_constraint(op.f("ck_user_account_scope"), type_="check")
        accounts.drop_column("scope")
    op.drop_table("user_role")

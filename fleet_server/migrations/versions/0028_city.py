"""What the city decides by, what it decided, and what that needs to know of a site."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_STATES = "'good', 'moderate', 'critical', 'unknown', 'watch', 'warning', 'alarm', 'emergency'"
_OPEN = sa.text("to_at IS NULL")
_REFERENCE = sa.text("is_group_reference")
_SIZES = ("lowest_level_m", "unsealed_m2", "crown_m2")
_WORDS = ("soil_class", "tree_group")


def upgrade() -> None:
    for name in _SIZES:
        op.add_column("site", sa.Column(name, sa.Double(), nullable=True))
    for name in _WORDS:
        op.add_column("site", sa.Column(name, sa.String(), nullable=True))
    is_reference: sa.Column[bool] = sa.Column(
        "is_group_reference", sa.Boolean(), nullable=False, server_default=sa.false()
    )
    op.add_column("site", is_reference)
    op.create_index("ix_site_tree_group", "site", ["tree_group", "id"])
    op.create_index(
        "uq_site_group_reference",
        "site",
        ["tree_group"],
        unique=True,
        sqlite_where=_REFERENCE,
        postgresql_where=_REFERENCE,
    )
    _make_rules()
    _make_states()


def _make_rules() -> None:
    op.create_table(
        "city_rule_set",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("site_id", sa.Integer(), nullable=True),
        sa.Column("tree_group", sa.String(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.CheckConstraint("version > 0", name=op.f("ck_city_rule_set_version")),
        sa.CheckConstraint(
            "site_id IS NULL OR tree_group IS NULL", name=op.f("ck_city_rule_set_one_scope")
        ),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_city_rule_set_site_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_city_rule_set")),
        sa.UniqueConstraint(
            "kind",
            "site_id",
            "tree_group",
            "version",
            name=op.f("uq_city_rule_set_kind_site_id_tree_group_version"),
        ),
    )


def _make_states() -> None:
    op.create_table(
        "city_state",
        sa.Column("id", _BIG_KEY, nullable=False),
        sa.Column("site_id", sa.Integer(), nullable=False),
        sa.Column("from_at", _MOMENT, nullable=False),
        sa.Column("to_at", _MOMENT, nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("at_worst", sa.String(), nullable=False),
        sa.Column("is_inferred", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("memory", sa.JSON(), nullable=False),
        sa.Column("rule_set_id", sa.Integer(), nullable=True),
        sa.Column("evaluated_at", _MOMENT, nullable=False),
        sa.CheckConstraint(f"state IN ({_STATES})", name=op.f("ck_city_state_state")),
        sa.CheckConstraint("to_at IS NULL OR to_at >= from_at", name=op.f("ck_city_state_order")),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_city_state_site_id")),
        sa.ForeignKeyConstraint(
            ["rule_set_id"], ["city_rule_set.id"], name=op.f("fk_city_state_rule_set_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_city_state")),
    )
    op.create_index(
        "uq_city_state_open",
        "city_state",
        ["site_id"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_index("ix_city_state_site_id", "city_state", ["site_id", "from_at"])


def downgrade() -> None:
    op.drop_table("city_state")
    op.drop_table("city_rule_set")
    op.drop_index("uq_site_group_reference", "site")
    op.drop_index("ix_site_tree_group", "site")
    for name in (*_SIZES, *_WORDS, "is_group_reference"):
        op.drop_column("site", name)

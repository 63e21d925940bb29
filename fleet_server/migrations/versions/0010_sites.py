"""What the offices know of their sites, work orders, and what is noted in the field. Sites that exist stay open."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_KINDS = ("mount", "calibrate", "battery", "clean", "look", "retrieve", "other")
_STATES = ("open", "begun", "done", "cancelled")
_UNFINISHED = sa.text("state IN ('open', 'begun')")
_OF_SITES: tuple[tuple[str, sa.types.TypeEngine[Any]], ...] = (
    ("closed_at", _MOMENT),
    ("species", sa.String()),
    ("tree_number", sa.String()),
    ("planted_year", sa.Integer()),
    ("area_m2", sa.Double()),
    ("depth_m", sa.Double()),
)


def upgrade() -> None:
    for name, kind in _OF_SITES:
        op.add_column("site", sa.Column(name, kind, nullable=True))
    op.add_column("site", sa.Column("details", sa.JSON(), server_default="{}", nullable=False))
    op.create_index("ix_site_name_id", "site", ["name", "id"])
    op.create_index("ix_site_latitude_longitude", "site", ["latitude", "longitude"])
    _make_work_orders()
    _make_field_notes()


def downgrade() -> None:
    op.drop_table("field_note")
    op.drop_table("work_order")
    op.drop_index("ix_site_latitude_longitude", "site")
    op.drop_index("ix_site_name_id", "site")
    for name in ("details", *(name for name, _ in reversed(_OF_SITES))):
        op.drop_column("site", name)


def _make_work_orders() -> None:
    op.create_table(
        "work_order",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("summary", sa.String(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=True),
        sa.Column("site_id", sa.Integer(), nullable=True),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column("assigned_to", sa.Integer(), nullable=True),
        sa.Column("assigned_role", sa.String(), nullable=True),
        sa.Column("cause", sa.String(), nullable=True),
        sa.Column("ordered_at", _MOMENT, nullable=False),
        sa.Column("ordered_by", sa.String(), nullable=False),
        sa.Column("begun_at", _MOMENT, nullable=True),
        sa.Column("begun_by", sa.String(), nullable=True),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.Column("ended_by", sa.String(), nullable=True),
        sa.CheckConstraint(_one_of("kind", _KINDS), name=op.f("ck_work_order_kind")),
        sa.CheckConstraint(_one_of("state", _STATES), name=op.f("ck_work_order_state")),
        sa.CheckConstraint(
            "node_id IS NOT NULL OR site_id IS NOT NULL", name=op.f("ck_work_order_place")
        ),
        sa.CheckConstraint(
            "(state IN ('done', 'cancelled')) = (ended_at IS NOT NULL)",
            name=op.f("ck_work_order_ended"),
        ),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_work_order_node_id")),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_work_order_site_id")),
        sa.ForeignKeyConstraint(
            ["assigned_to"], ["user_account.id"], name=op.f("fk_work_order_assigned_to")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work_order")),
    )
    op.create_index(
        "uq_work_order_cause",
        "work_order",
        ["cause"],
        unique=True,
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    )
    op.create_index("ix_work_order_state_due_at", "work_order", ["state", "due_at", "id"])
    op.create_index("ix_work_order_node_id", "work_order", ["node_id"])
    op.create_index("ix_work_order_site_id", "work_order", ["site_id"])


def _make_field_notes() -> None:
    op.create_table(
        "field_note",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=True),
        sa.Column("site_id", sa.Integer(), nullable=True),
        sa.Column("work_order_id", sa.Integer(), nullable=True),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("photo_sha256", sa.String(), nullable=True),
        sa.Column("photo_width_px", sa.Integer(), nullable=True),
        sa.Column("photo_height_px", sa.Integer(), nullable=True),
        sa.Column("written_at", _MOMENT, nullable=False),
        sa.Column("written_by", sa.String(), nullable=False),
        sa.CheckConstraint(
            "text <> '' OR photo_sha256 IS NOT NULL", name=op.f("ck_field_note_something")
        ),
        sa.CheckConstraint(
            "node_id IS NOT NULL OR site_id IS NOT NULL OR work_order_id IS NOT NULL",
            name=op.f("ck_field_note_place"),
        ),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_field_note_node_id")),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_field_note_site_id")),
        sa.ForeignKeyConstraint(
            ["work_order_id"], ["work_order.id"], name=op.f("fk_field_note_work_order_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_field_note")),
    )
    for column in ("node_id", "site_id", "work_order_id"):
        op.create_index(f"ix_field_note_{column}", "field_note", [column, "id"])


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return "{} IN ({})".format(column, ", ".join(f"'{value}'" for value in values))

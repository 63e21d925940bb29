"""Campaigns with their waves and nodes; what a node says of the update that brought its version."""

from __future__ import annotations

import re
from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_ALERT = "campaign"
_STATES = (
    "draft",
    "awaiting_approval",
    "scheduled",
    "running",
    "soaking",
    "paused",
    "completed",
    "aborted",
    "expired",
)
_STAGES = (
    "planned",
    "offered",
    "accepted",
    "downloading",
    "verified",
    "installing",
    "rebooting",
    "testing",
    "succeeded",
    "rejected",
    "failed",
    "rolled_back",
    "timed_out",
    "canceled",
    "superseded",
    "already_installed",
    "unreachable",
)


def upgrade() -> None:
    _allow_kinds(lambda kinds: [*kinds, _ALERT])
    for name, kind in (
        ("counter", sa.BigInteger()),
        ("assignment", sa.BigInteger()),
        ("attempt", sa.BigInteger()),
        ("clock_at", _MOMENT),
    ):
        op.add_column("node_status", sa.Column(name, kind, nullable=True))
    op.create_index("ix_event_name", "event", ["name", "pack_id"])
    _make_campaigns()
    _make_nodes()
    op.create_table(
        "campaign_cursor",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pack_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign_cursor")),
    )
    op.execute("INSERT INTO campaign_cursor (id, pack_id) VALUES (1, 0)")


def _make_campaigns() -> None:
    op.create_table(
        "campaign",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("bundle_sha256", sa.String(), nullable=False),
        sa.Column("selection", sa.JSON(), nullable=False),
        sa.Column("is_dynamic", sa.Boolean(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("approved_by", sa.String(), nullable=True),
        sa.Column("approved_at", _MOMENT, nullable=True),
        sa.Column("starts_at", _MOMENT, nullable=True),
        sa.Column("ends_at", _MOMENT, nullable=True),
        sa.Column("hours_from_min", sa.Integer(), nullable=True),
        sa.Column("hours_until_min", sa.Integer(), nullable=True),
        sa.Column("bytes_per_s", sa.Integer(), nullable=True),
        sa.Column("bytes_per_node", sa.Integer(), nullable=False),
        sa.Column("jitter_s", sa.Integer(), nullable=False),
        sa.Column("at_once", sa.Integer(), nullable=False),
        sa.Column("time_outs_s", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("paused_by", sa.String(), nullable=True),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("soaks_since", _MOMENT, nullable=True),
        sa.Column("free_at", _MOMENT, nullable=True),
        sa.Column("finished_at", _MOMENT, nullable=True),
        sa.CheckConstraint(f"state IN ({_listed(_STATES)})", name=op.f("ck_campaign_state")),
        sa.ForeignKeyConstraint(
            ["release_id"], ["release.id"], name=op.f("fk_campaign_release_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaign")),
    )
    op.create_index("ix_campaign_state", "campaign", ["state", "id"])
    op.create_table(
        "campaign_wave",
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("gate_share", sa.Double(), nullable=False),
        sa.Column("minimum_reached", sa.Integer(), nullable=False),
        sa.Column("soak_s", sa.Integer(), nullable=False),
        sa.Column("pause_share", sa.Double(), nullable=False),
        sa.Column("pauses_at_roll_back", sa.Boolean(), nullable=False),
        sa.Column("opened_at", _MOMENT, nullable=True),
        sa.Column("failures_accepted", sa.Integer(), nullable=False),
        sa.Column("is_waived", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaign.id"], name=op.f("fk_campaign_wave_campaign_id")
        ),
        sa.PrimaryKeyConstraint("campaign_id", "number", name=op.f("pk_campaign_wave")),
    )


def _make_nodes() -> None:
    op.create_table(
        "campaign_node",
        sa.Column("campaign_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("assignment", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("deadline_at", _MOMENT, nullable=True),
        sa.Column("not_before_at", _MOMENT, nullable=True),
        sa.Column("until_at", _MOMENT, nullable=True),
        sa.Column("running_since", _MOMENT, nullable=True),
        sa.Column("is_assigned", sa.Boolean(), nullable=False),
        sa.CheckConstraint(f"stage IN ({_listed(_STAGES)})", name=op.f("ck_campaign_node_stage")),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaign.id"], name=op.f("fk_campaign_node_campaign_id")
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["node.node_id"], name=op.f("fk_campaign_node_node_id")
        ),
        sa.PrimaryKeyConstraint("campaign_id", "node_id", name=op.f("pk_campaign_node")),
        sa.UniqueConstraint("assignment", name=op.f("uq_campaign_node_assignment")),
    )
    op.create_index("ix_campaign_node_wave", "campaign_node", ["campaign_id", "wave", "stage"])
    op.create_index("ix_campaign_node_list", "campaign_node", ["campaign_id", "wave", "node_id"])
    op.create_index("ix_campaign_node_node_id", "campaign_node", ["node_id", "campaign_id"])
    is_assigned, is_limited = sa.text("is_assigned"), sa.text("deadline_at IS NOT NULL")
    op.create_index(
        "uq_campaign_node_assigned",
        "campaign_node",
        ["node_id"],
        unique=True,
        sqlite_where=is_assigned,
        postgresql_where=is_assigned,
    )
    op.create_index(
        "ix_campaign_node_deadline_at",
        "campaign_node",
        ["deadline_at"],
        sqlite_where=is_limited,
        postgresql_where=is_limited,
    )


def downgrade() -> None:
    for table in ("campaign_cursor", "campaign_node", "campaign_wave", "campaign"):
        op.drop_table(table)
    op.drop_index("ix_event_name", "event")
    for name in ("clock_at", "attempt", "assignment", "counter"):
        op.drop_column("node_status", name)
    for table in ("alert", "alert_rule"):
        op.execute(f"DELETE FROM {table} WHERE kind = '{_ALERT}'")  # noqa: S608 - our own words
    _allow_kinds(lambda kinds: [kind for kind in kinds if kind != _ALERT])


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _allow_kinds(change: Callable[[list[str]], list[str]]) -> None:
    is_open = sa.text("closed_at IS NULL")
    # A table that SQLite makes anew would have a whole index in the place of one for a part.
    op.drop_index("uq_alert_open", "alert")
    for table in ("alert", "alert_rule"):
        name = op.f(f"ck_{table}_kind")
        allowed = _listed(tuple(change(_kinds_of(table, str(name)))))
        with op.batch_alter_table(table) as changed:
            changed.drop_constraint(name, type_="check")
            changed.create_check_constraint(name, f"kind IN ({allowed})")
    op.create_index(
        "uq_alert_open",
        "alert",
        ["kind", "subject"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )


def _kinds_of(table: str, name: str) -> list[str]:
    """Those that the table knows now: other migrations add theirs."""
    for check in sa.inspect(op.get_bind()).get_check_constraints(table):
        if check["name"] == name:
            return re.findall(r"'([a-z_]+)'", check["sqltext"])
    raise LookupError(f"{table} has no check of its kinds")

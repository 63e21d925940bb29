"""Maintenance windows for groups, accounts that are told of alerts, jobs that fail or stay out as alerts of their own; changes that are prepared piece by piece."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_KINDS_BEFORE = (
    "fleet_silent",
    "place_silent",
    "offline",
    "late",
    "battery",
    "clock_drift",
    "spool_growing",
    "reboot_loop",
    "certificate",
    "sensor",
    "radio",
)
_KINDS = (*_KINDS_BEFORE, "job")
_SCOPES_BEFORE = ("all", "node", "site", "model")
_SCOPES = ("all", "node", "site", "group", "model")
_CHANGE_STATES_BEFORE = (
    "awaiting_approval",
    "running",
    "soaking",
    "paused",
    "completed",
    "aborted",
    "rolling_back",
    "rolled_back",
)
_CHANGE_STATES = ("preparing", *_CHANGE_STATES_BEFORE)


def upgrade() -> None:
    _allow_change_states(_CHANGE_STATES)
    _allow_kinds(_KINDS)
    _allow_scopes(_SCOPES)
    op.add_column("job", sa.Column("failing_since", _MOMENT, nullable=True))
    with op.batch_alter_table("alert_recipient") as recipients:
        recipients.add_column(sa.Column("user_id", sa.Integer(), nullable=True))
        recipients.create_foreign_key(
            op.f("fk_alert_recipient_user_id"), "user_account", ["user_id"], ["id"]
        )
        recipients.create_unique_constraint(op.f("uq_alert_recipient_user_id"), ["user_id"])


def downgrade() -> None:
    op.execute("UPDATE configuration_change SET state = 'aborted' WHERE state = 'preparing'")
    _allow_change_states(_CHANGE_STATES_BEFORE)
    told = "SELECT id FROM alert_recipient WHERE user_id IS NOT NULL"
    op.execute(f"DELETE FROM delivery WHERE recipient_id IN ({told})")  # noqa: S608 - our own words
    op.execute("DELETE FROM alert_recipient WHERE user_id IS NOT NULL")
    with op.batch_alter_table("alert_recipient") as recipients:
        recipients.drop_constraint(op.f("uq_alert_recipient_user_id"), type_="unique")
        recipients.drop_constraint(op.f("fk_alert_recipient_user_id"), type_="foreignkey")
        recipients.drop_column("user_id")
    op.drop_column("job", "failing_since")
    op.execute("DELETE FROM job WHERE name = 'backup'")
    op.execute("DELETE FROM silence WHERE scope = 'group'")
    _allow_scopes(_SCOPES_BEFORE)
    for table in ("alert", "alert_rule"):
        op.execute(f"DELETE FROM {table} WHERE kind = 'job'")  # noqa: S608 - our own words
    _allow_kinds(_KINDS_BEFORE)


def _allow_kinds(kinds: tuple[str, ...]) -> None:
    is_open = sa.text("closed_at IS NULL")
    # A table that SQLite makes anew would have a whole index in the place of one for a part.
    op.drop_index("uq_alert_open", "alert")
    for table in ("alert", "alert_rule"):
        _replace_check(table, "kind", kinds)
    op.create_index(
        "uq_alert_open",
        "alert",
        ["kind", "subject"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )


def _allow_change_states(states: tuple[str, ...]) -> None:
    is_unsettled = sa.text("is_unsettled")
    op.drop_index("ix_configuration_change_unsettled", "configuration_change")
    _replace_check("configuration_change", "state", states)
    op.create_index(
        "ix_configuration_change_unsettled",
        "configuration_change",
        ["id"],
        sqlite_where=is_unsettled,
        postgresql_where=is_unsettled,
    )


def _allow_scopes(scopes: tuple[str, ...]) -> None:
    _replace_check("silence", "scope", scopes)


def _replace_check(table: str, column: str, words: tuple[str, ...]) -> None:
    name = op.f(f"ck_{table}_{column}")
    allowed = ", ".join(f"'{word}'" for word in words)
    with op.batch_alter_table(table) as changed:
        changed.drop_constraint(name, type_="check")
        changed.create_check_constraint(name, f"{column} IN ({allowed})")

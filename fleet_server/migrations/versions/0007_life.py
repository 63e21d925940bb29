"""A node's life and health, alerts and their delivery, scheduled jobs. Active nodes become deployed, or enrolled where they stand nowhere."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_STATES_BEFORE = ("enrolled", "active", "retired", "revoked")
_STATES = (
    "registered",
    "flashed",
    "enrolling",
    "enrolled",
    "calibrated",
    "deployed",
    "maintenance",
    "retired",
    "quarantined",
    "lost",
    "rma",
    "revoked",
)
_KINDS = (
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
_SEVERITIES = ("notice", "warning", "urgent")
_EVERY_S = (
    "(publish_s * CASE WHEN battery_level <> 'normal' AND battery_power_up = power_up"
    " THEN 4 ELSE 1 END)"
)


def _one_of(column: str, names: tuple[str, ...]) -> str:
    return "{} IN ({})".format(column, ", ".join(f"'{name}'" for name in names))


def upgrade() -> None:
    _give_nodes_their_life()
    _give_statuses_their_schedule()
    _make_alerts()
    _make_telling()
    _make_days()
    op.create_table(
        "job",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column("claimed_until", _MOMENT, nullable=True),
        sa.Column("ran_at", _MOMENT, nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_job")),
    )


def _give_nodes_their_life() -> None:
    with op.batch_alter_table("node") as nodes:
        nodes.drop_constraint(op.f("ck_node_state"), type_="check")
        nodes.alter_column("enrolled_at", existing_type=_MOMENT, nullable=True)
        nodes.alter_column("public_key_sha256", existing_type=sa.String(), nullable=True)
        nodes.add_column(sa.Column("state_since", _MOMENT, nullable=True))
        nodes.add_column(sa.Column("state_reason", sa.String(), nullable=True))
        nodes.add_column(sa.Column("planned_site_id", sa.Integer(), nullable=True))
        nodes.add_column(sa.Column("planned_serials", sa.JSON(), nullable=True))
        nodes.create_foreign_key(
            op.f("fk_node_planned_site_id"), "site", ["planned_site_id"], ["id"]
        )
    in_service = "state IN ('enrolled', 'active')"
    stands = "EXISTS (SELECT 1 FROM deployment WHERE deployment.node_id = node.node_id AND to_at IS NULL)"
    heard = "EXISTS (SELECT 1 FROM node_status WHERE node_status.node_id = node.node_id AND last_heard_at IS NOT NULL)"
    op.execute(
        f"UPDATE node SET state = CASE WHEN {stands} THEN 'deployed' WHEN {heard} THEN 'enrolled'"  # noqa: S608 - our own words
        f" ELSE 'enrolling' END WHERE {in_service}"
    )
    op.execute("UPDATE node SET state_since = enrolled_at")
    with op.batch_alter_table("node") as nodes:
        nodes.create_check_constraint(op.f("ck_node_state"), _one_of("state", _STATES))
    op.create_index("ix_node_state_label", "node", ["state", "label"])


def _give_statuses_their_schedule() -> None:
    for column in (
        sa.Column("publish_s", sa.Integer(), server_default="3600", nullable=False),
        sa.Column("network", sa.String(), nullable=True),
        sa.Column("battery_level", sa.String(), server_default="normal", nullable=False),
        sa.Column("battery_power_up", sa.BigInteger(), nullable=True),
    ):
        op.add_column("node_status", column)
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(
        "UPDATE node_status SET publish_s = COALESCE((SELECT CAST(settings ->> 'publish_s' AS INTEGER)"
        " FROM configuration WHERE configuration.node_id = node_status.node_id), 3600)"
    )
    level = (
        "json_extract(detail.value, '$[1]') FROM json_each(event.details) AS detail WHERE json_extract(detail.value, '$[0]') = 'level'"
        if is_sqlite
        else "detail ->> 1 FROM json_array_elements(event.details) AS detail WHERE detail ->> 0 = 'level'"
    )
    newest = "SELECT MAX(pack_id) FROM event WHERE event.node_id = node_status.node_id AND name = 'battery'"
    known = "('normal', 'low', 'mute', 'stop')"
    op.execute(
        "UPDATE node_status SET battery_power_up = (SELECT pack.power_up FROM pack WHERE pack.id ="  # noqa: S608 - our own words
        f" ({newest})), battery_level = COALESCE((SELECT told FROM (SELECT (SELECT {level}) AS told FROM event"
        f" WHERE pack_id = ({newest})) AS said WHERE told IN {known}), 'normal')"
        f" WHERE EXISTS ({newest.replace('MAX(pack_id)', '1')})"
    )
    for name, half_periods in (("due_at", 2), ("late_at", 3), ("offline_at", 6)):
        later = f"{_EVERY_S} * {half_periods} / 2"
        text = (
            f"last_heard_at + {later}"
            if is_sqlite
            else f"(last_heard_at AT TIME ZONE 'UTC' + make_interval(secs => {later})) AT TIME ZONE 'UTC'"
        )
        # SQLite can add only a column that is computed when it is read; its index is kept all the same.
        computed = sa.Computed(text, persisted=None if is_sqlite else True)
        op.add_column("node_status", sa.Column(name, _MOMENT, computed, nullable=True))
    op.create_index("ix_node_status_late_at", "node_status", ["late_at"])


def _make_alerts() -> None:
    op.create_table(
        "alert",
        sa.Column("id", _BIG_KEY, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=True),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("opened_at", _MOMENT, nullable=False),
        sa.Column("well_since", _MOMENT, nullable=True),
        sa.Column("closed_at", _MOMENT, nullable=True),
        sa.Column("acknowledged_at", _MOMENT, nullable=True),
        sa.Column("acknowledged_by", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("escalated_at", _MOMENT, nullable=True),
        sa.CheckConstraint(_one_of("kind", _KINDS), name=op.f("ck_alert_kind")),
        sa.CheckConstraint(_one_of("severity", _SEVERITIES), name=op.f("ck_alert_severity")),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_alert_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
    )
    is_open = sa.text("closed_at IS NULL")
    op.create_index(
        "uq_alert_open",
        "alert",
        ["kind", "subject"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index("ix_alert_node_id", "alert", ["node_id", "id"])
    op.create_index("ix_alert_closed_at", "alert", ["closed_at"])
    op.create_table(
        "alert_rule",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("thresholds", sa.JSON(), nullable=False),
        sa.Column("clear_after_s", sa.Integer(), nullable=False),
        sa.Column("escalate_after_s", sa.Integer(), nullable=True),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.CheckConstraint(_one_of("kind", _KINDS), name=op.f("ck_alert_rule_kind")),
        sa.CheckConstraint(_one_of("severity", _SEVERITIES), name=op.f("ck_alert_rule_severity")),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_alert_rule")),
    )
    op.create_table(
        "silence",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("from_at", _MOMENT, nullable=False),
        sa.Column("to_at", _MOMENT, nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.Column("made_at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            _one_of("scope", ("all", "node", "site", "model")), name=op.f("ck_silence_scope")
        ),
        sa.CheckConstraint("to_at > from_at", name=op.f("ck_silence_span")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_silence")),
    )
    op.create_index("ix_silence_to_at", "silence", ["to_at"])


def _make_telling() -> None:
    op.create_table(
        "alert_recipient",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("sealed_secret", sa.String(), nullable=True),
        sa.Column("kinds", sa.JSON(), nullable=True),
        sa.Column("min_severity", sa.String(), nullable=False),
        sa.Column("site_kind", sa.String(), nullable=True),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("made_at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            _one_of("channel", ("mail", "webhook")), name=op.f("ck_alert_recipient_channel")
        ),
        sa.CheckConstraint(
            _one_of("min_severity", _SEVERITIES), name=op.f("ck_alert_recipient_min_severity")
        ),
        sa.CheckConstraint(
            _one_of("site_kind", ("tree", "water")), name=op.f("ck_alert_recipient_site_kind")
        ),
        sa.CheckConstraint(
            _one_of("language", ("de", "en")), name=op.f("ck_alert_recipient_language")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_recipient")),
        sa.UniqueConstraint("name", name=op.f("uq_alert_recipient_name")),
    )
    op.create_table(
        "delivery",
        sa.Column("id", _BIG_KEY, nullable=False),
        sa.Column("recipient_id", sa.Integer(), nullable=False),
        sa.Column("occasion", sa.String(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("made_at", _MOMENT, nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claimed_until", _MOMENT, nullable=True),
        sa.Column("delivered_at", _MOMENT, nullable=True),
        sa.Column("dead_at", _MOMENT, nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.CheckConstraint(
            _one_of("occasion", ("opened", "escalated", "closed", "test")),
            name=op.f("ck_delivery_occasion"),
        ),
        sa.ForeignKeyConstraint(
            ["recipient_id"], ["alert_recipient.id"], name=op.f("fk_delivery_recipient_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
    )
    waits = sa.text("delivered_at IS NULL AND dead_at IS NULL")
    op.create_index(
        "ix_delivery_due", "delivery", ["due_at"], sqlite_where=waits, postgresql_where=waits
    )
    op.create_index("ix_delivery_dead_at", "delivery", ["dead_at"])


def _make_days() -> None:
    op.create_table(
        "node_day",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("battery_mv", sa.Integer(), nullable=True),
        sa.Column("rssi_dbm", sa.Integer(), nullable=True),
        sa.Column("spool_depth", sa.Integer(), nullable=True),
        sa.Column("power_up", sa.BigInteger(), nullable=True),
        sa.Column("power_ups", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_node_day_node_id")),
        sa.PrimaryKeyConstraint("node_id", "day", name=op.f("pk_node_day")),
    )
    op.create_index("ix_node_day_day", "node_day", ["day"])
    op.create_table(
        "node_trend",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("battery_days_low", sa.Integer(), nullable=True),
        sa.Column("battery_days_high", sa.Integer(), nullable=True),
        sa.Column("rssi_before_dbm", sa.Integer(), nullable=True),
        sa.Column("rssi_now_dbm", sa.Integer(), nullable=True),
        sa.Column("made_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_node_trend_node_id")),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node_trend")),
    )


def downgrade() -> None:
    for table in ("job", "node_trend", "node_day", "delivery", "alert_recipient", "silence"):
        op.drop_table(table)
    op.drop_table("alert_rule")
    op.drop_table("alert")
    op.drop_index("ix_node_status_late_at", "node_status")
    for column in ("offline_at", "late_at", "due_at"):
        op.drop_column("node_status", column)
    for column in ("battery_power_up", "battery_level", "network", "publish_s"):
        op.drop_column("node_status", column)
    op.drop_index("ix_node_state_label", "node")
    with op.batch_alter_table("node") as nodes:
        nodes.drop_constraint(op.f("ck_node_state"), type_="check")
    op.execute(
        "UPDATE node SET state = 'active' WHERE state IN ('calibrated', 'deployed', 'maintenance', 'quarantined')"
    )
    op.execute(
        "UPDATE node SET state = 'enrolled' WHERE state IN ('registered', 'flashed', 'enrolling')"
    )
    op.execute("UPDATE node SET state = 'retired' WHERE state IN ('lost', 'rma')")
    with op.batch_alter_table("node") as nodes:
        nodes.create_check_constraint(op.f("ck_node_state"), _one_of("state", _STATES_BEFORE))
        nodes.drop_constraint(op.f("fk_node_planned_site_id"), type_="foreignkey")
        for column in ("planned_serials", "planned_site_id", "state_reason", "state_since"):
            nodes.drop_column(column)

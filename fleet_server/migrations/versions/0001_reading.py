"""The tables of a reading's way: from the node to its observation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "counter",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "node_id", name=op.f("pk_counter")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "enrolment_token",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.CheckConstraint("uses_left >= 0", name=op.f("ck_enrolment_token_uses_left")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_token")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_enrolment_token_token_sha256")),
    )
    op.create_table(
        "outbox",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("published_version", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.Column("claimed_until", _MOMENT, nullable=True),
        sa.CheckConstraint("kind IN ('receipt', 'desired')", name=op.f("ck_outbox_kind")),
        sa.PrimaryKeyConstraint("kind", "key", name=op.f("pk_outbox")),
    )
    op.create_index(
        "ix_outbox_due",
        "outbox",
        ["changed_at"],
        unique=False,
        sqlite_where=sa.text("published_version < version"),
        postgresql_where=sa.text("published_version < version"),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", _BIG_KEY, nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("spool", sa.BigInteger(), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.Column("received_at", _MOMENT, nullable=False),
        sa.Column("last_received_at", _MOMENT, nullable=False),
        sa.Column("times_received", sa.Integer(), nullable=False),
        sa.Column("payload_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
    )
    op.create_index(
        "ix_quarantine_node_id_spool_seq", "quarantine", ["node_id", "spool", "seq"], unique=False
    )
    op.create_index(op.f("ix_quarantine_received_at"), "quarantine", ["received_at"], unique=False)
    op.create_index(
        "uq_quarantine_content", "quarantine", ["node_id", "payload_sha256", "reason"], unique=True
    )
    op.create_table(
        "sensor",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("sensor_type", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sensor")),
        sa.UniqueConstraint("serial", name=op.f("uq_sensor_serial")),
    )
    op.create_table(
        "site",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("latitude", sa.Double(), nullable=False),
        sa.Column("longitude", sa.Double(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.CheckConstraint("kind IN ('tree', 'water')", name=op.f("ck_site_kind")),
        sa.CheckConstraint("latitude BETWEEN -90 AND 90", name=op.f("ck_site_latitude")),
        sa.CheckConstraint("longitude BETWEEN -180 AND 180", name=op.f("ck_site_longitude")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site")),
        sa.UniqueConstraint("code", name=op.f("uq_site_code")),
    )
    op.create_table(
        "user_account",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locked_until", _MOMENT, nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("last_login_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_account")),
        sa.UniqueConstraint("name", name=op.f("uq_user_account_name")),
    )
    op.create_table(
        "calibration",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sensor_id", sa.Integer(), nullable=False),
        sa.Column("property", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("slope", sa.Double(), nullable=False),
        sa.Column("offset", sa.Double(), nullable=False),
        sa.Column("u_absolute", sa.Double(), nullable=False),
        sa.Column("u_relative", sa.Double(), nullable=False),
        sa.Column("u_slope", sa.Double(), nullable=False),
        sa.Column("u_offset", sa.Double(), nullable=False),
        sa.Column("slope_offset_covariance", sa.Double(), nullable=False),
        sa.Column("coverage_factor", sa.Double(), nullable=False),
        sa.Column("valid_from", _MOMENT, nullable=False),
        sa.Column("valid_to", _MOMENT, nullable=True),
        sa.Column("performed_by", sa.String(), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.CheckConstraint("kind IN ('factory', 'linear')", name=op.f("ck_calibration_kind")),
        sa.CheckConstraint(
            "valid_to IS NULL OR valid_to > valid_from", name=op.f("ck_calibration_order")
        ),
        sa.ForeignKeyConstraint(
            ["sensor_id"], ["sensor.id"], name=op.f("fk_calibration_sensor_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibration")),
        sa.UniqueConstraint(
            "sensor_id",
            "property",
            "version",
            name=op.f("uq_calibration_sensor_id_property_version"),
        ),
    )
    op.create_table(
        "datastream",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("site_id", sa.Integer(), nullable=False),
        sa.Column("property", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("depth_cm", sa.Integer(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "level IN ('calibrated', 'hourly', 'daily', 'forecast', 'external')",
            name=op.f("ck_datastream_level"),
        ),
        sa.CheckConstraint("id BETWEEN 1 AND 4194303", name=op.f("ck_datastream_id")),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_datastream_site_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datastream")),
        sa.UniqueConstraint(
            "site_id",
            "property",
            "depth_cm",
            "level",
            name=op.f("uq_datastream_site_id_property_depth_cm_level"),
        ),
    )
    op.create_table(
        "node",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("enrolled_at", _MOMENT, nullable=False),
        sa.Column("enrolment_token_id", sa.Integer(), nullable=True),
        sa.Column("public_key_sha256", sa.String(), nullable=False),
        sa.Column("certificate_serial", sa.String(), nullable=True),
        sa.Column("certificate_pem", sa.String(), nullable=True),
        sa.Column("certificate_expires_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ('enrolled', 'active', 'retired', 'revoked')", name=op.f("ck_node_state")
        ),
        sa.ForeignKeyConstraint(
            ["enrolment_token_id"], ["enrolment_token.id"], name=op.f("fk_node_enrolment_token_id")
        ),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node")),
        sa.UniqueConstraint("certificate_serial", name=op.f("uq_node_certificate_serial")),
        sa.UniqueConstraint("public_key_sha256", name=op.f("uq_node_public_key_sha256")),
    )
    op.create_index(op.f("ix_node_label"), "node", ["label"], unique=False)
    op.create_table(
        "anchor",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("power_up", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("uptime_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("utc_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_anchor_node_id")),
        sa.PrimaryKeyConstraint("node_id", "power_up", "uptime_ms", name=op.f("pk_anchor")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "configuration",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("renewed_certificate", sa.LargeBinary(), nullable=True),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["node_id"], ["node.node_id"], name=op.f("fk_configuration_node_id")
        ),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_configuration")),
    )
    op.create_table(
        "deployment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("site_id", sa.Integer(), nullable=False),
        sa.Column("from_at", _MOMENT, nullable=False),
        sa.Column("to_at", _MOMENT, nullable=True),
        sa.CheckConstraint("to_at IS NULL OR to_at > from_at", name=op.f("ck_deployment_order")),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_deployment_node_id")),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name=op.f("fk_deployment_site_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployment")),
    )
    op.create_index(
        "ix_deployment_node_id_from_at", "deployment", ["node_id", "from_at"], unique=False
    )
    op.create_index("ix_deployment_site_id", "deployment", ["site_id"], unique=False)
    op.create_index(
        "uq_deployment_open",
        "deployment",
        ["node_id"],
        unique=True,
        sqlite_where=sa.text("to_at IS NULL"),
        postgresql_where=sa.text("to_at IS NULL"),
    )
    op.create_table(
        "gap",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("spool", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("from_seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("to_seq", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("noticed_at", _MOMENT, nullable=False),
        sa.CheckConstraint("state IN ('declared_lost', 'open')", name=op.f("ck_gap_state")),
        sa.CheckConstraint("to_seq >= from_seq", name=op.f("ck_gap_order")),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_gap_node_id")),
        sa.PrimaryKeyConstraint("node_id", "spool", "from_seq", name=op.f("pk_gap")),
    )
    op.create_table(
        "lineage",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sensor_id", sa.Integer(), nullable=False),
        sa.Column("calibration_id", sa.Integer(), nullable=False),
        sa.Column("inputs", sa.String(), nullable=False),
        sa.Column("conversion", sa.String(), nullable=False),
        sa.Column("correction", sa.String(), nullable=False),
        sa.Column("rule_set", sa.String(), nullable=False),
        sa.Column("pipeline_version", sa.String(), nullable=False),
        sa.Column("coverage_factor", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["calibration_id"], ["calibration.id"], name=op.f("fk_lineage_calibration_id")
        ),
        sa.ForeignKeyConstraint(["sensor_id"], ["sensor.id"], name=op.f("fk_lineage_sensor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lineage")),
        sa.UniqueConstraint(
            "calibration_id",
            "inputs",
            "correction",
            "rule_set",
            "pipeline_version",
            "coverage_factor",
            "sensor_id",
            "conversion",
            name=op.f(
                "uq_lineage_calibration_id_inputs_correction_rule_set_pipeline_version_coverage_factor_sensor_id_conversion"
            ),
        ),
    )
    op.create_table(
        "node_status",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("last_heard_at", _MOMENT, nullable=True),
        sa.Column("last_state_at", _MOMENT, nullable=True),
        sa.Column("last_sampled_at", _MOMENT, nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("bundle_sha256", sa.String(), nullable=True),
        sa.Column("config_version", sa.Integer(), nullable=True),
        sa.Column("config_sha256", sa.String(), nullable=True),
        sa.Column("slot", sa.String(), nullable=True),
        sa.Column("slot_state", sa.String(), nullable=True),
        sa.Column("battery_mv", sa.Integer(), nullable=True),
        sa.Column("rssi_dbm", sa.Integer(), nullable=True),
        sa.Column("free_heap", sa.Integer(), nullable=True),
        sa.Column("heap_low", sa.Integer(), nullable=True),
        sa.Column("idf_largest", sa.Integer(), nullable=True),
        sa.Column("spool", sa.BigInteger(), nullable=True),
        sa.Column("spool_depth", sa.Integer(), nullable=True),
        sa.Column("oldest", sa.BigInteger(), nullable=True),
        sa.Column("newest", sa.BigInteger(), nullable=True),
        sa.Column("power_up", sa.BigInteger(), nullable=True),
        sa.Column("uptime_ms", sa.BigInteger(), nullable=True),
        sa.Column("boot_count", sa.BigInteger(), nullable=True),
        sa.Column("reset_cause", sa.String(), nullable=True),
        sa.Column("drift_ppm", sa.Double(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_node_status_node_id")),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_node_status")),
    )
    op.create_index(
        op.f("ix_node_status_last_heard_at"), "node_status", ["last_heard_at"], unique=False
    )
    op.create_table(
        "observation_count",
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("month", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_observation_count_datastream_id")
        ),
        sa.PrimaryKeyConstraint("datastream_id", "month", name=op.f("pk_observation_count")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pack",
        sa.Column("id", _BIG_KEY, nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("spool", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("received_at", _MOMENT, nullable=False),
        sa.Column("stored_at", _MOMENT, nullable=False),
        sa.Column("claimed_at", _MOMENT, nullable=True),
        sa.Column("power_up", sa.BigInteger(), nullable=False),
        sa.Column("uptime_ms", sa.BigInteger(), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("payload_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("kind IN ('telemetry', 'event')", name=op.f("ck_pack_kind")),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_pack_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pack")),
        sa.UniqueConstraint("node_id", "spool", "seq", name=op.f("uq_pack_node_id_spool_seq")),
    )
    op.create_index(
        "ix_pack_without_time",
        "pack",
        ["node_id", "power_up"],
        unique=False,
        sqlite_where=sa.text("claimed_at IS NULL"),
        postgresql_where=sa.text("claimed_at IS NULL"),
    )
    op.create_table(
        "receipt",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("spool", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("highest_seq", sa.BigInteger(), nullable=False),
        sa.Column("channels_version", sa.Integer(), nullable=False),
        sa.Column("moved_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_receipt_node_id")),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_receipt")),
    )
    op.create_table(
        "channel",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("deployment_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("sensor_id", sa.Integer(), nullable=False),
        sa.Column("datastream_id", sa.Integer(), nullable=False),
        sa.Column("property", sa.String(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("raw_unit", sa.String(), nullable=False),
        sa.Column("depth_cm", sa.Integer(), nullable=False),
        sa.Column("conversion", sa.String(), nullable=False),
        sa.Column("needs", sa.JSON(), nullable=False),
        sa.Column("from_at", _MOMENT, nullable=False),
        sa.Column("to_at", _MOMENT, nullable=True),
        sa.CheckConstraint("to_at IS NULL OR to_at > from_at", name=op.f("ck_channel_order")),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_channel_datastream_id")
        ),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployment.id"], name=op.f("fk_channel_deployment_id")
        ),
        sa.ForeignKeyConstraint(["sensor_id"], ["sensor.id"], name=op.f("fk_channel_sensor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channel")),
        sa.UniqueConstraint(
            "deployment_id", "key", "from_at", name=op.f("uq_channel_deployment_id_key_from_at")
        ),
    )
    op.create_index(op.f("ix_channel_datastream_id"), "channel", ["datastream_id"], unique=False)
    op.create_index(op.f("ix_channel_sensor_id"), "channel", ["sensor_id"], unique=False)
    op.create_table(
        "event",
        sa.Column("pack_id", _BIG_KEY, autoincrement=False, nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("happened_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_event_node_id")),
        sa.ForeignKeyConstraint(["pack_id"], ["pack.id"], name=op.f("fk_event_pack_id")),
        sa.PrimaryKeyConstraint("pack_id", name=op.f("pk_event")),
    )
    op.create_index("ix_event_node_id_pack_id", "event", ["node_id", "pack_id"], unique=False)
    op.create_table(
        "observation",
        sa.Column("datastream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sampled_at", _MOMENT, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("u", sa.REAL(), nullable=True),
        sa.Column("flag", sa.SmallInteger(), nullable=False),
        sa.Column("tests", sa.Integer(), nullable=False),
        sa.Column("lineage_id", sa.Integer(), nullable=False),
        sa.Column("known_from", _MOMENT, nullable=False),
        sa.Column("pack_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("flag IN (1, 2, 3, 4, 9)", name=op.f("ck_observation_flag")),
        sa.ForeignKeyConstraint(
            ["datastream_id"], ["datastream.id"], name=op.f("fk_observation_datastream_id")
        ),
        sa.ForeignKeyConstraint(
            ["lineage_id"], ["lineage.id"], name=op.f("fk_observation_lineage_id")
        ),
        sa.PrimaryKeyConstraint("datastream_id", "sampled_at", name=op.f("pk_observation")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_observation_sampled_at_datastream_id",
        "observation",
        ["sampled_at", "datastream_id"],
        unique=False,
    )
    op.create_table(
        "raw_reading",
        sa.Column("pack_id", _BIG_KEY, autoincrement=False, nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("raw_value", sa.Double(), nullable=True),
        sa.Column("status", sa.String(), nullable=True),
        sa.Column("sampled_at", _MOMENT, nullable=True),
        sa.Column("time_estimated", sa.Boolean(), nullable=False),
        sa.Column("time_interval_s", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "raw_value IS NOT NULL OR status IS NOT NULL",
            name=op.f("ck_raw_reading_value_or_status"),
        ),
        sa.ForeignKeyConstraint(["pack_id"], ["pack.id"], name=op.f("fk_raw_reading_pack_id")),
        sa.PrimaryKeyConstraint("pack_id", "channel", name=op.f("pk_raw_reading")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("raw_reading")
    op.drop_table("observation")
    op.drop_table("event")
    op.drop_table("channel")
    op.drop_table("receipt")
    op.drop_table("pack")
    op.drop_table("observation_count")
    op.drop_table("node_status")
    op.drop_table("lineage")
    op.drop_table("gap")
    op.drop_table("deployment")
    op.drop_table("configuration")
    op.drop_table("anchor")
    op.drop_table("node")
    op.drop_table("datastream")
    op.drop_table("calibration")
    op.drop_table("user_account")
    op.drop_table("site")
    op.drop_table("sensor")
    op.drop_table("quarantine")
    op.drop_table("outbox")
    op.drop_table("enrolment_token")
    op.drop_table("counter")

"""Configuration in layers: fleet, node models, groups, nodes; changes in waves. What a node has of its own becomes its own layer."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from fleet_server.wire.configuration import PUBLISH_S, SAMPLE_S, sha256_hex
from hardware import catalogue

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_KINDS = "kind IN ('fleet', 'model', 'group', 'node')"
_STATES = (
    "awaiting_approval",
    "running",
    "soaking",
    "paused",
    "completed",
    "aborted",
    "rolling_back",
    "rolled_back",
)
_ROWS_AT_ONCE = 1000


def upgrade() -> None:
    _make_groups()
    _make_layers()
    _make_changes()
    op.add_column("command", sa.Column("batch", sa.String(), nullable=True))
    op.add_column("command", sa.Column("canceled_at", _MOMENT, nullable=True))
    op.create_index("ix_command_ordered_at", "command", ["ordered_at", "id"])
    op.create_index("ix_command_batch", "command", ["batch", "ordered_at", "id"])
    op.add_column("configuration", sa.Column("held_back", sa.String(), nullable=True))
    op.add_column("configuration", sa.Column("sha256", sa.String(), nullable=True))
    _split_configurations()
    with op.batch_alter_table("configuration") as configuration:
        configuration.alter_column("sha256", existing_type=sa.String(), nullable=False)
        configuration.create_index("ix_configuration_changed_at", ["changed_at", "node_id"])


def _make_groups() -> None:
    op.create_table(
        "node_group",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("rule", sa.JSON(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node_group")),
        sa.UniqueConstraint("name", name=op.f("uq_node_group_name")),
    )
    op.create_table(
        "node_group_member",
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("by_hand", sa.Boolean(), nullable=False),
        sa.Column("by_rule", sa.Boolean(), nullable=False),
        sa.CheckConstraint("by_hand OR by_rule", name=op.f("ck_node_group_member_reason")),
        sa.ForeignKeyConstraint(
            ["group_id"], ["node_group.id"], name=op.f("fk_node_group_member_group_id")
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["node.node_id"], name=op.f("fk_node_group_member_node_id")
        ),
        sa.PrimaryKeyConstraint("group_id", "node_id", name=op.f("pk_node_group_member")),
    )
    op.create_index("ix_node_group_member_node_id", "node_group_member", ["node_id"])
    op.create_table(
        "node_tag",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("tag", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_node_tag_node_id")),
        sa.PrimaryKeyConstraint("node_id", "tag", name=op.f("pk_node_tag")),
    )
    op.create_index("ix_node_tag_tag", "node_tag", ["tag", "node_id"])


def _make_layers() -> None:
    for name, extra in (
        ("configuration_layer", []),
        (
            "configuration_layer_version",
            [sa.Column("changed_by", sa.String(), nullable=False)],
        ),
    ):
        key = ["kind", "key", *(["version"] if extra else [])]
        op.create_table(
            name,
            sa.Column("kind", sa.String(), nullable=False),
            sa.Column("key", sa.String(), nullable=False),
            sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
            sa.Column("settings", sa.JSON(), nullable=False),
            sa.Column("changed_at", _MOMENT, nullable=False),
            *extra,
            sa.CheckConstraint(_KINDS, name=op.f(f"ck_{name}_kind")),
            sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{name}")),
        )


def _make_changes() -> None:
    op.create_table(
        "configuration_change",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("layer_kind", sa.String(), nullable=False),
        sa.Column("layer_key", sa.String(), nullable=False),
        sa.Column("layer_name", sa.String(), nullable=False),
        sa.Column("changed", sa.JSON(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("needs_approval", sa.Boolean(), nullable=False),
        sa.Column("approved_by", sa.String(), nullable=True),
        sa.Column("approved_at", _MOMENT, nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("waves", sa.JSON(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("wave_opened_at", _MOMENT, nullable=True),
        sa.Column("soak_s", sa.Integer(), nullable=False),
        sa.Column("soaks_since", _MOMENT, nullable=True),
        sa.Column("failures_accepted", sa.Integer(), nullable=False),
        sa.Column("is_unsettled", sa.Boolean(), nullable=False),
        sa.Column("layer_version", sa.Integer(), nullable=True),
        sa.Column("swept_to", sa.String(), nullable=True),
        sa.Column("finished_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ({})".format(", ".join(f"'{state}'" for state in _STATES)),
            name=op.f("ck_configuration_change_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_configuration_change")),
    )
    op.create_index(
        "ix_configuration_change_layer", "configuration_change", ["layer_kind", "layer_key", "id"]
    )
    op.create_index(
        "ix_configuration_change_unsettled",
        "configuration_change",
        ["id"],
        sqlite_where=sa.text("is_unsettled"),
        postgresql_where=sa.text("is_unsettled"),
    )
    op.create_index("ix_configuration_change_state", "configuration_change", ["state", "id"])
    op.create_table(
        "configuration_change_node",
        sa.Column("change_id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("told_at", _MOMENT, nullable=True),
        sa.Column("fault", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["change_id"],
            ["configuration_change.id"],
            name=op.f("fk_configuration_change_node_change_id"),
        ),
        sa.ForeignKeyConstraint(
            ["node_id"], ["node.node_id"], name=op.f("fk_configuration_change_node_node_id")
        ),
        sa.PrimaryKeyConstraint("change_id", "node_id", name=op.f("pk_configuration_change_node")),
    )
    op.create_index(
        "ix_configuration_change_node_node_id", "configuration_change_node", ["node_id"]
    )
    op.create_index(
        "ix_configuration_change_node_wave", "configuration_change_node", ["change_id", "wave"]
    )


def _split_configurations() -> None:
    """Until now each node had all of its settings itself: what is not its model's was wanted of this node."""
    bind = op.get_bind()
    tables = sa.MetaData()
    tables.reflect(
        bind, only=["configuration", "configuration_layer", "configuration_layer_version"]
    )
    configuration, layer = tables.tables["configuration"], tables.tables["configuration_layer"]
    version = tables.tables["configuration_layer_version"]
    rows = bind.execute(
        sa.text(
            "SELECT c.node_id, n.model, c.version, c.settings, c.changed_at"
            " FROM configuration c JOIN node n ON n.node_id = c.node_id ORDER BY c.node_id"
        )
    ).all()
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        hashes, layers = [], []
        for node_id, model, number, stored, changed_at in rows[start : start + _ROWS_AT_ONCE]:
            settings = json.loads(stored) if isinstance(stored, str) else stored
            hashes.append({"row": node_id, "hash": sha256_hex(number, settings)})
            of_its_own = _of_its_own(settings, model)
            if of_its_own:
                layers.append(
                    {
                        "kind": "node",
                        "key": node_id,
                        "version": 1,
                        "settings": of_its_own,
                        "changed_at": changed_at,
                    }
                )
        bind.execute(
            configuration.update()
            .where(configuration.c.node_id == sa.bindparam("row"))
            .values(sha256=sa.bindparam("hash")),
            hashes,
        )
        if layers:
            bind.execute(layer.insert(), layers)
            bind.execute(version.insert(), [{**one, "changed_by": "machine"} for one in layers])


def _of_its_own(settings: dict[str, Any], model: str) -> dict[str, Any]:
    try:
        node_model = catalogue.load_node_model(model)
    except catalogue.CatalogueError:  # no data for it any more: what it has is all that is known
        return settings
    models = {SAMPLE_S: node_model.sample_every_s, PUBLISH_S: node_model.publish_every_s}
    return {name: value for name, value in settings.items() if models.get(name) != value}


def downgrade() -> None:
    op.drop_index("ix_command_batch", "command")
    op.drop_index("ix_command_ordered_at", "command")
    op.drop_column("command", "canceled_at")
    op.drop_column("command", "batch")
    with op.batch_alter_table("configuration") as configuration:
        configuration.drop_index("ix_configuration_changed_at")
        configuration.drop_column("sha256")
        configuration.drop_column("held_back")
    for table in (
        "configuration_change_node",
        "configuration_change",
        "configuration_layer_version",
        "configuration_layer",
        "node_tag",
        "node_group_member",
        "node_group",
    ):
        op.drop_table(table)

"""Releases with their parts, the metadata that sign them, and alerts about what runs out of these."""

from __future__ import annotations

import re
from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0013"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")


_ALERT = "signature"


def upgrade() -> None:
    _allow_kinds(lambda kinds: [*kinds, _ALERT])
    op.create_index("ix_node_status_bundle", "node_status", ["bundle_sha256", "version", "model"])
    op.create_table(
        "release",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("target_path", sa.String(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("manifest_sha256", sa.String(), nullable=False),
        sa.Column("bundle_sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("notes", sa.String(), nullable=False),
        sa.Column("sbom", sa.JSON(), nullable=False),
        sa.Column("sbom_sha256", sa.String(), nullable=False),
        sa.Column("support_until", _MOMENT, nullable=False),
        sa.Column("uploaded_at", _MOMENT, nullable=False),
        sa.Column("uploaded_by", sa.String(), nullable=False),
        sa.Column("withdrawn_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_release")),
        sa.UniqueConstraint("model", "version", name=op.f("uq_release_model_version")),
        sa.UniqueConstraint("model", "counter", name=op.f("uq_release_model_counter")),
    )
    op.create_index("ix_release_bundle_sha256", "release", ["bundle_sha256"])
    op.create_table(
        "release_component",
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("purl", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["release_id"], ["release.id"], name=op.f("fk_release_component_release_id")
        ),
        sa.PrimaryKeyConstraint("release_id", "place", name=op.f("pk_release_component")),
    )
    op.create_index("ix_release_component_name", "release_component", ["name", "version"])
    op.create_index("ix_release_component_purl", "release_component", ["purl"])
    op.create_table(
        "signed_metadata",
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("stored_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("role", "version", name=op.f("pk_signed_metadata")),
    )
    op.create_index("ix_signed_metadata_expires_at", "signed_metadata", ["expires_at"])


def downgrade() -> None:
    op.drop_index("ix_node_status_bundle", "node_status")
    op.drop_table("signed_metadata")
    op.drop_table("release_component")
    op.drop_table("release")
    for table in ("alert", "alert_rule"):
        op.execute(f"DELETE FROM {table} WHERE kind = '{_ALERT}'")  # noqa: S608 - our own words
    _allow_kinds(lambda kinds: [kind for kind in kinds if kind != _ALERT])


def _allow_kinds(change: Callable[[list[str]], list[str]]) -> None:
    is_open = sa.text("closed_at IS NULL")
    # A table that SQLite makes anew would have a whole index in the place of one for a part.
    op.drop_index("uq_alert_open", "alert")
    for table in ("alert", "alert_rule"):
        name = op.f(f"ck_{table}_kind")
        allowed = ", ".join(f"'{kind}'" for kind in change(_kinds_of(table, str(name))))
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

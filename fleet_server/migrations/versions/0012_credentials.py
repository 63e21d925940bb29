"""Certificates with their history, roots that follow one another, tokens bound to what they are for, what nodes say of theirs."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True).with_variant(sa.Integer(), "sqlite")
_STATUS = ("certificate", "roots", "credential_state")
_TOKEN = ("model", "label", "made_by")
_NODES_AT_ONCE = 1000


def upgrade() -> None:
    _add_certificates()
    _add_roots()
    for name in _TOKEN:
        op.add_column("enrolment_token", sa.Column(name, sa.String(), nullable=True))
    op.add_column("enrolment_token", sa.Column("revoked_at", _MOMENT, nullable=True))
    for name in _STATUS:
        op.add_column("node_status", sa.Column(name, sa.String(), nullable=True))


def downgrade() -> None:
    for name in _STATUS:
        op.drop_column("node_status", name)
    for name in (*_TOKEN, "revoked_at"):
        op.drop_column("enrolment_token", name)
    op.drop_table("trusted_root")
    op.drop_table("certificate")


def _add_certificates() -> None:
    certificates = op.create_table(
        "certificate",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("issued_at", _MOMENT, nullable=False),
        sa.Column("renew_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "state IN ('current', 'offered', 'superseded', 'revoked')",
            name=op.f("ck_certificate_state"),
        ),
        sa.ForeignKeyConstraint(["node_id"], ["node.node_id"], name=op.f("fk_certificate_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certificate")),
        sa.UniqueConstraint("serial", name=op.f("uq_certificate_serial")),
    )
    for state in ("current", "offered"):
        where = sa.text(f"state = '{state}'")
        op.create_index(
            f"uq_certificate_{state}",
            "certificate",
            ["node_id"],
            unique=True,
            sqlite_where=where,
            postgresql_where=where,
        )
    op.create_index(op.f("ix_certificate_node_id"), "certificate", ["node_id"])
    op.create_index(op.f("ix_certificate_name"), "certificate", ["name"])
    op.create_index("ix_certificate_renew_at", "certificate", ["state", "renew_at"])
    op.create_index("ix_certificate_changed_at", "certificate", ["state", "changed_at"])
    _enter_what_nodes_have(certificates)


def _enter_what_nodes_have(certificates: sa.Table) -> None:
    """A page of nodes at a time. A revoked node's certificate is revoked; every other one is current."""
    node = sa.table(
        "node", *(sa.column(name) for name in ("node_id", "state", "certificate_pem")), sa.column("enrolled_at", _MOMENT)
    )  # fmt: skip
    last = ""
    while True:
        query = (
            sa.select(node)
            .where(node.c.node_id > last, node.c.certificate_pem.is_not(None))
            .order_by(node.c.node_id)
            .limit(_NODES_AT_ONCE)
        )
        rows = op.get_bind().execute(query).all()
        if not rows:
            return
        last = rows[-1].node_id
        op.bulk_insert(certificates, [_entry(row) for row in rows])


def _entry(row: Any) -> dict[str, object]:
    certificate = x509.load_pem_x509_certificate(row.certificate_pem.encode())
    der = certificate.public_bytes(Encoding.DER)
    # PostgreSQL has moments, SQLite seconds.
    is_moment = isinstance(row.enrolled_at, datetime)
    issued_s = int(row.enrolled_at.timestamp()) if is_moment else row.enrolled_at
    expires_s = int(certificate.not_valid_after_utc.timestamp())

    def moment(seconds: int) -> object:
        return datetime.fromtimestamp(seconds, UTC) if is_moment else seconds

    return {
        "node_id": row.node_id,
        "name": hashlib.sha256(der).hexdigest()[:16],
        "serial": f"{certificate.serial_number:x}",
        "der": der,
        "issued_at": moment(issued_s),
        "renew_at": moment(issued_s + (expires_s - issued_s) * 2 // 3),
        "expires_at": moment(expires_s),
        "state": "revoked" if row.state == "revoked" else "current",
        "changed_at": moment(issued_s),
    }


def _add_roots() -> None:
    op.create_table(
        "trusted_root",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "state IN ('next', 'current', 'old', 'dropped')", name=op.f("ck_trusted_root_state")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_trusted_root")),
    )
    where = sa.text("state = 'current'")
    op.create_index(
        "uq_trusted_root_current",
        "trusted_root",
        ["state"],
        unique=True,
        sqlite_where=where,
        postgresql_where=where,
    )

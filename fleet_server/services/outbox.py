"""The outbox: notes that a state of a node changed, in the transaction that changes it. Drained by `services/publishing.py`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Table
from sqlalchemy.orm import Session

from fleet_server.models import Outbox
from fleet_server.services import bulk


def mark_changed(session: Session, kind: str, node_ids: Iterable[str], *, now: datetime) -> None:
    """Note that a state of these nodes changed. Part of the caller's transaction; any number of changes stay one row."""
    changed_s = int(now.timestamp())
    table: Table = Outbox.__table__  # type: ignore[assignment]  # of a mapped class it is one
    bulk.insert_or_change(
        session,
        table,
        ("kind", "key", "version", "published_version", "changed_at"),
        [(kind, node_id, 1, 0, changed_s) for node_id in sorted(set(node_ids))],
        key="kind, key",
        change="version = outbox.version + 1, changed_at = excluded.changed_at",
    )

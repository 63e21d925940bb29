"""The outbox: notes that a state of a node changed, in the transaction that changes it. Drained by `services/publishing.py`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fleet_server.models import Outbox


def mark_changed(session: Session, kind: str, node_ids: Iterable[str], *, now: datetime) -> None:
    """Note that a state of these nodes changed. Part of the caller's transaction; any number of changes stay one row."""
    rows = [
        {"kind": kind, "key": node_id, "version": 1, "published_version": 0, "changed_at": now}
        for node_id in sorted(set(node_ids))
    ]
    if not rows:
        return
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(Outbox)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["kind", "key"],
            set_={"version": Outbox.version + 1, "changed_at": statement.excluded.changed_at},
        ),
        rows,
    )

"""The audit log in pages, newest first. Reads only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.models import AuditEntry
from fleet_server.services import auditing, keyset

_BY_SEQ = keyset.Sorting((AuditEntry.seq,), (int,), is_descending=True)  # type: ignore[arg-type] # a column of a class


def entry_page(
    session: Session,
    *,
    limit: int,
    after: keyset.Key | None = None,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
) -> keyset.Page[AuditEntry]:
    """Entries that concern who reads; only those of an actor, an action or a subject, or from a moment on. One statement."""
    query = select(AuditEntry).where(*auditing.concerning_reader(session))
    for column, wanted in (
        (AuditEntry.actor, actor),
        (AuditEntry.action, action),
        (AuditEntry.subject, subject),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if since is not None:
        query = query.where(AuditEntry.at >= since)
    return keyset.page_of(
        session, query, _BY_SEQ, limit=limit, after=after, made=lambda row: row[0]
    )

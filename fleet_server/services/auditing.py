"""The audit log: entries that can be added, and never changed unseen.

Each entry's hash covers what it says and the hash before it. Whoever changes or takes out an entry would have to write all later
ones anew; who once noted the head (`fleet audit verify` shows it) sees that too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, String, case, cast, func, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from fleet_server import db
from fleet_server.models import ApiKey, AuditEntry, AuditHead, Node, Scope, Site, User
from fleet_server.services import rights

FIRST_SHA256 = "0" * 64
"""What the first entry follows."""
_ENTRIES_AT_ONCE = 1000

Detail = str | int | bool | None | Sequence["Detail"] | Mapping[str, "Detail"]
"""What keeps its bytes on every database: no fractions."""


@dataclass(frozen=True)
class Head:
    """The newest entry."""

    seq: int
    sha256: str


@dataclass(frozen=True)
class ChainReport:
    """`fault`: one sentence on the first entry that does not follow from those before it; None when all do."""

    entries: int
    head: Head
    fault: str | None


def record(
    session: Session,
    action: str,
    *,
    subject: str,
    now: datetime,
    by: str | None = None,
    **details: Detail,
) -> AuditEntry:
    """Add an entry in the caller's transaction, by whoever acts in this session (`rights.act_as`).

    Args:
        action: past tense, like `node_configured`.
        subject: kind and name of what it was done to, like `node n-3f9a1c`.
        by: who did it, where that is nobody with an account (a bench with its token).
        details: what somebody would ask next. Never a secret.
    """
    with db.writing(session):
        head = session.get_one(AuditHead, 1, with_for_update=True, populate_existing=True)
        entry = AuditEntry(
            seq=head.seq + 1,
            at=now.replace(microsecond=0),
            actor=by or rights.actor_of(session).name,
            action=action,
            subject=subject,
            details=dict(details),
            previous_sha256=head.sha256,
        )
        entry.sha256 = _sha256(entry)
        session.add(entry)
        head.seq, head.sha256 = entry.seq, entry.sha256
        session.flush()
    return entry


def verify_chain(session: Session, *, expected: Head | None = None) -> ChainReport:
    """Follow the chain from its first entry to its head.

    Args:
        expected: a head that somebody noted once; it must still be in the chain.
    """
    head = session.get_one(AuditHead, 1, populate_existing=True)
    seq, sha256, fault = 0, FIRST_SHA256, None
    while fault is None and (entries := _entries_after(session, seq)):
        for entry in entries:
            fault = _fault_of(entry, seq + 1, sha256)
            if fault is not None:
                break
            seq, sha256 = entry.seq, entry.sha256
            if expected is not None and seq == expected.seq and sha256 != expected.sha256:
                fault = f"Entry {seq} is not the one that was noted: it was written anew."
                break
        session.expunge_all()
    if fault is None and (seq, sha256) != (head.seq, head.sha256):
        fault = (
            f"The log ends at entry {seq}, but {head.seq} were written: the last ones are missing."
        )
    if fault is None and expected is not None and expected.seq > seq:
        fault = f"The log ends at entry {seq}; entry {expected.seq}, which was noted, is missing."
    return ChainReport(entries=seq, head=Head(head.seq, head.sha256), fault=fault)


def log_head(session: Session) -> Head:
    """The newest entry, to be noted somewhere else."""
    row = session.get_one(AuditHead, 1, populate_existing=True)
    return Head(row.seq, row.sha256)


def newest_entries(
    session: Session,
    *,
    limit: int,
    before_seq: int | None = None,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
) -> list[AuditEntry]:
    """Newest first, as far as they concern who reads; only those of an actor, an action or a subject where named. One statement."""
    query = select(AuditEntry).where(*concerning_reader(session))
    query = query.order_by(AuditEntry.seq.desc()).limit(limit)
    if before_seq is not None:
        query = query.where(AuditEntry.seq < before_seq)
    for column, wanted in (
        (AuditEntry.actor, actor),
        (AuditEntry.action, action),
        (AuditEntry.subject, subject),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    return list(session.scalars(query))


def concerning_reader(session: Session) -> list[ColumnElement[bool]]:
    """Conditions for entries that who reads has to do with: all of them, or what was done to the own kind of sites and their nodes, to
    accounts and keys of the own scope. What may be about both (groups, changes, settings) is for who has to do with all.
    """
    actor = rights.actor_of(session)
    if actor.scope is Scope.ALL:
        return []
    subject = AuditEntry.subject
    key_name = literal("key ") + cast(ApiKey.id, String) + " of " + User.name
    mine = (
        select(Node.node_id).where(
            Node.node_id == _named(subject, "node "),
            Node.model.in_(rights.node_models(session) or ()),
        ),
        select(Site.id).where(
            Site.code == _named(subject, "site "), Site.kind.in_(actor.site_kinds)
        ),
        select(User.id).where(User.name == _named(subject, "account "), User.scope == actor.scope),
        select(ApiKey.id).join(ApiKey.user).where(key_name == subject, User.scope == actor.scope),
    )
    return [or_(*(found.exists() for found in mine))]


def _named(subject: InstrumentedAttribute[str], kind: str) -> ColumnElement[str | None]:
    """The name of a subject of this kind; null of another."""
    return case((subject.startswith(kind), func.substr(subject, len(kind) + 1)))


def _entries_after(session: Session, seq: int) -> list[AuditEntry]:
    query = select(AuditEntry).where(AuditEntry.seq > seq).order_by(AuditEntry.seq)
    return list(session.scalars(query.limit(_ENTRIES_AT_ONCE)))


def _fault_of(entry: AuditEntry, seq: int, previous_sha256: str) -> str | None:
    if entry.seq != seq:
        return f"Entry {seq} is missing."
    if entry.previous_sha256 != previous_sha256:
        return f"Entry {seq} does not follow the entry before it: one of the two was changed."
    if entry.sha256 != _sha256(entry):
        return f"Entry {seq} was changed."
    return None


def _sha256(entry: AuditEntry) -> str:
    told = [
        entry.seq,
        int(entry.at.timestamp()),
        entry.actor,
        entry.action,
        entry.subject,
        entry.details,
        entry.previous_sha256,
    ]
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()

"""What came from nodes, in pages, newest first: packs, events, and what could not be stored. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import Event, Node, Pack, Quarantine
from fleet_server.services import keyset, rights

_BY_NUMBER = keyset.Sorting((Pack.spool, Pack.seq), (int, int), is_descending=True)  # type: ignore[arg-type] # columns of a class
_BY_PACK = keyset.Sorting((Event.pack_id,), (int,), is_descending=True)  # type: ignore[arg-type] # as above
_BY_ENTRY = keyset.Sorting((Quarantine.id,), (int,), is_descending=True)  # type: ignore[arg-type] # as above


@dataclass(frozen=True)
class PackLine:
    """One pack in a list; `claimed_at` is when it was sampled, as the node said."""

    id: int
    spool: int
    seq: int
    kind: str
    claimed_at: datetime | None
    received_at: datetime
    size_bytes: int


@dataclass(frozen=True)
class EventLine:
    pack_id: int
    name: str
    details: list[list[float | str]]
    happened_at: datetime | None


@dataclass(frozen=True)
class QuarantineLine:
    id: int
    node_id: str
    kind: str
    reason: str
    sentence: str
    received_at: datetime
    last_received_at: datetime
    times_received: int
    size_bytes: int


def pack_page(
    session: Session,
    node_id: str,
    *,
    limit: int,
    after: keyset.Key | None = None,
    spool: int | None = None,
) -> keyset.Page[PackLine]:
    """A node's packs by spool and number, highest first. Two statements.

    Raises:
        NotFound: no such node.
    """
    check_node(session, node_id)
    query = select(
        Pack.id,
        Pack.spool,
        Pack.seq,
        Pack.kind,
        Pack.claimed_at,
        Pack.received_at,
        func.length(Pack.payload).label("size_bytes"),
    ).where(Pack.node_id == node_id)
    if spool is not None:
        query = query.where(Pack.spool == spool)
    return keyset.page_of(
        session, query, _BY_NUMBER, limit=limit, after=after, made=lambda row: PackLine(*row[:7])
    )


def event_page(
    session: Session,
    node_id: str,
    *,
    limit: int,
    after: keyset.Key | None = None,
    name: str | None = None,
) -> keyset.Page[EventLine]:
    """A node's events, as they came. Two statements.

    Raises:
        NotFound: no such node.
    """
    check_node(session, node_id)
    query = select(Event.pack_id, Event.name, Event.details, Event.happened_at).where(
        Event.node_id == node_id
    )
    if name is not None:
        query = query.where(Event.name == name)
    return keyset.page_of(
        session, query, _BY_PACK, limit=limit, after=after, made=lambda row: EventLine(*row[:4])
    )


def quarantine_page(
    session: Session,
    *,
    limit: int,
    after: keyset.Key | None = None,
    node_id: str | None = None,
    reason: str | None = None,
) -> keyset.Page[QuarantineLine]:
    """What could not be stored. One statement; the payload itself stays in the database."""
    query = select(
        Quarantine.id,
        Quarantine.node_id,
        Quarantine.kind,
        Quarantine.reason,
        Quarantine.sentence,
        Quarantine.received_at,
        Quarantine.last_received_at,
        Quarantine.times_received,
        func.length(Quarantine.payload).label("size_bytes"),
    )
    for column, wanted in ((Quarantine.node_id, node_id), (Quarantine.reason, reason)):
        if wanted is not None:
            query = query.where(column == wanted)
    models = rights.node_models(session)
    if models is not None:
        own = select(Node.node_id).where(Node.model.in_(models))
        query = query.where(Quarantine.node_id.in_(own))
    return keyset.page_of(
        session, query, _BY_ENTRY, limit=limit, after=after, made=_quarantine_line
    )


def _quarantine_line(row: Any) -> QuarantineLine:
    return QuarantineLine(*row[:9])


def check_node(session: Session, node_id: str) -> None:
    """Raises NotFound when there is no such node, or the actor has nothing to do with it."""
    model = session.scalar(select(Node.model).where(Node.node_id == node_id))
    if model is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    rights.check_node_model(session, model, node_id=node_id)

"""The fleet in figures: how many nodes stand how, how many packs were stored, are missing, or were lost. Reads only.

Each figure is one statement over rows kept per node, however many packs there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from fleet_server.models import Counter, Gap, Node, NodeStatus, Pack, Quarantine, Receipt
from fleet_server.models.counter import PACKS_STORED
from fleet_server.models.gap import DECLARED_LOST, THINNED
from fleet_server.services import health, rights
from fleet_server.services.node_life import OUT_OF_SERVICE

TROUBLED = "troubled"
"""It reports in time, but with an error."""
HEALTH_WORDS = (
    health.Freshness.FRESH.value,
    TROUBLED,
    *(word.value for word in health.Freshness if word is not health.Freshness.FRESH),
)


@dataclass(frozen=True)
class PackTotals:
    """`missing`: numbers above a receipt and below the highest that came, which neither came nor were declared lost.

    Of those that were lost, the node kept the extremes of `thinned`.
    """

    stored: int
    missing: int
    lost: int
    thinned: int


def has_health(word: str, *, now: datetime) -> ColumnElement[bool]:
    """A condition on `node_status`: nodes with this word of `HEALTH_WORDS`."""
    has_error = func.coalesce(NodeStatus.last_error, "") != ""
    is_fresh = health.has_freshness(health.Freshness.FRESH, now=now)
    if word == TROUBLED:
        return and_(is_fresh, has_error)
    if word == health.Freshness.FRESH:
        return and_(is_fresh, ~has_error)
    return health.has_freshness(health.Freshness(word), now=now)


def health_counts(session: Session, *, now: datetime) -> Mapping[str, int]:
    """How many nodes in service that the actor has to do with have which word, in the order of `HEALTH_WORDS`. One statement."""
    # What most nodes are comes first: the database asks no further than it must.
    common = (health.Freshness.FRESH.value, TROUBLED, health.Freshness.OFFLINE.value)
    order = (*common, *(word for word in HEALTH_WORDS if word not in common))
    word = case(*((has_health(one, now=now), one) for one in order))
    # Few are out of service: passing them over costs less than looking each node up.
    over = select(Node.node_id).where(Node.state.in_(OUT_OF_SERVICE))
    query = (
        select(word.label("word"), func.count())
        .select_from(NodeStatus)
        .where(NodeStatus.node_id.not_in(over))
        .group_by("word")
    )
    models = rights.node_models(session)
    if models is not None:
        own = select(Node.node_id).where(Node.model.in_(models))
        query = query.where(NodeStatus.node_id.in_(own))
    counted = {row[0]: int(row[1]) for row in session.execute(query)}
    return {one: counted.get(one, 0) for one in HEALTH_WORDS}


def pack_totals(session: Session, node_id: str | None = None) -> PackTotals:
    """Of the whole fleet, or of one node. One statement."""

    def of_it(column: Any) -> list[ColumnElement[bool]]:
        return [] if node_id is None else [column == node_id]

    is_stored = (Counter.name == PACKS_STORED, *of_it(Counter.node_id))
    is_lost = (Gap.state == DECLARED_LOST, *of_it(Gap.node_id))
    is_open = (Receipt.highest_seq > Receipt.seq, *of_it(Receipt.node_id))
    numbers = func.sum(Gap.to_seq - Gap.from_seq + 1)
    above = (Pack.node_id == Receipt.node_id, Pack.spool == Receipt.spool, Pack.seq > Receipt.seq)
    unreadable = (
        Quarantine.node_id == Receipt.node_id,
        Quarantine.spool == Receipt.spool,
        Quarantine.seq > Receipt.seq,
        Quarantine.seq <= Receipt.highest_seq,
    )
    asked = (
        select(func.sum(Counter.count)).where(*is_stored),
        select(func.sum(Receipt.highest_seq - Receipt.seq)).where(*is_open),
        select(func.count()).select_from(Receipt).join(Pack, and_(*above)).where(*is_open),
        select(func.count(func.distinct(Quarantine.id)))
        .select_from(Receipt)
        .join(Quarantine, and_(*unreadable))
        .where(*is_open),
        select(numbers).where(*is_lost),
        select(numbers).where(*is_lost, Gap.reason == THINNED),
    )
    row = session.execute(select(*(query.scalar_subquery() for query in asked))).one()
    stored, awaited, came, quarantined, lost, thinned = (int(value or 0) for value in row)
    return PackTotals(
        stored=stored, missing=max(0, awaited - came - quarantined), lost=lost, thinned=thinned
    )


def quarantine_size(session: Session) -> int:
    """Messages that could not be stored. One statement."""
    return session.scalar(select(func.count()).select_from(Quarantine)) or 0


def spool_depth(session: Session) -> int:
    """Packs that nodes hold without a receipt, as they said last. One statement."""
    return int(session.scalar(select(func.sum(NodeStatus.spool_depth))) or 0)

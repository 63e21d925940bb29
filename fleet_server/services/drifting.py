"""Which nodes do not run what is wanted of them, since when, and why. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from fleet_server.models import Configuration, Node, NodeStatus
from fleet_server.services import keyset, layering, selecting
from fleet_server.services.configuring import Standing, standing_of
from fleet_server.services.selecting import EVERYBODY, Selection

HELD_BACK = "held_back"
"""Beside the standings: what its layers want cannot be told to the node."""
REASONS = (
    Standing.ROLLED_BACK.value,
    Standing.REFUSED.value,
    HELD_BACK,
    Standing.TRIAL.value,
    Standing.WAITING.value,
)


@dataclass(frozen=True)
class Drift:
    """A node that does not run what is wanted of it since `since`; `why` in its own words, or the server's where it was not told."""

    node_id: str
    label: str
    model: str
    reason: str
    why: str | None
    since: datetime
    version: int
    running_version: int | None
    last_heard_at: datetime | None


def drift_page(
    session: Session,
    selection: Selection = EVERYBODY,
    *,
    reason: str | None = None,
    limit: int = 50,
    after: keyset.Key | None = None,
) -> keyset.Page[Drift]:
    """Nodes that drift and that the actor has to do with, by node id. One statement (one more to find a group by its name).

    Args:
        reason: Only those that drift for this, of `REASONS`.
    """
    query = _drifting(session, selection)
    if reason == HELD_BACK:
        query = query.where(Configuration.held_back.is_not(None))
    elif reason is not None:
        query = query.where(Configuration.held_back.is_(None), standing_of() == reason)
    sorting = keyset.Sorting((Configuration.node_id,), (str,))  # type: ignore[arg-type] # a column of a class
    return keyset.page_of(session, query, sorting, limit=limit, after=after, made=_drift)


def drift_counts(session: Session, selection: Selection = EVERYBODY) -> Mapping[str, int]:
    """How many nodes drift, by reason. One statement (one more to find a group by its name)."""
    drifting = _drifting(session, selection).subquery()
    rows = session.execute(
        select(drifting.c.standing, drifting.c.held_back.is_not(None), func.count()).group_by(
            drifting.c.standing, drifting.c.held_back.is_not(None)
        )
    )
    counts = dict.fromkeys(REASONS, 0)
    for standing, is_held_back, count in rows:
        counts[HELD_BACK if is_held_back else standing] += count
    return counts


def _drifting(session: Session, selection: Selection) -> Select[*tuple[Any, ...]]:
    standing = standing_of().label("standing")
    return (
        select(
            Node.node_id,
            Node.label,
            Node.model,
            standing,
            Configuration.held_back,
            NodeStatus.config_reason,
            Configuration.changed_at,
            Configuration.version,
            NodeStatus.config_version,
            NodeStatus.last_heard_at,
        )
        .join(Configuration, Configuration.node_id == Node.node_id)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .where(
            or_(standing_of() != Standing.IN_FORCE.value, Configuration.held_back.is_not(None)),
            layering.has_identity(),
            Node.node_id.in_(selecting.nodes(session, selection)),
        )
    )


def _drift(row: Any) -> Drift:
    says_why = row.standing in (Standing.ROLLED_BACK, Standing.REFUSED)
    return Drift(
        node_id=row.node_id,
        label=row.label,
        model=row.model,
        reason=HELD_BACK if row.held_back is not None else row.standing,
        why=row.held_back or (row.config_reason if says_why else None),
        since=row.changed_at,
        version=row.version,
        running_version=row.config_version,
        last_heard_at=row.last_heard_at,
    )

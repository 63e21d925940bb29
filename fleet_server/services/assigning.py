"""Which release each node is told to run, and how far it is: the one place that writes it, for many nodes at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, Table, select, update
from sqlalchemy.orm import Session

from fleet_server.models import Campaign, CampaignNode, NodeStage, Release
from fleet_server.models.outbox import DESIRED
from fleet_server.services import bulk, outbox
from fleet_server.services.campaign_rules import Order, Standing
from fleet_server.wire.updates import Assignment

_U32_MAX = (1 << 32) - 1
_QUERY_KEYS = 1000
_COLUMNS = (
    "assignment",
    "stage",
    "attempt",
    "reason",
    "since",
    "deadline_at",
    "running_since",
    "is_assigned",
)
STANDING_COLUMNS = (
    CampaignNode.campaign_id,
    CampaignNode.node_id,
    CampaignNode.assignment,
    CampaignNode.stage,
    CampaignNode.attempt,
    CampaignNode.reason,
    CampaignNode.since,
    CampaignNode.deadline_at,
    CampaignNode.running_since,
    CampaignNode.is_assigned,
    Campaign.counter,
    Campaign.bundle_sha256,
    Campaign.micropython,
    Campaign.image_sha256,
    Campaign.time_outs_s,
)


class Moved(NamedTuple):
    """A node's row as it was read (with `STANDING_COLUMNS`), and where it stands now."""

    row: Any
    standing: Standing


def standings_query() -> Select[*tuple[Any, ...]]:
    """Rows of nodes with what is wanted of them; held until the transaction ends."""
    return (
        select(*STANDING_COLUMNS)
        .join(Campaign, Campaign.id == CampaignNode.campaign_id)
        .with_for_update(of=CampaignNode)
    )


def standing_of(row: Any) -> Standing:
    return Standing(
        NodeStage(row.stage),
        row.attempt,
        row.since,
        row.reason,
        row.deadline_at,
        row.running_since,
    )


def order_of(row: Any) -> Order:
    return Order(row.assignment, row.counter, row.bundle_sha256, row.micropython, row.image_sha256)


def keep(session: Session, moved: Iterable[Moved], *, now: datetime) -> None:
    """Write where these nodes stand now, and have them told where that changes what they are told. Part of the caller's transaction."""
    changed = [one for one in moved if one.standing != standing_of(one.row)]
    rows = [
        (
            one.row.assignment,
            one.standing.stage.value,
            one.standing.attempt,
            one.standing.reason,
            int(one.standing.since.timestamp()),
            _seconds(one.standing.deadline_at),
            _seconds(one.standing.running_since),
            one.standing.is_open,
        )
        for one in changed
    ]
    table: Table = CampaignNode.__table__  # type: ignore[assignment] # of a mapped class it is one
    bulk.update_rows(session, table, _COLUMNS, sorted(rows))
    told = [one.row.node_id for one in changed if one.standing.is_open != one.row.is_assigned]
    if told:
        outbox.mark_changed(session, DESIRED, told, now=now)


def let_go(session: Session, *conditions: Any, now: datetime, **values: Any) -> int:
    """Tell the nodes that these conditions find nothing of it any more. Returns how many. Part of the caller's transaction."""
    rows = session.execute(
        update(CampaignNode)
        .where(*conditions)
        .values(is_assigned=False, deadline_at=None, **values)
        .returning(CampaignNode.node_id)
        .execution_options(synchronize_session=False)
    )
    node_ids = list(rows.scalars())
    if node_ids:
        outbox.mark_changed(session, DESIRED, node_ids, now=now)
    return len(node_ids)


def new_assignments(session: Session, count: int) -> list[int]:
    """Numbers that no assignment has. Drawn, not counted: a server restored from a backup must not give out again what a node knows."""
    drawn: set[int] = set()
    while len(drawn) < count:
        more = {1 + secrets.randbelow(_U32_MAX) for _ in range(count - len(drawn))}
        for some in bulk.chunks(sorted(more), _QUERY_KEYS):
            taken = select(CampaignNode.assignment).where(CampaignNode.assignment.in_(some))
            more -= set(session.scalars(taken))
        drawn |= more
    return list(drawn)


def releases_to_tell(session: Session, node_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`release` of the desired states of those of these nodes that are told one. One statement."""
    rows = session.execute(
        select(
            CampaignNode.node_id,
            CampaignNode.assignment,
            CampaignNode.attempt,
            CampaignNode.not_before_at,
            CampaignNode.until_at,
            Release.target_path,
            Release.counter,
        )
        .join(Campaign, Campaign.id == CampaignNode.campaign_id)
        .join(Release, Release.id == Campaign.release_id)
        .where(CampaignNode.node_id.in_(node_ids), CampaignNode.is_assigned)
    )
    return {
        row.node_id: Assignment(
            assignment=row.assignment,
            attempt=row.attempt,
            target=row.target_path,
            counter=row.counter,
            not_before_s=_seconds(row.not_before_at) or 0,
            until_s=_seconds(row.until_at) or 0,
        ).as_fields()
        for row in rows
    }


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())

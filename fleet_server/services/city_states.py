"""What the city decided of its sites: every site's state with its reasons, kept as a history, and made anew by the worker.

A site has one open row. A new one begins when the state becomes another one or rests on something else; until then the open row is kept up
to date with the newest numbers. What is over is never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, insert, or_, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.city.evidence import (
    GOOD,
    TREE_STATES,
    UNKNOWN,
    WATER_STATES,
    Reason,
    reason_from_data,
    reason_to_data,
)
from fleet_server.city.rules import TreeRules, WaterRules
from fleet_server.city.tree_status import state_of_tree
from fleet_server.city.water_status import (
    Memory,
    memory_from_data,
    memory_to_data,
    next_state,
)
from fleet_server.errors import NotFound, Said
from fleet_server.models import CityState, Site
from fleet_server.services import bulk, city_inputs, keyset, rights
from fleet_server.services.city_rules import SITE_KINDS, InForce, RuleBook

EVERY_S = 60
"""So often a site is looked at."""
_SITES_AT_ONCE = 100
_MOST_SITES = 2000
_MOST_DECISIVE = 3
RANK_OF_UNKNOWN = 0.5
"""On a list: before what is good, after what calls for somebody."""


@dataclass(frozen=True)
class Decision:
    """What was found of one site at one moment."""

    site: Site
    state: str
    at_worst: str
    reasons: tuple[Reason, ...]
    rules: InForce
    reference_id: int | None = None
    memory: Memory | None = None

    @property
    def topics(self) -> list[tuple[object, ...]]:
        """What it rests on, without the numbers."""
        return sorted((reason.topic for reason in self.reasons), key=str)


@dataclass(frozen=True)
class DecidedSite:
    """A site with its state as the last look found it; without a row nobody has looked yet, and it is unknown."""

    site: Site
    row: CityState | None

    @property
    def state(self) -> str:
        return UNKNOWN if self.row is None else self.row.state

    @property
    def reasons(self) -> tuple[Reason, ...]:
        if self.row is None:
            return (Reason("not_looked_at", UNKNOWN),)
        return tuple(reason_from_data(data) for data in self.row.reasons)

    @property
    def decisive(self) -> int:
        """How many of the reasons, which begin with the worst, make the state what it is: at least one, at most three."""
        same = sum(reason.state == self.state for reason in self.reasons)
        return min(_MOST_DECISIVE, max(1, same))


# -------------------------------------------------------------------------------------------------------------- deciding


def evaluate_due(
    session: Session,
    *,
    now: datetime,
    limit: int = _MOST_SITES,
    sites_at_once: int = _SITES_AT_ONCE,
) -> int:
    """Look at sites that were not looked at for a minute, those first that wait longest; returns how many there were.

    Committed some sites at a time; safe to end at any point and to repeat.
    """
    due = _due(session, now=now, limit=limit)
    for some in bulk.chunks(due, sites_at_once):
        _evaluate(session, list(some), now=now)
    return len(due)


def decide(
    session: Session,
    sites: Sequence[Site],
    memories: dict[int, Memory],
    *,
    at: datetime,
) -> list[Decision]:
    """What is to be said of these sites at a moment, from what was known then; nothing is written. At most a dozen statements.

    Args:
        memories: by site, where the ladders of waters stood before.
    """
    trees = [site for site in sites if site.kind == "tree"]
    waters = [site for site in sites if site.kind == "water"]
    return [*_decide_trees(session, trees, at), *_decide_waters(session, waters, memories, at)]


def explain(
    session: Session, site_id: int, *, now: datetime, at: datetime | None = None
) -> Decision:
    """Why a site is in its state: looked at anew, now or as it was at an earlier moment; nothing is written.

    Raises:
        NotFound: there is no such site, or the actor has nothing to do with it.
    """
    site = session.get(Site, site_id)
    if site is None:
        raise NotFound("There is no site %(code)s.", code=site_id)
    rights.check_site_kind(session, site.kind, what=Said("site %(code)s", code=site.code))
    moment = now if at is None else at
    before = session.scalar(
        select(CityState.memory)
        .where(CityState.site_id == site_id, CityState.from_at <= moment)
        .order_by(CityState.from_at.desc(), CityState.id.desc())
        .limit(1)
    )
    (found,) = decide(session, [site], {site_id: memory_from_data(before)}, at=moment)
    return found


def _decide_trees(session: Session, sites: Sequence[Site], at: datetime) -> list[Decision]:
    if not sites:
        return []
    book = RuleBook(session, "trees", at=at)
    found = []
    for one in city_inputs.tree_inputs(session, sites, at=at):
        rules = book.of(one.site.id, one.site.tree_group)
        assert isinstance(rules.rules, TreeRules)  # noqa: S101 - its kind
        state = state_of_tree(one.tree, rules.rules, at=at)
        found.append(
            Decision(one.site, state.state, state.at_worst, state.reasons, rules, one.reference_id)
        )
    return found


def _decide_waters(
    session: Session, sites: Sequence[Site], memories: dict[int, Memory], at: datetime
) -> list[Decision]:
    if not sites:
        return []
    book = RuleBook(session, "waters", at=at)
    found = []
    for one in city_inputs.water_inputs(session, sites, at=at):
        rules = book.of(one.site.id)
        assert isinstance(rules.rules, WaterRules)  # noqa: S101 - its kind
        state = next_state(memories.get(one.site.id, {}), one.water, rules.rules, at=at)
        found.append(
            Decision(
                one.site, state.state, state.at_worst, state.reasons, rules, memory=state.memory
            )
        )
    return found


def _due(session: Session, *, now: datetime, limit: int) -> list[int]:
    is_due = or_(CityState.id.is_(None), CityState.evaluated_at <= now - timedelta(seconds=EVERY_S))
    query = (
        select(Site.id)
        .outerjoin(CityState, _is_open())
        .where(city_inputs.is_decided(), is_due)
        .order_by(CityState.evaluated_at.asc().nulls_first(), Site.id)
        .limit(limit)
    )
    return list(session.scalars(query))


def _is_open() -> ColumnElement[bool]:
    return (CityState.site_id == Site.id) & CityState.to_at.is_(None)


def _evaluate(session: Session, site_ids: list[int], *, now: datetime) -> None:
    """Read and decide first, then write: ingest waits only for the writing."""
    sites = list(session.scalars(select(Site).where(Site.id.in_(site_ids))))
    seen = {
        row.site_id: (row.id, row.evaluated_at, memory_from_data(row.memory))
        for row in _open_rows(session, site_ids)
    }
    memories = {site_id: memory for site_id, (_, _, memory) in seen.items()}
    decisions = decide(session, sites, memories, at=now)
    with db.writing(session):
        rows = {row.site_id: row for row in _open_rows(session, site_ids, for_update=True)}
        untouched = []
        for decision in decisions:
            row, before = rows.get(decision.site.id), seen.get(decision.site.id)
            found = None if row is None else (row.id, row.evaluated_at)
            if found == (None if before is None else before[:2]):  # else another worker was here
                untouched.append((row, decision))
        _write(session, untouched, now=now)


def _open_rows(
    session: Session, site_ids: list[int], *, for_update: bool = False
) -> list[CityState]:
    query = select(CityState).where(CityState.site_id.in_(site_ids), CityState.to_at.is_(None))
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    return list(session.scalars(query))


def _write(
    session: Session, decisions: Sequence[tuple[CityState | None, Decision]], *, now: datetime
) -> None:
    kept, ended, new = [], [], []
    for row, decision in decisions:
        values: dict[str, Any] = {
            "at_worst": decision.at_worst,
            "reasons": [reason_to_data(reason) for reason in decision.reasons],
            "memory": memory_to_data(decision.memory or {}),
            "rule_set_id": decision.rules.rule_set_id,
            "is_inferred": decision.reference_id is not None,
            "evaluated_at": now,
        }
        if row is not None and _says_the_same(row, decision):
            kept.append({"id": row.id, **values})
            continue
        if row is not None:
            ended.append({"id": row.id, "to_at": now})
        new.append({"site_id": decision.site.id, "from_at": now, "state": decision.state, **values})
    if kept:
        session.execute(update(CityState), kept)
    if ended:  # first: there is one open row at a time
        session.execute(update(CityState), ended)
    if new:
        session.execute(insert(CityState), new)


def _says_the_same(row: CityState, decision: Decision) -> bool:
    topics = sorted((reason_from_data(data).topic for data in row.reasons), key=str)
    return (
        row.state == decision.state
        and row.rule_set_id == decision.rules.rule_set_id
        and row.is_inferred == (decision.reference_id is not None)
        and topics == decision.topics
    )


# --------------------------------------------------------------------------------------------------------------- showing


def rank_of(state: str) -> float:
    """How far up on a list: what calls loudest first, unknown before good."""
    if state == UNKNOWN:
        return RANK_OF_UNKNOWN
    states = WATER_STATES if state in WATER_STATES else TREE_STATES
    return float(states.index(state))


def states_of(
    session: Session,
    kind: str,
    *,
    limit: int,
    after: keyset.Key | None = None,
    state: str | None = None,
) -> keyset.Page[DecidedSite]:
    """Sites that something is decided of, the worst first, then by code. One statement.

    Args:
        kind: of rules, `trees` or `waters`.

    Raises:
        NotFound: there is no such kind, or the actor has nothing to do with it.
    """
    query = (
        select(Site, CityState)
        .outerjoin(CityState, _is_open())
        .where(Site.kind == _site_kind(session, kind), city_inputs.is_decided())
    )
    if state is not None:
        query = query.where(_state() == state)
    sorting = keyset.Sorting((_place(), Site.code), (int, str))  # type: ignore[arg-type] # a column of a class
    return keyset.page_of(
        session,
        query,
        sorting,
        limit=limit,
        after=after,
        made=lambda row: DecidedSite(row[0], row[1]),
    )


def counts_of(session: Session, kind: str) -> dict[str, int]:
    """How many sites are in each state, the worst first; those that nobody looked at are unknown. One statement."""
    rows = session.execute(
        select(CityState.state, func.count())
        .select_from(Site)
        .outerjoin(CityState, _is_open())
        .where(Site.kind == _site_kind(session, kind), city_inputs.is_decided())
        .group_by(CityState.state)
    )
    found = Counter[str]()
    for state, count in rows:
        found[state or UNKNOWN] += int(count)
    return dict(sorted(found.items(), key=lambda one: -rank_of(one[0])))


def state_of(session: Session, site_id: int) -> CityState | None:
    """The open row of a site. One statement."""
    return session.scalar(
        select(CityState).where(CityState.site_id == site_id, CityState.to_at.is_(None))
    )


def history_of(session: Session, site_id: int, *, limit: int) -> list[CityState]:
    """Its states, the newest first. One statement."""
    return list(
        session.scalars(
            select(CityState)
            .where(CityState.site_id == site_id)
            .order_by(CityState.from_at.desc(), CityState.id.desc())
            .limit(limit)
        )
    )


def last_look(session: Session, kind: str) -> datetime | None:
    """When a site of this kind was looked at last; None: never. One statement."""
    return session.scalar(
        select(func.max(CityState.evaluated_at))
        .join(Site, Site.id == CityState.site_id)
        .where(CityState.to_at.is_(None), Site.kind == SITE_KINDS[kind])
    )


def _site_kind(session: Session, kind: str) -> str:
    site_kind = SITE_KINDS.get(kind)
    if site_kind is None:
        raise NotFound("There are no states of %(kind)s.", kind=kind)
    rights.check_site_kind(session, site_kind, what=Said("states of %(kind)s", kind=kind))
    return site_kind


def _state() -> ColumnElement[str]:
    return func.coalesce(CityState.state, UNKNOWN)


def _place() -> ColumnElement[int]:
    """The worst first; what is good last."""
    places = {
        state: place
        for place, state in enumerate(
            sorted({*TREE_STATES, *WATER_STATES, UNKNOWN}, key=lambda one: -rank_of(one))
        )
    }
    return case(places, value=_state(), else_=places[GOOD])

"""What other rules would have meant: a year of stored observations decided by the rules in force and by the proposed ones.

Trees are looked at once a day, waters once an hour, in order, so that their ladders have a memory. Values are taken as they are known today:
the question is what the rules do, not what was known when. Where nothing could be said the day counts as unknown, for both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import clock
from fleet_server.city.evidence import Reading, Stream
from fleet_server.city.rules import Rules, TreeRules, WaterRules
from fleet_server.city.tree_status import Tree, age_in_years, state_of_tree
from fleet_server.city.water_status import Memory, Water, next_state
from fleet_server.errors import Invalid
from fleet_server.models import Site
from fleet_server.services import city_inputs, rights
from fleet_server.services.city_rules import (
    EVERYWHERE,
    SITE_KINDS,
    RuleBook,
    RuleScope,
    checked_rules,
)

LONGEST_DAYS = 366
_CITY = ZoneInfo(clock.TIME_ZONE)
_TREE_STEP, _WATER_STEP = timedelta(days=1), timedelta(hours=1)
_MORNING_H = 6
_BACK = timedelta(days=32)
"""Before the first look: no rule looks back further."""


@dataclass(frozen=True)
class Tally:
    """Of one state: at how many sites it was at least once, and how many looks found it."""

    sites: int = 0
    looks: int = 0


@dataclass(frozen=True)
class Rehearsal:
    """By state, before (the rules in force) and after (the proposed ones).

    `changed`: codes of sites of which another look than before found another state, with how many looks did.
    """

    kind: str
    days: int
    sites: int
    looks_per_day: int
    before: Mapping[str, Tally]
    after: Mapping[str, Tally]
    changed: Mapping[str, int]


@dataclass
class _Counting:
    before: dict[str, Counter[str]] = field(default_factory=dict)
    after: dict[str, Counter[str]] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)


def rehearse(
    session: Session,
    kind: str,
    body: Mapping[str, Any] | None,
    *,
    scope: RuleScope = EVERYWHERE,
    days: int = 365,
    now: datetime,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Rehearsal:
    """What would have been in the last `days` if these rules had held there; None: the more general ones. Nothing is written.

    Raises:
        NotFound: there is no such kind of rules, or the actor has nothing to do with it.
        CityRulesWrong: they are no rules.
        Invalid: so many days are not rehearsed.
    """
    book = RuleBook(session, kind, at=now)
    proposed = book.with_rules(scope, None if body is None else checked_rules(kind, body))
    if not 1 <= days <= LONGEST_DAYS:
        raise Invalid("A rehearsal looks back 1 to %(most)s days.", most=LONGEST_DAYS)
    rights.check_site_kind(session, SITE_KINDS[kind], what=kind)
    sites = _sites(session, kind, scope)
    counting = _Counting()
    for place, site in enumerate(sites):
        on_progress(place, len(sites))
        rules = book.of(site.id, site.tree_group).rules
        other = proposed.of(site.id, site.tree_group).rules
        _count(counting, site.code, _states(session, site, rules, other, days=days, now=now))
    step = _TREE_STEP if kind == "trees" else _WATER_STEP
    return Rehearsal(
        kind=kind,
        days=days,
        sites=len(sites),
        looks_per_day=int(timedelta(days=1) / step),
        before=_tallies(counting.before),
        after=_tallies(counting.after),
        changed=counting.changed,
    )


def _sites(session: Session, kind: str, scope: RuleScope) -> Sequence[Site]:
    query = select(Site).where(Site.kind == SITE_KINDS[kind], city_inputs.is_decided())
    if scope.site_id is not None:
        query = query.where(Site.id == scope.site_id)
    if scope.tree_group is not None:
        query = query.where(Site.tree_group == scope.tree_group)
    return session.scalars(query.order_by(Site.code)).all()


def _count(counting: _Counting, code: str, states: Iterator[tuple[str, str]]) -> None:
    before, after, changed = Counter[str](), Counter[str](), 0
    for one, other in states:
        before[one] += 1
        after[other] += 1
        changed += one != other
    counting.before[code], counting.after[code] = before, after
    if changed:
        counting.changed[code] = changed


def _tallies(by_site: Mapping[str, Counter[str]]) -> dict[str, Tally]:
    states = sorted({state for found in by_site.values() for state in found})
    return {
        state: Tally(
            sites=sum(state in found for found in by_site.values()),
            looks=sum(found[state] for found in by_site.values()),
        )
        for state in states
    }


def _states(
    session: Session, site: Site, rules: Rules, other: Rules, *, days: int, now: datetime
) -> Iterator[tuple[str, str]]:
    begin = now - timedelta(days=days)
    if site.kind == "tree":
        assert isinstance(rules, TreeRules) and isinstance(other, TreeRules)  # noqa: S101, PT018 - of one kind
        yield from _tree_states(session, site, rules, other, begin=begin, now=now)
    else:
        assert isinstance(rules, WaterRules) and isinstance(other, WaterRules)  # noqa: S101, PT018 - of one kind
        yield from _water_states(session, site, rules, other, begin=begin, now=now)


def _tree_states(
    session: Session,
    site: Site,
    rules: TreeRules,
    other: TreeRules,
    *,
    begin: datetime,
    now: datetime,
) -> Iterator[tuple[str, str]]:
    """Each morning at six by the city's clock."""
    (found,) = city_inputs.tree_inputs(session, [site], at=now)
    series = _Series(session, found.tree.streams, begin=begin, now=now)
    back = timedelta(hours=max(rules.oldest_reading_h, other.oldest_reading_h))
    for at in _mornings(begin, now):
        tree = replace(
            found.tree,
            streams=series.up_to(at, back),
            age_years=age_in_years(site.planted_year, at.astimezone(_CITY).year),
        )
        yield _tree_state(tree, rules, at), _tree_state(tree, other, at)


def _tree_state(tree: Tree, rules: TreeRules, at: datetime) -> str:
    return state_of_tree(tree, rules, at=at).state


def _mornings(begin: datetime, now: datetime) -> Iterator[datetime]:
    day = begin.astimezone(_CITY).date()
    while True:
        at = datetime(day.year, day.month, day.day, _MORNING_H, tzinfo=_CITY).astimezone(UTC)
        if at > now:
            return
        if at > begin:
            yield at
        day += timedelta(days=1)


def _water_states(
    session: Session,
    site: Site,
    rules: WaterRules,
    other: WaterRules,
    *,
    begin: datetime,
    now: datetime,
) -> Iterator[tuple[str, str]]:
    (found,) = city_inputs.water_inputs(session, [site], at=now)
    series = _Series(session, found.water.streams, begin=begin, now=now)
    memories: tuple[Memory, Memory] = ({}, {})
    at = begin + _WATER_STEP
    while at <= now:
        water = replace(found.water, streams=series.up_to(at, city_inputs.WATER_BACK))
        one, memory = _water_state(memories[0], water, rules, at)
        two, other_memory = (
            (one, memory) if rules == other else _water_state(memories[1], water, other, at)
        )
        memories = (memory, other_memory)
        yield one, two
        at += _WATER_STEP


def _water_state(
    memory: Memory, water: Water, rules: WaterRules, at: datetime
) -> tuple[str, Memory]:
    found = next_state(memory, water, rules, at=at)
    return found.state, found.memory


class _Series:
    """Readings of a site's streams over the whole time, and windows of them that only move on."""

    def __init__(
        self, session: Session, streams: Sequence[Stream], *, begin: datetime, now: datetime
    ) -> None:
        ids = [stream.datastream_id for stream in streams]
        self._readings = city_inputs.readings_of(
            session, ids, from_at=begin - _BACK, to_at=now, known_at=now
        )
        # Before its first reading nobody is missed.
        self._streams = [replace(stream, since=self._first(stream, now)) for stream in streams]
        self._spans = dict.fromkeys(ids, (0, 0))

    def _first(self, stream: Stream, now: datetime) -> datetime:
        readings = self._readings[stream.datastream_id]
        return readings[0].sampled_at if readings else now

    def up_to(self, at: datetime, back: timedelta) -> tuple[Stream, ...]:
        return tuple(
            replace(stream, readings=self._window(stream.datastream_id, at, back))
            for stream in self._streams
        )

    def _window(self, datastream_id: int, at: datetime, back: timedelta) -> tuple[Reading, ...]:
        readings = self._readings[datastream_id]
        first, end = self._spans[datastream_id]
        while end < len(readings) and readings[end].sampled_at <= at:
            end += 1
        while first < end and readings[first].sampled_at <= at - back:
            first += 1
        self._spans[datastream_id] = (first, end)
        return tuple(readings[first:end])

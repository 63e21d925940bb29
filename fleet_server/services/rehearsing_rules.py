"""What would become of flags if other limits were put in force. Reads only.

Made by the code that judges values when they are, so that what is told here is what happens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import Datastream, Observation, Site
from fleet_server.models.observation import observation_id
from fleet_server.services import quality_rules, rights
from fleet_server.services.judging import StreamJudge

LOOKED_AT = timedelta(days=365)
_MOST_STREAMS = 8
_EXAMPLES = 3


@dataclass(frozen=True)
class Example:
    """One value that would have another flag, by its public id."""

    observation_id: int
    sampled_at: datetime
    value: float


@dataclass(frozen=True)
class FlagStep:
    """So many values would go from one flag to another; the first of them."""

    before: int
    after: int
    count: int
    examples: Sequence[Example]


@dataclass(frozen=True)
class RulesRehearsal:
    """Of `compared` values sampled since `from_at`, by flag before and after; `left_out`: datastreams with older values, not looked at."""

    from_at: datetime
    compared: int
    steps: Sequence[FlagStep]
    streams: Sequence[tuple[Datastream, Site]]
    left_out: int

    @property
    def changed(self) -> int:
        return sum(step.count for step in self.steps)


def rehearse_rules(
    session: Session,
    observed_property: str,
    limits: Mapping[str, Any] | None,
    *,
    now: datetime,
    datastream_id: int | None = None,
) -> RulesRehearsal:
    """Judge the last year by limits as if they were in force, for a property or for one datastream of it; None: the general ones again.

    Both sides are judged from the stored values, so what still waits to be judged makes no difference.

    Raises:
        NotFound: there is no such property, or no such datastream of it that is the actor's business.
        RulesWrong: they are no limits; the sentence says where.
    """
    quality_rules.rules_of(session, observed_property, None)  # it is judged at all
    from_at = now - LOOKED_AT
    found = _streams(session, observed_property, datastream_id, from_at)
    shown = found[:_MOST_STREAMS]
    counts: dict[tuple[int, int], int] = {}
    examples: dict[tuple[int, int], list[Example]] = {}
    compared = 0
    for stream, _ in shown:
        compared += _compare(session, stream, limits, datastream_id, from_at, counts, examples)
    if not shown and limits is not None:
        quality_rules.check_limits(limits, observed_property)
    steps = [FlagStep(*step, count, examples[step]) for step, count in sorted(counts.items())]
    return RulesRehearsal(from_at, compared, steps, shown, len(found) - len(shown))


def _compare(
    session: Session,
    stream: Datastream,
    limits: Mapping[str, Any] | None,
    datastream_id: int | None,
    from_at: datetime,
    counts: dict[tuple[int, int], int],
    examples: dict[tuple[int, int], list[Example]],
) -> int:
    rules = quality_rules.rules_if(
        session, stream.property, limits, stream, is_for_series=datastream_id is not None
    )
    in_force = quality_rules.rules_of(session, stream.property, stream)
    if datastream_id is None and in_force.is_of_series:
        rules = in_force.rules  # its own go before its property's
    after_s = int(from_at.timestamp())
    times_s, values, before = _flags(StreamJudge(session, stream, in_force.rules), after_s)
    other_s, _, after = _flags(StreamJudge(session, stream, rules, is_rehearsed=True), after_s)
    _, here, there = np.intersect1d(times_s, other_s, assume_unique=True, return_indices=True)
    times_s, values, before, after = times_s[here], values[here], before[here], after[there]
    for place in np.flatnonzero(before != after).tolist():
        step = int(before[place]), int(after[place])
        counts[step] = counts.get(step, 0) + 1
        told = examples.setdefault(step, [])
        if len(told) < _EXAMPLES:
            at = datetime.fromtimestamp(int(times_s[place]), UTC)
            told.append(Example(observation_id(stream.id, at), at, float(values[place])))
    return times_s.size


def _flags(
    judge: StreamJudge, after_s: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int16]]:
    """Times, values and flags of all rows that have a value."""
    pieces = list(judge.pieces(after_s=after_s))
    times_s = np.concatenate([np.empty(0, np.int64), *(one.rows.times_s for one in pieces)])
    values = np.concatenate([np.empty(0), *(one.rows.values for one in pieces)])
    flags = np.concatenate([np.empty(0, np.int16), *(one.flags for one in pieces)])
    has_value = ~np.isnan(values)
    return times_s[has_value], values[has_value], flags[has_value]


def _streams(
    session: Session, observed_property: str, datastream_id: int | None, from_at: datetime
) -> list[tuple[Datastream, Site]]:
    """Those with values since then, the newest values first."""
    last_at = (
        select(func.max(Observation.sampled_at))
        .where(Observation.datastream_id == Datastream.id)
        .correlate(Datastream)
        .scalar_subquery()
    )
    query = (
        select(Datastream, Site)
        .join(Site, Site.id == Datastream.site_id)
        .where(
            Datastream.property == observed_property,
            Datastream.level == "calibrated",
            Site.kind.in_(rights.actor_of(session).site_kinds),
        )
        .order_by(last_at.desc(), Datastream.id)
    )
    if datastream_id is None:
        query = query.where(last_at > from_at)
    else:
        query = query.where(Datastream.id == datastream_id)
    found = [(row[0], row[1]) for row in session.execute(query)]
    if datastream_id is not None and not found:
        raise NotFound(
            "There is no datastream %(number)s of %(property)s.",
            number=datastream_id,
            property=observed_property,
        )
    return found

"""Whether a tree has water: its state from what probes in its soil say, by its age, its soil and their depths.

The driest judged depth decides. A tree is good only when enough of its judged depths are known to be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from fleet_server.city.evidence import (
    EXPANDED,
    GOOD,
    TREE_STATES,
    UNKNOWN,
    Reading,
    Reason,
    Stream,
    reason_of,
)
from fleet_server.city.rules import ContentLimits, TensionLimits, TreeRules
from fleet_server.measurement.soil_water import (
    SOIL_CLASSES,
    SoilClass,
    available_water_of_class,
    extractable_water_of_class,
)

TENSION: Final = "soil_water_tension"
CONTENT: Final = "soil_water_content"
RELATIVE: Final = "soil_moisture_index"
"""Wetter or drier than its own end points: no water content, so no state."""
PROPERTIES: Final = (TENSION, CONTENT, RELATIVE)
_GOOD, _MODERATE, _CRITICAL = range(3)


@dataclass(frozen=True)
class Tree:
    """A tree and what is measured at it; None: nobody knows it.

    `is_inferred`: the streams are those of another tree of its group.
    """

    streams: tuple[Stream, ...]
    age_years: int | None = None
    soil_class: str | None = None
    is_inferred: bool = False


@dataclass(frozen=True)
class TreeState:
    """`at_worst`: what it may be within U of what decides."""

    state: str
    at_worst: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class _Verdict:
    """Of one judged stream; `rank` and `at_worst` None: nothing was read. `is_known`: a trusted reading says so."""

    depth_cm: int
    rank: int | None
    at_worst: int | None
    is_known: bool
    reasons: tuple[Reason, ...]


def age_in_years(planted_year: int | None, year: int) -> int | None:
    """Years since planting, as the rules count them: 0 in the year of planting.

    >>> age_in_years(2024, 2026), age_in_years(None, 2026), age_in_years(2027, 2026)
    (2, None, 0)
    """
    return None if planted_year is None else max(0, year - planted_year)


def state_of_tree(tree: Tree, rules: TreeRules, *, at: datetime) -> TreeState:
    """The state at a moment, by readings that were sampled up to then."""
    judge = _Judge(tree, rules, at)
    verdicts: list[_Verdict] = []
    others: list[Reason] = []
    for stream in tree.streams:
        verdict = judge.verdict_on(stream)
        if isinstance(verdict, Reason):
            others.append(verdict)
        else:
            verdicts.append(verdict)
    reasons = [reason for verdict in verdicts for reason in verdict.reasons]
    if not verdicts:
        others.insert(0, Reason("no_probe", UNKNOWN))
    state = _combined(verdicts, rules)
    return TreeState(state, _worst_of(state, verdicts), _worst_first([*reasons, *others]))


def _combined(verdicts: Iterable[_Verdict], rules: TreeRules) -> str:
    verdicts = list(verdicts)
    worst = max((one.rank for one in verdicts if one.rank is not None), default=_GOOD)
    if worst > _GOOD:
        return TREE_STATES[worst]
    depths = {one.depth_cm for one in verdicts}
    known = {one.depth_cm for one in verdicts if one.is_known}
    needed = len(depths) if rules.good_needs_depths is None else rules.good_needs_depths
    return GOOD if known and len(known) >= needed else UNKNOWN


def _worst_of(state: str, verdicts: Iterable[_Verdict]) -> str:
    if state == UNKNOWN:
        return UNKNOWN
    return TREE_STATES[max(one.at_worst for one in verdicts if one.at_worst is not None)]


def _worst_first(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    def rank(reason: Reason) -> int:
        if reason.state in TREE_STATES[1:]:
            return -TREE_STATES.index(reason.state)
        return {UNKNOWN: 0, GOOD: 1}.get(reason.state, 2)

    return tuple(sorted(reasons, key=rank))


class _Judge:
    """Judges one tree's streams at one moment."""

    def __init__(self, tree: Tree, rules: TreeRules, at: datetime) -> None:
        self._tree, self._rules, self._at = tree, rules, at
        self._within = timedelta(hours=rules.oldest_reading_h)
        self._soil = SOIL_CLASSES.get(tree.soil_class or "")

    def verdict_on(self, stream: Stream) -> _Verdict | Reason:
        """A reason instead of a verdict: the stream is none that is judged."""
        if stream.property == RELATIVE:
            return reason_of(stream, None, "relative_only", "")
        limits = self._limits(stream)
        if limits is None:
            return reason_of(stream, None, "depth_not_judged", "")
        if isinstance(limits, ContentLimits) and self._soil is None:
            why = reason_of(stream, stream.last_usable, "no_soil_class", UNKNOWN)
            return _Verdict(stream.depth_cm, None, None, is_known=False, reasons=(why,))
        trusted = stream.trusted(at=self._at, within=self._within)
        newest = stream.usable(at=self._at, within=self._within)[-1:]
        judged = trusted[-1:] if trusted[-1:] == newest else [*trusted[-1:], *newest]
        found = [self._judged(stream, one, limits) for one in judged]
        reasons = [reason for _, _, reason in found]
        if not trusted:
            reasons.append(self._why_unknown(stream))
        return _Verdict(
            stream.depth_cm,
            max((rank for rank, _, _ in found), default=None),
            max((worst for _, worst, _ in found), default=None),
            is_known=bool(trusted),
            reasons=tuple(reasons),
        )

    def _limits(self, stream: Stream) -> TensionLimits | ContentLimits | None:
        of_tree = (self._tree.age_years, stream.depth_cm, self._tree.soil_class)
        if stream.property == TENSION:
            return self._rules.tension_of(*of_tree)
        return self._rules.content_of(*of_tree)

    def _why_unknown(self, stream: Stream) -> Reason:
        recent = stream.usable(at=self._at, within=self._within)
        if recent:
            return reason_of(stream, recent[-1], "only_suspect", UNKNOWN)
        last = stream.last_usable
        if last is None:
            return reason_of(stream, None, "never_read", UNKNOWN)
        hours = (self._at - last.sampled_at).total_seconds() / 3600
        return reason_of(stream, last, "too_old", UNKNOWN, hours=hours)

    def _judged(
        self, stream: Stream, reading: Reading, limits: TensionLimits | ContentLimits
    ) -> tuple[int, int, Reason]:
        """Rank, the rank that it may have within U, and the reason."""
        if isinstance(limits, TensionLimits):
            assert limits.moderate_kpa is not None and limits.critical_kpa is not None  # noqa: S101, PT018 - such rows judge nothing
            value, u = (
                reading.number,
                self._u(reading, self._rules.inferred_spread * reading.number),
            )
            first, second, kind = limits.moderate_kpa, limits.critical_kpa, "tension"
            rank, worst = (_tension_rank(v, first, second) for v in (value, value + EXPANDED * u))
        else:
            assert limits.moderate is not None and limits.critical is not None and self._soil  # noqa: S101, PT018 - as above
            value, u = self._available(reading, limits, self._soil, stream.depth_cm)
            first, second, kind = limits.moderate, limits.critical, limits.measure
            rank, worst = (_content_rank(v, first, second) for v in (value, value - EXPANDED * u))
        if self._tree.is_inferred:
            kind = f"inferred_{kind}"
        state = TREE_STATES[rank]
        reason = reason_of(
            stream,
            reading,
            f"{kind}_{state}",
            state,
            value=value,
            expanded_u=EXPANDED * u,
            limit=second if rank == _CRITICAL else first,
        )
        return rank, worst, reason

    def _u(self, reading: Reading, spread: float) -> float:
        return math.hypot(reading.expanded_u / EXPANDED, spread if self._tree.is_inferred else 0.0)

    def _available(
        self, reading: Reading, limits: ContentLimits, soil: SoilClass, depth_cm: int
    ) -> tuple[float, float]:
        u = self._u(reading, self._rules.inferred_spread_m3_m3)
        formula = (
            extractable_water_of_class if limits.measure == "rew" else available_water_of_class
        )
        found, u_found = formula(min(1.0, max(0.0, reading.number)), u, soil, depth_cm)
        return float(found), float(u_found)


def _tension_rank(tension_kpa: float, moderate_kpa: float, critical_kpa: float) -> int:
    if tension_kpa > critical_kpa:
        return _CRITICAL
    return _MODERATE if tension_kpa >= moderate_kpa else _GOOD


def _content_rank(available: float, moderate: float, critical: float) -> int:
    if available < critical:
        return _CRITICAL
    return _MODERATE if available < moderate else _GOOD


def inferred(tree: Tree, reference: Tree) -> Tree:
    """A tree without probes that stands for what another one of its group shows; its own age decides on the limits."""
    soil = tree.soil_class or reference.soil_class
    return replace(tree, streams=reference.streams, soil_class=soil, is_inferred=True)

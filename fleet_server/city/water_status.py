"""How a water stands: its state from its oxygen, warmth, pH and level, from signs of a bloom or of layers, and from what the night will bring.

Every quantity of every probe climbs a ladder of limits by itself; the worst decides. A ladder is climbed when two of its last three readings
are beyond a limit, and left when two are back by the hysteresis, so that a wiggle calls nobody. What every ladder last said is remembered:
`next_state` takes the memory and gives the next one. A water is good only when all that it is judged by is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fleet_server.city.evidence import (
    GOOD,
    UNKNOWN,
    WATER_STATES,
    Reading,
    Reason,
    Stream,
    reason_of,
)
from fleet_server.city.rules import FALLING, Ladder, WaterRules
from fleet_server.measurement.derived import unionised_ammonia

OXYGEN: Final = "dissolved_oxygen"
TEMPERATURE: Final = "water_temperature"
PH: Final = "ph"
SATURATION: Final = "oxygen_saturation"
LEVEL: Final = "water_level"
AMMONIUM: Final = "ammonium"
"""Total ammonia as nitrogen, mg/L: no probe of ours; from the laboratory or a test kit."""
PROPERTIES: Final = (OXYGEN, TEMPERATURE, PH, SATURATION, LEVEL)
_LADDER_OF: Final = {
    OXYGEN: "oxygen_mg_l",
    TEMPERATURE: "temperature_c",
    PH: "ph",
    SATURATION: "saturation_pct",
    LEVEL: "below_lowest_m",
}
DAY: Final = timedelta(hours=24)
_DECIDE = 3
_CONFIRM = 2


@dataclass(frozen=True)
class ExpectedLow:
    """What a forecast says of tonight's lowest oxygen: its median, mg/L, expected at `target_at`."""

    oxygen_mg_l: float
    issued_at: datetime
    target_at: datetime
    datastream_id: int | None = None


@dataclass(frozen=True)
class Water:
    """A water and what is measured in it.

    Attributes:
        streams: those that have a probe, with the readings of the last day.
        period_s: how often readings of it come in.
        lowest_level_m: below it the site is too low; None: nobody said.
        ammonium: the newest one that is known.
    """

    streams: tuple[Stream, ...]
    period_s: int = 3600
    lowest_level_m: float | None = None
    expected: ExpectedLow | None = None
    ammonium: Stream | None = None


@dataclass(frozen=True)
class Rung:
    """Where a ladder stands, and when it was last seen there."""

    state: str
    seen_at: datetime


Memory = Mapping[str, Rung]
"""By the ladder's name."""


@dataclass(frozen=True)
class WaterState:
    """`at_worst`: what it may be within U of what decides. `memory`: what `next_state` wants the next time."""

    state: str
    at_worst: str
    reasons: tuple[Reason, ...]
    memory: Memory = field(default_factory=dict)


def memory_to_data(memory: Memory) -> dict[str, Any]:
    """As JSON has it."""
    return {
        name: {"state": rung.state, "seen_at": int(rung.seen_at.timestamp())}
        for name, rung in memory.items()
    }


def memory_from_data(data: Mapping[str, Any] | None) -> Memory:
    """What `memory_to_data` wrote; nothing for None."""
    return {
        name: Rung(rung["state"], datetime.fromtimestamp(rung["seen_at"], UTC))
        for name, rung in (data or {}).items()
    }


def next_state(previous: Memory, water: Water, rules: WaterRules, *, at: datetime) -> WaterState:
    """The state at a moment, by readings that were sampled up to then and by where every ladder stood before."""
    return _Look(previous, water, rules, at).state()


def silent_after(water: Water, rules: WaterRules) -> timedelta:
    """For how long a probe may say nothing."""
    return timedelta(
        seconds=min(rules.silent_periods * water.period_s, 60.0 * rules.silent_at_most_min)
    )


@dataclass(frozen=True)
class _Finding:
    """Of one ladder; `rank` None: nothing speaks for or against any state."""

    rank: int | None
    at_worst: int
    reasons: tuple[Reason, ...]
    is_known: bool = True


class _Look:
    """One look at one water."""

    def __init__(self, previous: Memory, water: Water, rules: WaterRules, at: datetime) -> None:
        self._previous, self._water, self._rules, self._at = previous, water, rules, at
        self._within = silent_after(water, rules)
        self._memory: dict[str, Rung] = {}

    def state(self) -> WaterState:
        measured = [self._measured(stream) for stream in self._judged_streams()]
        findings = [*measured, *self._swings(), *self._layers(), *self._ammonia(), *self._night()]
        silence = self._silence()
        ranks = [one.rank for one in findings if one.rank is not None]
        ranks += [WATER_STATES.index(one.state) for one in silence if one.state in WATER_STATES]
        worst = max(ranks, default=0)
        reasons = [reason for one in findings for reason in one.reasons] + silence
        is_known = all(one.is_known for one in measured) and not silence
        state = WATER_STATES[worst] if worst > 0 else GOOD if is_known else UNKNOWN
        at_worst = max([worst, *(one.at_worst for one in findings)])
        return WaterState(
            state,
            UNKNOWN if state == UNKNOWN else WATER_STATES[at_worst],
            _worst_first(reasons),
            self._memory,
        )

    # ------------------------------------------------------------------------------------------------- what probes say

    def _judged_streams(self) -> list[Stream]:
        return [
            stream
            for stream in self._water.streams
            if stream.property in _LADDER_OF
            and not (stream.property == LEVEL and self._water.lowest_level_m is None)
        ]

    def _measured(self, stream: Stream) -> _Finding:
        """Of one probe: two of its last three readings decide."""
        name = _LADDER_OF[stream.property]
        trusted = stream.trusted(at=self._at, within=self._within)[-_DECIDE:]
        usable = stream.usable(at=self._at, within=self._within)[-_DECIDE:]
        if not usable:
            return self._without_reading(stream, name)
        by_all = self._climb(stream, name, usable)
        if not trusted:
            return self._suspect_only(stream, name, usable, by_all)
        by_trusted = self._climb(stream, name, trusted)
        rank = max(by_trusted, by_all)
        self._remember(name, stream, rank, usable[-1].sampled_at)
        decides = usable if by_all > by_trusted else trusted
        reasons = (self._why(stream, name, decides, rank),)
        at_worst = self._climb(stream, name, [_worse_by_u(name, one) for one in decides])
        return _Finding(rank, max(rank, at_worst), reasons)

    def _suspect_only(
        self, stream: Stream, name: str, readings: Sequence[Reading], by_all: int
    ) -> _Finding:
        """They may bring the ladder up; what it stood at before holds as it would without them."""
        silent = self._without_reading(stream, name)
        before = silent.rank or 0
        doubt = reason_of(stream, readings[-1], "only_suspect", UNKNOWN)
        if by_all <= before:
            return replace(silent, reasons=(*silent.reasons[1:], doubt))
        self._remember(name, stream, by_all, readings[-1].sampled_at)
        reasons = (self._why(stream, name, readings, by_all), doubt)
        return _Finding(by_all, by_all, reasons, is_known=False)

    def _without_reading(self, stream: Stream, name: str) -> _Finding:
        last = stream.last_usable
        reasons = [_absence(stream, last, UNKNOWN, self._at)]
        held = self._held(_key(name, stream))
        if held is None:
            return _Finding(None, 0, tuple(reasons), is_known=False)
        self._memory[_key(name, stream)] = held
        rank = WATER_STATES.index(held.state)
        if rank > 0:
            hours = _hours(self._at - held.seen_at)
            reasons.append(reason_of(stream, last, "held", held.state, hours=hours))
        return _Finding(rank, rank, tuple(reasons), is_known=False)

    def _climb(self, stream: Stream, name: str, readings: Sequence[Reading]) -> int:
        previous = self._held(_key(name, stream))
        values = [self._number(stream, one) for one in readings]
        return climbed(getattr(self._rules, name), values, previous, is_falling=name in FALLING)

    def _number(self, stream: Stream, reading: Reading) -> float:
        """What the ladder is about: of a level, by how much it is too low."""
        if stream.property == LEVEL:
            assert self._water.lowest_level_m is not None  # noqa: S101 - not judged otherwise
            return self._water.lowest_level_m - reading.number
        return reading.number

    def _why(self, stream: Stream, name: str, readings: Sequence[Reading], rank: int) -> Reason:
        """By the reading in the middle: with it two of three are there."""
        in_order = sorted(readings, key=lambda one: self._number(stream, one))
        middle = in_order[len(in_order) // 2] if len(in_order) > 2 else readings[-1]
        ladder: Ladder = getattr(self._rules, name)
        limit = _limit(ladder, rank)
        numbers = {"value": middle.number, "expanded_u": middle.expanded_u}
        if stream.property == LEVEL and self._water.lowest_level_m is not None:
            numbers["lowest"] = self._water.lowest_level_m
        elif limit is not None:
            numbers |= {"limit": limit, "back_at": _back_at(name, ladder, limit)}
        is_beyond = limit is not None and _is_beyond(
            self._number(stream, middle), limit, is_falling=name in FALLING
        )
        kind = "is" if rank == 0 else "beyond" if is_beyond else "not_back"
        return reason_of(stream, middle, f"{stream.property}_{kind}", WATER_STATES[rank], **numbers)

    def _silence(self) -> list[Reason]:
        """What no water is good without, and nobody measures or nothing is heard of."""
        reasons = []
        for needed in self._rules.good_needs:
            streams = [one for one in self._water.streams if one.property == needed]
            if not streams:
                reasons.append(Reason("not_measured", UNKNOWN, property=needed))
            elif not any(one.trusted(at=self._at, within=self._within) for one in streams):
                reasons += self._silence_of(streams)
        return reasons

    def _silence_of(self, streams: Sequence[Stream]) -> list[Reason]:
        def heard_at(stream: Stream) -> datetime:
            trusted = [one.sampled_at for one in stream.readings if one.is_trusted]
            begun = stream.since or datetime.min.replace(tzinfo=UTC)
            return max([begun, *(at for at in trusted if at <= self._at)])

        last = max(streams, key=heard_at)
        if self._at - heard_at(last) < self._within:
            return []  # it is new: its first reading is still to come
        numbers = {"allowed_min": self._within.total_seconds() / 60}
        newest = next((one for one in reversed(last.readings) if one.is_trusted), None)
        return [reason_of(last, newest, "silent", "warning", **numbers)]

    # ------------------------------------------------------------------------------------------------ what follows from it

    def _swings(self) -> list[_Finding]:
        """Day and night far apart: algae make oxygen by day and use it up by night. The lowest and highest of what there is."""
        findings = []
        for stream in self._water.streams:
            day = stream.trusted(at=self._at, within=DAY) if stream.property == OXYGEN else []
            if len(day) < 2:
                continue
            values = [one.number for one in day]
            swing = max(values) - min(values)
            numbers = {"value": swing, "low": min(values), "high": max(values)}
            findings.append(self._sign("swing_mg_l", stream, day[-1], swing, "swing", numbers))
        return findings

    def _layers(self) -> list[_Finding]:
        """Where warmth is measured at two depths: warm water lies on cold."""
        warmth = [
            (stream, recent[-1])
            for stream in self._water.streams
            if stream.property == TEMPERATURE
            and (recent := stream.trusted(at=self._at, within=self._within))
        ]
        warmth.sort(key=lambda one: one[0].depth_cm)
        if len(warmth) < 2 or warmth[0][0].depth_cm == warmth[-1][0].depth_cm:
            return []
        (top, at_top), (bottom, at_bottom) = warmth[0], warmth[-1]
        apart = at_top.number - at_bottom.number
        numbers = {"value": apart, "top_cm": top.depth_cm, "bottom_cm": bottom.depth_cm}
        return [self._sign("layered_k", bottom, at_bottom, apart, "layered", numbers)]

    def _ammonia(self) -> list[_Finding]:
        stream = self._water.ammonium
        within = timedelta(days=self._rules.ammonium_days)
        known = stream.trusted(at=self._at, within=within)[-1:] if stream else []
        warmth, acidity = self._newest(TEMPERATURE), self._newest(PH)
        if stream is None or not known or warmth is None or acidity is None:
            return []
        value = float(unionised_ammonia(known[0].number, warmth.number, acidity.number))
        if not math.isfinite(value):
            return []
        numbers = {"value": value, "ammonium": known[0].number, "ph": acidity.number}
        return [self._sign("ammonia_mg_l", stream, known[0], value, "ammonia", numbers)]

    def _newest(self, observed_property: str) -> Reading | None:
        recent = [
            reading
            for stream in self._water.streams
            if stream.property == observed_property
            for reading in stream.trusted(at=self._at, within=self._within)
        ]
        return max(recent, key=lambda one: one.sampled_at, default=None)

    def _night(self) -> list[_Finding]:
        """What is expected of a night that is not over yet."""
        expected = self._water.expected
        if expected is None or not expected.issued_at <= self._at <= expected.target_at:
            return []
        at, low = expected.issued_at, expected.oxygen_mg_l
        stream = Stream(expected.datastream_id or 0, OXYGEN, 0)
        reading = Reading(at, low, None, 1)
        return [self._sign("forecast_mg_l", stream, reading, low, "expected", {"value": low})]

    def _sign(
        self,
        name: str,
        stream: Stream,
        reading: Reading,
        value: float,
        kind: str,
        numbers: Mapping[str, float],
    ) -> _Finding:
        """A ladder of which one number decides; a reason only where it says something bad."""
        ladder: Ladder = getattr(self._rules, name)
        previous = self._held(_key(name, stream))
        rank = climbed(ladder, [value], previous, is_falling=name in FALLING, confirm=1)
        self._remember(name, stream, rank, reading.sampled_at)
        if rank == 0:
            return _Finding(0, 0, ())
        limit = _limit(ladder, rank)
        more = {} if limit is None else {"limit": limit, "back_at": _back_at(name, ladder, limit)}
        reason = reason_of(stream, reading, kind, WATER_STATES[rank], **numbers, **more)
        return _Finding(rank, rank, (reason,))

    # -------------------------------------------------------------------------------------------------------- the memory

    def _held(self, key: str) -> Rung | None:
        """Where a ladder stood, unless that is too long ago."""
        rung = self._previous.get(key)
        if rung is None or self._at - rung.seen_at > timedelta(hours=self._rules.held_h):
            return None
        return rung

    def _remember(self, name: str, stream: Stream, rank: int, seen_at: datetime) -> None:
        self._memory[_key(name, stream)] = Rung(WATER_STATES[rank], seen_at)


def climbed(
    ladder: Ladder,
    values: Sequence[float],
    previous: Rung | None,
    *,
    is_falling: bool,
    confirm: int = _CONFIRM,
) -> int:
    """The rank that a ladder has after these readings, of which `confirm` (or all, if they are fewer) must agree.

    It goes up to the worst limit that so many are beyond. It comes down from where it stood to the worst limit that not so many are back
    from, by the hysteresis; fewer readings than `confirm` bring nothing down.

    >>> oxygen = WaterRules().oxygen_mg_l
    >>> climbed(oxygen, [6.1, 5.9, 5.8], None, is_falling=True)
    1
    >>> climbed(oxygen, [5.8, 6.3, 6.4], Rung("watch", datetime.now(UTC)), is_falling=True)
    1
    """
    sign = -1.0 if is_falling else 1.0
    badness = [sign * value for value in values]
    up, stays = 0, 0
    for rank, limit in _limits(ladder):
        at = sign * limit
        if sum(value > at for value in badness) >= min(confirm, len(values)):
            up = rank
        if sum(value <= at - ladder.hysteresis for value in badness) < confirm:
            stays = rank
    before = 0 if previous is None else WATER_STATES.index(previous.state)
    return max(up, min(before, stays))


def _limits(ladder: Ladder) -> list[tuple[int, float]]:
    named = (ladder.watch, ladder.warning, ladder.alarm, ladder.emergency)
    return [(rank, limit) for rank, limit in enumerate(named, start=1) if limit is not None]


def _limit(ladder: Ladder, rank: int) -> float | None:
    """The limit that makes this rank; of the good ones the first that there is."""
    limits = dict(_limits(ladder))
    return limits.get(rank, min(limits.items())[1] if limits else None)


def _back_at(name: str, ladder: Ladder, limit: float) -> float:
    return limit + (ladder.hysteresis if name in FALLING else -ladder.hysteresis)


def _is_beyond(value: float, limit: float, *, is_falling: bool) -> bool:
    return value < limit if is_falling else value > limit


def _worse_by_u(name: str, reading: Reading) -> Reading:
    towards = -1.0 if name in FALLING or name == "below_lowest_m" else 1.0
    value = reading.number + towards * reading.expanded_u
    return Reading(reading.sampled_at, value, reading.u, reading.flag)


def _absence(stream: Stream, last: Reading | None, state: str, at: datetime) -> Reason:
    if last is None:
        return reason_of(stream, None, "never_read", state)
    return reason_of(stream, last, "too_old", state, hours=_hours(at - last.sampled_at))


def _hours(span: timedelta) -> float:
    return span.total_seconds() / 3600


def _key(name: str, stream: Stream) -> str:
    return f"{name}/{stream.depth_cm}"


def _worst_first(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    def rank(reason: Reason) -> float:
        if reason.state in WATER_STATES[1:]:
            return -WATER_STATES.index(reason.state)
        return 1 if reason.state == GOOD else 0.5 if reason.state == UNKNOWN else 2

    return tuple(sorted(reasons, key=rank))

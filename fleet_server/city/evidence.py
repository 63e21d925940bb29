"""What a decision rests on and what it says of that: readings of one place, the reasons for a state, and which state is worse.

A reading with flag 4 or 9 is none. One with flag 3 is suspect: it may make a state worse, never better. One with flag 2 (not evaluated) counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

GOOD: Final = "good"
UNKNOWN: Final = "unknown"
"""A state of its own: nothing is known to be wrong, and too little is known for good."""
TREE_STATES: Final = (GOOD, "moderate", "critical")
WATER_STATES: Final = (GOOD, "watch", "warning", "alarm", "emergency")
"""From the best to the worst; a state's place is its rank."""

_property = property  # `property` is also the field that our observations call so

TRUSTED_FLAGS: Final = (1, 2)
SUSPECT_FLAGS: Final = (3,)
EXPANDED: Final = 2.0
"""U = 2·u: the band within which a value lies in about 95 of 100 cases."""


@dataclass(frozen=True)
class Reading:
    """One observation: value and standard uncertainty in its stream's unit, quality flag."""

    sampled_at: datetime
    value: float | None
    u: float | None
    flag: int

    @property
    def number(self) -> float:
        """The value, NaN where there is none."""
        return math.nan if self.value is None else self.value

    @property
    def is_trusted(self) -> bool:
        return self.flag in TRUSTED_FLAGS and math.isfinite(self.number)

    @property
    def is_suspect(self) -> bool:
        return self.flag in SUSPECT_FLAGS and math.isfinite(self.number)

    @property
    def is_usable(self) -> bool:
        return self.is_trusted or self.is_suspect

    @property
    def expanded_u(self) -> float:
        """U; 0 where u is not known."""
        return EXPANDED * self.u if self.u is not None and math.isfinite(self.u) else 0.0


@dataclass(frozen=True)
class Stream:
    """Readings of one property at one depth, oldest first. `since`: from when on somebody measures there."""

    datastream_id: int
    property: str
    depth_cm: int
    readings: tuple[Reading, ...] = ()
    since: datetime | None = None

    def trusted(self, *, at: datetime, within: timedelta) -> list[Reading]:
        """Those that count, sampled in (at − within, at]."""
        return [one for one in self._recent(at, within) if one.is_trusted]

    def usable(self, *, at: datetime, within: timedelta) -> list[Reading]:
        """The suspect ones among them, too."""
        return [one for one in self._recent(at, within) if one.is_usable]

    def _recent(self, at: datetime, within: timedelta) -> Sequence[Reading]:
        found = []
        for one in reversed(self.readings):  # of a year only the end is looked at
            if one.sampled_at <= at - within:
                break
            if one.sampled_at <= at:
                found.append(one)
        return found[::-1]

    @_property
    def last_usable(self) -> Reading | None:
        return next((one for one in reversed(self.readings) if one.is_usable), None)


@dataclass(frozen=True)
class Reason:
    """One thing that speaks for a state: its kind, from which words are made, with its numbers.

    Attributes:
        kind: of the sentence (`services/city_words.py`).
        state: what it alone would make of the place; "unknown": it is why too little is known; "": it only says something.
        numbers: name → number, in the units that the sentence has.
        property, depth_cm, datastream_id, sampled_at, flag: which observation it rests on.
    """

    kind: str
    state: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    property: str = ""
    depth_cm: int | None = None
    datastream_id: int | None = None
    sampled_at: datetime | None = None
    flag: int | None = None

    @_property
    def topic(self) -> tuple[object, ...]:
        """What it is about without the numbers: a reason that keeps its topic has not become another one."""
        return (self.kind, self.state, self.property, self.depth_cm, self.flag in SUSPECT_FLAGS)


def reason_of(
    stream: Stream, reading: Reading | None, kind: str, state: str, **numbers: float
) -> Reason:
    """A reason that rests on one reading of a stream, or on there being none."""
    return Reason(
        kind,
        state,
        numbers,
        stream.property,
        stream.depth_cm,
        stream.datastream_id,
        None if reading is None else reading.sampled_at,
        None if reading is None else reading.flag,
    )


def reason_to_data(reason: Reason) -> dict[str, Any]:
    """As JSON has it, times in seconds UTC; what there is not is left out.

    >>> reason_to_data(Reason("no_probe", "unknown"))
    {'kind': 'no_probe', 'state': 'unknown'}
    """
    data: dict[str, Any] = {"kind": reason.kind, "state": reason.state}
    if reason.numbers:
        data["numbers"] = dict(reason.numbers)
    if reason.property:
        data["property"] = reason.property
    for name in ("depth_cm", "datastream_id", "flag"):
        if getattr(reason, name) is not None:
            data[name] = getattr(reason, name)
    if reason.sampled_at is not None:
        data["sampled_at"] = int(reason.sampled_at.timestamp())
    return data


def reason_from_data(data: Mapping[str, Any]) -> Reason:
    """What `reason_to_data` wrote."""
    sampled_s = data.get("sampled_at")
    return Reason(
        kind=data["kind"],
        state=data["state"],
        numbers=data.get("numbers", {}),
        property=data.get("property", ""),
        depth_cm=data.get("depth_cm"),
        datastream_id=data.get("datastream_id"),
        sampled_at=None if sampled_s is None else datetime.fromtimestamp(sampled_s, UTC),
        flag=data.get("flag"),
    )

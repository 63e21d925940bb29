"""Hourly and daily means of one datastream, with how sure the mean is and how much of the interval it rests on.

Pure: the caller gives readings in the order of time and the edges of the intervals; a day in local time has 23, 24 or 25 hours, and only the
caller knows which. `aggregate` works on what is there; `Stream` takes it in pieces and comes to the same bits.

What the readings of one probe share does not become smaller by averaging: its calibration is the same in every one of them. Only noise does, and
the last digit, if the readings move over several. `split_of` says which contribution of a budget is which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet_server.measurement.budget import Budget
from fleet_server.measurement.quality import Flag

FloatArray = NDArray[np.float64]
CountArray = NDArray[np.int64]
FlagArray = NDArray[np.int16]

VERSION: Final = "aggregates/1"
"""Names this arithmetic in lineages. Whatever changes one bit of a result changes it."""

COMPLETENESS_RULE: Final = "completeness/0.75"
"""Names the rule by which an interval is complete."""

COMPLETE_FROM: Final = 0.75
"""An interval of which less was sampled is suspect. The share that Directive 2008/50/EC, Annex XI A, demands of hourly and daily means of the air;
that it suits soil and water, too, is ours."""

# A node wakes some seconds early or late; one that is this much late still has missed nothing.
_LATE: Final = 1.05

STEP_BACK_S: Final = 6 * 3600
"""How long before the end of an interval `sampling_steps_s` looks at least: an hour by itself may have no two readings."""

_USUAL_STEP_S: Final = 900.0  # of our node models, where readings do not tell
_STEP_SHARE: Final = 4
_LONGEST_WEIGHT_S: Final = 3600.0

_DIGITS_MOVED: Final = 2.0
_RECTANGLE: Final = math.sqrt(12.0)

# The worst reading that went in makes the flag; "not evaluated" is worse than good, for nobody has looked. Ours: QARTOD has no flag for means.
_RANKS: Final = {Flag.GOOD: 1, Flag.NOT_EVALUATED: 2, Flag.SUSPECT: 3}
_FLAG_OF_RANK: Final = np.array(
    [Flag.MISSING, Flag.GOOD, Flag.NOT_EVALUATED, Flag.SUSPECT, Flag.BAD], dtype=np.int16
)
_BAD_RANK: Final = 4


@dataclass(frozen=True)
class Split:
    """Standard uncertainties of readings, by what averaging does to them; published unit, shape (n,) each.

    u_common: the same error in all of them. u_noise: another one in each. u_resolution: that of the last digit, another one in each as far as
    the readings move.
    """

    u_common: FloatArray
    u_noise: FloatArray
    u_resolution: FloatArray


def split_of(budget: Budget, *, u_noise: float = 0.0) -> Split:
    """Split a budget: the last digit apart, the probe's own noise where it is known, and all the rest common.

    Thermometer, circuit, formula, standard and drift err the same way all day, so they are common. A data sheet's accuracy does not say how
    much of it is noise; taking all of it as common makes u larger, never smaller than it is.

    Args:
        u_noise: the part of "probe" that is another one in each reading, from repeated readings of one state, published unit.

    Raises:
        ValueError: more noise than the probe has uncertainty of its own.

    >>> from fleet_server.measurement.budget import budget
    >>> from fleet_server.measurement.calibration import CalibrationParameters
    >>> split = split_of(budget("sixteenths", [318], {}, CalibrationParameters(u_abs=0.29)), u_noise=0.1)
    >>> [round(float(part[0]), 3) for part in (split.u_common, split.u_noise, split.u_resolution)]
    [0.272, 0.1, 0.018]
    """
    squares = {one.name: one.u * one.u for one in budget.contributions}
    zero = np.zeros_like(budget.u)
    resolution = squares.get("resolution", zero)
    probe = squares.get("probe", zero) + squares.get("probe_relative", zero)
    noise = u_noise * u_noise
    if not (u_noise >= 0.0 and (noise <= probe * (1.0 + 1e-9))[~np.isnan(probe)].all()):
        raise ValueError("The noise of a probe is a part of its own uncertainty.")
    common = np.maximum(budget.u * budget.u - resolution - noise, 0.0)
    return Split(
        np.sqrt(common), np.where(np.isnan(budget.u), np.nan, u_noise), np.sqrt(resolution)
    )


@dataclass(frozen=True)
class Readings:
    """Observations of one datastream in the order of time; shape (n,) each. NaN in `value`: there is none.

    times_s: when they were sampled, seconds since 1970 (UTC). Values and uncertainties in the published unit.
    """

    times_s: FloatArray
    value: FloatArray
    u_common: FloatArray
    u_noise: FloatArray
    u_resolution: FloatArray
    flag: FlagArray

    @classmethod
    def of(
        cls, times_s: ArrayLike, value: ArrayLike, u: ArrayLike | Split, flag: ArrayLike
    ) -> Readings:
        """From columns. Of a u that nobody has split all is common.

        Raises:
            ValueError: the columns differ in length, or times go backwards.
        """
        times = np.array(times_s, dtype=np.float64, ndmin=1)
        values = np.array(value, dtype=np.float64, ndmin=1)
        if not isinstance(u, Split):
            whole = np.broadcast_to(np.asarray(u, np.float64), values.shape)
            u = Split(whole, np.zeros_like(whole), np.zeros_like(whole))
        flags = np.array(flag, dtype=np.int16, ndmin=1)
        columns = (times, values, u.u_common, u.u_noise, u.u_resolution, flags)
        if len({column.size for column in columns}) > 1:
            raise ValueError("Times, values, uncertainties and flags differ in length.")
        if not np.isfinite(times).all() or (np.diff(times) < 0.0).any():
            raise ValueError("Readings come in the order of time.")
        return cls(*columns)


@dataclass(frozen=True)
class Aggregates:
    """One row for each interval; all shape (m,), published unit.

    Attributes:
        from_s, to_s: the interval, without its end; seconds since 1970 (UTC).
        mean, minimum, maximum: of the readings that went in; NaN where none did.
        u: standard uncertainty of the mean of what was sampled. What was not sampled is not in it: see `completeness`.
        count: how many readings went in. Bad and missing ones do not.
        completeness: part of the sampling instants of the interval for which a reading went in, 0–1.
        flag: the worst of the readings that went in; suspect where completeness is below `COMPLETE_FROM`; bad where there were readings
            and all were bad; missing where there was nothing.
    """

    from_s: FloatArray
    to_s: FloatArray
    mean: FloatArray
    minimum: FloatArray
    maximum: FloatArray
    u: FloatArray
    count: CountArray
    completeness: FloatArray
    flag: FlagArray


def sampling_steps_s(times_s: ArrayLike, edges_s: ArrayLike) -> FloatArray:
    """How often was sampled, for each interval between two neighbouring edges; s, shape (m,).

    Seen from the readings themselves, for what a node was told to do is not known of the past, and what is in force today says nothing of
    it. Looked at are the steps between readings, failed ones too, of the interval and of at least `STEP_BACK_S` before its end. Of the time that
    they cover (each step counts for an hour at most) a quarter was sampled with the result or more often: so neither half an hour of field
    mode nor a loss of up to half of the readings passes for how often is sampled. 900 s where no two readings are there.

    Args:
        times_s: when readings were sampled or tried, rising, seconds since 1970 (UTC); from `STEP_BACK_S` before the first interval's end on.
        edges_s: m + 1 rising instants.

    >>> sampling_steps_s([0, 900, 2700, 3000, 3600], [0, 3600, 7200]).tolist()
    [900.0, 600.0]
    """
    times = np.asarray(times_s, dtype=np.float64)
    edges = np.asarray(edges_s, dtype=np.float64)
    first = np.searchsorted(times, np.minimum(edges[:-1], edges[1:] - STEP_BACK_S), side="left")
    end = np.searchsorted(times, edges[1:], side="left")
    return np.array(
        [_step_s(times[one:other]) for one, other in zip(first.tolist(), end.tolist(), strict=True)]
    )


def _step_s(times_s: FloatArray) -> float:
    steps = np.sort(np.diff(times_s))
    steps = steps[steps > 0.0]
    if steps.size == 0:
        return _USUAL_STEP_S
    covered = np.cumsum(np.minimum(steps, _LONGEST_WEIGHT_S))
    return float(steps[np.searchsorted(covered * _STEP_SHARE, covered[-1], side="left")])


def aggregate(readings: Readings, edges_s: ArrayLike, *, interval_s: ArrayLike) -> Aggregates:
    """Mean, least, greatest, count and completeness of every interval between two neighbouring edges.

    mean = Σ x / n;  u² = (Σ u_common / n)² + Σ u_noise² / n² + u_digit², where u_digit² = Σ u_resolution² / n² if the readings spread over two
    digits or more, else (Σ u_resolution / n)² (JCGM 100:2008 §5.2.2, Eq. 16, for a mean with correlations of one and of zero). Only +, −, ·,
    ÷, √ and comparisons, summed in the order of time: the same bits on every machine.

    Args:
        readings: all of the intervals' readings; others are ignored.
        edges_s: m + 1 rising instants, seconds since 1970 (UTC).
        interval_s: how often the node samples, s; one number, or one for each interval.

    Raises:
        ValueError: edges that do not rise, or an interval that is not positive.

    >>> readings = Readings.of([0, 900, 1800], [10.0, 12.0, 14.0], [0.3, 0.3, 0.3], [1, 1, 3])
    >>> hour = aggregate(readings, [0, 3600], interval_s=900)
    >>> hour.mean.tolist(), hour.u.round(3).tolist(), hour.completeness.tolist(), hour.flag.tolist()
    ([12.0], [0.3], [0.75], [3])
    """
    stream = Stream(edges_s, interval_s=interval_s)
    stream.add(readings)
    return stream.result()


class Stream:
    """`aggregate`, fed in pieces: any cut of the same readings comes to the same bits.

    Holds a few numbers for each interval and no readings. What comes late must not be added: ask `aggregate` again for its interval.
    """

    def __init__(self, edges_s: ArrayLike, *, interval_s: ArrayLike) -> None:
        self._edges = np.asarray(edges_s, dtype=np.float64)
        if self._edges.ndim != 1 or self._edges.size < 2 or not (np.diff(self._edges) > 0.0).all():
            raise ValueError("The edges of intervals rise, and there are at least two.")
        count = self._edges.size - 1
        self._interval_s = np.broadcast_to(np.asarray(interval_s, np.float64), (count,))
        if not (np.isfinite(self._interval_s) & (self._interval_s > 0.0)).all():
            raise ValueError("The interval between two readings is more than 0 s.")
        self._sums = np.zeros((len(_SUMMED), count))
        self._minimum = np.full(count, np.inf)
        self._maximum = np.full(count, -np.inf)
        self._count = np.zeros(count, dtype=np.int64)
        self._rank = np.zeros(count, dtype=np.int64)
        self._has_bad = np.zeros(count, dtype=np.bool_)
        self._last_used = (-1, 0.0)
        self._last_s = -math.inf

    def add(self, readings: Readings) -> None:
        """Take the next readings.

        Raises:
            ValueError: they begin before the last ones ended; nothing is taken.
        """
        if readings.times_s.size == 0:
            return
        if readings.times_s[0] < self._last_s:
            raise ValueError("Readings come in the order of time.")
        self._last_s = float(readings.times_s[-1])
        place = np.searchsorted(self._edges, readings.times_s, side="right") - 1
        is_inside = (place >= 0) & (place < self._count.size)
        is_used = is_inside & np.isin(readings.flag, [*_RANKS]) & np.isfinite(readings.value)
        is_bad = is_inside & (readings.flag == Flag.BAD)
        self._has_bad[place[is_bad]] = True
        self._add_used(readings, place, np.flatnonzero(is_used))

    def _add_used(
        self, readings: Readings, place: NDArray[np.intp], rows: NDArray[np.intp]
    ) -> None:
        if rows.size == 0:
            return
        at = place[rows]
        value = readings.value[rows]
        common, noise, digit = (
            part[rows] for part in (readings.u_common, readings.u_noise, readings.u_resolution)
        )
        covered_s = self._covered_s(at, readings.times_s[rows])
        summed = (value, common, noise * noise, digit, digit * digit, covered_s)
        # The sums so far go first, so that adding goes on where it stopped. bincount adds row by row.
        positions = np.concatenate([np.arange(self._count.size), at])
        for row, column in enumerate(summed):
            self._sums[row] = np.bincount(positions, np.concatenate([self._sums[row], column]))
        np.minimum.at(self._minimum, at, value)
        np.maximum.at(self._maximum, at, value)
        np.add.at(self._count, at, 1)
        np.maximum.at(self._rank, at, _rank_of(readings.flag[rows]))

    def _covered_s(self, at: NDArray[np.intp], times_s: FloatArray) -> FloatArray:
        """How much of its interval each reading stands for: the time since the one before, at most one sampling interval and a little.

        Counted is time, not readings: four readings in one quarter of an hour do not make an hour.
        """
        before_at = np.concatenate([[self._last_used[0]], at[:-1]])
        before_s = np.concatenate([[self._last_used[1]], times_s[:-1]])
        interval_s = self._interval_s[at]
        since = np.where(at == before_at, times_s - before_s, interval_s)
        self._last_used = (int(at[-1]), float(times_s[-1]))
        return np.minimum(since, interval_s * _LATE)

    def result(self) -> Aggregates:
        """What the readings so far come to. More may follow."""
        n = np.where(self._count > 0, self._count, np.nan)
        value, common, noise, digit, digit_squared, covered_s = self._sums
        spread = np.where(self._count > 0, self._maximum - self._minimum, 0.0)
        is_moving = spread >= _DIGITS_MOVED * _RECTANGLE * (digit / n)
        by_digit = np.where(is_moving, digit_squared / (n * n), (digit / n) * (digit / n))
        squared = (common / n) * (common / n) + noise / (n * n) + by_digit
        expected = np.maximum(np.rint(np.diff(self._edges) / self._interval_s), 1.0)
        completeness = np.minimum(np.rint(covered_s / self._interval_s) / expected, 1.0)
        rank = np.where((self._count == 0) & self._has_bad, _BAD_RANK, self._rank)
        is_thin = (self._count > 0) & (completeness < COMPLETE_FROM)
        rank = np.where(is_thin, _RANKS[Flag.SUSPECT], rank)
        return Aggregates(
            from_s=self._edges[:-1],
            to_s=self._edges[1:],
            mean=value / n,
            minimum=np.where(self._count > 0, self._minimum, np.nan),
            maximum=np.where(self._count > 0, self._maximum, np.nan),
            u=np.sqrt(squared),
            count=self._count.copy(),
            completeness=completeness,
            flag=_FLAG_OF_RANK[rank],
        )


_SUMMED: Final = ("value", "u_common", "u_noise²", "u_resolution", "u_resolution²", "covered_s")


def _rank_of(flag: FlagArray) -> CountArray:
    rank = np.zeros(flag.size, dtype=np.int64)
    for one, number in _RANKS.items():
        rank[flag == one] = number
    return rank

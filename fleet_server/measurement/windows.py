"""A series in time, and what can be said of the time before each of its rows: ranges, days, the value of another series.

All of it is made of comparisons, + − · ÷ only, and of rows within a stated time: the same rows give the same bits, whatever else is
in the array and however many rows it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
TimeArray = NDArray[np.int64]
IndexArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

DAY_S = 86_400


@dataclass(frozen=True)
class Series:
    """Values of one channel at rising times.

    Attributes:
        times_s: UTC seconds, int64, shape (n,), each after the one before.
        values: published unit, float64, shape (n,). NaN, or no finite number: there is no value.
        is_estimated: where the time is an estimate, shape (n,); None: nowhere.

    Raises:
        ValueError: times that do not rise, or shapes that do not fit; the sentence says which row.

    >>> Series([0, 900, 900], [1.0, 2.0, 3.0])
    Traceback (most recent call last):
    ...
    ValueError: Times must rise: row 2 (900) is not after row 1 (900).
    """

    times_s: TimeArray
    values: FloatArray
    is_estimated: BoolArray | None = None

    def __post_init__(self) -> None:
        times_s = np.asarray(self.times_s, dtype=np.int64)
        values = np.asarray(self.values, dtype=np.float64)
        object.__setattr__(self, "times_s", times_s)
        object.__setattr__(self, "values", values)
        estimated = self.is_estimated
        if times_s.ndim != 1 or values.shape != times_s.shape:
            raise ValueError("A series needs as many values as times, one after the other.")
        if estimated is not None and estimated.shape != times_s.shape:
            raise ValueError("A series needs to know of every time, or of none, whether it is one.")
        falls = np.flatnonzero(times_s[1:] <= times_s[:-1])
        if falls.size:
            row = int(falls[0]) + 1
            raise ValueError(
                f"Times must rise: row {row} ({times_s[row]}) is not after"
                f" row {row - 1} ({times_s[row - 1]})."
            )

    def __len__(self) -> int:
        return int(self.times_s.size)

    def slice(self, start: int, end: int | None = None) -> Series:
        """Rows from `start` to before `end`."""
        at = np.s_[start:end]
        estimated = None if self.is_estimated is None else self.is_estimated[at]
        return Series(self.times_s[at], self.values[at], estimated)


def arranged(times_s: ArrayLike, values: ArrayLike) -> Series:
    """A series of rows in any order; of several with one time the first counts.

    >>> arranged([900, 0, 900], [2.0, 1.0, 3.0]).values.tolist()
    [1.0, 2.0]
    """
    times, first = np.unique(np.asarray(times_s, dtype=np.int64), return_index=True)
    return Series(times, np.asarray(values, dtype=np.float64)[first])


def joined(first: Series, second: Series) -> Series:
    """One series after the other.

    Raises:
        ValueError: the second does not begin after the first has ended.
    """
    estimated = None
    if first.is_estimated is not None or second.is_estimated is not None:
        estimated = np.concatenate([_estimated(first), _estimated(second)])
    return Series(
        np.concatenate([first.times_s, second.times_s]),
        np.concatenate([first.values, second.values]),
        estimated,
    )


def _estimated(series: Series) -> BoolArray:
    if series.is_estimated is None:
        return np.zeros(len(series), dtype=np.bool_)
    return series.is_estimated


def nearest(series: Series, times_s: TimeArray, within_s: int) -> FloatArray:
    """The series' value next to each time, the earlier of two equally near; NaN where none is within `within_s`.

    >>> nearest(Series([0, 900], [1.0, 2.0]), np.array([450, 600, 5000]), 1000).tolist()
    [1.0, 2.0, nan]
    """
    known = np.flatnonzero(np.isfinite(series.values))
    if not known.size:
        return np.full(times_s.shape, np.nan)
    times, values = series.times_s[known], series.values[known]
    after = np.searchsorted(times, times_s)
    left = np.maximum(after - 1, 0)
    right = np.minimum(after, times.size - 1)
    to_left, to_right = np.abs(times_s - times[left]), np.abs(times[right] - times_s)
    place = np.where(to_left <= to_right, left, right)
    is_near = np.minimum(to_left, to_right) <= within_s
    return np.where(is_near, values[place], np.nan)


def lowest_near(series: Series, times_s: TimeArray, within_s: int) -> FloatArray:
    """The series' lowest value within ±`within_s` of each time; NaN where it has none.

    >>> lowest_near(Series([0, 900, 1800], [1.0, -2.0, 3.0]), np.array([1700, 9000]), 900).tolist()
    [-2.0, nan]
    """
    known = np.flatnonzero(np.isfinite(series.values))
    times, values = series.times_s[known], series.values[known]
    start = np.searchsorted(times, times_s - within_s, side="left")
    end = np.searchsorted(times, times_s + within_s, side="right")
    found = np.full(times_s.shape, np.nan)
    has = np.flatnonzero(end > start)
    found[has] = _extreme(values, start[has], end[has], np.minimum)
    return found


def sliding_range(values: FloatArray, start: IndexArray) -> FloatArray:
    """Highest minus lowest of rows `start[i]` … i, for every row i; no NaN among the values.

    >>> sliding_range(np.array([1.0, 5.0, 2.0, 3.0]), np.array([0, 0, 1, 2])).tolist()
    [0.0, 4.0, 3.0, 1.0]
    """
    end = np.arange(1, values.size + 1)
    return _extreme(values, start, end, np.maximum) - _extreme(values, start, end, np.minimum)


def _extreme(
    values: FloatArray, start: IndexArray, end: IndexArray, of_two: np.ufunc
) -> FloatArray:
    """Highest or lowest of rows `start` … before `end`, none of them empty.

    Every span is covered by two that overlap and are powers of two long; level by level, so that only one level is in memory.
    """
    found = np.empty(start.shape, dtype=np.float64)
    length = end - start
    level_of = np.frexp(length.astype(np.float64))[1] - 1  # floor(log2), exact
    level, width, table = 0, 1, values
    last = int(level_of.max(initial=0))
    while True:
        rows = np.flatnonzero(level_of == level)
        if rows.size == start.size:  # all spans are alike: nothing to pick out
            return np.asarray(of_two(table[start], table[end - width]), dtype=np.float64)
        if rows.size:
            found[rows] = of_two(table[start[rows]], table[end[rows] - width])
        if level == last:
            return found
        table = of_two(table[:-width], table[width:])
        level, width = level + 1, 2 * width


@dataclass(frozen=True)
class Days:
    """Days in a row (UTC, since 1970) with where each one's rows are; shape (d,). A day without rows has `start` = `end`."""

    first: int
    start: IndexArray
    end: IndexArray
    place: IndexArray
    """Which of the days each row is in, shape (n,)."""

    def __len__(self) -> int:
        return int(self.start.size)


def days_of(times_s: TimeArray) -> Days:
    """The days that these times (at least one) lie in."""
    day = times_s // DAY_S
    first, last = int(day[0]), int(day[-1])
    edges = np.searchsorted(day, np.arange(first, last + 2))
    return Days(first, edges[:-1], edges[1:], (day - first).astype(np.intp))


def day_statistic(
    times_s: TimeArray, values: FloatArray, days: Days, statistic: str, *, least_rows: int = 8
) -> FloatArray:
    """`range`, `low`, `high` or `median` of every day, shape (d,); NaN for a day that was not seen most of.

    A day counts when it has `least_rows` values, and no more than 6 h pass without one.
    """
    count = days.end - days.start
    found = np.full(len(days), np.nan)
    full = np.flatnonzero((count >= least_rows) & _is_covered(times_s, days))
    if not full.size:
        return found
    if statistic == "median":
        order = np.lexsort((values, days.place))
        in_day = values[order]
        upper = in_day[days.start[full] + count[full] // 2]
        lower = in_day[days.start[full] + (count[full] - 1) // 2]
        found[full] = lower * 0.5 + upper * 0.5
        return found
    starts = days.start[full]
    # `reduceat` works from one start to the next: the days between, which are not full, must end somewhere.
    edges = np.stack([starts, np.minimum(days.end[full], values.size - 1)], axis=1).ravel()
    low = np.minimum.reduceat(values, edges)[::2]
    if days.end[full[-1]] == values.size:
        low[-1] = np.minimum(low[-1], values[-1])
    if statistic == "low":
        found[full] = low
        return found
    high = np.maximum.reduceat(values, edges)[::2]
    if days.end[full[-1]] == values.size:
        high[-1] = np.maximum(high[-1], values[-1])
    found[full] = high if statistic == "high" else high - low
    return found


_DAY_GAP_S = 6 * 3600


def _is_covered(times_s: TimeArray, days: Days) -> BoolArray:
    """Whether no more than 6 h of the day pass without a row, at its ends neither."""
    has = days.end > days.start
    begin_s = (days.first + np.arange(len(days))) * DAY_S
    last_row = times_s.size - 1
    first_s = times_s[np.minimum(days.start, last_row)]
    last_s = times_s[np.maximum(days.end - 1, 0)]
    far = np.concatenate([[0], np.cumsum(np.diff(times_s) > _DAY_GAP_S)])
    inside = far[np.maximum(days.end - 1, 0)] - far[np.minimum(days.start, last_row)] == 0
    ends = (first_s - begin_s <= _DAY_GAP_S) & (begin_s + DAY_S - last_s <= _DAY_GAP_S)
    return np.asarray(has & inside & ends)


def median_before(daily: FloatArray, days: int, *, least: int) -> FloatArray:
    """For every day the median of the `days` before it, NaN where fewer than `least` of them are known.

    >>> median_before(np.array([1.0, 3.0, np.nan, 5.0]), 2, least=1).tolist()
    [nan, 1.0, 2.0, 3.0]
    """
    padded = np.concatenate([np.full(days, np.nan), daily])
    windows = np.lib.stride_tricks.sliding_window_view(padded, days)[: daily.size]
    return median_of_known(windows, least=least)


def median_of_known(rows: FloatArray, *, least: int) -> FloatArray:
    """Median along the last axis of what is not NaN; NaN where that is fewer than `least`.

    >>> median_of_known(np.array([[1.0, np.nan, 4.0], [np.nan, np.nan, 1.0]]), least=2).tolist()
    [2.5, nan]
    """
    in_order = np.sort(rows, axis=-1)  # NaN last
    count = np.isfinite(rows).sum(axis=-1)
    upper = np.take_along_axis(in_order, (count // 2)[..., None], axis=-1)[..., 0]
    lower = np.take_along_axis(in_order, (np.maximum(count - 1, 0) // 2)[..., None], axis=-1)[
        ..., 0
    ]
    return np.where(count >= max(least, 1), lower * 0.5 + upper * 0.5, np.nan)

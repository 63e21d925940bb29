"""When a soil will be dry: its water content in the days to come, and the day on which it passes a limit.

Three ways: the straight line of the last two days (naive, and hard to beat), an exponential fall fitted to the site's own past, and the balance of
`tree_water` with the weather of the days to come. Values may be water content (m³/m³) or any quantity that falls while a soil dries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet_server.city.backtest import Known, Question
from fleet_server.city.tree_water import Place, Plants, Soil, Water, Weather, balance
from fleet_server.measurement.windows import DAY_S, Series

FloatArray = NDArray[np.float64]

SOIL: Final = "soil"
"""Name of the series that forecasters look at."""

LINE_S: Final = 2 * DAY_S
PAST_S: Final = 14 * DAY_S
CENSORED_DAYS: Final = 30
_FRESH_S: Final = 6 * 3600  # a value older than that is no start for a forecast
_LEAST_STEPS: Final = 5
_LONGEST_TAU_DAYS: Final = 120.0
_LEARNED_DAYS: Final = 60
_LEAST_LEARNED: Final = 10
_RIDGE_ROWS: Final = 5.0  # how many mornings the prior counts as


@dataclass(frozen=True)
class DryDown:
    """An exponential fall: θ(t) = θ∞ + (θ₀ − θ∞) e^(−t/τ)."""

    rest: float
    tau_days: float

    def after(self, start: ArrayLike, days: ArrayLike) -> FloatArray:
        """Water content some days after `start`.

        >>> round(float(DryDown(0.08, 12.0).after(0.25, 10.6476)), 4)
        0.15
        """
        falling = np.exp(-np.asarray(days, np.float64) / self.tau_days)
        return self.rest + (np.asarray(start, np.float64) - self.rest) * falling

    def days_until(self, start: float, limit: float) -> float:
        """Days = τ ln((θ₀ − θ∞) / (θ_d − θ∞)); 0 at or below the limit, infinite where the fall ends above it.

        >>> round(DryDown(0.08, 12.0).days_until(0.25, 0.15), 4)
        10.6476
        >>> round(DryDown(0.06, 9.0).days_until(0.32, 0.12), 4)
        13.197
        >>> DryDown(0.16, 12.0).days_until(0.25, 0.15)
        inf
        """
        if start <= limit:
            return 0.0
        if limit <= self.rest:
            return math.inf
        return self.tau_days * math.log((start - self.rest) / (limit - self.rest))


def fit_dry_down(series: Series) -> DryDown | None:
    """The fall of the days on which the soil dried: Δθ per day = (θ∞ − θ)/τ by least squares over pairs a day apart.

    Returns:
        None where fewer than five days dried, or where they do not slow down.

    >>> t = np.arange(0, 20 * 86_400, 86_400)
    >>> found = fit_dry_down(Series(t, DryDown(0.08, 12.0).after(0.25, t / 86_400)))
    >>> round(found.rest, 3), round(found.tau_days, 1)
    (0.08, 12.0)
    """
    last_s = int(series.times_s[-1]) if len(series) else 0
    at = _values_at(series, np.arange(last_s - PAST_S, last_s + 1, DAY_S, dtype=np.int64))
    change = np.diff(at)
    dried = np.isfinite(change) & (change < 0.0)
    if dried.sum() < _LEAST_STEPS:
        return None
    # Over a whole day the fall is 1 − e^(−1/τ) of what is left, exactly.
    design = np.column_stack([np.ones(dried.sum()), at[:-1][dried]])
    (offset, slope), *_ = np.linalg.lstsq(design, change[dried], rcond=None)
    if not -1.0 < slope < 0.0:
        return None
    tau_days = -1.0 / math.log1p(slope)
    rest = -offset / slope
    if tau_days > _LONGEST_TAU_DAYS or not math.isfinite(rest):
        return None
    return DryDown(float(rest), tau_days)


def _values_at(series: Series, instants_s: NDArray[np.int64]) -> FloatArray:
    """The last value at or before each instant, not older than `_FRESH_S`; NaN where there is none."""
    is_known = np.isfinite(series.values)
    times_s, values = series.times_s[is_known], series.values[is_known]
    if not times_s.size:
        return np.full(instants_s.shape, np.nan)
    row = np.searchsorted(times_s, instants_s, side="right") - 1
    is_fresh = (row >= 0) & (instants_s - times_s[row] <= _FRESH_S)
    return np.where(is_fresh, values[row], np.nan)


def _value_at(series: Series, instant_s: int) -> float:
    return float(_values_at(series, np.array([instant_s], dtype=np.int64))[0])


# --------------------------------------------------------------------------------------------------------- forecasters


def persistence(known: Known, question: Question) -> float:
    """It stays as it is."""
    return _value_at(known.series[SOIL], question.issued_at_s)


def straight_line(known: Known, question: Question) -> float:
    """It goes on as in the last two days: least squares through them, from the last value on."""
    start = persistence(known, question)
    return start + _slope_per_s(known.series[SOIL], question.issued_at_s) * _ahead_s(question)


def slowing_line(known: Known, question: Question, *, tau_days: float = 3.0) -> float:
    """As the straight line, but what the last two days did dies away: slope · τ (1 − e^(−t/τ))."""
    start = persistence(known, question)
    days = _ahead_s(question) / DAY_S
    reach_s = tau_days * DAY_S * -math.expm1(-days / tau_days)
    return start + _slope_per_s(known.series[SOIL], question.issued_at_s) * reach_s


def exponential(known: Known, question: Question) -> float:
    """The fall fitted to the last fourteen days, from the last value on; NaN where there is none."""
    start = persistence(known, question)
    found = fit_dry_down(known.series[SOIL])
    if found is None or not math.isfinite(start):
        return math.nan
    return float(found.after(start, _ahead_s(question) / DAY_S))


def learned(known: Known, question: Question) -> float:
    """What followed on earlier mornings with such a fall: ridge regression of the change on the last day's, of mornings on which the soil dried.

    NaN while it is not drying, and before ten such mornings have shown how they went on.
    """
    series, ahead_s = known.series[SOIL], _ahead_s(question)
    mornings_s = question.issued_at_s - np.arange(_LEARNED_DAYS, dtype=np.int64) * DAY_S
    at = _values_at(series, np.append(mornings_s, mornings_s[-1] - DAY_S * np.array([1, 2])))
    then, day_before, two_before = at[:-2], at[1:-1], at[2:]
    is_drying_then = (two_before > day_before) & (day_before > then)
    if not is_drying_then[0]:
        return math.nan
    later = _values_at(series, mornings_s + ahead_s)
    is_row = is_drying_then & (mornings_s + ahead_s <= question.issued_at_s) & np.isfinite(later)
    if is_row.sum() < _LEAST_LEARNED:
        return math.nan
    was, became = (then - day_before)[is_row], (later - then)[is_row]
    # The prior is the naive line: what the last day did goes on.
    prior, weight = ahead_s / DAY_S, _RIDGE_ROWS * float(np.mean(was * was))
    slope = (float((was * became).sum()) + weight * prior) / (float((was * was).sum()) + weight)
    return float(then[0] + slope * (then[0] - day_before[0]))


def is_drying(series: Series, instant_s: int) -> bool:
    """Whether the soil dried on each of the two days before: known when it is asked."""
    instants_s = instant_s - DAY_S * np.arange(3, dtype=np.int64)
    now, day_before, two_before = _values_at(series, instants_s)
    return bool(two_before > day_before > now)


def _ahead_s(question: Question) -> int:
    return question.due_s - question.issued_at_s


def _slope_per_s(series: Series, issued_at_s: int) -> float:
    is_recent = (series.times_s > issued_at_s - LINE_S) & np.isfinite(series.values)
    t, x = series.times_s[is_recent].astype(np.float64), series.values[is_recent]
    if t.size < 3 or t[-1] - t[0] < LINE_S / 2:
        return math.nan
    t = t - t.mean()
    return float((t * (x - x.mean())).sum() / (t * t).sum())


# ------------------------------------------------------------------------------------------------------- days until dry


@dataclass(frozen=True)
class DaysUntil:
    """On which day a limit is passed, P10, P50 and P90; infinite: after more than `CENSORED_DAYS` or as many days as were looked at, NaN: unknown."""

    p10: float
    p50: float
    p90: float
    horizon_days: int

    def __str__(self) -> str:
        """In days.

        >>> str(DaysUntil(2.0, 5.6, math.inf, 30))
        '2 to > 30 d, in the middle 6 d'
        """
        low, middle, high = (self._said(day) for day in (self.p10, self.p50, self.p90))
        return f"{low} to {high} d, in the middle {middle} d"

    def _said(self, day: float) -> str:
        if math.isnan(day):
            return "unknown"
        return f"{day:.0f}" if math.isfinite(day) else f"> {self.horizon_days}"


def first_passage(paths: ArrayLike, limit: float) -> DaysUntil:
    """Days until members of an ensemble fall to a limit, counted from the start and straight between days.

    A member that rises again later has passed all the same. Members that end above count as later than all days looked at, so that a
    percentile that lies among them is infinite; it is never guessed from those that passed. An unknown member is refused.

    Args:
        paths: water content at the start (row 0) and at the end of each day, shape (days + 1, n); at most `CENSORED_DAYS` count.

    Raises:
        ValueError: no day, no member, or a value that is not finite.

    >>> paths = np.array([[0.30, 0.30, 0.30], [0.25, 0.28, 0.30], [0.15, 0.26, 0.29]])
    >>> found = first_passage(paths, 0.20)
    >>> found.p10, found.p50, found.horizon_days
    (1.5, inf, 2)
    """
    x = np.asarray(paths, dtype=np.float64)[: CENSORED_DAYS + 1]
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] == 0 or not np.isfinite(x).all():
        raise ValueError("Days until dry need members that are known on every day.")
    is_below = x <= limit
    day = np.argmax(is_below, axis=0)
    member = np.arange(x.shape[1])
    before, after = x[np.maximum(day - 1, 0), member], x[day, member]
    with np.errstate(divide="ignore", invalid="ignore"):
        passed = np.where(day == 0, 0.0, day - 1 + (before - limit) / (before - after))
    days = np.sort(np.where(is_below.any(axis=0), passed, np.inf))
    p10, p50, p90 = (_ranked(days, level) for level in (0.1, 0.5, 0.9))
    return DaysUntil(p10, p50, p90, x.shape[0] - 1)


def _ranked(days: FloatArray, level: float) -> float:
    """The least day by which at least this share has passed: no mean between a day and never."""
    return float(days[max(math.ceil(level * days.size - 1e-9) - 1, 0)])


def passage_of_bands(low: ArrayLike, middle: ArrayLike, high: ArrayLike, limit: float) -> DaysUntil:
    """Days until a limit by forecasts of each day with their bands: the days on which P10, the forecast and P90 fall to it.

    For soil that dries all the while: then it has passed the limit by a day if it is below on that day. An edge that is open (NaN) before it passes makes
    its day unknown; it is not taken as far away.

    Args:
        low, middle, high: water content now (all three the same) and after 1, 2, … days, shape (days + 1,).

    >>> str(passage_of_bands([0.3, 0.18, 0.1], [0.3, 0.25, 0.19], [0.3, 0.28, float("nan")], 0.20))
    '1 to unknown d, in the middle 2 d'
    """
    edges = [np.asarray(one, np.float64)[: CENSORED_DAYS + 1] for one in (low, middle, high)]
    p10, p50, p90 = (_passage(edge, limit) for edge in edges)
    return DaysUntil(p10, p50, p90, edges[0].size - 1)


def _passage(edge: FloatArray, limit: float) -> float:
    is_open = np.isnan(edge)
    known = edge[: int(np.argmax(is_open))] if is_open.any() else edge
    if known.size and (known <= limit).any():
        return first_passage(np.append(known, known[-1])[:, None], limit).p50
    return math.nan if is_open.any() else math.inf


def bucket_paths(
    soil: Soil, plants: Plants, weather: Weather, start: Water, *, place: Place
) -> FloatArray:
    """Water content of a root zone by the balance of `tree_water`, start and days, shape (days + 1, n): members are weathers and starts.

    Args:
        plants: with one root depth for all days: a forecast is shorter than roots grow.
        start: depletion of every member, shape (n,): the probe's value as it might be, by its uncertainty.
    """
    depth = np.asarray(plants.root_depth_m, dtype=np.float64)
    if depth.ndim:
        raise ValueError("A forecast's root depth is one number.")
    found = balance(soil, plants, weather, start, place=place)
    ends = found.water_content(soil, depth)
    first = soil.field_capacity - np.asarray(start.depletion_mm, np.float64) / (1000.0 * depth)
    return np.vstack([np.broadcast_to(first, ends.shape[1:])[None], ends])

"""How good forecasts were: errors, bands, warnings, each with how sure that is.

A share of few is not a number to act on: every share comes with its counts and its 95 % interval, and below `LEAST_FORECASTS` nothing is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

LEAST_FORECASTS: Final = 100
"""With 28 forecasts a perfect band of 80 % misses 75–85 % half of the time."""

_Z95: Final = 1.959963984540054  # Φ⁻¹(0.975)
_RESAMPLES: Final = 2_000


@dataclass(frozen=True)
class Share:
    """A share of counted cases with its 95 % interval (Wilson 1927)."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval; 0–1 where nothing was counted.

        >>> [round(end, 3) for end in Share(24, 28).interval]
        [0.685, 0.943]
        >>> Share(0, 0).interval
        (0.0, 1.0)
        """
        if not self.of:
            return 0.0, 1.0
        z2 = _Z95 * _Z95 / self.of
        middle = (self.value + z2 / 2.0) / (1.0 + z2)
        half = _Z95 / (1.0 + z2)
        half *= math.sqrt(self.value * (1.0 - self.value) / self.of + z2 / (4.0 * self.of))
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def __str__(self) -> str:
        if not self.of:
            return "none counted"
        low, high = self.interval
        return f"{self.value:.2f} ({self.hits} of {self.of}; {low:.2f}–{high:.2f})"


def rmse(forecast: ArrayLike, truth: ArrayLike) -> float:
    """Root of the mean squared error over the pairs that have both; NaN without any.

    >>> rmse([1.0, 2.0, float("nan")], [1.0, 4.0, 9.0])
    1.4142135623730951
    """
    error = np.asarray(forecast, np.float64) - np.asarray(truth, np.float64)
    error = error[np.isfinite(error)]
    return float(np.sqrt(np.mean(error * error))) if error.size else math.nan


def pinball(quantile: ArrayLike, truth: ArrayLike, level: float) -> float:
    """Mean loss of a quantile: level · (y − q) above it, (1 − level) · (q − y) below (Koenker and Bassett 1978). Least for the true one.

    >>> round(pinball([1.0, 1.0], [2.0, 0.0], 0.9), 6)
    0.5
    """
    off = np.asarray(truth, np.float64) - np.asarray(quantile, np.float64)
    off = off[np.isfinite(off)]
    return float(np.mean(np.maximum(level * off, (level - 1.0) * off))) if off.size else math.nan


def coverage(low: ArrayLike, high: ArrayLike, truth: ArrayLike) -> Share:
    """How often the truth lay in the band, its ends included; pairs without a band do not count.

    >>> coverage([0, 0, float("nan")], [1, 1, 1], [1, 2, 0.5])
    Share(hits=1, of=2)
    """
    below, above, y = (np.asarray(one, np.float64) for one in (low, high, truth))
    is_known = np.isfinite(below) & np.isfinite(above) & np.isfinite(y)
    return Share(int(((y >= below) & (y <= above) & is_known).sum()), int(is_known.sum()))


@dataclass(frozen=True)
class Warnings:
    """Of events that came how many were warned of, and of warnings how many were false: FP / (FP + TP)."""

    recall: Share
    false_alarms: Share


def warnings_below(forecast: ArrayLike, truth: ArrayLike, limit: float) -> Warnings:
    """A warning is a forecast below the limit, an event a truth below it.

    >>> found = warnings_below([2.0, 2.5, 4.0, 5.0], [2.0, 3.5, 2.9, 6.0], 3.0)
    >>> found.recall, found.false_alarms
    (Share(hits=1, of=2), Share(hits=1, of=2))
    """
    said, came = np.asarray(forecast, np.float64), np.asarray(truth, np.float64)
    is_known = np.isfinite(said) & np.isfinite(came)
    is_said, is_event = (said < limit) & is_known, (came < limit) & is_known
    hits = int((is_said & is_event).sum())
    return Warnings(
        Share(hits, int(is_event.sum())), Share(int(is_said.sum()) - hits, int(is_said.sum()))
    )


@dataclass(frozen=True)
class Comparison:
    """A method's RMSE over another's, on the cases that both have, with the interval of 99 % of resampled groups.

    99 %, for several methods and horizons are always looked at together: of twenty, one would seem better at 95 % by chance.
    """

    forecasts: int
    ratio: float
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        """Beyond what chance does, on enough forecasts."""
        return self.forecasts >= LEAST_FORECASTS and self.high < 1.0

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f}–{self.high:.2f})"


def compare(
    forecast: ArrayLike, baseline: ArrayLike, truth: ArrayLike, groups: ArrayLike, *, seed: int = 1
) -> Comparison:
    """RMSE over the baseline's. Cases of one group (a day, whose rain all probes share) are resampled together: they are not independent.

    >>> truth = np.zeros(300)
    >>> found = compare(np.full(300, 0.5), np.full(300, 1.0), truth, np.arange(300) // 10)
    >>> found.ratio, found.is_better
    (0.5, True)
    """
    y = np.asarray(truth, np.float64)
    squared = [(np.asarray(one, np.float64) - y) ** 2 for one in (forecast, baseline)]
    is_known = np.isfinite(squared[0]) & np.isfinite(squared[1])
    count = int(is_known.sum())
    if not count:
        return Comparison(0, math.nan, math.nan, math.nan)
    _, group = np.unique(np.asarray(groups)[is_known], return_inverse=True)
    sums = [np.bincount(group, one[is_known]) for one in squared]
    drawn = np.random.default_rng(seed).integers(0, sums[0].size, (_RESAMPLES, sums[0].size))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.sqrt(sums[0][drawn].sum(axis=1) / sums[1][drawn].sum(axis=1))
        ratio = float(np.sqrt(sums[0].sum() / sums[1].sum()))
    low, high = (float(end) for end in np.quantile(ratios, (0.005, 0.995)))
    return Comparison(count, ratio, low, high)

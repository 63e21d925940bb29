"""A straight line through noisy points, with how sure its slope is, that a few wild points do not move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_Z_90 = 1.6449  # two-sided 90 % of the normal distribution


@dataclass(frozen=True)
class Line:
    """`slope` per unit of x; `level` is its value at the last x."""

    slope: float
    level: float


@dataclass(frozen=True)
class Trend:
    """The line through the points, and the steepest and the flattest that may be it (90 %): `low` has the lower slope."""

    line: Line
    low: Line
    high: Line


def theil_sen(x: ArrayLike, y: ArrayLike) -> Trend:
    """The median of all pairs' slopes, and an interval from the same slopes by rank.

    x: (n,) rising without ties; y: (n,); n ≥ 3, no NaN. With fewer than about six points the interval is that of all slopes.
    Sen, P. K. (1968), J. Am. Stat. Assoc. 63, 1379–1389, section 6: of the N = n(n − 1)/2 ordered slopes those of rank
    (N − C)/2 and (N + C)/2 + 1 bound it, C = z √(n (n − 1)(2n + 5)/18).

    Each line goes through the median of what it leaves of the points (Sen's intercept), so a steeper one also ends lower.

    >>> theil_sen([0, 1, 2, 3, 4, 5, 6], [10, 9, 8, 70, 6, 5, 4]).line
    Line(slope=-1.0, level=4.0)
    """
    x_, y_ = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    n = x_.size
    first, second = np.triu_indices(n, k=1)
    slopes = np.sort((y_[second] - y_[first]) / (x_[second] - x_[first]))
    count = slopes.size
    half = _Z_90 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(int((count - half) / 2) - 1, 0)
    high = min(int(np.ceil((count + half) / 2)), count - 1)

    def line(slope: float) -> Line:
        return Line(slope, float(np.median(y_ - slope * x_) + slope * x_[-1]))

    return Trend(
        line(float(np.median(slopes))), line(float(slopes[low])), line(float(slopes[high]))
    )


def units_until(trend: Trend, limit: float) -> tuple[float, float | None] | None:
    """From the last x on, how far until a falling line reaches `limit`: the ends of the interval.

    None when it does not fall; the far end is None when it may never get there. Zero when it is there already.

    >>> units_until(Trend(Line(-2, 3400), Line(-2.5, 3390), Line(-1, 3410)), 3350)
    (16.0, 60.0)
    """
    if trend.line.level <= limit:
        return 0.0, 0.0
    if trend.line.slope >= 0:
        return None
    near = max(0.0, trend.low.level - limit) / -trend.low.slope
    if trend.high.slope >= 0:
        return near, None
    return near, max(0.0, trend.high.level - limit) / -trend.high.slope

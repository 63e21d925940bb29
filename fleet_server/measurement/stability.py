"""Does a reading stand still? What somebody who holds a probe into a standard waits for.

Pure: times and readings in, a verdict out. What the limits of a quantity are is data (`LIMITS`), ours, after what makers of buffers and
probes ask for; not from a standard.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class StabilityLimits:
    """When readings of one property stand still, in its published unit.

    Attributes:
        window_s: over how long they have to.
        least_count: how many readings there have to be in that time.
        slope_per_min: how far they may drift, in one minute.
        spread: how far the highest and the lowest may lie apart.
    """

    window_s: float
    least_count: int
    slope_per_min: float
    spread: float


LIMITS: Final = {
    "ph": StabilityLimits(120.0, 4, 0.005, 0.02),
    "dissolved_oxygen": StabilityLimits(180.0, 5, 0.02, 0.10),
    "oxygen_saturation": StabilityLimits(180.0, 5, 0.2, 1.0),
    "conductivity_25": StabilityLimits(120.0, 4, 2.0, 8.0),
    "turbidity": StabilityLimits(120.0, 4, 0.5, 2.0),
    "soil_moisture_index": StabilityLimits(120.0, 4, 0.003, 0.02),
    "soil_water_content": StabilityLimits(120.0, 4, 0.001, 0.01),
    "soil_temperature": StabilityLimits(180.0, 5, 0.03, 0.13),
    "water_temperature": StabilityLimits(180.0, 5, 0.03, 0.13),
    "air_temperature": StabilityLimits(180.0, 5, 0.03, 0.13),
    "water_level": StabilityLimits(120.0, 4, 0.002, 0.01),
}
"""A thermometer's 0.13 °C are two of its last digits (DS18B20: 1/16 °C)."""


@dataclass(frozen=True)
class Stability:
    """What a window of readings comes to.

    Attributes:
        count: readings in the window that have a value.
        covered_s: from the first of them to the last.
        mean: of these; NaN without any.
        u_mean: standard uncertainty of the mean, from their scatter (JCGM 100:2008 §4.2.3); 0 with fewer than two.
        slope_per_min: of the straight line through them (least squares); 0 with fewer than two.
        spread: highest − lowest.
        stable_for_s: how long, up to the last reading, they have kept within both limits; 0 when they never did.
        reason: why they do not stand still: "few", "short", "slope" or "spread"; empty when they do.
    """

    count: int
    covered_s: float
    mean: float
    u_mean: float
    slope_per_min: float
    spread: float
    stable_for_s: float
    reason: str

    @property
    def is_stable(self) -> bool:
        return not self.reason


def assess(times_s: ArrayLike, values: ArrayLike, limits: StabilityLimits) -> Stability:
    """Judge the readings of the last `limits.window_s` seconds before the newest one that has a value.

    Args:
        times_s: seconds, ascending, shape (n,).
        values: published unit, shape (n,); NaN: a reading without a value, which is passed over.

    >>> limits = StabilityLimits(window_s=60.0, least_count=3, slope_per_min=0.1, spread=0.2)
    >>> still = assess([0, 30, 60, 90], [9.0, 7.02, 7.0, 7.01], limits)
    >>> still.is_stable, round(still.mean, 2), still.stable_for_s
    (True, 7.01, 60.0)
    >>> assess([0, 30, 60], [7.0, 7.2, 7.4], limits).reason
    'slope'
    """
    times, readings = np.asarray(times_s, np.float64), np.asarray(values, np.float64)
    if times.shape != readings.shape or times.ndim != 1:
        raise ValueError("There must be as many times as readings.")
    if (np.diff(times) < 0).any():
        raise ValueError("The times of readings must ascend.")
    has_value = np.isfinite(readings)
    times, readings = times[has_value], readings[has_value]
    if not times.size:
        return Stability(0, 0.0, math.nan, 0.0, 0.0, 0.0, 0.0, "few")
    is_inside = times >= times[-1] - limits.window_s
    inside_s, inside = times[is_inside], readings[is_inside]
    covered_s = float(inside_s[-1] - inside_s[0])
    slope, spread = _slope_per_min(inside_s, inside), float(np.ptp(inside))
    return Stability(
        count=int(inside.size),
        covered_s=covered_s,
        mean=float(inside.mean()),
        u_mean=_u_of_mean(inside),
        slope_per_min=slope,
        spread=spread,
        stable_for_s=_stable_for_s(times, readings, limits),
        reason=_reason(times, inside.size, slope, spread, limits),
    )


def _reason(
    times: FloatArray, count: int, slope: float, spread: float, limits: StabilityLimits
) -> str:
    if count < limits.least_count:
        return "few"
    if times[-1] - times[0] < limits.window_s:
        return "short" if _within(slope, spread, limits) else _worse(slope, limits)
    return "" if _within(slope, spread, limits) else _worse(slope, limits)


def _worse(slope: float, limits: StabilityLimits) -> str:
    return "slope" if abs(slope) > limits.slope_per_min else "spread"


def _within(slope: float, spread: float, limits: StabilityLimits) -> bool:
    return abs(slope) <= limits.slope_per_min and spread <= limits.spread


def _stable_for_s(times: FloatArray, readings: FloatArray, limits: StabilityLimits) -> float:
    """Backwards from the newest: the longest run that keeps within both limits as a whole."""
    longest = 0.0
    for first in range(times.size - limits.least_count, -1, -1):
        some_s, some = times[first:], readings[first:]
        if np.ptp(some) > limits.spread:
            break
        if abs(_slope_per_min(some_s, some)) <= limits.slope_per_min:
            longest = float(some_s[-1] - some_s[0])
    return longest


def _slope_per_min(times_s: FloatArray, readings: FloatArray) -> float:
    t = times_s - times_s.mean()
    spread = float((t * t).sum())
    return 60.0 * float((t * (readings - readings.mean())).sum()) / spread if spread > 0 else 0.0


def _u_of_mean(readings: FloatArray) -> float:
    if readings.size < 2:
        return 0.0
    return float(readings.std(ddof=1) / math.sqrt(readings.size))

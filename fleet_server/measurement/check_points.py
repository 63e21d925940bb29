"""A probe's values beside what others measured at the same place: difference, its uncertainty, whether both agree, how it goes with time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fleet_server.measurement.trend import Trend, theil_sen

COVERAGE_FACTOR = 2.0
"""k of both expanded uncertainties in the normalized error."""
_SECONDS_A_DAY = 86_400.0
_FEWEST_FOR_A_TREND = 3


@dataclass(frozen=True)
class Beside:
    """What the probe showed at an instant. `away_s`: how far the further of the values used lies from it."""

    value: float
    u: float
    away_s: int
    is_interpolated: bool


def beside(
    times_s: ArrayLike, value: ArrayLike, u: ArrayLike, *, at_s: int, window_s: int
) -> Beside | None:
    """The probe's value at an instant: on the line between its neighbours if both lie within the window, else the nearest within it.

    The uncertainty is interpolated alike: errors of two values of one probe are taken as fully correlated, since nearly all of it is its
    calibration's (JCGM 100:2008, 5.2.2: u = Σ |c_i| u_i for r = 1). What the water or the soil did between two values is not in it.

    Args:
        times_s: (n,) seconds, rising; value, u: (n,) in the published unit, without NaN in `value`; u NaN where it is not known.
        window_s: of both sides, included.

    >>> beside([0, 600, 1200], [8.0, 8.2, 8.8], [0.1, 0.1, 0.2], at_s=900, window_s=900)
    Beside(value=8.5, u=0.15000000000000002, away_s=300, is_interpolated=True)
    >>> beside([0, 600], [8.0, 8.2], [0.1, 0.1], at_s=900, window_s=900).away_s
    300
    """
    times, values, us = (np.asarray(one, dtype=np.float64) for one in (times_s, value, u))
    after = int(np.searchsorted(times, at_s))
    if after < times.size and times[after] == at_s:
        return Beside(float(values[after]), float(us[after]), 0, is_interpolated=False)
    before = after - 1
    to_before = at_s - times[before] if before >= 0 else np.inf
    to_after = times[after] - at_s if after < times.size else np.inf
    if max(to_before, to_after) <= window_s:
        part = float(to_before / (to_before + to_after))
        return Beside(
            float(values[before] + part * (values[after] - values[before])),
            float(us[before] + part * (us[after] - us[before])),
            int(max(to_before, to_after)),
            is_interpolated=True,
        )
    nearest = before if to_before <= to_after else after
    away = min(to_before, to_after)
    if away > window_s:
        return None
    return Beside(float(values[nearest]), float(us[nearest]), int(away), is_interpolated=False)


def normalized_error(difference: float, u: float, u_reference: float) -> float:
    """E_n = d / √(U² + U_ref²) with U = 2u: |E_n| ≤ 1 means that both agree (ISO 13528:2022, 9.7; ISO/IEC 17043:2023, annex B).

    The two are taken as independent. `u` and `u_reference` above zero, in the unit of `difference`; NaN where one is not known.

    >>> normalized_error(0.5, 0.15, 0.2)
    1.0
    """
    return difference / (COVERAGE_FACTOR * float(np.hypot(u, u_reference)))


def difference_trend(times_s: ArrayLike, difference: ArrayLike) -> Trend | None:
    """How the differences go with time, per day; None with fewer than three instants. times_s: (n,) rising without ties."""
    times = np.asarray(times_s, dtype=np.float64)
    if times.size < _FEWEST_FOR_A_TREND:
        return None
    return theil_sen((times - times[0]) / _SECONDS_A_DAY, difference)

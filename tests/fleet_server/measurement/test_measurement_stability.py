"""When does a reading stand still?"""

from __future__ import annotations

import math

import pytest

from fleet_server.measurement.quality import GROSS_RANGES
from fleet_server.measurement.stability import LIMITS, StabilityLimits, assess

ONE = StabilityLimits(window_s=120.0, least_count=4, slope_per_min=0.01, spread=0.05)
TIMES = [0, 30, 60, 90, 120]


@pytest.mark.parametrize(
    ("times", "values", "reason"),
    [
        (TIMES, [7.0, 7.0, 7.01, 7.0, 7.0], ""),
        ([], [], "few"),
        (TIMES, [math.nan] * 5, "few"),
        (TIMES, [7.0, math.nan, math.nan, math.nan, 7.0], "few"),
        (TIMES[:4], [7.0] * 4, "short"),
        (TIMES, [7.0, 7.02, 7.04, 7.06, 7.08], "slope"),
        (TIMES, [7.0, 7.06, 7.0, 7.06, 7.0], "spread"),
        (TIMES[:4], [7.0, 7.1, 7.2, 7.3], "slope"),
    ],
)
def test_reading_stands_still_when_it_neither_drifts_nor_scatters_for_long_enough(
    times: list[float], values: list[float], reason: str
) -> None:
    found = assess(times, values, ONE)
    assert (found.reason, found.is_stable) == (reason, not reason)


def test_exponential_approach_becomes_steady_after_it_has_settled_and_not_before() -> None:
    """A probe that goes from 4 to 7 with a time constant of 40 s, read every 30 s."""
    times = [30.0 * n for n in range(30)]
    values = [7.0 - 3.0 * math.exp(-t / 40.0) for t in times]
    verdicts = [assess(times[:n], values[:n], ONE).is_stable for n in range(1, 31)]
    first = verdicts.index(True)
    assert all(verdicts[first:])
    # When the whole window lies within the spread: 3·exp(−t/40) < 0.05 at its begin, t = 164 s.
    assert 164 <= times[first] - ONE.window_s <= 240
    assert assess(times, values, ONE).mean == pytest.approx(7.0, abs=0.001)


def test_mean_and_its_uncertainty_are_those_of_the_window_alone() -> None:
    found = assess([0, 10, *(100 + t for t in TIMES)], [1.0, 9.0, 7.0, 7.02, 7.0, 7.02, 7.0], ONE)
    assert (found.count, found.covered_s) == (5, 120.0)
    assert found.mean == pytest.approx(7.008)
    assert found.u_mean == pytest.approx(0.01095445 / math.sqrt(5), rel=1e-6)
    assert found.stable_for_s == 120.0


@pytest.mark.parametrize(("times", "values"), [([0, 1], [1.0]), ([1, 0], [1.0, 1.0])])
def test_columns_that_do_not_fit_are_refused(times: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match="times"):
        assess(times, values, ONE)


def test_limits_are_of_properties_that_there_are() -> None:
    assert set(LIMITS) <= set(GROSS_RANGES)

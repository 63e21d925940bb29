"""A probe's value at the instant of another's measurement, and whether both agree."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fleet_server.measurement import check_points, given_units
from fleet_server.measurement.check_points import beside, difference_trend, normalized_error
from fleet_server.measurement.units import UNITS

TIMES = [0, 600, 1200, 5000]
VALUES = [8.0, 8.2, 8.8, 9.0]
US = [0.1, 0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("at_s", "window_s", "expected"),
    [
        (600, 0, (8.2, 0.1, 0, False)),
        (300, 300, (8.1, 0.1, 300, True)),
        (900, 300, (8.5, 0.15, 300, True)),
        (1000, 300, (8.8, 0.2, 200, False)),  # the other neighbour lies too far
        (3000, 600, None),
        (-500, 600, (8.0, 0.1, 500, False)),
        (5100, 600, (9.0, 0.3, 100, False)),
        (5601, 600, None),
    ],
)
def test_probes_value_is_interpolated_between_near_neighbours_else_the_nearest(
    at_s: int, window_s: int, expected: tuple[float, float, int, bool] | None
) -> None:
    found = beside(TIMES, VALUES, US, at_s=at_s, window_s=window_s)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found.value, found.u) == pytest.approx(expected[:2])
    assert (found.away_s, found.is_interpolated) == expected[2:]


def test_nothing_near_is_nothing() -> None:
    assert beside([], [], [], at_s=0, window_s=100) is None


def test_interpolation_keeps_what_is_not_known() -> None:
    found = beside([0, 10], [1.0, 2.0], [math.nan, 0.1], at_s=5, window_s=10)
    assert found is not None
    assert math.isnan(found.u)


def test_normalized_error_of_two_that_tell_the_truth_is_within_one_as_often_as_k_2_says() -> None:
    """If both uncertainties are right, E_n is normal with σ = 1/2: |E_n| ≤ 1 in 95.45 %."""
    random = np.random.default_rng(8)
    n, u, u_reference = 20_000, 0.3, 0.4
    differences = random.normal(0, u, n) - random.normal(0, u_reference, n)
    within = sum(abs(normalized_error(one, u, u_reference)) <= 1 for one in differences.tolist())
    assert within / n == pytest.approx(0.9545, abs=0.006)


def test_trend_of_differences_is_per_day_and_wants_three() -> None:
    days = np.array([0.0, 30.0, 60.0, 90.0])
    trend = difference_trend(days * 86_400, 0.1 + 0.002 * days)
    assert trend is not None
    assert trend.line.slope == pytest.approx(0.002)
    assert difference_trend(days[:2] * 86_400, days[:2]) is None


def test_each_property_can_be_given_in_the_unit_that_it_is_published_in() -> None:
    from fractions import Fraction

    assert check_points.COVERAGE_FACTOR == 2.0
    for name, one in given_units.PROPERTIES.items():
        for spelled in (one.unit, UNITS[one.unit].symbol):
            assert given_units.converted(Fraction(5, 4), spelled, name) == 1.25, name

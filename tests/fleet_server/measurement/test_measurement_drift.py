"""Corrections between visits: TM1-D3's worked example, driftR's two points, what stays unknown, and ratings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.measurement.drift import (
    DRIFT_LIMITS,
    Check,
    Correction,
    correct,
    fouling_error,
    is_correction_due,
    max_allowable,
    rating,
    u_drift_closed,
    u_drift_open,
)
from fleet_server.measurement.quality import GROSS_RANGES

VISITS = (1_000.0, 3_000.0)
HALF_WAY = 2_000.0


def one(value: float, at_s: float, visit: Correction, u: float = 0.0) -> tuple[float, float]:
    values, us = correct([at_s], [value], [u], visit)
    return float(values[0]), float(us[0])


def test_worked_example_of_fouling_and_drift_one_after_the_other() -> None:
    fouling = fouling_error(820, 855, water_before=851, water_after=853)
    assert fouling == 33
    assert 100 * fouling / 820 == pytest.approx(4.0244, abs=5e-5)
    drift = Check(standard=1000, reading=990)
    assert 100 * drift.drift_error / 990 == pytest.approx(1.0101, abs=5e-5)
    total = fouling / 820 + drift.drift_error / 990
    assert 100 * total == pytest.approx(5.0345, abs=5e-5)
    assert rating("conductivity_25", total * 820, 820) == "good"
    visit = Correction(*VISITS, fouling_relative=fouling / 820, high=drift)
    assert one(840, HALF_WAY, visit)[0] == pytest.approx(861.23023, abs=5e-6)
    assert one(840, VISITS[0], visit)[0] == 840


@pytest.mark.parametrize(("at_s", "expected"), [(HALF_WAY, 7.134788), (VISITS[1], 7.106472)])
def test_two_checks_put_a_ph_right_as_driftr_does(at_s: float, expected: float) -> None:
    visit = Correction(*VISITS, low=Check(7.0, 7.01), high=Check(10.0, 11.8))
    assert one(7.18, at_s, visit)[0] == pytest.approx(expected, abs=5e-7)


def test_two_checks_equal_driftr_to_1e_9() -> None:
    # driftR's dr_correctTwo with its own names, by hand for f = 0.37 and a value of 8.4.
    f, value, low_std, low_val, high_std, high_val = 0.37, 8.4, 7.0, 6.93, 10.0, 10.22
    low = low_std + f * (low_val - low_std)
    high = high_std - f * (high_std - high_val)
    expected = (value - low) / (high - low) * (high_std - low_std) + low_std
    visit = Correction(0, 100, low=Check(low_std, low_val), high=Check(high_std, high_val))
    assert one(value, 37, visit)[0] == pytest.approx(expected, rel=1e-9)


def test_low_check_alone_shifts_and_high_check_alone_stretches() -> None:
    assert one(12.0, VISITS[1], Correction(*VISITS, low=Check(0.0, 0.3)))[0] == pytest.approx(11.7)
    assert one(12.0, VISITS[1], Correction(*VISITS, high=Check(100, 96)))[0] == pytest.approx(12.5)


def test_outside_of_the_visits_nothing_changes_by_a_bit() -> None:
    visit = Correction(*VISITS, fouling=1.0, high=Check(100, 90))
    times = np.array([0.0, 999.9, 3_000.1, math.nan])
    values, u = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.01, 0.02, 0.03, 0.04])
    corrected, corrected_u = correct(times, values, u, visit)
    assert corrected.tobytes() == values.tobytes()
    assert corrected_u.tobytes() == u.tobytes()


@given(
    st.floats(-0.2, 0.2), st.floats(-2, 2), st.floats(0.9, 1.1), st.floats(0, 1), st.floats(1, 100)
)
def test_uncertainty_has_the_slope_of_the_correction_and_what_stays_unknown(
    fouling_relative: float, fouling: float, shown: float, f: float, value: float
) -> None:
    visit = Correction(
        0, 1, fouling=fouling, fouling_relative=fouling_relative, low=Check(0, shown - 1), high=Check(100, 100 * shown)
    )  # fmt: skip
    corrected, u = one(value, f, visit, u=0.5)
    step = 1e-4
    slope = (one(value + step, f, visit)[0] - one(value - step, f, visit)[0]) / (2 * step)
    whole = one(value, 1, visit)[0] - value
    assert u == pytest.approx(math.hypot(slope * 0.5, 0.3 * whole), rel=1e-6)
    assert math.isfinite(corrected)


def test_what_stays_unknown_covers_drifts_that_came_all_at_once() -> None:
    # As far from "in proportion to the time" as it goes: the whole step at one unknown moment.
    generator = np.random.default_rng(3)
    visit = Correction(0, 1, low=Check(0.0, 1.0))
    moments, times = generator.uniform(0, 1, 4_000), generator.uniform(0, 1, 4_000)
    shown = 10.0 + (times > moments)
    values, u = correct(times, shown, np.zeros(4_000), visit)
    assert np.sqrt(np.mean((values - 10.0) ** 2)) < 1.4 * u[0]
    assert u[0] == pytest.approx(float(u_drift_closed(1.0)))


def test_drift_that_is_not_closed_yet_grows_as_a_rectangle() -> None:
    assert u_drift_open(0.6, [0.0, 0.5, 1.0]) == pytest.approx(
        [0.0, 0.3 / math.sqrt(3), 0.6 / math.sqrt(3)]
    )
    assert float(u_drift_open(-0.6, 1.0)) > float(u_drift_closed(-0.6))


def test_corrected_row_has_the_same_bits_alone_and_among_others() -> None:
    visit = Correction(*VISITS, fouling_relative=0.04, low=Check(0, 0.1), high=Check(100, 97))
    generator = np.random.default_rng(6)
    times, values = generator.uniform(500, 3_500, 1_003), generator.uniform(0, 100, 1_003)
    together = correct(times, values, values / 50, visit)
    for row in (0, 1, 500, 1_002):
        alone = correct(times[[row]], values[[row]], values[[row]] / 50, visit)
        assert [one[0].tobytes() for one in alone] == [one[row].tobytes() for one in together]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"to_s": 1_000.0}, "ends after it begins"),
        ({"fouling": math.nan}, "finite numbers"),
        ({"high": Check(1000, math.inf)}, "finite numbers"),
        ({"fouling_relative": -1.0}, "more than the whole value"),
        ({"high": Check(1000, 0)}, "above zero in the standard"),
        ({"low": Check(7, 7), "high": Check(4, 4)}, "low and a high standard"),
        ({"low": Check(4, 7), "high": Check(7, 4)}, "low and a high standard"),
    ],
)
def test_correction_that_makes_no_sense_is_refused_in_a_sentence(
    wrong: dict[str, float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Correction(**({"from_s": VISITS[0], "to_s": VISITS[1]} | wrong))


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        correct([1, 2], [1], [1], Correction(*VISITS))


@pytest.mark.parametrize(
    ("observed_property", "value", "steps"),
    [
        ("water_temperature", 12.0, (0.2, 0.5, 0.8, 2.0)),
        ("conductivity_25", 1_000.0, (30.0, 100.0, 150.0, 300.0)),
        ("dissolved_oxygen", 4.0, (0.3, 0.5, 0.8, 2.0)),
        ("dissolved_oxygen", 12.0, (0.6, 1.2, 1.8, 2.4)),
        ("ph", 7.0, (0.2, 0.5, 0.8, 2.0)),
        ("turbidity", 100.0, (5.0, 10.0, 15.0, 30.0)),
        ("soil_water_content", 0.3, (0.02, 0.04, 0.06, 0.12)),
        ("water_level", 1.0, (0.003, 0.01, 0.02, 0.04)),
    ],
)
def test_record_is_rated_by_the_sum_of_its_corrections(
    observed_property: str, value: float, steps: tuple[float, ...]
) -> None:
    words = ["excellent", "good", "fair", "poor", "unpublishable"]
    for step, below, above in zip(steps, words[:-1], words[1:], strict=True):
        assert rating(observed_property, step * (1 - 1e-12), value) == below
        assert rating(observed_property, step * 1.001, value) == above
    assert max_allowable(observed_property, value) == pytest.approx(steps[-1])
    assert is_correction_due(observed_property, steps[0] * 1.001, value)


def test_limits_rise_from_excellent_to_unpublishable_and_belong_to_our_properties() -> None:
    assert set(DRIFT_LIMITS) <= set(GROSS_RANGES)
    for limits in DRIFT_LIMITS.values():
        steps = [limits.excellent, limits.good, limits.fair, limits.publishable]
        for value in (0.1, 1.0, 10.0, 1_000.0):
            numbers = [step.at(value) for step in steps]
            assert numbers == sorted(numbers)
            assert len(set(numbers)) == 4

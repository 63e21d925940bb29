"""Means of hours and days: what they are made of, how sure they are, and when they are not to be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.measurement.aggregates import (
    Aggregates,
    Readings,
    Split,
    Stream,
    aggregate,
    split_of,
)
from fleet_server.measurement.budget import budget
from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.measurement.quality import Flag

QUARTER_S = 900.0
HOUR_S = 3_600.0
BERLIN = ZoneInfo("Europe/Berlin")
COLUMNS = ("mean", "minimum", "maximum", "u", "count", "completeness", "flag")


def quarters(
    values: Sequence[float], flags: Sequence[int] | None = None, u: Any = 0.3, start_s: float = 0.0
) -> Readings:
    times_s = start_s + QUARTER_S * np.arange(len(values))
    return Readings.of(times_s, values, u, [1] * len(values) if flags is None else flags)


def hour(readings: Readings) -> Aggregates:
    return aggregate(readings, [0.0, HOUR_S], interval_s=QUARTER_S)


def cut(readings: Readings, start: int, end: int) -> Readings:
    columns = ("times_s", "value", "u_common", "u_noise", "u_resolution", "flag")
    return Readings(*(getattr(readings, column)[start:end] for column in columns))


# --------------------------------------------------------------------------------------------------- what is in a mean


def test_hour_has_mean_least_greatest_and_count_of_its_readings_alone() -> None:
    readings = quarters([9.0, 1.0, 2.0, 3.0, 6.0, 99.0], start_s=-QUARTER_S)
    at = hour(readings)
    assert (at.from_s.tolist(), at.to_s.tolist()) == ([0.0], [HOUR_S])
    assert (at.mean.tolist(), at.minimum.tolist(), at.maximum.tolist()) == ([3.0], [1.0], [6.0])
    assert (at.count.tolist(), at.completeness.tolist(), at.flag.tolist()) == ([4], [1.0], [1])


def test_reading_on_an_edge_belongs_to_the_hour_that_begins() -> None:
    at = aggregate(quarters([1.0] * 4 + [5.0] * 4), [0, HOUR_S, 2 * HOUR_S], interval_s=QUARTER_S)
    assert at.mean.tolist() == [1.0, 5.0]


def test_bad_and_missing_readings_do_not_go_in() -> None:
    at = hour(quarters([1.0, 2.0, 500.0, 3.0, math.nan], [1, 1, 4, 1, 9]))
    assert (at.mean[0], at.maximum[0], at.count[0], at.completeness[0]) == (2.0, 3.0, 3, 0.75)


@pytest.mark.parametrize(
    ("values", "flags", "flag"),
    [
        ([1, 1, 1, 1], [1, 1, 1, 1], Flag.GOOD),
        ([1, 1, 1, 1], [1, 1, 2, 1], Flag.NOT_EVALUATED),
        ([1, 1, 1, 1], [1, 2, 3, 1], Flag.SUSPECT),
        ([1, 1, 1, 1], [1, 1, 1, 4], Flag.GOOD),  # three quarters are there
        ([1, 1, 1, 1], [1, 1, 4, 4], Flag.SUSPECT),  # a half is
        ([1, 1], [1, 1], Flag.SUSPECT),
        ([1, 1, 1, 1], [4, 4, 4, 4], Flag.BAD),
        ([math.nan] * 4, [4, 9, 9, 9], Flag.BAD),
        ([math.nan] * 4, [9, 9, 9, 9], Flag.MISSING),
        ([], [], Flag.MISSING),
    ],
)
def test_flag_of_a_mean_is_the_worst_that_went_in_and_suspect_where_too_little_did(
    values: list[float], flags: list[int], flag: Flag
) -> None:
    at = hour(quarters(values, flags))
    assert at.flag[0] == flag
    assert math.isnan(at.mean[0]) == (flag in (Flag.BAD, Flag.MISSING))
    assert math.isnan(at.u[0]) == math.isnan(at.mean[0]) == math.isnan(at.minimum[0])


def test_many_readings_in_one_quarter_do_not_make_an_hour() -> None:
    dense = Readings.of(np.arange(0.0, 900.0, 60.0), [1.0] * 15, 0.1, [1] * 15)
    at = hour(dense)
    assert (at.count[0], at.completeness[0], at.flag[0]) == (15, 0.5, Flag.SUSPECT)


def test_readings_a_few_seconds_early_and_late_make_a_whole_day() -> None:
    late_s = np.random.default_rng(5).uniform(-20, 20, 96)
    readings = Readings.of(450.0 + QUARTER_S * np.arange(96) + late_s, np.ones(96), 0.1, [1] * 96)
    assert aggregate(readings, [0, 86_400], interval_s=QUARTER_S).completeness.tolist() == [1.0]


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25)])
def test_local_day_of_another_length_is_complete_with_its_own_hours(
    day: tuple[int, int, int], hours: int
) -> None:
    year, month, first = day
    edges_s = [
        datetime(year, month, first + more, tzinfo=BERLIN).timestamp() for more in (-1, 0, 1)
    ]
    readings = quarters([2.0] * (4 * (24 + hours)), start_s=edges_s[0])
    at = aggregate(readings, edges_s, interval_s=QUARTER_S)
    assert at.count.tolist() == [96, 4 * hours]
    assert at.completeness.tolist() == [1.0, 1.0]


# ------------------------------------------------------------------------------------------------------ how sure it is


def test_uncertainty_of_a_mean_is_the_scatter_of_drawn_days() -> None:
    generator = np.random.default_rng(11)
    days, n = 20_000, 96
    truth = 12.0 + 4.0 * np.sin(np.linspace(0.0, 2.0 * np.pi, n))
    u_common, u_noise, digit = 0.05, 0.4, 0.5
    calibration = generator.normal(0.0, u_common, (days, 1))
    shown = truth + calibration + generator.normal(0.0, u_noise, (days, n))
    scatter = np.std((np.rint(shown / digit) * digit).mean(axis=1) - truth.mean())
    split = Split(*(np.full(n, u) for u in (u_common, u_noise, digit / math.sqrt(12.0))))
    readings = Readings.of(
        QUARTER_S * np.arange(n), np.rint(shown[0] / digit) * digit, split, [1] * n
    )
    u = float(aggregate(readings, [0, 86_400], interval_s=QUARTER_S).u[0])
    assert u == pytest.approx(float(scatter), rel=0.03)
    # Had the calibration's error been taken for noise, u would be far too small.
    assert math.hypot(u_common, u_noise, digit / math.sqrt(12.0)) / math.sqrt(n) < 0.75 * u


def test_last_digit_of_readings_that_stand_still_is_not_averaged_away() -> None:
    generator = np.random.default_rng(12)
    truth = generator.uniform(-0.5, 0.5, 20_000)
    scatter = float(
        np.std(np.rint(truth) - truth)
    )  # a whole day on one digit, each day another truth
    zero, u_digit = np.zeros(96), np.full(96, 1.0 / math.sqrt(12.0))
    still = Readings.of(
        QUARTER_S * np.arange(96), zero, Split(zero, zero, u_digit), np.ones(96, dtype=int)
    )
    at = aggregate(still, [0, 86_400], interval_s=QUARTER_S)
    assert float(at.u[0]) == pytest.approx(scatter, rel=0.02)
    moving = Readings.of(still.times_s, np.arange(96) % 3, Split(zero, zero, u_digit), still.flag)
    at = aggregate(moving, [0, 86_400], interval_s=QUARTER_S)
    assert float(at.u[0]) == pytest.approx(scatter / math.sqrt(96), rel=0.02)


def test_mean_of_readings_whose_u_nobody_split_is_as_unsure_as_they_are() -> None:
    assert hour(quarters([1, 2, 3, 4], u=0.3)).u[0] == pytest.approx(0.3)
    assert hour(quarters([1, 2, 3, 4], u=np.array([0.1, 0.2, 0.3, 0.4]))).u[0] == pytest.approx(
        0.25
    )


def test_budget_is_split_into_what_readings_share_and_what_they_do_not() -> None:
    table = budget("sixteenths", [318, math.nan, 400], {}, CalibrationParameters(u_abs=0.29))
    split = split_of(table, u_noise=0.1)
    whole = np.sqrt(split.u_common**2 + split.u_noise**2 + split.u_resolution**2)
    np.testing.assert_allclose(whole, table.u, rtol=1e-12)
    assert split.u_resolution[0] == pytest.approx(0.0625 / math.sqrt(12))
    assert np.isnan(split.u_noise).tolist() == [False, True, False]


@pytest.mark.parametrize("u_noise", [0.3, -0.1, math.nan])
def test_noise_that_the_probe_does_not_have_is_refused(u_noise: float) -> None:
    table = budget("sixteenths", [318], {}, CalibrationParameters(u_abs=0.29))
    with pytest.raises(ValueError, match="noise of a probe"):
        split_of(table, u_noise=u_noise)


# ------------------------------------------------------------------------------------------------------------- streams

_SOME = st.lists(
    st.tuples(
        st.floats(0, 1_500),
        st.floats(-1e3, 1e3) | st.just(math.nan),
        st.sampled_from([1, 2, 3, 4, 9]),
        st.floats(0, 2),
    ),
    max_size=40,
)


@given(_SOME, st.lists(st.integers(0, 40), max_size=6))
def test_any_cut_into_batches_comes_to_the_same_bits(
    rows: list[tuple[float, float, int, float]], cuts: list[int]
) -> None:
    steps, values, flags, u = (
        (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.array([]),) * 4
    )
    split = Split(u, u / 2, u / 3)
    readings = Readings.of(np.cumsum(steps) - 2_000.0, values, split, flags)
    edges_s = [0.0, HOUR_S, 2 * HOUR_S, 5 * HOUR_S]
    at_once = aggregate(readings, edges_s, interval_s=QUARTER_S)
    stream = Stream(edges_s, interval_s=QUARTER_S)
    ends = sorted({min(one, len(rows)) for one in cuts} | {len(rows)})
    for start, end in zip([0, *ends], ends, strict=False):
        stream.add(cut(readings, start, end))
    in_pieces = stream.result()
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(in_pieces, column), getattr(at_once, column))


@pytest.mark.parametrize("size", [1, 7, 40])
def test_day_of_rounded_sums_in_batches_comes_to_the_same_bits(size: int) -> None:
    generator = np.random.default_rng(8)
    u = generator.uniform(0.1, 0.3, 96)
    readings = Readings.of(
        QUARTER_S * np.arange(96),
        generator.normal(12, 3, 96),
        Split(u, u / 3, u / 7),
        np.ones(96, dtype=int),
    )
    stream = Stream([0, 86_400], interval_s=QUARTER_S)
    for start in range(0, 96, size):
        stream.add(cut(readings, start, start + size))
    at_once = aggregate(readings, [0, 86_400], interval_s=QUARTER_S)
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(stream.result(), column), getattr(at_once, column))


@given(_SOME)
def test_interval_does_not_depend_on_its_neighbours(
    rows: list[tuple[float, float, int, float]],
) -> None:
    if not rows:
        return
    steps, values, flags, u = (np.array(column) for column in zip(*rows, strict=True))
    readings = Readings.of(np.cumsum(steps), values, u, flags)
    edges_s = [0.0, HOUR_S, 3 * HOUR_S, 9 * HOUR_S]
    together = aggregate(readings, edges_s, interval_s=QUARTER_S)
    for place in range(3):
        alone = aggregate(readings, edges_s[place : place + 2], interval_s=QUARTER_S)
        for column in COLUMNS:
            np.testing.assert_array_equal(
                getattr(alone, column)[0], getattr(together, column)[place]
            )
        used = (readings.times_s >= edges_s[place]) & (readings.times_s < edges_s[place + 1])
        used &= np.isin(readings.flag, [1, 2, 3]) & ~np.isnan(readings.value)
        assert together.count[place] == used.sum()
        if used.any():
            exact = math.fsum(readings.value[used]) / used.sum()
            assert together.mean[place] == pytest.approx(exact, rel=1e-12, abs=1e-10)


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("edges_s", "interval_s", "sentence"),
    [
        ([0.0], 900.0, "edges"),
        ([0.0, 0.0], 900.0, "edges"),
        ([10.0, 5.0], 900.0, "edges"),
        ([0.0, math.nan], 900.0, "edges"),
        ([0.0, 10.0], 0.0, "more than 0 s"),
        ([0.0, 10.0], math.nan, "more than 0 s"),
    ],
)
def test_edges_that_make_no_interval_are_refused(
    edges_s: list[float], interval_s: float, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Stream(edges_s, interval_s=interval_s)


def test_time_going_backwards_is_refused_and_nothing_is_taken() -> None:
    with pytest.raises(ValueError, match="in the order of time"):
        Readings.of([900, 0], [1.0, 2.0], 0.1, [1, 1])
    with pytest.raises(ValueError, match="in the order of time"):
        Readings.of([math.nan, 0], [1.0, 2.0], 0.1, [1, 1])
    with pytest.raises(ValueError, match="differ in length"):
        Readings.of([0, 900], [1.0], 0.1, [1])
    stream = Stream([0.0, HOUR_S], interval_s=QUARTER_S)
    stream.add(quarters([1.0, 1.0]))
    with pytest.raises(ValueError, match="in the order of time"):
        stream.add(quarters([5.0], start_s=0.0))
    assert stream.result().mean.tolist() == [1.0]

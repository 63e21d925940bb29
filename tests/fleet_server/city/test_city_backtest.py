"""A backtest sees what was known then and nothing else, its bands hold, and its scores are those of others."""

from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fleet_server.city import backtest, dawn_oxygen, dry_down, scores
from fleet_server.city.backtest import (
    CHOSEN,
    TOGETHER,
    Case,
    Forecasts,
    Known,
    Question,
    Stored,
    conformal,
    run,
)
from fleet_server.city.scores import Share, compare, warnings_below
from fleet_server.measurement.windows import DAY_S, Series

HOUR_S = 3600
SOIL_METHODS = {
    "line": dry_down.straight_line,
    "slowing": dry_down.slowing_line,
    "still": dry_down.persistence,
    "fall": dry_down.exponential,
    "learned": dry_down.learned,
}
DAWN_METHODS = {
    "yesterday": dawn_oxygen.yesterday,
    "week": dawn_oxygen.week,
    "regression": dawn_oxygen.regression,
    "breathing": dawn_oxygen.breathing,
}


@pytest.mark.parametrize("module", [backtest, dawn_oxygen, dry_down, scores])
def test_examples_in_the_docstrings_hold(module: Any) -> None:
    outcome = doctest.testmod(module)
    assert outcome.failed == 0
    assert outcome.attempted > 0


def soil() -> Series:
    """Forty days of drying, watered twice, hourly, % by volume."""
    generator = np.random.default_rng(3)
    hours = np.arange(40 * 24)
    since = np.where(hours < 500, hours, hours - 500) / 24
    values = 9 + 14 * np.exp(-since / 11) + generator.normal(0, 0.05, hours.size)
    return Series(hours * HOUR_S, values)


def pond(nights: int = 30, seed: int = 4) -> dict[str, Series]:
    """Oxygen that breathes at night and rises by day as far as the sun of that day lets it, hourly."""
    generator = np.random.default_rng(seed)
    times = np.arange(nights * 24) * HOUR_S
    oxygen, values = 7.0, []
    gain = 0.0
    for hour in range(times.size):
        if hour % 24 == 6:
            gain = generator.uniform(0.15, 0.62)
        if 6 <= hour % 24 < 20:
            oxygen += gain * math.sin(math.pi * (hour % 24 - 6) / 14) - 0.08 * (oxygen - 7)
        else:
            oxygen += -0.28 + 0.04 * (8.7 - oxygen)
        values.append(max(oxygen, 0.2) + generator.normal(0, 0.03))
    temperature = np.full(times.size, 22.0)
    return {
        dawn_oxygen.OXYGEN: Series(times, np.array(values)),
        dawn_oxygen.TEMPERATURE: Series(times, temperature),
    }


def soil_cases(series: Series, days: int = 2) -> list[Case]:
    value = dict(zip(series.times_s.tolist(), series.values.tolist(), strict=True))
    instants = range(3 * DAY_S + 6 * HOUR_S, 38 * DAY_S, DAY_S)
    return [
        Case(Question(one, one + days * DAY_S), value.get(one + days * DAY_S, math.nan))
        for one in instants
    ]


def of_soil(series: Series, methods: Any = SOIL_METHODS) -> tuple[list[Case], dict[str, Forecasts]]:
    asked = soil_cases(series)
    return asked, run({dry_down.SOIL: Stored(series)}, asked, methods, naive="line")


def of_pond(series: dict[str, Series]) -> tuple[list[Case], dict[str, Forecasts]]:
    asked = dawn_oxygen.cases(series[dawn_oxygen.OXYGEN])
    stored = {name: Stored(one) for name, one in series.items()}
    return asked, run(stored, asked, DAWN_METHODS, naive="yesterday")


def shifted(series: Series, row: int) -> Series:
    values = series.values.copy()
    values[row] += 100.0
    return Series(series.times_s, values)


def said_before(asked: list[Case], found: dict[str, Forecasts], instant_s: int) -> list[Any]:
    """All that was said before an instant: values, bands and choices."""
    rows = [row for row, case in enumerate(asked) if case.question.issued_at_s < instant_s]
    return [
        (name, np.array([one.value[row], one.low[row], one.high[row]]).tobytes(), one.method[row])
        for name, one in found.items()
        for row in rows
    ]


@pytest.mark.parametrize("row", [200, 431, 640, 850])
def test_value_shifted_by_100_changes_no_forecast_of_soil_that_was_made_before(row: int) -> None:
    series = soil()
    before, after = of_soil(series), of_soil(shifted(series, row))
    instant_s = int(series.times_s[row])
    assert len(said_before(*before, instant_s)) > 20
    assert said_before(*before, instant_s) == said_before(*after, instant_s)
    assert said_before(*before, 10**9) != said_before(*after, 10**9)


@pytest.mark.parametrize("row", [101, 343, 500, 650])
def test_value_shifted_by_100_changes_no_forecast_of_a_pond_that_was_made_before(row: int) -> None:
    series = pond()
    changed = series | {dawn_oxygen.OXYGEN: shifted(series[dawn_oxygen.OXYGEN], row)}
    instant_s = row * HOUR_S
    before, after = of_pond(series), of_pond(changed)
    assert len(said_before(*before, instant_s)) > 20
    assert said_before(*before, instant_s) == said_before(*after, instant_s)


def test_method_that_looks_ahead_is_found_by_shifting() -> None:
    """Guards the two tests above: they would notice."""
    answer = 27 * 24 + 6  # asked for two days before
    found = []
    for series in (soil(), shifted(soil(), answer)):

        def peeking(known: Known, question: Question, series: Series = series) -> float:
            return float(series.values[np.searchsorted(series.times_s, question.due_s)])

        asked, said = of_soil(series, {"line": dry_down.straight_line, "peeking": peeking})
        found.append(said_before(asked, said, answer * HOUR_S))
    assert found[0] != found[1]


def test_version_that_was_known_later_is_not_seen_before() -> None:
    times = np.arange(4) * DAY_S
    stored = Stored(Series(times, np.array([1.0, 2.0, 3.0, 4.0])), times + np.array([0, 0, 9, 0]))
    assert stored.at(2 * DAY_S).values.tolist() == [1.0, 2.0]
    assert stored.at(2 * DAY_S + 9).values.tolist() == [1.0, 2.0, 3.0]


def test_answer_that_was_corrected_later_is_no_error_that_was_known_before() -> None:
    def asked(known_from_s: int | None) -> list[Case]:
        return [
            Case(Question(day * DAY_S, (day + 1) * DAY_S), 5.0, known_from_s) for day in range(20)
        ]

    stored = {dry_down.SOIL: Stored(soil())}
    methods = {"line": lambda known, question: 4.0}
    at_once = run(stored, asked(None), methods, naive="line")["line"]
    later = run(stored, asked(15 * DAY_S), methods, naive="line")["line"]
    assert [math.isfinite(low) for low in at_once.low].index(True) == 9
    assert [math.isfinite(low) for low in later.low].index(True) == 15


def test_forecaster_cannot_change_what_others_see() -> None:
    def spoiling(known: Known, question: Question) -> float:
        known.series[dry_down.SOIL].values[:] = 0.0
        return 0.0

    series = soil()
    kept = series.values.copy()
    of_soil(series, {"line": spoiling})
    np.testing.assert_array_equal(series.values, kept)


@pytest.mark.parametrize("errors", [9, 20, 57, 100])
def test_band_holds_four_of_five_of_the_next_errors(errors: int) -> None:
    """Drawn from a skewed distribution: P10 and P90 need no bell. Bound: at least 80 %, at most 2/(n + 1) more."""
    generator = np.random.default_rng(errors)
    draws = generator.gamma(1.5, 1.0, (6_000, errors + 1))
    bands = np.array([conformal(row[:-1].tolist()) for row in draws])
    inside = ((draws[:, -1] >= bands[:, 0]) & (draws[:, -1] <= bands[:, 1])).mean()
    assert 0.785 <= inside <= 0.815 + 2.0 / (errors + 1)


def test_better_method_counts_once_ten_outcomes_have_shown_it() -> None:
    truth = np.random.default_rng(6).normal(10, 1, 40)
    asked = [Case(Question(day * DAY_S, (day + 1) * DAY_S), truth[day]) for day in range(40)]
    good = {day * DAY_S: truth[day] + 0.1 for day in range(40)}
    methods = {
        "naive": lambda known, question: 10.0,
        "good": lambda known, question: good[question.issued_at_s],
    }
    found = run({dry_down.SOIL: Stored(soil())}, asked, methods, naive="naive")[CHOSEN]
    assert found.method[:10] == ["naive"] * 10
    assert found.method[10:] == ["good"] * 30


def test_method_that_cannot_say_leaves_it_to_the_naive_one() -> None:
    asked = [Case(Question(day * DAY_S, (day + 1) * DAY_S), 5.0) for day in range(30)]
    methods = {
        "naive": lambda known, question: 4.0,
        "silent": lambda known, question: 5.0 if question.issued_at_s < 20 * DAY_S else math.nan,
    }
    found = run({dry_down.SOIL: Stored(soil())}, asked, methods, naive="naive")
    assert found[CHOSEN].method[15] == "silent"
    assert set(found[CHOSEN].value[20:]) == {4.0}
    assert np.isnan(found["silent"].value[20:]).all()
    assert found[TOGETHER].value[15] == 4.5


@pytest.mark.parametrize(
    ("cases", "methods", "sentence"),
    [
        ([(5, 6), (4, 7)], {"line": None}, "in which they were issued"),
        ([(5, 5)], {"line": None}, "comes after"),
        ([(5, 6)], {"other": None}, "one of the methods"),
        ([(5, 6)], {"line": None, "chosen": None}, "No method is called"),
    ],
)
def test_backtest_that_makes_no_sense_is_refused(cases: Any, methods: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run({}, [Case(Question(*one), 1.0) for one in cases], methods, naive="line")


# --- scores


@pytest.mark.parametrize(("hits", "of"), [(0, 5), (5, 5), (24, 28), (83, 100), (1, 1000)])
def test_interval_of_a_share_is_scipys(hits: int, of: int) -> None:
    theirs = stats.binomtest(hits, of).proportion_ci(method="wilson")
    assert Share(hits, of).interval == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_pinball_is_least_for_the_true_quantile() -> None:
    truth = np.random.default_rng(8).normal(0, 1, 20_000)
    losses = [scores.pinball(np.full(truth.size, q), truth, 0.1) for q in (-2.0, -1.2816, -0.5)]
    assert losses[1] == min(losses)


def test_nothing_is_claimed_of_99_forecasts_nor_of_a_gain_that_chance_makes() -> None:
    generator = np.random.default_rng(9)
    truth = generator.normal(0, 1, 400)
    baseline = truth + generator.normal(0, 1, 400)
    better = truth + generator.normal(0, 0.7, 400)
    days = np.arange(400)
    assert compare(better, baseline, truth, days).is_better
    assert not compare(better[:99], baseline[:99], truth[:99], days[:99]).is_better
    alike = truth + generator.normal(0, 0.97, 400)
    assert not compare(alike, baseline, truth, days).is_better
    # Thirteen probes under one sprinkler are not thirteen times as much evidence.
    together = compare(
        np.tile(better, 13), np.tile(baseline, 13), np.tile(truth, 13), np.tile(days, 13)
    )
    alone = compare(better, baseline, truth, days)
    assert together.high == pytest.approx(alone.high, rel=1e-9)


def test_unknown_forecasts_and_outcomes_count_for_nothing() -> None:
    found = warnings_below([math.nan, 2.0, 2.0], [1.0, math.nan, 5.0], 3.0)
    assert (found.recall, found.false_alarms) == (Share(0, 0), Share(1, 1))
    assert math.isnan(scores.rmse([math.nan], [1.0]))
    assert compare([math.nan], [1.0], [1.0], [0]).forecasts == 0

"""Dry-down, days until dry and the least oxygen before dawn: on soils and ponds whose truth is known, and on measured ones."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from fleet_server.city import dawn_oxygen, dry_down
from fleet_server.city.backtest import Known, Question, Stored, conformal, run
from fleet_server.city.dawn_oxygen import Breathing, Night, breathing, fit_breathing, regression
from fleet_server.city.dry_down import (
    DryDown,
    bucket_paths,
    first_passage,
    fit_dry_down,
    passage_of_bands,
)
from fleet_server.city.scores import rmse
from fleet_server.city.tree_water import Place, Plants, Soil, Water, Weather
from fleet_server.measurement.windows import DAY_S, Series
from tests.fleet_server.city import forecast_scores
from tests.fleet_server.city.test_city_backtest import DAWN_METHODS, pond, soil
from tests.fleet_server.measurement.real_series import TABLE
from tests.fleet_server.measurement.test_quality_judges import needs_series

_PAGE = Path(__file__).parents[3] / "docs" / "city"
_NUMBER = re.compile(r"-?\d+\.?\d*")
HOUR_S = 3600


def falling(tau_days: float, rest: float, days: int = 16) -> Series:
    times = np.arange(days * 24) * HOUR_S
    return Series(times, DryDown(rest, tau_days).after(0.30, times / DAY_S))


# --- soil


@pytest.mark.parametrize(("tau_days", "rest"), [(4.0, 0.12), (12.0, 0.08), (40.0, 0.05)])
def test_fall_of_a_soil_is_found_again(tau_days: float, rest: float) -> None:
    found = fit_dry_down(falling(tau_days, rest))
    assert found is not None
    assert found.tau_days == pytest.approx(tau_days, rel=1e-6)
    assert found.rest == pytest.approx(rest, rel=1e-6)


def test_soil_that_dries_faster_and_faster_or_hardly_at_all_has_no_fall() -> None:
    times = np.arange(16 * 24) * HOUR_S
    assert fit_dry_down(Series(times, 0.30 - 0.0005 * (times / DAY_S) ** 2)) is None
    assert fit_dry_down(Series(times, np.full(times.size, 0.2))) is None
    assert fit_dry_down(Series([], [])) is None


@pytest.mark.parametrize(
    "forecaster", [dry_down.straight_line, dry_down.exponential, dry_down.learned]
)
def test_series_that_ended_yesterday_gives_no_forecast(forecaster) -> None:  # type: ignore[no-untyped-def]
    series = falling(12.0, 0.08)
    late_s = int(series.times_s[-1]) + DAY_S
    asked = Question(late_s, late_s + DAY_S)
    assert math.isnan(forecaster(Known({dry_down.SOIL: series}), asked))


def test_learned_slope_is_between_the_line_and_what_followed_before() -> None:
    """A fall that always halves from one day to the next: the line says 1 for 1, the site half of it."""
    days = np.arange(30)
    values = 20 + 10 * 0.5 ** (days % 10)
    series = Series(days * DAY_S, values)
    issued = int(series.times_s[23])
    said = dry_down.learned(
        Known({dry_down.SOIL: series.slice(0, 24)}), Question(issued, issued + DAY_S)
    )
    start, by_line = values[23], values[23] + (values[23] - values[22])
    assert by_line < said < start
    assert said == pytest.approx(values[24], abs=abs(by_line - values[24]) / 2)


def test_days_until_dry_are_those_of_the_formula_where_members_fall_by_it() -> None:
    generator = np.random.default_rng(11)
    taus = generator.lognormal(math.log(10), 0.3, 4_000)
    days = np.arange(31)[:, None]
    paths = np.array([0.08 + 0.20 * np.exp(-days[:, 0] / tau) for tau in taus]).T
    found = first_passage(paths, 0.15)
    exact = np.sort(taus * math.log(0.20 / 0.07))
    for level, said in ((0.1, found.p10), (0.5, found.p50)):
        assert said == pytest.approx(np.quantile(exact, level), rel=0.02)
    assert found.p90 == pytest.approx(np.quantile(exact, 0.9), rel=0.02)


def test_members_that_do_not_get_dry_in_thirty_days_are_never_guessed() -> None:
    paths = np.linspace(0.30, [0.10, 0.16, 0.19, 0.21, 0.25, 0.28, 0.29, 0.30, 0.30, 0.30], 41)
    found = first_passage(paths, 0.20)
    assert math.isfinite(found.p10)
    assert (found.p50, found.p90, found.horizon_days) == (math.inf, math.inf, 30)
    assert str(found) == "20 to > 30 d, in the middle > 30 d"
    assert first_passage(np.array([[0.1], [0.1]]), 0.20).p10 == 0.0


def test_unknown_member_is_refused() -> None:
    with pytest.raises(ValueError, match="known on every day"):
        first_passage([[0.3, 0.3], [0.2, math.nan]], 0.25)


def test_days_until_dry_by_the_bucket_hold_four_of_five_soils_drawn_alike() -> None:
    """Start, weather and rain of the truth are drawn like the members': P10 to P90 has to hold 80 % of 400 (± 4)."""
    generator = np.random.default_rng(12)
    n, days, limit = 400, 30, 0.24
    soil_, plants = Soil(0.32, 0.12), Plants(0.6, 8.0, 0.8, 0.5, ground_cover=0.7)

    def drawn() -> np.ndarray:
        et0 = generator.gamma(9.0, 0.5, (days, n))
        rain = np.where(generator.random((days, n)) < 0.15, generator.gamma(1.0, 6.0, (days, n)), 0)
        start = Water(np.maximum(generator.normal(25.0, 10.0, n), 0.0), soil_.total_evaporable_mm)
        return bucket_paths(soil_, plants, Weather(et0, rain), start, place=Place(0.6))

    said = first_passage(drawn(), limit)
    truth = [first_passage(path[:, None], limit).p50 for path in drawn().T]
    assert math.isfinite(said.p90)
    assert said.p10 + 1 < said.p50 < said.p90 - 1
    inside = np.mean([said.p10 <= one <= said.p90 for one in truth])
    assert 0.74 <= inside <= 0.86


def test_days_until_dry_by_bands_hold_four_of_five_soils_that_dry_alike() -> None:
    """Lines of two days over soils that fall faster or slower than they say; bands from 99 other soils, day by day."""
    generator = np.random.default_rng(15)
    days = np.arange(1, 31)
    inside = []
    for _ in range(300):
        rates = generator.lognormal(math.log(0.005), 0.3, 100)
        paths = 0.30 - rates * days[:, None]
        line = 0.30 - 0.005 * days
        errors = paths[:, 1:] - line[:, None]
        edges = np.array([conformal(row.tolist()) for row in errors]).T + line
        low, middle, high = (np.append(0.30, one) for one in (edges[0], line, edges[1]))
        said = passage_of_bands(low, middle, high, 0.20)
        true = 0.10 / rates[0]
        inside.append(said.p10 <= (true if true <= 30 else math.inf) <= said.p90)
    assert 0.74 <= np.mean(inside) <= 0.86


def test_open_band_makes_a_day_unknown_and_not_late() -> None:
    nothing = np.full(6, np.nan)
    said = passage_of_bands(nothing, np.linspace(0.3, 0.1, 6), np.full(6, 0.3), 0.2)
    assert math.isnan(said.p10)
    assert said.p50 == pytest.approx(2.5)
    assert said.p90 == math.inf
    assert str(said) == "unknown to > 5 d, in the middle 2 d"


# --- dawn


def test_breathing_is_found_through_what_the_probe_adds() -> None:
    generator = np.random.default_rng(13)
    true = Breathing(0.25, 0.03)
    hours = np.arange(8)
    nights = np.array([
        true.after(start, 22.0, 8.743, hours) + generator.normal(0, 0.02, 8) for start in (9.0, 8.0, 10.0, 6.5, 7.0)
    ])  # fmt: skip
    found = fit_breathing(nights, np.full((5, 8), 22.0), np.full((5, 8), 8.743))
    assert found is not None
    said = found.after(8.5, 22.0, 8.743, [9])[0]
    assert said == pytest.approx(true.after(8.5, 22.0, 8.743, [9])[0], abs=0.1)


def test_night_that_takes_up_oxygen_respires_nothing_and_none_goes_below_zero() -> None:
    rising = np.tile(np.linspace(4.0, 5.0, 8), (4, 1))
    found = fit_breathing(rising, np.full((4, 8), 20.0), np.full((4, 8), 9.0))
    assert found is not None
    assert found.respiration_mg_l_h == 0.0
    assert found.reaeration_per_h > 0.0
    assert Breathing(0.5, 0.0).after(2.0, 25.0, 8.0, [8]).tolist() == [0.0]


def test_pond_that_breathes_is_forecast_better_than_by_yesterday() -> None:
    series = pond(nights=60)
    asked = dawn_oxygen.cases(series[dawn_oxygen.OXYGEN])
    stored = {name: Stored(one) for name, one in series.items()}
    found = run(stored, asked, DAWN_METHODS, naive="yesterday")
    truth = [case.truth for case in asked]
    error = {name: rmse(one.value[12:], truth[12:]) for name, one in found.items()}
    assert error["breathing"] < 0.5 * error["yesterday"]
    assert error["regression"] < 0.5 * error["yesterday"]
    assert error["chosen"] < 0.7 * error["yesterday"]


def test_forecast_without_a_value_at_dusk_is_not_made_up() -> None:
    series = pond()
    asked = dawn_oxygen.NIGHT.question(20)
    oxygen = series[dawn_oxygen.OXYGEN]
    values = np.where(np.abs(oxygen.times_s - asked.issued_at_s) <= HOUR_S, np.nan, oxygen.values)
    known = Known(series | {dawn_oxygen.OXYGEN: Series(oxygen.times_s, values)})
    assert math.isnan(breathing(known, asked))
    assert math.isnan(regression(known, asked))


def test_morning_with_less_than_three_quarters_of_its_hours_has_no_least() -> None:
    oxygen = pond()[dawn_oxygen.OXYGEN]
    morning_s = 11 * DAY_S
    is_gone = (oxygen.times_s >= morning_s + 5 * HOUR_S) & (
        oxygen.times_s <= morning_s + 7 * HOUR_S
    )
    gappy = Series(oxygen.times_s, np.where(is_gone, np.nan, oxygen.values))
    assert math.isfinite(Night().least(oxygen, 10))
    assert math.isnan(Night().least(gappy, 10))


def test_night_is_that_of_the_place() -> None:
    """22 h of a place 6 h behind UTC is 4 h UTC of the next day."""
    asked = Night(utc_offset_s=-6 * HOUR_S).question(10)
    assert asked.issued_at_s == 11 * DAY_S + 4 * HOUR_S
    assert Night(utc_offset_s=-6 * HOUR_S).evening_of(asked) == 10


# --- measured


class TestOnMeasuredSeries:
    pytestmark = needs_series

    def test_numbers_of_a_lagoons_nights_and_of_drying_soil_are_those_of_the_page(self) -> None:
        """The quick part; all of it is held by the nightly test below."""
        lines = (_PAGE / "forecasts.md").read_text(encoding="utf-8").splitlines()
        found = forecast_scores.dawn_lines("a lagoon", forecast_scores.lagoon())
        found += forecast_scores.soil_lines(2, drying=True)
        assert len(found) == 13
        assert [line for line in found if line not in lines] == []

    @pytest.mark.nightly
    def test_all_numbers_and_pictures_of_forecasts_are_those_of_the_series(self) -> None:
        text = (_PAGE / "forecasts.md").read_text(encoding="utf-8")
        written = TABLE.search(text)
        assert written is not None
        assert written.group() == forecast_scores.table()
        for name, draw in forecast_scores.DRAWINGS.items():
            kept, drawn = (_PAGE / name).read_text(encoding="utf-8"), draw()
            assert _NUMBER.sub("", kept) == _NUMBER.sub("", drawn), name
            numbers = [np.array(_NUMBER.findall(svg), dtype=float) for svg in (kept, drawn)]
            np.testing.assert_allclose(numbers[0], numbers[1], rtol=0, atol=0.11, err_msg=name)
            assert f"]({name})" in text


def test_forecasts_of_a_watered_soil_go_on_after_the_watering() -> None:
    series = soil()
    asked = Question(25 * DAY_S, 27 * DAY_S)
    known = Known({dry_down.SOIL: Stored(series).at(asked.issued_at_s)})
    truth = series.values[27 * 24]
    for forecaster in (dry_down.straight_line, dry_down.exponential, dry_down.slowing_line):
        assert forecaster(known, asked) == pytest.approx(truth, abs=0.6)

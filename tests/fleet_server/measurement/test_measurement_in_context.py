"""Quality tests that need other times and streams: each one's case, and the same results however a series is cut."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.measurement.derived import oxygen_saturation
from fleet_server.measurement.in_context import (
    Context,
    in_context,
    judge,
    look_ahead_s,
    look_back_s,
)
from fleet_server.measurement.learning import learn
from fleet_server.measurement.quality import (
    GROSS_RANGES,
    GrossRange,
    QualityTest,
    Result,
    aggregate_flag,
    pack_results,
    unpack_results,
)
from fleet_server.measurement.reasons import explain
from fleet_server.measurement.rules import (
    DAY_S,
    DEFAULTS,
    HOUR_S,
    Attenuated,
    BlockedVent,
    CrackedGlass,
    FlatLine,
    Fouling,
    Mismatch,
    Rate,
    Rules,
    Season,
    Spike,
    default_rules,
    from_data,
    to_data,
)
from fleet_server.measurement.streaming import Stream
from fleet_server.measurement.windows import Series, arranged

NOT, GOOD, SUSPECT, BAD = Result
BEGIN_S = 1_783_987_200  # 2026-07-14, midnight
QUARTER_S = 900
KINDS = {
    "below": ("value", "limit"),
    "above": ("value", "limit"),
    "season": ("value", "low", "high"),
    "spike": ("departure", "expected", "believed"),
    "rose": ("change", "minutes", "believed"),
    "fell": ("change", "minutes", "believed"),
    "flat": ("hours", "tolerance"),
    "attenuated": ("moved", "needed"),
    "above_neighbours": ("apart", "believed", "neighbours"),
    "below_neighbours": ("apart", "believed", "neighbours"),
    "frost": ("soil_c",),
    "exposed": ("ratio_pct",),
    "dry_by_conductivity": ("conductivity_us_cm", "limit"),
    "dry_by_level": ("level_m", "limit"),
    "dry_by_warmth": ("ratio_pct",),
    "fouling": ("total", "alarm"),
    "fading": ("total", "alarm"),
    "service": (),
    "time": (),
    "rose_without_rain": ("change", "minutes", "believed", "rain_mm"),
    "mismatch": ("apart", "expected"),
    "cracked_glass": ("hours",),
    "blocked_vent": ("correlation",),
}
"""Every kind of reason with its numbers."""
ANYTHING = GrossRange("1", fail=(-np.inf, np.inf), suspect=(-np.inf, np.inf))


def quarters(values: list[float] | np.ndarray, *, begin_s: int = BEGIN_S) -> Series:
    return Series(begin_s + QUARTER_S * np.arange(len(values)), np.asarray(values, float))


def results(series: Series, rules: Rules, test: QualityTest, **context: object) -> list[int]:
    return in_context(series, rules, Context(**context))[test].result.tolist()  # type: ignore[arg-type]


def day_wave(days: float, swing: float, *, middle: float = 10.0, begin_s: int = BEGIN_S) -> Series:
    rows = int(days * 96)
    phase = 2 * np.pi * np.arange(rows) / 96
    return quarters(middle + swing / 2 * np.sin(phase), begin_s=begin_s)


# ------------------------------------------------------------------------------------------------------- time and rows


def test_spike_between_unequal_distances_is_measured_from_the_line_not_from_the_mean() -> None:
    """A steady rise with one row left out is no spike; the mean of the neighbours would be 3 away."""
    series = Series([0, 3600, 14400], [0.0, 2.0, 8.0])
    rules = Rules(ANYTHING, spike=Spike(0.5, 1.0, within_s=4 * HOUR_S))
    assert results(series, rules, QualityTest.SPIKE) == [NOT, GOOD, NOT]


def test_spike_beside_a_gap_longer_than_its_neighbours_may_be_away_is_not_judged() -> None:
    series = Series([0, 900, 5 * HOUR_S], [0.0, 9.0, 0.0])
    assert results(series, Rules(ANYTHING, spike=Spike(0.5, 1.0)), QualityTest.SPIKE) == [NOT] * 3


def test_spike_in_per_cent_is_a_share_of_what_the_line_says() -> None:
    rules = Rules(ANYTHING, spike=DEFAULTS["conductivity_25"].spike)
    series = quarters([1000, 1100, 1000, 1200, 1000, 1500, 1000])
    assert results(series, rules, QualityTest.SPIKE) == [
        NOT,
        GOOD,
        GOOD,
        SUSPECT,
        SUSPECT,
        BAD,
        NOT,
    ]


def test_same_change_over_a_longer_time_is_slower() -> None:
    rules = Rules(ANYTHING, rate=Rate(0.15, 0.05))
    series = Series([0, 900, 900 + 4 * HOUR_S, 900 + 4 * HOUR_S + 1800], [0.1, 0.3, 0.5, 0.44])
    assert results(series, rules, QualityTest.RATE_OF_CHANGE) == [NOT, SUSPECT, GOOD, SUSPECT]


def test_last_digit_of_two_readings_a_second_apart_is_no_rate() -> None:
    series = Series([0, 1], [10.0, 10.0625])
    rules = Rules(ANYTHING, rate=Rate(3.0, 3.0))
    assert results(series, rules, QualityTest.RATE_OF_CHANGE) == [NOT, GOOD]


def test_flat_line_is_as_long_as_its_time_however_many_rows_that_is() -> None:
    """Hourly rows until noon, then a burst every minute: ioos_qc counts rows of the median distance and calls it flat at once."""
    hourly = np.arange(0, 12 * HOUR_S, HOUR_S)
    burst = 12 * HOUR_S + np.arange(0, 2 * HOUR_S, 60)
    values = np.append(np.arange(12.0), np.full(burst.size, 5.0))
    rules = Rules(ANYTHING, flat_line=FlatLine(4 * HOUR_S, 8 * HOUR_S, 0.1))
    series = Series(np.append(hourly, burst), values)
    assert set(results(series, rules, QualityTest.FLAT_LINE)[12:]) == {GOOD}


def test_flat_line_across_a_gap_is_not_judged() -> None:
    times = np.append(np.arange(0, 4 * HOUR_S, 900), np.arange(8 * HOUR_S, 9 * HOUR_S, 900))
    rules = Rules(ANYTHING, flat_line=FlatLine(4 * HOUR_S, 8 * HOUR_S, 0.1))
    found = results(Series(times, np.full(times.size, 5.0)), rules, QualityTest.FLAT_LINE)
    assert set(found) == {NOT}


def test_flat_line_is_suspect_then_bad_and_over_with_the_first_move() -> None:
    rules = Rules(ANYTHING, flat_line=FlatLine(HOUR_S, 2 * HOUR_S, 0.1))
    found = results(quarters([5.0] * 10 + [6.0]), rules, QualityTest.FLAT_LINE)
    assert found == [NOT] * 4 + [SUSPECT] * 4 + [BAD] * 2 + [GOOD]


def test_wet_soil_may_stay_at_no_tension_for_weeks_and_dry_soil_may_not() -> None:
    rules = DEFAULTS["soil_water_tension"]
    wet, dry = (quarters(np.full(22 * 96, kpa)) for kpa in (0.0, 45.0))
    assert results(wet, rules, QualityTest.FLAT_LINE)[-1] == GOOD
    assert results(dry, rules, QualityTest.FLAT_LINE)[-1] == BAD


def test_attenuated_signal_moves_less_than_a_fifth_of_the_median_day_before() -> None:
    values = np.append(day_wave(10, 4.0).values, day_wave(2, 0.7, middle=10.0).values)
    rules = Rules(ANYTHING, attenuated=Attenuated(0.1))
    found = results(quarters(values), rules, QualityTest.ATTENUATED)
    assert found[9 * 96] == GOOD
    assert found[-1] == SUSPECT
    without = Rules(ANYTHING, attenuated=Attenuated(0.1, share=0.0))
    assert results(quarters(values), without, QualityTest.ATTENUATED)[-1] == GOOD


def test_season_over_new_year_holds_on_both_sides_of_it() -> None:
    rules = Rules(ANYTHING, climatology=(Season(335, 59, -2.0, 12.0),))
    times = [
        int(np.datetime64(day, "s").astype(int))
        for day in ("2026-12-24", "2027-02-01", "2027-07-01")
    ]
    found = results(Series(times, [20.0, 11.0, 25.0]), rules, QualityTest.CLIMATOLOGY)
    assert found == [SUSPECT, GOOD, NOT]


# ------------------------------------------------------------------------------------------------------- other streams


def test_probe_that_leaves_three_neighbours_of_other_levels_is_suspect_and_they_are_not() -> None:
    days = 45
    wave = day_wave(days, 0.02, middle=0.0).values
    others = tuple(quarters(level + wave) for level in (0.10, 0.25, 0.40))
    own = 0.30 + wave
    own[-96:] += 0.12
    rules = DEFAULTS["soil_water_content"]
    found = results(quarters(own), rules, QualityTest.NEIGHBOUR, neighbours=others)
    assert found[0] == NOT
    assert set(found[30 * 96 : -96]) == {GOOD}
    assert set(found[-96:]) == {SUSPECT}
    beside = (quarters(own), *others[1:])
    assert set(results(others[0], rules, QualityTest.NEIGHBOUR, neighbours=beside)[-96:]) == {GOOD}
    assert set(results(quarters(own), rules, QualityTest.NEIGHBOUR, neighbours=others[:2])) == {NOT}


def test_water_of_soil_that_was_frozen_within_an_hour_is_suspect() -> None:
    soil = quarters([0.5, 0.1, -0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2])
    content = quarters([0.2] * 9)
    found = results(
        content, DEFAULTS["soil_water_content"], QualityTest.FROST, soil_temperature=soil
    )
    assert found == [SUSPECT] * 7 + [GOOD] * 2
    assert set(results(content, DEFAULTS["soil_water_content"], QualityTest.FROST)) == {NOT}


@pytest.mark.parametrize(
    ("water", "soil_swing", "expected"),
    [(0.01, 9.0, SUSPECT), (0.20, 9.0, GOOD), (0.01, 4.0, GOOD)],
    ids=["dry and as warm as the air", "moist", "as cool as soil"],
)
def test_exposed_probe_is_dry_and_follows_the_air(
    water: float, soil_swing: float, expected: int
) -> None:
    context = {"air_temperature": day_wave(2, 12.0), "soil_temperature": day_wave(2, soil_swing)}
    content = quarters(np.full(192, water) + 0.001 * np.arange(192) / 192)
    rules = DEFAULTS["soil_water_content"]
    assert results(content, rules, QualityTest.EXPOSED, **context)[-1] == expected


def test_exposed_thermometer_follows_the_air_and_a_cloudy_day_says_nothing() -> None:
    rules = DEFAULTS["soil_temperature"]
    for air_swing, soil_swing, expected in [
        (12.0, 9.0, SUSPECT),
        (12.0, 3.0, GOOD),
        (3.0, 3.0, NOT),
    ]:
        soil = day_wave(2, soil_swing)
        air = day_wave(2, air_swing)
        assert results(soil, rules, QualityTest.EXPOSED, air_temperature=air)[-1] == expected


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"conductivity": quarters([450.0] * 3)}, GOOD),
        ({"conductivity": quarters([2.0] * 3)}, BAD),
        ({"level": quarters([-0.02] * 3)}, BAD),
        ({}, NOT),
    ],
)
def test_water_probe_in_the_air_is_bad(beside: dict[str, Series], expected: int) -> None:
    oxygen = quarters([8.0, 8.1, 8.2])
    assert set(
        results(oxygen, DEFAULTS["dissolved_oxygen"], QualityTest.OUT_OF_WATER, **beside)
    ) == {expected}


def test_water_as_warm_and_cold_as_the_air_is_suspect() -> None:
    water, air = day_wave(2, 11.0), day_wave(2, 12.0)
    found = results(
        water, DEFAULTS["water_temperature"], QualityTest.OUT_OF_WATER,
        air_temperature=air, water_temperature=water,
    )  # fmt: skip
    assert found[-1] == SUSPECT


@pytest.mark.parametrize(("statistic", "film"), [("range", 0.94), ("low", 1.08)])
def test_film_that_grows_after_fourteen_clean_days_is_fouling_until_the_next_service(
    statistic: str, film: float
) -> None:
    days = 40
    wobble = np.repeat(1.0 + 0.08 * np.sin(np.arange(days) * 2.1), 96)
    age = np.repeat(np.clip(np.arange(days) - 20, 0, None), 96)
    clean = (10 + 2 * np.sin(2 * np.pi * np.arange(days * 96) / 96)) * wobble
    middle = 10.0 * wobble if statistic == "range" else 0.0
    series = quarters(middle + (clean - middle) * film**age)
    rules = Rules(ANYTHING, fouling=Fouling(statistic))
    mounted = (BEGIN_S - HOUR_S, BEGIN_S)
    cleaned = (BEGIN_S + 34 * DAY_S, BEGIN_S + 34 * DAY_S + HOUR_S)
    without = results(series, rules, QualityTest.FOULING, services=(mounted,))
    assert set(without[: 14 * 96]) == {NOT}
    assert set(without[16 * 96 : 21 * 96]) == {GOOD}
    assert without[33 * 96] == SUSPECT
    found = results(series, rules, QualityTest.FOULING, services=(mounted, cleaned))
    assert found[33 * 96] == SUSPECT
    assert found[36 * 96] == NOT
    assert set(results(series, rules, QualityTest.FOULING)) == {NOT}


@pytest.mark.parametrize("statistic", ["high", "saturation"])
def test_summits_that_fall_day_by_day_are_a_film_and_a_warm_week_is_none(statistic: str) -> None:
    """Saturation with its water: 20 % lost in ten days; the same mg/L lost by warming alone say nothing."""
    days = 34
    time = np.arange(days * 96) / 96
    wobble = 1.0 + 0.04 * np.sin(2.1 * np.floor(time))
    warm = 16.0 + 6.0 * np.clip((time - 20) / 10, 0, 1)
    saturation = (95.0 + 15.0 * np.sin(2 * np.pi * time)) * wobble
    film = 1.0 - 0.2 * np.clip((time - 20) / 10, 0, 1)
    holds = oxygen_saturation(warm) / 100.0 if statistic == "saturation" else 1.0
    rules = Rules(ANYTHING, fouling=Fouling(statistic, alarm=3.0))
    beside = {"services": ((BEGIN_S - HOUR_S, BEGIN_S),), "water_temperature": quarters(warm)}
    test = QualityTest.FOULING
    clean = results(quarters(saturation * holds), rules, test, **beside)
    assert set(clean[: 15 * 96]) == {NOT}
    assert set(clean[15 * 96 :]) == {GOOD}
    fouled = results(quarters(saturation * film * holds), rules, test, **beside)
    assert set(fouled[15 * 96 : 22 * 96]) == {GOOD}
    assert fouled[27 * 96] == SUSPECT
    if statistic == "saturation":
        del beside["water_temperature"]
        assert set(results(quarters(saturation * holds), rules, test, **beside)) == {NOT}


@pytest.mark.parametrize(
    ("saturation_pct", "conductivity", "expected"),
    [
        (100.0, None, {GOOD}),
        (95.0, None, {SUSPECT}),
        (88.0, None, {SUSPECT}),
        # Salt water holds less: 9.1 mg/L of it are 109 %.
        (100.0, 24_000.0, {SUSPECT}),
        (109.0, 24_000.0, {GOOD}),
        (np.nan, None, {NOT}),
    ],
)
def test_oxygen_that_saturation_and_warmth_beside_it_contradict_is_suspect(
    saturation_pct: float, conductivity: float | None, expected: set[int]
) -> None:
    """9.09 mg/L are saturation at 20 °C and standard pressure (Benson and Krause 1984); 960 to 1030 hPa are any weather."""
    beside = {
        "oxygen_saturation": quarters([saturation_pct] * 8),
        "water_temperature": quarters([20.0] * 8),
    }
    if conductivity is not None:
        beside["conductivity"] = quarters([conductivity] * 8)
    if saturation_pct == 95.0:  # 9.09 at 95 % would want 1067 hPa
        beside["water_temperature"] = quarters([20.5] * 8)
    found = results(quarters([9.09] * 8), DEFAULTS["dissolved_oxygen"], QualityTest.PROBE, **beside)
    assert set(found) == expected


def test_glass_that_stands_at_seven_for_a_day_is_suspect_and_a_quiet_pond_elsewhere_is_not() -> (
    None
):
    rules = DEFAULTS["ph"]
    quiet = 0.02 * np.sin(np.arange(200) / 7.0)
    cracked = results(quarters(6.95 + quiet), rules, QualityTest.PROBE)
    assert cracked[:96] == [NOT] * 96
    assert set(cracked[96:]) == {SUSPECT}
    assert set(results(quarters(7.6 + quiet), rules, QualityTest.PROBE)[96:]) == {GOOD}
    breathing = quarters(7.0 + 5 * quiet)
    assert set(results(breathing, rules, QualityTest.PROBE)[96:]) == {GOOD}


def test_level_that_goes_with_the_weather_has_a_blocked_vent_and_one_that_does_not_is_good() -> (
    None
):
    rng = np.random.default_rng(3)
    days = np.arange(20 * 96) / 96
    weather = 1005 + 9 * np.sin(2 * np.pi * days / 5.5) + rng.normal(0, 0.3, days.size)
    pond = 1.2 + 0.002 * days + 0.004 * np.sin(2 * np.pi * days) + rng.normal(0, 0.003, days.size)
    blocked = pond + 0.0102 * (weather - 1005)
    rules, pressure = DEFAULTS["water_level"], quarters(weather)
    sound = results(quarters(pond), rules, QualityTest.PROBE, air_pressure=pressure)
    assert set(sound[8 * 96 :]) == {GOOD}
    found = results(quarters(blocked), rules, QualityTest.PROBE, air_pressure=pressure)
    assert set(found[: 5 * 96]) == {NOT}
    assert set(found[8 * 96 :]) == {SUSPECT}
    calm = quarters(1005 + 0.1 * (weather - 1005))
    assert set(results(quarters(blocked), rules, QualityTest.PROBE, air_pressure=calm)) == {NOT}
    assert set(results(quarters(blocked), rules, QualityTest.PROBE)) == {NOT}


def test_soil_that_gets_wet_fast_is_believed_after_rain_and_said_to_be_without_it_where_none_fell() -> (
    None
):
    rules = DEFAULTS["soil_water_content"]
    wetted = quarters([0.20] * 8 + [0.30] * 8)
    test = QualityTest.RATE_OF_CHANGE
    assert results(wetted, rules, test)[8] == SUSPECT
    rained = quarters([0.0] * 4 + [0.7, 0.6] + [0.0] * 10)
    assert results(wetted, rules, test, rain=rained)[8] == GOOD
    (reason,) = explain(wetted, rules, Context(rain=quarters([0.0] * 7 + [0.2] * 9)), 8)
    assert (reason.kind, reason.numbers["rain_mm"]) == ("rose_without_rain", 0.4)
    dried = quarters([0.30] * 8 + [0.20] * 8)
    assert results(dried, rules, test, rain=rained)[8] == SUSPECT


def test_step_at_a_service_is_no_rate_and_no_spike_and_the_service_itself_is_bad() -> None:
    series = quarters([8.0, 8.0, 3.0, 5.0, 12.0, 12.0])
    service = (BEGIN_S + 2 * QUARTER_S, BEGIN_S + 4 * QUARTER_S)
    rules = DEFAULTS["dissolved_oxygen"]
    found = in_context(series, rules, Context(services=(service,)))
    assert found[QualityTest.SERVICE_WINDOW].result.tolist() == [GOOD, GOOD, BAD, BAD, GOOD, GOOD]
    assert found[QualityTest.RATE_OF_CHANGE].result.tolist() == [NOT, GOOD, NOT, NOT, NOT, GOOD]
    assert set(found[QualityTest.SPIKE].result.tolist()) == {NOT}
    assert SUSPECT in results(series, rules, QualityTest.RATE_OF_CHANGE)


def test_estimated_time_is_suspect_and_a_known_one_is_not() -> None:
    series = Series([0, 900], [1.0, 1.0], np.array([True, False]))
    assert results(series, DEFAULTS["ph"], QualityTest.TIME) == [SUSPECT, GOOD]


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("times_s", [[0, 900, 900], [0, 900, 800]], ids=["twice", "backwards"])
def test_times_that_do_not_rise_are_refused_with_their_row_and_can_be_arranged(times_s) -> None:
    with pytest.raises(ValueError, match=rf"row 2 \({times_s[2]}\) is not after row 1 \(900\)"):
        Series(times_s, [1.0, 2.0, 3.0])
    assert len(arranged(times_s, [1.0, 2.0, 3.0])) == len(set(times_s))


@pytest.mark.parametrize("shapes", [([0, 1], [1.0]), ([[0]], [[1.0]])])
def test_values_without_their_times_are_refused(shapes) -> None:
    with pytest.raises(ValueError, match="as many values as times"):
        Series(*shapes)


@pytest.mark.parametrize("absurd", [np.nan, np.inf, -np.inf, 1e300, -1e300, 27.0])
@pytest.mark.parametrize("observed_property", sorted(DEFAULTS))
def test_absurd_value_is_no_company_for_the_others(absurd: float, observed_property: str) -> None:
    rules = DEFAULTS[observed_property]
    if rules.gross.fail[0] <= absurd <= rules.gross.fail[1]:
        absurd = np.nan
    low, high = np.clip(rules.gross.suspect, -1e3, 1e3)
    middle = (low + high) / 2
    times = np.delete(np.arange(9), 4) * QUARTER_S
    values = middle + np.arange(8) * (high - low) * 1e-4
    with_it = arranged(np.append(times, 4 * QUARTER_S), np.append(values, absurd))
    tests = judge(with_it, rules, Context())
    assert np.delete(tests, 4).tolist() == judge(Series(times, values), rules, Context()).tolist()
    expected = BAD if not np.isnan(absurd) else NOT
    assert unpack_results(tests)[QualityTest.GROSS_RANGE][4] == expected


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("observed_property", sorted(DEFAULTS))
def test_hardly_any_rows_are_judged_as_far_as_they_go(rows: int, observed_property: str) -> None:
    empty = quarters([])
    context = Context((empty,) * 3, empty, empty, empty, empty, empty, services=((0, 1),))
    found = judge(quarters([1.0] * rows), DEFAULTS[observed_property], context)
    assert found.size == rows


# ------------------------------------------------------------------------------------------------- streaming and batch


def _shortened(rules: Rules) -> Rules:
    """The same tests over hours instead of days where they may, so that few rows show all."""
    flat = FlatLine(8 * HOUR_S, 16 * HOUR_S, 0.05)
    return replace(rules, flat_line=flat, gross=GrossRange("1", (-50.0, 50.0), (-20.0, 20.0)))


ALL_TESTS = _shortened(
    replace(
        DEFAULTS["dissolved_oxygen"],
        climatology=(Season(100, 200, -5.0, 9.0), Season(150, 20, -1.0, 8.0)),
        neighbour=DEFAULTS["soil_temperature"].neighbour,
        frost=DEFAULTS["soil_water_content"].frost,
        exposed=DEFAULTS["soil_temperature"].exposed,
        mismatch=Mismatch(),
        cracked_glass=CrackedGlass(within=3.0, tolerance=1.0, window_s=6 * HOUR_S),
        blocked_vent=BlockedVent(correlation=0.05),
    )
)


def _world(seed: int, rows: int, *, step_s: int) -> tuple[Series, Context]:
    """A channel with gaps, steps, standstill, absurd values and estimated times, and everything beside it."""
    rng = np.random.default_rng(seed)

    def one(swing: float) -> Series:
        steps = rng.choice(
            [step_s, step_s // 3, 2 * step_s, 9 * step_s], rows, p=[0.9, 0.05, 0.04, 0.01]
        )
        times = BEGIN_S + np.cumsum(steps)
        values = 5 + swing * np.sin(2 * np.pi * times / DAY_S) + rng.normal(0, 0.4, rows)
        values[rows // 2 :][: rows // 8] = 5 + 0.02 * (values[rows // 2 :][: rows // 8] - 5)
        values[-rows // 4 :] += 3.0 * (rng.random() < 0.3)
        for begin in rng.integers(0, rows, 5):
            values[begin : begin + int(rng.integers(2, 30))] = values[begin]
        values[rng.integers(0, rows, 6)] = rng.choice([np.nan, 300.0, 12.0, -8.0, np.inf], 6)
        return Series(times, np.round(values, 1), rng.random(rows) < 0.1)

    services, at = [], BEGIN_S - HOUR_S
    while at < BEGIN_S + rows * step_s * 3:
        services.append((at, at + int(rng.integers(0, 3 * HOUR_S))))
        at += int(rng.integers(12 * HOUR_S, 40 * DAY_S))
    return one(4.0), Context(
        neighbours=tuple(one(4.0) for _ in range(4)),
        air_temperature=one(5.0),
        soil_temperature=one(5.0),
        water_temperature=one(6.0),
        conductivity=one(6.0),
        level=one(5.0),
        oxygen_saturation=one(4.0),
        air_pressure=_scaled(one(5.0), 4.0),
        rain=one(0.1),
        services=tuple(services),
    )


def _scaled(series: Series, factor: float) -> Series:
    return Series(series.times_s, 1000.0 + factor * series.values)


def _streamed(
    series: Series, rules: Rules, context: Context, cuts: list[int]
) -> tuple[list[int], list[int]]:
    stream = Stream(rules)
    times: list[int] = []
    tests: list[int] = []
    for start, end in itertools.pairwise([0, *sorted(cuts), len(series)]):
        some_times, some_tests = stream.push(series.slice(start, end), context)
        times += some_times.tolist()
        tests += some_tests.tolist()
    some_times, some_tests = stream.finish(context)
    return times + some_times.tolist(), tests + some_tests.tolist()


@given(
    seed=st.integers(0, 10_000),
    step_s=st.sampled_from([900, 3600, 7200]),
    cuts=st.lists(st.integers(0, 700), max_size=5),
    statistic=st.sampled_from(["saturation", "high", "range"]),
)
def test_results_are_the_same_however_the_rows_come(
    seed: int, step_s: int, cuts: list[int], statistic: str
) -> None:
    series, context = _world(seed, 700, step_s=step_s)
    rules = replace(ALL_TESTS, fouling=Fouling(statistic, alarm=3.0))
    times, tests = _streamed(series, rules, context, cuts)
    assert times == series.times_s.tolist()
    assert tests == judge(series, rules, context).tolist()


def test_world_of_the_streams_makes_every_test_speak() -> None:
    spoken: dict[QualityTest, set[int]] = {test: set() for test in QualityTest}
    for seed in range(4):
        series, context = _world(seed, 1400, step_s=3600)
        for test, result in unpack_results(judge(series, ALL_TESTS, context)).items():
            spoken[test] |= set(result.tolist())
    silent = {QualityTest.INPUT, QualityTest.PERSON}
    assert {test for test, found in spoken.items() if not found & {SUSPECT, BAD}} == silent
    assert {test for test, found in spoken.items() if GOOD not in found} == silent


def test_one_row_at_a_time_is_judged_as_all_at_once() -> None:
    series, context = _world(7, 120, step_s=900)
    _, tests = _streamed(series, ALL_TESTS, context, list(range(120)))
    assert tests == judge(series, ALL_TESTS, context).tolist()


def test_long_series_is_judged_in_pieces_as_in_one() -> None:
    series, context = _world(5, 34_000, step_s=900)
    whole = in_context(series, ALL_TESTS, context, first=1000)
    packed = pack_results({test: one.result for test, one in whole.items()}, len(series) - 1000)
    assert judge(series, ALL_TESTS, context, first=1000).tolist() == packed.tolist()


def test_row_waits_until_nothing_can_change_it_and_a_row_of_the_past_is_refused() -> None:
    stream = Stream(DEFAULTS["ph"])
    assert look_ahead_s(DEFAULTS["ph"]) == 3 * HOUR_S
    times, _ = stream.push(quarters([7.0] * 13), Context())
    assert times.tolist() == [BEGIN_S]
    with pytest.raises(ValueError, match="is not after"):
        stream.push(quarters([7.0]), Context())
    times, _ = stream.finish(Context())
    assert times.size == 12


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), first=st.integers(1000, 1499))
def test_rows_further_back_than_is_looked_change_nothing(seed: int, first: int) -> None:
    """Neither a result nor a number behind it: two hours apart these are more than a hundred days."""
    series, context = _world(seed, 1500, step_s=7200)
    earliest_s = series.times_s[first] - look_back_s(ALL_TESTS)
    start = int(np.searchsorted(series.times_s, earliest_s))
    cut = in_context(series.slice(start), ALL_TESTS, context, first=first - start)
    for test, whole in in_context(series, ALL_TESTS, context).items():
        assert cut[test].result.tolist() == whole.result[first:].tolist()
        is_judged = whole.result[first:] != NOT
        for name, numbers in whole.numbers.items() if is_judged.any() else ():
            cut_numbers = cut[test].numbers[name]
            np.testing.assert_array_equal(cut_numbers[is_judged], numbers[first:][is_judged])


# ---------------------------------------------------------------------------------------------------- rules and learning


@pytest.mark.parametrize("observed_property", sorted(DEFAULTS))
def test_rules_survive_the_way_through_json(observed_property: str) -> None:
    rules = DEFAULTS[observed_property]
    assert from_data(json.loads(json.dumps(to_data(rules), allow_nan=False))) == rules


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gros": {}}, "rules has no gros; it has gross"),
        ({"gross": None}, "rules.gross must be an object"),
        ({"spike": {"suspect": 1.0}}, "rules.spike lacks fail"),
        ({"spike": {"suspect": "1", "fail": 2}}, "rules.spike.suspect must be a number"),
        ({"spike": {"suspect": 3, "fail": 2}}, "spike: suspect must be above zero and not above fail"),
        ({"spike": {"suspect": 1, "fail": None}}, "rules.spike.fail must be a number"),
        ({"spike": {"suspect": 1, "fail": 2, "within_s": 1.5}}, "within_s must be a whole number"),
        ({"spike": {"suspect": 1, "fail": 2, "within_s": 0}}, "spike: within_s must be from 1"),
        ({"spike": {"suspect": 1, "fail": 2, "is_relative": 1}}, "is_relative must be true or false"),
        ({"rate": {"rise_per_h": -1, "fall_per_h": 1}}, "rate: its limits must be above zero"),
        ({"rate": {"rise_per_h": float("nan"), "fall_per_h": 1}}, "rate: rise_per_h must be a finite"),
        ({"flat_line": {"suspect_s": 9, "fail_s": 5, "tolerance": 1}}, "flat_line: suspect_s must be"),
        ({"flat_line": {"suspect_s": 9, "fail_s": 10**9, "tolerance": 1}}, "fail_s must be from 1 to"),
        ({"climatology": [{"from_day": 0, "to_day": 9, "low": 1, "high": 2}]}, "a day of the year is 1 to 366"),
        ({"climatology": [{"from_day": 1, "to_day": 9, "low": 3, "high": 2}]}, "low must be below high"),
        ({"climatology": {}}, "rules.climatology must be a list"),
        ({"fouling": {"statistic": "mean"}}, 'fouling: statistic is "range", "low", "high" or "saturation"'),
        ({"gross": {"unit": "1", "fail": [0], "suspect": [0, 1]}}, "rules.gross.fail must be two numbers"),
        ({"gross": {"unit": "1", "fail": [0, 1], "suspect": [0, 2]}}, "suspect must be a span within fail"),
    ],
)  # fmt: skip
def test_rules_that_are_none_are_refused_with_the_place(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        from_data(to_data(DEFAULTS["ph"]) | change)


def test_deep_soil_may_keep_its_temperature_for_days() -> None:
    still = quarters(np.full(3 * 96, 14.0625))
    for depth_cm, expected in [(10, SUSPECT), (60, NOT)]:
        rules = default_rules("soil_temperature", depth_cm)
        assert rules is not None
        assert results(still, rules, QualityTest.FLAT_LINE)[-2] == expected
    assert default_rules("wind", 0) is None


def test_site_learns_wider_limits_from_its_first_thirty_accepted_days_and_never_narrower_ones() -> (
    None
):
    rng = np.random.default_rng(3)
    noisy = quarters(8 + rng.normal(0, 0.8, 40 * 96))
    rules = DEFAULTS["dissolved_oxygen"]
    good = np.ones(len(noisy), np.int16)
    learned = learn(noisy, good, rules)
    assert learned is not None
    assert learned.rate is not None
    assert learned.rate.rise_per_h > 6
    assert learned.spike is not None
    assert learned.spike.suspect > 1.5
    assert learned.spike.fail == pytest.approx(2 * learned.spike.suspect)
    calm = learn(quarters(8 + rng.normal(0, 0.01, 40 * 96)), good, rules, with_climatology=True)
    assert calm is not None
    assert (calm.spike, calm.rate) == (rules.spike, rules.rate)
    assert calm.climatology[0].low == pytest.approx(8 - 6 * 0.0067, abs=0.01)
    bad_after = np.where(np.arange(len(noisy)) < 29 * 96, 1, 4).astype(np.int16)
    assert learn(noisy, bad_after, rules) is None


def test_days_after_the_thirtieth_do_not_teach() -> None:
    values = np.append(
        np.full(31 * 96, 8.0) + 0.001 * (np.arange(31 * 96) % 7), 8 + 9 * (np.arange(96) % 2)
    )
    learned = learn(quarters(values), np.ones(values.size, np.int16), DEFAULTS["dissolved_oxygen"])
    assert learned == DEFAULTS["dissolved_oxygen"]


# --------------------------------------------------------------------------------------------------------------- reasons


@pytest.mark.parametrize(
    ("observed_property", "values", "row", "expected"),
    [
        ("soil_water_content", [0.2, 0.51], 1, ("rose", {"change": 0.31, "minutes": 15.0, "believed": 0.0375})),
        ("soil_water_content", [0.51, 0.2], 1, ("fell", {"change": 0.31, "minutes": 15.0, "believed": 0.0125})),
        ("soil_water_content", [1.2], 0, ("above", {"value": 1.2, "limit": 1.0})),
        ("soil_water_content", [0.01], 0, ("below", {"value": 0.01, "limit": 0.02})),
        ("turbidity", [10, 300, 12], 1, ("spike", {"departure": 289, "expected": 11, "believed": 200})),
        ("turbidity", [5.0] * 97, 96, ("flat", {"hours": 24.0, "tolerance": 0.05})),
    ],
)  # fmt: skip
def test_reason_of_a_flag_has_its_numbers(observed_property, values, row, expected) -> None:
    reason = explain(quarters(values), DEFAULTS[observed_property], Context(), row)[0]
    assert reason.kind == expected[0]
    assert reason.numbers == pytest.approx(expected[1])


def test_every_flag_of_the_world_has_a_reason_and_every_good_row_none() -> None:
    series, context = _world(1, 1400, step_s=3600)
    found = in_context(series, ALL_TESTS, context)
    kinds = set()
    flags = aggregate_flag([outcome.result for outcome in found.values()], len(series))
    for row in range(0, 1400, 47):
        reasons = explain(series, ALL_TESTS, context, row)
        said = {reason.test for reason in reasons}
        assert said == {test for test, one in found.items() if one.result[row] >= SUSPECT}
        assert bool(reasons) == (flags[row] >= 3)
        assert all(set(reason.numbers) == set(KINDS[reason.kind]) for reason in reasons)
        kinds |= {reason.kind for reason in reasons}
        assert all(np.isfinite(number) for reason in reasons for number in reason.numbers.values())
    assert len(kinds) >= 10


def test_sixteenth_test_would_fit_and_packed_results_come_back() -> None:
    rng = np.random.default_rng(0)
    expected = {test: rng.integers(0, 4, 50).astype(np.int8) for test in QualityTest}
    unpacked = unpack_results(pack_results(expected, 50))
    assert all((unpacked[test] == expected[test]).all() for test in QualityTest)
    assert max(QualityTest) < 16
    assert len(GROSS_RANGES) == len(DEFAULTS)

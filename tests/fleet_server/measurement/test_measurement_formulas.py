"""Formulas against published and independently confirmed values, and against what must hold for all of them."""

from __future__ import annotations

import doctest
import importlib
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.measurement.derived import (
    FORMULAS,
    NERNST_SLOPE_25_MV,
    WATERMARK_KNOTS_OHM,
    WATERMARK_OPEN_OHM,
    WATERMARK_SHORT_OHM,
    Formula,
    ammonia_fraction,
    capacitive_index,
    conductivity_25,
    dissolved_oxygen,
    ledieu_water_content,
    malicki_water_content,
    nernst_slope,
    oxygen_saturation,
    ph,
    salinity,
    speed_of_sound,
    teros_permittivity,
    teros_water_content,
    teros_water_content_per_count,
    topp_water_content,
    ultrasonic_distance,
    water_density,
    water_depth,
    watermark_tension,
    watermark_tension_with_slopes,
)

TOPP = {3: 0.02977, 5: 0.07979, 10: 0.18830, 15: 0.27576, 20: 0.34540, 30: 0.44410, 40: 0.51020}
LEDIEU = {5: 0.07866, 10: 0.18407, 20: 0.33313, 30: 0.44751}
MALICKI = {5: 0.09864, 10: 0.20363, 20: 0.35211, 30: 0.46604}
# Benson and Krause 1984, confirmed against Garcia–Gordon and gsw.O2sol_SP_pt · density.
OXYGEN = {
    (0,): 14.62083,
    (5,): 12.77100,
    (10,): 11.28795,
    (15,): 10.08386,
    (20,): 9.09243,
    (25,): 8.26346,
    (30,): 7.55880,
    (20, 5): 8.82812,
    (25, 10): 7.80666,
    (20, 0, 0.95 * 1013.25): 8.62738,
    (15, 0.5, 980): 9.71768,
}
# Irrometer / Shock 1998, away from the knots.
WATERMARK = {
    (600, 24): 1.158,
    (800, 24): 5.789,
    (1600, 28): 14.271,
    (2000, 15): 13.152,
    (2000, 24): 15.216,
    (5000, 24): 30.444,
    (15_000, 24): 96.032,
    (27_950, 24): 201.454,
    (300, 24): 0.0,
    (550, 24): 0.0,
}
# METER's polynomial by hand (decimal arithmetic): air, dry and wet soil, water.
TEROS = {1_800: 1.04650, 2_000: 4.10468, 2_500: 13.09988, 3_000: 31.79832, 3_390: 79.26516}
# Tables of the speed of sound in dry air.
SOUND = {-10: 325.2, 0: 331.3, 10: 337.3, 20: 343.2, 30: 349.0}
# By hand: d · 331.29 √(1 + T/273.15) / c₀.
ULTRASONIC = {(1_000, 0): 0.963052, (2_000, 30): 2.029121, (1_500, 20, 340): 1.514137}
# DFRobot SEN0193: its two readings of a ten-bit converter at 5 V, and their middle.
CAPACITIVE = {2_540: 0.0, 1_270: 1.0, 1_905: 0.5, (2_000, 2_600, 1_350): 0.48}
# Tanaka et al. 2001.
DENSITY = {0: 999.8428, 4: 999.9749, 10: 999.7027, 20: 998.2067, 25: 997.0470, 30: 995.6488}
DEPTH = {
    (10_000, 4): 1.01974,
    (10_000, 4, 9.8127): 1.01911,
    (10_000, 25): 1.02274,
    (5_000, 15): 0.51032,
}
NERNST = {0: 54.1988, 10: 56.1830, 20: 58.1672, 25: 59.1593, 30: 60.1515}
ELECTRODE = (56.37119, -0.21357, 18)
PH = {
    (-20, 18): 7.35100,
    (-20, 5): 7.36741,
    (50, 25): 6.13015,
    (6.1, 18): 6.888,
    (168.9, 18): 4.000,
}
CONDUCTIVITY = {
    (1, 0, 0.0191): 1.91388,
    (1, 5, 0.0191): 1.61812,
    (1, 10, 0.0191): 1.40154,
    (1, 15, 0.0191): 1.23609,
    (1, 20, 0.0191): 1.10558,
    (1, 30, 0.0191): 0.91283,
    (1, 0, 0.02): 2.0,
    (1, 5, 0.02): 1.66667,
    (1, 10, 0.02): 1.42857,
    (1, 15, 0.02): 1.25,
    (1, 20, 0.02): 1.11111,
    (1, 30, 0.02): 0.90909,
    (500, 5): 809.06,
    (500, 5, 0.02): 833.33,
}
SALINITY = {500: 0.2791, 1000: 0.5592, 5000: 2.8365, 20_000: 11.952}
AMMONIA = {(20, 8.0): 0.038205, (25, 8.5): 0.152509, (10, 7.5): 0.005858}


def table(
    function: Any, values: dict[Any, float], tolerance: float, *, last: tuple[float, ...] = ()
) -> list[Any]:
    rows = []
    for key, expected in values.items():
        arguments = (*(key if isinstance(key, tuple) else (key,)), *last)
        name = f"{function.__name__}{arguments}"
        rows.append(pytest.param(function, arguments, expected, tolerance, id=name))
    return rows


@pytest.mark.parametrize(
    ("function", "arguments", "expected", "tolerance"),
    [
        *table(topp_water_content, TOPP, 5e-6),
        *table(ledieu_water_content, LEDIEU, 5e-6),
        *table(malicki_water_content, MALICKI, 5e-6, last=(1.4,)),
        *table(teros_permittivity, TEROS, 5e-5),
        *table(speed_of_sound, SOUND, 0.06),
        *table(ultrasonic_distance, ULTRASONIC, 5e-5),
        *table(capacitive_index, CAPACITIVE, 1e-12),
        *table(oxygen_saturation, OXYGEN, 5e-6),
        *table(watermark_tension, WATERMARK, 5e-4),
        *table(water_density, DENSITY, 5e-5),
        *table(water_depth, DEPTH, 5e-6),
        *table(nernst_slope, NERNST, 5e-5),
        *table(ph, PH, 6e-6, last=ELECTRODE),
        *table(conductivity_25, CONDUCTIVITY, 5e-3),
        *table(salinity, SALINITY, 5e-4),
        *table(ammonia_fraction, AMMONIA, 5e-7),
    ],
)
def test_formula_gives_the_published_value(
    function: Any, arguments: tuple[float, ...], expected: float, tolerance: float
) -> None:
    assert float(function(*arguments)) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("resistance_ohm", "expected_kpa"),
    [(1_000, 10.4), (2_000, 15.2), (4_000, 25.2), (10_000, 61.4), (20_000, 134.1), (27_000, 193.0)],
)
def test_watermark_at_24_degrees_follows_the_makers_curve(
    resistance_ohm: float, expected_kpa: float
) -> None:
    assert float(watermark_tension(resistance_ohm, 24)) == pytest.approx(expected_kpa, abs=0.051)


def test_ideal_electrode_has_the_nernst_slope() -> None:
    assert float(nernst_slope(25)) == pytest.approx(NERNST_SLOPE_25_MV, abs=5e-6)
    assert float(ph(0, 12)) == 7.0
    assert float(ph(-nernst_slope(10), 10)) == pytest.approx(8.0, abs=1e-6)


def test_ammonia_uses_the_papers_kelvin() -> None:
    assert float(ammonia_fraction(20, 8)) != pytest.approx(0.038071, abs=1e-6)  # 273.15


# --------------------------------------------------------------------------------------------------------- Watermark


@pytest.mark.parametrize("temperature_c", [5, 10, 15, 20, 24, 30, 40])
def test_drier_soil_never_reads_wetter(temperature_c: float) -> None:
    resistance = np.arange(300.0, 35_000.0, 1.0)
    tension = watermark_tension(resistance, np.full(resistance.shape, temperature_c))
    # The pieces of the published curve themselves leave a dip of a few pascals below 1,050 Ω.
    assert np.diff(tension).min() > -0.005
    assert np.diff(tension[::50]).min() >= 0.0


def test_watermark_only_rises_or_only_falls_between_its_knots() -> None:
    ends = (WATERMARK_SHORT_OHM, *WATERMARK_KNOTS_OHM, WATERMARK_OPEN_OHM - 1)
    temperatures_c = np.linspace(0, 50, 26)[:, np.newaxis]
    for start, end in itertools.pairwise(ends):
        tension = watermark_tension(np.linspace(start, end, 200), temperatures_c)
        highest = np.maximum(tension[:, 0], tension[:, -1])
        lowest = np.minimum(tension[:, 0], tension[:, -1])
        assert (tension.max(axis=1) - highest).max() < 0.03
        assert (lowest - tension.min(axis=1)).max() < 0.03


@pytest.mark.parametrize("temperature_c", [1, 5, 12, 24, 35])
def test_watermark_has_no_jump(temperature_c: float) -> None:
    resistance = np.arange(300.0, 35_000.0, 0.5)
    tension = watermark_tension(resistance, np.full(resistance.shape, temperature_c))
    assert np.abs(np.diff(tension)).max() < 0.03  # the published pieces jump by up to 3 kPa


def test_uncertainty_of_the_form_is_there_near_the_upper_knot_and_not_in_drier_soil() -> None:
    at = watermark_tension_with_slopes([7_500, 8_000, 8_500, 20_000], [5.0] * 4)
    assert at.u_form[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    assert at.u_form[1] == pytest.approx(abs(34.6 - 31.7) / math.sqrt(12), abs=0.03)


@pytest.mark.parametrize(
    ("resistance_ohm", "temperature_c", "newer_kpa", "older_kpa"),
    [(800, 24, 5.789, 5.0), (800, 8, 4.1216, 0.392), (600, 8, 0.824, 0.0)],
)
def test_uncertainty_of_the_form_reaches_to_the_makers_older_equation_in_wet_soil(
    resistance_ohm: float, temperature_c: float, newer_kpa: float, older_kpa: float
) -> None:
    at = watermark_tension_with_slopes(resistance_ohm, temperature_c)
    assert float(at.tension_kpa) == pytest.approx(newer_kpa, abs=5e-4)
    assert float(at.u_form) == pytest.approx((newer_kpa - older_kpa) / math.sqrt(3), abs=5e-4)


@given(st.floats(560, 34_000), st.floats(1, 40))
def test_slopes_of_the_watermark_are_its_derivatives(
    resistance_ohm: float, temperature_c: float
) -> None:
    edges = np.array([550, 950, 1_050, 7_600, 8_400])
    if np.abs(edges - resistance_ohm).min() < 1.0:
        return
    at = watermark_tension_with_slopes(resistance_ohm, temperature_c)
    if at.tension_kpa < 0.05:  # beside the corner where it begins
        return
    h = 1e-3

    def tension(by_ohm: float, by_kelvin: float) -> float:
        return float(watermark_tension(resistance_ohm + by_ohm, temperature_c + by_kelvin))

    per_ohm = (tension(h, 0) - tension(-h, 0)) / (2 * h)
    per_kelvin = (tension(0, h) - tension(0, -h)) / (2 * h)
    assert float(at.per_ohm) == pytest.approx(per_ohm, rel=1e-5, abs=1e-8)
    assert float(at.per_kelvin) == pytest.approx(per_kelvin, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("resistance_ohm", "temperature_c"),
    [(299, 20), (0, 20), (35_000, 20), (-5, 20), (2_000, -0.1), (2_000, 51), (np.inf, 20)],
)
def test_what_the_watermark_cannot_know_is_nan(resistance_ohm: float, temperature_c: float) -> None:
    assert np.isnan(watermark_tension(resistance_ohm, temperature_c))


# -------------------------------------------------------------------------------------------------------- other probes


@pytest.mark.parametrize("water_content", [0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
def test_water_content_by_permittivity_and_topp_agrees_with_the_makers_own_line(
    water_content: float,
) -> None:
    # METER, TEROS 12 user manual, §4.1.1, eq. 5: θ = 3.879e-4 RAW − 0.6956, for mineral soils.
    raw = (water_content + 0.6956) / 3.879e-4
    assert float(teros_water_content(raw)) == pytest.approx(water_content, abs=0.033)


def test_derivative_of_water_content_is_that_of_the_curve() -> None:
    counts = np.linspace(1_880, 3_380, 200)
    numeric = (teros_water_content(counts + 0.01) - teros_water_content(counts - 0.01)) / 0.02
    np.testing.assert_allclose(teros_water_content_per_count(counts), numeric, rtol=1e-6)


@pytest.mark.parametrize("counts", [0, 1_500, 1_796, 1_869, 3_397, 4_000, np.inf])
def test_counts_of_air_and_of_what_no_matter_has_are_no_water_content(counts: float) -> None:
    assert np.isnan(teros_water_content(counts))


# ------------------------------------------------------------------------------------------------------ every formula

EVERY_FORMULA = pytest.mark.parametrize("formula", FORMULAS.values(), ids=lambda f: f.name)


def inside(formula: Formula, draw_at: float) -> dict[str, float]:
    """Arguments a part of the way through their ranges; a warmer maximum than minimum."""
    values = {a.name: a.minimum + draw_at * (a.maximum - a.minimum) for a in formula.arguments}
    if "temperature_min_c" in values:
        values["temperature_min_c"] -= 5.0 * draw_at
    return values


@EVERY_FORMULA
def test_formula_has_a_value_everywhere_inside_its_ranges(formula: Formula) -> None:
    for at in (0.2, 0.5, 0.8):
        assert np.isfinite(formula.function(**inside(formula, at)))


@EVERY_FORMULA
def test_one_argument_outside_its_range_or_nan_gives_nan(formula: Formula) -> None:
    values = inside(formula, 0.5)
    for argument in formula.arguments:
        width = argument.maximum - argument.minimum
        for wrong in (np.nan, argument.minimum - 1e-3 * width, argument.maximum + 1e-3 * width):
            assert np.isnan(formula.function(**{**values, argument.name: wrong})), argument.name


@EVERY_FORMULA
def test_array_gives_the_same_bits_as_one_at_a_time_in_any_order(formula: Formula) -> None:
    generator = np.random.default_rng(7)
    columns = {a.name: generator.uniform(a.minimum, a.maximum, size=37) for a in formula.arguments}
    if "temperature_min_c" in columns:
        columns["temperature_min_c"] = columns["temperature_max_c"] - 5.0
    together = formula.function(**columns)
    alone = [
        float(formula.function(**{name: column[row] for name, column in columns.items()}))
        for row in range(37)
    ]
    order = generator.permutation(37)
    shuffled = formula.function(**{name: column[order] for name, column in columns.items()})
    np.testing.assert_array_equal(shuffled, together[order])
    np.testing.assert_array_equal(together, np.array(alone))


@given(st.floats(0, 39), st.floats(0.01, 1), st.floats(0, 30), st.floats(700, 1_050))
def test_warmer_or_saltier_or_higher_water_holds_less_oxygen(
    temperature_c: float, step: float, salt: float, pressure_hpa: float
) -> None:
    here = oxygen_saturation(temperature_c, salt, pressure_hpa)
    assert oxygen_saturation(temperature_c + step, salt, pressure_hpa) < here
    assert oxygen_saturation(temperature_c, salt + step, pressure_hpa) < here
    assert oxygen_saturation(temperature_c, salt, pressure_hpa - step) < here
    assert float(dissolved_oxygen(100, temperature_c, salt, pressure_hpa)) == pytest.approx(
        float(here), rel=1e-12
    )


@pytest.mark.parametrize(
    "module",
    [
        *(
            "aggregates",
            "budget",
            "calibration",
            "derived",
            "evapotranspiration",
            "deriving",
            "distributions",
            "drift",
            "exact",
            "fits",
            "pipeline",
            "place",
            "probes",
        ),
        *("quality", "ranges", "soil_water", "uncertainty", "units"),
    ],
)
def test_examples_in_the_docstrings_hold(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"fleet_server.measurement.{module}"))
    assert outcome.failed == 0
    assert outcome.attempted > 0 or module == "units"

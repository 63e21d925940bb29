"""Soil water, bare probes and places: published values, ways there and back, and judges."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import Any

import gsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.measurement.derived import (
    dissolved_oxygen,
    oxygen_saturation,
    percent_saturation,
    practical_salinity,
    salinity,
    unionised_ammonia,
    water_density,
    water_level,
)
from fleet_server.measurement.place import local_gravity, station_pressure
from fleet_server.measurement.probes import (
    KCL_CONDUCTIVITY_25_US_CM,
    borax_buffer_ph,
    cell_constant,
    conductivity_of_cell,
    ds18b20_temperature,
    oxygen_two_point,
    phosphate_buffer_ph,
    phthalate_buffer_ph,
    steinhart_hart_coefficients,
    steinhart_hart_temperature,
    thermistor_temperature,
    turbidity,
    watermark_thermistor_temperature,
)
from fleet_server.measurement.soil_water import (
    SOIL_CLASSES,
    TEXTURES,
    U_AVAILABLE_CAPACITY,
    U_FIELD_CAPACITY,
    available_water_of_class,
    available_water_pct,
    soil_specific_water_content,
    tension_of_texture,
    topp_permittivity,
    van_genuchten_tension,
    van_genuchten_water_content,
    water_content_of_texture,
)
from fleet_server.measurement.uncertainty import combined_uncertainty

SERIES = Path(
    os.environ.get(
        "STADTSENSOR_SERIES", Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
    )
)
has_series = pytest.mark.skipif(
    not SERIES.is_dir(),
    reason="the measured series (STADTSENSOR_SERIES, or shared/data beside the checkout) are not here",
)

SANDY_LOAM = (0.065, 0.41, 0.075, 1.89)
LOAM = (0.078, 0.43, 0.036, 1.56)
CLAY_LOAM = (0.095, 0.41, 0.019, 1.31)
# Carsel and Parrish 1988, by hand, at 1, 6, 10, 33, 100 and 1500 kPa.
RETENTION = {
    (tension, *curve): value
    for curve, values in (
        (SANDY_LOAM, (0.3413, 0.1516, 0.1209, 0.0845, 0.0723, 0.0657)),
        (LOAM, (0.4068, 0.2843, 0.2406, 0.1644, 0.1247, 0.0883)),
        (CLAY_LOAM, (0.4019, 0.3559, 0.3312, 0.2687, 0.2201, 0.1493)),
    )
    for tension, value in zip((1, 6, 10, 33, 100, 1_500), values, strict=True)
}
THERMISTOR = {32_650: 0.554, 12_490: 20.079, 6_530: 34.910, 3_600: 49.913, 10_000: 25.0}
OXYGEN_TWO_POINT = {(50, 0.8, 97.6): 50.82645, (105, 0.8, 97.6): 107.64463, (97.6, 0.8, 97.6): 100}
PERCENT_SATURATION = {(7.63598, 20, 0.3, 0.99 * 1013.25): 85.0, (9.09243, 20): 100.0}
# Practical salinity scale: its own point, and gsw 3.6.23 at 25 °C.
SALINITY = {(42_914, 15 / 1.00024): 35.0, (5_000, 25): 2.6796, (20_000, 25): 11.9150}
PRESSURE = {(34,): 1009.17, (100,): 1001.29, (520,): 952.32, (0, 990): 990.0}
LEVEL = {
    (1_101.29, 1_001.29, 4): 1.01974,
    (1_101.29, 1_001.29, 4, 9.8127): 1.01911,
    (1_101.29, 1_001.29, 25): 1.02274,
    (1_051.29, 1_001.29, 15, 9.80665, 0.3): 0.81032,
    (1_001.29, 1_001.29, 15, 9.80665, -0.4): -0.4,
}
# Normal gravity of GRS 80 at the equator, 45° and the pole (Moritz 2000), and Berlin.
GRAVITY = {(0,): 9.78033, (45,): 9.80620, (90,): 9.83219, (52.52, 34): 9.81283}
BUFFER_PHOSPHATE = {0: 6.984, 10: 6.923, 20: 6.881, 25: 6.865, 30: 6.853}
BUFFER_PHTHALATE = {0: 4.003, 10: 3.998, 20: 4.002, 25: 4.008, 30: 4.015}
BUFFER_BORAX = {0: 9.464, 10: 9.332, 20: 9.225, 25: 9.180, 30: 9.139}
# By hand.
TURBIDITY = {(0,): 0.0, (200, -0.5, 1.02, 2e-5): 204.3, (400, 1.5, 0.95): 381.5}
PERMITTIVITY = {0: 3.03, 0.1: 5.3433, 0.3: 16.8891, 0.5: 34.5925}
DS18B20 = {318: 19.875, -160: -10.0, (0, 0.25): 0.25}
THERMISTOR_200TS = {10_000: 25.963, 29_666: -0.01, 3_660: 49.99}
AVAILABLE = {(0.30, 0.30, 0.18): 100.0, (0.12, 0.30, 0.18): 0.0, (0.21, 0.30, 0.18): 50.0}
AMMONIA = {(1, 20, 8.0): 0.038205, (0.5, 25, 8.5): 0.0762545, (0, 10, 7.5): 0.0}


def table(function: Any, values: dict[Any, float], tolerance: float) -> list[Any]:
    return [
        pytest.param(
            function,
            key if isinstance(key, tuple) else (key,),
            expected,
            tolerance,
            id=f"{function.__name__}{key}",
        )
        for key, expected in values.items()
    ]


@pytest.mark.parametrize(
    ("function", "arguments", "expected", "tolerance"),
    [
        *table(van_genuchten_water_content, RETENTION, 5.1e-5),
        *table(thermistor_temperature, THERMISTOR, 5e-4),
        *table(oxygen_two_point, OXYGEN_TWO_POINT, 5e-6),
        *table(percent_saturation, PERCENT_SATURATION, 1e-4),
        *table(practical_salinity, SALINITY, 5e-5),
        *table(station_pressure, PRESSURE, 5e-3),
        *table(water_level, LEVEL, 5e-6),
        *table(local_gravity, GRAVITY, 1e-5),
        *table(phosphate_buffer_ph, BUFFER_PHOSPHATE, 1e-12),
        *table(phthalate_buffer_ph, BUFFER_PHTHALATE, 1e-12),
        *table(borax_buffer_ph, BUFFER_BORAX, 1e-12),
        *table(turbidity, TURBIDITY, 1e-9),
        *table(topp_permittivity, PERMITTIVITY, 1e-9),
        *table(ds18b20_temperature, DS18B20, 1e-12),
        *table(watermark_thermistor_temperature, THERMISTOR_200TS, 1.5e-2),
        *table(available_water_pct, AVAILABLE, 1e-9),
        *table(unionised_ammonia, AMMONIA, 5e-7),
    ],
)
def test_quantity_has_its_published_value(
    function: Any, arguments: tuple[float, ...], expected: float, tolerance: float
) -> None:
    assert float(function(*arguments)) == pytest.approx(expected, abs=tolerance)


# ------------------------------------------------------------------------------------------------------- soil water


@given(st.floats(0.05, 1_500), st.sampled_from([SANDY_LOAM, LOAM, CLAY_LOAM]))
def test_tension_comes_back_from_the_water_content_it_gives(
    tension_kpa: float, curve: tuple[float, float, float, float]
) -> None:
    there = van_genuchten_water_content(tension_kpa, *curve)
    assert float(van_genuchten_tension(there, *curve)) == pytest.approx(tension_kpa, rel=1e-6)


@pytest.mark.parametrize("water_content", [0.0, 0.05, 0.078, 0.44, 0.0781, math.nan])
def test_water_content_that_the_curve_does_not_have_has_no_tension(water_content: float) -> None:
    assert np.isnan(van_genuchten_tension(water_content, *LOAM))


def test_saturated_soil_has_no_tension_to_speak_of_and_says_nothing_about_it() -> None:
    tension, u = tension_of_texture(0.43, TEXTURES["loam"], 0.01)
    assert float(tension) == 0.0
    assert math.isinf(float(u))


@pytest.mark.parametrize("name", TEXTURES)
@pytest.mark.parametrize("tension_kpa", [0.5, 10.0, 100.0])
def test_uncertainty_of_a_texture_is_that_of_its_parts_put_together(
    name: str, tension_kpa: float
) -> None:
    texture = TEXTURES[name]
    names = ("residual", "saturated", "alpha_per_cm", "n")
    values = {one: getattr(texture, one) for one in names} | {"tension_kpa": tension_kpa}
    spreads = {one: getattr(texture, f"u_{one}") for one in names} | {"tension_kpa": 2.0}

    def curve(**inputs: float) -> float:
        return float(van_genuchten_water_content(**inputs))

    value, u = water_content_of_texture(tension_kpa, texture, 2.0)
    assert float(value) == curve(**values)
    assert float(u) == pytest.approx(combined_uncertainty(curve, values, spreads), rel=1e-5)


def test_uncertainty_of_a_texture_is_the_spread_of_soils_drawn_from_it() -> None:
    generator = np.random.default_rng(20)
    draws = 20_000

    def log_normal(mean: float, u: float) -> Any:
        variance = math.log1p((u / mean) ** 2)
        return np.exp(generator.normal(math.log(mean) - variance / 2, math.sqrt(variance), draws))

    for texture in TEXTURES.values():
        curve = {
            "residual": np.maximum(
                generator.normal(texture.residual, texture.u_residual, draws), 0.0
            ),
            "saturated": generator.normal(texture.saturated, texture.u_saturated, draws),
            "alpha_per_cm": log_normal(texture.alpha_per_cm, texture.u_alpha_per_cm),
            "n": 1.0 + log_normal(texture.n - 1.0, texture.u_n),
        }
        for tension_kpa in (1.0, 10.0, 100.0):
            spread = np.nanstd(van_genuchten_water_content(tension_kpa, **curve))
            _, u = water_content_of_texture(tension_kpa, texture)
            assert float(u) == pytest.approx(float(spread), rel=0.15)


def test_tension_from_a_texture_is_not_surer_than_the_water_content_lets_it_be() -> None:
    texture = TEXTURES["loam"]
    tension, u = tension_of_texture([0.3, 0.2], texture, [0.03, 0.03])
    # A declared class alone leaves half of the tension and more open: it is no tensiometer.
    assert (u > 0.5 * tension).all()
    step = 1e-4
    there = van_genuchten_water_content(tension + step, *LOAM)
    per_kpa = (there - van_genuchten_water_content(tension, *LOAM)) / step
    _, u_of_class = water_content_of_texture(tension, texture)
    np.testing.assert_allclose(u, np.hypot(u_of_class, 0.03) / np.abs(per_kpa), rtol=1e-3)


def test_line_of_a_soil_with_ledieus_coefficients_is_ledieus_and_moves_with_temperature() -> None:
    assert float(soil_specific_water_content(20, -0.1758, 0.1138)) == pytest.approx(0.33313, 5e-5)
    warm, cold = soil_specific_water_content([20, 20], -0.1758, 0.1138, [30, 10], 0.001)
    assert warm - cold == pytest.approx(0.020, abs=1e-12)


def test_available_water_of_a_class_has_the_spread_of_drawn_soils() -> None:
    generator = np.random.default_rng(3)
    draws = 100_000
    capacity = generator.normal(0.30, U_FIELD_CAPACITY, draws)
    available = generator.normal(0.18, U_AVAILABLE_CAPACITY, draws)
    measured = generator.normal(0.2, 0.03, draws)
    value, u = available_water_of_class(0.2, 0.03, SOIL_CLASSES["Sl4"], 30)
    assert float(value) == pytest.approx(44.444, abs=1e-3)
    spread = np.nanstd(available_water_pct(measured, capacity, available))
    assert float(u) == pytest.approx(float(spread), rel=0.03)


@pytest.mark.needs_series
@has_series
def test_every_soil_class_holds_what_the_book_says_at_both_depths() -> None:
    with (SERIES / "ka5_soil_water.csv").open(newline="") as file:
        printed = {row["soil_class"]: row for row in csv.DictReader(file)}
    assert set(printed) == set(SOIL_CLASSES)
    for name, row in printed.items():
        for depth_cm, column in ((40, "40cm"), (60, "40cm"), (61, "80cm"), (100, "80cm")):
            at = SOIL_CLASSES[name]
            assert at.field_capacity(depth_cm) == int(row[f"fk_{column}"]) / 100
            assert at.available_capacity(depth_cm) == int(row[f"nfk_{column}"]) / 100
        assert SOIL_CLASSES[name].egp_40_pct == int(row["egp_40cm"])
        assert SOIL_CLASSES[name].egp_80_pct == int(row["egp_80cm"])


@pytest.mark.parametrize("name", SOIL_CLASSES)
def test_soil_class_has_room_for_what_it_holds(name: str) -> None:
    one = SOIL_CLASSES[name]
    assert 0 <= one.egp_40_pct < one.nfk_40_pct < one.fk_40_pct
    assert 0 <= one.egp_80_pct < one.nfk_80_pct < one.fk_80_pct


# ------------------------------------------------------------------------------------------------------- bare probes


def test_three_points_of_a_thermistor_come_back_and_lie_near_its_beta_between() -> None:
    resistances_ohm, temperatures_c = (32_650.0, 10_000.0, 3_600.0), (0.0, 25.0, 50.0)
    coefficients = steinhart_hart_coefficients(resistances_ohm, temperatures_c)
    again = steinhart_hart_temperature(resistances_ohm, *coefficients)
    np.testing.assert_allclose(again, temperatures_c, atol=1e-9)
    between = steinhart_hart_temperature([18_000, 6_000], *coefficients)
    np.testing.assert_allclose(between, thermistor_temperature([18_000, 6_000]), atol=0.5)


@pytest.mark.parametrize(
    ("resistances_ohm", "temperatures_c", "sentence"),
    [
        ([1e4, 2e4], [20, 10], "goes through three points"),
        ([1e4, 1e4, 2e4], [20, 20, 10], "three different resistances"),
        ([1e4, 0, 2e4], [20, 50, 10], "above 0 Ω"),
    ],
)
def test_points_that_make_no_thermistor_are_refused(
    resistances_ohm: list[float], temperatures_c: list[float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        steinhart_hart_coefficients(resistances_ohm, temperatures_c)


def test_cell_that_was_calibrated_in_potassium_chloride_reads_it_back() -> None:
    standard_us_cm = KCL_CONDUCTIVITY_25_US_CM[0.01]
    constant = cell_constant(standard_us_cm, 1_384.9)
    assert float(conductivity_of_cell(1_384.9, constant)) == pytest.approx(standard_us_cm)


# -------------------------------------------------------------------------------------------------------------- water


@given(st.floats(0, 300), st.floats(0, 40), st.floats(0, 40), st.floats(600, 1_100))
def test_saturation_comes_back_from_the_oxygen_it_gives(
    saturation_pct: float, temperature_c: float, salt: float, pressure_hpa: float
) -> None:
    oxygen = dissolved_oxygen(saturation_pct, temperature_c, salt, pressure_hpa)
    again = float(percent_saturation(oxygen, temperature_c, salt, pressure_hpa))
    assert again == pytest.approx(saturation_pct, rel=1e-12, abs=1e-12)


def test_one_hectopascal_of_the_air_is_one_centimetre_of_level() -> None:
    there, off = water_level([1_101.29, 1_101.29], [1_001.29, 1_002.29], 10)
    assert (there - off) * 100 == pytest.approx(1.02, abs=5e-3)


def test_oxygen_and_salinity_are_those_of_the_oceanographers() -> None:
    t, s = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 30, 16), np.linspace(0, 35, 8)))
    # µmol/kg by the Benson and Krause fit of Garcia and Gordon, times density and the molar mass.
    density_kg_l = gsw.rho(gsw.SA_from_SP(s, 0, 10, 51), gsw.CT_from_t(s, t, 0), 0) / 1000
    theirs = gsw.O2sol_SP_pt(s, t) * density_kg_l * 31.9988e-3
    np.testing.assert_allclose(oxygen_saturation(t, s), theirs, rtol=3e-4)
    c, t = (axis.ravel() for axis in np.meshgrid(np.linspace(500, 7e4, 60), np.linspace(0, 30, 13)))
    judged = gsw.SP_from_C(c / 1000, t, 0)
    ours = practical_salinity(c, t)
    is_salt = (judged > 2) & (judged < 42)
    np.testing.assert_allclose(ours[is_salt], judged[is_salt], rtol=1e-9)
    assert np.isnan(ours[~is_salt]).all()


@pytest.mark.parametrize("conductivity_us_cm", [500, 1_000, 2_000])
def test_fresh_water_has_no_practical_salinity_and_its_stand_in_is_good_enough_for_oxygen(
    conductivity_us_cm: float,
) -> None:
    assert np.isnan(practical_salinity(conductivity_us_cm, 25))
    by_judge = oxygen_saturation(15, gsw.SP_from_C(conductivity_us_cm / 1000, 25, 0))
    by_us = oxygen_saturation(15, salinity(conductivity_us_cm))
    assert float(by_us) == pytest.approx(float(by_judge), rel=1e-3)


def test_density_of_pure_water_is_that_of_the_oceanographers() -> None:
    t = np.linspace(0, 30, 31)
    theirs = gsw.rho(np.zeros(31), gsw.CT_from_t(np.zeros(31), t, 0), 0)
    np.testing.assert_allclose(water_density(t), theirs, rtol=1e-5)


@pytest.mark.needs_series
@has_series
def test_a_sondes_month_of_oxygen_and_salinity_agrees_with_what_it_worked_out_itself() -> None:
    with (SERIES / "nerrs_grand_bay_2021_07.csv").open(newline="") as file:
        rows = [
            [float(row[name]) for name in ("Temp", "SpCond", "Sal", "DO_Pct", "DO_mgl")]
            for row in csv.DictReader(file)
            if all(
                row[f"F_{name}"].startswith("<0>") for name in ("Temp", "Sal", "DO_Pct", "DO_mgl")
            )
        ]
    temperature_c, conductivity_ms_cm, salt, saturation_pct, oxygen_mg_l = np.array(rows).T
    assert len(rows) > 2_000
    apart = np.abs(dissolved_oxygen(saturation_pct, temperature_c, salt) - oxygen_mg_l)
    assert np.percentile(apart, 99) <= 0.06  # it tells tenths
    worked_out = percent_saturation(oxygen_mg_l, temperature_c, salt)
    assert np.percentile(np.abs(worked_out - saturation_pct), 99) <= 0.9
    # The sonde's conductivity is at 25 °C by α = 0.0191, its salinity from the one at the water's temperature.
    at_water = conductivity_ms_cm * 1000 * (1 + 0.0191 * (temperature_c - 25))
    apart = np.abs(practical_salinity(at_water, temperature_c) - salt)
    assert np.nanmax(apart) < 0.06  # tenths again

"""Budgets add up to what the pipeline states; u grows with the time since a calibration; no probe is surer than it may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import GTC
import numpy as np
import pytest

from fleet_server.measurement.budget import SHAPES, Budget, budget
from fleet_server.measurement.calibration import (
    SECONDS_PER_YEAR,
    CalibrationParameters,
    as_columns,
    calibrate,
)
from fleet_server.measurement.fits import fit_line, fit_quadratic
from fleet_server.measurement.pipeline import CONVERSIONS, Observed, observe
from hardware.catalogue import load_sensor_type, sensor_type_ids

# A working probe's raw values, and of its inputs, for every conversion.
WORKING = {
    "identity": ((1, 30), {}),
    "sixteenths": ((0, 600), {}),
    "hundredths": ((100, 8_000), {}),
    "hundredths_from_minus_100": ((10_000, 13_000), {}),
    "ten_thousandths": ((100, 5_000), {}),
    "percent_of_ratio": ((0.1, 1.5), {}),
    "tenths": ((-100, 400), {}),
    "current_loop": ((4_000, 20_000), {}),
    "wiped": ((0, 800), {"wiper_age": (0, 900)}),
    "watermark_tension": ((560, 30_000), {"temperature": (0, 40), "reference": (9_800, 10_200)}),
    "conductivity_25": ((1_000, 200_000), {"temperature": (0, 30)}),
    "oxygen_of_saturation": ((0.1, 1.5), {"temperature": (0, 30)}),
    "ezo_oxygen": ((100, 2_000), {"temperature": (0, 30)}),
    "ezo_ph": ((4_000, 10_000), {"temperature": (0, 30)}),
    "teros_water_content": ((19_000, 32_000), {}),
    "ultrasonic_level": ((300, 4_000), {"temperature": (-10, 35)}),
    "capacitive_index": ((1_000, 2_500), {}),
}
NOW_S = 1_800_000_000.0
LINE = fit_line([1, 4, 9], [1.1, 4.0, 9.2], [0.1, 0.2, 0.1], u_common=0.05)
CURVE = fit_quadratic([0, 1, 2, 3, 4], [0, 1.1, 2.4, 3.9, 5.6], [0.02] * 5, u_common=0.02)
DRIFTING = CalibrationParameters(
    u_abs=0.3, u_rel=0.02, u_drift_abs=0.5, u_drift_rel=0.05, since_s=NOW_S - SECONDS_PER_YEAR / 2
)


def inputs_of(conversion: str, count: int, *, with_thermometer: bool) -> dict[str, Observed]:
    generator = np.random.default_rng(9)
    spans = WORKING[conversion][1]
    u = {"temperature": 0.29}
    return {
        name: observe(
            "identity",
            generator.uniform(*span, count),
            {},
            CalibrationParameters(u_abs=u.get(name, 1.0)),
            observed_property="of none of ours",
        )
        for name, span in spans.items()
        if with_thermometer or name != "temperature"
    }


def test_every_conversion_is_tried() -> None:
    assert set(WORKING) == set(CONVERSIONS)


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_contributions_add_up_to_the_stated_uncertainty(conversion: str) -> None:
    raw = np.random.default_rng(2).uniform(*WORKING[conversion][0], 40)
    for with_thermometer in (True, False):
        inputs = inputs_of(conversion, 40, with_thermometer=with_thermometer)
        for calibration, common in (
            (CalibrationParameters(u_abs=0.3, u_rel=0.02), (0.0, 0.0, 0.0)),
            (LINE.parameters, LINE.common),
            (CURVE.parameters, CURVE.common),
            (DRIFTING, (0.0, 0.0, 0.0)),
        ):
            times_s = np.full(40, NOW_S)
            observed = observe(
                conversion,
                raw,
                inputs,
                calibration,
                observed_property="of none of ours",
                times_s=times_s,
            )
            table = budget(conversion, raw, inputs, calibration, common=common, times_s=times_s)
            assert table.value.tobytes() == observed.value.tobytes()
            assert np.isfinite(table.value).all()
            together = np.sqrt(sum(one.u**2 for one in table.contributions))
            np.testing.assert_allclose(together, table.u, rtol=1e-12)
            np.testing.assert_array_equal(table.u.astype(np.float32), observed.u)


def in_proportion(x: Any, width: float) -> Any:
    """x, with limits of ± width."""
    return x * GTC.ureal(1.0, width / math.sqrt(3.0))


def of_digit(shown: float, digit: float) -> Any:
    return GTC.ureal(shown, digit / math.sqrt(12.0))


def oxygen_held_mg_l(water_c: Any, pressure_atm: Any = 1.0) -> Any:
    """Benson and Krause in fresh water, written for uncertain numbers."""
    k = water_c + 273.15
    logarithm = (
        -139.34411 + 1.575701e5 / k - 6.642308e7 / k**2 + 1.2438e10 / k**3 - 8.621949e11 / k**4
    )
    vapour = GTC.exp(11.8571 - 3840.70 / k - 216961 / k**2)
    theta = 9.75e-4 - 1.426e-5 * water_c + 6.436e-8 * water_c**2
    factor = (pressure_atm - vapour) * (1 - theta * pressure_atm) / ((1 - vapour) * (1 - theta))
    return GTC.exp(logarithm) * factor


def teros_by_topp(counts: Any) -> Any:
    k = (2.887e-9 * counts**3 - 2.080e-5 * counts**2 + 5.276e-2 * counts - 43.39) ** 2
    return -5.3e-2 + 2.92e-2 * k - 5.5e-4 * k**2 + 4.3e-6 * k**3


def shock_kpa(r: Any, soil_c: Any) -> Any:
    return (4.093 + 3.213 * r) / (1 - 0.009733 * r - 0.01205 * soil_c)


# What a conversion is, as GTC propagates it: raw value, a thermometer's reading with u, result.
PROPAGATED: dict[str, tuple[float, Callable[[Any, float], Any]]] = {
    "watermark_tension": (
        4_000,
        lambda t, _: shock_kpa(in_proportion(of_digit(4_000, 1), 0.01) / 1_000, t),
    ),
    "oxygen_of_saturation": (
        0.925,
        lambda t, _: (
            0.925 * oxygen_held_mg_l(t, GTC.ureal(995 / 1013.25, 35 / 1013.25 / math.sqrt(3)))
        ),
    ),
    "ezo_oxygen": (
        850,
        lambda t, told: of_digit(8.5, 0.01) * oxygen_held_mg_l(t) / oxygen_held_mg_l(told),
    ),
    "ezo_ph": (
        9_000,
        lambda t, told: 7 + (of_digit(9, 0.001) - 7) * (told + 273.15) / (t + 273.15),
    ),
    "conductivity_25": (
        50_000,
        lambda t, _: (
            of_digit(500, 0.01) / (1 + GTC.ureal(0.0191, 0.0012 / math.sqrt(3)) * (t - 25))
        ),
    ),
    "teros_water_content": (25_000, lambda *_: teros_by_topp(of_digit(2_500, 0.1))),
    "ultrasonic_level": (
        1_500,
        lambda t, _: (
            -of_digit(1.5, 0.001)
            * (331.29 / 344.0)
            * GTC.sqrt(1 + t / 273.15)
            * GTC.ureal(1, 4 / 344 / math.sqrt(3))
            * GTC.ureal(1, 0.007 / math.sqrt(3))
        ),
    ),
    "capacitive_index": (2_000, lambda *_: (2_540 - of_digit(2_000, 1)) / 1_270),
    "current_loop": (12_000, lambda *_: (of_digit(12_000, 1) - 4_000) / 16_000),
    "sixteenths": (318, lambda *_: of_digit(318, 1) / 16),
}


@pytest.mark.parametrize("conversion", PROPAGATED)
def test_uncertainty_of_a_conversion_equals_gtc(conversion: str) -> None:
    raw, formula = PROPAGATED[conversion]
    degrees, u_degrees = 12.0, 0.29
    thermometer = observe(
        "identity",
        [degrees],
        {},
        CalibrationParameters(u_abs=u_degrees),
        observed_property="of none of ours",
    )
    needs = CONVERSIONS[conversion].needs
    inputs = {"temperature": thermometer} if "temperature" in needs else {}
    table = budget(conversion, [raw], inputs, CalibrationParameters())
    judged = formula(GTC.ureal(degrees, u_degrees), degrees)
    assert float(table.value[0]) == pytest.approx(judged.x, rel=1e-9)
    # Air pressure goes in as a part of the value, without the water's vapour: 1.2 % of u (docs/measurement/judges.md).
    tolerance = 0.013 if conversion == "oxygen_of_saturation" else 2e-5
    assert float(table.u[0]) == pytest.approx(judged.u, rel=tolerance)


def names(table: Budget) -> list[str]:
    return [one.name for one in table.contributions]


def test_budget_names_what_a_value_owes_to_whom() -> None:
    inputs = inputs_of("watermark_tension", 1, with_thermometer=True)
    calibration = CalibrationParameters(u_abs=1.5, u_rel=0.06)
    table = budget("watermark_tension", [4_000], inputs, calibration)
    assert names(table) == ["resolution", "circuit", "temperature", "probe", "probe_relative"]
    assert table.share("probe_relative")[0] > table.share("probe")[0] > 0.35
    assert table.share("drift")[0] == 0.0
    assert sum(float(table.share(name)[0]) for name in SHAPES) == pytest.approx(1.0)
    silent = budget("watermark_tension", [4_000], {}, calibration)
    assert "temperature_assumed" in names(silent)
    assert "temperature" not in names(silent)
    assert "formula" in names(budget("watermark_tension", [8_000], inputs, calibration))
    air = budget("oxygen_of_saturation", [0.9], {"temperature": inputs["temperature"]}, calibration)
    assert "pressure" in names(air)


def test_reference_is_what_more_points_do_not_take_away() -> None:
    def parts(points: int) -> dict[str, float]:
        x = np.tile([1.0, 9.0], points)
        fit = fit_line(x, x, np.full(x.size, 0.1), u_common=0.05)
        table = budget("identity", [5.0], {}, fit.parameters, common=fit.common)
        return {one.name: float(one.u[0]) for one in table.contributions}

    few, many = parts(1), parts(100)
    assert few["reference"] == pytest.approx(0.05)
    assert many["reference"] == pytest.approx(0.05)
    assert few["fit"] == pytest.approx(0.1 / math.sqrt(2))
    assert many["fit"] == pytest.approx(0.1 / math.sqrt(200))


def test_factor_of_a_thermometer_is_that_of_a_rectangle_and_of_many_parts_nearly_2() -> None:
    thermometer = budget("sixteenths", [300], {}, CalibrationParameters(u_abs=0.29))
    assert thermometer.factor_95(probe_limits_u=0.29) == pytest.approx(1.65, abs=0.01)
    assert thermometer.factor_95() == pytest.approx(1.96, abs=0.005)


# --- growth since the calibration


def test_uncertainty_grows_with_the_years_since_the_calibration() -> None:
    halves = np.arange(5) * SECONDS_PER_YEAR / 2
    x = np.full(5, 10.0)
    calibration = CalibrationParameters(u_abs=0.3, u_drift_abs=0.4, u_drift_rel=0.03, since_s=NOW_S)
    _, u = calibrate(x, np.zeros(5), as_columns(calibration), NOW_S + halves)
    expected = [math.hypot(0.3, 0.5 * years) for years in (0, 0.5, 1, 1.5, 2)]
    assert u == pytest.approx(expected)
    _, before = calibrate(x, np.zeros(5), as_columns(calibration), NOW_S - halves)
    assert before == pytest.approx(np.full(5, 0.3))


def test_without_growth_times_change_no_bit_and_with_it_they_are_wanted() -> None:
    steady = CalibrationParameters(1.1, -2, 0.01, 0.5, -0.004, 0.3, 0.02)
    arguments = ("identity", [1.0, 10.0, 30.0], {})
    without, with_times = (
        observe(*arguments, steady, observed_property="ph", times_s=times_s)
        for times_s in (None, [NOW_S] * 3)
    )
    assert without.u.tobytes() == with_times.u.tobytes()
    among_others = observe(
        *arguments,
        [steady, DRIFTING, CURVE.parameters],
        observed_property="ph",
        times_s=[NOW_S] * 3,
    )
    assert among_others.u[0].tobytes() == without.u[0].tobytes()
    assert among_others.value[0].tobytes() == without.value[0].tobytes()
    with pytest.raises(ValueError, match="wants the times"):
        observe(*arguments, DRIFTING, observed_property="ph")
    with pytest.raises(ValueError, match="differ in length"):
        observe(*arguments, DRIFTING, observed_property="ph", times_s=[NOW_S])


def test_curved_calibration_equals_monte_carlo() -> None:
    found = CURVE.parameters
    generator = np.random.default_rng(4)
    drawn = generator.multivariate_normal(
        [found.offset, found.slope, found.curve], found.covariance, size=200_000
    )
    x = generator.normal(2.5, 0.05, 200_000)
    values = drawn[:, 0] + drawn[:, 1] * x + drawn[:, 2] * x * x
    value, u = calibrate(np.array([2.5]), np.array([0.05]), as_columns(found))
    assert values.std() == pytest.approx(float(u[0]), rel=0.01)
    assert values.mean() == pytest.approx(float(value[0]), abs=0.001)


@pytest.mark.parametrize(
    "wrong",
    [
        {"u_curve": -1},
        {"u_drift_abs": -1},
        {"curve": math.nan},
        {"u_offset": 1, "u_curve": 1, "cov_offset_curve": 1.1},
        # Each pair may be, all three together may not.
        {"u_offset": 1, "u_slope": 1, "u_curve": 1, "cov": 0.9, "cov_offset_curve": 0.9, "cov_slope_curve": -0.9},
    ],
)  # fmt: skip
def test_impossible_curve_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="A calibration's"):
        CalibrationParameters(**wrong)


# --- probes that nobody has calibrated


@pytest.mark.parametrize("name", sensor_type_ids())
def test_water_content_without_a_calibration_of_its_soil_is_never_as_sure_as_a_data_sheet(
    name: str,
) -> None:
    """Or it is an index, and called one: ± 0.03 of makers was 0.14 for 100 weighed samples (SWCalibrateR)."""
    for quantity in load_sensor_type(name).quantities:
        if quantity.property == "soil_water_content":
            assert quantity.accuracy.absolute >= 0.05
        if quantity.property == "soil_moisture_index":
            assert quantity.unit == "1"
            assert quantity.accuracy.absolute >= 0.05

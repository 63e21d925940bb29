"""Calibrations and uncertainties against independent oracles and against Monte-Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.measurement.calibration import (
    CalibrationParameters,
    as_columns,
    calibrate,
)
from fleet_server.measurement.derived import capacitive_index, dissolved_oxygen
from fleet_server.measurement.fits import capacitive_calibration, fit_line
from fleet_server.measurement.uncertainty import combined_uncertainty

# Oracle vector; own, scipy's curve_fit and GTC's line_fit_wls agree on the results.
X = [0.5, 1, 1.5, 2, 2.5]
Y = [0.031, 0.118, 0.205, 0.301, 0.382]
U = [0.008, 0.008, 0.010, 0.012, 0.012]


def predict(line: CalibrationParameters, x: float, u_x: float) -> tuple[float, float]:
    value, u = calibrate(np.array([x]), np.array([u_x]), as_columns(line))
    return float(value[0]), float(u[0])


def test_fitted_line_equals_the_oracles() -> None:
    line = fit_line(X, Y, U).parameters
    assert line.offset == pytest.approx(-0.05809677, abs=5e-9)
    assert line.u_offset == pytest.approx(0.00903775, abs=5e-9)
    assert line.slope == pytest.approx(0.17685484, abs=5e-9)
    assert line.u_slope == pytest.approx(0.00630730, abs=5e-9)
    assert line.cov == pytest.approx(-5.0278657e-5, rel=5e-8)


def test_prediction_equals_the_oracles() -> None:
    value, u = predict(fit_line(X, Y, U).parameters, 1.8, 0.01)
    assert value == pytest.approx(0.2602419, abs=5e-8)
    assert u == pytest.approx(0.00571832, abs=5e-9)


def test_dropping_the_covariance_is_wrong_by_a_factor() -> None:
    line = fit_line(X, Y, U).parameters
    without = CalibrationParameters(line.slope, line.offset, line.u_slope, line.u_offset)
    _, u = predict(line, 1.8, 0.01)
    _, u_without = predict(without, 1.8, 0.01)
    assert u_without == pytest.approx(0.01462, abs=5e-6)
    assert u_without / u > 2.5


def test_fit_survives_an_axis_far_from_zero() -> None:
    far = fit_line([1e6 + x for x in X], Y, U).parameters
    near = fit_line(X, Y, U).parameters
    assert far.slope == pytest.approx(near.slope, rel=1e-8)
    assert predict(far, 1e6 + 1.8, 0.01)[1] == pytest.approx(0.00571832, rel=1e-3)


@pytest.mark.parametrize(
    ("x", "y", "u"),
    [
        ([1], [1], [1]),
        ([1, 1], [1, 2], [1, 1]),
        ([1, 2], [1, 2], [1, 0]),
        ([1, 2], [1], [1, 1]),
        ([1, math.nan], [1, 2], [1, 1]),
    ],
)
def test_points_that_make_no_line_are_refused(
    x: list[float], y: list[float], u: list[float]
) -> None:
    with pytest.raises(ValueError, match="A line needs"):
        fit_line(x, y, u)


def test_uncertainty_of_a_calibrated_value_equals_monte_carlo() -> None:
    line = CalibrationParameters(
        slope=1.07, offset=-2.0, u_slope=0.02, u_offset=0.6, cov=-0.7 * 0.02 * 0.6, u_abs=0.3, u_rel=0.01
    )  # fmt: skip
    x, u_x = 35.0, 0.4
    value, u = predict(line, x, u_x)
    generator = np.random.default_rng(11)
    n = 400_000
    covariance = [[line.u_offset**2, line.cov], [line.cov, line.u_slope**2]]
    offset, slope = generator.multivariate_normal([line.offset, line.slope], covariance, size=n).T
    drawn = offset + slope * generator.normal(x, u_x, n)
    drawn += generator.normal(0, line.u_abs, n) + generator.normal(0, line.u_rel * value, n)
    assert drawn.std() == pytest.approx(u, rel=0.01)
    inside = np.abs(drawn - value) <= 2 * u
    assert 0.935 < inside.mean() < 0.965


@given(st.floats(-1e3, 1e3), st.floats(0.1, 10), st.floats(0, 1), st.floats(0, 5), st.floats(-1, 1))
def test_uncertainty_is_never_negative_and_never_below_the_probes_own(
    x: float, slope: float, u_slope: float, u_offset: float, correlation: float
) -> None:
    line = CalibrationParameters(
        slope=slope, u_slope=u_slope, u_offset=u_offset, cov=correlation * u_slope * u_offset, u_abs=0.2
    )  # fmt: skip
    assert predict(line, x, 0.0)[1] >= 0.2


def test_factory_calibration_leaves_the_value_alone() -> None:
    value, u = predict(CalibrationParameters(u_abs=1.5, u_rel=0.07), 40.0, 0.0)
    assert value == 40.0
    assert u == pytest.approx(math.hypot(1.5, 2.8))


@pytest.mark.parametrize(
    "wrong", [{"u_slope": -1}, {"slope": math.nan}, {"cov": 1.0}, {"k": 0}, {"offset": math.inf}]
)
def test_impossible_calibration_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="A calibration's"):
        CalibrationParameters(**wrong)


def test_combined_uncertainty_equals_the_worked_example() -> None:
    # By hand, with GTC, with metrolopy and by 1e6 Monte-Carlo draws: 0.137587 (0.13766).
    values = {
        "saturation_pct": 85.0,
        "temperature_c": 20.0,
        "salinity": 0.3,
        "pressure_hpa": 0.99 * 1013.25,
    }
    uncertainties = {
        "saturation_pct": 1.5,
        "temperature_c": 0.15,
        "salinity": 0.05,
        "pressure_hpa": 0.002 * 1013.25,
    }

    def oxygen(**inputs: float) -> float:
        return float(dissolved_oxygen(**inputs))

    assert oxygen(**values) == pytest.approx(7.63598, abs=5e-6)
    assert combined_uncertainty(oxygen, values, uncertainties) == pytest.approx(0.137587, abs=5e-7)
    parts = {
        name: combined_uncertainty(oxygen, values, {name: u}) for name, u in uncertainties.items()
    }
    assert parts == pytest.approx(
        {"saturation_pct": 0.1348, "temperature_c": 0.0228, "salinity": 0.0023, "pressure_hpa": 0.0158},
        abs=1e-4,
    )  # fmt: skip


def test_combined_uncertainty_works_at_the_edge_of_a_range() -> None:
    def oxygen(**inputs: float) -> float:
        return float(dissolved_oxygen(**inputs))

    at_zero = {"saturation_pct": 100.0, "temperature_c": 0.0}
    assert combined_uncertainty(oxygen, at_zero, {"temperature_c": 0.1}) == pytest.approx(
        0.041, abs=0.002
    )
    assert math.isnan(
        combined_uncertainty(oxygen, {**at_zero, "temperature_c": -5.0}, {"temperature_c": 0.1})
    )


# --- two points of a capacitive probe


def index_of(line: CalibrationParameters, voltage_mv: float) -> tuple[float, float]:
    return predict(line, float(capacitive_index(voltage_mv)), 0.0)


def test_capacitive_probe_reads_0_in_its_own_air_and_1_in_its_own_water() -> None:
    line = capacitive_calibration(2_640, 1_390, u_mv=5, u_index=0.02)
    for voltage_mv, index in ((2_640, 0.0), (1_390, 1.0), (2_015, 0.5), (1_702.5, 0.75)):
        value, _ = index_of(line, voltage_mv)
        assert value == pytest.approx(index, abs=1e-12)
        assert value == pytest.approx(float(capacitive_index(voltage_mv, 2_640, 1_390)), abs=1e-12)


def test_index_between_the_two_points_is_surer_than_at_them_and_beyond_less_sure() -> None:
    line = capacitive_calibration(2_640, 1_390, u_mv=5, u_index=0.0)
    at_ends, between, beyond = (index_of(line, mv)[1] for mv in (1_390, 2_015, 1_000))
    assert at_ends == pytest.approx(5 / 1_250, rel=1e-6)
    assert between == pytest.approx(5 / 1_250 / math.sqrt(2), rel=1e-6)
    assert beyond > at_ends


@pytest.mark.parametrize(
    ("air_mv", "water_mv"), [(1_390, 2_640), (2_640, 2_600), (5_000, 1_390), (math.nan, 1_390)]
)
def test_points_that_no_capacitive_probe_has_are_refused(air_mv: float, water_mv: float) -> None:
    with pytest.raises(ValueError, match="A capacitive probe does not give"):
        capacitive_calibration(air_mv, water_mv, u_mv=5, u_index=0.02)

"""Fits of calibrations: independent judges, worked examples, what is refused, and whether U holds what it promises."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path

import GTC
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from odrpack import odr_fit
from scipy import stats
from scipy.optimize import curve_fit

from fleet_server.measurement.calibration import CalibrationParameters, as_columns, calibrate
from fleet_server.measurement.derived import ph
from fleet_server.measurement.distributions import (
    chi_squared_tail,
    coverage_factor,
    one_term_p_value,
    student_within,
    t95,
)
from fleet_server.measurement.fits import (
    FAULTS,
    FIT_LIMITS,
    MODELS,
    Fit,
    FitFault,
    fit_electrode,
    fit_line,
    fit_of,
    fit_offset,
    fit_quadratic,
    two_point,
)
from fleet_server.measurement.quality import GROSS_RANGES

# Oracle vector; own, scipy's curve_fit and GTC's line_fit_wls agree on the results.
X = [0.5, 1, 1.5, 2, 2.5]
Y = [0.031, 0.118, 0.205, 0.301, 0.382]
U = [0.008, 0.008, 0.010, 0.012, 0.012]

_SERIES = Path(
    os.environ.get(
        "STADTSENSOR_SERIES", Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
    )
)
_GRAVIMETRIC = _SERIES / "swcalibrater_sensor_vs_gravimetric.csv"


def predict(found: CalibrationParameters, x: float, u_x: float = 0.0) -> tuple[float, float]:
    value, u = calibrate(np.array([x]), np.array([u_x]), as_columns(found))
    return float(value[0]), float(u[0])


# --- the judges


def test_chi_squared_and_scatter_of_the_oracle_vector() -> None:
    fit = fit_line(X, Y, U)
    assert fit.chi_squared == pytest.approx(0.2942, abs=5e-5)
    assert (fit.degrees_of_freedom, fit.birge_ratio, fit.parameters.k) == (3, 1.0, 2.0)
    assert fit.p_value == pytest.approx(stats.chi2.sf(fit.chi_squared, 3), rel=1e-12)
    assert fit.leverages.sum() == pytest.approx(2.0)
    assert not fit.faults


@pytest.mark.parametrize("u_common", [0.0, 0.005])
def test_fit_and_prediction_equal_gtc_with_a_standard_that_all_points_share(
    u_common: float,
) -> None:
    common = GTC.ureal(0.0, u_common)
    fitted = GTC.type_b.line_fit_wls(
        X, [GTC.ureal(y, u) + common for y, u in zip(Y, U, strict=True)], U
    )
    a, b = fitted.a_b
    predicted = a + b * GTC.ureal(1.8, 0.01)

    found = fit_line(X, Y, U, u_common=u_common).parameters

    assert [found.offset, found.slope, found.u_offset, found.u_slope, found.cov] == pytest.approx(
        [a.x, b.x, a.u, b.u, GTC.get_covariance(a, b)], rel=1e-9
    )
    assert predict(found, 1.8, 0.01) == pytest.approx((predicted.x, predicted.u), rel=1e-9)


def test_common_part_of_the_standard_has_its_worked_values_and_is_named_apart() -> None:
    fit = fit_line(X, Y, U, u_common=0.005)
    assert fit.parameters.u_offset == pytest.approx(0.01032864, abs=5e-9)
    assert fit.parameters.u_slope == pytest.approx(0.00630730, abs=5e-9)
    assert predict(fit.parameters, 1.8, 0.01)[1] == pytest.approx(0.00759600, abs=5e-9)
    assert fit.common == pytest.approx((0.005, 0.0, 0.0), abs=1e-15)


def test_fit_equals_metrolopy_where_dilutions_share_their_stock() -> None:
    metrolopy = pytest.importorskip("metrolopy")
    stock = metrolopy.gummy(1.0, 0.01)
    y = [metrolopy.gummy(value, u) * stock for value, u in zip(Y, U, strict=True)]
    weights = [1 / u**2 for u in U]
    mean = sum(w * x for w, x in zip(weights, X, strict=True)) / sum(weights)
    spread = sum(w * (x - mean) ** 2 for w, x in zip(weights, X, strict=True))
    b = sum(w * (x - mean) * one for w, x, one in zip(weights, X, y, strict=True)) / spread
    a = sum(w * one for w, one in zip(weights, y, strict=True)) / sum(weights) - b * mean
    predicted = a + b * metrolopy.gummy(1.8, 0.01)

    found = fit_line(X, Y, U, u_common=0.01 * np.array(Y)).parameters

    assert [found.u_offset, found.u_slope] == pytest.approx([a.u, b.u], rel=1e-9)
    assert predict(found, 1.8, 0.01) == pytest.approx((predicted.x, predicted.u), rel=1e-9)


def test_points_unsure_in_both_directions_equal_the_nearest_line() -> None:
    fit = fit_line(X, Y, U, u_x=0.01)
    found = fit.parameters
    assert found.offset == pytest.approx(-0.05810321, abs=5e-9)
    assert found.slope == pytest.approx(0.17686337, abs=5e-9)
    nearest = odr_fit(
        lambda x, b: b[0] + b[1] * x,
        np.array(X),
        np.array(Y),
        np.array([0.0, 0.2]),
        weight_x=np.full(5, 1 / 0.01**2),
        weight_y=1 / np.square(U),
        sstol=1e-15,
        partol=1e-15,
    )
    assert [found.offset, found.slope] == pytest.approx(nearest.beta, rel=1e-6)
    assert found.covariance[:2, :2] == pytest.approx(nearest.cov_beta, rel=1e-5)
    # GTC's total least squares keeps a second-order term of the covariances that we leave out, 1.4e-4 here.
    a, b = GTC.type_a.line_fit_wtls(X, Y, [0.01] * 5, U).a_b
    assert [found.u_offset, found.u_slope, found.cov] == pytest.approx(
        [a.u, b.u, GTC.get_covariance(a, b)], rel=2e-4
    )


def test_curve_through_points_unsure_in_both_directions_is_the_nearest() -> None:
    u_x = np.array([0.5, 0.5, 1.0, 3.0, 6.0])
    u = np.array([0.3, 0.5, 2.0, 8.0, 16.0])
    nearest = odr_fit(
        lambda x, b: b[0] + b[1] * x + b[2] * x * x,
        CURVED_X,
        CURVED_Y,
        np.array([0.0, 1.0, 1e-4]),
        weight_x=1 / u_x**2,
        weight_y=1 / u**2,
        jac_beta=lambda x, _: np.array([np.ones_like(x), x, x * x]),
        jac_x=lambda x, b: b[1] + 2 * b[2] * x,
        sstol=1e-15,
        partol=1e-15,
    )
    found = fit_quadratic(CURVED_X, CURVED_Y, u, u_x=u_x).parameters
    assert [found.offset, found.slope, found.curve] == pytest.approx(nearest.beta, rel=1e-5)
    assert found.covariance == pytest.approx(nearest.cov_beta, rel=5e-4)


CURVED_X = np.array([0.02, 19.93, 98.05, 372.0, 702.0])
CURVED_Y = np.array([0.0, 20.0, 100.0, 400.0, 800.0])
CURVED_U = np.hypot(0.3, 0.02 * CURVED_Y) / 10


def test_curve_and_its_covariances_equal_scipys() -> None:
    fit = fit_quadratic(CURVED_X, CURVED_Y, CURVED_U)
    coefficients, covariance = curve_fit(
        lambda x, a, b, c: a + b * x + c * x * x,
        CURVED_X,
        CURVED_Y,
        p0=(0, 1, 0),
        sigma=CURVED_U,
        absolute_sigma=True,
        xtol=1e-15,
        ftol=1e-15,
    )
    found = fit.parameters
    assert [found.offset, found.slope, found.curve] == pytest.approx(coefficients, rel=1e-5)
    scaled = covariance * fit.birge_ratio**2
    assert found.covariance == pytest.approx(scaled, rel=1e-5)


def test_scatter_beyond_the_stated_uncertainties_widens_them_and_says_so() -> None:
    rough = [y + (-1) ** n * 0.03 for n, y in enumerate(Y)]
    fit, as_told = fit_line(X, rough, U), fit_line(X, Y, U)
    ratio = math.sqrt(fit.chi_squared / 3)
    assert fit.p_value < 0.05
    assert fit.birge_ratio == pytest.approx(ratio)
    assert fit.parameters.u_slope == pytest.approx(ratio * as_told.parameters.u_slope)
    assert fit.parameters.k == pytest.approx(stats.t.ppf(0.975, 3))
    # Whatever made the points scatter may be the probe's own, and meets the next reading, too.
    assert fit.parameters.u_abs == pytest.approx(
        math.sqrt((ratio**2 - 1) / np.mean(1 / np.square(U)))
    )


def test_scatter_does_not_widen_what_the_standard_itself_leaves_open() -> None:
    rough = [y + (-1) ** n * 0.03 for n, y in enumerate(Y)]
    without, shared = fit_line(X, rough, U), fit_line(X, rough, U, u_common=0.005)
    assert shared.parameters.u_offset**2 - without.parameters.u_offset**2 == pytest.approx(0.005**2)


@pytest.mark.parametrize("model", MODELS)
def test_points_of_unknown_uncertainty_equal_ordinary_least_squares(model: str) -> None:
    generator = np.random.default_rng(8)
    x = np.linspace(1, 9, 9)
    y = 0.3 + x + (0.1 * x * x if model == "quadratic" else 0) + generator.normal(0, 0.05, 9)
    fit = MODELS[model](x, y, None)
    degree = {"offset": 0, "linear": 1, "quadratic": 2}[model]
    if model == "offset":
        y = y - x
    design = np.vander(x, degree + 1, increasing=True)
    coefficients, squares, *_ = np.linalg.lstsq(design, y)
    covariance = np.linalg.inv(design.T @ design) * squares[0] / (9 - degree - 1)
    found = fit.parameters
    assert found.offset == pytest.approx(coefficients[0])
    assert found.covariance[: degree + 1, : degree + 1] == pytest.approx(covariance)
    assert found.k == pytest.approx(stats.t.ppf(0.975, 9 - degree - 1))
    assert found.u_abs == pytest.approx(math.sqrt(squares[0] / (9 - degree - 1)))


def test_curve_is_believed_only_when_the_f_test_says_so() -> None:
    straight = fit_quadratic([0, 1, 2, 3, 4], [0.02, 0.98, 2.01, 3.01, 3.97], [0.02] * 5)
    bent = fit_quadratic([0, 1, 2, 3, 4], [0.0, 1.1, 2.4, 3.9, 5.6], [0.02] * 5)
    assert (straight.parameters.curve, straight.parameters.u_curve) == (0.0, 0.0)
    assert bent.parameters.curve == pytest.approx(0.1)
    assert bent.degrees_of_freedom == 2
    assert fit_quadratic([0, 1, 2], [0, 1, 4], [1, 1, 1]).parameters.curve == 0.0


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 10, 29, 60])
def test_distributions_equal_scipys(number: int) -> None:
    for at in (0.1, 1.0, 3.0, 8.0, 40.0, 900.0):
        assert chi_squared_tail(at, number) == pytest.approx(
            stats.chi2.sf(at, number), rel=1e-9, abs=1e-300
        )
        assert student_within(at, number) == pytest.approx(
            1 - 2 * stats.t.sf(at, number), rel=1e-12
        )
        assert one_term_p_value(at, number) == pytest.approx(
            stats.f.sf(at, 1, number), rel=1e-9, abs=1e-14
        )
    assert t95(number) == pytest.approx(stats.t.ppf(0.975, number), rel=1e-12)


def test_coverage_factor_of_a_rectangle_among_others_covers_95_per_cent() -> None:
    generator = np.random.default_rng(2)
    for u_rectangular, u_normal in ((1.0, 0.0), (1.0, 0.3), (1.0, 1.0), (0.2, 1.0)):
        drawn = u_rectangular * math.sqrt(3) * generator.uniform(-1, 1, 200_000)
        drawn += generator.normal(0, 1, 200_000) * u_normal
        k = coverage_factor(u_rectangular, u_normal)
        inside = np.abs(drawn) <= k * math.hypot(u_rectangular, u_normal)
        assert inside.mean() == pytest.approx(0.95, abs=0.002)
    with pytest.raises(ValueError, match="nothing to cover"):
        coverage_factor(0.0, 0.0)


# --- worked examples


def test_oxygen_between_zero_and_air_saturated_water() -> None:
    line = two_point((0.0, 0.8), (100.0, 97.6), u_low=0.1, u_high=0.5).parameters
    assert predict(line, 50.0)[0] == pytest.approx(50.82645, abs=5e-6)
    assert predict(line, 105.0)[0] == pytest.approx(107.64462, abs=1e-5)


def test_electrode_between_two_buffers_has_its_worked_slope_and_zero() -> None:
    found = fit_electrode([6.888, 4.000], [6.1, 168.9], 18.0, [0.01, 0.01])
    assert found.slope_mv == pytest.approx(56.37119, abs=5e-6)
    assert found.slope_pct == pytest.approx(97.578, abs=5e-4)
    assert found.zero_mv == pytest.approx(-0.21357, abs=5e-6)
    for potential_mv, water_c, expected in (
        (-20, 18, 7.35100),
        (-20, 5, 7.36741),
        (50, 25, 6.13015),
    ):
        value = ph(potential_mv, water_c, found.slope_mv, found.zero_mv, 18.0)
        assert float(value) == pytest.approx(expected, abs=5e-6)
    assert not found.faults


def test_electrode_in_buffers_of_different_temperature_is_the_one_that_made_the_potentials() -> (
    None
):
    buffers, temperatures = np.array([4.0, 6.9, 9.2]), np.array([16.0, 18.0, 23.0])
    mean_k = temperatures.mean() + 273.15
    potentials = 5.0 - 57.0 * (temperatures + 273.15) / mean_k * (buffers - 7)
    found = fit_electrode(buffers, potentials, temperatures, [0.01] * 3, u_mv=0.2, u_common_ph=0.01)
    assert [found.slope_mv, found.zero_mv] == pytest.approx([57.0, 5.0])
    assert found.fit.chi_squared == pytest.approx(0.0, abs=1e-18)
    assert found.fit.common[0] == pytest.approx(0.57, rel=0.05)


@pytest.mark.parametrize(
    ("buffers", "potentials", "codes"),
    [
        ([4.0, 7.0], [140.0, 0.0], ["efficiency"]),
        ([4.0, 7.0], [210.0, 35.0], ["zero"]),
        ([4.0, 6.9, 9.2], [172.0, 12.0, -128.0], ["residual"]),
        ([6.5, 7.0], [29.0, 0.0], ["span"]),
    ],
)
def test_electrode_that_is_worn_out_or_was_put_into_the_wrong_buffer_is_not_trusted(
    buffers: list[float], potentials: list[float], codes: list[str]
) -> None:
    found = fit_electrode(buffers, potentials, 20.0, [0.01] * len(buffers))
    assert [fault.code for fault in found.faults] == codes


# --- why not to trust a fit

GOOD_PH = ([4.02, 6.95, 9.15], [4.00, 6.90, 9.10], [0.02, 0.02, 0.02])


@pytest.mark.parametrize(
    ("x", "y", "u", "observed_property", "codes"),
    [
        (*GOOD_PH, "ph", []),
        ([4.0, 7.0], [4.0, 6.0], [0.02] * 2, "ph", ["slope", "offset"]),
        ([6.0, 7.0], [6.0, 7.0], [0.02] * 2, "ph", ["span"]),
        ([4.0, 7.0, 10.0], [4.0, 7.2, 10.0], [0.1] * 3, "ph", ["residual"]),
        ([10, 100], [10, 100], [1, 2], "turbidity", ["points"]),
        ([0, 20, 100, 400], [0, 21, 60, 400], [1, 1, 2, 8], "turbidity", ["residual", "scatter"]),
        ([0, 1, 100], [0, 1, 100], [0.1, 0.1, 0.1], "turbidity", ["leverage"]),
        ([20.0], [24.0], [0.1], "soil_temperature", ["offset"]),
        (*GOOD_PH, "of none of ours", []),
        ([6.0, 6.5, 7.0], [6.0, 6.5, 7.0], None, "ph", ["span"]),
    ],
)
def test_what_speaks_against_a_fit_is_named_with_its_numbers(
    x: list[float], y: list[float], u: list[float] | None, observed_property: str, codes: list[str]
) -> None:
    model = "linear" if len(x) > 1 else "offset"
    fit = fit_of(model, x, y, u, observed_property=observed_property)
    assert [fault.code for fault in fit.faults] == codes
    for fault in fit.faults:
        assert "%" not in str(fault)
        assert all(math.isfinite(number) for number in fault.numbers.values())


def test_one_point_that_lies_off_is_the_one_that_is_named() -> None:
    x = np.arange(12.0)
    y = x.copy()
    y[7] += 0.5
    fit = fit_of("linear", x, y, [0.1] * 12, observed_property="soil_conductivity")
    fault = next(fault for fault in fit.faults if fault.code == "residual")
    assert fault.numbers["number"] == 8


def test_slope_is_judged_by_the_makers_and_an_offset_keeps_it() -> None:
    share, levels = [0.1, 0.5, 0.9], [51.5, 52.3, 53.1]
    arguments = {"observed_property": "water_level", "u_x": 1e-4}
    line = fit_of("linear", share, levels, [0.005] * 3, factory_slope=2.0, **arguments)
    assert not line.faults
    assert [
        one.code for one in fit_of("linear", share, levels, [0.005] * 3, **arguments).faults
    ] == ["slope"]
    offset = fit_of("offset", share, levels, [0.005] * 3, factory_slope=2.0, **arguments)
    assert offset.parameters.slope == 2.0
    assert offset.parameters.offset == pytest.approx(51.3)
    assert offset.parameters.u_offset == pytest.approx(math.hypot(0.005, 2e-4) / math.sqrt(3))


def test_what_is_kept_of_a_fit_is_json_and_says_what_it_does_not_know() -> None:
    known = json.loads(json.dumps(fit_line(X, Y, U, u_common=0.005).as_json(), allow_nan=False))
    assert known["chi_squared"] == pytest.approx(0.2942, abs=5e-5)
    assert known["common"] == pytest.approx([0.005, 0, 0], abs=1e-15)
    unknown = fit_of("linear", [0, 1, 2], [0, 3, 6], None, observed_property="ph").as_json()
    kept = json.loads(json.dumps(unknown, allow_nan=False))
    assert kept["p_value"] is None
    assert [fault["code"] for fault in kept["faults"]] == ["slope"]


def test_standards_have_to_cover_the_use() -> None:
    fit = fit_of("linear", *GOOD_PH, observed_property="ph", use=(3.0, 9.5))
    assert [fault.code for fault in fit.faults] == ["range"]
    assert "from 4 to 9.1, the use from 3 to 9.5" in str(fit.faults[0])
    assert not fit_of("linear", *GOOD_PH, observed_property="ph", use=(4.0, 9.5)).faults


def test_curve_that_turns_back_among_its_points_is_not_trusted() -> None:
    x = np.arange(6.0)
    fit = fit_of("quadratic", x, x * (5 - x), [0.1] * 6, observed_property="none of ours")
    assert [fault.code for fault in fit.faults] == ["turns"]
    assert fit.faults[0].numbers["at"] == pytest.approx(6.25)


@pytest.mark.parametrize(("days", "codes"), [(30, ["drift"]), (7, ["drift"]), (90, [])])
def test_electrode_that_has_wandered_since_the_calibration_before_is_not_trusted(
    days: float, codes: list[str]
) -> None:
    before = CalibrationParameters(offset=0.15)
    fit = fit_of("linear", *GOOD_PH, observed_property="ph", before=(before, days))
    assert [fault.code for fault in fit.faults] == codes


def test_every_fault_has_a_sentence_and_every_property_with_limits_is_one_of_ours() -> None:
    assert str(FitFault("points", {"points": 2, "least": 3})) == (
        "There are 2 points; at least 3 are needed."
    )
    assert set(FIT_LIMITS) <= set(GROSS_RANGES)
    assert all(text.endswith(".") for text in FAULTS.values())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("x", "y", "u", "u_x", "u_common"),
    [
        ([], [], [], 0, 0),
        ([1, math.nan, 3], [1, 2, 3], [1, 1, 1], 0, 0),
        ([1, 2, 3], [1, math.inf, 3], [1, 1, 1], 0, 0),
        ([1, 2, 3], [1, 2], [1, 1], 0, 0),
        ([1, 2, 3], [1, 2, 3], [1, 1], 0, 0),
        ([1, 2, 3], [1, 2, 3], [1, 0, 1], 0, 0),
        ([1, 2, 3], [1, 2, 3], [1, 1, 1], -1, 0),
        ([1, 2, 3], [1, 2, 3], [1, 1, 1], [1, 1], 0),
        ([1, 2, 3], [1, 2, 3], [1, 1, 1], 0, math.nan),
        ([1, 2, 3], [1, 2, 3], None, 0.1, 0),
        ([1], [1], None, 0, 0),
        ([1, 2, 3], [1, 2, 1e13], [1, 1, 1], 0, 0),
        ([1, 2, 3], [1, 2, 3], [1, 1, 1e-300], 0, 0),
        ([[1, 2]], [[1, 2]], [[1, 1]], 0, 0),
    ],
)
def test_numbers_that_make_no_fit_are_refused_in_a_sentence(model, x, y, u, u_x, u_common) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="A line needs"):
        MODELS[model](x, y, u, u_x=u_x, u_common=u_common)


def test_model_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no model 'cubic'; there are offset, linear, quadratic"):
        fit_of("cubic", X, Y, U, observed_property="ph")


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=12),
    st.floats(0.01, 10),
    st.floats(0, 5),
)
def test_any_finite_points_give_a_fit_or_a_sentence(
    points: list[tuple[float, float]], u: float, u_common: float
) -> None:
    x, y = (np.array(column) for column in zip(*points, strict=True))
    for model in MODELS:
        try:
            fit = fit_of(
                model, x, y, [u] * x.size, u_common=u_common, observed_property="ph", use=(6, 9)
            )
        except ValueError as error:
            sentence = str(error)
        else:
            sentence = ""
        if sentence:
            assert sentence.startswith("A line needs")
            continue
        assert (fit.leverages >= 0).all()
        assert fit.leverages.sum() <= 3 + 1e-6
        assert all(str(fault) for fault in fit.faults)


# --- does U hold what it promises?


def drawn_fits(
    generator: np.random.Generator, count: int, x: NDArray[np.float64], u: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[Fit]]:
    """Fits through points around the truth y = x, and a truth to predict for each."""
    y = x + generator.normal(0, u, (count, x.size))
    return y, [fit_line(x, row, u) for row in y]


def test_known_uncertainties_of_few_points_are_covered_by_2_and_not_by_student() -> None:
    generator = np.random.default_rng(14)
    x, u = np.array([4.0, 7.0, 9.0]), np.full(3, 0.02)
    _, fits = drawn_fits(generator, 300, x, u)
    predicted = np.array([predict(fit.parameters, 6.0) for fit in fits])
    k = np.array([fit.parameters.k for fit in fits])
    inside = np.abs(predicted[:, 0] - 6.0) <= k * predicted[:, 1]
    assert 0.93 <= inside.mean() <= 0.985  # one fit in twenty is widened without need
    assert (np.abs(predicted[:, 0] - 6.0) <= t95(1) * predicted[:, 1]).mean() > 0.995


@pytest.mark.parametrize("points", [4, 5, 7])
def test_unknown_uncertainties_of_few_points_are_covered_by_student_and_not_by_2(
    points: int,
) -> None:
    generator = np.random.default_rng(points)
    x = np.linspace(0.1, 0.4, points)
    inside, inside_2 = [], []
    for _ in range(300):
        y = 0.05 + 0.8 * x + generator.normal(0, 0.03, points)
        found = fit_line(x, y, None).parameters
        truth = (
            0.05 + 0.8 * 0.3 + generator.normal(0, 0.03)
        )  # the next sample scatters as the others
        value, u = predict(found, 0.3)
        inside.append(abs(value - truth) <= found.k * u)
        inside_2.append(abs(value - truth) <= 2 * u)
    assert 0.925 <= np.mean(inside) <= 0.975
    assert np.mean(inside_2) < np.mean(inside) - 0.02


# --- the real world


NEEDS_SERIES = [
    pytest.mark.needs_series,
    pytest.mark.skipif(
        not _GRAVIMETRIC.is_file(),
        reason="the measured series (STADTSENSOR_SERIES, or shared/data beside the checkout) are not here",
    ),
]


@pytest.fixture
def gravimetric() -> list[dict[str, str]]:
    with _GRAVIMETRIC.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def pairs(rows: list[dict[str, str]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (np.array([float(row[name]) for row in rows]) for name in ("Sensor VWC", "Sample VWC"))
    return x, y


class TestWeighedSoil:
    """100 pairs of probe and sample, SWCalibrateR."""

    pytestmark = NEEDS_SERIES

    def test_samples_give_the_lines_that_were_found_for_them(self, gravimetric) -> None:  # type: ignore[no-untyped-def]
        x, y = pairs(gravimetric)
        assert x.size == 100
        assert (x - y).mean() == pytest.approx(-0.085, abs=5e-4)
        assert math.sqrt(((x - y) ** 2).mean()) == pytest.approx(0.144, abs=5e-4)
        pooled = fit_line(x, y, None).parameters
        assert [pooled.offset, pooled.slope] == pytest.approx([0.2363, 0.3959], abs=5e-5)
        assert pooled.u_abs == pytest.approx(0.105, abs=5e-4)
        of_clay_loam = [row for row in gravimetric if row["Soil type"] == "clay loam"]
        clay_loam = fit_line(*pairs(of_clay_loam), None).parameters
        assert [clay_loam.offset, clay_loam.slope] == pytest.approx([0.1104, 0.7164], abs=5e-5)
        assert clay_loam.u_abs == pytest.approx(0.054, abs=5e-4)
        # What such a line says of the next soil: never the data sheet's 0.03.
        assert predict(pooled, 0.25)[1] > 0.1
        assert predict(clay_loam, 0.25)[1] > 0.05

    def test_line_covers_a_station_that_it_has_not_seen(self, gravimetric) -> None:  # type: ignore[no-untyped-def]
        stations = {row["Station ID"] for row in gravimetric}
        off, inside = [], []
        for station in stations:
            found = fit_line(
                *pairs([row for row in gravimetric if row["Station ID"] != station]), None
            ).parameters
            for x, y in zip(
                *pairs([row for row in gravimetric if row["Station ID"] == station]), strict=True
            ):
                value, u = predict(found, x)
                off.append(value - y)
                inside.append(abs(value - y) <= found.k * u)
        assert len(stations) == 40
        assert math.sqrt(np.mean(np.square(off))) == pytest.approx(0.111, abs=5e-4)
        assert 0.92 <= np.mean(inside) <= 0.98


def test_thermometer_in_ice_water_is_shifted_and_nothing_else() -> None:
    found = fit_offset([0.31, 0.25, 0.31], [0.0] * 3, [0.05] * 3, u_common=0.02, u_probe=0.1)
    assert found.parameters.slope == 1.0
    assert found.parameters.offset == pytest.approx(-0.29)
    assert found.parameters.u_offset == pytest.approx(math.hypot(0.05 / math.sqrt(3), 0.02))
    assert found.parameters.u_abs == 0.1


def test_points_of_two_bottles_equal_generalised_least_squares_by_gtc() -> None:
    """Three points of one lot and two of another: estimated by the textbook's matrices, propagated by GTC."""
    shared = np.array([[0.01, 0.01, 0.01, 0.0, 0.0], [0.0, 0.0, 0.0, 0.02, 0.02]])
    design = np.stack([np.ones(5), np.array(X)], axis=1)
    inverse = np.linalg.inv(np.diag(np.square(U)) + shared.T @ shared)
    gain = np.linalg.inv(design.T @ inverse @ design) @ design.T @ inverse
    lots = [GTC.ureal(0.0, 0.01), GTC.ureal(0.0, 0.02)]
    y = [
        GTC.ureal(value, u) + lots[0 if place < 3 else 1]
        for place, (value, u) in enumerate(zip(Y, U, strict=True))
    ]
    a, b = (sum(float(g) * one for g, one in zip(row, y, strict=True)) for row in gain)
    predicted = a + b * GTC.ureal(1.8, 0.01)

    fit = fit_line(X, Y, U, u_common=shared)

    found = fit.parameters
    assert [found.offset, found.slope, found.u_offset, found.u_slope, found.cov] == pytest.approx(
        [a.x, b.x, a.u, b.u, GTC.get_covariance(a, b)], rel=1e-9
    )
    assert predict(found, 1.8, 0.01) == pytest.approx((predicted.x, predicted.u), rel=1e-9)
    residuals = np.array(Y) - design @ [found.offset, found.slope]
    assert fit.chi_squared == pytest.approx(float(residuals @ inverse @ residuals), rel=1e-9)


def test_three_points_of_one_bottle_do_not_count_for_three_bottles() -> None:
    """An offset of four points: one lot thrice, another once, all certificates equally good."""
    shared = [[0.02, 0.02, 0.02, 0.0], [0.0, 0.0, 0.0, 0.02]]
    fit = fit_offset([0.0] * 4, [0.02, 0.02, 0.02, -0.02], [0.002] * 4, u_common=shared)
    assert fit.parameters.offset == pytest.approx(0.0, abs=1e-4)
    assert fit.parameters.u_offset == pytest.approx(0.02 / 2**0.5, rel=0.01)
    apart = fit_offset([0.0] * 4, [0.02, 0.02, 0.02, -0.02], [0.02] * 4)
    assert apart.parameters.offset == pytest.approx(0.01)

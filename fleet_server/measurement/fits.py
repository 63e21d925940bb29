"""From points against a standard to the coefficients of a calibration, and whether they can be trusted.

Worked out once, when a person fits; the result is stored and `calibration.calibrate` applies it. A fit is always made when the
points allow it at all; what speaks against trusting it stands in `Fit.faults`, and who approves refuses one that has any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet_server.measurement.calibration import COVERAGE_FACTOR, CalibrationParameters
from fleet_server.measurement.derived import capacitive_index, nernst_slope
from fleet_server.measurement.distributions import chi_squared_tail, one_term_p_value, t95
from fleet_server.measurement.units import ZERO_CELSIUS_K

FloatArray = NDArray[np.float64]

CONSISTENT_P: Final = 0.05
"""Below this probability the points scatter more than their uncertainties allow, and what they scatter counts (Birge)."""

CURVE_P: Final = 0.01
"""Below this probability a curve is believed."""

MANY_DEGREES_OF_FREEDOM: Final = 30
"""From here on a spread is known well enough for k = 2."""

_LEVERAGE_MAX: Final = 0.98
_STANDARDIZED_MAX: Final = 3.5  # one of five points of a good fit passes it once in 400 fits
_BIRGE_MAX: Final = 3.0
_RANGE_SLACK: Final = 0.1  # of the range of use, at each end
_LARGEST: Final = 1e12  # as `pipeline` has it: no probe means more, and squares must not overflow
_SMALLEST_U: Final = 1e-12
_APART: Final = 1e-9  # of the readings' size: nearer they are the same
_ROUNDS: Final = 100
_SETTLED: Final = 1e-12  # of the largest coefficient


@dataclass(frozen=True)
class FitFault:
    """One reason not to trust a fit: a row of `FAULTS`, with the numbers that belong into its sentence.

    >>> str(FitFault("points", {"points": 2, "least": 3}))
    'There are 2 points; at least 3 are needed.'
    """

    code: str
    numbers: Mapping[str, float]

    def __str__(self) -> str:
        return FAULTS[self.code] % self.numbers


FAULTS: Final[dict[str, str]] = {
    "points": "There are %(points)d points; at least %(least)d are needed.",
    "slope": "The slope is %(slope).4g; a probe that works has %(lowest).4g to %(highest).4g.",
    "offset": "The offset is %(offset).4g; a probe that works has %(lowest).4g to %(highest).4g.",
    "residual": "Point %(number)d lies %(residual).3g away from the fit; at most %(most).3g is trusted.",
    "scatter": "The points scatter %(ratio).2g times as much as their uncertainties say; at most %(most).2g times is trusted.",
    "leverage": "Point %(number)d alone decides a coefficient; measure another near it.",
    "span": "The standards span %(span).4g; at least %(least).4g are needed.",
    "turns": "The curve turns back at %(at).4g, within its own points.",
    "drift": "At %(at).4g it has changed by %(change).2g within 30 days since the calibration before; at most %(most).2g is trusted.",
    "range": "The standards reach from %(lowest).4g to %(highest).4g, the use from %(use_lowest).4g to %(use_highest).4g.",
    "efficiency": "The electrode has %(slope_pct).1f %% of its ideal slope; one that works has %(lowest).0f to %(highest).0f %%.",
    "zero": "The electrode shows %(zero_mv).1f mV at pH 7; one that works is within ±%(most).0f mV.",
}
"""Sentences of faults by code."""


@dataclass(frozen=True)
class FitLimits:
    """What a fit for one property has to keep, in the published unit; None: no limit.

    `points`: at least so many. `slope`, `offset`: lowest and highest. `residual`: of any point at most. `span`: of the standards at
    least. `drift`: since the calibration before, in 30 days at most.
    """

    points: int = 2
    slope: tuple[float, float] | None = None
    offset: tuple[float, float] | None = None
    residual: float | None = None
    span: float | None = None
    drift: float | None = None


NO_LIMITS: Final = FitLimits()

_THERMOMETER: Final = FitLimits(points=1, slope=(0.95, 1.05), offset=(-3.0, 3.0), residual=0.5)

FIT_LIMITS: Final[dict[str, FitLimits]] = {
    "soil_water_tension": FitLimits(points=3, slope=(0.5, 2.0), offset=(-20.0, 20.0), span=20.0),
    "soil_water_content": FitLimits(
        points=4, slope=(0.2, 5.0), offset=(-0.5, 0.5), residual=0.15, span=0.1
    ),
    "soil_permittivity": FitLimits(points=2, slope=(0.8, 1.25), offset=(-3.0, 3.0), span=10.0),
    "soil_conductivity": FitLimits(points=2, slope=(0.5, 2.0), span=500.0),
    "soil_moisture_index": FitLimits(points=2, slope=(0.5, 2.0), offset=(-0.5, 0.5), span=0.5),
    "soil_temperature": _THERMOMETER,
    "water_temperature": _THERMOMETER,
    "air_temperature": _THERMOMETER,
    "dissolved_oxygen": FitLimits(points=2, slope=(0.7, 1.4), offset=(-1.0, 1.0), span=5.0),
    "oxygen_saturation": FitLimits(points=2, slope=(0.7, 1.4), offset=(-10.0, 10.0), span=50.0),
    # A slope of the electrode of 85 to 105 % and ±30 mV at pH 7 (ISO 10523's practice), for readings that are pH already.
    "ph": FitLimits(
        points=2,
        slope=(1 / 1.05, 1 / 0.85),
        offset=(-1.75, 1.25),
        residual=0.05,
        span=2.0,
        drift=0.1,
    ),
    "conductivity_25": FitLimits(points=2, slope=(0.7, 1.4), offset=(-50.0, 50.0), span=50.0),
    "turbidity": FitLimits(points=3, slope=(0.5, 2.0), offset=(-20.0, 20.0), span=50.0),
    "water_level": FitLimits(points=1, slope=(0.8, 1.25), residual=0.05),
    "reference_resistance": FitLimits(points=1, slope=(0.95, 1.05)),
    "battery_voltage": FitLimits(points=2, slope=(0.9, 1.1), offset=(-200.0, 200.0)),
}
"""Ours, but for pH's slope. Slopes: of the maker's. A property without a row has no limits of its own; those of the points hold for all."""

ELECTRODE_SLOPE_PCT: Final = (85.0, 105.0)
ELECTRODE_ZERO_MV: Final = 30.0


@dataclass(frozen=True)
class Fit:
    """Coefficients from points, with what tells how good they are. Arrays have one element per point.

    Attributes:
        parameters: value = offset + slope · x + curve · x², covariances included. k is t95(ν) where the spread was taken from fewer
            than 30 degrees of freedom of the points themselves, else 2.
        degrees_of_freedom: points less coefficients.
        chi_squared, p_value: Σ (residual/u)², and how probable so much or more is for these u. NaN where there were no u.
        birge_ratio: √(χ²/ν), with which covariances were multiplied where p < 0.05; 1 elsewhere.
        x, y, u: the points; u as it was taken, with that of x.
        residuals, standardized_residuals: y − fit, and by its own standard deviation; 0 for a point that the fit must go through.
        leverages: by how much a point pulls the fit to itself, 0–1.
        commons: what one standard uncertainty of each thing that standards share does to offset, slope and curve, one row each. In the
            covariances already.
        gains: what one unit more of each point's standard does to them, one row per point.
        faults: why not to trust it.
    """

    parameters: CalibrationParameters
    degrees_of_freedom: int
    chi_squared: float
    p_value: float
    birge_ratio: float
    x: FloatArray
    y: FloatArray
    u: FloatArray
    residuals: FloatArray
    standardized_residuals: FloatArray
    leverages: FloatArray
    commons: tuple[tuple[float, float, float], ...] = ()
    gains: tuple[tuple[float, float, float], ...] = ()
    faults: tuple[FitFault, ...] = ()

    @property
    def common(self) -> tuple[float, float, float]:
        """`commons` where all standards share one thing or none."""
        return self.commons[0] if self.commons else (0.0, 0.0, 0.0)

    def as_json(self) -> dict[str, Any]:
        """What is worth keeping beside the coefficients, of numbers, lists and text; what is not known is None.

        >>> fit_line([0, 1], [0, 1], [0.1, 0.1]).as_json()["faults"]
        []
        """
        return {
            "degrees_of_freedom": self.degrees_of_freedom,
            "chi_squared": None if math.isnan(self.chi_squared) else self.chi_squared,
            "p_value": None if math.isnan(self.p_value) else self.p_value,
            "birge_ratio": self.birge_ratio,
            "residuals": self.residuals.tolist(),
            "standardized_residuals": self.standardized_residuals.tolist(),
            "leverages": self.leverages.tolist(),
            "common": list(self.common),
            "faults": [{"code": one.code, "numbers": dict(one.numbers)} for one in self.faults],
        }


@dataclass(frozen=True)
class _Points:
    """x, y, u of y, u of x, shape (n,); and what standards share, shape (g, n), with or without whom it is not all."""

    x: FloatArray
    y: FloatArray
    u: FloatArray
    u_x: FloatArray
    common: FloatArray
    has_u: bool
    has_groups: bool


def fit_line(
    x: ArrayLike,
    y: ArrayLike,
    u: ArrayLike | None,
    *,
    u_x: ArrayLike = 0.0,
    u_common: ArrayLike = 0.0,
    u_probe: float = 0.0,
) -> Fit:
    """Fit value = offset + slope · x by weighted least squares.

    β = (AᵀWA)⁻¹AᵀWy with W = diag(1/u²), C = (AᵀWA)⁻¹ (Press et al., Numerical Recipes, 3rd ed. §15.4), about the weighted mean
    so that nothing cancels. With u_x it is the line that is nearest in both directions (York et al. 2004, Am. J. Phys. 72, 367).

    What the standards have in common does not scatter and cannot be weighed by scatter: it moves all points together, and
    C gets h hᵀ, h = C₀AᵀW·u_common, which for an offset of all points is generalised least squares with V = diag(u²) + u_common²·J.

    Standards that share several things, each some of them (lots of one bottle each), are weighed by what they share, too: generalised least
    squares, β = (AᵀV⁻¹A)⁻¹AᵀV⁻¹y with V = diag(u²) + Σ u_g u_gᵀ (Aitken 1936, Proc. R. Soc. Edinb. 55, 42), so that three points of one bottle do
    not count for three bottles.

    Where χ² has p < 0.05, C (without the common part) is multiplied by χ²/ν (Birge 1932, Phys. Rev. 40, 207). That more may be the
    probe's own and meet the next reading, too: `u_abs` gets it, (χ²/ν − 1)·n/Σ(1/u²).

    Args:
        x: converted readings, shape (n,), n ≥ 2, not all equal.
        y: values of the standard, published unit, shape (n,).
        u: standard uncertainties of y, same unit, all > 0, taken as independent. None: not known; all points weigh the same, what they
            scatter is taken as theirs and the probe's, and there must be more points than coefficients.
        u_x: standard uncertainties of x, its unit: shape (n,), or one for all.
        u_common: standard uncertainty of what the standards share, published unit: one for all, or shape (n,) where it differs, as the
            stock that all dilutions come from; or shape (g, n): g things, each with what it does to each point. Not contained in u.
        u_probe: the probe's own beside the fit; becomes `u_abs`.

    Raises:
        ValueError: the points do not determine a line.

    >>> fit = fit_line([0.5, 1, 1.5, 2, 2.5], [0.031, 0.118, 0.205, 0.301, 0.382],
    ...                [0.008, 0.008, 0.010, 0.012, 0.012])
    >>> line = fit.parameters
    >>> print(f"{line.offset:.8f} {line.slope:.8f} {line.cov:.6e} {fit.chi_squared:.4f}")
    -0.05809677 0.17685484 -5.027866e-05 0.2942
    """
    return _fit(1, _points(x, y, u, u_x, u_common), u_probe)


def fit_quadratic(
    x: ArrayLike,
    y: ArrayLike,
    u: ArrayLike | None,
    *,
    u_x: ArrayLike = 0.0,
    u_common: ArrayLike = 0.0,
    u_probe: float = 0.0,
) -> Fit:
    """Fit value = offset + slope · x + curve · x² where the curve is believed, else the line.

    Believed: it takes more from χ² than chance does in one of a hundred fits. Where the curve agrees with the points' u, the gain itself is
    χ² with one degree of freedom; else it is measured by what is left, F = gain/(χ²_curve/ν) with 1 and ν (Bevington and Robinson, Data
    Reduction, 3rd ed. §11.4). Arguments as in `fit_line`; with fewer than four different x it is the line.

    >>> fit = fit_quadratic([0, 20, 100, 400, 800], [0.1, 20.1, 102.2, 431.8, 928.3], [0.3, 0.5, 2.0, 8.0, 16.0])
    >>> round(fit.parameters.curve, 6), fit.degrees_of_freedom
    (0.000202, 2)
    """
    points = _points(x, y, u, u_x, u_common)
    line = _fit(1, points, u_probe)
    if _different(points.x) < 4:
        return line
    curve = _fit(2, points, u_probe)
    return curve if _explains_more(curve, line, points.u) else line


def _explains_more(curve: Fit, line: Fit, u: FloatArray) -> bool:
    rest, without = (_chi_squared(fit, u) for fit in (curve, line))
    gain = without - rest
    if curve.p_value >= CONSISTENT_P:
        return chi_squared_tail(gain, 1) < CURVE_P
    f = gain / (rest / curve.degrees_of_freedom) if rest > 0.0 else math.inf
    return gain > 0.0 and (math.isinf(f) or one_term_p_value(f, curve.degrees_of_freedom) < CURVE_P)


def _chi_squared(fit: Fit, u: FloatArray) -> float:
    """By each point's own u where it is not known how they scatter."""
    if math.isfinite(fit.chi_squared):
        return fit.chi_squared
    return float(((fit.residuals / u) ** 2).sum())


def fit_offset(
    x: ArrayLike,
    y: ArrayLike,
    u: ArrayLike | None,
    *,
    u_x: ArrayLike = 0.0,
    u_common: ArrayLike = 0.0,
    u_probe: float = 0.0,
    slope: float = 1.0,
) -> Fit:
    """Fit value = offset + slope · x with the slope given: the weighted mean of y − slope · x, as for a thermometer in ice water.

    Arguments as in `fit_line`; slope: the maker's, 1 but for a probe that is sold in several spans.

    >>> fit = fit_offset([0.29, 0.27], [0.0, 0.0], [0.02, 0.02])
    >>> round(fit.parameters.offset, 3), round(fit.parameters.u_offset, 4), fit.parameters.slope
    (-0.28, 0.0141, 1.0)
    """
    points = _points(x, y, u, u_x, u_common)
    u_of_shifts = np.hypot(points.u, slope * points.u_x)
    fit = _fit(0, replace(points, y=points.y - slope * points.x, u=u_of_shifts), u_probe)
    return replace(fit, parameters=replace(fit.parameters, slope=slope), y=points.y)


def two_point(
    low: tuple[float, float],
    high: tuple[float, float],
    *,
    u_low: float,
    u_high: float,
    u_common: ArrayLike = 0.0,
    u_probe: float = 0.0,
) -> Fit:
    """The line through two points, each (standard, reading), with the standard uncertainties of the standards.

    >>> line = two_point((0.0, 0.8), (100.0, 97.6), u_low=0.1, u_high=0.5).parameters
    >>> [round(line.offset + line.slope * x, 5) for x in (50.0, 105.0)]
    [50.82645, 107.64463]
    """
    standards, readings = zip(low, high, strict=True)
    return fit_line(readings, standards, [u_low, u_high], u_common=u_common, u_probe=u_probe)


def capacitive_calibration(
    air_mv: float, water_mv: float, *, u_mv: float, u_index: float
) -> CalibrationParameters:
    """Calibration of one capacitive probe by its own readings in dry air (index 0) and in water (index 1).

    The line through the two points, over the index that the maker's voltages would give (`derived.capacitive_index`).

    Args:
        air_mv, water_mv: its voltages, mV.
        u_mv: standard uncertainty of each of the two readings, mV.
        u_index: the probe's own beside that, 1: temperature, soil that does not touch it.

    Raises:
        ValueError: voltages that no such probe has.

    >>> line = capacitive_calibration(2640, 1390, u_mv=5, u_index=0.02)
    >>> round(line.offset + line.slope * float(capacitive_index(2015)), 6)
    0.5
    """
    x = capacitive_index([air_mv, water_mv])
    if np.isnan(capacitive_index(air_mv, air_mv, water_mv)) or np.isnan(x).any():
        raise ValueError(
            f"A capacitive probe does not give {air_mv} mV in air and {water_mv} mV in water."
        )
    u = u_mv / abs(air_mv - water_mv)
    return fit_line(x, [0.0, 1.0], [u, u], u_probe=u_index).parameters


MODELS: Final[dict[str, Callable[..., Fit]]] = {
    "offset": fit_offset,
    "linear": fit_line,
    "quadratic": fit_quadratic,
}
"""Kinds of calibration by name. "quadratic" falls back to the line."""


def fit_of(
    model: str,
    x: ArrayLike,
    y: ArrayLike,
    u: ArrayLike | None,
    *,
    observed_property: str,
    u_x: ArrayLike = 0.0,
    u_common: ArrayLike = 0.0,
    u_probe: float = 0.0,
    use: tuple[float, float] | None = None,
    before: tuple[CalibrationParameters, float] | None = None,
    factory_slope: float = 1.0,
) -> Fit:
    """The fit of a model, judged by the limits of its property.

    Args:
        model: row of `MODELS`.
        observed_property: row of `FIT_LIMITS`; one without a row has no limits of its own.
        use: lowest and highest value that the probe is to measure, published unit: the standards have to cover it.
        before: the calibration that this one follows, and how many days ago that was.
        factory_slope: the maker's, to which limits of the slope refer, and that an offset keeps.
        others: as in `fit_line`.

    Raises:
        ValueError: an unknown model, or points that determine none.

    >>> fit = fit_of("linear", [4.02, 7.05], [4.0, 6.88], [0.01, 0.01], observed_property="ph", use=(6, 9))
    >>> [fault.code for fault in fit.faults]
    ['slope', 'range']
    """
    if model not in MODELS:
        raise ValueError(f"There is no model {model!r}; there are {', '.join(MODELS)}.")
    kept = {"slope": factory_slope} if model == "offset" else {}
    fit = MODELS[model](x, y, u, u_x=u_x, u_common=u_common, u_probe=u_probe, **kept)
    limits = FIT_LIMITS.get(observed_property, NO_LIMITS)
    if limits.slope is not None:
        lowest, highest = sorted(factory_slope * bound for bound in limits.slope)
        limits = replace(limits, slope=(lowest, highest))
    return judged(fit, limits, use=use, before=before)


def judged(
    fit: Fit,
    limits: FitLimits,
    *,
    use: tuple[float, float] | None = None,
    before: tuple[CalibrationParameters, float] | None = None,
) -> Fit:
    """The same fit with everything that speaks against it. Arguments as in `fit_of`."""
    faults = (
        *_faults_of_points(fit, limits),
        *_faults_of_coefficients(fit, limits),
        *_faults_of_range(fit, limits, use),
        *(_faults_of_drift(fit, limits, *before) if before is not None else ()),
    )
    return replace(fit, faults=(*fit.faults, *faults))


def _faults_of_drift(
    fit: Fit, limits: FitLimits, before: CalibrationParameters, days: float
) -> list[FitFault]:
    """Between two calibrations a month or less apart what has changed counts in full: less time makes no probe better."""
    if limits.drift is None:
        return []
    x = float(fit.x.mean())
    at, then = (_value_of(one, x) for one in (fit.parameters, before))
    change = abs(at - then) / max(days / 30.0, 1.0)
    if change <= limits.drift:
        return []
    return [FitFault("drift", {"at": at, "change": change, "most": limits.drift})]


def _value_of(one: CalibrationParameters, x: float) -> float:
    return one.offset + x * (one.slope + x * one.curve)


def _faults_of_points(fit: Fit, limits: FitLimits) -> list[FitFault]:
    faults = []
    if fit.x.size < limits.points:
        faults.append(FitFault("points", {"points": fit.x.size, "least": limits.points}))
    worst = int(np.argmax(np.abs(fit.residuals)))
    residual = float(abs(fit.residuals[worst]))
    if limits.residual is not None and residual > limits.residual:
        faults.append(_residual_fault(worst, residual, limits.residual))
    else:
        worst = int(np.argmax(np.abs(fit.standardized_residuals)))
        standardized = float(abs(fit.standardized_residuals[worst]))
        if standardized > _STANDARDIZED_MAX:
            residual = float(abs(fit.residuals[worst]))
            most = residual * _STANDARDIZED_MAX / standardized
            faults.append(_residual_fault(worst, residual, most))
    if fit.birge_ratio > _BIRGE_MAX:
        faults.append(FitFault("scatter", {"ratio": fit.birge_ratio, "most": _BIRGE_MAX}))
    strongest = int(np.argmax(fit.leverages))
    if fit.degrees_of_freedom > 0 and fit.leverages[strongest] > _LEVERAGE_MAX:
        numbers = {"number": strongest + 1, "leverage": float(fit.leverages[strongest])}
        faults.append(FitFault("leverage", numbers))
    return faults


def _residual_fault(place: int, residual: float, most: float) -> FitFault:
    return FitFault("residual", {"number": place + 1, "residual": residual, "most": most})


def _faults_of_coefficients(fit: Fit, limits: FitLimits) -> list[FitFault]:
    found = fit.parameters
    # Of a curve: from its first point to its last.
    slope = found.slope + found.curve * float(fit.x.min() + fit.x.max())
    faults = []
    for name, number, bounds in (
        ("slope", slope, limits.slope),
        ("offset", found.offset, limits.offset),
    ):
        if bounds is not None and not bounds[0] <= number <= bounds[1]:
            faults.append(FitFault(name, {name: number, "lowest": bounds[0], "highest": bounds[1]}))
    return faults


def _turning_fault(fit: Fit) -> list[FitFault]:
    """Where a curve turns back two readings mean one value; and a day's range is made of its ends (`services.thinning`)."""
    found = fit.parameters
    ends = found.slope + 2.0 * found.curve * np.array([fit.x.min(), fit.x.max()])
    if ends[0] * ends[1] > 0.0 or found.curve == 0.0:
        return []
    return [FitFault("turns", {"at": _value_of(found, -found.slope / (2.0 * found.curve))})]


def _faults_of_range(
    fit: Fit, limits: FitLimits, use: tuple[float, float] | None
) -> list[FitFault]:
    lowest, highest = float(fit.y.min()), float(fit.y.max())
    faults = _turning_fault(fit)
    # One point finds an offset, which needs no span.
    has_slope = fit.x.size - fit.degrees_of_freedom > 1
    if has_slope and limits.span is not None and highest - lowest < limits.span:
        faults.append(FitFault("span", {"span": highest - lowest, "least": limits.span}))
    if use is not None and has_slope:
        slack = _RANGE_SLACK * (use[1] - use[0])
        if lowest - slack > use[0] or highest + slack < use[1]:
            numbers = {
                "lowest": lowest,
                "highest": highest,
                "use_lowest": use[0],
                "use_highest": use[1],
            }
            faults.append(FitFault("range", numbers))
    return faults


# ------------------------------------------------------------------------------------------------------------- electrodes


@dataclass(frozen=True)
class ElectrodeFit:
    """A glass electrode's slope and zero from buffers, for `derived.ph`.

    `slope_mv` per pH at `calibration_temperature_c`, `zero_mv` at pH 7, their standard uncertainties and covariance; `slope_pct` of
    the ideal slope. `fit` is E = E₇ + S · z over z = −(T/T_cal)(pH − 7), in mV.
    """

    slope_mv: float
    zero_mv: float
    u_slope_mv: float
    u_zero_mv: float
    cov_mv2: float
    slope_pct: float
    calibration_temperature_c: float
    fit: Fit
    residuals_ph: FloatArray = field(repr=False)

    @property
    def faults(self) -> tuple[FitFault, ...]:
        return self.fit.faults


def fit_electrode(
    buffer_ph: ArrayLike,
    potential_mv: ArrayLike,
    temperature_c: ArrayLike,
    u_ph: ArrayLike,
    *,
    u_mv: float = 0.0,
    u_common_ph: float = 0.0,
) -> ElectrodeFit:
    """Slope and zero of a glass electrode: E = E₇ − S (T/T_cal)(pH − 7), weighted (Nernst; ISO 10523).

    Args:
        buffer_ph: pH of each buffer *at its temperature*, shape (n,), n ≥ 2.
        potential_mv: E in each, mV.
        temperature_c: of each, °C, 0–100: shape (n,), or one for all. T_cal is their mean.
        u_ph: standard uncertainty of each buffer, independent.
        u_mv: standard uncertainty of each potential.
        u_common_ph: what the buffers share.

    Raises:
        ValueError: the buffers do not determine an electrode.

    >>> found = fit_electrode([6.888, 4.000], [6.1, 168.9], 18.0, [0.01, 0.01])
    >>> round(found.slope_mv, 5), round(found.zero_mv, 5), round(found.slope_pct, 3)
    (56.37119, -0.21357, 97.578)
    """
    ph, mv = (np.asarray(column, dtype=np.float64) for column in (buffer_ph, potential_mv))
    temperatures_c = np.broadcast_to(np.asarray(temperature_c, dtype=np.float64), ph.shape)
    ideal_mv = nernst_slope(temperatures_c)
    if ph.ndim != 1 or ph.size < 2 or not np.isfinite(ideal_mv).all():
        raise ValueError("An electrode needs two buffers or more, between 0 and 100 °C.")
    mean_c = float(temperatures_c.mean())
    z = -(temperatures_c + ZERO_CELSIUS_K) / (mean_c + ZERO_CELSIUS_K) * (ph - 7.0)
    u = np.hypot(np.asarray(u_ph, dtype=np.float64) * ideal_mv, u_mv)
    # A shift of all buffers by one part of pH moves every potential by the slope.
    found = fit_line(z, mv, u, u_common=u_common_ph * ideal_mv)
    line = found.parameters
    slope_pct = 100.0 * line.slope / float(nernst_slope(mean_c))
    residuals_ph = -found.residuals / ideal_mv
    faults = _faults_of_electrode(line.offset, slope_pct, residuals_ph, ph)
    return ElectrodeFit(
        slope_mv=line.slope,
        zero_mv=line.offset,
        u_slope_mv=line.u_slope,
        u_zero_mv=line.u_offset,
        cov_mv2=line.cov,
        slope_pct=slope_pct,
        calibration_temperature_c=mean_c,
        fit=replace(found, faults=tuple(faults)),
        residuals_ph=residuals_ph,
    )


def _faults_of_electrode(
    zero_mv: float, slope_pct: float, residuals_ph: FloatArray, ph: FloatArray
) -> list[FitFault]:
    faults = []
    lowest, highest = ELECTRODE_SLOPE_PCT
    if not lowest <= slope_pct <= highest:
        numbers = {"slope_pct": slope_pct, "lowest": lowest, "highest": highest}
        faults.append(FitFault("efficiency", numbers))
    if abs(zero_mv) > ELECTRODE_ZERO_MV:
        faults.append(FitFault("zero", {"zero_mv": zero_mv, "most": ELECTRODE_ZERO_MV}))
    limits = FIT_LIMITS["ph"]
    worst = int(np.argmax(np.abs(residuals_ph)))
    residual = float(abs(residuals_ph[worst]))
    if limits.residual is not None and residual > limits.residual:
        faults.append(_residual_fault(worst, residual, limits.residual))
    span = float(ph.max() - ph.min())
    if limits.span is not None and span < limits.span:
        faults.append(FitFault("span", {"span": span, "least": limits.span}))
    return faults


# ------------------------------------------------------------------------------------------------------------- arithmetic


def _points(
    x: ArrayLike, y: ArrayLike, u: ArrayLike | None, u_x: ArrayLike, u_common: ArrayLike
) -> _Points:
    readings, standards = (np.asarray(column, dtype=np.float64) for column in (x, y))
    if readings.ndim != 1 or readings.shape != standards.shape:
        raise ValueError("A line needs as many x as y and u.")
    given = np.ones_like(standards) if u is None else np.asarray(u, dtype=np.float64)
    if given.shape != standards.shape:
        raise ValueError("A line needs as many x as y and u.")
    try:
        of_x = np.broadcast_to(np.asarray(u_x, dtype=np.float64), standards.shape)
        shared = np.asarray(u_common, dtype=np.float64)
        common = np.broadcast_to(shared, (len(shared) if shared.ndim == 2 else 1, *standards.shape))
    except ValueError as error:
        raise ValueError("A line needs one u_x and u_common, or as many as points.") from error
    if not all(np.isfinite(one).all() for one in (readings, standards, given, of_x, common)):
        raise ValueError("A line needs finite numbers.")
    if any((np.abs(one) > _LARGEST).any() for one in (readings, standards, given, of_x, common)):
        raise ValueError("A line needs numbers that a probe can mean, none beyond 1e12.")
    if (given < _SMALLEST_U).any() or (of_x < 0.0).any() or (common < 0.0).any():
        raise ValueError("A line needs an uncertainty above zero for every y, and none below zero.")
    if u is None and (of_x > 0.0).any():
        raise ValueError("A line needs uncertainties of y where x has one.")
    return _Points(readings, standards, given, of_x, common, u is not None, shared.ndim == 2)


@dataclass(frozen=True)
class _Solved:
    """Coefficients of 1, t, t² (p of them), what each y does to them (`gain`), and the points as they were seen.

    `u`: each by itself; `u_whole`: with what it shares, where that weighs; `white`: residuals without their correlation, in units of u.
    Shapes (p,), (p, n), (n, p), (n,) the rest.
    """

    coefficients: FloatArray
    gain: FloatArray
    design: FloatArray
    u: FloatArray
    u_whole: FloatArray
    residuals: FloatArray
    white: FloatArray


@dataclass(frozen=True)
class _Scatter:
    """What the points scatter: `factor` for their u, and `u_abs`, which the probe may have of it."""

    chi_squared: float
    p_value: float
    factor: float
    u_abs: float
    is_estimated: bool


def _fit(degree: int, points: _Points, u_probe: float) -> Fit:
    """The polynomial of a degree through points; of degree 0 y is what is to be added."""
    _check_determined(degree, points)
    freedom = points.x.size - degree - 1
    middle, scale = _middle_and_scale(points)
    scaled = replace(points, x=(points.x - middle) / scale, u_x=points.u_x / scale)
    solved = _solve(degree, scaled)
    scatter = _scatter(solved, freedom, points.has_u)
    to_raw = _from_scaled(middle, scale if degree > 0 else 1.0)[:, : degree + 1]
    gain = to_raw @ solved.gain
    by_point = gain * solved.u
    by_shared = gain @ points.common.T
    covariance = by_point @ by_point.T * scatter.factor**2 + by_shared @ by_shared.T
    leverages = np.clip(np.einsum("np,pn->n", solved.design, solved.gain), 0.0, 1.0)
    is_few = scatter.is_estimated and freedom < MANY_DEGREES_OF_FREEDOM
    u = solved.u_whole if points.has_u else solved.u * scatter.factor
    return Fit(
        parameters=_parameters(
            to_raw @ solved.coefficients,
            covariance,
            u_abs=math.hypot(u_probe, scatter.u_abs),
            k=t95(freedom) if is_few else COVERAGE_FACTOR,
        ),
        degrees_of_freedom=freedom,
        chi_squared=scatter.chi_squared,
        p_value=scatter.p_value,
        birge_ratio=scatter.factor if points.has_u else 1.0,
        x=points.x,
        y=points.y,
        u=u,
        residuals=solved.residuals,
        standardized_residuals=_standardized(solved.residuals, u, leverages),
        leverages=leverages,
        commons=_rows(by_shared.T),
        gains=_rows(gain.T),
    )


def _rows(columns: FloatArray) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(a), float(b), float(c)) for a, b, c in columns)


def _check_determined(degree: int, points: _Points) -> None:
    if points.x.size == 0:
        raise ValueError("A line needs points.")
    if degree > 0 and _different(points.x) <= degree:
        raise ValueError(f"A line needs {('', 'two', 'three')[degree]} different x.")
    if not points.has_u and points.x.size <= degree + 1:
        raise ValueError(
            "A line needs the uncertainties of its points, or more points than coefficients."
        )


def _different(x: FloatArray) -> int:
    """How many x there are, those nearer than rounding counted once."""
    size = np.abs(x).max()
    steps = np.diff(np.sort(x))
    return 1 + int((steps > max(_APART * size, _SMALLEST_U)).sum())


def _middle_and_scale(points: _Points) -> tuple[float, float]:
    weights = 1.0 / (points.u * points.u)
    middle = float((weights * points.x).sum() / weights.sum())
    return middle, float(np.abs(points.x - middle).max()) or 1.0


def _from_scaled(middle: float, scale: float) -> FloatArray:
    """Coefficients of 1, x, x² from those of 1, t, t² with t = (x − middle)/scale."""
    m = middle / scale
    matrix: FloatArray = np.array(
        [[1.0, -m, m * m], [0.0, 1.0, -2.0 * m], [0.0, 0.0, 1.0]]
    ) / np.array([[1.0], [scale], [scale * scale]])
    return matrix


def _solve(degree: int, points: _Points) -> _Solved:
    """Least squares in both directions: each round sees the points where the last one moved them along x, and is linear there.

    Without u_x the first round is the last (Boggs and Rogers 1990, Contemp. Math. 112, 183, for the idea).
    """
    seen, slope = points.x, np.zeros_like(points.x)
    before: FloatArray | None = None
    for _ in range(_ROUNDS):
        u = np.sqrt(points.u * points.u + slope * slope * points.u_x * points.u_x)
        design = np.vander(seen, degree + 1, increasing=True)
        moved = slope * (points.x - seen)
        root = _root(u, points)
        coefficients, gain = _weighted(design, points.y - moved, u, root)
        residuals = points.y - moved - design @ coefficients
        slope = _slope_at(coefficients, seen)
        moves = math.inf if before is None else float(np.abs(coefficients - before).max())
        if moves <= _SETTLED * np.abs(coefficients).max() or not (points.u_x > 0.0).any():
            break
        before = coefficients
        seen = points.x - points.u_x**2 * slope * (
            design @ coefficients + slope * (points.x - seen) - points.y
        ) / (points.u**2 + slope**2 * points.u_x**2)
    if root is None:
        return _Solved(coefficients, gain, design, u, u, residuals, residuals / u)
    u_whole = np.sqrt((root * root).sum(axis=1))
    white = np.asarray(np.linalg.solve(root, residuals), dtype=np.float64)
    return _Solved(coefficients, gain, design, u, u_whole, residuals, white)


def _root(u: FloatArray, points: _Points) -> FloatArray | None:
    """Lower triangle L with L Lᵀ = diag(u²) + Σ u_g u_gᵀ; None where points are weighed by themselves."""
    if not points.has_groups:
        return None
    covariance = np.diag(u * u) + points.common.T @ points.common
    return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)


def _weighted(
    design: FloatArray, y: FloatArray, u: FloatArray, root: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Coefficients, and what each y does to them."""
    whitened = design / u[:, np.newaxis] if root is None else np.linalg.solve(root, design)
    q, r = np.linalg.qr(whitened)
    onto = np.linalg.inv(r) @ q.T
    gain = onto / u if root is None else np.linalg.solve(root.T, onto.T).T
    return gain @ y, gain


def _slope_at(coefficients: FloatArray, x: FloatArray) -> FloatArray:
    if coefficients.size == 1:
        return np.zeros_like(x)
    curve = 2.0 * coefficients[2] * x if coefficients.size == 3 else np.zeros_like(x)
    slope: FloatArray = coefficients[1] + curve
    return slope


def _scatter(solved: _Solved, freedom: int, has_u: bool) -> _Scatter:
    squares = float((solved.white**2).sum())
    typical_u = float(np.sqrt(solved.u.size / (1.0 / solved.u**2).sum()))
    if not has_u:
        s = math.sqrt(squares / freedom)
        return _Scatter(math.nan, math.nan, s, s, is_estimated=True)
    p_value = chi_squared_tail(squares, freedom)
    if p_value >= CONSISTENT_P:
        return _Scatter(squares, p_value, 1.0, 0.0, is_estimated=False)
    more = squares / freedom
    u_abs = math.sqrt(max(more - 1.0, 0.0)) * typical_u
    return _Scatter(squares, p_value, math.sqrt(more), u_abs, is_estimated=True)


def _standardized(residuals: FloatArray, u: FloatArray, leverages: FloatArray) -> FloatArray:
    free = 1.0 - leverages
    is_free = (free > 1e-9) & (u > 0.0)
    own_u = np.where(is_free, u * np.sqrt(free), 1.0)
    return np.where(is_free, residuals / own_u, 0.0)


def _parameters(
    coefficients: FloatArray, covariance: FloatArray, *, u_abs: float, k: float
) -> CalibrationParameters:
    offset, slope, curve = coefficients.tolist()
    u_offset, u_slope, u_curve = np.sqrt(np.maximum(np.diag(covariance), 0.0)).tolist()
    return CalibrationParameters(
        slope=slope,
        offset=offset,
        u_slope=u_slope,
        u_offset=u_offset,
        cov=float(covariance[0, 1]),
        u_abs=u_abs,
        k=k,
        curve=curve,
        u_curve=u_curve,
        cov_offset_curve=float(covariance[0, 2]),
        cov_slope_curve=float(covariance[1, 2]),
    )

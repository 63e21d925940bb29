"""Linear calibrations: value = offset + slope · x, with everything that is known about how well.

x is the converted reading in the published unit (`pipeline` converts first). Coefficients of one fit are correlated; leaving
their covariance out makes the uncertainty of a prediction wrong by a factor, not by a little, so it is part of every
calibration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet_server.measurement.derived import capacitive_index

FloatArray = NDArray[np.float64]

COVERAGE_FACTOR = 2.0


@dataclass(frozen=True)
class CalibrationParameters:
    """One calibration of one channel. All numbers in the channel's published unit, `slope` and `u_rel` without unit.

    Attributes:
        slope, offset: value = offset + slope · x.
        u_slope, u_offset: their standard uncertainties.
        cov: covariance of offset and slope.
        u_abs, u_rel: the probe's own standard uncertainty beside the fit, as an absolute part and a part of the value
            (from the data sheet for a factory calibration).
        k: coverage factor, U = k · u.

    Raises:
        ValueError: a number is not finite, an uncertainty is negative, or the covariance is larger than the two
            uncertainties allow.
    """

    slope: float = 1.0
    offset: float = 0.0
    u_slope: float = 0.0
    u_offset: float = 0.0
    cov: float = 0.0
    u_abs: float = 0.0
    u_rel: float = 0.0
    k: float = COVERAGE_FACTOR

    def __post_init__(self) -> None:
        for name, number in asdict(self).items():
            if not math.isfinite(number):
                raise ValueError(f"A calibration's {name} must be a finite number.")
        if min(self.u_slope, self.u_offset, self.u_abs, self.u_rel) < 0 or self.k <= 0:
            raise ValueError(
                "A calibration's uncertainties and its coverage factor are not negative."
            )
        # |r| may pass 1 by rounding only.
        if abs(self.cov) > self.u_slope * self.u_offset * (1 + 1e-9):
            raise ValueError("A calibration's covariance is too large for its uncertainties.")


@dataclass(frozen=True)
class CalibrationColumns:
    """Calibrations of many rows, one array per number; shapes (1,) or (n,)."""

    slope: FloatArray
    offset: FloatArray
    u_slope: FloatArray
    u_offset: FloatArray
    cov: FloatArray
    u_abs: FloatArray
    u_rel: FloatArray


def as_columns(
    calibration: CalibrationParameters | Sequence[CalibrationParameters],
) -> CalibrationColumns:
    """Turn one calibration for all rows, or one per row, into columns."""
    rows = [calibration] if isinstance(calibration, CalibrationParameters) else calibration
    return CalibrationColumns(
        **{
            field.name: np.array([getattr(row, field.name) for row in rows], dtype=np.float64)
            for field in fields(CalibrationColumns)
        }
    )


def calibrate(
    x: FloatArray, u_x: FloatArray, calibration: CalibrationColumns
) -> tuple[FloatArray, FloatArray]:
    """Apply calibrations to converted readings.

    value = a + b·x;  u² = u_a² + 2·x·cov + x²·u_b² + b²·u_x² + u_abs² + (u_rel·value)²
    (JCGM 100:2008 §5.2.2, Eq. 16, for this model; a = offset, b = slope).

    Args:
        x: converted readings, published unit, shape (n,). NaN: no reading.
        u_x: their standard uncertainty, same unit and shape.
        calibration: columns of shape (1,) or (n,).

    Returns:
        Values and standard uncertainties, published unit, shape (n,); NaN where x is NaN. Only +, −, ·, √ are used: the
        same input gives the same bits on every machine.

    >>> line = CalibrationParameters(slope=0.17685484, offset=-0.05809677,
    ...                              u_slope=0.00630730, u_offset=0.00903775, cov=-5.0278657e-5)
    >>> value, u = calibrate(np.array([1.8]), np.array([0.01]), as_columns(line))
    >>> print(f"{value[0]:.6f} {u[0]:.6f}")
    0.260242 0.005718
    """
    c = calibration
    value = c.offset + c.slope * x
    fit = c.u_offset * c.u_offset + 2.0 * x * c.cov + x * x * (c.u_slope * c.u_slope)
    reading = (c.slope * u_x) * (c.slope * u_x)
    probe = c.u_abs * c.u_abs + (c.u_rel * value) * (c.u_rel * value)
    # A fit with |r| = 1 has exactly no uncertainty at one x; rounding must not make it negative there.
    return value, np.sqrt(np.maximum(fit, 0.0) + reading + probe)


def fit_line(x: ArrayLike, y: ArrayLike, u: ArrayLike) -> CalibrationParameters:
    """Fit value = offset + slope · x by weighted least squares, with the covariance of the two.

    Closed form of β = (AᵀWA)⁻¹AᵀWy with W = diag(1/u²), about the weighted mean so that nothing cancels
    (Press et al., Numerical Recipes, 3rd ed. §15.2, Eqs. 15.2.16–15.2.21).

    Args:
        x: indicated values, shape (n,), n ≥ 2, not all equal.
        y: values of the standard, published unit, shape (n,).
        u: standard uncertainties of y, same unit, shape (n,), all > 0, taken as independent.

    Raises:
        ValueError: the points do not determine a line.

    >>> line = fit_line([0.5, 1, 1.5, 2, 2.5], [0.031, 0.118, 0.205, 0.301, 0.382],
    ...                 [0.008, 0.008, 0.010, 0.012, 0.012])
    >>> print(f"{line.offset:.8f} {line.slope:.8f} {line.cov:.6e}")
    -0.05809677 0.17685484 -5.027866e-05
    """
    x, y, u = (np.asarray(column, dtype=np.float64) for column in (x, y, u))
    if x.shape != y.shape or x.shape != u.shape or x.ndim != 1:
        raise ValueError("A line needs as many x as y and u.")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and np.isfinite(u).all()):
        raise ValueError("A line needs finite numbers.")
    if x.size < 2 or (u <= 0).any() or (x == x[0]).all():
        raise ValueError("A line needs two different x, and an uncertainty above zero for every y.")
    weight = 1.0 / (u * u)
    total = weight.sum()
    mean = (weight * x).sum() / total
    t = (x - mean) / u
    spread = (t * t).sum()
    slope = (t * y / u).sum() / spread
    offset = (weight * y).sum() / total - slope * mean
    return CalibrationParameters(
        slope=float(slope),
        offset=float(offset),
        u_slope=float(np.sqrt(1.0 / spread)),
        u_offset=float(np.sqrt(1.0 / total + mean * mean / spread)),
        cov=float(-mean / spread),
    )


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
    >>> value, _ = calibrate(capacitive_index(np.array([2015.0])), np.zeros(1), as_columns(line))
    >>> round(float(value[0]), 6)
    0.5
    """
    x = capacitive_index([air_mv, water_mv])
    if np.isnan(capacitive_index(air_mv, air_mv, water_mv)) or np.isnan(x).any():
        raise ValueError(
            f"A capacitive probe does not give {air_mv} mV in air and {water_mv} mV in water."
        )
    u = u_mv / abs(air_mv - water_mv)
    return replace(fit_line(x, [0.0, 1.0], [u, u]), u_abs=u_index)

"""Calibrations: value = offset + slope · x + curve · x², with everything that is known about how well.

x is the converted reading in the published unit (`pipeline` converts first). Coefficients of one fit are correlated; leaving
their covariances out makes the uncertainty of a prediction wrong by a factor, not by a little, so they are part of every
calibration. How coefficients are found from points: `fits`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

COVERAGE_FACTOR = 2.0


SECONDS_PER_YEAR = 31_557_600.0  # the Julian year, 365.25 d


@dataclass(frozen=True)
class CalibrationParameters:
    """One calibration of one channel. All numbers in the channel's published unit, `slope` and `u_rel` without unit.

    Attributes:
        slope, offset, curve: value = offset + slope · x + curve · x². Mostly there is no curve.
        u_slope, u_offset, u_curve: their standard uncertainties.
        cov, cov_offset_curve, cov_slope_curve: covariances of offset and slope, offset and curve, slope and curve.
        u_abs, u_rel: the probe's own standard uncertainty beside the fit, as an absolute part and a part of the value
            (from the data sheet for a factory calibration).
        k: coverage factor, U = k · u.
        u_drift_abs, u_drift_rel: standard uncertainty that a year since `since_s` adds, in proportion to the time; none by default.
        since_s: when the probe was calibrated, seconds since 1970 (UTC).

    Raises:
        ValueError: a number is not finite, an uncertainty is negative, or the covariances are larger than the
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
    curve: float = 0.0
    u_curve: float = 0.0
    cov_offset_curve: float = 0.0
    cov_slope_curve: float = 0.0
    u_drift_abs: float = 0.0
    u_drift_rel: float = 0.0
    since_s: float = 0.0

    def __post_init__(self) -> None:
        for name, number in asdict(self).items():
            if not math.isfinite(number):
                raise ValueError(f"A calibration's {name} must be a finite number.")
        uncertainties = (self.u_slope, self.u_offset, self.u_curve, self.u_abs, self.u_rel)
        if min(*uncertainties, self.u_drift_abs, self.u_drift_rel) < 0 or self.k <= 0:
            raise ValueError(
                "A calibration's uncertainties and its coverage factor are not negative."
            )
        if not self._can_be_a_covariance():
            raise ValueError("A calibration's covariance is too large for its uncertainties.")

    def _can_be_a_covariance(self) -> bool:
        """|r| may pass 1 by rounding only, and no combination of the three may have a negative variance."""
        pairs = (
            (self.cov, self.u_offset * self.u_slope),
            (self.cov_offset_curve, self.u_offset * self.u_curve),
            (self.cov_slope_curve, self.u_slope * self.u_curve),
        )
        if any(abs(covariance) > product * (1 + 1e-9) for covariance, product in pairs):
            return False
        ab, ac, bc = (covariance / product if product else 0.0 for covariance, product in pairs)
        return 1.0 + 2.0 * ab * ac * bc - ab * ab - ac * ac - bc * bc >= -1e-9

    @property
    def covariance(self) -> FloatArray:
        """Of offset, slope and curve, shape (3, 3)."""
        return np.array(
            [
                [self.u_offset**2, self.cov, self.cov_offset_curve],
                [self.cov, self.u_slope**2, self.cov_slope_curve],
                [self.cov_offset_curve, self.cov_slope_curve, self.u_curve**2],
            ]
        )


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
    curve: FloatArray
    u_curve: FloatArray
    cov_offset_curve: FloatArray
    cov_slope_curve: FloatArray
    u_drift_abs: FloatArray
    u_drift_rel: FloatArray
    since_s: FloatArray

    @property
    def is_curved(self) -> NDArray[np.bool_]:
        is_curved: NDArray[np.bool_] = (self.curve != 0.0) | (self.u_curve != 0.0)
        return is_curved

    @property
    def is_drifting(self) -> NDArray[np.bool_]:
        is_drifting: NDArray[np.bool_] = (self.u_drift_abs != 0.0) | (self.u_drift_rel != 0.0)
        return is_drifting


def as_columns(
    calibration: CalibrationParameters | Sequence[CalibrationParameters],
) -> CalibrationColumns:
    """Turn one calibration for all rows, or one per row, into columns."""
    rows = [calibration] if isinstance(calibration, CalibrationParameters) else calibration
    # Thousands of rows share a few calibrations: each is read once.
    distinct = {id(row): row for row in rows}
    numbers = {key: number for number, key in enumerate(distinct)}
    places = np.array([numbers[id(row)] for row in rows], dtype=np.intp)
    return CalibrationColumns(
        **{
            field.name: np.array(
                [getattr(row, field.name) for row in distinct.values()], dtype=np.float64
            )[places]
            for field in fields(CalibrationColumns)
        }
    )


@dataclass(frozen=True)
class CalibrationShares:
    """What makes the uncertainty of calibrated values, as variances in the published unit squared; all shape (n,).

    Of the fit (all its coefficients with their covariances), the reading, the probe itself, and its drift since; None: none drifts.
    """

    fit: FloatArray
    reading: FloatArray
    probe: FloatArray
    drift: FloatArray | None

    @property
    def u(self) -> FloatArray:
        total = self.fit + self.reading
        total += self.probe
        if self.drift is not None:
            total += self.drift
        return np.sqrt(total, out=total)


def calibrate(
    x: FloatArray,
    u_x: FloatArray,
    calibration: CalibrationColumns,
    times_s: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Apply calibrations to converted readings.

    value = a + b·x + c·x²;  u² = u_a² + 2·x·cov_ab + x²·u_b² + 2·x²·cov_ac + 2·x³·cov_bc + x⁴·u_c²
                                  + (b + 2·c·x)²·u_x² + u_abs² + (u_rel·value)² + t²·(u_drift_abs² + (u_drift_rel·value)²)
    (JCGM 100:2008 §5.2.2, Eq. 16, for this model; a = offset, b = slope, c = curve, t = years since the calibration).

    Args:
        x: converted readings, published unit, shape (n,). NaN: no reading.
        u_x: their standard uncertainty, same unit and shape.
        calibration: columns of shape (1,) or (n,).
        times_s: when they were sampled, seconds since 1970 (UTC), shape (n,); wanted where a calibration drifts.

    Returns:
        Values and standard uncertainties, published unit, shape (n,); NaN where x is NaN. Only +, −, ·, ÷, √ are used: the
        same input gives the same bits on every machine.

    Raises:
        ValueError: a calibration drifts, and it is not known when the readings were sampled.

    >>> line = CalibrationParameters(slope=0.17685484, offset=-0.05809677,
    ...                              u_slope=0.00630730, u_offset=0.00903775, cov=-5.0278657e-5)
    >>> value, u = calibrate(np.array([1.8]), np.array([0.01]), as_columns(line))
    >>> print(f"{value[0]:.6f} {u[0]:.6f}")
    0.260242 0.005718
    """
    value = calibrated_value(x, calibration)
    return value, shares_of_uncertainty(x, u_x, value, calibration, times_s).u


def calibrated_value(x: FloatArray, calibration: CalibrationColumns) -> FloatArray:
    """value = a + b·x + c·x². A line's bits are those of a + b·x."""
    c = calibration
    line = c.offset + c.slope * x
    if not c.is_curved.any():
        return line
    return np.where(c.is_curved, line + c.curve * x * x, line)


def shares_of_uncertainty(
    x: FloatArray,
    u_x: FloatArray,
    value: FloatArray,
    calibration: CalibrationColumns,
    times_s: FloatArray | None = None,
) -> CalibrationShares:
    """The terms of `calibrate`'s u², each by itself. Arguments as there; value: what it gave."""
    c = calibration
    fit = c.u_offset * c.u_offset + 2.0 * x * c.cov + x * x * (c.u_slope * c.u_slope)
    per_x: FloatArray = c.slope
    if c.is_curved.any():
        square = x * x
        by_curve = 2.0 * square * c.cov_offset_curve + 2.0 * square * x * c.cov_slope_curve
        by_curve = by_curve + square * square * (c.u_curve * c.u_curve)
        fit = np.where(c.is_curved, fit + by_curve, fit)
        per_x = np.where(c.is_curved, c.slope + 2.0 * c.curve * x, c.slope)
    reading = (per_x * u_x) * (per_x * u_x)
    probe = c.u_abs * c.u_abs + (c.u_rel * value) * (c.u_rel * value)
    # A fit with |r| = 1 has exactly no uncertainty at one x; rounding must not make it negative there.
    fit = np.maximum(fit, 0.0)
    return CalibrationShares(fit, reading, probe, _drift_variance(value, c, times_s))


def _drift_variance(
    value: FloatArray, calibration: CalibrationColumns, times_s: FloatArray | None
) -> FloatArray | None:
    c = calibration
    if not c.is_drifting.any():
        return None
    if times_s is None:
        raise ValueError("A calibration that drifts wants the times at which was sampled.")
    years = np.maximum(times_s - c.since_s, 0.0) / SECONDS_PER_YEAR
    by_value = c.u_drift_rel * value
    grown = years * years * (c.u_drift_abs * c.u_drift_abs + by_value * by_value)
    return np.where(c.is_drifting, grown, 0.0)

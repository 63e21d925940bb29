"""What a probe lost between two visits: corrections for fouling and drift, their uncertainty, and what the record is worth.

After Wagner, Boulger, Oblinger and Smith (2006), USGS Techniques and Methods 1-D3 ("after TM1-D3"); limits are data. At a visit the
probe is read in the water before and after it is cleaned, and then in a standard; what it was off by is taken to have grown from zero at the
visit before, in proportion to the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

CLOSED_U_PART: Final = 0.3
"""Of a correction that a visit has closed, what stays unknown: near 1/√12, as if all of it were equally probable everywhere between. Were all
of it lost in one moment, nobody knows which, it would be 1/√6."""

_OPEN_U_PART: Final = 1.0 / math.sqrt(3.0)


def fouling_error(
    before: float, after: float, *, water_before: float = 0.0, water_after: float = 0.0
) -> float:
    """What fouling took: E_f = (M_a − M_b) − (F_e − F_s), published unit (TM1-D3).

    Args:
        before, after: the probe in the water before (M_b) and after (M_a) it was cleaned.
        water_before, water_after: another instrument in the same water at the start (F_s) and the end (F_e) of that.

    >>> fouling_error(820, 855, water_before=851, water_after=853)
    33.0
    """
    return float((after - before) - (water_after - water_before))


@dataclass(frozen=True)
class Check:
    """A reading in a standard: the standard's value and what the cleaned probe showed, published unit."""

    standard: float
    reading: float

    @property
    def drift_error(self) -> float:
        """E_d = V_s − V_c."""
        return self.standard - self.reading


@dataclass(frozen=True)
class Correction:
    """What is put right between two visits: nothing at `from_s`, all of it at `to_s`; fouling first, then drift.

    Attributes:
        from_s, to_s: the visits, seconds since 1970 (UTC): as left, as found.
        fouling: what has to be added at the end, published unit.
        fouling_relative: what has to be added at the end as a part of the value (% E_f / 100).
        low, high: checks of the cleaned probe. Both: every value between is put right between the two (Hasenmueller 2011). `high` alone:
            in proportion, by E_d / V_c of the value (TM1-D3). `low` alone: by E_d, the same for all values.

    Raises:
        ValueError: numbers that are not finite, visits in the wrong order, or checks that say nothing.
    """

    from_s: float
    to_s: float
    fouling: float = 0.0
    fouling_relative: float = 0.0
    low: Check | None = None
    high: Check | None = None

    def __post_init__(self) -> None:
        checks = [check for check in (self.low, self.high) if check is not None]
        numbers = [self.from_s, self.to_s, self.fouling, self.fouling_relative]
        numbers += [number for check in checks for number in (check.standard, check.reading)]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("A correction needs finite numbers.")
        if self.to_s <= self.from_s:
            raise ValueError("A correction ends after it begins.")
        if self.fouling_relative <= -1.0:
            raise ValueError("Fouling cannot have added more than the whole value.")
        if self.high is not None and self.low is None and self.high.reading <= 0.0:
            raise ValueError("A drift in proportion needs a reading above zero in the standard.")
        if self.low is not None and self.high is not None:
            span, shown = (
                self.high.standard - self.low.standard,
                self.high.reading - self.low.reading,
            )
            if span <= 0.0 or shown <= 0.0:
                raise ValueError("Two checks need a low and a high standard, read in that order.")


def correct(
    times_s: ArrayLike, value: ArrayLike, u: ArrayLike, correction: Correction
) -> tuple[FloatArray, FloatArray]:
    """Put values right that were sampled between two visits, fouling and drift one after the other.

    With f = (t − from)/(to − from):  x = v + f·E_f + f·%E_f·v, then by both checks
    y = (x − l)/(h − l)·(s_H − s_L) + s_L, l = s_L − f (s_L − v_L), h = s_H − f (s_H − v_H), or x + f·E_d, or x (1 + f·E_d/V_c).
    u² = (dy/dv · u)² + (0.3·E)², E: the whole correction (f = 1) of that value. Only +, −, ·, ÷, √.

    Args:
        times_s: seconds since 1970 (UTC), shape (n,).
        value, u: calibrated values and their standard uncertainties, published unit, shape (n,). NaN stays NaN.

    Returns:
        Values and standard uncertainties, shape (n,). Outside of from–to they are what they were, to the bit.

    >>> visit = Correction(0, 2, fouling_relative=33 / 820, high=Check(1000, 990))
    >>> values, _ = correct([1.0], [840.0], [5.0], visit)
    >>> round(float(values[0]), 5)
    861.23023
    """
    times, values, given_u = (np.asarray(one, dtype=np.float64) for one in (times_s, value, u))
    if not times.shape == values.shape == given_u.shape:
        raise ValueError("Times, values and their uncertainties differ in length.")
    is_between = (times >= correction.from_s) & (times <= correction.to_s)
    f = np.where(is_between, times - correction.from_s, 0.0) / (correction.to_s - correction.from_s)
    corrected, per_value = _at(f, values, correction)
    whole, _ = _at(np.ones_like(f), values, correction)
    left_open = CLOSED_U_PART * (whole - values)
    corrected_u = np.sqrt((per_value * given_u) * (per_value * given_u) + left_open * left_open)
    return np.where(is_between, corrected, values), np.where(is_between, corrected_u, given_u)


def _at(f: FloatArray, value: FloatArray, correction: Correction) -> tuple[FloatArray, FloatArray]:
    """Values when a part f of the correction is due, and their derivatives by the value."""
    per_value = 1.0 + f * correction.fouling_relative
    x = value * per_value + f * correction.fouling
    low, high = correction.low, correction.high
    if low is not None and high is not None:
        at_low = low.standard - f * low.drift_error
        at_high = high.standard - f * high.drift_error
        gain = (high.standard - low.standard) / (at_high - at_low)
        return (x - at_low) * gain + low.standard, per_value * gain
    if high is not None:
        gain = 1.0 + f * (high.drift_error / high.reading)
        return x * gain, per_value * gain
    if low is not None:
        return x + f * low.drift_error, per_value
    return x, per_value


def u_drift_open(error: ArrayLike, f: ArrayLike) -> FloatArray:
    """Standard uncertainty of a drift that no visit has closed yet: |E|·f/√3, rectangular.

    Args:
        error: what the probe is expected to be off by at the end of the interval, published unit.
        f: part of the interval that has passed.

    >>> round(float(u_drift_open(0.3, 0.5)), 4)
    0.0866
    """
    return np.abs(np.asarray(error, dtype=np.float64)) * np.asarray(f, np.float64) * _OPEN_U_PART


def u_drift_closed(error: ArrayLike) -> FloatArray:
    """Standard uncertainty that stays when a drift has been put right: 0.3·|E|.

    >>> round(float(u_drift_closed(0.3)), 3)
    0.09
    """
    return CLOSED_U_PART * np.abs(np.asarray(error, dtype=np.float64))


@dataclass(frozen=True)
class Limit:
    """An absolute limit in the published unit or a part of the value, whichever is greater."""

    absolute: float
    relative: float = 0.0

    def at(self, value: float) -> float:
        return max(self.absolute, self.relative * abs(value))


@dataclass(frozen=True)
class DriftLimits:
    """Of one property: up to where a sum of corrections leaves a record excellent, good or fair, from where on it is put right, and
    beyond which it is not published."""

    due: Limit
    excellent: Limit
    good: Limit
    fair: Limit
    publishable: Limit


def _limits(
    due: Limit, excellent: Limit, good: Limit, fair: Limit, publishable: Limit
) -> DriftLimits:
    return DriftLimits(due, excellent, good, fair, publishable)


_TEMPERATURE: Final = _limits(Limit(0.2), Limit(0.2), Limit(0.5), Limit(0.8), Limit(2.0))
_IN_PER_CENT: Final = (Limit(0.0, 0.03), Limit(0.0, 0.1), Limit(0.0, 0.15))
_WATER_CONTENT: Final = (Limit(0.02), Limit(0.02), Limit(0.04), Limit(0.06))

DRIFT_LIMITS: Final[dict[str, DriftLimits]] = {
    # After TM1-D3; not checked against its printed tables: data, so that it can be put right.
    "water_temperature": _TEMPERATURE,
    "conductivity_25": _limits(Limit(5.0, 0.03), *_IN_PER_CENT, Limit(0.0, 0.3)),
    "dissolved_oxygen": _limits(
        Limit(0.3), Limit(0.3, 0.05), Limit(0.5, 0.1), Limit(0.8, 0.15), Limit(2.0, 0.2)
    ),
    "ph": _limits(Limit(0.2), Limit(0.2), Limit(0.5), Limit(0.8), Limit(2.0)),
    "turbidity": _limits(
        Limit(0.5, 0.05), Limit(0.5, 0.05), Limit(1.0, 0.1), Limit(1.5, 0.15), Limit(3.0, 0.3)
    ),
    # Ours.
    "oxygen_saturation": _limits(
        Limit(3.0), Limit(3.0, 0.05), Limit(5.0, 0.1), Limit(8.0, 0.15), Limit(20.0, 0.2)
    ),
    "soil_temperature": _TEMPERATURE,
    "air_temperature": _TEMPERATURE,
    "soil_water_content": _limits(*_WATER_CONTENT, Limit(0.12)),
    "soil_water_tension": _limits(
        Limit(3.0, 0.1), Limit(3.0, 0.1), Limit(8.0, 0.2), Limit(15.0, 0.3), Limit(30.0, 0.6)
    ),
    "water_level": _limits(Limit(0.003), Limit(0.003), Limit(0.01), Limit(0.02), Limit(0.04)),
    "soil_moisture_index": _limits(Limit(0.02), Limit(0.02), Limit(0.05), Limit(0.1), Limit(0.2)),
}
"""A property without a row has no rating."""


def is_correction_due(observed_property: str, corrections: float, value: float) -> bool:
    """Whether the sum of the corrections' absolute values, published unit, is more than may stay as it is.

    >>> is_correction_due("conductivity_25", 50.3, 1000), is_correction_due("ph", 0.1, 7)
    (True, False)
    """
    return corrections > DRIFT_LIMITS[observed_property].due.at(value)


def rating(observed_property: str, corrections: float, value: float) -> str:
    """What the record between two visits is worth: "excellent", "good", "fair", "poor", or "unpublishable".

    Args:
        observed_property: row of `DRIFT_LIMITS`.
        corrections: |E_f| + |E_d|, published unit.
        value: at which, published unit: some limits are parts of it.

    >>> rating("conductivity_25", 0.050345 * 820, 820), rating("water_temperature", 2.1, 12)
    ('good', 'unpublishable')
    """
    limits = DRIFT_LIMITS[observed_property]
    if corrections > limits.publishable.at(value):
        return "unpublishable"
    for word, limit in (
        ("excellent", limits.excellent),
        ("good", limits.good),
        ("fair", limits.fair),
    ):
        if corrections <= limit.at(value):
            return word
    return "poor"


def max_allowable(observed_property: str, value: float) -> float:
    """The largest sum of corrections with which values near this one may be published, published unit.

    >>> max_allowable("dissolved_oxygen", 8.0), max_allowable("dissolved_oxygen", 12.0)
    (2.0, 2.4000000000000004)
    """
    return DRIFT_LIMITS[observed_property].publishable.at(value)


# ------------------------------------------------------------------------------------------------- growth of u with time


@dataclass(frozen=True)
class Growth:
    """Standard uncertainty that a year since a calibration adds: in the published unit, and as a part of the value."""

    absolute: float = 0.0
    relative: float = 0.0

    def at(self, value: float) -> float:
        """Of one value, published unit, in a year."""
        return math.hypot(self.absolute, self.relative * value)


NO_GROWTH: Final = Growth()

_OF_THERMOMETER: Final = Growth(0.05)

YEARLY_GROWTH: Final[dict[str, Growth]] = {
    "soil_water_tension": Growth(0.5, 0.04),
    "soil_water_content": Growth(0.005),
    "soil_permittivity": Growth(0.2),
    "soil_moisture_index": Growth(0.02),
    "soil_conductivity": Growth(0.0, 0.03),
    "soil_temperature": _OF_THERMOMETER,
    "water_temperature": _OF_THERMOMETER,
    "air_temperature": _OF_THERMOMETER,
    "dissolved_oxygen": Growth(0.05, 0.02),
    "oxygen_saturation": Growth(0.5, 0.02),
    "ph": Growth(0.1),
    "conductivity_25": Growth(2.0, 0.02),
    "turbidity": Growth(0.3, 0.03),
    "water_level": Growth(0.005),
}
"""What is taken of a probe whose own past says nothing yet. Our judgement, by property; one without a row does not grow."""

_VISITS_LEAST: Final = 2
_YEARS_LEAST: Final = 0.25


def growth_of_visits(errors: ArrayLike, years: ArrayLike) -> Growth | None:
    """What a year adds to one probe's u, from what it was found to be off by: √(Σ E² / Σ t²), as an absolute part.

    An error that grows in proportion to time has the variance s²·t²; this is s, with long intervals weighing most, so that the noise of a
    check after a week does not count for a year.

    Args:
        errors: of each visit, standard − value, published unit, shape (n,).
        years: since the calibration that was being checked, > 0, shape (n,).

    Returns:
        None where the visits say too little: fewer than two, or less than a quarter of a year together.

    >>> found = growth_of_visits([0.06, -0.10], [0.5, 1.0])
    >>> round(found.absolute, 4)
    0.1043
    """
    off, past = (np.asarray(one, dtype=np.float64) for one in (errors, years))
    if off.size < _VISITS_LEAST or past.sum() < _YEARS_LEAST:
        return None
    return Growth(math.sqrt(float((off * off).sum()) / float((past * past).sum())))


def years_until_due(observed_property: str, growth: Growth, value: float) -> float | None:
    """How long until U = 2·u of what time adds reaches what may stay as it is (`DRIFT_LIMITS`, due).

    Args:
        value: at which, published unit: some limits are parts of it.

    Returns:
        None where it does not grow, or the property has no limits.

    >>> years_until_due("ph", Growth(0.1), 7.0)
    1.0
    """
    limits, in_a_year = DRIFT_LIMITS.get(observed_property), growth.at(value)
    if limits is None or in_a_year == 0.0:
        return None
    return limits.due.at(value) / (2.0 * in_a_year)

"""What an observation's uncertainty is made of: a table whose squares add up to the u that `pipeline` states.

For people who ask why a value is not surer, and for the benchmark that checks that it is as sure as it says. It takes the same
way as `pipeline.observe` and is not stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet_server.measurement.calibration import (
    CalibrationParameters,
    as_columns,
    calibrated_value,
    shares_of_uncertainty,
)
from fleet_server.measurement.distributions import coverage_factor
from fleet_server.measurement.pipeline import CONVERSIONS, Correct, Observed

FloatArray = NDArray[np.float64]


class Shape(Enum):
    """How a contribution is spread: what only has limits is taken as rectangular between them."""

    NORMAL = "normal"
    RECTANGULAR = "rectangular"


SHAPES: Final[dict[str, Shape]] = {
    "resolution": Shape.RECTANGULAR,
    "circuit": Shape.RECTANGULAR,
    "temperature": Shape.NORMAL,
    "temperature_assumed": Shape.RECTANGULAR,
    "formula": Shape.RECTANGULAR,
    "pressure": Shape.RECTANGULAR,
    "alpha": Shape.RECTANGULAR,
    "sound": Shape.RECTANGULAR,
    "humidity": Shape.RECTANGULAR,
    "fit": Shape.NORMAL,
    "reference": Shape.NORMAL,
    "probe": Shape.NORMAL,
    "probe_relative": Shape.NORMAL,
    "drift": Shape.NORMAL,
    "correction": Shape.RECTANGULAR,
}
"""Every contribution that there is, in the order of the way from the wire to the value.

resolution: the last digit that the probe sends. circuit: the node's own resistors. temperature: the thermometer that a reading is put
right by; temperature_assumed: instead of it, where it was silent. formula: where published equations differ. pressure: of the air, which
nobody measured. alpha: how waters differ in conductivity's temperature coefficient. sound, humidity: the speed of sound that a module
assumes, and what vapour does to it. fit: the calibration's coefficients with their covariances, without reference: what the standard's own
certificate leaves open, the same at all points. probe, probe_relative: the probe itself beside all that, from its data sheet or the points'
scatter. drift: since the calibration. correction: what a visit's correction of drift and fouling leaves open.
"""


@dataclass(frozen=True)
class Contribution:
    """One part of u: its name in `SHAPES`, and its standard uncertainty in the published unit, shape (n,)."""

    name: str
    u: FloatArray

    @property
    def shape(self) -> Shape:
        return SHAPES[self.name]


@dataclass(frozen=True)
class Budget:
    """Value, standard uncertainty and its contributions, published unit, shape (n,) each. Contributions that are zero are left out."""

    value: FloatArray
    u: FloatArray
    contributions: tuple[Contribution, ...]

    def share(self, name: str) -> FloatArray:
        """Part of u² that one contribution makes, 0–1; 0 for one that is not there."""
        parts = [one.u for one in self.contributions if one.name == name]
        return (parts[0] / self.u) ** 2 if parts else np.zeros_like(self.u)

    def factor_95(self, row: int = 0, *, probe_limits_u: float = 0.0) -> float:
        """The factor with which u of one row holds 95 %: 1.96 for many parts, down to 1.645 for one rectangle.

        The largest rectangle is taken as what it is, and all the rest together as normal.

        Args:
            probe_limits_u: standard uncertainty, published unit, of the largest part of the probe's own that comes from limits
                ("± 0.5 °C": 0.29); the calibration does not say.
        """
        rectangles = [
            float(one.u[row]) for one in self.contributions if one.shape is Shape.RECTANGULAR
        ]
        largest = max(*rectangles, probe_limits_u, 0.0)
        rest = float(self.u[row]) ** 2 - largest * largest
        return coverage_factor(largest, math.sqrt(max(rest, 0.0)))


def budget(
    conversion: str,
    raw: ArrayLike,
    inputs: Mapping[str, Observed],
    calibration: CalibrationParameters | Sequence[CalibrationParameters],
    *,
    common: Sequence[float] | Sequence[Sequence[float]] = (),
    times_s: ArrayLike | None = None,
    correct: Correct | None = None,
) -> Budget:
    """The budget of what `pipeline.observe` makes of the same arguments.

    Args:
        conversion, raw, inputs, calibration, times_s, correct: as there.
        common: `fits.Fit.commons` of the calibration's fit, or one row of them; with none the reference is part of "fit".

    Raises:
        ValueError: an unknown conversion, or a calibration that drifts without times.

    >>> table = budget("sixteenths", [318], {}, CalibrationParameters(u_abs=0.29))
    >>> {one.name: round(float(one.u[0]), 3) for one in table.contributions}
    {'resolution': 0.018, 'probe': 0.29}
    """
    if conversion not in CONVERSIONS:
        raise ValueError(f"There is no conversion {conversion!r}.")
    row = np.array(raw, dtype=np.float64, ndmin=1)
    times = None if times_s is None else np.array(times_s, dtype=np.float64, ndmin=1)
    converted = CONVERSIONS[conversion].convert(row, inputs)
    columns = as_columns(calibration)
    value = calibrated_value(converted.x, columns)
    shares = shares_of_uncertainty(converted.x, converted.u_x, value, columns, times)
    per_x = np.abs(columns.slope + 2.0 * columns.curve * converted.x)
    reference = _of_standards(converted.x, common)
    parts = {name: per_x * u for name, u in converted.parts().items()} | {
        "fit": np.sqrt(np.maximum(shares.fit - reference * reference, 0.0)),
        "reference": reference,
        "probe": np.broadcast_to(columns.u_abs, value.shape),
        "probe_relative": np.abs(columns.u_rel * value),
        "drift": np.zeros_like(value) if shares.drift is None else np.sqrt(shares.drift),
    }
    u = shares.u
    if correct is not None:
        value, parts, u = _corrected(value, parts, u, correct)
    contributions = tuple(
        Contribution(name, parts[name])
        for name in SHAPES
        if name in parts and np.nan_to_num(parts[name]).any()
    )
    return Budget(value, u, contributions)


def _of_standards(x: FloatArray, common: Sequence[float] | Sequence[Sequence[float]]) -> FloatArray:
    """Standards do not know of each other: their parts add up as squares."""
    rows = np.array(common, dtype=np.float64).reshape(-1, 3)
    moved = rows[:, :1] + x * (rows[:, 1:2] + x * rows[:, 2:])
    return np.asarray(np.sqrt((moved * moved).sum(axis=0)))


def _corrected(
    value: FloatArray, parts: Mapping[str, FloatArray], u: FloatArray, correct: Correct
) -> tuple[FloatArray, dict[str, FloatArray], FloatArray]:
    """A correction stretches all parts alike, and adds what it leaves open."""
    corrected, corrected_u = correct(value, u)
    _, left_open = correct(value, np.zeros_like(u))
    stretched = np.sqrt(np.maximum(corrected_u * corrected_u - left_open * left_open, 0.0))
    factor = np.divide(stretched, u, out=np.ones_like(u), where=u > 0.0)
    return (
        corrected,
        {name: one * factor for name, one in parts.items()} | {"correction": left_open},
        corrected_u,
    )


def effective_degrees_of_freedom(u: float, parts: Sequence[tuple[float, float]]) -> float:
    """ν of the whole from those of its parts: u⁴ / Σ uᵢ⁴/νᵢ (Welch–Satterthwaite; JCGM 100:2008 §G.4.1, Eq. G.2b).

    Args:
        u: standard uncertainty of the whole.
        parts: standard uncertainty and degrees of freedom of each part, same unit; infinity where it does not come from a scatter.

    >>> round(effective_degrees_of_freedom(0.5, [(0.3, 4.0), (0.4, math.inf)]), 2)
    30.86
    """
    rest = sum(one**4 / freedom for one, freedom in parts)
    return math.inf if rest == 0.0 else u**4 / rest


def percentages(shares: Sequence[float]) -> list[float]:
    """Shares of a whole in per cent, one decimal each, which add up to 100 as they stand.

    What rounding leaves over goes to those that it took most from.

    >>> percentages([1 / 3, 1 / 3, 1 / 3])
    [33.4, 33.3, 33.3]
    """
    total = sum(shares)
    if total <= 0.0:
        return [0.0 for _ in shares]
    exact = [1000.0 * one / total for one in shares]
    tenths = [math.floor(one) for one in exact]
    by_loss = sorted(range(len(exact)), key=lambda place: tenths[place] - exact[place])
    for place in by_loss[: 1000 - sum(tenths)]:
        tenths[place] += 1
    return [one / 10.0 for one in tenths]


# ---------------------------------------------------------------------------------------------- what would make it surer


OF_THE_PROBE: Final = ("fit", "reference", "probe", "probe_relative", "drift")
"""What a new calibration of the probe puts others in the place of."""

_SITE_TEMPERATURE: Final = (0.1, 0.0)

SITE_CALIBRATED: Final[dict[str, tuple[float, float]]] = {
    "soil_water_tension": (1.0, 0.03),
    "soil_water_content": (0.03, 0.0),
    "soil_permittivity": (0.5, 0.02),
    "soil_moisture_index": (0.02, 0.0),
    "soil_conductivity": (20.0, 0.03),
    "soil_temperature": _SITE_TEMPERATURE,
    "water_temperature": _SITE_TEMPERATURE,
    "air_temperature": _SITE_TEMPERATURE,
    "dissolved_oxygen": (0.1, 0.01),
    "oxygen_saturation": (1.0, 0.01),
    "ph": (0.03, 0.0),
    "conductivity_25": (2.0, 0.01),
    "turbidity": (0.5, 0.03),
    "water_level": (0.005, 0.0),
}
"""What is left of a probe's own u after a careful calibration where it works, standard included: absolute, published unit, and part of the
value. Our judgement: for "a calibration would bring u to about …", and for drafts whose author says nothing of the probe's own u."""


def own_after_calibration(
    observed_property: str, absolute: float, relative: float, *, has_slope: bool
) -> tuple[float, float]:
    """A probe's own u beside a fit, absolute and relative, where nobody says it: of its maker's what a calibration leaves.

    The maker's tells how parts differ, which a calibration of this part takes away; what is left is never more.

    Args:
        absolute, relative: the maker's, published unit and part of the value.
        has_slope: the fit finds a slope, too; without one the relative part stays.

    >>> own_after_calibration("soil_water_content", 0.1, 0.0, has_slope=True)
    (0.03, 0.0)
    """
    left = SITE_CALIBRATED.get(observed_property)
    if left is None:
        return absolute, relative
    return min(absolute, left[0]), min(relative, left[1]) if has_slope else relative


_WORTH_SAYING: Final = 0.85
"""Who can make u less than a seventh smaller is not told to."""


@dataclass(frozen=True)
class Remedy:
    """What would make a value surer, by code, and the u that it would have then, published unit.

    calibrate: the probe where it works, which nobody did yet. calibrate_again: it was long ago. thermometer: one that works beside it.
    better_thermometer: the one beside it, calibrated.
    """

    code: str
    u: float


def remedies(
    observed_property: str,
    value: float,
    parts: Mapping[str, float],
    *,
    is_site_calibrated: bool,
) -> list[Remedy]:
    """What would make one value surer, by what it brings; empty where nothing that we know of does.

    Args:
        observed_property: row of `SITE_CALIBRATED`; without one a calibration promises nothing.
        value: published unit.
        parts: standard uncertainties by name (`SHAPES`), published unit.
        is_site_calibrated: the probe has a calibration beside its maker's.

    >>> remedies("soil_water_content", 0.3, {"probe": 0.1, "resolution": 0.001}, is_site_calibrated=False)
    [Remedy(code='calibrate', u=0.03001666203960727)]
    """
    now = _whole(parts.values())
    found = []
    after = SITE_CALIBRATED.get(observed_property)
    if after is not None and not is_site_calibrated:
        rest = [u for name, u in parts.items() if name not in OF_THE_PROBE]
        found.append(Remedy("calibrate", _whole([*rest, after[0], after[1] * value])))
    for code, without in (
        ("calibrate_again", "drift"),
        ("thermometer", "temperature_assumed"),
        ("better_thermometer", "temperature"),
    ):
        if without in parts:
            found.append(Remedy(code, _whole([u for name, u in parts.items() if name != without])))
    return sorted((one for one in found if one.u < _WORTH_SAYING * now), key=lambda one: one.u)


def _whole(parts: Iterable[float]) -> float:
    return math.sqrt(sum(u * u for u in parts))

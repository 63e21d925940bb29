"""What an observation's uncertainty is made of: a table whose squares add up to the u that `pipeline` states.

For people who ask why a value is not surer, and for the benchmark that checks that it is as sure as it says. It takes the same
way as `pipeline.observe` and is not stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from fleet_server.measurement.pipeline import CONVERSIONS, Observed

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
}
"""Every contribution that there is, in the order of the way from the wire to the value.

resolution: the last digit that the probe sends. circuit: the node's own resistors. temperature: the thermometer that a reading is put
right by; temperature_assumed: instead of it, where it was silent. formula: where published equations differ. pressure: of the air, which
nobody measured. alpha: how waters differ in conductivity's temperature coefficient. sound, humidity: the speed of sound that a module
assumes, and what vapour does to it. fit: the calibration's coefficients with their covariances, without reference: what the standard's own
certificate leaves open, the same at all points. probe, probe_relative: the probe itself beside all that, from its data sheet or the points'
scatter. drift: since the calibration.
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
    common: tuple[float, float, float] = (0.0, 0.0, 0.0),
    times_s: ArrayLike | None = None,
) -> Budget:
    """The budget of what `pipeline.observe` makes of the same arguments.

    Args:
        conversion, raw, inputs, calibration, times_s: as there.
        common: `fits.Fit.common` of the calibration's fit; with zeros the reference is part of "fit".

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
    reference = np.abs(common[0] + converted.x * (common[1] + converted.x * common[2]))
    parts = {name: per_x * u for name, u in converted.parts().items()} | {
        "fit": np.sqrt(np.maximum(shares.fit - reference * reference, 0.0)),
        "reference": reference,
        "probe": np.broadcast_to(columns.u_abs, value.shape),
        "probe_relative": np.abs(columns.u_rel * value),
        "drift": np.zeros_like(value) if shares.drift is None else np.sqrt(shares.drift),
    }
    contributions = tuple(
        Contribution(name, parts[name])
        for name in SHAPES
        if name in parts and np.nan_to_num(parts[name]).any()
    )
    return Budget(value, shares.u, contributions)

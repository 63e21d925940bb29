"""Standard uncertainty of a result from those of its inputs, where no closed form is at hand.

Series go through the closed forms of `calibration` and `pipeline`; this is for single results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

_RELATIVE_STEP = 1e-5  # near the cube root of double precision: best for central differences


def combined_uncertainty(
    function: Callable[..., float],
    values: Mapping[str, float],
    uncertainties: Mapping[str, float],
) -> float:
    """Standard uncertainty of `function(**values)` for independent inputs.

    u² = Σ (∂f/∂xᵢ · uᵢ)² (JCGM 100:2008 §5.1.2, Eq. 10), with derivatives by central differences, one-sided at the
    edge of the function's range.

    Args:
        function: takes the inputs by name; gives NaN outside its range.
        values: all inputs.
        uncertainties: standard uncertainties of those that have one, in the inputs' units.

    Returns:
        In the function's unit; NaN when `values` are outside the function's range.

    >>> round(combined_uncertainty(lambda x, y: x * y, {"x": 3.0, "y": 4.0}, {"x": 0.1, "y": 0.2}), 6)
    0.72111
    """
    parts = [_slope(function, values, name) * u for name, u in uncertainties.items()]
    return math.hypot(*parts)


def _slope(function: Callable[..., float], values: Mapping[str, float], name: str) -> float:
    at = values[name]
    step = _RELATIVE_STEP * max(abs(at), 1e-3)
    points = [(x, function(**{**values, name: x})) for x in (at - step, at, at + step)]
    inside = [point for point in points if not math.isnan(point[1])]
    if len(inside) < 2 or math.isnan(points[1][1]):
        return math.nan
    (first_x, first_y), (last_x, last_y) = inside[0], inside[-1]
    return (last_y - first_y) / (last_x - first_x)

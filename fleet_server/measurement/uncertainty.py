"""Standard uncertainty of a result from those of its inputs, where no closed form is at hand.

Series of observations go through the closed forms of `calibration` and `pipeline`; this is for single results and for what is derived from
observations (`deriving`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_RELATIVE_STEP = 1e-5  # near the cube root of double precision: best for central differences


def combined_uncertainty(
    function: Callable[..., float],
    values: Mapping[str, float],
    uncertainties: Mapping[str, float],
) -> float:
    """`propagated` for one result of a function of single numbers.

    >>> round(combined_uncertainty(lambda x, y: x * y, {"x": 3.0, "y": 4.0}, {"x": 0.1, "y": 0.2}), 6)
    0.72111
    """
    return float(propagated(function, values, uncertainties))


def propagated(
    function: Callable[..., Any],
    values: Mapping[str, ArrayLike],
    uncertainties: Mapping[str, ArrayLike],
) -> FloatArray:
    """Standard uncertainty of `function(**values)` for independent inputs, row by row.

    u² = Σ (∂f/∂xᵢ · uᵢ)² (JCGM 100:2008 §5.1.2, Eq. 10), with derivatives by central differences, one-sided at the
    edge of the function's range.

    Args:
        function: takes the inputs by name; gives NaN outside its range.
        values: all inputs, any one shape or single numbers.
        uncertainties: standard uncertainties of those that have one, in the inputs' units.

    Returns:
        In the function's unit; NaN where `values` are outside the function's range.

    >>> propagated(lambda x, y: x * y, {"x": [3.0, 0.0], "y": 4.0}, {"x": 0.1, "y": [0.2, 0.3]}).round(6).tolist()
    [0.72111, 0.4]
    """
    at = {name: np.asarray(value, dtype=np.float64)[()] for name, value in values.items()}
    squared: Any = 0.0
    for name, u in uncertainties.items():
        part = _slope(function, at, name) * np.asarray(u, dtype=np.float64)
        squared = squared + part * part
    return np.asarray(np.sqrt(squared), dtype=np.float64)


def _slope(function: Callable[..., Any], at: Mapping[str, Any], name: str) -> FloatArray:
    here = at[name]
    step = _RELATIVE_STEP * np.maximum(np.abs(here), 1e-3)
    middle = np.asarray(function(**at), dtype=np.float64)
    low = np.asarray(function(**{**at, name: here - step}), dtype=np.float64)
    high = np.asarray(function(**{**at, name: here + step}), dtype=np.float64)
    is_low, is_high = ~np.isnan(low), ~np.isnan(high)
    rise = np.where(is_high, high, middle) - np.where(is_low, low, middle)
    # Distances as they are after rounding, not as they were meant.
    run = np.where(is_high, here + step, here) - np.where(is_low, here - step, here)
    is_inside = ~np.isnan(middle) & (is_low | is_high)
    return np.where(is_inside, rise / np.where(is_inside, run, 1.0), np.nan)

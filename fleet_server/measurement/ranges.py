"""What lies outside the range of an equation is no number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def within(values: ArrayLike, minimum: float, maximum: float) -> FloatArray:
    """The values as float64, any shape; NaN where they are outside of minimum to maximum, or NaN already.

    >>> within([1.0, 5.0, 6.0], 1.0, 5.0).tolist()
    [1.0, 5.0, nan]
    """
    x = np.asarray(values, dtype=np.float64)
    return np.where((x >= minimum) & (x <= maximum), x, np.nan)

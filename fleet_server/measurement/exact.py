"""The exponential function by +, −, · and ÷ alone, so that it has the same bits on every machine (decision 0011)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# ln 2 in two parts (fdlibm, e_exp.c): k times the first is exact for |k| < 2¹¹, for its last 21 bits are zero.
_LN2_HIGH: Final = 6.93147180369123816490e-01
_LN2_LOW: Final = 1.90821492927058770002e-10
_INVERSE_LN2: Final = 1.44269504088896338700
_TERMS: Final = 14  # the next is below 2⁻⁵³ for |r| ≤ ln(2)/2
_LARGEST: Final = 700.0


def exp(x: FloatArray) -> FloatArray:
    """eˣ = 2ᵏ · eʳ with k = ⌊x/ln 2⌉, eʳ by its Taylor series; within two units in the last place.

    Args:
        x: any shape. NaN, and what is beyond ±700, gives NaN.

    >>> exp(np.array([0.0, 1.0])).round(12).tolist()
    [1.0, 2.718281828459]
    >>> bool(np.isnan(exp(np.array(701.0))))
    True
    """
    x = np.where(np.abs(x) <= _LARGEST, x, np.nan)
    k = np.rint(x * _INVERSE_LN2)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    series = np.ones_like(r)
    for n in range(_TERMS, 0, -1):
        series = 1.0 + series * r / n
    whole = np.where(np.isnan(k), 0.0, k).astype(np.int32)
    return np.where(np.isnan(x), np.nan, np.ldexp(series, whole))

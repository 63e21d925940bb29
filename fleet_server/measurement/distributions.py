"""How far a result may lie from the truth: χ², Student's t, and a rectangle seen through a normal distribution.

Closed forms for whole degrees of freedom. Nothing here touches a reading; it judges a fit, or tells a coverage factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable

LEVEL = 0.95
"""What an expanded uncertainty is to hold."""

_STEPS = 80  # of halving: from any start to the last bit


def chi_squared_tail(chi_squared: float, degrees_of_freedom: int) -> float:
    """P(χ² ≥ what was found), whole ν ≥ 0 (Abramowitz and Stegun 1964, 26.4.4 and 26.4.5); 1 for ν = 0.

    >>> round(chi_squared_tail(7.814728, 3), 6), round(chi_squared_tail(9.487729, 4), 6)
    (0.05, 0.05)
    """
    if degrees_of_freedom == 0 or chi_squared <= 0.0:
        return 1.0
    half = chi_squared / 2.0
    is_odd = degrees_of_freedom % 2 == 1
    tail = math.erfc(math.sqrt(half)) if is_odd else 0.0
    # Term k of e^(−h) h^k / Γ(k + 1); by logarithms, so that a large h neither overflows nor ends at zero too early.
    first = 0.5 if is_odd else 0.0
    for number in range(degrees_of_freedom // 2):
        k = first + number
        tail += math.exp(k * math.log(half) - half - math.lgamma(k + 1.0))
    return min(tail, 1.0)


def student_within(t: float, degrees_of_freedom: int) -> float:
    """P(|t_ν| ≤ t), whole ν ≥ 1 (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    >>> round(student_within(2.570582, 5), 6), round(student_within(4.302653, 2), 6)
    (0.95, 0.95)
    """
    theta = math.atan(t / math.sqrt(degrees_of_freedom))
    sine, cosine = math.sin(theta), math.cos(theta)
    if degrees_of_freedom % 2 == 0:
        return sine * _series(cosine, range(1, degrees_of_freedom - 2, 2))
    if degrees_of_freedom == 1:
        return 2.0 * theta / math.pi
    series = cosine * _series(cosine, range(2, degrees_of_freedom - 2, 2))
    return 2.0 / math.pi * (theta + sine * series)


def _series(cosine: float, numerators: range) -> float:
    """1 + Π n/(n + 1) cos² …: both of the equations' sums."""
    term, total = 1.0, 1.0
    for numerator in numerators:
        term *= numerator / (numerator + 1.0) * cosine * cosine
        total += term
    return total


def t95(degrees_of_freedom: int) -> float:
    """Coverage factor for 95 % when the spread was estimated with ν degrees of freedom (JCGM 100:2008, table G.2).

    >>> [round(t95(n), 2) for n in (1, 2, 3, 5, 10, 29)]
    [12.71, 4.3, 3.18, 2.57, 2.23, 2.05]
    """
    if degrees_of_freedom < 1:
        raise ValueError("Without a degree of freedom nothing is known of the spread.")
    return _where(lambda t: student_within(t, degrees_of_freedom), LEVEL, 1000.0)


def one_term_p_value(f: float, degrees_of_freedom: int) -> float:
    """P(F(1, ν) ≥ f): whether one more term explains more than chance would. F(1, ν) is t².

    >>> round(one_term_p_value(6.607891, 5), 6)
    0.05
    """
    return 1.0 - student_within(math.sqrt(max(f, 0.0)), degrees_of_freedom)


def coverage_factor(u_rectangular: float, u_normal: float) -> float:
    """k for 95 % of the sum of one rectangular and one normal part: 1.645 for a rectangle alone, 1.960 for none.

    k = 2 is for sums of many parts; one rectangle that is larger than all the rest ends at √3 of its u (JCGM 100:2008, G.1.3).

    Args:
        u_rectangular, u_normal: standard uncertainties of both, same unit, not both zero.

    >>> [round(coverage_factor(*parts), 3) for parts in ((1, 0), (1, 0.5), (0, 1))]
    [1.645, 1.81, 1.96]
    """
    total = math.hypot(u_rectangular, u_normal)
    if not total > 0.0:
        raise ValueError("Without an uncertainty there is nothing to cover.")
    half, sigma = math.sqrt(3.0) * u_rectangular / total, u_normal / total
    return _where(lambda k: _within(k, half, sigma), LEVEL, 4.0)


def _within(k: float, half: float, sigma: float) -> float:
    """P(|rectangle of ± half + normal of sigma| ≤ k)."""
    if sigma < 1e-6:
        return min(k / half, 1.0)
    if half < 1e-6:
        return math.erf(k / sigma / math.sqrt(2.0))
    return (_overlap((k + half) / sigma) - _overlap((k - half) / sigma)) * sigma / half - 1.0


def _overlap(z: float) -> float:
    """∫ Φ from −∞ to z."""
    cumulative = 0.5 * math.erfc(-z / math.sqrt(2.0))
    return z * cumulative + math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)


def _where(rising: Callable[[float], float], level: float, end: float) -> float:
    low, high = 0.0, end
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < level else (low, middle)
    return high

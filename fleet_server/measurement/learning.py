"""Limits that one site has shown itself to need, from its first thirty accepted days; never narrower than the rules they widen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fleet_server.measurement.in_context import Context, in_context
from fleet_server.measurement.quality import Flag, FlagArray, QualityTest
from fleet_server.measurement.rules import Rules, Season
from fleet_server.measurement.windows import DAY_S, FloatArray, Series

ACCEPTED_DAYS = 30
QUANTILE = 0.999
_CLIMATOLOGY_DEVIATIONS = 6.0
_LEAST_ROWS_A_DAY = 8
_WHOLE_YEAR = (1, 366)


def learn(
    series: Series, flags: FlagArray, rules: Rules, *, with_climatology: bool = False
) -> Rules | None:
    """Rules of a site whose own first days go beyond the given ones: the 99.9th percentile of what they did, if that is more.

    Args:
        series: the channel from its beginning, published unit.
        flags: QARTOD flags of its rows as people have accepted them: good ones are learned from.
        rules: what it is judged by until then; their limits are the floor.
        with_climatology: also learn where its values lie, median ± 6 median absolute deviations, for properties whose level is the
            site's own (water level).

    Returns:
        None when fewer than 30 days were accepted: nothing is learned from less.

    >>> from fleet_server.measurement.rules import DEFAULTS
    >>> learn(Series([0], [1.0]), np.array([1], np.int16), DEFAULTS["water_level"]) is None
    True
    """
    first = _accepted(series, flags)
    if first is None:
        return None
    outcomes = in_context(first, replace(rules, climatology=()), Context())
    learned = rules
    if rules.spike is not None:
        # A departure is learned in the unit of its limit.
        departure = outcomes[QualityTest.SPIKE].numbers["departure"]
        if rules.spike.is_relative:
            departure = departure / np.abs(outcomes[QualityTest.SPIKE].numbers["expected"])
        suspect = _widened(departure, rules.spike.suspect)
        fail = rules.spike.fail * (suspect / rules.spike.suspect)
        learned = replace(learned, spike=replace(rules.spike, suspect=suspect, fail=fail))
    if rules.rate is not None:
        numbers = outcomes[QualityTest.RATE_OF_CHANGE].numbers
        # What was believed is the limit over that time: the ratio is how much of it was used.
        used = np.abs(numbers["change"]) / numbers["believed"]
        rose = numbers["change"] > 0
        rate = replace(
            rules.rate,
            rise_per_h=rules.rate.rise_per_h * _widened(used[rose], 1.0),
            fall_per_h=rules.rate.fall_per_h * _widened(used[~rose], 1.0),
        )
        learned = replace(learned, rate=rate)
    if with_climatology:
        learned = replace(learned, climatology=(_span(first.values),))
    return learned


def _accepted(series: Series, flags: FlagArray) -> Series | None:
    """The good rows of the first thirty days that have enough of them."""
    is_good = (flags == Flag.GOOD) & np.isfinite(series.values)
    days, count = np.unique(series.times_s[is_good] // DAY_S, return_counts=True)
    full = days[count >= _LEAST_ROWS_A_DAY]
    if full.size < ACCEPTED_DAYS:
        return None
    is_first = is_good & (series.times_s // DAY_S <= full[ACCEPTED_DAYS - 1])
    rows = np.flatnonzero(is_first)
    return Series(series.times_s[rows], series.values[rows])


def _widened(found: FloatArray, floor: float) -> float:
    known = found[np.isfinite(found)]
    if not known.size:
        return floor
    return max(floor, float(np.quantile(known, QUANTILE, method="higher")))


def _span(values: FloatArray) -> Season:
    middle = float(np.median(values))
    half = _CLIMATOLOGY_DEVIATIONS * float(np.median(np.abs(values - middle)))
    half = max(half, abs(middle) * 1e-6, 1e-9)  # a site that never moved has a span too
    return Season(*_WHOLE_YEAR, low=middle - half, high=middle + half)

"""Forecasts made again as they would have been made then, with what was known then and nothing else.

A value counts as known when it was sampled and when this version of it was known (`known_from`): what was corrected later is not seen. A
forecaster gets a copy of that and a question, never the answer. Bands come from the errors of forecasts whose outcome was known by then
(conformal, Vovk et al. 2005, on a rolling window), and the method that was best by then is the one that counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.measurement.windows import Series

FloatArray = NDArray[np.float64]

BAND: Final = (0.1, 0.9)
WINDOW: Final = 100
"""Errors that a band looks back at, at most."""

LEAST_ERRORS: Final = 9
"""With fewer there is no 10th percentile of the next error: the band is open."""

LEAST_TO_CHOOSE: Final = 10
CHOSEN: Final = "chosen"
"""The method that had the least error by then."""

TOGETHER: Final = "all together"
"""The mean of all methods that can say something: errors of different kinds even out (Bates and Granger 1969)."""


@dataclass(frozen=True)
class Stored:
    """A series with when each of its values was known; None: when it was sampled."""

    series: Series
    known_from_s: NDArray[np.int64] | None = None

    def at(self, instant_s: int) -> Series:
        """A copy of what was known at an instant."""
        is_known = self.series.times_s <= instant_s
        if self.known_from_s is not None:
            is_known &= self.known_from_s <= instant_s
        return Series(self.series.times_s[is_known].copy(), self.series.values[is_known].copy())


@dataclass(frozen=True)
class Question:
    """What is asked: the value `due_s` seconds since 1970, asked at `issued_at_s`."""

    issued_at_s: int
    due_s: int


@dataclass(frozen=True)
class Known:
    """What a forecaster may see, by name."""

    series: Mapping[str, Series]


Forecaster = Callable[[Known, Question], float]
"""NaN: it cannot say."""


@dataclass(frozen=True)
class Case:
    """A question with its answer. NaN: nobody knows.

    known_from_s: since when this answer is known; None: since it is due. One that was corrected later is no error that anybody knew of before.
    """

    question: Question
    truth: float
    known_from_s: int | None = None

    def is_known_at(self, instant_s: int) -> bool:
        return instant_s >= max(self.question.due_s, self.known_from_s or self.question.due_s)


@dataclass
class Forecasts:
    """One method's forecasts, one for each case, with the band P10–P90 (NaN: open)."""

    value: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    method: list[str] = field(default_factory=list)

    def add(self, value: float, errors: Sequence[float], method: str) -> None:
        below, above = conformal(errors)
        self.value.append(value)
        self.low.append(value + below)
        self.high.append(value + above)
        self.method.append(method)


def conformal(errors: Sequence[float], band: tuple[float, float] = BAND) -> tuple[float, float]:
    """By how much the next truth lies off a forecast, P10 and P90: the ⌊(n + 1) p⌋-th and ⌈(n + 1)(1 − p)⌉-th of the errors so far.

    Holds for the next error if it could as well have come before any of the others (exchangeable). NaN with too few.

    >>> conformal([float(error) for error in range(-9, 10)])
    (-8.0, 8.0)
    >>> conformal([0.0] * 8)
    (nan, nan)
    """
    known = sorted(error for error in errors if math.isfinite(error))
    n = len(known)
    first, last = math.floor((n + 1) * band[0] + 1e-9), math.ceil((n + 1) * band[1] - 1e-9)
    if n < LEAST_ERRORS or first < 1 or last > n:
        return math.nan, math.nan
    return known[first - 1], known[last - 1]


def run(
    stored: Mapping[str, Stored],
    cases: Sequence[Case],
    forecasters: Mapping[str, Forecaster],
    *,
    naive: str,
) -> dict[str, Forecasts]:
    """Every method's forecasts in the order of the cases, their mean (`TOGETHER`), and those of the one that was best by then (`CHOSEN`).

    Args:
        stored: what forecasters see, by name.
        cases: in the order of issue.
        forecasters: by name.
        naive: of them, the one that counts until another one has shown less error on at least `LEAST_TO_CHOOSE` outcomes known by then.

    Raises:
        ValueError: cases out of order, an answer due before it is asked, or a naive method that is not there.
    """
    _check(cases, forecasters, naive)
    results = {name: Forecasts() for name in (*forecasters, TOGETHER, CHOSEN)}
    for number, case in enumerate(cases):
        asked = case.question
        known = Known({name: one.at(asked.issued_at_s) for name, one in stored.items()})
        done = [row for row in range(number) if cases[row].is_known_at(asked.issued_at_s)]
        errors = {
            name: [cases[row].truth - results[name].value[row] for row in done[-WINDOW:]]
            for name in results
        }
        for name, forecaster in forecasters.items():
            results[name].add(forecaster(known, asked), errors[name], name)
        said = [results[name].value[-1] for name in forecasters]
        results[TOGETHER].add(_mean(said), errors[TOGETHER], TOGETHER)
        best = _best(errors, (*forecasters, TOGETHER), naive)
        if math.isnan(results[best].value[-1]):
            best = naive
        results[CHOSEN].add(results[best].value[-1], errors[best], best)
    return results


def _check(cases: Sequence[Case], forecasters: Mapping[str, Forecaster], naive: str) -> None:
    issued = [case.question.issued_at_s for case in cases]
    if issued != sorted(issued):
        raise ValueError("Forecasts are made again in the order in which they were issued.")
    if any(case.question.due_s <= case.question.issued_at_s for case in cases):
        raise ValueError("A forecast is of what comes after it was issued.")
    if naive not in forecasters:
        raise ValueError("The naive method is one of the methods.")
    if {CHOSEN, TOGETHER} & set(forecasters):
        raise ValueError(f"No method is called {CHOSEN!r} or {TOGETHER!r}.")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _best(errors: Mapping[str, list[float]], methods: Sequence[str], naive: str) -> str:
    """The method with the least squared error on the outcomes that it and the naive one both have."""
    best, least = naive, 1.0
    naive_errors = np.asarray(errors[naive], dtype=np.float64)
    for name in methods:
        own = np.asarray(errors[name], dtype=np.float64)
        is_known = np.isfinite(own) & np.isfinite(naive_errors)
        if is_known.sum() < LEAST_TO_CHOOSE:
            continue
        its, theirs = (float(np.sum(one[is_known] ** 2)) for one in (own, naive_errors))
        ratio = its / theirs if theirs > 0.0 else math.inf
        if ratio < least:
            best, least = name, ratio
    return best

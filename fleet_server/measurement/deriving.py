"""What follows from observations by a formula: per cent saturation, % nFK, un-ionised ammonia, with uncertainty and flag.

Those that `services.derivations` stores use formulas without powers: `exact.exp` has the same bits on every machine (decision 0011).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet_server.measurement.derived import Formula
from fleet_server.measurement.quality import Flag
from fleet_server.measurement.uncertainty import propagated

FloatArray = NDArray[np.float64]
FlagArray = NDArray[np.int16]


@dataclass(frozen=True)
class Column:
    """Values of one quantity with standard uncertainty and flag; shape (n,) each, or single numbers for what is the same in all rows.

    What a person states (a salinity, a soil's field capacity) has the flag good. NaN in `value`: there is none.
    """

    value: ArrayLike
    u: ArrayLike = 0.0
    flag: ArrayLike = Flag.GOOD


@dataclass(frozen=True)
class Derived:
    """Derived values, shape (n,): the formula's unit, standard uncertainty, flag."""

    value: FloatArray
    u: FloatArray
    flag: FlagArray


def derive(formula: Formula, inputs: Mapping[str, Column]) -> Derived:
    """Work a formula out row by row.

    u takes the inputs as independent (`uncertainty.propagated`). Where two of them come from one probe, or one was worked out with the
    other, that is an approximation; for saturation from a concentration that a probe made with the same thermometer it is too large.

    Args:
        formula: row of `derived.FORMULAS`.
        inputs: its arguments by name; those left out take their defaults, without uncertainty.

    Returns:
        The flag is the worst of the inputs': bad before missing, suspect, not evaluated and good. Where all inputs are there and the
        formula has no value for them, it is bad.

    Raises:
        ValueError: an argument is missing, or one is given that the formula does not have.

    >>> from fleet_server.measurement.derived import FORMULAS
    >>> at = derive(FORMULAS["percent_saturation"], {
    ...     "oxygen_mg_l": Column([7.6, 8.0, np.nan], [0.1, 0.1, np.nan], [1, 3, 9]),
    ...     "temperature_c": Column([20.0, 20.0, 20.0], 0.15, [1, 1, 1]),
    ...     "pressure_hpa": Column(1003.0, 2.0)})
    >>> at.value.round(2).tolist(), at.u.round(2).tolist(), at.flag.tolist()
    ([84.46, 88.91, nan], [1.15, 1.16, nan], [1, 3, 9])
    """
    known = {argument.name for argument in formula.arguments}
    needed = {argument.name for argument in formula.arguments if argument.default is None}
    if not needed <= inputs.keys() <= known:
        raise ValueError(f"{formula.name} takes {', '.join(sorted(known))}.")
    columns = np.broadcast_arrays(*(np.atleast_1d(one.value) for one in inputs.values()))
    values = {name: column.astype(np.float64) for name, column in zip(inputs, columns, strict=True)}
    value = np.asarray(formula.function(**values), dtype=np.float64)
    u = propagated(formula.function, values, {name: one.u for name, one in inputs.items()})
    flag = np.full(value.shape, Flag.GOOD, dtype=np.int16)
    for name, one in inputs.items():
        flag = _worse(flag, _with_missing(one.flag, values[name]))
    is_impossible = np.isnan(value) & (flag != Flag.MISSING)
    return Derived(value, u, np.where(is_impossible, Flag.BAD, flag).astype(np.int16))


_FROM_BEST: Final = (Flag.GOOD, Flag.NOT_EVALUATED, Flag.SUSPECT, Flag.MISSING, Flag.BAD)


def _worse(one: FlagArray, other: FlagArray) -> FlagArray:
    rank = np.zeros(10, dtype=np.int64)
    rank[[*_FROM_BEST]] = np.arange(len(_FROM_BEST))
    return np.where(rank[one] >= rank[other], one, other)


def _with_missing(flag: ArrayLike, value: FloatArray) -> FlagArray:
    """What has no value and is not bad is missing."""
    flags = np.asarray(flag, dtype=np.int16)
    return np.where(np.isnan(value) & (flags != Flag.BAD), Flag.MISSING, flags).astype(np.int16)

"""Quality flags: QARTOD's five, and two bits for every test behind them.

Lives here: flags, test results, the range test and its table. Tests that need other times or other streams are in `in_context`, their
limits in `rules`; until they are filled their bits say "not evaluated".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
FlagArray = NDArray[np.int16]
TestArray = NDArray[np.int32]
ResultArray = NDArray[np.integer[Any]]


class Flag(IntEnum):
    """QARTOD's primary flags (IOOS, Manual for the Use of Real-Time Oceanographic Data Quality Control Flags)."""

    GOOD = 1
    NOT_EVALUATED = 2
    SUSPECT = 3
    BAD = 4
    MISSING = 9


class QualityTest(IntEnum):
    """Position of a test in the 16 pairs of bits. A number once given is never given to another test."""

    GROSS_RANGE = 0
    SPIKE = 1
    RATE_OF_CHANGE = 2
    FLAT_LINE = 3
    ATTENUATED = 4
    NEIGHBOUR = 5
    FROST = 6
    INPUT = 7  # a channel that the conversion needs was missing or not good
    SERVICE_WINDOW = 8
    PERSON = 9
    CLIMATOLOGY = 10
    EXPOSED = 11  # a soil probe that the air reaches
    OUT_OF_WATER = 12
    FOULING = 13
    TIME = 14  # when it was sampled is an estimate
    PROBE = 15  # what a probe of this property shows when it is broken: a mismatch, a cracked glass, a blocked vent


class Result(IntEnum):
    """What one test said, in two bits."""

    NOT_EVALUATED = 0
    GOOD = 1
    SUSPECT = 2
    BAD = 3


_FLAG_OF_RESULT: Final = (Flag.NOT_EVALUATED, Flag.GOOD, Flag.SUSPECT, Flag.BAD)

# The probe answered, and what it answered cannot be true: bad. Everything else: nothing was measured, missing.
_BAD_REASONS: Final = frozenset({"range", "short", "open", "spread"})


@dataclass(frozen=True)
class GrossRange:
    """Limits of one property in its published unit: outside `fail` is bad, outside `suspect` is suspect."""

    unit: str
    fail: tuple[float, float]
    suspect: tuple[float, float]


GROSS_RANGES: Final = {
    "soil_water_tension": GrossRange("kPa", fail=(0.0, 239.0), suspect=(0.0, 200.0)),
    "soil_water_content": GrossRange("m3/m3", fail=(0.0, 1.0), suspect=(0.02, 0.60)),
    "soil_permittivity": GrossRange("1", fail=(1.0, 100.0), suspect=(2.0, 81.0)),
    "soil_temperature": GrossRange("Cel", fail=(-30.0, 60.0), suspect=(-15.0, 40.0)),
    "water_temperature": GrossRange("Cel", fail=(-2.0, 40.0), suspect=(-0.5, 32.0)),
    "dissolved_oxygen": GrossRange("mg/L", fail=(0.0, 25.0), suspect=(0.5, 25.0)),
    "oxygen_saturation": GrossRange("%", fail=(0.0, 300.0), suspect=(5.0, 200.0)),
    "ph": GrossRange("pH", fail=(0.0, 14.0), suspect=(5.5, 10.5)),
    "conductivity_25": GrossRange("uS/cm", fail=(0.0, 20_000.0), suspect=(50.0, 3_000.0)),
    "turbidity": GrossRange("FNU", fail=(0.0, 4_000.0), suspect=(0.0, 1_000.0)),
    "water_level": GrossRange("m", fail=(-0.1, math.inf), suspect=(-0.1, math.inf)),
    "probe_counts": GrossRange("1", fail=(0.0, 65_534.0), suspect=(0.0, 65_534.0)),
    "wiper_age": GrossRange("s", fail=(0.0, math.inf), suspect=(0.0, 86_400.0)),
    "soil_conductivity": GrossRange("uS/cm", fail=(0.0, 20_000.0), suspect=(0.0, 5_000.0)),
    "soil_moisture_index": GrossRange("1", fail=(-0.25, 1.25), suspect=(0.0, 1.0)),
    "air_temperature": GrossRange("Cel", fail=(-40.0, 60.0), suspect=(-25.0, 45.0)),
    "contact_closed": GrossRange("1", fail=(0.0, 1.0), suspect=(0.0, 1.0)),
    "reference_resistance": GrossRange(
        "Ohm", fail=(9_000.0, 11_000.0), suspect=(9_700.0, 10_300.0)
    ),
    "battery_voltage": GrossRange("mV", fail=(0.0, 6_000.0), suspect=(2_500.0, 5_500.0)),
}
"""Soil water content's fail limits after ISMN (Dorigo et al. 2013); the rest are ours."""


def flag_of_reason(reason: str | None) -> Flag:
    """Flag of a reading without a value.

    >>> flag_of_reason("open"), flag_of_reason("absent"), flag_of_reason(None)
    (<Flag.BAD: 4>, <Flag.MISSING: 9>, <Flag.MISSING: 9>)
    """
    return Flag.BAD if reason in _BAD_REASONS else Flag.MISSING


def gross_range(
    value: FloatArray, observed_property: str, own: GrossRange | None = None
) -> TestArray:
    """Results of the range test (QARTOD test 4, "gross range"; limits themselves are inside).

    Args:
        value: published unit of the property, shape (n,). NaN: no value.
        observed_property: row of `GROSS_RANGES`; one without a row is not evaluated.
        own: limits in the same unit that hold instead.

    Returns:
        `Result` numbers, shape (n,); not evaluated for NaN.

    >>> gross_range(np.array([-1.0, 10.0, 210.0, np.nan]), "soil_water_tension").tolist()
    [3, 1, 2, 0]
    """
    limits = own or GROSS_RANGES.get(observed_property)
    if limits is None:
        return np.zeros(value.shape, dtype=np.int32)
    is_bad = (value < limits.fail[0]) | (value > limits.fail[1])
    is_suspect = (value < limits.suspect[0]) | (value > limits.suspect[1])
    result = np.select(
        [np.isnan(value), is_bad, is_suspect],
        [Result.NOT_EVALUATED, Result.BAD, Result.SUSPECT],
        default=Result.GOOD,
    )
    return result.astype(np.int32)


def pack_results(results: Mapping[QualityTest, ResultArray], length: int) -> TestArray:
    """Put the results of single tests into one number per row, two bits per test.

    >>> packed = pack_results({QualityTest.GROSS_RANGE: np.array([1]), QualityTest.FROST: np.array([3])}, 1)
    >>> bin(packed[0])
    '0b11000000000001'
    """
    packed = np.zeros(length, dtype=np.int32)
    for test, result in results.items():
        packed |= result.astype(np.int32) << (2 * test)
    return packed


def result_of(tests: int, test: QualityTest) -> Result:
    """Read one test's result from the packed number."""
    return Result((tests >> (2 * test)) & 3)


_EVERY_LOW: Final = 0x5555_5555  # the lower bit of each pair
_FILLED_LATER: Final = (
    QualityTest.SPIKE,
    QualityTest.RATE_OF_CHANGE,
    QualityTest.FLAT_LINE,
    QualityTest.ATTENUATED,
    QualityTest.NEIGHBOUR,
    QualityTest.SERVICE_WINDOW,
    QualityTest.PERSON,
    QualityTest.CLIMATOLOGY,
    QualityTest.EXPOSED,
    QualityTest.OUT_OF_WATER,
    QualityTest.FOULING,
    QualityTest.TIME,
    QualityTest.PROBE,
)


def as_stored(bits: int) -> int:
    """Bits as a signed number of 32 bits: the sixteenth test has the sign.

    >>> as_stored(1 << 30), as_stored(3 << 30)
    (1073741824, -1073741824)
    """
    return bits - (1 << 32) if bits >> 31 & 1 else bits


FILLED_BITS: Final = as_stored(sum(3 << (2 * test) for test in _FILLED_LATER))
"""Bits of tests that a reading by itself says nothing of: they are filled once more is known. Frost is either."""
_FROST_BITS: Final = 3 << (2 * QualityTest.FROST)
_PERSON_SHIFT: Final = 2 * QualityTest.PERSON


def merged_tests(alone: int, filled: int) -> int:
    """What a reading by itself says, with what was filled later: bits of tests of `filled` that are only made in context.

    >>> bin(merged_tests(0b01, 0b1110))
    '0b1101'
    """
    bits = FILLED_BITS if alone & _FROST_BITS else FILLED_BITS | _FROST_BITS
    return alone | (filled & bits)


def flag_of_tests(tests: int) -> Flag:
    """The flag of a value with these tests: the worst of them, but a person's word wins.

    >>> flag_of_tests(0b1101), flag_of_tests(0b1101 | 1 << 18), flag_of_tests(0)
    (<Flag.BAD: 4>, <Flag.GOOD: 1>, <Flag.NOT_EVALUATED: 2>)
    """
    person = (tests >> _PERSON_SHIFT) & 3
    if person:
        return _FLAG_OF_RESULT[person]
    low, high = tests & _EVERY_LOW, (tests >> 1) & _EVERY_LOW
    if low & high:
        return Flag.BAD
    return Flag.SUSPECT if high else Flag.GOOD if low else Flag.NOT_EVALUATED


def merged(
    values: FloatArray, flags: FlagArray, alone: TestArray, filled: TestArray
) -> tuple[FlagArray, TestArray]:
    """`merged_tests` and `flag_of_tests` of many rows; one without value keeps what it says by itself."""
    bits = np.where(alone & _FROST_BITS, FILLED_BITS, FILLED_BITS | _FROST_BITS)
    tests = alone.astype(np.int64) | (filled.astype(np.int64) & bits)
    low, high = tests & _EVERY_LOW, (tests >> 1) & _EVERY_LOW
    by_tests = np.select(
        [(low & high) != 0, high != 0, low != 0],
        [Flag.BAD, Flag.SUSPECT, Flag.GOOD],
        default=Flag.NOT_EVALUATED,
    )
    person = (tests >> _PERSON_SHIFT) & 3
    by_tests = np.where(person != 0, np.array(_FLAG_OF_RESULT)[person], by_tests)
    has_value = ~np.isnan(values)
    return (
        np.where(has_value, by_tests, flags).astype(np.int16),
        np.where(has_value, tests, alone).astype(np.int32),
    )


def unpack_results(tests: TestArray) -> dict[QualityTest, TestArray]:
    """The single tests' results behind packed numbers, shape (n,) each.

    >>> unpack_results(np.array([0b11000000000001]))[QualityTest.FROST].tolist()
    [3]
    """
    return {test: (tests >> np.int32(2 * test)) & np.int32(3) for test in QualityTest}


def aggregate_flag(results: Sequence[ResultArray], length: int) -> FlagArray:
    """Flag of every row from its tests: the worst result counts, and one good result is enough to be evaluated.

    Order as in QARTOD and ioos_qc: not evaluated < good < suspect < bad.

    >>> aggregate_flag([np.array([0, 0, 1, 3]), np.array([0, 1, 2, 1])], 4).tolist()
    [2, 1, 3, 4]
    """
    worst = np.zeros(length, dtype=np.int32)
    for result in results:
        worst = np.maximum(worst, result)
    return np.array(_FLAG_OF_RESULT, dtype=np.int16)[worst]

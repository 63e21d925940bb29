"""Units in which people, laboratories and other systems give numbers, turned exactly into those that we publish.

A number comes as its decimal digits (a fraction of integers) and is rounded once, at the end: the same bits on every machine. Each factor
stands on its own line with its definition; a unit that measures something else is refused with what to do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from fleet_server.measurement.quality import GROSS_RANGES

VERSION: Final = "given/1"
"""Of the factors: whatever can change one bit of a converted number gets a new one."""


@dataclass(frozen=True)
class GivenProperty:
    """What may be given of a property: the unit that it is published in, and the values that are possible at all (both included)."""

    unit: str
    possible: tuple[float, float]


# Wider than what our probes can show: a laboratory may find what they cannot.
_WIDER: Final = {
    "soil_water_tension": (0.0, 1e5),  # pF 6
    "conductivity_25": (0.0, 2e5),  # brine
    "soil_conductivity": (0.0, 2e5),
    "dissolved_oxygen": (0.0, 60.0),
    "oxygen_saturation": (0.0, 600.0),
    "turbidity": (0.0, 40_000.0),
    "water_level": (-100.0, 1000.0),  # above the zero of a gauge, wherever that is
}
_MEASURED: Final = (
    "air_temperature",
    "conductivity_25",
    "dissolved_oxygen",
    "oxygen_saturation",
    "ph",
    "soil_conductivity",
    "soil_temperature",
    "soil_water_content",
    "soil_water_tension",
    "turbidity",
    "water_level",
    "water_temperature",
)
PROPERTIES: Final[Mapping[str, GivenProperty]] = MappingProxyType(
    {
        name: GivenProperty(GROSS_RANGES[name].unit, _WIDER.get(name, GROSS_RANGES[name].fail))
        for name in _MEASURED
    }
)
"""Properties of which a number may be given; what only a probe has (its counts, its battery) is none."""


@dataclass(frozen=True)
class _Linear:
    """published = (given + offset) · factor"""

    factor: Fraction
    offset: Fraction = Fraction(0)


def _by(numerator: int, denominator: int = 1) -> _Linear:
    return _Linear(Fraction(numerator, denominator))


PF: Final = "pf"
_CONVERSIONS: Final[Mapping[str, Mapping[str, _Linear]]] = {
    "mg/L": {
        "mg/l": _by(1),
        "g/m3": _by(1),  # 1 m³ = 1000 L
        "ug/l": _by(1, 1000),
        "g/l": _by(1000),
    },
    "Cel": {
        "c": _by(1),
        "cel": _by(1),
        "k": _Linear(Fraction(1), Fraction(-27315, 100)),  # SI: definition of the degree Celsius
        "f": _Linear(Fraction(5, 9), Fraction(-32)),  # definition of the degree Fahrenheit
    },
    "uS/cm": {
        "us/cm": _by(1),
        "ms/cm": _by(1000),
        "ms/m": _by(10),  # 1 m = 100 cm
        "ds/m": _by(1000),
        "s/m": _by(10_000),
    },
    "%": {"%": _by(1), "1": _by(100)},
    "m3/m3": {
        "m3/m3": _by(1),
        "cm3/cm3": _by(1),
        "%": _by(1, 100),
        "vol.-%": _by(1, 100),
        "vol-%": _by(1, 100),
        "vol%": _by(1, 100),
        "vol.%": _by(1, 100),
    },
    "kPa": {
        "kpa": _by(1),
        "pa": _by(1, 1000),
        "hpa": _by(1, 10),
        "mbar": _by(1, 10),  # 1 bar = 100 kPa
        "cbar": _by(1),
        "bar": _by(100),
        "mpa": _by(1000),
        # 0.01 m · 1000 kg/m³ · 9.80665 m/s² (CGPM 1901)
        "cmws": _by(980665, 10_000_000),
        "cmh2o": _by(980665, 10_000_000),
    },
    "pH": {"ph": _by(1), "": _by(1), "1": _by(1), "-": _by(1)},
    "FNU": {"fnu": _by(1)},
    "m": {"m": _by(1), "dm": _by(1, 10), "cm": _by(1, 100), "mm": _by(1, 1000)},
}
_WRITTEN: Final[Mapping[str, str]] = {
    "mg/l": "mg/L", "g/m3": "g/m³", "ug/l": "µg/L", "g/l": "g/L",
    "c": "°C", "cel": "°C", "k": "K", "f": "°F",
    "us/cm": "µS/cm", "ms/cm": "mS/cm", "ms/m": "mS/m", "ds/m": "dS/m", "s/m": "S/m",
    "m3/m3": "m³/m³", "cm3/cm3": "cm³/cm³",
    "vol.-%": "Vol.-%", "vol-%": "Vol.-%", "vol%": "Vol.-%", "vol.%": "Vol.-%",
    "kpa": "kPa", "pa": "Pa", "hpa": "hPa", "mpa": "MPa", "cmws": "cmWS", "cmh2o": "cmH₂O",
    "ph": "pH", PF: "pF", "fnu": "FNU",
}  # fmt: skip
"""How a unit is told that `_plain` has made small letters of; what is missing is told as it is."""
_UNLIKE: Final[Mapping[tuple[str, str], str]] = {
    ("FNU", "ntu"): "NTU",
    ("FNU", "ftu"): "FTU",
    ("m3/m3", "gew.-%"): "Gew.-%",
    ("m3/m3", "m-%"): "M-%",
    ("m3/m3", "g/g"): "g/g",
}
"""Units that look alike and measure something else: NTU is white light (EPA 180.1), FNU infrared (ISO 7027-1); mass is not volume."""


class UnitUnknown(ValueError):
    """The property is not given in this unit; `known` names those it is."""

    def __init__(self, unit: str, known: tuple[str, ...]) -> None:
        super().__init__(unit)
        self.unit = unit
        self.known = known


class UnitUnlike(ValueError):
    """The unit measures something else; no factor leads to ours."""


def converted(number: Fraction, unit: str, observed_property: str) -> float:
    """A number in the unit in which the property is published, rounded once.

    pF is the decadic logarithm of the tension in centimetres of water (Schofield 1935).

    >>> converted(Fraction(8340), "µg/L", "dissolved_oxygen"), converted(Fraction("293.15"), "K", "water_temperature")
    (8.34, 20.0)
    >>> converted(Fraction("2.5"), "pF", "soil_water_tension")
    31.011350216090236

    Raises:
        UnitUnknown, UnitUnlike: of the unit; OverflowError: no float is so large.
    """
    if _is_pf(unit, observed_property):
        return float(_tension_of_pf(number))
    linear = _linear(unit, observed_property)
    return float((number + linear.offset) * linear.factor)


def converted_u(u: Fraction, number: Fraction, unit: str, observed_property: str) -> float:
    """A standard uncertainty of `number`, likewise; of pF by its derivative, ln 10 · tension.

    >>> converted_u(Fraction("0.2"), Fraction("293.15"), "K", "water_temperature")
    0.2

    Raises:
        as `converted`.
    """
    if _is_pf(unit, observed_property):
        with localcontext(_EXACT_ENOUGH):
            ln_10 = Decimal(10).ln()
        return float(u * Fraction(ln_10) * _tension_of_pf(number))
    return float(u * _linear(unit, observed_property).factor)


def units_of(observed_property: str) -> tuple[str, ...]:
    """Units in which a property may be given, each as people write it."""
    known = tuple(_CONVERSIONS[PROPERTIES[observed_property].unit])
    further = (PF,) if observed_property == "soil_water_tension" else ()
    written = (_WRITTEN.get(one, one) for one in (*known, *further) if one not in ("", "-"))
    return tuple(dict.fromkeys(written))


# Far more digits than a float has: what is rounded in the last of them does not reach it.
_EXACT_ENOUGH = Context(prec=50)
_LARGEST_PF = 12


def _is_pf(unit: str, observed_property: str) -> bool:
    return observed_property == "soil_water_tension" and _plain(unit) == PF


def _tension_of_pf(pf: Fraction) -> Fraction:
    if not -_LARGEST_PF <= pf <= _LARGEST_PF:
        raise OverflowError("there is no such pF")
    with localcontext(_EXACT_ENOUGH):
        cm_water = Decimal(10) ** (Decimal(pf.numerator) / Decimal(pf.denominator))
    return Fraction(cm_water) * _CONVERSIONS["kPa"]["cmws"].factor


def _linear(unit: str, observed_property: str) -> _Linear:
    published = PROPERTIES[observed_property].unit
    plain = _plain(unit)
    found = _CONVERSIONS[published].get(plain)
    if found is None:
        if (published, plain) in _UNLIKE:
            raise UnitUnlike(_UNLIKE[published, plain])
        raise UnitUnknown(unit, units_of(observed_property))
    return found


_SIGNS = str.maketrans({"µ": "u", "μ": "u", "³": "3", "²": "2", "₂": "2", "°": "", " ": ""})


def _plain(unit: str) -> str:
    """Small letters without degree sign, raised figures and blanks: `µS/cm` is `us/cm`."""
    return unicodedata.normalize("NFC", unit).translate(_SIGNS).casefold()

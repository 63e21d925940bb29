"""Why a value is flagged, as a sentence with its numbers; pages say it in their reader's language (decision 0068)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fleet_server.errors import Said
from fleet_server.measurement.quality import GROSS_RANGES, QualityTest
from fleet_server.measurement.reasons import Reason
from fleet_server.measurement.units import UNITS


class Quantity(float):
    """A number in a sentence, with its unit's code; three digits are what a reader needs.

    >>> str(Quantity(0.3104, "m3/m3")), str(Quantity(1234.5, "uS/cm")), str(Quantity(7.0, "1"))
    ('0.31 m³/m³', '1234 µS/cm', '7')
    """

    unit: str

    def __new__(cls, value: float, unit: str) -> Quantity:
        made = super().__new__(cls, value)
        made.unit = unit
        return made

    def __str__(self) -> str:
        return f"{self.digits()} {UNITS[self.unit].symbol}".rstrip()

    def digits(self) -> str:
        """In English, without the unit."""
        return f"{float(self):.0f}" if abs(self) >= 1000 else f"{float(self):.3g}"


class Number(Quantity):
    """A number in a sentence that names its unit itself, or has none; four digits.

    >>> str(Number(0.93154)), str(Number(1100.0))
    ('0.9315', '1100')
    """

    def __new__(cls, value: float) -> Number:
        made = super().__new__(cls, value, "1")
        assert isinstance(made, Number)  # noqa: S101 - it is made of this class
        return made

    def digits(self) -> str:
        return f"{float(self):.4g}"


def said(reason: Reason, observed_property: str) -> Said:
    """The sentence of one test's verdict on a value of this property."""
    unit = GROSS_RANGES[observed_property].unit
    return _SENTENCES[reason.kind](_Parts(reason.numbers, unit))


def said_without_numbers(test: QualityTest) -> Said:
    """Of a test whose circumstances cannot be looked at again: what it stands for."""
    return _NAMES[test]


class _Parts:
    """A reason's numbers as quantities."""

    def __init__(self, numbers: Mapping[str, float], unit: str) -> None:
        self._numbers = numbers
        self._unit = unit

    def __call__(self, name: str, unit: str | None = None) -> Quantity:
        return Quantity(self._numbers[name], self._unit if unit is None else unit)


_SENTENCES: Final[Mapping[str, Callable[[_Parts], Said]]] = {
    "below": lambda of: Said("%(value)s is below %(limit)s.", value=of("value"), limit=of("limit")),
    "above": lambda of: Said("%(value)s is above %(limit)s.", value=of("value"), limit=of("limit")),
    "season": lambda of: Said(
        "%(value)s is outside of %(low)s to %(high)s, which this time of the year has.",
        value=of("value"),
        low=of("low"),
        high=of("high"),
    ),
    "spike": lambda of: Said(
        "It is %(departure)s off the line between its neighbours in time (%(expected)s); at most %(believed)s is believed.",
        departure=of("departure"),
        expected=of("expected"),
        believed=of("believed"),
    ),
    "rose": lambda of: Said(
        "It rose %(change)s in %(minutes)s min; at most %(believed)s is believed.",
        change=of("change"),
        minutes=of("minutes", "1"),
        believed=of("believed"),
    ),
    "rose_without_rain": lambda of: Said(
        "It rose %(change)s in %(minutes)s min although only %(rain)s mm of rain fell in 6 h; at most %(believed)s is believed.",
        change=of("change"),
        minutes=of("minutes", "1"),
        rain=of("rain_mm", "1"),
        believed=of("believed"),
    ),
    "fell": lambda of: Said(
        "It fell %(change)s in %(minutes)s min; at most %(believed)s is believed.",
        change=of("change"),
        minutes=of("minutes", "1"),
        believed=of("believed"),
    ),
    "flat": lambda of: Said(
        "For %(hours)s h it has moved by less than %(tolerance)s.",
        hours=of("hours", "1"),
        tolerance=of("tolerance"),
    ),
    "attenuated": lambda of: Said(
        "In 24 h it has moved by %(moved)s; at least %(needed)s is usual here.",
        moved=of("moved"),
        needed=of("needed"),
    ),
    "above_neighbours": lambda of: Said(
        "It went %(apart)s higher than its %(neighbours)s neighbours did; at most %(believed)s is usual.",
        apart=of("apart"),
        neighbours=of("neighbours", "1"),
        believed=of("believed"),
    ),
    "below_neighbours": lambda of: Said(
        "It went %(apart)s lower than its %(neighbours)s neighbours did; at most %(believed)s is usual.",
        apart=of("apart"),
        neighbours=of("neighbours", "1"),
        believed=of("believed"),
    ),
    "frost": lambda of: Said(
        "The soil was frozen within an hour of it (%(temperature)s).",
        temperature=of("soil_c", "Cel"),
    ),
    "exposed": lambda of: Said(
        "The soil's warmth moves %(ratio)s as much as the air's: the probe is in the air.",
        ratio=of("ratio_pct", "%"),
    ),
    "dry_by_conductivity": lambda of: Said(
        "The water conducts %(conductivity)s, less than %(limit)s: the probe is in the air.",
        conductivity=of("conductivity_us_cm", "uS/cm"),
        limit=of("limit", "uS/cm"),
    ),
    "dry_by_level": lambda of: Said(
        "The water stands at %(level)s, not above %(limit)s: the probe is in the air.",
        level=of("level_m", "m"),
        limit=of("limit", "m"),
    ),
    "dry_by_warmth": lambda of: Said(
        "The water's warmth moves %(ratio)s as much as the air's: the probe is in the air.",
        ratio=of("ratio_pct", "%"),
    ),
    "fouling": lambda of: Said(
        "Since its last service it has crept away from its first 14 days, by a sum of %(total)s; %(alarm)s is the alarm: a film grows on it.",
        total=of("total", "1"),
        alarm=of("alarm", "1"),
    ),
    "fading": lambda of: Said(
        "Day by day its highest falls below that of the 14 days before, by a sum of %(total)s; %(alarm)s is the alarm: a film grows on it.",
        total=of("total", "1"),
        alarm=of("alarm", "1"),
    ),
    "mismatch": lambda of: Said(
        "It is %(apart)s off what the saturation beside it comes to in any weather (%(expected)s).",
        apart=of("apart"),
        expected=of("expected"),
    ),
    "cracked_glass": lambda of: Said(
        "For %(hours)s h it has stood still at pH 7: the glass is cracked, or the probe is not in the water.",
        hours=of("hours", "1"),
    ),
    "blocked_vent": lambda of: Said(
        "For a week it has gone with the air's pressure (correlation %(correlation)s): the gauge's vent is blocked.",
        correlation=of("correlation", "1"),
    ),
    "service": lambda of: Said("Somebody was working on the probe."),
    "time": lambda of: Said("When it was sampled is an estimate: the node did not know the time."),
}

_NAMES: Final[Mapping[QualityTest, Said]] = {
    QualityTest.GROSS_RANGE: Said("It is out of the range that its property has."),
    QualityTest.SPIKE: Said("It is a spike beside its neighbours in time."),
    QualityTest.RATE_OF_CHANGE: Said("It changed faster than is believed."),
    QualityTest.FLAT_LINE: Said("It has not moved for too long."),
    QualityTest.ATTENUATED: Said("It moves less than is usual here."),
    QualityTest.NEIGHBOUR: Said("It goes another way than its neighbours."),
    QualityTest.FROST: Said("The soil was frozen."),
    QualityTest.INPUT: Said("Another channel that it is worked out with was missing or not good."),
    QualityTest.SERVICE_WINDOW: Said("Somebody was working on the probe."),
    QualityTest.PERSON: Said("A person flagged it."),
    QualityTest.CLIMATOLOGY: Said("It is out of what this time of the year has."),
    QualityTest.EXPOSED: Said("The probe is in the air instead of the soil."),
    QualityTest.OUT_OF_WATER: Said("The probe is in the air instead of the water."),
    QualityTest.FOULING: Said("A film grows on the probe."),
    QualityTest.TIME: Said("When it was sampled is an estimate: the node did not know the time."),
    QualityTest.PROBE: Said("The probe shows what a broken one of its kind does."),
}

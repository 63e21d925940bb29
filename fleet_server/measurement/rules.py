"""Limits of the quality tests: one `Rules` for each property, as data that is checked when it is read.

`DEFAULTS` holds for every channel that has no rules of its own; `learning.learn` finds wider ones for a site. Every limit is in
the property's published unit (`quality.GROSS_RANGES`); a test that is None is not made.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fleet_server.measurement import plain_data
from fleet_server.measurement.quality import GROSS_RANGES, GrossRange

HOUR_S: Final = 3600
DAY_S: Final = 86_400
_LONGEST_S: Final = 92 * DAY_S
_MOST_SEASONS: Final = 24


@dataclass(frozen=True)
class Season:
    """From the day of the year to the day of the year, both included (1–366, UTC); outside `low`–`high` is suspect.

    A season that begins after it ends goes over New Year.
    """

    from_day: int
    to_day: int
    low: float
    high: float


@dataclass(frozen=True)
class Spike:
    """How far a value may lie from the straight line between its two neighbours in time.

    `within_s`: a neighbour further away is none. `is_relative`: limits are shares of what the line says.
    """

    suspect: float
    fail: float
    within_s: int = 3 * HOUR_S
    is_relative: bool = False


@dataclass(frozen=True)
class Rate:
    """How fast a value may rise and fall, per hour, since the one before, which is at most `within_s` older.

    A step counts as having taken at least `least_s`: the last digit of two readings close together is not a rate.
    `rain_mm`: so much rain within 6 h explains any rise, where rain is known; infinite: rain explains none.
    """

    rise_per_h: float
    fall_per_h: float
    within_s: int = 6 * HOUR_S
    least_s: int = 300
    is_relative: bool = False
    rain_mm: float = math.inf


@dataclass(frozen=True)
class FlatLine:
    """For how long a value may stay within less than `tolerance`. `legit`: where it may do so for ever."""

    suspect_s: int
    fail_s: int
    tolerance: float
    legit_low: float = math.inf
    legit_high: float = -math.inf


@dataclass(frozen=True)
class Attenuated:
    """What a value must move within 24 h: `least`, and `share` of the median day of the 14 before."""

    least: float
    share: float = 0.2


@dataclass(frozen=True)
class Neighbour:
    """How far a value may go its own way: `deviations` of what is usual for it, and never less than `floor`."""

    floor: float
    deviations: float = 3.5


@dataclass(frozen=True)
class Frost:
    """Soil below this temperature within ±1 h is frozen, and what is measured of its water means nothing."""

    below_c: float = 0.0


@dataclass(frozen=True)
class Exposed:
    """A soil probe follows the air: its day's range is more than `ratio` of the air's, and its soil drier than `drier_than`.

    `drier_than` infinite: the temperature alone decides (a channel that is a temperature).
    """

    ratio: float = 0.6
    drier_than: float = math.inf


@dataclass(frozen=True)
class OutOfWater:
    """A water probe in the air: the conductivity beside it is below, the level at or below, or its warmth follows the air's."""

    conductivity_us_cm: float = 10.0
    level_m: float = 0.0
    ratio: float = 0.8


@dataclass(frozen=True)
class Fouling:
    """Cumulative sum of what a day's `statistic` leaves clean days by, in their deviations.

    `statistic` "range": a growing film takes the day's swing away. "low": it lifts the day's lowest (turbidity). Both against the first
    14 days after a service. "high": it lowers the day's highest (oxygen saturation); "saturation": so it does, and what is measured are mg/L
    with the water's temperature beside. These against the 14 days before each, as a water's summits change with the season.
    """

    statistic: str
    slack: float = 0.5
    alarm: float = 10.0


@dataclass(frozen=True)
class Mismatch:
    """By how many mg/L oxygen may be off what saturation and temperature beside it come to, in any weather."""

    most: float = 0.2


@dataclass(frozen=True)
class CrackedGlass:
    """A pH glass that is broken through shows 7, whatever the water is: within `within` of it, moving by less than `tolerance`."""

    within: float = 0.1
    tolerance: float = 0.05
    window_s: int = DAY_S


@dataclass(frozen=True)
class BlockedVent:
    """A level that goes with the air's pressure: their correlation over the seven days before is above this."""

    correlation: float = 0.5


@dataclass(frozen=True)
class Rules:
    """The limits of every test of one property.

    Raises:
        ValueError: a limit is not a number, a span is turned round or a time too long; the sentence says which.
    """

    gross: GrossRange
    climatology: tuple[Season, ...] = ()
    spike: Spike | None = None
    rate: Rate | None = None
    flat_line: FlatLine | None = None
    attenuated: Attenuated | None = None
    neighbour: Neighbour | None = None
    frost: Frost | None = None
    exposed: Exposed | None = None
    out_of_water: OutOfWater | None = None
    fouling: Fouling | None = None
    mismatch: Mismatch | None = None
    cracked_glass: CrackedGlass | None = None
    blocked_vent: BlockedVent | None = None

    def __post_init__(self) -> None:
        for sentence in _faults(self):
            raise ValueError(sentence)


FOULING_STATISTICS: Final = ("range", "low", "high", "saturation")

_Checks = typing.Iterator[str]


def _faults(rules: Rules) -> _Checks:
    yield from _range_faults(rules.gross)
    if len(rules.climatology) > _MOST_SEASONS:
        yield f"A climatology has at most {_MOST_SEASONS} seasons."
    for season in rules.climatology:
        if not (1 <= season.from_day <= 366 and 1 <= season.to_day <= 366):
            yield "climatology: a day of the year is 1 to 366."
        if not (math.isfinite(season.low) and math.isfinite(season.high)):
            yield "climatology: low and high must be finite numbers."
        if not season.low < season.high:
            yield "climatology: low must be below high."
    for name in _TEST_NAMES:
        yield from _number_faults(name, getattr(rules, name))
    if rules.spike and not 0 < rules.spike.suspect <= rules.spike.fail:
        yield "spike: suspect must be above zero and not above fail."
    if rules.rate and min(rules.rate.rise_per_h, rules.rate.fall_per_h, rules.rate.least_s) <= 0:
        yield "rate: its limits must be above zero."
    if rules.flat_line and not 0 < rules.flat_line.suspect_s <= rules.flat_line.fail_s:
        yield "flat_line: suspect_s must be above zero and not above fail_s."
    if rules.fouling and rules.fouling.statistic not in FOULING_STATISTICS:
        yield 'fouling: statistic is "range", "low", "high" or "saturation".'


def _range_faults(gross: GrossRange) -> _Checks:
    (low, high), (suspect_low, suspect_high) = gross.fail, gross.suspect
    if any(math.isnan(limit) for limit in (*gross.fail, *gross.suspect)):
        yield "gross: its limits must be numbers."
    elif not (low <= suspect_low < suspect_high <= high):
        yield "gross: suspect must be a span within fail."


def _number_faults(name: str, limits: object) -> _Checks:
    if limits is None:
        return
    for field in dataclasses.fields(typing.cast(Any, limits)):
        number = getattr(limits, field.name)
        if isinstance(number, str):
            continue
        if isinstance(number, float) and (
            math.isnan(number) or (math.isinf(number) and field.name not in _MAY_BE_INFINITE)
        ):
            yield f"{name}: {field.name} must be a finite number."
        if field.name.endswith("_s") and not 0 < number <= _LONGEST_S:
            yield f"{name}: {field.name} must be from 1 to {_LONGEST_S} s."
        if (
            field.name
            in ("tolerance", "least", "share", "floor", "deviations", "most", "within", "rain_mm")
            and number < 0
        ):
            yield f"{name}: {field.name} must not be negative."


_TEST_NAMES: Final = tuple(
    field.name for field in dataclasses.fields(Rules) if field.name not in ("gross", "climatology")
)
_MAY_BE_INFINITE: Final = frozenset({"legit_low", "legit_high", "drier_than", "rain_mm"})


# -------------------------------------------------------------------------------------------------------- as plain data


def to_data(rules: Rules) -> dict[str, Any]:
    """As JSON has it; an infinite limit is null, a test that is not made is left out.

    >>> to_data(DEFAULTS["turbidity"])["spike"]["fail"]
    200.0
    """
    return {
        field.name: plain_data.plain(getattr(rules, field.name))
        for field in dataclasses.fields(rules)
        if getattr(rules, field.name) not in (None, ())
    }


def from_data(data: object) -> Rules:
    """Read what `to_data` wrote, or a person.

    Raises:
        ValueError: it is not that; the sentence says where.

    >>> from_data(to_data(DEFAULTS["ph"])) == DEFAULTS["ph"]
    True
    """
    return typing.cast(Rules, plain_data.made(Rules, data, "rules"))


# -------------------------------------------------------------------------------------------------------------- defaults

DEEP_CM: Final = 40
"""From here down a soil's day is too small to be seen by a thermometer with steps of 1/16 °C."""


def _default(observed_property: str, **tests: Any) -> Rules:
    return Rules(GROSS_RANGES[observed_property], **tests)


DEFAULTS: Final[Mapping[str, Rules]] = {
    name: Rules(gross) for name, gross in GROSS_RANGES.items()
} | {
    "soil_water_content": _default(
        "soil_water_content",
        spike=Spike(0.05, 0.10),
        rate=Rate(rise_per_h=0.15, fall_per_h=0.05, rain_mm=1.0),
        flat_line=FlatLine(24 * HOUR_S, 7 * DAY_S, 0.0005),
        neighbour=Neighbour(0.05),
        frost=Frost(),
        exposed=Exposed(drier_than=0.03),
    ),
    "soil_moisture_index": _default(
        "soil_moisture_index",
        spike=Spike(0.1, 0.2),
        rate=Rate(rise_per_h=0.3, fall_per_h=0.1, rain_mm=1.0),
        flat_line=FlatLine(24 * HOUR_S, 7 * DAY_S, 0.001),
        frost=Frost(),
        exposed=Exposed(drier_than=0.06),
    ),
    "soil_water_tension": _default(
        "soil_water_tension",
        spike=Spike(20.0, 60.0),
        rate=Rate(rise_per_h=40.0, fall_per_h=40.0),
        flat_line=FlatLine(7 * DAY_S, 21 * DAY_S, 0.1, legit_low=0.0, legit_high=1.0),
        frost=Frost(),
    ),
    "soil_temperature": _default(
        "soil_temperature",
        spike=Spike(2.0, 5.0),
        rate=Rate(3.0, 3.0),
        flat_line=FlatLine(24 * HOUR_S, 72 * HOUR_S, 0.07),
        neighbour=Neighbour(3.0),
        exposed=Exposed(),
    ),
    "air_temperature": _default(
        "air_temperature",
        spike=Spike(3.0, 8.0),
        rate=Rate(10.0, 10.0),
        flat_line=FlatLine(12 * HOUR_S, 48 * HOUR_S, 0.07),
        neighbour=Neighbour(5.0),
    ),
    "water_level": _default(
        "water_level",
        spike=Spike(0.05, 0.2),
        rate=Rate(0.3, 0.3),
        flat_line=FlatLine(3 * DAY_S, 10 * DAY_S, 0.001),
        blocked_vent=BlockedVent(),
    ),
    "water_temperature": _default(
        "water_temperature",
        spike=Spike(1.5, 4.0),
        rate=Rate(3.0, 3.0),
        flat_line=FlatLine(12 * HOUR_S, 48 * HOUR_S, 0.07),
        attenuated=Attenuated(3 * 0.0625),
        neighbour=Neighbour(3.0),
        out_of_water=OutOfWater(),
    ),
    "dissolved_oxygen": _default(
        "dissolved_oxygen",
        spike=Spike(1.5, 3.0),
        rate=Rate(3.0, 3.0),
        flat_line=FlatLine(4 * HOUR_S, 8 * HOUR_S, 0.02),
        attenuated=Attenuated(0.03),
        out_of_water=OutOfWater(),
        fouling=Fouling("saturation", alarm=3.0),
        mismatch=Mismatch(),
    ),
    "oxygen_saturation": _default(
        "oxygen_saturation",
        spike=Spike(15.0, 30.0),
        rate=Rate(30.0, 30.0),
        flat_line=FlatLine(4 * HOUR_S, 8 * HOUR_S, 0.2),
        attenuated=Attenuated(0.3),
        out_of_water=OutOfWater(),
        fouling=Fouling("high", alarm=3.0),
    ),
    "ph": _default(
        "ph",
        spike=Spike(0.5, 1.5),
        rate=Rate(1.0, 1.0),
        flat_line=FlatLine(24 * HOUR_S, 72 * HOUR_S, 0.005),
        out_of_water=OutOfWater(),
        cracked_glass=CrackedGlass(),
    ),
    "conductivity_25": _default(
        "conductivity_25",
        spike=Spike(0.15, 0.40, is_relative=True),
        rate=Rate(0.30, 0.30, is_relative=True),
        flat_line=FlatLine(48 * HOUR_S, 7 * DAY_S, 0.5),
    ),
    "turbidity": _default(
        "turbidity",
        spike=Spike(50.0, 200.0),
        rate=Rate(200.0, 200.0),
        flat_line=FlatLine(24 * HOUR_S, 72 * HOUR_S, 0.05),
        out_of_water=OutOfWater(),
        fouling=Fouling("low"),
    ),
}
"""Ours, but for the frost of soil water (ISMN: Dorigo et al. 2013, Vadose Zone J. 12(3)); the form of the tests is QARTOD's (IOOS)."""


def default_rules(observed_property: str, depth_cm: int = 0) -> Rules | None:
    """Rules of a channel that has none of its own; None for a property that nobody knows.

    Deep soil keeps its temperature for days: there only a week without any change is one.

    >>> default_rules("soil_temperature", 60).flat_line.suspect_s // 86400
    7
    """
    rules = DEFAULTS.get(observed_property)
    if rules is None or observed_property != "soil_temperature" or depth_cm < DEEP_CM:
        return rules
    return replace(rules, flat_line=FlatLine(7 * DAY_S, 21 * DAY_S, 0.03))

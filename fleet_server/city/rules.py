"""Rules of the city's decisions, as data that is checked when it is read: `TreeRules` and `WaterRules`, each with its defaults.

Every limit has its unit in its name. Which rules hold for which site, and since when, is kept by `services/city_rules.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleet_server.measurement import plain_data
from fleet_server.measurement.soil_water import SOIL_CLASSES

_Faults = Iterator[str]
_MOST_ROWS = 200
_CONTENT_MEASURES = ("rew", "available_pct")


def _range_faults(where: str, rules: Any, ranges: Mapping[str, tuple[float, float]]) -> _Faults:
    for name, (least, most) in ranges.items():
        if not least <= getattr(rules, name) <= most:  # NaN is in no range
            yield f"{where}: {name} must be from {least:g} to {most:g}."


def _raise_first(faults: _Faults) -> None:
    for sentence in faults:
        raise ValueError(sentence)


# ------------------------------------------------------------------------------------------------------------------ trees


@dataclass(frozen=True)
class Fits:
    """For which trees, soils and probes a row of limits holds.

    Attributes:
        from_year, to_year: years since planting, both included; both None: whatever the age, and also where nobody knows it.
        from_depth_cm, to_depth_cm: of the probe, the first included, the second not; None: however deep.
        soil_classes: short names of KA5; empty: every soil, and also where nobody knows it.
    """

    from_year: int | None = None
    to_year: int | None = None
    from_depth_cm: int = 0
    to_depth_cm: int | None = None
    soil_classes: tuple[str, ...] = ()

    def takes(self, age_years: int | None, depth_cm: int, soil_class: str | None) -> bool:
        if depth_cm < self.from_depth_cm:
            return False
        if self.to_depth_cm is not None and depth_cm >= self.to_depth_cm:
            return False
        if self.soil_classes and soil_class not in self.soil_classes:
            return False
        return self._takes_age(age_years)

    def _takes_age(self, age_years: int | None) -> bool:
        if self.from_year is None and self.to_year is None:
            return True
        if age_years is None:
            return False
        is_old_enough = self.from_year is None or age_years >= self.from_year
        return is_old_enough and (self.to_year is None or age_years <= self.to_year)


@dataclass(frozen=True)
class TensionLimits:
    """A soil at `moderate_kpa` or above is moderate, above `critical_kpa` critical. Both None: such a probe is not judged."""

    moderate_kpa: float | None
    critical_kpa: float | None
    fits: Fits = Fits()


@dataclass(frozen=True)
class ContentLimits:
    """A soil below `moderate` is moderate, below `critical` critical. Both None: such a probe is not judged.

    `measure` "rew": relative extractable water, 0–1. "available_pct": % nFK.
    """

    moderate: float | None
    critical: float | None
    measure: str = "rew"
    fits: Fits = Fits()


_YOUNG: Final = 45
"""cm: a probe at 30 belongs above, those at 60 and 90 below."""

_BY_AGE: Final = (
    TensionLimits(25.0, 33.0, Fits(to_year=1)),
    TensionLimits(62.0, 81.0, Fits(from_year=2, to_year=2, to_depth_cm=_YOUNG)),
    TensionLimits(25.0, 33.0, Fits(from_year=2, to_year=2, from_depth_cm=_YOUNG)),
    TensionLimits(None, None, Fits(from_year=3, to_depth_cm=_YOUNG)),
    TensionLimits(32.0, 80.0),
)
"""By years since planting: a root ball first, then roots that have gone deeper than 30 cm."""


@dataclass(frozen=True)
class TreeRules:
    """How a tree's state follows from its soil. Of `tension` and `content` the first row that fits a probe holds for it.

    Attributes:
        good_needs_depths: how many judged depths must have a good reading for a good tree; None: all that have a probe.
        oldest_reading_h: what is older says nothing of today.
        inferred_spread: what the soil of two trees of a group differs by, as a standard uncertainty: a share of a tension.
        inferred_spread_m3_m3: … and of a water content.

    Raises:
        ValueError: limits that cannot be; the sentence says which.
    """

    tension: tuple[TensionLimits, ...] = _BY_AGE
    content: tuple[ContentLimits, ...] = (ContentLimits(0.40, 0.30),)
    good_needs_depths: int | None = None
    oldest_reading_h: float = 24.0
    inferred_spread: float = 0.3
    inferred_spread_m3_m3: float = 0.04

    def __post_init__(self) -> None:
        _raise_first(self._faults())

    def _faults(self) -> _Faults:
        if max(len(self.tension), len(self.content)) > _MOST_ROWS:
            yield f"trees: at most {_MOST_ROWS} rows of limits."
        for place, row in enumerate(self.tension):
            where = f"trees.tension[{place}]"
            yield from _pair_faults(where, row.moderate_kpa, row.critical_kpa, is_rising=True)
            yield from _fits_faults(where, row.fits)
        for place, limits in enumerate(self.content):
            where = f"trees.content[{place}]"
            yield from _pair_faults(where, limits.moderate, limits.critical, is_rising=False)
            yield from _fits_faults(where, limits.fits)
            if limits.measure not in _CONTENT_MEASURES:
                yield f"{where}: measure is one of {', '.join(_CONTENT_MEASURES)}."
        if self.good_needs_depths is not None and not 1 <= self.good_needs_depths <= 20:
            yield "trees: good_needs_depths is from 1 to 20, or null for all."
        yield from _range_faults("trees", self, {"oldest_reading_h": (0.25, 24 * 31)})
        yield from _range_faults("trees", self, {"inferred_spread": (0.0, 2.0)})
        yield from _range_faults("trees", self, {"inferred_spread_m3_m3": (0.0, 0.5)})

    def tension_of(self, age: int | None, depth_cm: int, soil: str | None) -> TensionLimits | None:
        """What holds for a tension probe; None: it is not judged."""
        found = next((row for row in self.tension if row.fits.takes(age, depth_cm, soil)), None)
        return None if found is None or found.moderate_kpa is None else found

    def content_of(self, age: int | None, depth_cm: int, soil: str | None) -> ContentLimits | None:
        """What holds for a probe of water content; None: it is not judged."""
        found = next((row for row in self.content if row.fits.takes(age, depth_cm, soil)), None)
        return None if found is None or found.moderate is None else found


def _pair_faults(
    where: str, moderate: float | None, critical: float | None, *, is_rising: bool
) -> _Faults:
    if moderate is None or critical is None:
        if moderate is not critical:
            yield f"{where}: moderate and critical are both numbers, or both null."
        return
    if not (math.isfinite(moderate) and math.isfinite(critical)):
        yield f"{where}: its limits must be finite numbers."
    elif (moderate >= critical) if is_rising else (moderate <= critical):
        yield f"{where}: moderate must be {'below' if is_rising else 'above'} critical."


def _fits_faults(where: str, fits: Fits) -> _Faults:
    if fits.from_year is not None and fits.to_year is not None and fits.from_year > fits.to_year:
        yield f"{where}: from_year must not be after to_year."
    if fits.to_depth_cm is not None and fits.from_depth_cm >= fits.to_depth_cm:
        yield f"{where}: from_depth_cm must be above to_depth_cm."
    unknown = sorted(set(fits.soil_classes) - SOIL_CLASSES.keys())
    if unknown:
        yield f"{where}: {unknown[0]} is no soil class of KA5."


# ----------------------------------------------------------------------------------------------------------------- waters


@dataclass(frozen=True)
class Ladder:
    """Limits of one quantity, from the mildest state to the worst; None: the quantity never makes that state.

    A quantity that is bad when low (`oxygen`) makes a state below its limit, one that is bad when high above it. Back from a state it
    must come by `hysteresis` beyond the limit.
    """

    hysteresis: float
    watch: float | None = None
    warning: float | None = None
    alarm: float | None = None
    emergency: float | None = None


@dataclass(frozen=True)
class WaterRules:
    """How a water's state follows from what is measured in it.

    Attributes:
        oxygen_mg_l: of every probe, whatever its depth. Two of the last three readings decide.
        forecast_mg_l: of the oxygen that is expected as the night's lowest.
        saturation_pct, swing_mg_l: signs of an algal bloom; the swing is the oxygen's highest less its lowest within 24 h.
        layered_k: the top warmer than the bottom by so much: the water is layered, and its depth is cut off from the air.
        ammonia_mg_l: un-ionised ammonia as nitrogen, where somebody measured ammonium within `ammonium_days`.
        below_lowest_m: how far the level is below the site's lowest one.
        good_needs: quantities without which no water is good.
        silent_periods, silent_at_most_min: no reading of one of `good_needs` for so many of the site's periods, or at most for so long,
            is a warning by itself.
        held_h: for so long a state holds that no reading speaks for or against.

    Raises:
        ValueError: limits that cannot be; the sentence says which.
    """

    oxygen_mg_l: Ladder = Ladder(0.5, watch=6.0, warning=4.0, alarm=3.0, emergency=2.0)
    forecast_mg_l: Ladder = Ladder(0.5, warning=4.0, alarm=2.5)
    ph: Ladder = Ladder(0.1, watch=9.0, warning=9.5)
    temperature_c: Ladder = Ladder(0.5, watch=25.0, warning=28.0)
    saturation_pct: Ladder = Ladder(10.0, watch=150.0)
    swing_mg_l: Ladder = Ladder(0.5, watch=6.0)
    layered_k: Ladder = Ladder(0.5, watch=3.0)
    ammonia_mg_l: Ladder = Ladder(0.005, warning=0.025)
    below_lowest_m: Ladder = Ladder(0.02, warning=0.0)
    good_needs: tuple[str, ...] = ("dissolved_oxygen",)
    silent_periods: float = 3.0
    silent_at_most_min: float = 180.0
    ammonium_days: float = 7.0
    held_h: float = 24.0

    def __post_init__(self) -> None:
        _raise_first(self._faults())

    def _faults(self) -> _Faults:
        for name in _LADDERS:
            is_falling = name in FALLING
            yield from _ladder_faults(f"waters.{name}", getattr(self, name), is_falling=is_falling)
        unknown = sorted(set(self.good_needs) - WATER_PROPERTIES)
        if unknown:
            yield f"waters: good_needs knows {', '.join(sorted(WATER_PROPERTIES))}, not {unknown[0]}."
        yield from _range_faults("waters", self, {"silent_periods": (1.0, 100.0)})
        yield from _range_faults("waters", self, {"silent_at_most_min": (1.0, 14 * 1440.0)})
        yield from _range_faults("waters", self, {"ammonium_days": (0.0, 366.0)})
        yield from _range_faults("waters", self, {"held_h": (0.0, 31 * 24.0)})


FALLING: Final = frozenset({"oxygen_mg_l", "forecast_mg_l"})
"""Ladders of quantities that are bad when low."""
WATER_PROPERTIES: Final = frozenset(
    {"dissolved_oxygen", "ph", "water_temperature", "oxygen_saturation", "water_level"}
)
_LADDERS: Final = tuple(
    field.name for field in dataclasses.fields(WaterRules) if isinstance(field.default, Ladder)
)


def _ladder_faults(where: str, ladder: Ladder, *, is_falling: bool) -> _Faults:
    named = (ladder.watch, ladder.warning, ladder.alarm, ladder.emergency)
    limits = [limit for limit in named if limit is not None]
    if not all(math.isfinite(number) for number in (*limits, ladder.hysteresis)):
        yield f"{where}: its limits must be finite numbers."
    elif ladder.hysteresis < 0:
        yield f"{where}: hysteresis must not be negative."
    elif any(
        (milder <= worse) if is_falling else (milder >= worse)
        for milder, worse in itertools.pairwise(limits)
    ):
        yield f"{where}: from watch to emergency its limits must {'fall' if is_falling else 'rise'}."


# ------------------------------------------------------------------------------------------------------------------- both

Rules = TreeRules | WaterRules
KINDS: Final[Mapping[str, type[Any]]] = {"trees": TreeRules, "waters": WaterRules}
"""What rules there are, by the name under which they are kept."""
DEFAULTS: Final[Mapping[str, Rules]] = {"trees": TreeRules(), "waters": WaterRules()}
"""After what is usual in German cities (trees) and what fish bear (waters); `docs/city/states.md` names where each limit is from."""


def to_data(rules: Rules) -> dict[str, Any]:
    """As JSON has it.

    >>> to_data(DEFAULTS["waters"])["oxygen_mg_l"]["warning"]
    4.0
    """
    return typing.cast(dict[str, Any], plain_data.plain(rules))


def from_data(kind: str, data: object) -> Rules:
    """Read what `to_data` wrote, or a person; what is left out is as in the defaults.

    Raises:
        ValueError: it is not that; the sentence says where.

    >>> from_data("trees", to_data(DEFAULTS["trees"])) == DEFAULTS["trees"]
    True
    """
    return typing.cast(Rules, plain_data.made(KINDS[kind], data, kind))

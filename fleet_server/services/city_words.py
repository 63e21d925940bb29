"""What a state rests on, as sentences with their numbers; pages say them in their reader's language (decision 0068)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fleet_server.city.evidence import Reason
from fleet_server.errors import Said
from fleet_server.services.flag_reasons import Quantity

STATE_WORDS: Final[Mapping[str, Said]] = {
    "good": Said("good"),
    "moderate": Said("moderate"),
    "critical": Said("critical"),
    "watch": Said("watch"),
    "warning": Said("warning"),
    "alarm": Said("alarm"),
    "emergency": Said("emergency"),
    "unknown": Said("unknown"),
}
"""As a sentence has them."""

_PROPERTIES: Final[Mapping[str, Said]] = {
    "soil_water_tension": Said("Soil water tension"),
    "soil_water_content": Said("Soil water content"),
    "soil_moisture_index": Said("Soil moisture index (relative)"),
    "dissolved_oxygen": Said("Dissolved oxygen"),
    "oxygen_saturation": Said("Oxygen saturation"),
    "water_temperature": Said("Water temperature"),
    "water_level": Said("Water level"),
    "ph": Said("pH"),
    "ammonium": Said("Ammonium"),
}
_UNITS: Final[Mapping[str, str]] = {
    "dissolved_oxygen": "mg/L",
    "oxygen_saturation": "%",
    "water_temperature": "Cel",
    "water_level": "m",
    "ph": "pH",
}


class _Parts:
    """A reason's numbers as quantities, and what it is about."""

    def __init__(self, reason: Reason) -> None:
        self._reason = reason

    def __call__(self, name: str, unit: str) -> Quantity:
        return Quantity(self._reason.numbers.get(name, float("nan")), unit)

    @property
    def what(self) -> Said:
        return property_said(self._reason.property, self._reason.depth_cm)

    def measured(self, unit: str) -> dict[str, object]:
        """The value with its band and the limit that it is held against."""
        return {
            "what": self.what,
            "value": self._with_band(unit),
            "limit": self("limit", unit),
        }

    def _with_band(self, unit: str) -> object:
        value, band = self("value", unit), self("expanded_u", unit)
        return Said("%(value)s ± %(u)s", value=value, u=band) if band > 0 else value

    @property
    def unit(self) -> str:
        return _UNITS.get(self._reason.property, "1")


def said(reason: Reason) -> Said:
    """The sentence of one reason, with what is to be known of its reading."""
    make = _SENTENCES.get(reason.kind)
    if make is None:  # of a later version
        return Said("It rests on something that this version does not know (%(kind)s).", kind=reason.kind)  # fmt: skip
    sentence = make(_Parts(reason))
    if reason.flag == _SUSPECT:
        return Said("%(sentence)s That reading is suspect.", sentence=sentence)
    return sentence


_SUSPECT = 3
_IN_HOURS = 48


def property_said(name: str, depth_cm: int | None) -> Said:
    """What is measured, and where."""
    word = _PROPERTIES.get(name, Said("A quantity"))
    if not depth_cm:
        return word
    return Said("%(what)s at %(depth_cm)s cm", what=word, depth_cm=depth_cm)


def _tension(template: str) -> Callable[[_Parts], Said]:
    return lambda of: Said(template, **of.measured("kPa"))


def _share(template: str) -> Callable[[_Parts], Said]:
    return lambda of: Said(template, **of.measured("1"))


def _percent(template: str) -> Callable[[_Parts], Said]:
    return lambda of: Said(template, **of.measured("%"))


def _water(template: str) -> Callable[[_Parts], Said]:
    return lambda of: Said(template, **of.measured(of.unit), back_at=of("back_at", of.unit))


def _level(template: str) -> Callable[[_Parts], Said]:
    return lambda of: Said(template, **of.measured("m"), lowest=of("lowest", "m"))


def _named(template: str) -> Callable[[_Parts], Said]:
    return lambda of: Said(template, what=of.what)


_ABOVE = Said("%(what)s is %(value)s, above %(limit)s.")
_AT_OR_ABOVE = Said("%(what)s is %(value)s, %(limit)s or more.")
_BELOW = Said("%(what)s is %(value)s, below %(limit)s.")
_ENOUGH = Said("%(what)s is %(value)s, not below %(limit)s.")
_NOT_ABOVE = Said("%(what)s is %(value)s, not above %(limit)s.")
_BACK_ABOVE = Said("%(what)s is %(value)s and was below %(limit)s; that is over at %(back_at)s.")
_BACK_BELOW = Said("%(what)s is %(value)s and was above %(limit)s; that is over at %(back_at)s.")
_REW_ENOUGH = Said(
    "%(what)s: %(value)s of the water that the tree can take is there, not less than %(limit)s."
)
_REW_LOW = Said(
    "%(what)s: %(value)s of the water that the tree can take is there, less than %(limit)s."
)
_NFK_ENOUGH = Said(
    "%(what)s: %(value)s of the soil's available water is there, not less than %(limit)s."
)
_NFK_LOW = Said("%(what)s: %(value)s of the soil's available water is there, less than %(limit)s.")

_OF_TREES: Final[Mapping[str, Callable[[_Parts], Said]]] = {
    "tension_good": _tension(_BELOW),
    "tension_moderate": _tension(_AT_OR_ABOVE),
    "tension_critical": _tension(_ABOVE),
    "rew_good": _share(_REW_ENOUGH),
    "rew_moderate": _share(_REW_LOW),
    "rew_critical": _share(_REW_LOW),
    "available_pct_good": _percent(_NFK_ENOUGH),
    "available_pct_moderate": _percent(_NFK_LOW),
    "available_pct_critical": _percent(_NFK_LOW),
}


def _too_old(of: _Parts) -> Said:
    hours = of("hours", "1")
    if hours < _IN_HOURS:
        return Said(
            "%(what)s: the last usable reading is %(hours)s h old.", what=of.what, hours=hours
        )
    days = Quantity(hours / 24, "1")
    return Said("%(what)s: the last usable reading is %(days)s days old.", what=of.what, days=days)


def _inferred(make: Callable[[_Parts], Said]) -> Callable[[_Parts], Said]:
    return lambda of: Said(
        "Inferred from another tree of its group. %(sentence)s", sentence=make(of)
    )


_SENTENCES: Final[Mapping[str, Callable[[_Parts], Said]]] = {
    **_OF_TREES,
    **{f"inferred_{kind}": _inferred(make) for kind, make in _OF_TREES.items()},
    "no_probe": lambda _: Said("No probe that a tree is judged by measures here."),
    "relative_only": _named(Said("%(what)s only says wetter or drier; without a calibration at the site it is no state.")),
    "depth_not_judged": _named(Said("%(what)s is not judged at this tree's age.")),
    "no_soil_class": _named(Said("%(what)s says nothing without the soil class; it belongs to the site's data.")),
    "only_suspect": _named(Said("%(what)s: the newest readings are suspect, and nothing good is believed of them.")),
    "never_read": _named(Said("%(what)s: no usable reading yet.")),
    "too_old": lambda of: _too_old(of),
    "held": lambda of: Said(
        "%(what)s: what was found %(hours)s h ago holds until a reading says otherwise.",
        what=of.what,
        hours=of("hours", "1"),
    ),
    "not_measured": _named(Said("%(what)s is not measured here, and no water is good without it.")),
    "silent": lambda of: Said(
        "%(what)s: no reading that can be trusted for more than %(minutes)s min.",
        what=of.what,
        minutes=of("allowed_min", "1"),
    ),
    "not_looked_at": lambda _: Said("Nobody has looked at it yet; `fleet worker` does so every minute."),
    "dissolved_oxygen_is": _water(_ENOUGH),
    "dissolved_oxygen_beyond": _water(_BELOW),
    "dissolved_oxygen_not_back": _water(_BACK_ABOVE),
    **{
        f"{name}_{kind}": _water(template)
        for name in ("ph", "water_temperature", "oxygen_saturation")
        for kind, template in (("is", _NOT_ABOVE), ("beyond", _ABOVE), ("not_back", _BACK_BELOW))
    },
    "water_level_is": _level(Said("%(what)s is %(value)s, not below the site's lowest of %(lowest)s.")),
    "water_level_beyond": _level(Said("%(what)s is %(value)s, below the site's lowest of %(lowest)s.")),
    "water_level_not_back": _level(Said("%(what)s is %(value)s, hardly above the site's lowest of %(lowest)s.")),
    "swing": lambda of: Said(
        "Within a day oxygen went from %(low)s to %(high)s, by more than %(limit)s: the sign of an algal bloom.",
        low=of("low", "mg/L"),
        high=of("high", "mg/L"),
        limit=of("limit", "mg/L"),
    ),
    "layered": lambda of: Said(
        "At %(top)s cm it is %(value)s K warmer than at %(bottom)s cm, more than %(limit)s K: the water is layered, and its depth is cut off from the air.",
        top=of("top_cm", "1"),
        bottom=of("bottom_cm", "1"),
        value=of("value", "1"),
        limit=of("limit", "1"),
    ),
    "ammonia": lambda of: Said(
        "By pH %(ph)s and the water's warmth %(value)s of the ammonium (%(ammonium)s) are poisonous ammonia, more than %(limit)s.",
        ph=of("ph", "pH"),
        value=of("value", "mg/L"),
        ammonium=of("ammonium", "mg/L"),
        limit=of("limit", "mg/L"),
    ),
    "expected": lambda of: Said(
        "Tonight's lowest oxygen is expected at %(value)s, below %(limit)s.",
        value=of("value", "mg/L"),
        limit=of("limit", "mg/L"),
    ),
}  # fmt: skip

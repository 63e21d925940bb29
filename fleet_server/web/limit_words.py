"""What tests and their limits are called on pages."""

from __future__ import annotations

import json

from flask_babel import gettext, lazy_gettext

from fleet_server.web.blueprint import web
from fleet_server.web.words import UNIT_SYMBOLS

TEST_WORDS = {
    "gross": lazy_gettext("Range"),
    "spike": lazy_gettext("Spike"),
    "rate": lazy_gettext("Rate of change"),
    "flat_line": lazy_gettext("Flat line"),
    "attenuated": lazy_gettext("Moves too little"),
    "neighbour": lazy_gettext("Other probes nearby"),
    "frost": lazy_gettext("Frost"),
    "exposed": lazy_gettext("Probe in the air"),
    "out_of_water": lazy_gettext("Out of water"),
    "fouling": lazy_gettext("A film grows"),
    "mismatch": lazy_gettext("Oxygen beside its saturation"),
    "cracked_glass": lazy_gettext("Cracked glass"),
    "blocked_vent": lazy_gettext("Blocked vent"),
}
LIMIT_WORDS = {
    "fail_low": lazy_gettext("bad below"),
    "suspect_low": lazy_gettext("suspect below"),
    "suspect_high": lazy_gettext("suspect above"),
    "fail_high": lazy_gettext("bad above"),
    "suspect": lazy_gettext("suspect from"),
    "fail": lazy_gettext("bad from"),
    "within_s": lazy_gettext("neighbours in time within"),
    "rise_per_h": lazy_gettext("rise per hour"),
    "fall_per_h": lazy_gettext("fall per hour"),
    "least_s": lazy_gettext("a step counts as at least"),
    "suspect_s": lazy_gettext("suspect after"),
    "fail_s": lazy_gettext("bad after"),
    "tolerance": lazy_gettext("moves by less than"),
    "legit_low": lazy_gettext("may stand still from"),
    "legit_high": lazy_gettext("may stand still up to"),
    "least": lazy_gettext("in 24 h at least"),
    "share": lazy_gettext("share of its usual day"),
    "floor": lazy_gettext("never less than"),
    "deviations": lazy_gettext("usual deviations"),
    "below_c": lazy_gettext("frozen below"),
    "ratio": lazy_gettext("share of the air's day"),
    "drier_than": lazy_gettext("only when drier than"),
    "conductivity_us_cm": lazy_gettext("water conducts less than"),
    "level_m": lazy_gettext("water stands not above"),
    "slack": lazy_gettext("slack in deviations"),
    "alarm": lazy_gettext("alarm at deviations"),
    "rain_mm": lazy_gettext("rain that explains a rise"),
    "most": lazy_gettext("off by more than"),
    "within": lazy_gettext("from pH 7 at most"),
    "window_s": lazy_gettext("for"),
    "correlation": lazy_gettext("correlation with the air's pressure above"),
}
_OF_NO_UNIT = frozenset({"share", "deviations", "ratio", "slack", "alarm", "correlation"})
_UNITS = {"rain_mm": "mm", "below_c": "°C", "conductivity_us_cm": "µS/cm", "level_m": "m"}


def limit_unit(name: str, unit: str, *, is_relative: bool = False) -> str:
    """The unit of a limit in the form; times are in minutes."""
    if name.endswith("_s"):
        return "min"
    if name in _UNITS:
        return _UNITS[name]
    if name in _OF_NO_UNIT or (is_relative and name != "within_s"):
        return ""
    return UNIT_SYMBOLS.get(unit, unit)


@web.app_template_global()
def limit_title(name: str) -> str:
    """`Spike, bad from` for `spike.fail`."""
    test, _, limit = name.partition(".")
    if test == "climatology":
        return str(gettext("Seasons"))
    words = [str(TEST_WORDS.get(test, test))]
    if limit == "fail" and test == "gross":
        words.append(str(gettext("bad outside of")))
    elif limit == "suspect" and test == "gross":
        words.append(str(gettext("suspect outside of")))
    elif limit:
        words.append(str(LIMIT_WORDS.get(limit, limit)))
    return ", ".join(words)


@web.app_template_global()
def limit_value(value: object) -> str:
    """As it is kept; a dash where there is none."""
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value)

"""What revisions are called on pages."""

from __future__ import annotations

import re

from flask import url_for
from flask_babel import gettext, lazy_gettext
from markupsafe import Markup, escape

from fleet_server.errors import Said
from fleet_server.models import Revision
from fleet_server.services import calibrating, judging, settling
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words
from fleet_server.web.words import Word, decimal, unit_symbol, whole

REVISION_KIND_WORDS = {
    "calibration": lazy_gettext("calibration"),
    "correction": lazy_gettext("drift correction"),
    "rules": lazy_gettext("rules of quality"),
    "software": lazy_gettext("software"),
    "swap": lazy_gettext("probe swapped"),
    "quality_control": lazy_gettext("flags"),
    "import": lazy_gettext("others' measurements"),
    "aggregates": lazy_gettext("means and derived values"),
}
REVISION_STATE_WORDS = {
    "waiting": Word("○", lazy_gettext("waiting"), lazy_gettext("A backup is made first.")),
    "running": Word(
        "▸",
        lazy_gettext("under way"),
        lazy_gettext("One data stream after the other is switched; each is as it was or as it is."),
    ),
    "done": Word("✓", lazy_gettext("done"), lazy_gettext("What was known before stays readable.")),
}
_THREE_PARTS = (r"(?P<id>\d+)", r"(?P<serial>.+)", r"(?P<what>approved|withdrawn)")
_CALIBRATION = re.compile(calibrating.REVISION_REASON.format(*_THREE_PARTS))
# Revisions of before the two words were told apart say `correction` alone.
_CORRECTION = re.compile(
    "(?:drift )?" + settling.REVISION_REASON.removeprefix("drift ").format(*_THREE_PARTS)
)
_IMPORT = re.compile(r"import (?P<id>\d+)(?P<what> was withdrawn)?")


@web.app_template_global()
def revision_kind(kind: str) -> str:
    return str(REVISION_KIND_WORDS.get(kind, kind))


@web.app_template_global()
def revision_state(state: str) -> Word:
    return REVISION_STATE_WORDS[state]


@web.app_template_global()
def revision_reason(revision: Revision) -> Markup:
    """Why, in the reader's language and with a link where we said it ourselves; else as somebody typed it."""
    if revision.kind == "quality_control" and revision.reason == judging.REASON:
        return escape(gettext("Tests that look at later values."))
    if revision.kind == "aggregates":
        return escape(gettext("Values that others are made of became other ones."))
    if found := _CORRECTION.fullmatch(revision.reason):
        told = {"number": found["id"], "serial": found["serial"]}
        if found["what"] == "approved":
            sentence = gettext("Drift correction %(number)s of %(serial)s was approved.", **told)
        else:
            sentence = gettext("Drift correction %(number)s of %(serial)s was withdrawn.", **told)
        anchor = f"correction-{found['id']}"
        return _link(url_for("web.corrections", serial=found["serial"], _anchor=anchor), sentence)
    if found := _CALIBRATION.fullmatch(revision.reason):
        told = {"number": found["id"], "serial": found["serial"]}
        if found["what"] == "approved":
            sentence = gettext("Calibration %(number)s of %(serial)s was approved.", **told)
        else:
            sentence = gettext("Calibration %(number)s of %(serial)s was withdrawn.", **told)
        return _link(url_for("web.calibration", calibration_id=int(found["id"])), sentence)
    if found := _IMPORT.fullmatch(revision.reason):
        return _import_reason(int(found["id"]), is_withdrawn=found["what"] is not None)
    return escape(revision.reason)


def _link(address: str, sentence: str) -> Markup:
    return Markup('<a class="flow" href="{}">{}</a>').format(address, sentence)


def _import_reason(number: int, *, is_withdrawn: bool) -> Markup:
    told = {"number": str(number)}
    if is_withdrawn:
        sentence = gettext("Import %(number)s was withdrawn.", **told)
    else:
        sentence = gettext("Import %(number)s gave other values.", **told)
    return _link(url_for("web.measurement", import_id=number), sentence)


@web.app_template_global()
def revision_fault(revision: Revision) -> str:
    """What holds it up, in the reader's language."""
    if revision.fault_parts is None:
        return revision.fault or ""
    template, parts = revision.fault_parts["template"], revision.fault_parts["parts"]
    return in_words(Said(template, **parts))


@web.app_template_global()
def amount_of_change(number: float | None, unit: str) -> str:
    """A change of values to three digits, with its unit; a dash where no value differs."""
    if number is None:
        return "–"
    digits = max(0, 2 - _magnitude(number))
    return f"{decimal(number, min(digits, 6))}\N{NO-BREAK SPACE}{unit_symbol(unit)}".rstrip()


@web.app_template_global()
def three_digits(number: float) -> float:
    """Rounded to three significant digits.

    >>> three_digits(0.012345), three_digits(1234.5)
    (0.0123, 1230.0)
    """
    return float(f"{number:.3g}")


@web.app_template_global()
def how_far(switched: int, streams: int) -> str:
    """`12 of 40 data streams`"""
    told = {"switched": whole(switched), "streams": whole(streams)}
    return str(gettext("%(switched)s of %(streams)s data streams", **told))


def _magnitude(number: float) -> int:
    return int(f"{number:e}".partition("e")[2]) if number else 0

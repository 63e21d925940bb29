"""What calibrations, standards and the steps at a probe are called, in the reader's language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flask_babel import LazyString, format_decimal, lazy_gettext

from fleet_server.models import CalibrationKind, CalibrationStatus, PointStage, StandardKind
from fleet_server.services import fitting
from fleet_server.services.calibrating import CalibrationRecord
from fleet_server.web.blueprint import web
from fleet_server.web.calibration_states import STATUS_WORDS
from fleet_server.web.faults import in_words
from fleet_server.web.words import PROPERTY_WORDS, Word

_STATUS_FLAGS = {CalibrationStatus.APPROVED: 1, CalibrationStatus.WITHDRAWN: 4}
_KINDS = {
    CalibrationKind.FACTORY: lazy_gettext("the maker's"),
    CalibrationKind.LINEAR: lazy_gettext("line through points"),
    CalibrationKind.QUADRATIC: lazy_gettext("curve through points"),
    CalibrationKind.OFFSET: lazy_gettext("shift of zero"),
}
_STAGES = {
    PointStage.FIT: lazy_gettext("for the fit"),
    PointStage.AS_FOUND: lazy_gettext("as found"),
    PointStage.AS_LEFT: lazy_gettext("as left"),
}
_STANDARDS = {
    StandardKind.SOLUTION: lazy_gettext("solution"),
    StandardKind.FIXED_POINT: lazy_gettext("made on the spot"),
    StandardKind.AIR_SATURATION: lazy_gettext("air-saturated water"),
    StandardKind.INSTRUMENT: lazy_gettext("reference instrument"),
}
_STEPS: Mapping[str, tuple[LazyString, LazyString]] = {
    "ph7": (
        lazy_gettext("Buffer pH 7"),
        lazy_gettext(
            "Rinse with distilled water, dab dry, never rub. Into the buffer, up to the glass bulb."
        ),
    ),
    "ph4": (
        lazy_gettext("Buffer pH 4"),
        lazy_gettext("Rinse well: a drop of the buffer before spoils this one."),
    ),
    "ph10": (
        lazy_gettext("Buffer pH 10"),
        lazy_gettext("Rinse well. Close the bottle at once: air makes this buffer sour."),
    ),
    "saturated": (
        lazy_gettext("Air-saturated water"),
        lazy_gettext(
            "Bubble air through tap water for ten minutes, let it stand for five. No bubbles on the membrane."
        ),
    ),
    "zero": (
        lazy_gettext("Water without oxygen"),
        lazy_gettext("5 % sodium sulphite, freshly stirred. Rinse the probe well afterwards."),
    ),
    "conductivity_low": (
        lazy_gettext("Conductivity standard, low"),
        lazy_gettext(
            "Rinse twice with the standard itself, then fresh standard; no bubbles in the cell."
        ),
    ),
    "conductivity_high": (
        lazy_gettext("Conductivity standard, high"),
        lazy_gettext(
            "Rinse twice with the standard itself, then fresh standard; no bubbles in the cell."
        ),
    ),
    "turbidity_zero": (
        lazy_gettext("Water without turbidity"),
        lazy_gettext("Filtered water in a dark vessel, nothing within 10 cm before the window."),
    ),
    "turbidity_low": (
        lazy_gettext("Turbidity standard, low"),
        lazy_gettext("Turn the bottle over ten times, never shake it."),
    ),
    "turbidity_high": (
        lazy_gettext("Turbidity standard, high"),
        lazy_gettext("Turn the bottle over ten times, never shake it."),
    ),
    "dry_air": (
        lazy_gettext("Dry, in air"),
        lazy_gettext("Clean and dry the probe; nothing within 10 cm of it."),
    ),
    "in_water": (
        lazy_gettext("In water"),
        lazy_gettext("Into tap water up to the line, not further, away from the wall."),
    ),
    "ice": (
        lazy_gettext("Ice water"),
        lazy_gettext(
            "Crushed ice of clean water with just so much water that it is soft, stirred; the probe in its middle."
        ),
    ),
    "gauge": (
        lazy_gettext("Gauge"),
        lazy_gettext("Read the staff gauge at eye level while the water is calm."),
    ),
}
_WHY_NOT_STEADY = {
    "few": lazy_gettext("too few readings yet"),
    "short": lazy_gettext("not watched for long enough yet"),
    "slope": lazy_gettext("it still drifts"),
    "spread": lazy_gettext("it jumps to and fro"),
}


@web.app_template_global()
def calibration_status(status: str) -> Word:
    return STATUS_WORDS[CalibrationStatus(status)]


@web.app_template_global()
def calibration_flag(status: str) -> int:
    """Which of the flags' colours goes with it."""
    return _STATUS_FLAGS.get(CalibrationStatus(status), 2)


@web.app_template_global()
def calibration_kind(kind: str) -> str:
    return str(_KINDS[CalibrationKind(kind)])


@web.app_template_global()
def point_stage(stage: str) -> str:
    return str(_STAGES[PointStage(stage)])


@web.app_template_global()
def standard_kind(kind: str) -> str:
    return str(_STANDARDS[StandardKind(kind)])


@web.app_template_global()
def property_word(name: str) -> str:
    return str(PROPERTY_WORDS[name])


@web.app_template_global()
def step_title(step: str) -> str:
    """Of a guided step; another point's name as it was typed."""
    return str(_STEPS[step][0]) if step in _STEPS else step


@web.app_template_global()
def step_words(step: str) -> str:
    return str(_STEPS[step][1])


@web.app_template_global()
def why_not_steady(reason: str) -> str:
    return str(_WHY_NOT_STEADY[reason])


@web.app_template_global()
def coefficient(number: float) -> str:
    """A number of a fit, to five digits: more than its u allows. All of them stand in the certificate."""
    shown = round(float(f"{number:.5g}"), 12) or 0.0  # no −0
    return str(format_decimal(shown, format="#,##0.############")).replace("-", "−")


@web.app_template_global()
def fit_faults(record: CalibrationRecord) -> list[str]:
    """Why a record's fit cannot be trusted, one sentence each."""
    return [in_words(fitting.in_words(one.code, one.numbers)) for one in record.faults]


@web.app_template_filter()
def next_residual(residuals: Iterator[float]) -> float:
    """Residuals are those of the points for the fit, in their order."""
    return next(residuals)

"""A probe's corrections of drift and fouling: what a visit found, its rating, approval by another person."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import flash, redirect, render_template, url_for
from flask_babel import gettext, lazy_gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.measurement.drift import DRIFT_LIMITS, Check
from fleet_server.models import DriftCorrection
from fleet_server.services import calibrating, correcting, settling
from fleet_server.services.correcting import NewCorrection
from fleet_server.services.rights import Right
from fleet_server.web import forms
from fleet_server.web.blueprint import web
from hardware import catalogue

_Answer = str | Response | tuple[str, int]
_SHOWN = 50
_BY_CALIBRATION = re.compile(
    settling.WITHDRAWAL_REASON.format(r"(?P<id>\d+)", r"(?P<what>approved|withdrawn)")
)
RATING_WORDS = {
    "excellent": lazy_gettext("excellent"),
    "good": lazy_gettext("good"),
    "fair": lazy_gettext("fair"),
    "poor": lazy_gettext("poor"),
    "unpublishable": lazy_gettext("not to be published"),
}


@web.app_template_global()
def rating_word(rating: str) -> str:
    return str(RATING_WORDS[rating])


@web.app_template_global()
def withdrawal_reason(reason: str) -> str:
    """In the reader's language where a calibration was it; else as somebody typed it."""
    found = _BY_CALIBRATION.fullmatch(reason)
    if found is None:
        return reason
    if found["what"] == "approved":
        return str(gettext("Calibration %(number)s was approved.", number=found["id"]))
    return str(gettext("Calibration %(number)s was withdrawn.", number=found["id"]))


@web.get("/fleet/corrections/of/<path:serial>")
@needs(Right.SEE_FLEET)
def corrections(serial: str) -> str:
    """What was put right of a probe between its visits, and a form for what the last one found."""
    return _page(serial, {}, "")


@web.post("/fleet/corrections/of/<path:serial>")
@needs(Right.CALIBRATE)
def draft_correction(serial: str) -> _Answer:
    """Write down what a visit found."""
    return _done(
        serial,
        lambda: _draft(serial),
        gettext("The drift correction is a draft: somebody else approves it."),
    )


@web.post("/fleet/corrections/<row_id:correction_id>/approve")
@needs(Right.STEWARD_DATA)
def approve_correction(correction_id: int) -> _Answer:
    """Let somebody else's draft hold."""
    session = current_session()
    return _done(
        correcting.record_of(session, correction_id).serial,
        lambda: correcting.approve_correction(session, correction_id, now=clock.now()),
        gettext("It holds; the values between the visits are made anew."),
    )


@web.post("/fleet/corrections/<row_id:correction_id>/withdraw")
@needs(Right.STEWARD_DATA)
def withdraw_correction(correction_id: int) -> _Answer:
    """It was a mistake, or the draft came to nothing."""
    session = current_session()
    return _done(
        correcting.record_of(session, correction_id).serial,
        lambda: correcting.withdraw_correction(
            session, correction_id, reason=forms.text("reason"), now=clock.now()
        ),
        gettext("It is withdrawn; the values are as they were."),
    )


def _done(serial: str, deed: Callable[[], DriftCorrection], said: str) -> _Answer:
    made, fault = forms.tried(deed)
    if made is None:
        return _page(serial, forms.typed(), fault), 400
    flash(said)
    return redirect(url_for("web.corrections", serial=serial), code=303)


def _draft(serial: str) -> DriftCorrection:
    now = clock.now()
    if not forms.text("from") or not forms.text("to"):
        raise Invalid(gettext("Give the times of both visits."))
    per_cent = forms.number("fouling_percent", gettext("Fouling in per cent"))
    return correcting.draft_correction(
        current_session(),
        NewCorrection(
            serial,
            forms.text("property"),
            forms.moment("from", now=now),
            forms.moment("to", now=now),
            fouling=forms.number("fouling", gettext("Fouling")) or 0.0,
            fouling_relative=(per_cent or 0.0) / 100.0,
            low=_check("low", gettext("Lower standard")),
            high=_check("high", gettext("Higher standard")),
            note=forms.text("note"),
        ),
        now=now,
    )


def _check(name: str, what: str) -> Check | None:
    reading = forms.number(f"{name}_reading", what)
    standard = forms.number(f"{name}_standard", what)
    if reading is None and standard is None:
        return None
    if reading is None or standard is None:
        raise Invalid(
            gettext("%(what)s wants both: what it is worth, and what was read.", what=what)
        )
    return Check(standard, reading)


def _page(serial: str, values: object, fault: str) -> str:
    session = current_session()
    sensor = calibrating.known_sensor(session, serial)
    quantities = catalogue.load_sensor_type(sensor.sensor_type).quantities
    return render_template(
        "corrections.html",
        sensor=sensor,
        records=correcting.correction_page(session, serial=serial, limit=_SHOWN, after=None).items,
        properties=[one.property for one in quantities if one.property in DRIFT_LIMITS],
        values=values,
        fault=fault,
    )

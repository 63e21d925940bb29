"""Guided calibration on the phone: which channel, what it reads now, the next step. Every page can be loaded again, every step taken again."""

from __future__ import annotations

from flask import redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import CalibrationStatus
from fleet_server.services import calibrating, guiding, overviews, standards
from fleet_server.services.calibrating import PRESSURE, CalibrationRecord
from fleet_server.services.guiding import Procedure, Step, Taking
from fleet_server.services.rights import Right
from fleet_server.web import forms
from fleet_server.web.blueprint import web

_LOOKS_AGAIN_S = 10
_SHOWN_READINGS = 8
_MOST_STANDARDS = 50
_Answer = str | Response | tuple[str, int]


@web.route("/field/nodes/<node_id:node_id>/calibrate", methods=["GET", "POST"])
@needs(Right.CALIBRATE)
def calibrate_node(node_id: str) -> _Answer:
    """Choose a channel of the node, and begin."""
    session, now = current_session(), clock.now()
    fault, status = "", 200
    if request.method == "POST":
        made, fault = forms.tried(
            lambda: guiding.begin_guided(session, node_id, forms.text("key"), now=now)
        )
        if made is not None:
            return redirect(
                url_for("web.guided", calibration_id=made.calibration.id, watch=1), code=303
            )
        status = 400
    page = render_template(
        "field_calibrate.html",
        node=overviews.node_overview(session, node_id, now=now),
        channels=guiding.guided_channels(session, node_id),
        fault=fault,
    )
    return page, status


@web.get("/field/calibrations/<row_id:calibration_id>")
@needs(Right.CALIBRATE)
def guided(calibration_id: int) -> str | Response:
    """What the probe reads, and the next step. `?watch=1` looks again by itself, `?step=` goes to a step that was taken."""
    record = calibrating.record_of(current_session(), calibration_id)
    if record.calibration.status != CalibrationStatus.DRAFT:
        return redirect(url_for("web.calibration", calibration_id=calibration_id))
    return _page(record, "")


@web.post("/field/calibrations/<row_id:calibration_id>/take")
@needs(Right.CALIBRATE)
def take_step(calibration_id: int) -> _Answer:
    """The steady reading becomes the step's point; sent again it is taken again."""
    made, fault = forms.tried(lambda: _take(calibration_id))
    if made is None:
        record = calibrating.record_of(current_session(), calibration_id)
        return _page(record, fault), 400
    return redirect(url_for("web.guided", calibration_id=calibration_id, watch=1), code=303)


def _take(calibration_id: int) -> CalibrationRecord:
    standard = forms.text("standard")
    taking = Taking(
        step=forms.text("step"),
        standard_id=forms.whole("standard", gettext("Standard")) if standard else None,
        temperature_c=forms.number("temperature", gettext("Temperature of the standard")),
        pressure_hpa=forms.number("pressure", gettext("Air pressure")),
        shown=forms.number("shown", gettext("What the gauge shows")),
        u_shown=forms.number("u_shown", gettext("Standard uncertainty u")),
        takes_unsteady=bool(forms.text("unsteady")),
    )
    return guiding.take_step(current_session(), calibration_id, taking, now=clock.now())


def _page(record: CalibrationRecord, fault: str) -> str:
    session, now = current_session(), clock.now()
    channel = guiding.guided_channel(session, record)
    usable = standards.standard_page(
        session,
        limit=_MOST_STANDARDS,
        observed_property=channel.observed_property,
        usable_at=now,
    )
    step = _step(record, channel.procedure)
    live = guiding.live_readings(session, channel, now=now)
    return render_template(
        "field_guided.html",
        record=record,
        channel=channel,
        taken={one.step: one for one in record.points},
        step=step,
        live=live,
        readings=live.readings[: -_SHOWN_READINGS - 1 : -1],
        usable=sorted(usable.items, key=lambda one: abs(_worth(one.points) - step.nominal))
        if step
        else [],
        pressure=record.calibration.environment.get(PRESSURE, ""),
        values=forms.typed(),
        is_watching=bool(request.args.get("watch")),
        looks_again_s=_LOOKS_AGAIN_S,
        fault=fault,
    )


def _step(record: CalibrationRecord, procedure: Procedure) -> Step | None:
    """The one that was asked for, else the first that was not taken; None when all are."""
    wanted = request.args.get("step") or forms.text("step")
    if any(one.id == wanted for one in procedure.steps):
        return procedure.step(wanted)
    taken = {one.step for one in record.points}
    return next((one for one in procedure.steps if one.id not in taken), None)


def _worth(points: list[list[float]]) -> float:
    return points[0][1] if points else 0.0

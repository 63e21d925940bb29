"""Pages of calibrations: what is due, standards, a calibration from its draft over its approval to the certificate."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import may, needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.models import (
    Calibration,
    CalibrationKind,
    CalibrationStatus,
    PointStage,
    Standard,
    StandardKind,
)
from fleet_server.services import (
    calibrating,
    calibration_list,
    certificate_sheet,
    keyset,
    rehearsing,
    standards,
)
from fleet_server.services.calibrating import CalibrationRecord, NewCalibration, NewPoint
from fleet_server.services.calibration_list import CalibrationFilter
from fleet_server.services.rights import Right
from fleet_server.services.settling import Verdict
from fleet_server.services.standards import NewStandard
from fleet_server.services.typed_values import typed_number
from fleet_server.web import forms
from fleet_server.web.blueprint import web
from fleet_server.web.drawn_change import draw_change
from fleet_server.web.drawn_fit import draw_residuals
from hardware import catalogue, vocabulary

_PAGE_SIZE = 50
_MOST_STANDARDS = 200
_Answer = str | Response | tuple[str, int]
_KINDS = tuple(kind for kind in CalibrationKind if kind != CalibrationKind.FACTORY)


@web.get("/fleet/calibrations")
@needs(Right.SEE_FLEET)
def calibrations() -> str:
    """Calibrations, newest first; `?status=` and `?serial=` narrow the list."""
    session, status = current_session(), request.args.get("status") or None
    if status is not None and status not in tuple(CalibrationStatus):
        raise _not_one_of("status", tuple(CalibrationStatus))
    serial = request.args.get("serial", "").strip() or None
    page = calibration_list.calibration_page(
        session,
        CalibrationFilter(CalibrationStatus(status) if status else None, serial),
        limit=_PAGE_SIZE,
        after=_after("newest"),
    )
    query = {"status": status, "serial": serial}
    return render_template(
        "calibrations.html",
        lines=page.items,
        due=calibration_list.due_count(session, now=clock.now()),
        status=status,
        statuses=tuple(CalibrationStatus),
        serial=serial or "",
        next=_next("web.calibrations", page, "newest", query),
    )


@web.get("/fleet/calibrations/probes")
@needs(Right.SEE_FLEET)
def probes() -> str:
    """Probes with when each has to be calibrated again; `?due=1`, `?type=` and `?text=` narrow the list."""
    is_due = bool(request.args.get("due"))
    sensor_type = request.args.get("type") or None
    text = request.args.get("text", "").replace("\0", "").strip()
    now = clock.now()
    page = calibration_list.probe_page(
        current_session(),
        now=now,
        limit=_PAGE_SIZE,
        after=_after("serial"),
        is_due=is_due,
        sensor_type=sensor_type,
        text=text,
    )
    query = {"due": int(is_due) or None, "type": sensor_type, "text": text or None}
    return render_template(
        "probes.html",
        lines=page.items,
        is_due=is_due,
        sensor_type=sensor_type,
        sensor_types=catalogue.sensor_type_ids(),
        text=text,
        now=now,
        next=_next("web.probes", page, "serial", query),
    )


@web.get("/fleet/calibrations/probes/<path:serial>")
@needs(Right.SEE_FLEET)
def probe(serial: str) -> str:
    """One probe: its calibrations in force, and all that there were."""
    session = current_session()
    line = calibration_list.probe_of(session, serial)
    page = calibration_list.calibration_page(
        session, CalibrationFilter(serial=serial, with_factory=True), limit=_MOST_STANDARDS
    )
    return render_template(
        "probe.html",
        line=line,
        sensor_type=catalogue.load_sensor_type(line.sensor.sensor_type),
        lines=page.items,
        now=clock.now(),
    )


# ---------------------------------------------------------------------------------------------------------- standards


@web.route("/fleet/calibrations/standards", methods=["GET"])
@needs(Right.SEE_FLEET)
def standards_page() -> str:
    """What probes are calibrated against."""
    return _standards("")


@web.post("/fleet/calibrations/standards")
@needs(Right.CALIBRATE)
def add_standard() -> _Answer:
    """Put one on the list."""
    made, fault = forms.tried(_new_standard)
    if made is None:
        return _standards(fault), 400
    flash(gettext("The standard is on the list."))
    return redirect(url_for("web.standards_page"), code=303)


@web.post("/fleet/calibrations/standards/<row_id:standard_id>/discard")
@needs(Right.CALIBRATE)
def discard_standard(standard_id: int) -> Response:
    """Nothing is calibrated against it any more."""
    standards.discard_standard(current_session(), standard_id, now=clock.now())
    return redirect(url_for("web.standards_page"), code=303)


def _standards(fault: str) -> str:
    page = standards.standard_page(current_session(), limit=_PAGE_SIZE, after=_after("name"))
    return render_template(
        "standards.html",
        lines=page.items,
        kinds=tuple(StandardKind),
        properties=sorted(vocabulary.PROPERTIES),
        units=vocabulary.PROPERTIES,
        values=forms.typed(),
        now=clock.now(),
        fault=fault,
        next=_next("web.standards_page", page, "name", {}),
    )


def _new_standard() -> Standard:
    kind = forms.text("kind")
    if kind not in tuple(StandardKind):
        raise _not_one_of("kind", tuple(StandardKind))
    return standards.add_standard(
        current_session(),
        NewStandard(
            StandardKind(kind),
            forms.text("property"),
            forms.text("name"),
            _wanted("u", gettext("Standard uncertainty u")),
            _pairs("points"),
            forms.text("lot"),
            forms.text("certificate"),
            forms.end_of_day("expires") if forms.text("expires") else None,
        ),
        now=clock.now(),
    )


def _pairs(name: str) -> list[tuple[float, float]]:
    """`°C: value` in each line; a line without a colon is worth the same at any temperature."""
    pairs = []
    for line in forms.text(name).splitlines():
        if not line.strip():
            continue
        temperature, colon, value = line.rpartition(":")
        try:
            temperature_c = typed_number(temperature.strip()) if colon else 20.0
            pairs.append((temperature_c, typed_number(value.strip())))
        except ValueError as problem:
            raise Invalid(gettext("Write what the standard is worth like 20: 6.881.")) from problem
    return pairs


# ------------------------------------------------------------------------------------------------------- calibrations


@web.route("/fleet/calibrations/new", methods=["GET", "POST"])
@needs(Right.CALIBRATE)
def new_calibration() -> _Answer:
    """A draft by hand, of the probe that the address names."""
    if request.method == "GET":
        return _form(request.args.to_dict(), "")
    made, fault = forms.tried(_draft)
    if made is None:
        return _form(forms.typed(), fault), 400
    return redirect(_address(made.calibration.id), code=303)


def _draft() -> CalibrationRecord:
    now = clock.now()
    new = NewCalibration(
        serial=forms.text("serial"),
        property=forms.text("property"),
        kind=_kind(),
        performed_by=forms.text("performed_by"),
        performed_at=forms.moment("performed_at", now=now),
        environment=_environment(),
        u_absolute=forms.number("u_absolute", gettext("The probe's own u")),
        u_relative=_share("u_relative"),
        u_drift_absolute=forms.number("u_drift_absolute", gettext("What a year adds to u")),
    )
    return calibrating.draft_calibration(current_session(), new, now=now)


def _kind() -> CalibrationKind:
    kind = forms.text("kind")
    if kind not in _KINDS:
        raise _not_one_of("kind", _KINDS)
    return CalibrationKind(kind)


def _share(name: str) -> float | None:
    per_cent = forms.number(name, gettext("The probe's own u in per cent"))
    return None if per_cent is None else per_cent / 100.0


def _environment() -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for name, value in forms.lines("environment", example="pressure_hpa: 1009.5").items():
        try:
            found[name] = typed_number(value)
        except ValueError:
            found[name] = value
    return found


def _form(values: Any, fault: str) -> str:
    serial = str(values.get("serial", ""))
    line, _ = forms.tried(lambda: calibration_list.probe_of(current_session(), serial))
    properties = (
        [one.property for one in catalogue.load_sensor_type(line.sensor.sensor_type).quantities]
        if line
        else sorted(vocabulary.PROPERTIES)
    )
    return render_template(
        "calibration_form.html",
        values=values,
        line=line,
        properties=properties,
        kinds=_KINDS,
        fault=fault,
    )


@web.get("/fleet/calibrations/<row_id:calibration_id>")
@needs(Right.SEE_FLEET)
def calibration(calibration_id: int) -> str:
    """One calibration: its numbers before and after, its points and residuals, and what can be done with it."""
    return _page(calibration_id, "")


@web.post("/fleet/calibrations/<row_id:calibration_id>/points")
@needs(Right.CALIBRATE)
def put_point(calibration_id: int) -> _Answer:
    """Add a point to a draft, or replace one."""
    return _done(calibration_id, lambda: _put(calibration_id))


@web.post("/fleet/calibrations/<row_id:calibration_id>/points/drop")
@needs(Right.CALIBRATE)
def drop_point(calibration_id: int) -> _Answer:
    """Take a point out of a draft."""
    return _done(
        calibration_id,
        lambda: calibrating.drop_point(
            current_session(),
            calibration_id,
            step=forms.text("step"),
            stage=_stage(),
            now=clock.now(),
        ),
    )


@web.post("/fleet/calibrations/<row_id:calibration_id>/own")
@needs(Right.CALIBRATE)
def change_own(calibration_id: int) -> _Answer:
    """What the author says of the probe's own u, and of what a year adds to it; an empty field stays as it is."""
    return _done(calibration_id, lambda: _change_own(calibration_id))


@web.post("/fleet/calibrations/<row_id:calibration_id>/approve")
@needs(Right.STEWARD_DATA)
def approve(calibration_id: int) -> _Answer:
    """Let somebody else's draft hold, as it was looked at."""
    now = clock.now()
    # A reading of this very second may be there already.
    begin = now + timedelta(seconds=1) if forms.text("begin") == "now" else None
    # What begins now meets no correction: visits are past.
    verdicts = _verdicts() if begin is None else {}
    return _done(
        calibration_id,
        lambda: calibrating.approve_calibration(
            current_session(),
            calibration_id,
            now=now,
            looked_at=forms.text("sha256"),
            valid_from=begin,
            corrections=verdicts,
        ),
    )


@web.post("/fleet/calibrations/<row_id:calibration_id>/withdraw")
@needs(Right.STEWARD_DATA)
def withdraw(calibration_id: int) -> _Answer:
    """It was a mistake, or the draft came to nothing."""
    return _done(
        calibration_id,
        lambda: calibrating.withdraw_calibration(
            current_session(),
            calibration_id,
            reason=forms.text("reason"),
            now=clock.now(),
            corrections=_verdicts(),
        ),
    )


_VERDICT = re.compile(r"correction-([1-9][0-9]{0,8})")


def _verdicts() -> dict[int, Verdict]:
    """What was chosen of each drift correction; nothing for one of which nothing was."""
    chosen = {}
    for name, value in request.form.items():
        found = _VERDICT.fullmatch(name)
        if found and value in tuple(Verdict):
            chosen[int(found[1])] = Verdict(value)
    return chosen


@web.get("/fleet/calibrations/<row_id:calibration_id>/certificate.pdf")
@needs(Right.SEE_FLEET)
def certificate_pdf(calibration_id: int) -> Response:
    """The certificate on paper."""
    told, sha256 = calibrating.certificate_of(current_session(), calibration_id)
    return _file(
        certificate_sheet.certificate_pdf(told, sha256),
        "application/pdf",
        f"calibration-{calibration_id}.pdf",
    )


@web.get("/fleet/calibrations/<row_id:calibration_id>/certificate.json")
@needs(Right.SEE_FLEET)
def certificate_json(calibration_id: int) -> Response:
    """The certificate for programs."""
    told, sha256 = calibrating.certificate_of(current_session(), calibration_id)
    text = json.dumps({"certificate": told, "sha256": sha256}, ensure_ascii=False, indent=1)
    return _file(text.encode(), "application/json", f"calibration-{calibration_id}.json")


def _file(data: bytes, content_type: str, name: str) -> Response:
    answer = Response(data, content_type=content_type)
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _put(calibration_id: int) -> CalibrationRecord:
    standard = forms.text("standard")
    point = NewPoint(
        indicated=_wanted("indicated", gettext("Reading of the probe")),
        reference=forms.number("reference", gettext("What the standard is worth")),
        u_reference=forms.number("u_reference", gettext("Standard uncertainty u")),
        standard_id=forms.whole("standard", gettext("Standard")) if standard else None,
        temperature_c=forms.number("temperature", gettext("Temperature of the standard")),
        stage=_stage(),
        step=forms.text("step"),
        note=forms.text("note"),
    )
    return calibrating.put_point(current_session(), calibration_id, point, now=clock.now())


def _change_own(calibration_id: int) -> CalibrationRecord:
    given = {
        "u_absolute": forms.number("u_absolute", gettext("The probe's own u")),
        "u_drift_absolute": forms.number("u_drift_absolute", gettext("What a year adds to u")),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    return calibrating.change_draft(current_session(), calibration_id, changes, now=clock.now())


def _stage() -> PointStage:
    stage = forms.text("stage") or PointStage.FIT
    if stage not in tuple(PointStage):
        raise _not_one_of("stage", tuple(PointStage))
    return PointStage(stage)


def _done(calibration_id: int, do: Callable[[], CalibrationRecord]) -> _Answer:
    made, fault = forms.tried(do)
    if made is None:
        return _page(calibration_id, fault), 400
    return redirect(_address(calibration_id), code=303)


def _page(calibration_id: int, fault: str) -> str:
    session, now = current_session(), clock.now()
    record = calibrating.record_of(session, calibration_id)
    found = record.calibration
    usable = standards.standard_page(
        session, limit=_MOST_STANDARDS, observed_property=found.property, usable_at=now
    )
    return render_template(
        "calibration.html",
        record=record,
        calibration=found,
        previous=record.previous,
        compared=_compared(record),
        drawn=draw_residuals(record),
        residuals=iter((found.fit or {}).get("residuals", ())),
        unit=vocabulary.PROPERTIES[found.property],
        rehearsal=_rehearsal(record),
        usable=usable.items,
        stages=tuple(PointStage),
        values=forms.typed(),
        fault=fault,
    )


def _rehearsal(record: CalibrationRecord) -> dict[str, Any] | None:
    """What the approval of a draft would change, with its drawings, for whoever approves; None for what cannot be approved."""
    found = record.calibration
    is_sound = found.fit is not None and not record.faults
    if found.status != CalibrationStatus.DRAFT or not is_sound or not may(Right.STEWARD_DATA):
        return None
    told = rehearsing.rehearse_approval(current_session(), found.id)
    return {"told": told, "drawn": [draw_change(one.change) for one in told.streams]}


def _compared(record: CalibrationRecord) -> list[tuple[float, float, float]]:
    """Readings of its points, with the value that the calibration before makes of each, and the value that this one makes."""
    if record.previous is None:
        return []
    readings = sorted({one.indicated for one in record.points if one.stage == PointStage.FIT})
    return [(x, _value(record.previous, x), _value(record.calibration, x)) for x in readings]


def _value(found: Calibration, x: float) -> float:
    return found.offset + found.slope * x + found.curve * x * x


def _wanted(name: str, what: str) -> float:
    number = forms.number(name, what)
    if number is None:
        raise Invalid(gettext("%(what)s wants a number.", what=what))
    return number


def _not_one_of(name: str, allowed: tuple[str, ...]) -> Invalid:
    return Invalid("%(name)s wants one of %(allowed)s.", name=name, allowed=", ".join(allowed))


def _address(calibration_id: int) -> str:
    return url_for("web.calibration", calibration_id=calibration_id)


def _after(sorting: str) -> keyset.Key | None:
    after = request.args.get("after")
    return from_cursor(after, sorting=sorting) if after else None


def _next(endpoint: str, page: keyset.Page[Any], sorting: str, query: dict[str, Any]) -> str | None:
    if page.next_key is None:
        return None
    return url_for(endpoint, **query, after=as_cursor(page.next_key, sorting=sorting))

"""Others' measurements as pages: what was imported, a file's import after a rehearsal, a hand reading on the phone, check points."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from flask import Response as FlaskResponse
from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from sqlalchemy import select
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import current_actor, needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.languages import TIME_ZONE
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.http_shared.uploads import takes_file
from fleet_server.measurement import given_units
from fleet_server.measurement.drift import DRIFT_LIMITS
from fleet_server.models import Datastream, DriftCorrection, ExternalValue, ImportKind
from fleet_server.services import (
    calibrating,
    check_points,
    external_files,
    external_importing,
    hand_readings,
    site_importing,
    sites,
    taking_over,
)
from fleet_server.services.external_files import MeasurementRules, ValueColumn
from fleet_server.services.external_importing import ImportPlan, Origin
from fleet_server.services.hand_readings import HandReading
from fleet_server.services.rights import Right
from fleet_server.services.tables import LARGEST_FILE_BYTES, FileWrong, Table
from fleet_server.web import forms
from fleet_server.web.blueprint import web
from fleet_server.web.files import open_files
from fleet_server.web.measurement_words import COLUMN_WORDS

_IMPORTS, _VALUES, _MOST_WRONG = 50, 200, 100
_SHA256 = re.compile(r"[0-9a-f]{64}")
_APPLY = "apply"
_ONE_EACH = ("time", "clock_time", "site", "property", "unit", "depth", "sample")
_Answer = str | Response | tuple[str, int]


@web.get("/fleet/measurements")
@needs(Right.SEE_FLEET)
def measurements() -> str:
    """What others measured, newest import first."""
    after = request.args.get("after", "")
    page = external_importing.import_page(
        current_session(),
        limit=_IMPORTS,
        after=from_cursor(after, sorting="") if after else None,
    )
    following = None if page.next_key is None else as_cursor(page.next_key, sorting="")
    return render_template("measurements.html", imports=page.items, following=following)


@web.get("/fleet/measurements/<row_id:import_id>")
@needs(Right.SEE_FLEET)
def measurement(import_id: int) -> str:
    """One import: where it comes from, its first values, and its withdrawal."""
    return _import_page(import_id, "")


@web.get("/fleet/measurements/<row_id:import_id>/file")
@needs(Right.SEE_FLEET)
def measurement_file(import_id: int) -> FlaskResponse:
    """The bytes as they were received."""
    content = external_importing.content_of(current_session(), import_id)
    answer = FlaskResponse(content, mimetype="application/octet-stream")
    answer.headers["Content-Disposition"] = f'attachment; filename="import-{import_id}.csv"'
    return answer


@web.post("/fleet/measurements/<row_id:import_id>/withdraw")
@needs(Right.STEWARD_DATA)
def withdraw_measurement(import_id: int) -> _Answer:
    """What was there before is there again."""
    session = current_session()
    row, fault = forms.tried(
        lambda: external_importing.withdraw_import(
            session, import_id, reason=forms.text("reason"), now=clock.now()
        )
    )
    if row is None:
        return _import_page(import_id, fault), 400
    flash(gettext("It is withdrawn; the values are as they were."))
    return redirect(url_for("web.measurement", import_id=import_id), code=303)


@web.route("/fleet/measurements/import", methods=["GET", "POST"])
@needs(Right.CALIBRATE)
@takes_file(LARGEST_FILE_BYTES)
def import_measurements() -> _Answer:
    """Upload; then the same page with the file's columns and what the import would do, until it is done."""
    if request.method == "GET":
        return render_template("measurement_import.html", fault="", kinds=_file_kinds())
    found, fault = forms.tried(_file)
    if found is None:
        return render_template("measurement_import.html", fault=fault, kinds=_file_kinds()), 400
    data, table = found
    if not forms.text("sha256"):
        return _columns_page(data, table, None, "")  # just uploaded: nothing is said of it yet
    rules, fault = forms.tried(lambda: _rules(table))
    if rules is None:
        return _columns_page(data, table, None, fault), 400
    session, now = current_session(), clock.now()
    plan, fault = forms.tried(lambda: external_importing.plan_import(session, data, rules, now=now))
    if plan is None or plan.wrong_count or forms.text("step") != _APPLY:
        return _columns_page(data, table, plan, fault), 200 if plan is not None else 400
    done, fault = forms.tried(
        lambda: external_importing.import_measurements(session, data, rules, _origin(), now=now)
    )
    if done is None or done.import_id is None:
        return _columns_page(data, table, plan, fault), 400
    flash(gettext("Imported: %(count)s values.", count=str(done.plan.values_count)))
    return redirect(url_for("web.measurement", import_id=done.import_id), code=303)


@web.route("/field/sites/<row_id:site_id>/measure", methods=["GET", "POST"])
@needs(Right.CALIBRATE)
def take_down_reading(site_id: int) -> _Answer:
    """One reading of a staff gauge, a thermometer, a hand probe, a pF meter."""
    session = current_session()
    site = sites.site_of(session, site_id)
    fault = ""
    if request.method == "POST":
        number, fault = forms.tried(lambda: _take_down(site.code))
        if number is not None:
            flash(gettext("The reading is kept."))
            return redirect(url_for("web.site_check_points", site_id=site_id), code=303)
    actor = current_actor()
    page = render_template(
        "field_measure.html",
        site=site,
        properties=[name for name in given_units.PROPERTIES if _may_be_at(name, site.kind)],
        units=given_units.units_of,
        reader="" if actor is None else actor.name,
        values=forms.typed(),
        fault=fault,
    )
    return page, 400 if fault else 200


@web.get("/fleet/sites/<row_id:site_id>/check-points")
@needs(Right.SEE_FLEET)
def site_check_points(site_id: int) -> str:
    """What others measured at a site, beside its probes' values."""
    return _points_of_site(site_id, "")


@web.get("/fleet/check-points/of/<path:serial>")
@needs(Right.SEE_FLEET)
def probe_check_points(serial: str) -> str:
    """The same of one probe, wherever it was."""
    session = current_session()
    calibrating.known_sensor(session, serial)
    points = check_points.check_points(session, serial=serial)
    return render_template(
        "check_points.html",
        site=None,
        serial=serial,
        points=points,
        trends=check_points.trends(points),
        corrigible=[*DRIFT_LIMITS],
        fault="",
    )


@web.post("/fleet/check-points/<observation_id:observation_id>/take-over")
@needs(Right.CALIBRATE)
def take_over_check_point(observation_id: int) -> _Answer:
    """The check point becomes the finding of a drift correction, as a draft."""
    session, now = current_session(), clock.now()
    point = check_points.check_point_of(session, observation_id)
    site = sites.find_site(session, point.site_code)

    def draft() -> DriftCorrection:
        if not forms.text("from"):
            raise Invalid(gettext("When was the probe right? Give the time of the visit before."))
        return taking_over.take_over(
            session,
            observation_id,
            from_at=forms.moment("from", now=now),
            note=forms.text("note"),
            now=now,
        )

    made, fault = forms.tried(draft)
    if made is None:
        return _points_of_site(0 if site is None else site.id, fault), 400
    flash(gettext("The drift correction is a draft: somebody else approves it."))
    return redirect(url_for("web.corrections", serial=point.serial), code=303)


def _points_of_site(site_id: int, fault: str) -> str:
    session = current_session()
    site = sites.site_of(session, site_id)
    points = check_points.check_points(session, site_code=site.code)
    return render_template(
        "check_points.html",
        site=site,
        serial=None,
        points=points,
        trends=check_points.trends(points),
        corrigible=[*DRIFT_LIMITS],
        fault=fault,
    )


# ------------------------------------------------------------------------------------------------------------- one import


@dataclass(frozen=True)
class _Shown:
    stream: Datastream
    value: ExternalValue


def _import_page(import_id: int, fault: str) -> str:
    session = current_session()
    row = external_importing.import_of(session, import_id)
    values = session.execute(
        select(Datastream, ExternalValue)
        .join(ExternalValue, ExternalValue.datastream_id == Datastream.id)
        .where(ExternalValue.import_id == import_id)
        .order_by(ExternalValue.row, Datastream.id)
        .limit(_VALUES)
    )
    return render_template(
        "measurement.html",
        row=row,
        values=[_Shown(stream, value) for stream, value in values],
        fault=fault,
    )


# ----------------------------------------------------------------------------------------------------------------- a file


def _file_kinds() -> list[str]:
    return [ImportKind.LABORATORY, ImportKind.THIRD_PARTY, ImportKind.HAND]


def _file() -> tuple[bytes, Table]:
    """The file that came, or the one that came before and is only named now."""
    uploaded = forms.upload("file", most_bytes=LARGEST_FILE_BYTES)
    if uploaded:
        table = external_files.read_table(uploaded)
        site_importing.keep_preview(uploaded, store=open_files())
        return uploaded, table
    digest = forms.text("sha256")
    if not _SHA256.fullmatch(digest):
        raise FileWrong(gettext("Choose a file."))
    data = site_importing.previewed_file(digest, store=open_files())
    return data, external_files.read_table(data)


def _rules(table: Table) -> MeasurementRules:
    """As chosen on the page: of each column what it is."""
    named: dict[str, str] = {}
    values: list[ValueColumn] = []
    for place, column in enumerate(table.columns):
        role = forms.text(f"role_{place}")
        if role not in COLUMN_WORDS:
            raise Invalid(gettext("Say what each column is."))
        if role in _ONE_EACH:
            if role in named:
                raise Invalid(
                    gettext(
                        "Two columns are the same: %(one)s and %(other)s.",
                        one=named[role],
                        other=column,
                    )
                )
            named[role] = column
        elif role == "value":
            values.append(_value_column(place, column))
        elif role:
            values = _with_column(values, role, column)
    if "time" not in named:
        raise Invalid(gettext("Which column is the time?"))
    return MeasurementRules(
        tuple(values),
        named.pop("time"),
        zone=forms.text("zone") or None,
        date_order=forms.text("date_order") or None,
        time_of_day=forms.text("time_of_day") or None,
        site_code=None if "site" in named else forms.text("site_code") or None,
        sites=forms.lines("sites", example="LAB-7: teich-1"),
        properties=forms.lines("properties", example="oxygen: dissolved_oxygen"),
        flags=_flags(forms.lines("flags", example="suspect: 3")),
        missing=tuple(forms.text("missing").split()),
        k=forms.text("k") or "1",
        **named,
    )


def _value_column(place: int, column: str) -> ValueColumn:
    return ValueColumn(
        column,
        forms.text(f"property_{place}") or None,
        forms.text(f"unit_{place}") or None,
        forms.whole(f"depth_{place}", gettext("Depth in cm")),
        forms.text(f"u_{place}").replace(",", ".") or None,
    )


def _with_column(values: list[ValueColumn], role: str, column: str) -> list[ValueColumn]:
    """Uncertainties and flags belong to the values that stand before them."""
    if not values:
        raise Invalid(
            gettext("Column %(column)s belongs to values that stand before it.", column=column)
        )
    last = values[-1]
    changed = replace(last, u_column=column) if role == "u" else replace(last, flag_column=column)
    return [*values[:-1], changed]


def _flags(given: Mapping[str, str]) -> dict[str, int]:
    if any(flag not in ("1", "2", "3", "4", "9") for flag in given.values()):
        raise Invalid(gettext("A flag stands for one of 1, 2, 3, 4, 9."))
    return {word: int(flag) for word, flag in given.items()}


def _origin() -> Origin:
    kind = forms.text("kind")
    if kind not in [*ImportKind]:
        raise Invalid(gettext("Choose what it is."))
    return Origin(
        ImportKind(kind),
        forms.text("source"),
        method=forms.text("method"),
        instrument=forms.text("instrument"),
        report_number=forms.text("report_number"),
        note=forms.text("note"),
        file_name=forms.text("file_name"),
    )


def _columns_page(data: bytes, table: Table, plan: ImportPlan | None, fault: str) -> str:
    upload = request.files.get("file")
    name = upload.filename if upload is not None and upload.filename else forms.text("file_name")
    return render_template(
        "measurement_columns.html",
        sha256=hashlib.sha256(data).hexdigest(),
        file_name=name[-200:],
        table=table,
        roles=list(COLUMN_WORDS),
        properties=list(given_units.PROPERTIES),
        kinds=_file_kinds(),
        zone=TIME_ZONE,
        values=forms.typed(),
        plan=plan,
        most_wrong=_MOST_WRONG,
        fault=fault,
    )


# --------------------------------------------------------------------------------------------------------- a hand reading


def _may_be_at(name: str, kind: str) -> bool:
    return not name.startswith({"tree": "water_", "water": "soil_"}[kind])


def _take_down(site_code: str) -> int:
    now = clock.now()
    return hand_readings.take_down(
        current_session(),
        HandReading(
            site_code,
            forms.text("property"),
            forms.text("value"),
            forms.text("unit"),
            forms.moment("at", now=now),
            depth_cm=forms.whole("depth_cm", gettext("Depth in cm")),
            u=forms.text("u"),
            instrument=forms.text("instrument"),
            source=forms.text("source"),
            note=forms.text("note"),
        ),
        now=now,
    )

"""What others measured: files imported whole or not at all, single hand readings, check points beside the probes' values."""

from __future__ import annotations

import base64
import binascii
from datetime import timedelta
from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.corrections import CorrectionSchema
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.uploads import takes_file
from fleet_server.models import ExternalImport, ImportKind
from fleet_server.services import (
    check_points,
    correcting,
    external_importing,
    hand_readings,
    keyset,
    taking_over,
)
from fleet_server.services.check_points import CheckPoint
from fleet_server.services.correcting import CorrectionRecord
from fleet_server.services.external_files import MeasurementRules, rules_of
from fleet_server.services.external_importing import Imported, ImportPlan, Origin
from fleet_server.services.hand_readings import HandReading
from fleet_server.services.rights import Right
from fleet_server.services.tables import LARGEST_FILE_BYTES

measurements = Noun("measurements", "What others measured, with where it comes from")

_NAME = validate.Length(max=200)
_KINDS = [one.value for one in ImportKind]
_LONGEST_BASE64 = 4 * (LARGEST_FILE_BYTES // 3 + 1)


class ImportSchema(Schema):
    """`values`: how many. A withdrawn import makes no value any more; what it said stays readable."""

    id = fields.Integer(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(_KINDS))
    source = fields.String(required=True)
    method = fields.String(required=True)
    instrument = fields.String(required=True)
    report_number = fields.String(required=True)
    note = fields.String(required=True)
    file_name = fields.String(required=True)
    sha256 = fields.String(required=True, attribute="content_sha256")
    values = fields.Integer(required=True, attribute="values_count")
    author = fields.String(required=True)
    imported_at = fields.AwareDateTime(required=True)
    withdrawn_by = fields.String(required=True, allow_none=True)
    withdrawn_at = fields.AwareDateTime(required=True, allow_none=True)
    withdrawn_reason = fields.String(required=True)


class ImportWithRulesSchema(ImportSchema):
    """`rules`: how its file was read; a next file of the same kind is sent with them."""

    rules = fields.Dict(keys=fields.String(), required=True)


class MeasurementImportQuery(ListQuery):
    site = fields.String(load_default=None, metadata={"description": "code of a site"})


class MeasurementFileSchema(Schema):
    """A file with where it comes from and how it is read: `rules` as an import shows them."""

    kind = fields.String(load_default="third_party", validate=validate.OneOf(_KINDS))
    source = fields.String(required=True, validate=validate.Length(1, 200))
    method = fields.String(load_default="", validate=_NAME)
    instrument = fields.String(load_default="", validate=_NAME)
    report_number = fields.String(load_default="", validate=_NAME)
    note = fields.String(load_default="", validate=validate.Length(max=500))
    file_name = fields.String(load_default="", validate=_NAME)
    content = fields.String(
        required=True,
        validate=validate.Length(max=_LONGEST_BASE64),
        metadata={"description": "the file's bytes, in base64"},
    )
    rules = fields.Dict(keys=fields.String(), required=True)
    is_rehearsal = fields.Boolean(
        load_default=False, metadata={"description": "only say what would happen"}
    )


class WrongCellSchema(Schema):
    """`row`: its number as who looks into the file finds it; `column` empty: the whole row."""

    row = fields.Integer(required=True)
    column = fields.String(required=True)
    code = fields.String(required=True)
    sentence = fields.String(required=True)


class MeasurementReportSchema(Schema):
    """`import_id` null: it was a rehearsal, or a cell is wrong, and nothing was imported. `wrong` are the first of `wrong_count`."""

    import_id = fields.Integer(required=True, allow_none=True)
    new = fields.Integer(required=True, attribute="plan.new")
    replacing = fields.Integer(required=True, attribute="plan.replacing")
    empty = fields.Integer(required=True, attribute="plan.empty")
    without_u = fields.Integer(required=True, attribute="plan.without_u")
    limits = fields.Integer(required=True, attribute="plan.limits")
    backwards = fields.Integer(required=True, attribute="plan.backwards")
    encoding = fields.String(required=True, attribute="plan.encoding")
    streams = fields.Dict(
        keys=fields.String(), values=fields.Integer(), required=True, attribute="plan.streams"
    )
    wrong_count = fields.Integer(required=True, attribute="plan.wrong_count")
    wrong = fields.List(fields.Nested(WrongCellSchema), required=True, attribute="plan.wrong")


class HandReadingSchema(Schema):
    """Value and standard uncertainty as the instrument shows them, in `unit`."""

    site = fields.String(required=True, validate=validate.Length(1, 64))
    property = fields.String(required=True, validate=validate.Length(1, 64))
    depth_cm = fields.Integer(
        load_default=None, allow_none=True, validate=validate.Range(0, 10_000)
    )
    value = fields.String(required=True, validate=validate.Length(1, 50))
    unit = fields.String(required=True, validate=validate.Length(max=50))
    u = fields.String(
        load_default="",
        validate=validate.Length(max=50),
        metadata={"description": "empty: nobody knows"},
    )
    at = fields.AwareDateTime(load_default=None, allow_none=True)
    instrument = fields.String(load_default="", validate=_NAME)
    source = fields.String(
        required=True,
        validate=validate.Length(1, 200),
        metadata={"description": "who read it"},
    )
    note = fields.String(load_default="", validate=validate.Length(max=500))


class ImportWithdrawalSchema(Schema):
    reason = fields.String(required=True, validate=validate.Length(1, 500))


class CheckPointQuery(ListQuery):
    site = fields.String(load_default=None, metadata={"description": "code of a site"})
    serial = fields.String(load_default=None, metadata={"description": "of a probe"})
    window_s = fields.Integer(
        load_default=3600,
        validate=validate.Range(0, 86_400),
        metadata={"description": "how far the probe's value may lie from the other, on each side"},
    )


class CheckPointSchema(Schema):
    """`difference` = measured − given; `en` = difference / (2 √(u² + u²)), |en| ≤ 1 agrees; null where a part of it is not known."""

    site = fields.String(required=True, attribute="site_code")
    property = fields.String(required=True, attribute="observed_property")
    depth_cm = fields.Integer(required=True)
    unit = fields.String(required=True)
    at = fields.AwareDateTime(required=True)
    observation_id = fields.Integer(required=True)
    import_id = fields.Integer(required=True)
    source = fields.String(required=True)
    given = fields.Float(required=True, allow_none=True)
    given_u = fields.Float(required=True, allow_none=True)
    given_flag = fields.Integer(required=True)
    limit_sign = fields.String(required=True)
    limit_value = fields.Float(required=True, allow_none=True)
    measured = fields.Function(
        lambda one: None if one.measured is None else one.measured.value,
        required=True,
        metadata={"type": ["number", "null"]},
    )
    measured_u = fields.Function(
        lambda one: None if one.measured is None else one.measured.u,
        required=True,
        metadata={"type": ["number", "null"]},
    )
    away_s = fields.Function(
        lambda one: None if one.measured is None else one.measured.away_s,
        required=True,
        metadata={"type": ["integer", "null"]},
    )
    is_interpolated = fields.Function(
        lambda one: one.measured is not None and one.measured.is_interpolated,
        required=True,
        metadata={"type": "boolean"},
    )
    serial = fields.String(required=True, allow_none=True)
    is_corrected = fields.Boolean(required=True)
    difference = fields.Float(required=True, allow_none=True)
    difference_u = fields.Float(required=True, allow_none=True)
    en = fields.Float(required=True, allow_none=True)
    agrees = fields.Boolean(required=True, allow_none=True)


class MeasurementFileContentSchema(Schema):
    """The bytes as received, in base64."""

    file_name = fields.String(required=True)
    sha256 = fields.String(required=True, attribute="content_sha256")
    content = fields.Function(
        lambda one: base64.b64encode(one.content).decode(),
        required=True,
        metadata={"type": "string"},
    )


class TakingOverSchema(Schema):
    from_at = fields.AwareDateTime(
        required=True, metadata={"description": "the visit that left the probe right"}
    )
    note = fields.String(load_default="", validate=validate.Length(0, 500))


@measurements.route("")
class Measurements(MethodView):
    @needs(Right.SEE_FLEET)
    @measurements.lists(ImportSchema, MeasurementImportQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[ExternalImport]:
        """Imports, newest first"""
        return external_importing.import_page(
            current_session(),
            limit=query["limit"],
            after=query["after"],
            site_code=query["site"],
        )


@measurements.route("/import")
class MeasurementImporting(MethodView):
    @needs(Right.CALIBRATE)
    @takes_file(_LONGEST_BASE64)
    @measurements.acts(MeasurementFileSchema, MeasurementReportSchema)
    def post(self, given: dict[str, Any]) -> Imported:
        """Import all values of a file, or none: every cell that is wrong is told"""
        session, now = current_session(), clock.now()
        data, rules = _bytes(given["content"]), _rules(given["rules"])
        if given["is_rehearsal"]:
            plan: ImportPlan = external_importing.plan_import(session, data, rules, now=now)
            return Imported(plan, None)
        names = ("source", "method", "instrument", "report_number", "note", "file_name")
        origin = Origin(ImportKind(given["kind"]), **{name: given[name] for name in names})
        return external_importing.import_measurements(session, data, rules, origin, now=now)


@measurements.route("/hand-readings")
class HandReadings(MethodView):
    @needs(Right.CALIBRATE)
    @measurements.creates(
        HandReadingSchema,
        ImportSchema,
        at=lambda made: url_for("measurements.OneMeasurement", import_id=made.id),
    )
    def post(self, given: dict[str, Any]) -> ExternalImport:
        """Write down one reading of an instrument in the hand"""
        session, now = current_session(), clock.now()
        reading = HandReading(
            given["site"],
            given["property"],
            given["value"],
            given["unit"],
            given["at"] or now,
            depth_cm=given["depth_cm"],
            u=given["u"],
            instrument=given["instrument"],
            source=given["source"],
            note=given["note"],
        )
        number = hand_readings.take_down(session, reading, now=now)
        return external_importing.import_of(session, number)


@measurements.route("/check-points")
class CheckPoints(MethodView):
    @needs(Right.SEE_FLEET)
    @measurements.lists(CheckPointSchema, CheckPointQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[CheckPoint]:
        """The newest values of others, at most two hundred, with the probe's value at that instant"""
        keyset.check_key(query["after"], ())  # there is one page
        found = check_points.check_points(
            current_session(),
            site_code=query["site"],
            serial=query["serial"],
            window=timedelta(seconds=query["window_s"]),
        )
        return keyset.Page(found[: query["limit"]], None)


@measurements.route("/check-points/<observation_id:observation_id>/take-over")
class TakingOver(MethodView):
    @needs(Right.CALIBRATE)
    @measurements.acts(TakingOverSchema, CorrectionSchema)
    def post(self, given: dict[str, Any], observation_id: int) -> CorrectionRecord:
        """Draft a drift correction of the probe, from a visit to this check point; somebody else approves it"""
        session = current_session()
        made = taking_over.take_over(
            session,
            observation_id,
            from_at=given["from_at"],
            note=given["note"],
            now=clock.now(),
        )
        return correcting.record_of(session, made.id)


@measurements.route("/<row_id:import_id>")
class OneMeasurement(MethodView):
    @needs(Right.SEE_FLEET)
    @measurements.shows(ImportWithRulesSchema)
    def get(self, import_id: int) -> ExternalImport:
        """One import"""
        return external_importing.import_of(current_session(), import_id)


@measurements.route("/<row_id:import_id>/file")
class MeasurementFile(MethodView):
    @needs(Right.SEE_FLEET)
    @measurements.shows(MeasurementFileContentSchema)
    def get(self, import_id: int) -> ExternalImport:
        """Its file, byte for byte"""
        return external_importing.import_of(current_session(), import_id)


@measurements.route("/<row_id:import_id>/withdraw")
class WithdrawingMeasurement(MethodView):
    @needs(Right.STEWARD_DATA)
    @measurements.acts(ImportWithdrawalSchema, ImportSchema)
    def post(self, given: dict[str, Any], import_id: int) -> ExternalImport:
        """It was a mistake: what was there before is there again"""
        return external_importing.withdraw_import(
            current_session(), import_id, reason=given["reason"], now=clock.now()
        )


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise Invalid("The file's content is no base64.") from problem


def _rules(given: dict[str, Any]) -> MeasurementRules:
    try:
        return rules_of(given)
    except (KeyError, TypeError) as problem:
        raise Invalid("These are no rules; GET an import to see what they look like.") from problem

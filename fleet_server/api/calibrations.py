"""Probes with when they are due, standards, and calibrations from draft to certificate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import (
    CalibrationKind,
    CalibrationStatus,
    PointStage,
    Standard,
    StandardKind,
)
from fleet_server.services import (
    calibrating,
    calibration_documents,
    calibration_list,
    guiding,
    keyset,
    rehearsing,
    settling,
    standards,
)
from fleet_server.services.calibrating import NewCalibration, NewPoint
from fleet_server.services.calibration_list import CalibrationFilter, ProbeLine
from fleet_server.services.guiding import Taking
from fleet_server.services.rights import Right
from fleet_server.services.settling import Verdict
from fleet_server.services.standards import NewStandard

calibrations = Noun("calibrations", "From a probe's points in standards to its numbers")
standards_noun = Noun("standards", "What probes are calibrated against")
sensors = Noun("sensors", "Probes, and when each has to be calibrated again")

_KINDS = tuple(kind for kind in CalibrationKind if kind != CalibrationKind.FACTORY)


class SensorSchema(Schema):
    """One probe; `calibrated_at` null: nobody calibrated it but its maker."""

    serial = fields.String(required=True, attribute="sensor.serial")
    sensor_type = fields.String(required=True, attribute="sensor.sensor_type")
    calibrated_at = fields.AwareDateTime(required=True, allow_none=True)
    due_at = fields.AwareDateTime(required=True)
    drift_due_at = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata={"description": "when what time adds to u is more than may stay"},
    )
    every_days = fields.Integer(required=True)
    node_id = fields.String(required=True, allow_none=True)
    site_name = fields.String(required=True, allow_none=True)


class SensorQuery(ListQuery):
    is_due = fields.Boolean(
        load_default=False,
        metadata={"description": "only those that have to be calibrated by now"},
    )
    sensor_type = fields.String()
    text = fields.String(
        load_default="", metadata={"description": "part of its serial number or its node's label"}
    )


@sensors.route("")
class Sensors(MethodView):
    @needs(Right.SEE_FLEET)
    @sensors.lists(SensorSchema, SensorQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[ProbeLine]:
        """Probes by serial number"""
        return calibration_list.probe_page(current_session(), now=clock.now(), **query)


# ---------------------------------------------------------------------------------------------------------- standards


class StandardSchema(Schema):
    """A standard; `points` are pairs of °C and value, one pair for any temperature."""

    id = fields.Integer(required=True)
    kind = fields.String(required=True)
    property = fields.String(required=True)
    name = fields.String(required=True)
    lot = fields.String(required=True)
    certificate = fields.String(required=True)
    points = fields.List(fields.List(fields.Float()), required=True)
    u = fields.Float(required=True)
    expires_at = fields.AwareDateTime(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    created_by = fields.String(required=True)
    discarded_at = fields.AwareDateTime(required=True, allow_none=True)


class StandardQuery(ListQuery):
    property = fields.String()
    is_usable = fields.Boolean(
        load_default=False, metadata={"description": "neither expired nor discarded"}
    )


class NewStandardSchema(Schema):
    kind = fields.Enum(StandardKind, by_value=True, required=True)
    property = fields.String(required=True, validate=validate.Length(1, 64))
    name = fields.String(required=True, validate=validate.Length(1, 120))
    lot = fields.String(load_default="", validate=validate.Length(max=120))
    certificate = fields.String(load_default="", validate=validate.Length(max=120))
    points = fields.List(
        fields.List(fields.Float(), validate=validate.Length(equal=2)),
        load_default=list,
        validate=validate.Length(max=40),
    )
    u = fields.Float(required=True)
    expires_at = fields.AwareDateTime(load_default=None, allow_none=True)


@standards_noun.route("")
class Standards(MethodView):
    @needs(Right.SEE_FLEET)
    @standards_noun.lists(StandardSchema, StandardQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[Standard]:
        """Standards by name"""
        return standards.standard_page(
            current_session(),
            limit=query["limit"],
            after=query["after"],
            observed_property=query.get("property"),
            usable_at=clock.now() if query["is_usable"] else None,
        )

    @needs(Right.CALIBRATE)
    @standards_noun.creates(
        NewStandardSchema,
        StandardSchema,
        at=lambda made: url_for("standards.OneStandard", standard_id=made.id),
    )
    def post(self, given: dict[str, Any]) -> Standard:
        """Put a standard on the list"""
        pairs = [(one[0], one[1]) for one in given.pop("points")]
        new = NewStandard(**given, points=pairs)
        return standards.add_standard(current_session(), new, now=clock.now())


@standards_noun.route("/<row_id:standard_id>")
class OneStandard(MethodView):
    @needs(Right.SEE_FLEET)
    @standards_noun.shows(StandardSchema)
    def get(self, standard_id: int) -> Standard:
        """One standard"""
        return standards.standard_of(current_session(), standard_id)


@standards_noun.route("/<row_id:standard_id>/discard")
class Discarding(MethodView):
    @needs(Right.CALIBRATE)
    @standards_noun.acts(None, StandardSchema)
    def post(self, standard_id: int) -> Standard:
        """Nothing is calibrated against it any more"""
        return standards.discard_standard(current_session(), standard_id, now=clock.now())


# ------------------------------------------------------------------------------------------------------- calibrations


class CalibrationLineSchema(Schema):
    """A calibration in a list."""

    id = fields.Integer(required=True, attribute="calibration.id")
    serial = fields.String(required=True)
    sensor_type = fields.String(required=True)
    property = fields.String(required=True, attribute="calibration.property")
    version = fields.Integer(required=True, attribute="calibration.version")
    status = fields.String(required=True, attribute="calibration.status")
    kind = fields.String(required=True, attribute="calibration.kind")
    offset = fields.Float(required=True, attribute="calibration.offset")
    slope = fields.Float(required=True, attribute="calibration.slope")
    valid_from = fields.AwareDateTime(required=True, attribute="calibration.valid_from")
    valid_to = fields.AwareDateTime(
        required=True, allow_none=True, attribute="calibration.valid_to"
    )
    performed_by = fields.String(required=True, attribute="calibration.performed_by")
    author = fields.String(required=True, attribute="calibration.author")
    approved_by = fields.String(required=True, allow_none=True, attribute="calibration.approved_by")


class FaultSchema(Schema):
    """Why the fit cannot be trusted."""

    code = fields.String(required=True)
    numbers = fields.Dict(keys=fields.String(), values=fields.Float(), required=True)
    sentence = fields.String(required=True)


class HeldCorrectionSchema(Schema):
    """A drift correction that holds within the calibration's time."""

    id = fields.Integer(required=True)
    from_at = fields.String(required=True)
    to_at = fields.String(required=True)


class CalibrationSchema(Schema):
    """One calibration: what is certified, and where it stands. `sha256` is of what is certified; an approval names it.

    `corrections`: whoever approves or withdraws it says of each of them what becomes of it.
    """

    calibration = fields.Integer(required=True)
    version = fields.Integer(required=True)
    status = fields.String(required=True)
    sensor = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    property = fields.String(required=True)
    unit = fields.String(required=True)
    kind = fields.String(required=True)
    equation = fields.String(required=True)
    parameters = fields.Dict(keys=fields.String(), required=True)
    fit = fields.Dict(keys=fields.String(), required=True, allow_none=True)
    faults = fields.List(fields.Nested(FaultSchema), required=True)
    points = fields.List(fields.Dict(keys=fields.String()), required=True)
    environment = fields.Dict(keys=fields.String(), required=True)
    performed_by = fields.String(required=True)
    performed_at = fields.String(required=True, allow_none=True)
    procedure = fields.String(required=True)
    author = fields.String(required=True)
    reference = fields.String(required=True)
    valid_from = fields.String(required=True)
    valid_to = fields.String(required=True, allow_none=True)
    previous = fields.Dict(keys=fields.String(), required=True, allow_none=True)
    approval = fields.Dict(keys=fields.String(), required=True)
    software = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    sha256 = fields.String(required=True)
    corrections = fields.List(fields.Nested(HeldCorrectionSchema), required=True)
    created_at = fields.String(required=True)
    withdrawn_by = fields.String(required=True, allow_none=True)
    withdrawn_at = fields.String(required=True, allow_none=True)
    withdrawn_reason = fields.String(required=True)


class NewPointSchema(Schema):
    """The probe in a standard: `reference` with `u_reference`, or what follows from `standard_id`."""

    indicated = fields.Float(required=True)
    reference = fields.Float(load_default=None, allow_none=True)
    u_reference = fields.Float(load_default=None, allow_none=True)
    standard_id = fields.Integer(
        load_default=None, allow_none=True, validate=validate.Range(1, 2**31 - 1)
    )
    temperature_c = fields.Float(load_default=None, allow_none=True)
    u_indicated = fields.Float(load_default=0.0)
    stage = fields.Enum(PointStage, by_value=True, load_default=PointStage.FIT)
    step = fields.String(load_default="", validate=validate.Length(max=40))
    taken_at = fields.AwareDateTime(load_default=None, allow_none=True)
    note = fields.String(load_default="", validate=validate.Length(max=500))


class NewCalibrationSchema(Schema):
    serial = fields.String(required=True, validate=validate.Length(1, 80))
    property = fields.String(required=True, validate=validate.Length(1, 64))
    kind = fields.String(
        load_default=CalibrationKind.LINEAR, validate=validate.OneOf([str(one) for one in _KINDS])
    )
    performed_by = fields.String(required=True, validate=validate.Length(1, 120))
    performed_at = fields.AwareDateTime(load_default=None, allow_none=True)
    points = fields.List(
        fields.Nested(NewPointSchema), load_default=list, validate=validate.Length(max=60)
    )
    valid_from = fields.AwareDateTime(load_default=None, allow_none=True)
    valid_to = fields.AwareDateTime(load_default=None, allow_none=True)
    environment = fields.Dict(keys=fields.String(), load_default=dict)
    u_absolute = fields.Float(load_default=None, allow_none=True)
    u_relative = fields.Float(load_default=None, allow_none=True)
    u_drift_absolute = fields.Float(
        load_default=None,
        allow_none=True,
        metadata={"description": "what a year adds to u; both null: as is suggested"},
    )
    u_drift_relative = fields.Float(load_default=None, allow_none=True)
    reference = fields.String(load_default="", validate=validate.Length(max=500))


class CalibrationChangeSchema(Schema):
    """What is not given stays."""

    kind = fields.String(validate=validate.OneOf([str(one) for one in _KINDS]))
    performed_by = fields.String(validate=validate.Length(1, 120))
    performed_at = fields.AwareDateTime()
    valid_from = fields.AwareDateTime()
    valid_to = fields.AwareDateTime(allow_none=True)
    environment = fields.Dict(keys=fields.String())
    u_absolute = fields.Float()
    u_relative = fields.Float()
    u_drift_absolute = fields.Float()
    u_drift_relative = fields.Float()
    reference = fields.String(validate=validate.Length(max=500))


class _VerdictFields(Schema):
    """Of every drift correction that holds within the calibration's time: it stays as it is, or is withdrawn with this."""

    keep_corrections = fields.List(
        fields.Integer(validate=validate.Range(1, 2**31 - 1)),
        load_default=list,
        validate=validate.Length(max=100),
    )
    withdraw_corrections = fields.List(
        fields.Integer(validate=validate.Range(1, 2**31 - 1)),
        load_default=list,
        validate=validate.Length(max=100),
    )


class RehearsalWishSchema(Schema):
    """`sha256`: of what was looked at."""

    sha256 = fields.String(required=True, validate=validate.Length(equal=64))
    valid_from = fields.AwareDateTime(load_default=None, allow_none=True)


class RehearsedCorrectionSchema(Schema):
    """A drift correction that holds within the draft's time."""

    id = fields.Integer(required=True)
    from_at = fields.AwareDateTime(required=True)
    to_at = fields.AwareDateTime(required=True)


class RehearsedChangeSchema(Schema):
    """What an approval would do to one datastream; `largest` and `mean` of the changes of its values, in its unit, null: none differs."""

    datastream_id = fields.Integer(required=True, attribute="stream.id")
    site = fields.String(required=True, attribute="site.code")
    site_name = fields.String(required=True, attribute="site.name")
    property = fields.String(required=True, attribute="stream.property")
    unit = fields.String(required=True, attribute="stream.unit")
    depth_cm = fields.Integer(required=True, attribute="stream.depth_cm")
    compared = fields.Integer(required=True, attribute="change.compared")
    changed = fields.Integer(required=True, attribute="change.changed")
    removed = fields.Integer(required=True, attribute="change.removed")
    largest = fields.Float(required=True, allow_none=True, attribute="change.largest")
    mean = fields.Float(required=True, allow_none=True, attribute="change.mean")
    flags_changed = fields.Integer(required=True, attribute="change.flags_changed")


class RehearsalSchema(Schema):
    """By datastream; of each at most `newest_max` values, the newest, were compared. `left_out`: datastreams beside these; `is_cut`: there is more.

    `corrections`: drift corrections that hold within its time; the changes are as if each stayed.
    """

    newest_max = fields.Integer(required=True)
    is_cut = fields.Boolean(required=True)
    left_out = fields.Integer(required=True)
    compared = fields.Integer(required=True)
    changed = fields.Integer(required=True)
    removed = fields.Integer(required=True)
    flags_changed = fields.Integer(required=True)
    corrections = fields.List(fields.Nested(RehearsedCorrectionSchema), required=True)
    changes = fields.List(fields.Nested(RehearsedChangeSchema), required=True, attribute="streams")


class PointNameSchema(Schema):
    """Which point."""

    step = fields.String(required=True, validate=validate.Length(1, 40))
    stage = fields.Enum(PointStage, by_value=True, load_default=PointStage.FIT)


class GuidedChannelSchema(Schema):
    """A channel of a node that stands somewhere, by its key."""

    node_id = fields.String(required=True, validate=validate.Length(1, 64))
    key = fields.String(required=True, validate=validate.Length(1, 64))


class LiveSchema(Schema):
    """What a probe reads now, before calibration, and whether it stands still; `why_not`: few, short, slope, spread or stale."""

    reading = fields.Float(required=True, allow_none=True)
    read_at = fields.AwareDateTime(required=True, allow_none=True)
    unit = fields.String(required=True)
    is_steady = fields.Boolean(required=True)
    why_not = fields.String(required=True)
    steady_for_s = fields.Float(required=True)
    temperature_c = fields.Float(required=True, allow_none=True)
    steps = fields.List(fields.Dict(keys=fields.String()), required=True)


class TakingSchema(Schema):
    """How a step is taken."""

    step = fields.String(required=True, validate=validate.Length(1, 40))
    standard_id = fields.Integer(
        load_default=None, allow_none=True, validate=validate.Range(1, 2**31 - 1)
    )
    temperature_c = fields.Float(load_default=None, allow_none=True)
    pressure_hpa = fields.Float(load_default=None, allow_none=True)
    shown = fields.Float(load_default=None, allow_none=True)
    u_shown = fields.Float(load_default=None, allow_none=True)
    takes_unsteady = fields.Boolean(load_default=False)


class ApprovalSchema(RehearsalWishSchema, _VerdictFields):
    """`sha256`: of what the approver looked at."""


class WithdrawalSchema(_VerdictFields):
    reason = fields.String(required=True, validate=validate.Length(1, 500))


class CalibrationCertificateSchema(Schema):
    """What was approved, as it was then, and its SHA-256: of this JSON with its keys sorted and without blanks, in UTF-8."""

    certificate = fields.Dict(keys=fields.String(), required=True)
    sha256 = fields.String(required=True)


class CalibrationQuery(ListQuery):
    status = fields.Enum(CalibrationStatus, by_value=True)
    serial = fields.String()
    property = fields.String()
    with_factory = fields.Boolean(
        load_default=False, metadata={"description": "the makers' calibrations, too"}
    )


@calibrations.route("")
class Calibrations(MethodView):
    @needs(Right.SEE_FLEET)
    @calibrations.lists(CalibrationLineSchema, CalibrationQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[dict[str, Any]]:
        """Calibrations, newest first"""
        wanted = CalibrationFilter(
            status=query.get("status"),
            serial=query.get("serial"),
            property=query.get("property"),
            with_factory=query["with_factory"],
        )
        return calibration_list.calibration_page(  # type: ignore[return-value] # lines, shown by the schema
            current_session(), wanted, limit=query["limit"], after=query["after"]
        )

    @needs(Right.CALIBRATE)
    @calibrations.creates(
        NewCalibrationSchema,
        CalibrationSchema,
        at=lambda made: url_for("calibrations.OneCalibration", calibration_id=made["calibration"]),
    )
    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        """Make a draft, fitted"""
        now = clock.now()
        new = NewCalibration(
            **{
                **given,
                "kind": CalibrationKind(given["kind"]),
                "performed_at": given["performed_at"] or now,
                "points": [NewPoint(**one) for one in given["points"]],
            }
        )
        made = calibrating.draft_calibration(current_session(), new, now=now)
        return calibration_documents.record_document(made)


@calibrations.route("/<row_id:calibration_id>")
class OneCalibration(MethodView):
    def entity(self, calibration_id: int) -> dict[str, Any]:
        record = calibrating.record_of(current_session(), calibration_id)
        return calibration_documents.record_document(record)

    @needs(Right.SEE_FLEET)
    @calibrations.shows(CalibrationSchema)
    def get(self, calibration_id: int) -> dict[str, Any]:
        """One calibration with its points and its fit"""
        return self.entity(calibration_id)

    @needs(Right.CALIBRATE)
    @calibrations.changes(CalibrationChangeSchema, CalibrationSchema)
    def patch(self, given: dict[str, Any], calibration_id: int) -> None:
        """Change a draft; it is fitted anew"""
        calibrating.change_draft(current_session(), calibration_id, given, now=clock.now())


@calibrations.route("/<row_id:calibration_id>/points")
class Points(MethodView):
    @needs(Right.CALIBRATE)
    @calibrations.acts(NewPointSchema, CalibrationSchema)
    def post(self, given: dict[str, Any], calibration_id: int) -> dict[str, Any]:
        """Add a point to a draft, or replace the one of its step; it is fitted anew"""
        record = calibrating.put_point(
            current_session(), calibration_id, NewPoint(**given), now=clock.now()
        )
        return calibration_documents.record_document(record)


@calibrations.route("/<row_id:calibration_id>/points/drop")
class Dropping(MethodView):
    @needs(Right.CALIBRATE)
    @calibrations.acts(PointNameSchema, CalibrationSchema)
    def post(self, given: dict[str, Any], calibration_id: int) -> dict[str, Any]:
        """Take a point out of a draft; it is fitted anew"""
        record = calibrating.drop_point(current_session(), calibration_id, **given, now=clock.now())
        return calibration_documents.record_document(record)


@calibrations.route("/<row_id:calibration_id>/fit")
class Fitting(MethodView):
    @needs(Right.CALIBRATE)
    @calibrations.acts(None, CalibrationSchema)
    def post(self, calibration_id: int) -> dict[str, Any]:
        """Fit a draft anew; 403 with the reason when the fit cannot be trusted"""
        record = calibrating.refit(current_session(), calibration_id, now=clock.now())
        return calibration_documents.record_document(record)


def _verdicts(given: dict[str, Any]) -> dict[int, Verdict]:
    return settling.verdicts_of(given["keep_corrections"], given["withdraw_corrections"])


@calibrations.route("/<row_id:calibration_id>/approve")
class Approving(MethodView):
    @needs(Right.STEWARD_DATA)
    @calibrations.acts(ApprovalSchema, CalibrationSchema)
    def post(self, given: dict[str, Any], calibration_id: int) -> dict[str, Any]:
        """Let somebody else's draft hold"""
        record = calibrating.approve_calibration(
            current_session(),
            calibration_id,
            now=clock.now(),
            looked_at=given["sha256"],
            valid_from=given["valid_from"],
            corrections=_verdicts(given),
        )
        return calibration_documents.record_document(record)


@calibrations.route("/<row_id:calibration_id>/rehearse-approval")
class Rehearsing(MethodView):
    @needs(Right.STEWARD_DATA)
    @calibrations.acts(RehearsalWishSchema, RehearsalSchema)
    def post(self, given: dict[str, Any], calibration_id: int) -> rehearsing.Rehearsal:
        """Which observed values an approval would change, and by how much; nothing is changed"""
        return rehearsing.rehearse_approval(
            current_session(),
            calibration_id,
            looked_at=given["sha256"],
            valid_from=given["valid_from"],
        )


@calibrations.route("/<row_id:calibration_id>/withdraw")
class Withdrawing(MethodView):
    @needs(Right.STEWARD_DATA)
    @calibrations.acts(WithdrawalSchema, CalibrationSchema)
    def post(self, given: dict[str, Any], calibration_id: int) -> dict[str, Any]:
        """It was a mistake; its record stays"""
        record = calibrating.withdraw_calibration(
            current_session(),
            calibration_id,
            reason=given["reason"],
            now=clock.now(),
            corrections=_verdicts(given),
        )
        return calibration_documents.record_document(record)


@calibrations.route("/<row_id:calibration_id>/certificate")
class CertificateView(MethodView):
    @needs(Right.SEE_FLEET)
    @calibrations.shows(CalibrationCertificateSchema)
    def get(self, calibration_id: int) -> Mapping[str, Any]:
        """What was approved, and its hash"""
        told, sha256 = calibrating.certificate_of(current_session(), calibration_id)
        return {"certificate": told, "sha256": sha256}


# ------------------------------------------------------------------------------------------------------- step by step


@calibrations.route("/guided")
class Guided(MethodView):
    @needs(Right.CALIBRATE)
    @calibrations.acts(GuidedChannelSchema, CalibrationSchema)
    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        """Begin, or go on with, the steps of a channel"""
        record = guiding.begin_guided(
            current_session(), given["node_id"], given["key"], now=clock.now()
        )
        return calibration_documents.record_document(record)


@calibrations.route("/<row_id:calibration_id>/live")
class LiveReading(MethodView):
    @needs(Right.CALIBRATE)
    @calibrations.shows(LiveSchema)
    def get(self, calibration_id: int) -> dict[str, Any]:
        """What the probe reads now, and which steps are taken"""
        session = current_session()
        record = calibrating.record_of(session, calibration_id)
        channel = guiding.guided_channel(session, record)
        live = guiding.live_readings(session, channel, now=clock.now())
        return calibration_documents.live_document(record, channel, live)


@calibrations.route("/<row_id:calibration_id>/take")
class Stepping(MethodView):
    @needs(Right.CALIBRATE)
    @calibrations.acts(TakingSchema, CalibrationSchema)
    def post(self, given: dict[str, Any], calibration_id: int) -> dict[str, Any]:
        """The steady reading becomes a step's point; sent again it is taken again"""
        record = guiding.take_step(
            current_session(), calibration_id, Taking(**given), now=clock.now()
        )
        return calibration_documents.record_document(record)

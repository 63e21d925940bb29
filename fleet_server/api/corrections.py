"""Drift corrections, for drift and fouling: drafted, approved by another person, withdrawn."""

from __future__ import annotations

from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.measurement.drift import Check
from fleet_server.models import CorrectionStatus
from fleet_server.services import correcting, keyset
from fleet_server.services.correcting import CorrectionRecord, NewCorrection
from fleet_server.services.rights import Right

corrections = Noun("corrections", "What probes lost between two visits, put right in their values")

_LARGEST = 1e9


class CheckSchema(Schema):
    """The cleaned probe in a standard, both in the property's unit."""

    standard = fields.Float(required=True, validate=validate.Range(-_LARGEST, _LARGEST))
    reading = fields.Float(required=True, validate=validate.Range(-_LARGEST, _LARGEST))


class _CorrectionFields(Schema):
    serial = fields.String(required=True, validate=validate.Length(1, 64))
    property = fields.String(required=True, validate=validate.Length(1, 64))
    from_at = fields.AwareDateTime(
        required=True, metadata={"description": "the visit that left the probe right"}
    )
    to_at = fields.AwareDateTime(
        required=True, metadata={"description": "the visit that found it so"}
    )
    fouling = fields.Float(
        load_default=0.0,
        validate=validate.Range(-_LARGEST, _LARGEST),
        metadata={"description": "what cleaning added, in the property's unit"},
    )
    fouling_relative = fields.Float(
        load_default=0.0,
        validate=validate.Range(-1, _LARGEST),
        metadata={"description": "what cleaning added, as a part of the value"},
    )
    low = fields.Nested(CheckSchema, load_default=None, allow_none=True)
    high = fields.Nested(CheckSchema, load_default=None, allow_none=True)
    note = fields.String(load_default="", validate=validate.Length(0, 500))


class NewCorrectionSchema(_CorrectionFields):
    """`low` alone: the same drift for all values; `high` alone: in proportion; both: between the two."""


class CorrectionSchema(_CorrectionFields):
    """`from_import_id`: the import of others' measurements that its check stands on, if it does on one."""

    id = fields.Integer(required=True)
    from_import_id = fields.Integer(required=True, allow_none=True)
    status = fields.String(
        required=True, validate=validate.OneOf([one.value for one in CorrectionStatus])
    )
    version = fields.Integer(required=True)
    rating = fields.String(
        required=True,
        metadata={"description": "excellent, good, fair, poor or unpublishable, after TM1-D3"},
    )
    author = fields.String(required=True)
    approved_by = fields.String(required=True, allow_none=True)
    approved_at = fields.AwareDateTime(required=True, allow_none=True)
    withdrawn_by = fields.String(required=True, allow_none=True)
    withdrawn_at = fields.AwareDateTime(required=True, allow_none=True)
    withdrawn_reason = fields.String(required=True)
    created_at = fields.AwareDateTime(required=True)


class CorrectionQuery(ListQuery):
    serial = fields.String(load_default=None, validate=validate.Length(1, 64))
    status = fields.String(
        load_default=None, validate=validate.OneOf([one.value for one in CorrectionStatus])
    )


class CorrectionWithdrawalSchema(Schema):
    reason = fields.String(required=True, validate=validate.Length(1, 500))


@corrections.route("")
class Corrections(MethodView):
    @needs(Right.SEE_FLEET)
    @corrections.lists(CorrectionSchema, CorrectionQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[CorrectionRecord]:
        """Drift corrections, newest first"""
        status = query["status"]
        return correcting.correction_page(
            current_session(),
            serial=query["serial"],
            status=None if status is None else CorrectionStatus(status),
            limit=query["limit"],
            after=query["after"],
        )

    @needs(Right.CALIBRATE)
    @corrections.creates(
        NewCorrectionSchema,
        CorrectionSchema,
        at=lambda made: url_for("corrections.Correction", correction_id=made.id),
    )
    def post(self, given: dict[str, Any]) -> CorrectionRecord:
        """Write one down; it changes nothing until it is approved"""
        session = current_session()
        made = correcting.draft_correction(
            session,
            NewCorrection(
                given["serial"],
                given["property"],
                given["from_at"],
                given["to_at"],
                fouling=given["fouling"],
                fouling_relative=given["fouling_relative"],
                low=_check(given["low"]),
                high=_check(given["high"]),
                note=given["note"],
            ),
            now=clock.now(),
        )
        return correcting.record_of(session, made.id)


@corrections.route("/<row_id:correction_id>")
class Correction(MethodView):
    def entity(self, correction_id: int) -> CorrectionRecord:
        return correcting.record_of(current_session(), correction_id)

    @needs(Right.SEE_FLEET)
    @corrections.shows(CorrectionSchema)
    def get(self, correction_id: int) -> CorrectionRecord:
        """One drift correction"""
        return self.entity(correction_id)


@corrections.route("/<row_id:correction_id>/approve")
class ApprovingCorrection(MethodView):
    @needs(Right.STEWARD_DATA)
    @corrections.acts(None, CorrectionSchema)
    def post(self, correction_id: int) -> CorrectionRecord:
        """Let somebody else's draft hold; the values between its visits are made anew"""
        session = current_session()
        correcting.approve_correction(session, correction_id, now=clock.now())
        return correcting.record_of(session, correction_id)


@corrections.route("/<row_id:correction_id>/withdraw")
class WithdrawingCorrection(MethodView):
    @needs(Right.STEWARD_DATA)
    @corrections.acts(CorrectionWithdrawalSchema, CorrectionSchema)
    def post(self, given: dict[str, Any], correction_id: int) -> CorrectionRecord:
        """It was a mistake; its record stays, and every value is as it was"""
        session = current_session()
        correcting.withdraw_correction(
            session, correction_id, reason=given["reason"], now=clock.now()
        )
        return correcting.record_of(session, correction_id)


def _check(given: dict[str, float] | None) -> Check | None:
    return None if given is None else Check(given["standard"], given["reading"])

"""What persons say of values, and why a value has its flag."""

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
from fleet_server.models import Datastream, PersonFlag
from fleet_server.services import flag_reasons, flagging, keyset, rights, site_list
from fleet_server.services.flagging import FLAGS
from fleet_server.services.rights import Right

flags = Noun("flags", "What persons say of values, and why a value has its flag")

_MAX_DEPTH_CM = 10_000


class FlagSchema(Schema):
    """One person's word on a range of values. `flag` null: what was said before of them is taken back."""

    id = fields.Integer(required=True)
    datastream_id = fields.Integer(required=True)
    from_at = fields.AwareDateTime(required=True)
    to_at = fields.AwareDateTime(required=True)
    flag = fields.Integer(
        required=True, allow_none=True, metadata={"description": "1 good, 3 suspect, 4 bad"}
    )
    reason = fields.String(required=True)
    author = fields.String(required=True)
    created_at = fields.AwareDateTime(required=True)


class _SeriesFields(Schema):
    site_code = fields.String(required=True, validate=validate.Length(1, 64))
    property = fields.String(required=True, validate=validate.Length(1, 64))
    depth_cm = fields.Integer(
        load_default=None,
        validate=validate.Range(0, _MAX_DEPTH_CM),
        metadata={"description": "where there are several depths"},
    )


class FlagQuery(ListQuery, _SeriesFields):
    """Of one series."""


class NewFlagSchema(_SeriesFields):
    from_at = fields.AwareDateTime(required=True)
    to_at = fields.AwareDateTime(
        required=True, metadata={"description": "the first moment that is not meant"}
    )
    flag = fields.String(
        required=True,
        allow_none=True,
        validate=validate.OneOf(list(FLAGS)),
        metadata={"description": "null takes back what persons said"},
    )
    reason = fields.String(required=True, validate=validate.Length(1, flagging.LONGEST_REASON))


class FlagReasonSchema(Schema):
    test = fields.String(required=True)
    sentence = fields.String(required=True)


class VerdictSchema(Schema):
    """A value with its flag, and what speaks against it."""

    value = fields.Float(required=True, allow_none=True)
    flag = fields.Integer(required=True, metadata={"description": "QARTOD: 1, 2, 3, 4 or 9"})
    reasons = fields.List(fields.Nested(FlagReasonSchema), required=True)
    person = fields.Nested(FlagSchema, required=True, allow_none=True)


@flags.route("")
class Flags(MethodView):
    @needs(Right.SEE_FLEET)
    @flags.lists(FlagSchema, FlagQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[PersonFlag]:
        """All that persons ever said of a series, the last word first"""
        stream = _stream(query)
        return flagging.flag_page(
            current_session(), stream.id, limit=query["limit"], after=query["after"]
        )

    @needs(Right.STEWARD_DATA)
    @flags.creates(
        NewFlagSchema,
        FlagSchema,
        at=lambda made: url_for("flags.Flag", flag_id=made.id),
    )
    def post(self, given: dict[str, Any]) -> PersonFlag:
        """Flag values, or take back what was said of them"""
        session = current_session()
        stream_id = _stream(given).id
        word = given["flag"]
        made = flagging.give_flag(
            session,
            stream_id,
            from_at=given["from_at"],
            to_at=given["to_at"],
            flag=None if word is None else FLAGS[word],
            reason=given["reason"],
            author=rights.actor_of(session).name,
            now=clock.now(),
        )
        return flagging.flag_with_id(session, made.id)


@flags.route("/<row_id:flag_id>")
class Flag(MethodView):
    def entity(self, flag_id: int) -> PersonFlag:
        return flagging.flag_with_id(current_session(), flag_id)

    @needs(Right.SEE_FLEET)
    @flags.shows(FlagSchema)
    def get(self, flag_id: int) -> PersonFlag:
        """One person's word"""
        return self.entity(flag_id)


@flags.route("/why/<int:observation_id>")
class Why(MethodView):
    def entity(self, observation_id: int) -> dict[str, Any]:
        session = current_session()
        stream, verdict = flagging.why_id(session, observation_id)
        said = [(one.test, flag_reasons.said(one, stream.property)) for one in verdict.reasons]
        said += [(test, flag_reasons.said_without_numbers(test)) for test in verdict.others]
        return {
            "value": verdict.observation.value,
            "flag": verdict.observation.flag,
            "reasons": [
                {"test": test.name.lower(), "sentence": str(sentence)} for test, sentence in said
            ],
            "person": verdict.person,
        }

    @needs(Right.SEE_FLEET)
    @flags.shows(VerdictSchema)
    def get(self, observation_id: int) -> dict[str, Any]:
        """Why a value has its flag, with the numbers: the observation's `@iot.id`"""
        return self.entity(observation_id)


def _stream(given: dict[str, Any]) -> Datastream:
    """The series that is meant, if its site is the actor's business."""
    session = current_session()
    site_list.site_with_code(session, given["site_code"])
    return flagging.find_datastream(
        session, given["site_code"], given["property"], given["depth_cm"]
    )

"""Limits that values are judged by: those in force, all versions of them, what others would change, and setting them."""

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
from fleet_server.measurement.rules import to_data
from fleet_server.models import Datastream, RuleSet
from fleet_server.services import (
    flagging,
    keyset,
    quality_rules,
    rehearsing_rules,
    rights,
    site_list,
)
from fleet_server.services.quality_rules import InForce
from fleet_server.services.rehearsing_rules import RulesRehearsal
from fleet_server.services.rights import Right

limits = Noun("limits", "Limits that values are judged by")

_MAX_DEPTH_CM = 10_000
_WRITTEN = {"description": "as `GET /limits/in-force/…` gives them; null: the general ones again"}


class LimitsSchema(Schema):
    """One version. `datastream_id` null: of all values of the property that have none of their own."""

    id = fields.Integer(required=True)
    property = fields.String(required=True)
    datastream_id = fields.Integer(required=True, allow_none=True)
    version = fields.Integer(required=True)
    limits = fields.Dict(required=True, allow_none=True)
    reason = fields.String(required=True)
    author = fields.String(required=True)
    created_at = fields.AwareDateTime(required=True)


class LimitsInForceSchema(Schema):
    """`version` 0: nobody ever set any."""

    version = fields.Integer(required=True)
    is_of_series = fields.Boolean(
        required=True, metadata={"description": "set for this series, not for its property"}
    )
    limits = fields.Dict(required=True)


class LimitsQuery(ListQuery):
    property = fields.String(load_default=None, validate=validate.Length(1, 64))


class TriedLimitsSchema(Schema):
    property = fields.String(required=True, validate=validate.Length(1, 64))
    site_code = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 64),
        metadata={"description": "only for this site's values"},
    )
    depth_cm = fields.Integer(
        load_default=None,
        allow_none=True,
        validate=validate.Range(0, _MAX_DEPTH_CM),
        metadata={"description": "where there are several depths"},
    )
    limits = fields.Dict(required=True, allow_none=True, metadata=_WRITTEN)


class NewLimitsSchema(TriedLimitsSchema):
    reason = fields.String(required=True, validate=validate.Length(1, quality_rules.LONGEST_REASON))


class FlagExampleSchema(Schema):
    observation_id = fields.Integer(required=True)
    sampled_at = fields.AwareDateTime(required=True)
    value = fields.Float(required=True)


class FlagStepSchema(Schema):
    """So many values would get flag `after` instead of `before`; the first of them."""

    before = fields.Integer(required=True)
    after = fields.Integer(required=True)
    count = fields.Integer(required=True)
    examples = fields.List(fields.Nested(FlagExampleSchema), required=True)


class RulesRehearsalSchema(Schema):
    """Of `compared` values sampled since `from_at`, those that would get another flag."""

    from_at = fields.AwareDateTime(required=True)
    compared = fields.Integer(required=True)
    changed = fields.Integer(required=True)
    steps = fields.List(fields.Nested(FlagStepSchema), required=True)
    left_out = fields.Integer(
        required=True, metadata={"description": "series with older values, not looked at"}
    )


@limits.route("")
class Versions(MethodView):
    @needs(Right.SEE_FLEET)
    @limits.lists(LimitsSchema, LimitsQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[RuleSet]:
        """All versions of all limits that anybody ever set, the newest first"""
        return quality_rules.version_page(
            current_session(),
            limit=query["limit"],
            after=query["after"],
            observed_property=query["property"],
        )

    @needs(Right.STEWARD_DATA)
    @limits.creates(
        NewLimitsSchema, LimitsSchema, at=lambda made: url_for("limits.Version", number=made.id)
    )
    def post(self, given: dict[str, Any]) -> RuleSet:
        """Put other limits in force; values are judged again by them"""
        session = current_session()
        stream = _stream(given)
        return quality_rules.set_rules(
            session,
            given["property"],
            given["limits"],
            reason=given["reason"],
            author=rights.actor_of(session).name,
            now=clock.now(),
            datastream_id=None if stream is None else stream.id,
        )


@limits.route("/<row_id:number>")
class Version(MethodView):
    def entity(self, number: int) -> RuleSet:
        return quality_rules.version_with_id(current_session(), number)

    @needs(Right.SEE_FLEET)
    @limits.shows(LimitsSchema)
    def get(self, number: int) -> RuleSet:
        """One version"""
        return self.entity(number)


@limits.route("/in-force/<name>")
class OfProperty(MethodView):
    def entity(self, name: str) -> dict[str, Any]:
        return _shown(quality_rules.rules_of(current_session(), name, None))

    @needs(Right.SEE_FLEET)
    @limits.shows(LimitsInForceSchema)
    def get(self, name: str) -> dict[str, Any]:
        """What a property's values are judged by"""
        return self.entity(name)


@limits.route("/in-force/series/<row_id:datastream_id>")
class OfSeries(MethodView):
    def entity(self, datastream_id: int) -> dict[str, Any]:
        session = current_session()
        stream = flagging.series_with_id(session, datastream_id)
        return _shown(quality_rules.rules_of(session, stream.property, stream))

    @needs(Right.SEE_FLEET)
    @limits.shows(LimitsInForceSchema)
    def get(self, datastream_id: int) -> dict[str, Any]:
        """What one series' values are judged by"""
        return self.entity(datastream_id)


@limits.route("/dry-run")
class DryRun(MethodView):
    @needs(Right.STEWARD_DATA)
    @limits.acts(TriedLimitsSchema, RulesRehearsalSchema)
    def post(self, given: dict[str, Any]) -> RulesRehearsal:
        """Which flags of the last year other limits would change; nothing is changed"""
        stream = _stream(given)
        return rehearsing_rules.rehearse_rules(
            current_session(),
            given["property"],
            given["limits"],
            now=clock.now(),
            datastream_id=None if stream is None else stream.id,
        )


def _shown(found: InForce) -> dict[str, Any]:
    return {
        "version": found.version,
        "is_of_series": found.is_of_series,
        "limits": to_data(found.rules),
    }


def _stream(given: dict[str, Any]) -> Datastream | None:
    """The series that is meant, if its site is the actor's business; None: the whole property."""
    if given["site_code"] is None:
        return None
    session = current_session()
    site_list.site_with_code(session, given["site_code"])
    return flagging.find_datastream(
        session, given["site_code"], given["property"], given["depth_cm"]
    )

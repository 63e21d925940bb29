"""Alerts on the fleet, and maintenance windows that keep them quiet."""

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
from fleet_server.models import AlertKind, Severity, Silence
from fleet_server.services import alert_list, alerting, keyset, silencing
from fleet_server.services.rights import Right

alerts = Noun("alerts", "What is wrong with nodes, once each")
silences = Noun("silences", "Maintenance windows: nobody is called")
_KINDS, _SEVERITIES = [kind.value for kind in AlertKind], [one.value for one in Severity]


class AlertSchema(Schema):
    """One alert; `closed_at` is null while it is open, `details` have their units in their names."""

    id = fields.Integer(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(_KINDS))
    severity = fields.String(required=True, validate=validate.OneOf(_SEVERITIES))
    subject = fields.String(required=True)
    node_id = fields.String(required=True, allow_none=True)
    label = fields.String(required=True, allow_none=True)
    details = fields.Dict(keys=fields.String(), required=True)
    opened_at = fields.AwareDateTime(required=True)
    closed_at = fields.AwareDateTime(required=True, allow_none=True)
    acknowledged_at = fields.AwareDateTime(required=True, allow_none=True)
    acknowledged_by = fields.String(required=True, allow_none=True)
    note = fields.String(required=True, allow_none=True)
    escalated_at = fields.AwareDateTime(required=True, allow_none=True)


class AlertQuery(ListQuery):
    is_open = fields.Boolean(
        metadata={"description": "only open ones, or only those that are over"}
    )
    is_acknowledged = fields.Boolean()
    kind = fields.String(validate=validate.OneOf(_KINDS))
    severity = fields.String(validate=validate.OneOf(_SEVERITIES))
    node_id = fields.String()


class AcknowledgementSchema(Schema):
    note = fields.String(load_default="", validate=validate.Length(max=alerting.NOTE_MAX_LENGTH))


class SilenceSchema(Schema):
    """Nobody is called from–to for what `scope` and `key` name; `key` is empty for the whole fleet."""

    id = fields.Integer(required=True)
    scope = fields.String(required=True, validate=validate.OneOf(silencing.SCOPES))
    key = fields.String(required=True)
    from_at = fields.AwareDateTime(required=True)
    to_at = fields.AwareDateTime(required=True)
    reason = fields.String(required=True)
    made_by = fields.String(required=True)
    made_at = fields.AwareDateTime(required=True)


class NewSilenceSchema(Schema):
    scope = fields.String(required=True, validate=validate.OneOf(silencing.SCOPES))
    key = fields.String(
        load_default="",
        validate=validate.Length(max=64),
        metadata={"description": "node id, code of the site, or node model; empty for all"},
    )
    from_at = fields.AwareDateTime(required=True)
    to_at = fields.AwareDateTime(required=True)
    reason = fields.String(required=True, validate=validate.Length(1, 200))


@alerts.route("")
class Alerts(MethodView):
    @needs(Right.SEE_FLEET)
    @alerts.lists(AlertSchema, AlertQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[alerting.AlertOverview]:
        """Alerts, newest first"""
        wanted = alerting.Wanted(
            is_open=query.get("is_open"),
            kinds=[AlertKind(query["kind"])] if "kind" in query else (),
            severities=[Severity(query["severity"])] if "severity" in query else (),
            node_id=query.get("node_id"),
            is_acknowledged=query.get("is_acknowledged"),
        )
        return alert_list.alert_page(
            current_session(), wanted, limit=query["limit"], after=query["after"]
        )


@alerts.route("/<row_id:alert_id>")
class Alert(MethodView):
    @needs(Right.SEE_FLEET)
    @alerts.shows(AlertSchema)
    def get(self, alert_id: int) -> alerting.AlertOverview:
        """One alert"""
        return alert_list.alert(current_session(), alert_id)


@alerts.route("/<row_id:alert_id>/acknowledgement")
class Acknowledgement(MethodView):
    @needs(Right.OPERATE_NODES)
    @alerts.acts(AcknowledgementSchema, AlertSchema)
    def post(self, given: dict[str, Any], alert_id: int) -> alerting.AlertOverview:
        """Say that somebody looks after it"""
        session = current_session()
        alerting.acknowledge(session, alert_id, note=given["note"], now=clock.now())
        return alert_list.alert(session, alert_id)


@silences.route("")
class Silences(MethodView):
    @needs(Right.SEE_FLEET)
    @silences.lists(SilenceSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[Silence]:
        """Maintenance windows that hold or will, by their end"""
        return silencing.silence_page(current_session(), now=clock.now(), **query)

    @needs(Right.OPERATE_NODES)
    @silences.creates(
        NewSilenceSchema,
        SilenceSchema,
        at=lambda made: url_for("silences.OneSilence", silence_id=made.id),
    )
    def post(self, given: dict[str, Any]) -> Silence:
        """A new maintenance window"""
        return silencing.silence(current_session(), now=clock.now(), **given)


@silences.route("/<row_id:silence_id>")
class OneSilence(MethodView):
    def entity(self, silence_id: int) -> Silence:
        return silencing.silence_of(current_session(), silence_id)

    @needs(Right.SEE_FLEET)
    @silences.shows(SilenceSchema)
    def get(self, silence_id: int) -> Silence:
        """One maintenance window"""
        return self.entity(silence_id)

    @needs(Right.OPERATE_NODES)
    @silences.deletes(SilenceSchema)
    def delete(self, silence_id: int) -> None:
        """It ends now, or never begins"""
        silencing.end_silence(current_session(), silence_id, now=clock.now())

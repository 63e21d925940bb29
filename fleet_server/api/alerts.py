"""Alerts on the fleet, maintenance windows that keep them quiet, their rules, and who is told."""

from __future__ import annotations

from typing import Any

from flask import current_app, url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import AlertKind, AlertRecipient, Severity, Silence
from fleet_server.models.alert import Channel
from fleet_server.services import (
    alert_list,
    alert_rules,
    alert_work,
    alerting,
    keyset,
    silencing,
    telling,
)
from fleet_server.services.alert_rules import NamedRule
from fleet_server.services.rights import Right

alerts = Noun("alerts", "What is wrong with nodes, once each")
silences = Noun("silences", "Maintenance windows: nobody is called")
rules = Noun("alert-rules", "When alerts begin and end, and how urgent they are")
recipients = Noun("alert-recipients", "Who is told of alerts")
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
    work_order_id = fields.Integer(required=True, allow_none=True)


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
        metadata={
            "description": "node id, code of the site, name of the group, or node model; empty for all"
        },
    )
    from_at = fields.AwareDateTime(required=True)
    to_at = fields.AwareDateTime(required=True)
    reason = fields.String(required=True, validate=validate.Length(1, 200))


class AlertWorkSchema(Schema):
    """The work order that an alert led to; the same one while it is not finished."""

    work_order = fields.Integer(required=True)


class AlertRuleSchema(Schema):
    """One kind's rule; `thresholds` have their units in their names."""

    kind = fields.String(required=True, validate=validate.OneOf(_KINDS))
    is_active = fields.Boolean(required=True)
    severity = fields.String(required=True, validate=validate.OneOf(_SEVERITIES))
    thresholds = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    clear_after_s = fields.Integer(required=True)
    escalate_after_s = fields.Integer(required=True, allow_none=True)


class AlertRuleChangeSchema(Schema):
    """What is not named stays; so do thresholds that are not named."""

    is_active = fields.Boolean()
    severity = fields.Enum(Severity, by_value=True)
    thresholds = fields.Dict(keys=fields.String(), values=fields.Integer(strict=True))
    clear_after_s = fields.Integer(strict=True)
    escalate_after_s = fields.Integer(strict=True, allow_none=True)


class AlertRecipientSchema(Schema):
    """Who is told: an `account` at its own mail address of what is in its scope, or an `address`. `kinds` null: all."""

    id = fields.Integer(required=True)
    name = fields.String(required=True)
    channel = fields.String(required=True, validate=validate.OneOf([one.value for one in Channel]))
    account = fields.String(required=True, allow_none=True)
    address = fields.String(required=True)
    kinds = fields.List(fields.String(), required=True, allow_none=True)
    min_severity = fields.String(required=True, validate=validate.OneOf(_SEVERITIES))
    site_kind = fields.String(required=True, allow_none=True)
    language = fields.String(required=True)
    is_active = fields.Boolean(required=True)
    made_at = fields.AwareDateTime(required=True)


class MadeAlertRecipientSchema(AlertRecipientSchema):
    """As it is; `secret` is what a webhook's messages are signed with, shown this once, null for mail."""

    secret = fields.String(required=True, allow_none=True)


class NewAlertRecipientSchema(Schema):
    name = fields.String(required=True, validate=validate.Length(1, 64))
    channel = fields.Enum(Channel, by_value=True, load_default=Channel.MAIL)
    account = fields.String(load_default=None, validate=validate.Length(1, 64))
    address = fields.String(load_default="", validate=validate.Length(max=500))
    kinds = fields.List(
        fields.Enum(AlertKind, by_value=True), load_default=None, validate=validate.Length(min=1)
    )
    min_severity = fields.Enum(Severity, by_value=True, load_default=Severity.WARNING)
    site_kind = fields.String(load_default=None, validate=validate.OneOf(["tree", "water"]))
    language = fields.String(load_default="de", validate=validate.OneOf(["de", "en"]))


class AlertRecipientChangeSchema(Schema):
    is_active = fields.Boolean(required=True)


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


@alerts.route("/<row_id:alert_id>/work-order")
class AlertWork(MethodView):
    @needs(Right.PLAN_SITES)
    @alerts.acts(None, AlertWorkSchema)
    def post(self, alert_id: int) -> dict[str, int]:
        """Order the work that it calls for"""
        order = alert_work.order_for_alert(current_session(), alert_id, now=clock.now())
        return {"work_order": order.id}


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


@rules.route("")
class Rules(MethodView):
    @needs(Right.OPERATE_NODES)
    @rules.lists(AlertRuleSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[NamedRule]:
        """Rules of all kinds, by kind"""
        return alert_rules.rule_page(current_session(), **query)


@rules.route("/<kind>")
class OneRule(MethodView):
    def entity(self, kind: str) -> NamedRule:
        return alert_rules.rule_of(current_session(), kind)

    @needs(Right.OPERATE_NODES)
    @rules.shows(AlertRuleSchema)
    def get(self, kind: str) -> NamedRule:
        """One kind's rule"""
        return self.entity(kind)

    @needs(Right.OPERATE_NODES)
    @rules.changes(AlertRuleChangeSchema, AlertRuleSchema)
    def patch(self, given: dict[str, Any], kind: str) -> None:
        """Another rule, from the next look on"""
        held = self.entity(kind)
        alert_rules.change_rule(
            current_session(), AlertKind(held.kind), held.changed(given), now=clock.now()
        )


@recipients.route("")
class Recipients(MethodView):
    @needs(Right.OPERATE_NODES)
    @recipients.lists(AlertRecipientSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[AlertRecipient]:
        """Who is told, by name"""
        return telling.recipient_page(current_session(), **query)

    @needs(Right.OPERATE_NODES)
    @recipients.creates(
        NewAlertRecipientSchema,
        MadeAlertRecipientSchema,
        at=lambda made: url_for("alert-recipients.OneRecipient", recipient_id=made["id"]),
    )
    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        """Somebody who is told from now on"""
        made, secret = telling.add_recipient(
            current_session(),
            telling.NewRecipient(**given),
            now=clock.now(),
            secret_key=current_app.config["FLEET_SETTINGS"].session_key,
        )
        return {
            **{name: getattr(made, name) for name in AlertRecipientSchema().fields},
            "secret": secret,
        }


@recipients.route("/<row_id:recipient_id>")
class OneRecipient(MethodView):
    def entity(self, recipient_id: int) -> AlertRecipient:
        return telling.recipient(current_session(), recipient_id)

    @needs(Right.OPERATE_NODES)
    @recipients.shows(AlertRecipientSchema)
    def get(self, recipient_id: int) -> AlertRecipient:
        """One recipient"""
        return self.entity(recipient_id)

    @needs(Right.OPERATE_NODES)
    @recipients.changes(AlertRecipientChangeSchema, AlertRecipientSchema)
    def patch(self, given: dict[str, Any], recipient_id: int) -> None:
        """Tell them, or not any more"""
        telling.set_recipient_active(
            current_session(), recipient_id, is_active=given["is_active"], now=clock.now()
        )

    @needs(Right.OPERATE_NODES)
    @recipients.deletes(AlertRecipientSchema)
    def delete(self, recipient_id: int) -> None:
        """Forget them"""
        telling.remove_recipient(current_session(), recipient_id, now=clock.now())

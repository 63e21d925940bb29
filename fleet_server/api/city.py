"""What the city decides of its sites, and the rules that it decides by."""

from __future__ import annotations

from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.city.evidence import Reason
from fleet_server.city.rules import KINDS
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import CityRuleSet
from fleet_server.services import city_rules, city_states, city_words, keyset, rights, site_list
from fleet_server.services.city_rules import RuleScope
from fleet_server.services.city_states import DecidedSite
from fleet_server.services.rights import Right

city = Noun("city", "What the city decides of its sites, and by which rules")

_STATES = tuple(city_words.STATE_WORDS)


class StateReasonSchema(Schema):
    """One thing that a state rests on; `numbers` are those of the sentence."""

    kind = fields.String(required=True)
    state = fields.String(
        required=True, metadata={"description": "what it alone would make of the site"}
    )
    sentence = fields.Function(lambda reason: str(city_words.said(reason)), required=True)
    numbers = fields.Dict(keys=fields.String(), values=fields.Float(), required=True)
    property = fields.String(required=True)
    depth_cm = fields.Integer(required=True, allow_none=True)
    datastream_id = fields.Integer(required=True, allow_none=True)
    sampled_at = fields.AwareDateTime(required=True, allow_none=True)
    flag = fields.Integer(required=True, allow_none=True)


class StateSchema(Schema):
    """A site's state; `unknown` is one of its own, and never good."""

    site_code = fields.String(required=True)
    site_kind = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(_STATES))
    at_worst = fields.String(
        required=True,
        metadata={"description": "what it may be within the uncertainty of what decides"},
    )
    is_inferred = fields.Boolean(
        required=True, metadata={"description": "from another tree of its group"}
    )
    from_at = fields.AwareDateTime(required=True, allow_none=True)
    evaluated_at = fields.AwareDateTime(required=True, allow_none=True)
    rule_set_id = fields.Integer(
        required=True, allow_none=True, metadata={"description": "null: the defaults"}
    )
    reasons = fields.List(fields.Nested(StateReasonSchema), required=True)


class StateQuery(ListQuery):
    kind = fields.String(required=True, validate=validate.OneOf(list(KINDS)))
    state = fields.String(load_default=None, validate=validate.OneOf(_STATES))


class _ScopeFields(Schema):
    kind = fields.String(required=True, validate=validate.OneOf(list(KINDS)))
    tree_group = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 120),
        metadata={"description": "only for this group of trees"},
    )


class NewRulesSchema(_ScopeFields):
    """`body` null: from here on the more general rules hold again. What it leaves out is as in the defaults."""

    site_code = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 64),
        metadata={"description": "only for this site"},
    )
    body = fields.Dict(keys=fields.String(), required=True, allow_none=True)
    reason = fields.String(required=True, validate=validate.Length(1, 500))


class CityRulesSchema(Schema):
    """One version of rules; it never changes, and the newest of its scope holds."""

    id = fields.Integer(required=True)
    kind = fields.String(required=True)
    site_id = fields.Integer(required=True, allow_none=True)
    tree_group = fields.String(required=True, allow_none=True)
    version = fields.Integer(required=True)
    body = fields.Dict(keys=fields.String(), required=True, allow_none=True)
    reason = fields.String(required=True)
    author = fields.String(required=True)
    created_at = fields.AwareDateTime(required=True)


class CityRulesQuery(ListQuery):
    kind = fields.String(load_default=None, validate=validate.OneOf(list(KINDS)))


@city.route("/states")
class States(MethodView):
    @needs(Right.SEE_FLEET)
    @city.lists(StateSchema, StateQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[dict[str, Any]]:
        """States of trees or of waters, the worst first; unknown before good"""
        kind = query.pop("kind")
        page = city_states.states_of(current_session(), kind, **query)
        return keyset.Page([_told(one) for one in page.items], page.next_key)


@city.route("/states/<path:site_code>")
class SiteDecision(MethodView):
    @needs(Right.SEE_FLEET)
    @city.shows(StateSchema)
    def get(self, site_code: str) -> dict[str, Any]:
        """One site's state, with all that it rests on"""
        session = current_session()
        site = site_list.site_with_code(session, site_code)
        return _told(DecidedSite(site, city_states.state_of(session, site.id)))


@city.route("/rules")
class CityRules(MethodView):
    @needs(Right.SEE_FLEET)
    @city.lists(CityRulesSchema, CityRulesQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[CityRuleSet]:
        """Every version of the rules that there ever was, the newest first"""
        return city_rules.rule_page(current_session(), **query)

    @needs(Right.PLAN_SITES)
    @city.creates(
        NewRulesSchema,
        CityRulesSchema,
        at=lambda made: url_for("city.CityRulesVersion", rule_set_id=made.id),
    )
    def post(self, given: dict[str, Any]) -> CityRuleSet:
        """Put other rules in force: for all sites, a group of trees, or one site"""
        session = current_session()
        code = given["site_code"]
        site_id = None if code is None else site_list.site_with_code(session, code).id
        return city_rules.set_rules(
            session,
            given["kind"],
            given["body"],
            scope=RuleScope(site_id, given["tree_group"]),
            reason=given["reason"],
            author=rights.actor_of(session).name,
            now=clock.now(),
        )


@city.route("/rules/<row_id:rule_set_id>")
class CityRulesVersion(MethodView):
    @needs(Right.SEE_FLEET)
    @city.shows(CityRulesSchema)
    def get(self, rule_set_id: int) -> CityRuleSet:
        """One version of rules"""
        return city_rules.rule_set(current_session(), rule_set_id)


def _told(one: DecidedSite) -> dict[str, Any]:
    row = one.row
    reasons: tuple[Reason, ...] = one.reasons
    return {
        "site_code": one.site.code,
        "site_kind": one.site.kind,
        "state": one.state,
        "at_worst": one.state if row is None else row.at_worst,
        "is_inferred": row is not None and row.is_inferred,
        "from_at": None if row is None else row.from_at,
        "evaluated_at": None if row is None else row.evaluated_at,
        "rule_set_id": None if row is None else row.rule_set_id,
        "reasons": reasons,
    }

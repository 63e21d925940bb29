"""Campaigns: a release on its way to many nodes, and why a node is not updated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.nodes import nodes
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery, reported
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import Campaign as CampaignRow
from fleet_server.models import CampaignState, NodeStage
from fleet_server.services import (
    campaign_rules,
    campaign_words,
    campaigning,
    fleet_totals,
    keyset,
)
from fleet_server.services.campaign_targets import Prospect, Target
from fleet_server.services.campaigning import (
    MOST_WAVES,
    REASON_MAX_LENGTH,
    CampaignNodeLine,
    CampaignOverview,
    Plan,
    Preview,
    Terms,
)
from fleet_server.services.rights import Right
from fleet_server.wire.states import NodeState

campaigns = Noun("campaigns", "Releases on their way to the nodes, wave by wave")

_NAME = validate.Length(1, 64)
_MOST_NODES = 10_000
_LONGEST_SOAK_S = 30 * 86_400
_DAY_MIN = 1440
_SHOWN = (
    "id",
    "model",
    "version",
    "counter",
    "selection",
    "is_dynamic",
    "author",
    "created_at",
    "approved_by",
    "approved_at",
    "starts_at",
    "ends_at",
    "hours_from_min",
    "hours_until_min",
    "bytes_per_s",
    "jitter_s",
    "at_once",
    "state",
    "reason",
    "wave",
    "finished_at",
)


class CampaignTargetSchema(Schema):
    """As in the list of nodes: all that is given must hold; nothing means all nodes of the release's model in service."""

    model = fields.String(validate=_NAME)
    state = fields.String(validate=validate.OneOf(list(NodeState)))
    health = fields.String(validate=validate.OneOf(fleet_totals.HEALTH_WORDS))
    site = fields.String(validate=_NAME)
    group = fields.String(validate=_NAME)
    tag = fields.String(validate=_NAME)
    label = fields.String(validate=_NAME)
    firmware_version = fields.String(validate=_NAME)
    battery_below_mv = fields.Integer(validate=validate.Range(0, 100_000))
    heard_before = fields.AwareDateTime()
    node_ids = fields.List(fields.String(validate=_NAME), validate=validate.Length(1, _MOST_NODES))


class CampaignTermsSchema(Schema):
    """When and how nodes may begin. Hours: minutes of the city's day from which and until which."""

    is_dynamic = fields.Boolean(load_default=False)
    starts_at = fields.AwareDateTime(load_default=None, allow_none=True)
    ends_at = fields.AwareDateTime(load_default=None, allow_none=True)
    hours_from_min = fields.Integer(
        load_default=None, allow_none=True, validate=validate.Range(0, _DAY_MIN)
    )
    hours_until_min = fields.Integer(
        load_default=None, allow_none=True, validate=validate.Range(0, _DAY_MIN)
    )
    bytes_per_s = fields.Integer(
        load_default=None, allow_none=True, validate=validate.Range(1, 1 << 30)
    )
    jitter_s = fields.Integer(load_default=0, validate=validate.Range(0, 86_400))
    at_once = fields.Integer(load_default=Terms.at_once, validate=validate.Range(1, 10_000))
    time_outs_s = fields.Dict(
        keys=fields.String(validate=validate.OneOf(list(campaign_rules.TIME_OUTS_S))),
        values=fields.Integer(validate=validate.Range(60, 90 * 86_400)),
        load_default=dict,
    )


class CampaignWishSchema(CampaignTermsSchema):
    """`shares_pct`: up to how many percent of the nodes are in each wave after the canaries. Hours: minutes of the city's day."""

    release_id = fields.Integer(required=True, validate=validate.Range(1, 2**31 - 1))
    target = fields.Nested(CampaignTargetSchema, load_default=dict)
    canaries = fields.Integer(load_default=Plan.canaries, validate=validate.Range(0, 10_000))
    shares_pct = fields.List(
        fields.Float(validate=validate.Range(0.001, 100)),
        load_default=[100 * share for share in Plan.shares],
        validate=validate.Length(1, MOST_WAVES - 1),
    )
    soak_s = fields.Integer(load_default=86_400, validate=validate.Range(0, _LONGEST_SOAK_S))
    gate_pct = fields.Float(load_default=95.0, validate=validate.Range(0.001, 100))
    pause_pct = fields.Float(load_default=5.0, validate=validate.Range(0, 99.9))
    minimum_reached = fields.Integer(
        load_default=Plan.minimum_reached, validate=validate.Range(0, 10_000)
    )


class CampaignChangeSchema(Schema):
    """What is not named stays. Which nodes are meant was approved, and cannot be changed."""

    starts_at = fields.AwareDateTime(allow_none=True)
    ends_at = fields.AwareDateTime(allow_none=True)
    hours_from_min = fields.Integer(allow_none=True, validate=validate.Range(0, _DAY_MIN))
    hours_until_min = fields.Integer(allow_none=True, validate=validate.Range(0, _DAY_MIN))
    bytes_per_s = fields.Integer(allow_none=True, validate=validate.Range(1, 1 << 30))
    jitter_s = fields.Integer(validate=validate.Range(0, 86_400))
    at_once = fields.Integer(validate=validate.Range(1, 10_000))


class CampaignProspectsSchema(Schema):
    updates = fields.Integer(required=True)
    has_it = fields.Integer(required=True)
    newer = fields.Integer(required=True)


class MeantNodeSchema(Schema):
    """What a campaign would be for one node."""

    node_id = fields.String(required=True)
    is_fresh = fields.Boolean(required=True)
    prospect = fields.String(required=True, validate=validate.OneOf(list(Prospect)))


class CampaignPreviewSchema(Schema):
    """Nothing was changed. `waves`: nodes in each; `bytes_in_all`: at most."""

    model = fields.String(required=True)
    version = fields.String(required=True)
    micropython = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "the whole MicroPython that the release brings: not tried on hardware; null: none"
        },
    )
    counts = fields.Nested(CampaignProspectsSchema, required=True)
    waves = fields.List(fields.Integer(), required=True)
    offline = fields.Integer(required=True)
    bytes_in_all = fields.Integer(required=True)
    loading_s = fields.Float(required=True, allow_none=True)
    nodes = fields.List(fields.Nested(MeantNodeSchema), required=True)


class CampaignWaveSchema(Schema):
    """How a wave stands. `stages`: how many nodes are in each."""

    number = fields.Integer(required=True)
    opened_at = fields.AwareDateTime(required=True, allow_none=True)
    gate_share = fields.Float(required=True)
    minimum_reached = fields.Integer(required=True)
    soak_s = fields.Integer(required=True)
    pause_share = fields.Float(required=True)
    nodes = fields.Integer(required=True)
    reached = fields.Integer(required=True)
    succeeded = fields.Integer(required=True)
    failed = fields.Integer(required=True)
    stages = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class CampaignSchema(Schema):
    """A campaign with its waves."""

    id = fields.Integer(required=True)
    model = fields.String(required=True)
    version = fields.String(required=True)
    counter = fields.Integer(required=True)
    micropython = fields.String(required=True, allow_none=True)
    selection = fields.Dict(keys=fields.String(), required=True)
    is_dynamic = fields.Boolean(required=True)
    author = fields.String(required=True)
    created_at = fields.AwareDateTime(required=True)
    approved_by = fields.String(required=True, allow_none=True)
    approved_at = fields.AwareDateTime(required=True, allow_none=True)
    starts_at = fields.AwareDateTime(required=True, allow_none=True)
    ends_at = fields.AwareDateTime(required=True, allow_none=True)
    hours_from_min = fields.Integer(required=True, allow_none=True)
    hours_until_min = fields.Integer(required=True, allow_none=True)
    bytes_per_s = fields.Integer(required=True, allow_none=True)
    jitter_s = fields.Integer(required=True)
    at_once = fields.Integer(required=True)
    state = fields.String(required=True, validate=validate.OneOf(list(CampaignState)))
    reason = fields.String(required=True, allow_none=True)
    wave = reported(fields.Integer)
    finished_at = fields.AwareDateTime(required=True, allow_none=True)
    waves = fields.List(
        fields.Nested(CampaignWaveSchema), required=True, metadata={"x-reported": True}
    )


class CampaignNodeSchema(Schema):
    """A node of a campaign."""

    node_id = fields.String(required=True)
    label = fields.String(required=True)
    wave = fields.Integer(required=True)
    stage = fields.String(required=True, validate=validate.OneOf(list(NodeStage)))
    attempt = fields.Integer(required=True)
    reason = fields.String(required=True, allow_none=True)
    since = fields.AwareDateTime(required=True)
    deadline_at = fields.AwareDateTime(required=True, allow_none=True)
    last_heard_at = fields.AwareDateTime(required=True, allow_none=True)


class CampaignNodeQuery(ListQuery):
    stage = fields.String(validate=validate.OneOf(list(NodeStage)))
    wave = fields.Integer(validate=validate.Range(1, MOST_WAVES))


class CampaignReasonSchema(Schema):
    reason = fields.String(load_default="", validate=validate.Length(max=REASON_MAX_LENGTH))


class CampaignResumeSchema(Schema):
    """`tries_again`: those that failed are offered it once more."""

    tries_again = fields.Boolean(load_default=False)


class WhyNotUpdatedSchema(Schema):
    """One sentence; `code` names it."""

    code = fields.String(required=True)
    sentence = fields.String(required=True)
    sentence_de = fields.String(required=True)


class NodeUpdateSchema(Schema):
    """One update that a node was meant for."""

    campaign_id = fields.Integer(required=True)
    version = fields.String(required=True)
    campaign_state = fields.String(required=True, validate=validate.OneOf(list(CampaignState)))
    stage = fields.String(required=True, validate=validate.OneOf(list(NodeStage)))
    reason = fields.String(required=True, allow_none=True)
    attempt = fields.Integer(required=True)
    since = fields.AwareDateTime(required=True)


class NodeUpdatesSchema(Schema):
    """Why a node is not updated, and its updates, newest first."""

    why = fields.Nested(WhyNotUpdatedSchema, required=True)
    updates = fields.List(fields.Nested(NodeUpdateSchema), required=True)


@campaigns.route("")
class Campaigns(MethodView):
    @needs(Right.SEE_FLEET)
    @campaigns.lists(CampaignSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[dict[str, Any]]:
        """Campaigns, newest first"""
        page = campaigning.campaign_page(current_session(), **query)
        return keyset.Page([_shown(one) for one in page.items], page.next_key)

    @needs(Right.AUTHOR_RELEASES)
    @campaigns.creates(
        CampaignWishSchema,
        CampaignSchema,
        at=lambda made: url_for("campaigns.Campaign", campaign_id=made["id"]),
    )
    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        """Plan a campaign; it is a draft until it is handed in"""
        session = current_session()
        made = campaigning.create_campaign(
            session,
            given["release_id"],
            Target(**_target(given)),
            now=clock.now(),
            plan=_plan(given),
            terms=_terms(given),
        )
        return _shown(campaigning.overview(session, made.id))


@campaigns.route("/preview")
class CampaignPreview(MethodView):
    @needs(Right.AUTHOR_RELEASES)
    @campaigns.acts(CampaignWishSchema, CampaignPreviewSchema)
    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        """What a campaign would be; nothing changes"""
        found = campaigning.preview(
            current_session(),
            given["release_id"],
            Target(**_target(given)),
            now=clock.now(),
            plan=_plan(given),
            terms=_terms(given),
        )
        return _shown_preview(found)


@campaigns.route("/<row_id:campaign_id>")
class Campaign(MethodView):
    def entity(self, campaign_id: int) -> dict[str, Any]:
        return _shown(campaigning.overview(current_session(), campaign_id))

    @needs(Right.SEE_FLEET)
    @campaigns.shows(CampaignSchema)
    def get(self, campaign_id: int) -> dict[str, Any]:
        """One campaign with its waves"""
        return self.entity(campaign_id)

    @needs(Right.AUTHOR_RELEASES)
    @campaigns.changes(CampaignChangeSchema, CampaignSchema)
    def patch(self, given: dict[str, Any], campaign_id: int) -> None:
        """Let nodes that are told from now on begin by other terms"""
        session = current_session()
        held = campaigning.overview(session, campaign_id).campaign
        named = {name: getattr(held, name) for name in CampaignChangeSchema().fields} | given
        terms = _terms({**named, "time_outs_s": held.time_outs_s, "is_dynamic": held.is_dynamic})
        campaigning.change_terms(session, campaign_id, terms, now=clock.now())


@campaigns.route("/<row_id:campaign_id>/nodes")
class CampaignNodes(MethodView):
    @needs(Right.SEE_FLEET)
    @campaigns.lists(CampaignNodeSchema, CampaignNodeQuery)
    def get(self, query: dict[str, Any], campaign_id: int) -> keyset.Page[CampaignNodeLine]:
        """Nodes of a campaign, by wave"""
        return campaigning.node_page(current_session(), campaign_id, **query)


@campaigns.route("/<row_id:campaign_id>/nodes/<node_id:node_id>/retry")
class RetryCampaignNode(MethodView):
    @needs(Right.OPERATE_NODES)
    @campaigns.acts(None, CampaignSchema)
    def post(self, campaign_id: int, node_id: str) -> dict[str, Any]:
        """Offer a node that failed the release once more"""
        session = current_session()
        campaigning.retry_node(session, campaign_id, node_id, now=clock.now())
        return _shown(campaigning.overview(session, campaign_id))


@campaigns.route("/<row_id:campaign_id>/start")
class StartCampaign(MethodView):
    @needs(Right.AUTHOR_RELEASES)
    @campaigns.acts(None, CampaignSchema)
    def post(self, campaign_id: int) -> dict[str, Any]:
        """Hand a draft in for approval, or let an approved campaign begin at once"""
        return _done(campaigning.start_campaign, campaign_id)


@campaigns.route("/<row_id:campaign_id>/approve")
class ApproveCampaign(MethodView):
    @needs(Right.APPROVE_RELEASES)
    @campaigns.acts(None, CampaignSchema)
    def post(self, campaign_id: int) -> dict[str, Any]:
        """Let a campaign of somebody else's begin"""
        return _done(campaigning.approve_campaign, campaign_id)


@campaigns.route("/<row_id:campaign_id>/pause")
class PauseCampaign(MethodView):
    @needs(Right.STOP_UPDATES)
    @campaigns.acts(CampaignReasonSchema, CampaignSchema)
    def post(self, given: dict[str, Any], campaign_id: int) -> dict[str, Any]:
        """Tell nobody else, and call back who has not begun to install"""
        return _done(campaigning.pause_campaign, campaign_id, **given)


@campaigns.route("/<row_id:campaign_id>/resume")
class ResumeCampaign(MethodView):
    @needs(Right.STOP_UPDATES)
    @campaigns.acts(CampaignResumeSchema, CampaignSchema)
    def post(self, given: dict[str, Any], campaign_id: int) -> dict[str, Any]:
        """Go on: whoever paused it, alone; else somebody who approves and is not its author, and what failed does not pause it again"""
        return _done(campaigning.resume_campaign, campaign_id, **given)


@campaigns.route("/<row_id:campaign_id>/abort")
class AbortCampaign(MethodView):
    @needs(Right.STOP_UPDATES)
    @campaigns.acts(CampaignReasonSchema, CampaignSchema)
    def post(self, given: dict[str, Any], campaign_id: int) -> dict[str, Any]:
        """Tell nobody else, for good"""
        return _done(campaigning.abort_campaign, campaign_id, **given)


@nodes.route("/<node_id:node_id>/updates")
class NodeUpdates(MethodView):
    @needs(Right.SEE_FLEET)
    @nodes.shows(NodeUpdatesSchema)
    def get(self, node_id: str) -> dict[str, Any]:
        """Why a node is not updated, and the updates that it was meant for"""
        session, now = current_session(), clock.now()
        why = campaign_words.why_not_updated(session, node_id, now=now)
        return {
            "why": {
                "code": why.code,
                "sentence": campaign_words.sentence(why, "en"),
                "sentence_de": campaign_words.sentence(why, "de"),
            },
            "updates": campaigning.updates_of(session, node_id),
        }


def _target(given: Mapping[str, Any]) -> dict[str, Any]:
    target = dict(given["target"])
    if "node_ids" in target:
        target["node_ids"] = tuple(target["node_ids"])
    return target


def _plan(given: Mapping[str, Any]) -> Plan:
    return Plan(
        canaries=given["canaries"],
        shares=tuple(share / 100 for share in given["shares_pct"]),
        soak=timedelta(seconds=given["soak_s"]),
        gate_share=given["gate_pct"] / 100,
        pause_share=given["pause_pct"] / 100,
        minimum_reached=given["minimum_reached"],
    )


def _terms(given: Mapping[str, Any]) -> Terms:
    hours = given["hours_from_min"], given["hours_until_min"]
    if (hours[0] is None) != (hours[1] is None):
        raise campaigning.CampaignWrong("Hours have a begin and an end.")
    return Terms(
        is_dynamic=given["is_dynamic"],
        starts_at=given["starts_at"],
        ends_at=given["ends_at"],
        hours=None if hours[0] is None else hours,
        bytes_per_s=given["bytes_per_s"],
        jitter_s=given["jitter_s"],
        at_once=given["at_once"],
        time_outs_s={NodeStage(name): value for name, value in given["time_outs_s"].items()},
    )


def _done(do: Callable[..., CampaignRow], campaign_id: int, **details: Any) -> dict[str, Any]:
    session = current_session()
    do(session, campaign_id, now=clock.now(), **details)
    return _shown(campaigning.overview(session, campaign_id))


def _shown_preview(found: Preview) -> dict[str, Any]:
    return {
        "model": found.release.model,
        "version": found.release.version,
        "micropython": found.release.image_micropython,
        "counts": {prospect.value: count for prospect, count in found.counts.items()},
        "waves": found.waves,
        "offline": found.offline,
        "bytes_in_all": found.bytes_in_all,
        "loading_s": found.loading_s,
        "nodes": found.nodes,
    }


def _shown(one: CampaignOverview) -> dict[str, Any]:
    shown = {name: getattr(one.campaign, name) for name in _SHOWN}
    waves = [
        {
            **{
                name: getattr(each.wave, name)
                for name in (
                    "number",
                    "opened_at",
                    "gate_share",
                    "minimum_reached",
                    "soak_s",
                    "pause_share",
                )
            },
            "nodes": each.count.nodes,
            "reached": each.count.reached,
            "succeeded": each.count.succeeded,
            "failed": each.count.failed,
            "stages": {stage.value: count for stage, count in each.count.stages.items()},
        }
        for each in one.waves
    ]
    return {**shown, "waves": waves}

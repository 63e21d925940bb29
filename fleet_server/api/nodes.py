"""Nodes."""

from __future__ import annotations

from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery, reported, sort_field
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import (
    fleet_totals,
    keyset,
    naming,
    node_life,
    node_list,
    overviews,
    registering,
)
from fleet_server.services.enrolment import LABEL_MAX_LENGTH
from fleet_server.services.node_life import REASON_MAX_LENGTH
from fleet_server.services.rights import Right
from fleet_server.wire.states import NodeState

nodes = Noun("nodes", "The fleet's nodes")


class NodeSchema(Schema):
    """One node in a list."""

    id = fields.String(required=True)
    label = fields.String(required=True)
    model = fields.String(required=True)
    state = fields.String(required=True)
    health = reported(fields.String)
    enrolled_at = fields.AwareDateTime(required=True, allow_none=True)
    site_code = fields.String(required=True, allow_none=True)
    site_name = fields.String(required=True, allow_none=True)
    last_heard_at = reported(fields.AwareDateTime, allow_none=True)
    spool_depth = reported(fields.Integer, allow_none=True)
    battery_mv = reported(fields.Integer, allow_none=True)
    firmware_version = reported(fields.String, allow_none=True)
    last_error = reported(fields.String, allow_none=True)
    receipt_seq = reported(fields.Integer, allow_none=True)


class OneNodeSchema(Schema):
    """One node as the fleet sees it."""

    id = fields.String(required=True)
    label = fields.String(required=True)
    model = fields.String(required=True)
    state = fields.String(required=True)
    enrolled_at = fields.AwareDateTime(required=True, allow_none=True)
    site_code = fields.String(required=True, allow_none=True)
    site_name = fields.String(required=True, allow_none=True)
    health = reported(fields.String)
    last_heard_at = reported(fields.AwareDateTime, allow_none=True)
    spool_depth = reported(fields.Integer, allow_none=True)
    battery_mv = reported(fields.Integer, allow_none=True)
    firmware_version = reported(fields.String, allow_none=True)
    micropython = reported(fields.String, allow_none=True)
    last_error = reported(fields.String, allow_none=True)
    packs = reported(fields.Integer)
    missing_packs = reported(fields.Integer)
    lost_packs = reported(fields.Integer)
    thinned_packs = reported(fields.Integer)
    receipt_seq = reported(fields.Integer, allow_none=True)


class NodeQuery(ListQuery):
    model = fields.String(metadata={"description": "node model, like tree-3"})
    state = fields.String(validate=validate.OneOf(list(NodeState)))
    health = fields.String(validate=validate.OneOf(fleet_totals.HEALTH_WORDS))
    site = fields.String(metadata={"description": "code of the site where it stands"})
    group = fields.String(metadata={"description": "name of a group that it is in"})
    tag = fields.String()
    label = fields.String(metadata={"description": "how the label begins"})
    firmware_version = fields.String()
    battery_below_mv = fields.Integer(validate=validate.Range(0, 100_000))
    heard_before = fields.AwareDateTime(metadata={"description": "last heard before, or never"})
    sort = sort_field(*node_list.SORTINGS)


class NewNodeSchema(Schema):
    """A node that shall be built: who enrols one with this label later gives it its identity."""

    label = fields.String(required=True, validate=validate.Length(1, LABEL_MAX_LENGTH))
    model = fields.String(required=True, validate=validate.Length(1, 64))
    site_code = fields.String(load_default="", validate=validate.Length(max=64))
    serials = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 64)),
        values=fields.String(validate=validate.Length(1, 64)),
        load_default=dict,
    )


class NewStateSchema(Schema):
    state = fields.String(required=True, validate=validate.OneOf(list(NodeState)))
    reason = fields.String(load_default="", validate=validate.Length(max=REASON_MAX_LENGTH))


class NodeChangeSchema(Schema):
    label = fields.String(required=True, validate=validate.Length(1, LABEL_MAX_LENGTH))


@nodes.route("")
class Nodes(MethodView):
    @needs(Right.SEE_FLEET)
    @nodes.lists(NodeSchema, NodeQuery)
    def get(self, query: dict[str, Any], **_: Any) -> keyset.Page[node_list.NodeLine]:
        """Nodes, by label"""
        limit, after, sort = query.pop("limit"), query.pop("after"), query.pop("sort")
        wanted = node_list.NodeFilter(**query)
        return node_list.node_page(
            current_session(), wanted, now=clock.now(), sort=sort, limit=limit, after=after
        )

    @needs(Right.ADMIT_NODES)
    @nodes.creates(
        NewNodeSchema, OneNodeSchema, at=lambda node: url_for("nodes.Node", node_id=node.id)
    )
    def post(self, given: dict[str, Any]) -> overviews.NodeOverview:
        """Put a node that shall be built on the list"""
        session, now = current_session(), clock.now()
        node = registering.register_node(session, registering.NewNode(**given), now=now)
        return overviews.node_overview(session, node.node_id, now=now)


@nodes.route("/<node_id:node_id>")
class Node(MethodView):
    def entity(self, node_id: str) -> overviews.NodeOverview:
        return overviews.node_overview(current_session(), node_id, now=clock.now())

    @needs(Right.SEE_FLEET)
    @nodes.shows(OneNodeSchema)
    def get(self, node_id: str) -> overviews.NodeOverview:
        """One node with its health and its counts"""
        return self.entity(node_id)

    @needs(Right.OPERATE_NODES)
    @nodes.changes(NodeChangeSchema, OneNodeSchema)
    def patch(self, given: dict[str, Any], node_id: str) -> None:
        """Call a node by another label"""
        naming.label_node(current_session(), node_id, given["label"], now=clock.now())


@nodes.route("/<node_id:node_id>/state")
class State(MethodView):
    @needs(Right.SEE_FLEET)  # each way has a right of its own
    @nodes.acts(NewStateSchema, OneNodeSchema)
    def post(self, given: dict[str, Any], node_id: str) -> overviews.NodeOverview:
        """Bring a node into another state of its life; some ways want more rights"""
        session, now = current_session(), clock.now()
        node_life.change_state(
            session, node_id, NodeState(given["state"]), now=now, reason=given["reason"]
        )
        return overviews.node_overview(session, node_id, now=now)

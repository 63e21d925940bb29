"""Nodes."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery, reported, sort_field
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import fleet_totals, keyset, naming, node_list, overviews
from fleet_server.services.enrolment import LABEL_MAX_LENGTH
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
    site_name = fields.String(required=True, allow_none=True)
    health = reported(fields.String)
    last_heard_at = reported(fields.AwareDateTime, allow_none=True)
    spool_depth = reported(fields.Integer, allow_none=True)
    battery_mv = reported(fields.Integer, allow_none=True)
    firmware_version = reported(fields.String, allow_none=True)
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
    label = fields.String(metadata={"description": "how the label begins"})
    firmware_version = fields.String()
    battery_below_mv = fields.Integer(validate=validate.Range(0, 100_000))
    heard_before = fields.AwareDateTime(metadata={"description": "last heard before, or never"})
    sort = sort_field(*node_list.SORTINGS)


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

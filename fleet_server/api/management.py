"""The management API, thin for now: the nodes as JSON, and the OpenAPI document that describes it."""

from __future__ import annotations

from typing import Any, cast

from flask import Flask
from flask.views import MethodView
from flask_smorest import Api, Blueprint
from marshmallow import Schema, fields

from fleet_server import clock
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import overviews
from fleet_server.services.rights import Right


class NodeSchema(Schema):
    """One node as the fleet sees it."""

    id = fields.String(required=True)
    label = fields.String(required=True)
    model = fields.String(required=True)
    health = fields.String(required=True)
    site_name = fields.String(required=True, allow_none=True)
    last_heard_at = fields.AwareDateTime(required=True, allow_none=True)
    spool_depth = fields.Integer(required=True, allow_none=True)
    battery_mv = fields.Integer(required=True, allow_none=True)
    firmware_version = fields.String(required=True, allow_none=True)
    packs = fields.Integer(required=True)
    missing_packs = fields.Integer(required=True)
    lost_packs = fields.Integer(required=True)
    thinned_packs = fields.Integer(required=True)
    receipt_seq = fields.Integer(required=True, allow_none=True)


class NodesSchema(Schema):
    """All nodes, by label."""

    nodes = fields.List(fields.Nested(NodeSchema), required=True)


class ProblemSchema(Schema):
    """An RFC 9457 problem document."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    code = fields.String()


class _ProblemApi(Api):  # type: ignore[misc] # flask-smorest has no types
    """flask-smorest answers errors in a form of its own: ours are made in `http_shared.problems`."""

    ERROR_SCHEMA = ProblemSchema

    def _register_error_handlers(self) -> None:
        """Leave errors to the application's handlers."""


def _nodes_blueprint() -> Blueprint:
    nodes = Blueprint("nodes", "nodes", url_prefix="/api/v1/nodes", description="The fleet's nodes")

    @nodes.route("")
    class Nodes(MethodView):
        @needs(Right.SEE_FLEET)
        @nodes.response(200, NodesSchema)  # type: ignore[untyped-decorator] # as above
        def get(self) -> dict[str, Any]:
            """All nodes with their health."""
            found = overviews.node_overviews(current_session(), now=clock.now())
            return {"nodes": found}

    return nodes


def register_management(app: Flask) -> None:
    app.config.update(
        API_TITLE="Stadtsensor management API",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/api",
        OPENAPI_JSON_PATH="openapi.json",
    )
    api = _ProblemApi(app)
    cast(Any, api).register_blueprint(_nodes_blueprint())

"""Commands to many nodes, and all commands with their answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import BulkQuery, ListQuery
from fleet_server.api.selections import SelectionSchema, selection_of
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import commanding, keyset, ordering
from fleet_server.services.commanding import CommandOverview, CommandState
from fleet_server.services.rights import Right
from fleet_server.wire.commands import CommandName

commands = Noun("commands", "Commands to nodes, and their answers")
_LIFETIME_S = (
    int(commanding.SHORTEST_LIFETIME.total_seconds()),
    int(commanding.LONGEST_LIFETIME.total_seconds()),
)
_MOST_NODES = 10_000_000


class AnyCommandSchema(Schema):
    """A command, to whom, and what became of it; `batch` is shared by those that were ordered together."""

    id = fields.Integer(required=True)
    node_id = fields.String(required=True)
    batch = fields.String(required=True, allow_none=True)
    name = fields.String(required=True)
    arguments = fields.Dict(keys=fields.String(), required=True)
    state = fields.String(required=True, validate=validate.OneOf(list(CommandState)))
    result = fields.String(required=True, allow_none=True)
    ordered_at = fields.AwareDateTime(required=True)
    expires_at = fields.AwareDateTime(required=True)
    answered_at = fields.AwareDateTime(required=True, allow_none=True)


class CommandQuery(ListQuery):
    state = fields.String(validate=validate.OneOf([state.value for state in CommandState]))
    name = fields.String(validate=validate.OneOf(list(CommandName)))
    node_id = fields.String()
    batch = fields.String()
    result = fields.String()


class OrderSchema(SelectionSchema):
    """`confirmed_nodes`: how many nodes are told, as a dry run says; when they are others by now, none is. A reboot wants it."""

    name = fields.String(required=True, validate=validate.OneOf(list(CommandName)))
    arguments = fields.Dict(keys=fields.String(), load_default=dict)
    lifetime_s = fields.Integer(
        load_default=int(commanding.DEFAULT_LIFETIME.total_seconds()),
        validate=validate.Range(*_LIFETIME_S),
    )
    confirmed_nodes = fields.Integer(load_default=None, validate=validate.Range(0, _MOST_NODES))


class OrderReportSchema(Schema):
    """How many nodes are told, and how many have too many commands waiting. Of a dry run nothing was ordered."""

    is_dry_run = fields.Boolean(required=True)
    batch = fields.String(required=True, allow_none=True)
    told = fields.Integer(required=True)
    busy = fields.Integer(required=True)
    busy_nodes = fields.List(fields.String(), required=True)


@commands.route("")
class AllCommands(MethodView):
    @needs(Right.SEE_FLEET)
    @commands.lists(AnyCommandSchema, CommandQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[CommandOverview]:
        """Commands to all nodes, newest first"""
        limit, after = query.pop("limit"), query.pop("after")
        return ordering.command_page(
            current_session(),
            ordering.CommandFilter(**query),
            now=clock.now(),
            limit=limit,
            after=after,
        )


@commands.route("/order")
class Order(MethodView):
    @needs(Right.OPERATE_NODES)
    @commands.acts(OrderSchema, OrderReportSchema, query=BulkQuery)
    def post(self, given: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        """Tell all nodes that are meant to do something once"""
        session, selection = current_session(), selection_of(given)
        told: dict[str, Any] = {
            "now": clock.now(),
            "lifetime": timedelta(seconds=given["lifetime_s"]),
        }
        what = given["name"], given["arguments"]
        if query["dry_run"]:
            report = ordering.preview_order(session, selection, *what, **told)
        else:
            confirmed = given["confirmed_nodes"]
            report = ordering.order_for_many(
                session, selection, *what, confirmed_nodes=confirmed, **told
            )
        counts = {outcome.value: count for outcome, count in report.counts.items()}
        return {
            "is_dry_run": query["dry_run"],
            "batch": report.batch,
            "busy_nodes": report.busy,
            **counts,
        }


@commands.route("/<row_id:command_id>/cancel")
class Cancel(MethodView):
    @needs(Right.OPERATE_NODES)
    @commands.acts(None, None)
    def post(self, command_id: int) -> None:
        """Take a pending command back; a node that has heard of it may have begun it"""
        commanding.cancel_command(current_session(), command_id, now=clock.now())

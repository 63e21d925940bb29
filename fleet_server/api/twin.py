"""What nodes are told: their configuration, and commands; one node at a time, or many at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import current_app, url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.nodes import nodes
from fleet_server.api.noun import rehearsed_tags
from fleet_server.api.schemas import BulkQuery, BulkSchema
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import (
    arrival_list,
    changing,
    commanding,
    configuring,
    keyset,
    many_at_once,
)
from fleet_server.services.commanding import CommandOverview
from fleet_server.services.rights import Right
from fleet_server.wire.commands import CommandName

_LIFETIME_S = (
    int(commanding.SHORTEST_LIFETIME.total_seconds()),
    int(commanding.LONGEST_LIFETIME.total_seconds()),
)


class ConfigurationSchema(Schema):
    """What is wanted, and how the node stands to it; of Wi-Fi networks `settings` has the names only."""

    version = fields.Integer(required=True)
    settings = fields.Dict(keys=fields.String(), required=True)
    changed_at = fields.AwareDateTime(required=True)
    running_version = fields.Integer(required=True, allow_none=True, metadata={"x-reported": True})
    standing = fields.String(required=True, metadata={"x-reported": True})
    reason = fields.String(required=True, allow_none=True, metadata={"x-reported": True})


class ConfigurationChangeSchema(Schema):
    """Settings that are not named stay as they are; null takes one back to what was provisioned."""

    settings = fields.Dict(keys=fields.String(), required=True)


class CommandSchema(Schema):
    """A command, and what became of it."""

    id = fields.Integer(required=True)
    name = fields.String(required=True)
    arguments = fields.Dict(keys=fields.String(), required=True)
    state = fields.String(required=True)
    result = fields.String(required=True, allow_none=True)
    details = fields.List(
        fields.List(fields.Raw(metadata={"type": ["string", "number"]})), required=True
    )
    ordered_at = fields.AwareDateTime(required=True)
    expires_at = fields.AwareDateTime(required=True)
    answered_at = fields.AwareDateTime(required=True, allow_none=True)


class NewCommandSchema(Schema):
    name = fields.String(required=True, validate=validate.OneOf(list(CommandName)))
    arguments = fields.Dict(keys=fields.String(), load_default=dict)
    lifetime_s = fields.Integer(
        load_default=int(commanding.DEFAULT_LIFETIME.total_seconds()),
        validate=validate.Range(*_LIFETIME_S),
    )


class _ManySchema(Schema):
    node_ids = fields.List(
        fields.String(validate=validate.Length(1, 64)),
        required=True,
        validate=validate.Length(1, many_at_once.MOST_AT_ONCE),
    )


class ConfigureManySchema(ConfigurationChangeSchema, _ManySchema):
    pass


class CommandManySchema(NewCommandSchema, _ManySchema):
    pass


@nodes.route("/<node_id:node_id>/configuration")
class Configuration(MethodView):
    def entity(self, node_id: str) -> configuring.ConfigurationOverview:
        arrival_list.check_node(current_session(), node_id)
        return configuring.configuration_of(current_session(), node_id)

    @needs(Right.SEE_FLEET)
    @nodes.shows(ConfigurationSchema)
    def get(self, node_id: str) -> configuring.ConfigurationOverview:
        """What a node is wanted to run, and how it stands to that"""
        return self.entity(node_id)

    @needs(Right.OPERATE_NODES)
    @nodes.changes(ConfigurationChangeSchema, ConfigurationSchema)
    def patch(self, given: dict[str, Any], node_id: str) -> None:
        """Want other settings of a node"""
        _configure(node_id, given["settings"])


@nodes.route("/<node_id:node_id>/commands")
class Commands(MethodView):
    @needs(Right.SEE_FLEET)
    @nodes.lists(CommandSchema)
    def get(self, query: dict[str, Any], node_id: str) -> keyset.Page[CommandOverview]:
        """A node's commands, newest first"""
        session = current_session()
        arrival_list.check_node(session, node_id)
        return commanding.command_page(session, node_id, now=clock.now(), **query)

    @needs(Right.OPERATE_NODES)
    @nodes.creates(NewCommandSchema, CommandSchema, at=lambda made: _address(made))
    def post(self, given: dict[str, Any], node_id: str) -> CommandOverview:
        """Tell a node to do something once"""
        command_id = _order(node_id, given)
        return commanding.command_of(current_session(), node_id, command_id, now=clock.now())


@nodes.route("/<node_id:node_id>/commands/<row_id:command_id>")
class Command(MethodView):
    @needs(Right.SEE_FLEET)
    @nodes.shows(CommandSchema)
    def get(self, node_id: str, command_id: int) -> CommandOverview:
        """One command and its answer"""
        session = current_session()
        arrival_list.check_node(session, node_id)
        return commanding.command_of(session, node_id, command_id, now=clock.now())


@nodes.route("/configure")
class ConfigureMany(MethodView):
    @needs(Right.OPERATE_NODES)
    @nodes.acts(ConfigureManySchema, BulkSchema, query=BulkQuery, is_rehearsed=True)
    def post(self, given: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        """Want other settings of many nodes; of more than need an approval, only a rehearsal"""
        if not query["dry_run"]:
            above = current_app.config["FLEET_SETTINGS"].approval_wanted_above
            changing.check_without_approval(len(set(given["node_ids"])), approval_above=above)
        return _to_each(
            given,
            lambda node_id: _configure(node_id, given["settings"]),
            is_rehearsal=query["dry_run"],
        )


@nodes.route("/command")
class CommandMany(MethodView):
    @needs(Right.OPERATE_NODES)
    @nodes.acts(CommandManySchema, BulkSchema, query=BulkQuery, is_rehearsed=True)
    def post(self, given: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
        """Tell many nodes to do something once"""
        return _to_each(
            given,
            lambda node_id: _order(node_id, given) > 0,
            is_rehearsal=query["dry_run"],
        )


def _to_each(
    given: dict[str, Any], do: Callable[[str], bool], *, is_rehearsal: bool
) -> dict[str, Any]:
    results = many_at_once.do_to_each(
        current_session(),
        dict.fromkeys(given["node_ids"]),
        do,
        is_rehearsal=is_rehearsal,
        wish=given,
        rehearsed=rehearsed_tags(),
    )
    tag = many_at_once.tag_of(results, given)
    return {"is_dry_run": is_rehearsal, "tag": tag, "results": results}


def _configure(node_id: str, settings: dict[str, Any]) -> bool:
    """True when that changed something."""
    session, settings_of_server = current_session(), current_app.config["FLEET_SETTINGS"]
    before = configuring.configuration_of(session, node_id).version
    version = configuring.configure_node(
        session, node_id, settings, now=clock.now(), secret_key=settings_of_server.session_key
    )
    return version != before


def _order(node_id: str, given: dict[str, Any]) -> int:
    return commanding.order_command(
        current_session(),
        node_id,
        given["name"],
        given["arguments"],
        now=clock.now(),
        lifetime=timedelta(seconds=given["lifetime_s"]),
    )


def _address(made: CommandOverview) -> str:
    return url_for("nodes.Command", node_id=made.node_id, command_id=made.id)

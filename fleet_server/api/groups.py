"""Groups of nodes, and tags."""

from __future__ import annotations

from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.selections import (
    RuleSchema,
    SelectionSchema,
    selection_of,
    server_settings,
    shown_rule,
)
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import grouping, keyset
from fleet_server.services.grouping import GroupOverview, Member
from fleet_server.services.rights import Right
from fleet_server.services.selecting import EVERYBODY

groups = Noun("groups", "Groups of nodes: what a setting can be wanted for")
tags = Noun("tags", "Words on nodes, by which groups can go")
_NAME = validate.Length(1, 64)
_DESCRIPTION = validate.Length(max=500)
_PRIORITY = validate.Range(-1000, 1000)


class GroupSchema(Schema):
    """A group; of two that a node is in, the one with the higher priority has the last word."""

    id = fields.Integer(required=True)
    name = fields.String(required=True)
    description = fields.String(required=True)
    priority = fields.Integer(required=True)
    rule = fields.Nested(RuleSchema, required=True, allow_none=True)
    members = fields.Integer(required=True, metadata={"x-reported": True})


class NewGroupSchema(Schema):
    name = fields.String(required=True, validate=_NAME)
    description = fields.String(load_default="", validate=_DESCRIPTION)
    priority = fields.Integer(load_default=0, validate=_PRIORITY)
    rule = fields.Nested(RuleSchema, load_default=None, allow_none=True)


class GroupChangeSchema(Schema):
    """What is not given stays; a rule of null takes the rule away."""

    name = fields.String(validate=_NAME)
    description = fields.String(validate=_DESCRIPTION)
    priority = fields.Integer(validate=_PRIORITY)
    rule = fields.Nested(RuleSchema, allow_none=True)


class MemberSchema(Schema):
    """A node in a group: put there by hand, found by its rule, or both."""

    node_id = fields.String(required=True)
    label = fields.String(required=True)
    model = fields.String(required=True)
    by_hand = fields.Boolean(required=True)
    by_rule = fields.Boolean(required=True)


class TagSchema(SelectionSchema):
    tag_with = fields.String(required=True, validate=validate.Length(1, 32))
    remove = fields.Boolean(load_default=False)


class CountSchema(Schema):
    """How many nodes it was done to."""

    nodes = fields.Integer(required=True)


@groups.route("")
class Groups(MethodView):
    @needs(Right.SEE_FLEET)
    @groups.lists(GroupSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[dict[str, Any]]:
        """Groups, by name"""
        page = grouping.group_page(current_session(), **query)
        return keyset.Page([_shown(one) for one in page.items], page.next_key)

    @needs(Right.OPERATE_NODES)
    @groups.creates(
        NewGroupSchema, GroupSchema, at=lambda made: url_for("groups.Group", group_id=made["id"])
    )
    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        """A new group, with the members that its rule finds"""
        session, rule = current_session(), given.pop("rule")
        made = grouping.create_group(
            session,
            given.pop("name"),
            rule=None if rule is None else selection_of(rule),
            now=clock.now(),
            **given,
        )
        return _shown(grouping.group_overview(session, made.id))


@groups.route("/<row_id:group_id>")
class Group(MethodView):
    def entity(self, group_id: int) -> dict[str, Any]:
        return _shown(grouping.group_overview(current_session(), group_id))

    @needs(Right.SEE_FLEET)
    @groups.shows(GroupSchema)
    def get(self, group_id: int) -> dict[str, Any]:
        """One group"""
        return self.entity(group_id)

    @needs(Right.OPERATE_NODES)
    @groups.changes(GroupChangeSchema, GroupSchema)
    def patch(self, given: dict[str, Any], group_id: int) -> None:
        """Change a group; its nodes are told what follows"""
        if "rule" in given:
            given["rule"] = EVERYBODY if given["rule"] is None else selection_of(given["rule"])
        grouping.change_group(
            current_session(),
            group_id,
            now=clock.now(),
            at_once=server_settings().approval_wanted_above,
            **given,
        )

    @needs(Right.OPERATE_NODES)
    @groups.deletes(GroupSchema)
    def delete(self, group_id: int) -> None:
        """Forget a group that wants nothing of its nodes any more"""
        grouping.delete_group(current_session(), group_id, now=clock.now())


@groups.route("/<row_id:group_id>/members")
class Members(MethodView):
    @needs(Right.SEE_FLEET)
    @groups.lists(MemberSchema)
    def get(self, query: dict[str, Any], group_id: int) -> keyset.Page[Member]:
        """Nodes in a group, by id"""
        return grouping.member_page(current_session(), group_id, **query)


@groups.route("/<row_id:group_id>/join")
class Join(MethodView):
    @needs(Right.OPERATE_NODES)
    @groups.acts(SelectionSchema, CountSchema)
    def post(self, given: dict[str, Any], group_id: int) -> dict[str, int]:
        """Put nodes into a group by hand"""
        return {"nodes": grouping.add_members(*_to_members(given, group_id), **_by_hand())}


@groups.route("/<row_id:group_id>/leave")
class Leave(MethodView):
    @needs(Right.OPERATE_NODES)
    @groups.acts(SelectionSchema, CountSchema)
    def post(self, given: dict[str, Any], group_id: int) -> dict[str, int]:
        """Take nodes out of a group that were put there by hand"""
        return {"nodes": grouping.remove_members(*_to_members(given, group_id), **_by_hand())}


@tags.route("")
class Tags(MethodView):
    @needs(Right.OPERATE_NODES)
    @tags.acts(TagSchema, CountSchema)
    def post(self, given: dict[str, Any]) -> dict[str, int]:
        """Put a tag on nodes, or take it off"""
        do = grouping.untag_nodes if given["remove"] else grouping.tag_nodes
        word = given["tag_with"]
        return {"nodes": do(current_session(), selection_of(given), word, **_by_hand())}


def _to_members(given: dict[str, Any], group_id: int) -> tuple[Any, int, Any]:
    return current_session(), group_id, selection_of(given)


def _by_hand() -> dict[str, Any]:
    return {"now": clock.now(), "at_once": server_settings().approval_wanted_above}


def _shown(one: GroupOverview) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "description": one.description,
        "priority": one.priority,
        "rule": shown_rule(one.rule),
        "members": one.members,
    }

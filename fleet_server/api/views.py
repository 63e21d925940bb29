"""Kept views of the list of nodes."""

from __future__ import annotations

from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, ValidationError, fields, validate

from fleet_server import clock
from fleet_server.api.nodes import NodeQuery
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import with_query
from fleet_server.models import SavedView
from fleet_server.services import keyset, saved_views
from fleet_server.services.rights import Right

views = Noun(
    "views", "Filters of the list of nodes, kept under a name for oneself or for everybody"
)
_FILTER = NodeQuery(exclude=tuple(ListQuery().fields))
_LONGEST_VALUE = 200


def _check_filter(given: dict[str, str]) -> None:
    wrong = _FILTER.validate(given)
    if wrong:
        name, said = next(iter(wrong.items()))
        raise ValidationError(f"{name}: {said[0] if isinstance(said, list) else said}")


def _filter_field(**arguments: Any) -> fields.Dict:
    return fields.Dict(
        keys=fields.String(validate=validate.OneOf(sorted(_FILTER.fields))),
        values=fields.String(validate=validate.Length(1, _LONGEST_VALUE)),
        validate=_check_filter,
        metadata={"description": "query parameters of the list of nodes, each as text"},
        **arguments,
    )


class ViewSchema(Schema):
    """A kept view; `nodes` is the address of the list that it shows."""

    id = fields.Integer(required=True)
    name = fields.String(required=True)
    owner = fields.String(required=True)
    is_shared = fields.Boolean(required=True)
    filter = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    nodes = fields.String(required=True)
    saved_at = fields.AwareDateTime(required=True)


class NewViewSchema(Schema):
    name = fields.String(required=True, validate=validate.Length(1, saved_views.NAME_MAX_LENGTH))
    is_shared = fields.Boolean(load_default=False)
    filter = _filter_field(required=True)


class ViewChangeSchema(Schema):
    """What is not given stays."""

    name = fields.String(validate=validate.Length(1, saved_views.NAME_MAX_LENGTH))
    is_shared = fields.Boolean()
    filter = _filter_field()


@views.route("")
class Views(MethodView):
    @needs(Right.SEE_FLEET)
    @views.lists(ViewSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[dict[str, Any]]:
        """Your own views and those that are shared, by name"""
        page = saved_views.view_page(current_session(), **query)
        return keyset.Page([_shown(view) for view in page.items], page.next_key)

    @needs(Right.SEE_FLEET)
    @views.creates(
        NewViewSchema, ViewSchema, at=lambda made: url_for("views.View", view_id=made["id"])
    )
    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        """Keep a filter under a name"""
        made = saved_views.create_view(
            current_session(),
            given["name"],
            given["filter"],
            is_shared=given["is_shared"],
            now=clock.now(),
        )
        return _shown(made)


@views.route("/<row_id:view_id>")
class View(MethodView):
    def entity(self, view_id: int) -> dict[str, Any]:
        return _shown(saved_views.find_view(current_session(), view_id))

    @needs(Right.SEE_FLEET)
    @views.shows(ViewSchema)
    def get(self, view_id: int) -> dict[str, Any]:
        """One view"""
        return self.entity(view_id)

    @needs(Right.SEE_FLEET)
    @views.changes(ViewChangeSchema, ViewSchema)
    def patch(self, given: dict[str, Any], view_id: int) -> None:
        """Change a view of yours; an administrator also one that somebody shares"""
        if "filter" in given:
            given["query"] = given.pop("filter")
        saved_views.change_view(current_session(), view_id, now=clock.now(), **given)

    @needs(Right.SEE_FLEET)
    @views.deletes(ViewSchema)
    def delete(self, view_id: int) -> None:
        """Take a view away: yours, or as an administrator one that somebody shares"""
        saved_views.forget_view(current_session(), view_id, now=clock.now())


def _shown(view: SavedView) -> dict[str, Any]:
    kept = saved_views.filter_of(view)
    return {
        "id": view.id,
        "name": view.name,
        "owner": view.owner,
        "is_shared": view.is_shared,
        "filter": kept,
        "nodes": with_query(url_for("nodes.Nodes"), kept),
        "saved_at": view.saved_at,
    }

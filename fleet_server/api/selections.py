"""Which nodes a request means, in queries and bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import current_app
from marshmallow import Schema, fields, validate

from fleet_server.services.selecting import LONGEST_RADIUS_M, SITE_KINDS, Selection
from fleet_server.settings import Settings

_LONGEST_NAME = 64
_MOST_NODES = 1000


class NearSchema(Schema):
    """Nodes at sites around a place, WGS84 in degrees."""

    latitude = fields.Float(required=True, validate=validate.Range(-89.9, 89.9))
    longitude = fields.Float(required=True, validate=validate.Range(-180, 180))
    radius_m = fields.Integer(required=True, validate=validate.Range(1, LONGEST_RADIUS_M))


class RuleSchema(Schema):
    """All that is given must be so of a node."""

    model = fields.String(validate=validate.Length(1, _LONGEST_NAME))
    site_kind = fields.String(validate=validate.OneOf(SITE_KINDS))
    tag = fields.String(validate=validate.Length(1, _LONGEST_NAME))
    near = fields.Nested(NearSchema)


class SelectionSchema(RuleSchema):
    """All that is given must be so of a node; nothing means all nodes in service."""

    group = fields.String(validate=validate.Length(1, _LONGEST_NAME))
    node_ids = fields.List(
        fields.String(validate=validate.Length(1, _LONGEST_NAME)),
        validate=validate.Length(1, _MOST_NODES),
    )


def selection_of(given: Mapping[str, Any]) -> Selection:
    """What a `RuleSchema` or `SelectionSchema` read. Raises SelectionWrong."""
    near, node_ids = given.get("near"), given.get("node_ids")
    selection = Selection(
        model=given.get("model"),
        site_kind=given.get("site_kind"),
        tag=given.get("tag"),
        group=given.get("group"),
        near=None if near is None else (near["latitude"], near["longitude"], near["radius_m"]),
        node_ids=None if node_ids is None else tuple(node_ids),
    )
    selection.check()
    return selection


def shown_rule(selection: Selection | None) -> dict[str, Any] | None:
    """The other way round."""
    if selection is None:
        return None
    shown = {name: getattr(selection, name) for name in ("model", "site_kind", "tag")}
    if selection.near is not None:
        latitude, longitude, radius_m = selection.near
        shown["near"] = {"latitude": latitude, "longitude": longitude, "radius_m": radius_m}
    return {name: value for name, value in shown.items() if value is not None}


def server_settings() -> Settings:
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    return settings

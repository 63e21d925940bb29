"""Whom an alert concerns: who looks after trees is not called for a pond."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, or_
from sqlalchemy.sql.elements import ColumnElement

from fleet_server.models import Alert, AlertKind, Node
from hardware import catalogue

SITE_KINDS = ("tree", "water")


def concerns(site_kinds: Collection[str]) -> list[ColumnElement[bool]]:
    """Conditions on `alert` outer-joined with `node`: it is about a site of these kinds, or about the server itself."""
    if set(SITE_KINDS) <= set(site_kinds):
        return []
    models = [
        one
        for one in catalogue.node_model_ids()
        if catalogue.load_node_model(one).site_kind in site_kinds
    ]
    # Places are of both kinds where nobody counted them: alerts of an earlier version.
    counted = [func.coalesce(Alert.details[f"{kind}_nodes"].as_integer(), 1) for kind in site_kinds]
    is_about_many = Alert.node_id.is_(None) & (
        (Alert.kind != AlertKind.PLACE_SILENT) | or_(*(nodes > 0 for nodes in counted))
    )
    return [or_(is_about_many, Node.model.in_(models))]

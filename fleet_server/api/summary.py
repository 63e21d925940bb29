"""The fleet in a few figures, as they stand above the list of nodes."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView
from marshmallow import Schema, fields

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import reported
from fleet_server.http_shared.access import has_to_do_with_all, needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import fleet_totals
from fleet_server.services.rights import Right

summary = Noun("summary", "The fleet in a few figures")


class PacksSchema(Schema):
    stored = fields.Integer(required=True)
    missing = fields.Integer(required=True)
    lost = fields.Integer(required=True)
    thinned = fields.Integer(required=True)


class SummarySchema(Schema):
    """Nodes in service by health. Packs and quarantine are of the whole fleet: null for whoever has to do with trees or waters alone."""

    nodes = reported(fields.Integer)
    by_health = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        required=True,
        metadata={"x-reported": True},
    )
    packs = fields.Nested(
        PacksSchema, required=True, allow_none=True, metadata={"x-reported": True}
    )
    quarantined = reported(fields.Integer, allow_none=True)


@summary.route("")
class Summary(MethodView):
    @needs(Right.SEE_FLEET)
    @summary.shows(SummarySchema)
    def get(self) -> dict[str, Any]:
        """How many nodes stand how, and how many packs came"""
        session = current_session()
        counts = fleet_totals.health_counts(session, now=clock.now())
        sees_all = has_to_do_with_all()
        return {
            "nodes": sum(counts.values()),
            "by_health": counts,
            "packs": fleet_totals.pack_totals(session) if sees_all else None,
            "quarantined": fleet_totals.quarantine_size(session) if sees_all else None,
        }

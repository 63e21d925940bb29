"""The management API: its nouns, one file each, registered at once."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, NotFound

from fleet_server.api import credentials, twin
from fleet_server.api.alerts import alerts, recipients, rules, silences
from fleet_server.api.arrivals import packs, quarantine
from fleet_server.api.audit import audit
from fleet_server.api.calibrations import calibrations, sensors, standards_noun
from fleet_server.api.campaigns import campaigns
from fleet_server.api.changes import changes, drift, layers, models
from fleet_server.api.city import city
from fleet_server.api.commands import commands
from fleet_server.api.corrections import corrections
from fleet_server.api.deployments import deployments
from fleet_server.api.document import make_api
from fleet_server.api.flags import flags
from fleet_server.api.groups import groups, tags
from fleet_server.api.limits import limits
from fleet_server.api.me import me
from fleet_server.api.measurements import measurements
from fleet_server.api.nodes import nodes
from fleet_server.api.noun import BASE
from fleet_server.api.people import people
from fleet_server.api.releases import components, release_noun
from fleet_server.api.revisions import observations, revisions
from fleet_server.api.sites import sites
from fleet_server.api.summary import summary
from fleet_server.api.views import views
from fleet_server.api.work import work_orders
from fleet_server.http_shared.addresses import (
    HIGHEST_OBSERVATION_ID,
    NodeIdConverter,
    ObservationIdConverter,
    RowIdConverter,
)
from fleet_server.wire.topics import NODE_ID_PATTERN

_NOUNS = (
    me,
    summary,
    nodes,
    views,
    sites,
    deployments,
    work_orders,
    flags,
    limits,
    packs,
    quarantine,
    audit,
    people,
    alerts,
    silences,
    rules,
    recipients,
    groups,
    tags,
    layers,
    changes,
    drift,
    models,
    commands,
    credentials.tokens,
    release_noun,
    components,
    campaigns,
    sensors,
    standards_noun,
    calibrations,
    corrections,
    measurements,
    revisions,
    observations,
    city,
)
_HANG_ON_NODES = (twin, credentials)
"""Imported for the views that they hang on a noun."""


def register_management(app: Flask) -> None:
    api = make_api(app)
    api.register_converter(NodeIdConverter, _as_text)
    api.register_converter(RowIdConverter, _as_number)
    api.register_converter(ObservationIdConverter, _as_observation)
    for noun in _NOUNS:
        api.register_blueprint(noun)
    app.before_request(_refuse_nul)
    app.after_request(_never_stored)


def _refuse_nul() -> None:
    """No text with a NUL reaches a database: PostgreSQL has no such thing."""
    if "\0" in request.path:
        raise NotFound("There is nothing at this address.")
    if any("\0" in text for pair in request.args.items(multi=True) for text in pair):
        raise BadRequest("The address has a NUL in its query.")


def _never_stored(response: Response) -> Response:
    if request.path.startswith(BASE):
        response.headers["Cache-Control"] = "no-store"
    return response


def _as_text(_converter: object) -> dict[str, str]:
    return {"type": "string", "pattern": f"^{NODE_ID_PATTERN}$"}


def _as_number(_converter: object) -> dict[str, object]:
    return {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


def _as_observation(_converter: object) -> dict[str, object]:
    return {"type": "integer", "minimum": 0, "maximum": HIGHEST_OBSERVATION_ID}

"""`/v1.1`: the HTTP side of SensorThings, read only."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, request

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.feeds.sensorthings.options import parse_options
from fleet_server.feeds.sensorthings.paths import ENTITY_SETS, parse_path
from fleet_server.feeds.sensorthings.reader import Reader
from fleet_server.http_shared.access import has_to_do_with_all, open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.settings import Settings, is_loopback

VERSION = "v1.1"
_REQUIREMENTS = "http://www.opengis.net/spec/iot_sensing/1.1/req"
CONFORMANCE = tuple(
    f"{_REQUIREMENTS}/{requirement}"
    for requirement in (
        "datamodel",
        "resource-path/resource-path-to-entities",
        "request-data/order",
        "request-data/expand",
        "request-data/select",
        "request-data/status-code",
        "request-data/query-status-code",
        "request-data/orderby",
        "request-data/top",
        "request-data/skip",
        "request-data/count",
        "request-data/pagination",
    )
)

sensorthings = Blueprint("sensorthings", __name__, url_prefix=f"/{VERSION}")


@sensorthings.get("/", strict_slashes=False)
@open_to_all
def landing() -> Response:
    """The entity sets, and what of the standard is answered (OGC 18-088, 9.2.1)."""
    if request.query_string and any(name.startswith("$") for name in request.args):
        raise Invalid("The service's root takes no query options.")
    root = service_root()
    return _json(
        {
            "value": [{"name": name, "url": f"{root}/{name}"} for name in ENTITY_SETS],
            "serverSettings": {"conformance": list(CONFORMANCE)},
        }
    )


@sensorthings.get("/<path:resource>")
@open_to_all
def resource(resource: str) -> Response:
    """A collection, an entity, a property or references, by resource path and query options."""
    path = parse_path(resource)
    options = parse_options(request.query_string.decode("utf-8", "replace"))
    shows_all = current_app.config["ALL_SITES_PUBLIC"] or has_to_do_with_all()
    root = service_root()
    reader = Reader(current_session(), root=root, only_public=not shows_all, now=clock.now())
    found = reader.read(path, options, url=f"{root}/{resource.strip('/')}")
    if path.is_raw_value:
        text = found if isinstance(found, str) else json.dumps(found)
        return Response(text, content_type="text/plain; charset=utf-8")
    return _json(found)


def service_root() -> str:
    """The absolute address that links begin with: the configured one, or the asker's own on this machine."""
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    is_local = is_loopback(urlsplit(settings.public_url).hostname or "")
    base = request.host_url.rstrip("/") if is_local else settings.public_url
    return f"{base}/{VERSION}"


def _json(value: Any) -> Response:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return Response(text, content_type="application/json; charset=utf-8")

"""What the bench and the nodes ask over HTTPS: `/node/v1/enrol`, and `/node/v1/heard` (whether a new node was heard)."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, jsonify, request

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.limits import ENROL_LIMIT, limiter
from fleet_server.services import enrolment, first_contact, release_repository
from fleet_server.settings import DEFAULT_NODE_LISTENER_PORT, Settings, is_loopback

node_listener = Blueprint("node_listener", __name__, url_prefix="/node/v1")

LONGEST_REQUEST_BYTES = 64 * 1024
_HTTPS_PORT = 443


@node_listener.post("/enrol")
@open_to_all
@limiter.limit(ENROL_LIMIT)
def enrol() -> tuple[Response, int]:
    """Certify the key behind a request, for who bears a token; 201 with all that the node must know."""
    given = _given("token", "label", "model", "csr_pem")
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    node = enrolment.enrol_node(
        current_session(),
        token=given["token"],
        label=given["label"],
        model=given["model"],
        csr_pem=given["csr_pem"],
        ca_dir=settings.ca_dir,
        now=clock.now(),
    )
    told: dict[str, Any] = {
        "node_id": node.node_id,
        "certificate_pem": node.certificate_pem,
        "ca_pem": list(node.ca_pem),
        "link": {**link_of(settings), "renew": _renewal_address()},
    }
    root = release_repository.newest_root(current_session())
    if root is not None:
        told["tuf_root"] = base64.b64encode(root).decode()
    answer = jsonify(told)
    answer.headers["Cache-Control"] = "no-store"
    return answer, 201


@node_listener.post("/heard")
@open_to_all
@limiter.limit(ENROL_LIMIT)
def heard() -> Response:
    """What is stored of a node that a bench has just enrolled, for who bears a token."""
    given = _given("token", "node_id")
    contact = first_contact.first_contact(
        current_session(), token=given["token"], node_id=given["node_id"], now=clock.now()
    )
    first_stored_at = contact.first_stored_at
    answer = jsonify(
        {
            "node_id": contact.node_id,
            "label": contact.label,
            "packs": contact.packs,
            "first_stored_at": first_stored_at and first_stored_at.isoformat(),
            "readings": [vars(reading) for reading in contact.readings],
        }
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _renewal_address() -> list[object]:
    """Where the node asks for a new certificate when no broker lets it in: host, port and name of this listener, as the bench found it."""
    asked = urlsplit(f"//{request.host}")
    host = asked.hostname or "127.0.0.1"
    return [host, asked.port or _HTTPS_PORT, "localhost" if is_loopback(host) else host]


def _given(*names: str) -> dict[str, str]:
    try:
        given = request.get_json(force=True, silent=True)
    except RecursionError:  # some thousand opening brackets, which `silent` does not cover
        given = None
    if not isinstance(given, dict):
        raise Invalid("The request wants one JSON object.")
    wrong = [name for name in names if not _is_text(given.get(name))]
    if wrong:
        raise Invalid(f"The request wants a text for each of: {', '.join(wrong)}.")
    return {name: given[name] for name in names}


def _is_text(value: object) -> bool:
    """JSON can spell half a character (a lone surrogate); no text holds one."""
    return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value


def link_of(settings: Settings) -> dict[str, object]:
    """Where the node finds its broker, as its configuration spells it."""
    parts = urlsplit("mqtts://127.0.0.1" if settings.broker_is_embedded else settings.broker_url)
    host = parts.hostname or "127.0.0.1"
    return {
        "host": host,
        "port": parts.port or DEFAULT_NODE_LISTENER_PORT,
        "tls": parts.scheme == "mqtts",
        # A certificate on this machine is for `localhost`; TLS libraries on nodes compare names, not addresses.
        "server_name": "localhost" if is_loopback(host) else host,
        "ntp": settings.ntp_server,
        "prefix": settings.topic_prefix,
    }

"""`/node/v1/renew`: the way back for a node whose certificate ran out while it slept, or that knows no root of the broker's any more.

The nodes' listener asks for a client's certificate, which must come from the fleet and belong to the client's key; only its date is not
looked at (`cli/serve.py`). Here the key is compared with the registered one, and who was revoked is refused.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import cbor2
import structlog
from flask import Blueprint, Response, current_app, request

from fleet_server.http_shared.access import open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.limits import RENEW_LIMIT, limiter
from fleet_server.services import credentials
from fleet_server.settings import Settings

log = structlog.get_logger(__name__)

renewal = Blueprint("renewal", __name__, url_prefix="/node/v1")


@renewal.post("/renew")
@open_to_all
@limiter.limit(RENEW_LIMIT)
def renew() -> Response:
    """What the node is to hold instead, in CBOR: {"certificate": DER or null, "roots": [DER, …] or null}."""
    presented = request.environ.get("SSL_CLIENT_CERT")  # no header can put it there
    if not isinstance(presented, str):
        raise credentials.RenewalRefused("A renewal wants the node's own certificate.")
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    try:
        given = credentials.renew_for_bearer(
            current_session(),
            ssl.PEM_cert_to_DER_cert(presented),
            settings.ca_dir,
            now=datetime.now(UTC),
        )
    except credentials.RenewalRefused as refusal:
        log.warning("renewal_refused", **refusal.fields)
        raise
    answer = cbor2.dumps(
        {"certificate": given.certificate, "roots": given.roots and list(given.roots)}
    )
    return Response(answer, mimetype="application/cbor", headers={"Cache-Control": "no-store"})

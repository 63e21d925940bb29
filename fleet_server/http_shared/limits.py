"""How often one address may ask: generous for readers, tight for the login.

Counted in this process: several replicas behind a proxy each count for themselves, until a shared store is configured.
"""

from __future__ import annotations

from flask import Flask, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

READ_LIMIT = "6000 per minute"
"""A feed reader that walks a year page by page stays far below; a runaway script does not."""

LOGIN_LIMIT = "10 per minute; 100 per hour"
"""Counted for failed and successful tries alike; at this rate a password of four words is safe for centuries."""

ENROL_LIMIT = "600 per minute"
"""A token is 24 random bytes: guessing is hopeless at any rate, and a bench enrols a shelf of nodes in a row."""

RENEW_LIMIT = "600 per minute"
"""A whole network of nodes may stand behind one address; signed is at most once an hour for each node."""

UPDATE_LIMIT = "60000 per minute"
"""A city's nodes may stand behind one address, and each fetches some sixty small files for an update."""

_UNLIMITED = ("/static/", "/healthz", "/readyz")

limiter = Limiter(
    key_func=get_remote_address,
    default_limits=[READ_LIMIT],
    storage_uri="memory://",
    headers_enabled=False,
)


def register_limits(app: Flask) -> None:
    limiter.init_app(app)

    @limiter.request_filter
    def _is_unlimited() -> bool:
        return request.path.startswith(_UNLIMITED)

"""The OpenAPI document: what flask-smorest gathered, and who may call each operation."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, jsonify
from flask_smorest import Api
from werkzeug.routing import Rule

from fleet_server.api.noun import BASE
from fleet_server.api.schemas import ProblemSchema
from fleet_server.http_shared import access
from fleet_server.http_shared.access import open_to_all
from fleet_server.http_shared.openapi import current_document, offer_document
from fleet_server.models import Role
from fleet_server.services import rights

_VARIABLE = re.compile(r"<(?:\w+(?:\([^)]*\))?:)?(\w+)>")
_SCHEMES = {
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "stadtsensor",
        "description": "A browser's session. What changes something also wants the token of /api/v1/me as X-CSRFToken.",
    },
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, as `Authorization: Bearer …`.",
    },
}


class ProblemApi(Api):  # type: ignore[misc] # flask-smorest has no types
    """flask-smorest answers errors in a form of its own: ours are made in `http_shared.problems`."""

    ERROR_SCHEMA = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME = None

    def __init__(self, app: Flask) -> None:
        self._untold: list[Callable[[], None]] = []
        super().__init__(app)

    def tell_later(self, tell: Callable[[], None]) -> None:
        """Keep what belongs into the document until somebody asks for it."""
        self._untold.append(tell)

    def document(self) -> dict[str, Any]:
        """Everything that was told."""
        while self._untold:
            self._untold.pop(0)()
        document: dict[str, Any] = self.spec.to_dict()
        return document

    def _register_error_handlers(self) -> None:
        """Leave errors to the application's handlers."""


def make_api(app: Flask) -> Any:
    """Where nouns are registered."""
    app.config.update(
        API_TITLE="Stadtsensor management API",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        API_SPEC_OPTIONS={
            "info": {"description": "How to use it: docs/operator/api.md."},
            "components": {"securitySchemes": _SCHEMES},
            "servers": [{"url": "/"}],
        },
    )
    api = ProblemApi(app)
    offer_document(app, lambda: _with_access(app, api.document()))
    app.add_url_rule("/api/openapi.json", "openapi", openapi)
    return api


@open_to_all
def openapi() -> Response:
    """The document itself."""
    return jsonify(current_document())


def _with_access(app: Flask, document: dict[str, Any]) -> dict[str, Any]:
    """Each operation says who may call it."""
    for rule in app.url_map.iter_rules():
        operations = document["paths"].get(_VARIABLE.sub(r"{\1}", rule.rule))
        if operations is None or not rule.rule.startswith(BASE):
            continue
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            if method.lower() in operations:
                _say_who(app, rule, method, operations[method.lower()])
    document["components"]["schemas"].pop(
        "PaginationMetadata", None
    )  # of a paging that is not ours
    return document


def _say_who(app: Flask, rule: Rule, method: str, operation: dict[str, Any]) -> None:
    said = access.access_of(app, rule, method)
    operation["operationId"] = f"{method.lower()}_{rule.endpoint.replace('.', '_')}"
    operation["security"] = [] if said.is_open else [{"session": []}, {"key": []}]
    if said.right is None:
        who = "Everybody." if said.is_open else "Everybody who is logged in."
    else:
        roles = ", ".join(role for role in Role if said.right in rights.RIGHTS[role])
        who = f"Wants the right `{said.right}` (roles: {roles})."
        operation["x-right"] = str(said.right)
    told = operation.get("description", "")
    operation["description"] = f"{told}\n\n{who}".strip()

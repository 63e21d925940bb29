"""The API's own description, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, current_app

_EXTENSION = "stadtsensor_openapi"
Document = dict[str, Any]


def offer_document(app: Flask, make: Callable[[], Document]) -> None:
    """`make` is asked once, when all operations are registered."""
    made: list[Document] = []

    def document() -> Document:
        if not made:
            made.append(make())
        return made[0]

    app.extensions[_EXTENSION] = document


def current_document() -> Document:
    """The OpenAPI document of this application."""
    found: Document = current_app.extensions[_EXTENSION]()
    return found

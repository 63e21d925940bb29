"""The API's own description, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

from flask import Flask, current_app

_EXTENSION = "stadtsensor_openapi"
Document = dict[str, Any]


def offer_document(app: Flask, make: Callable[[], Document]) -> None:
    """`make` is asked once, by the first who wants the document: all operations are registered by then."""
    made: list[Document] = []
    making = Lock()

    def document() -> Document:
        with making:
            if not made:
                made.append(make())
        return made[0]

    app.extensions[_EXTENSION] = document


def current_document() -> Document:
    """The OpenAPI document of this application."""
    found: Document = current_app.extensions[_EXTENSION]()
    return found

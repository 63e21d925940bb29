"""Requests that may be longer than others because they carry a file: said beside the view, and for who is logged in only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, current_app, request

from fleet_server.http_shared.access import current_actor

_View = TypeVar("_View", bound=Callable[..., Any])
_LONGEST = "fleet_longest_request_bytes"
_FORM_AROUND_IT = 64 * 1024


def takes_file(most_bytes: int) -> Callable[[_View], _View]:
    """The view reads a file of at most so many bytes."""

    def mark(view: _View) -> _View:
        setattr(view, _LONGEST, most_bytes + _FORM_AROUND_IT)
        return view

    return mark


def register_uploads(app: Flask) -> None:
    """Before whatever reads the body (the check of its CSRF token does)."""

    @app.before_request
    def _allow() -> None:
        if request.method != "POST" or request.endpoint is None:
            return
        view = current_app.view_functions[request.endpoint]
        # An operation of the API is a method of a class.
        method = getattr(getattr(view, "view_class", None), request.method.lower(), view)
        longest = getattr(method, _LONGEST, None)
        if longest is not None and current_actor() is not None:
            request.max_content_length = longest

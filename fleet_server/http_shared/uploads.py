"""Requests that may be longer than others because they carry a file: said beside the view, and for who is logged in only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, current_app, request

from fleet_server.http_shared.access import current_actor

_View = TypeVar("_View", bound=Callable[..., Any])
_LONGEST = "fleet_longest_request_bytes"
_MOST_PARTS = "fleet_most_form_parts"
_FORM_AROUND_IT = 64 * 1024
_AROUND_EACH = 512


def takes_file(most_bytes: int) -> Callable[[_View], _View]:
    """The view reads a file of at most so many bytes."""
    return takes_files(most_bytes, most_files=None)


def takes_files(most_bytes: int, *, most_files: int | None) -> Callable[[_View], _View]:
    """The view reads files of at most so many bytes together; None: as few as any form may have."""

    def mark(view: _View) -> _View:
        setattr(view, _LONGEST, most_bytes + _FORM_AROUND_IT + _AROUND_EACH * (most_files or 0))
        setattr(view, _MOST_PARTS, most_files)
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
            request.max_form_parts = getattr(method, _MOST_PARTS) or request.max_form_parts

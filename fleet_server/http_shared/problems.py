"""Errors on their way out: RFC 9457 problem+json for programs, one calm page for people. Made here and nowhere else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from http import HTTPStatus

import structlog
from flask import Flask, Response, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, InternalServerError

from fleet_server import db
from fleet_server.errors import (
    Conflict,
    FleetError,
    Invalid,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from fleet_server.http_shared.database import note_database_away
from fleet_server.services.many_at_once import RehearsalOutdated
from fleet_server.services.repeating import KeyReused

log = structlog.get_logger(__name__)

PROBLEM_TYPE = "application/problem+json"
PROGRAM_PATHS = ("/api/", "/v1.1", "/feeds", "/node/", "/healthz", "/readyz", "/metrics")

PageForProblem = Callable[[int, str, str], str]
"""Draws (status, title, detail) as HTML; what a service said has its parts (`Said`)."""


class NotBuilt(FleetError):
    """A standard knows this option; this server does not answer it (yet)."""

    code = "not_built"


class NotProcessable(FleetError):
    """What was sent is readable, and does not fit."""

    code = "does_not_fit"


class TagWanted(FleetError):
    """A change did not say which version it is for."""

    code = "if_match_wanted"


class TagOutdated(FleetError):
    """What was to be changed is another by now."""

    code = "changed_meanwhile"


class Crossed(Conflict):
    """Two did the same at one moment, and the database let the other one through."""

    code = "crossed"


_STATUS: tuple[tuple[type[FleetError], int], ...] = (
    (KeyReused, 422),
    (NotProcessable, 422),
    (TagWanted, 428),
    (TagOutdated, 412),
    (RehearsalOutdated, 412),
    (NotFound, 404),
    (Unauthenticated, 401),
    (Refused, 403),
    (Invalid, 400),
    (Conflict, 409),
    (Unavailable, 503),
    (NotBuilt, 501),
)


def status_of(problem: FleetError) -> int:
    return next((status for kind, status in _STATUS if isinstance(problem, kind)), 500)


def problem_response(status: int, *, detail: str, code: str | None = None) -> Response:
    """One problem document; `code` is the stable name that programs compare, the text is for people."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if code:
        body["code"] = code
    return Response(json.dumps(body), status=status, content_type=PROBLEM_TYPE)


def wants_problem_json() -> bool:
    """Programs' paths always; elsewhere only who prefers JSON to HTML."""
    if request.path.startswith(PROGRAM_PATHS):
        return True
    best = request.accept_mimetypes.best_match(["text/html", "application/json", PROBLEM_TYPE])
    return best in ("application/json", PROBLEM_TYPE)


def register_problems(app: Flask, *, page: PageForProblem | None = None) -> None:
    """Every error of `app` leaves in one form; without `page`, people get problem+json too."""

    def answer(status: int, detail: str, code: str | None) -> Response:
        if page is None or wants_problem_json():
            return problem_response(status, detail=detail, code=code)
        html = page(status, HTTPStatus(status).phrase, detail)
        return Response(html, status=status, content_type="text/html; charset=utf-8")

    @app.errorhandler(FleetError)
    def _fleet_error(problem: FleetError) -> Response:
        status = status_of(problem)
        if status == 503:
            note_database_away()
            log.warning("request_unavailable", path=request.path, code=problem.code)
        made = answer(status, problem.said, problem.code)
        if status == 401:
            made.headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, 11.6.1
        return made

    @app.errorhandler(SQLAlchemyError)
    @app.errorhandler(sqlite3.Error)
    def _database_error(problem: Exception) -> Response:
        if db.is_crossed(problem):
            log.warning(
                "requests_crossed", path=request.path, reason=str(problem).partition("\n")[0]
            )
            return _fleet_error(
                Crossed("Somebody else did the same at this moment; look again, then repeat it.")
            )
        trouble = db.trouble_of(problem)
        if trouble is None:
            raise problem
        return _fleet_error(trouble)

    @app.errorhandler(HTTPException)
    def _http_error(problem: HTTPException) -> Response:
        if isinstance(problem, InternalServerError) and problem.original_exception is not None:
            log.error("request_failed", path=request.path, exc_info=problem.original_exception)
        response = problem.get_response()
        if response.status_code < 400:  # a redirect raised as an exception is no error
            return Response(response.get_data(), response.status_code, dict(response.headers))
        made = answer(response.status_code, problem.description or problem.name, None)
        for name in ("Allow", "Retry-After", "Location"):
            if name in response.headers:
                made.headers[name] = response.headers[name]
        if made.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            made.headers.setdefault("Retry-After", "60")  # limits are counted by the minute
        return made

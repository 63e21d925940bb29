"""Who is asking: a session cookie for people. Every write from a page carries a CSRF token."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from flask import Flask, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user
from flask_wtf.csrf import CSRFError, CSRFProtect
from werkzeug.exceptions import BadRequest, Unauthorized
from werkzeug.wrappers import Response

from fleet_server.http_shared.database import current_session, is_database_away
from fleet_server.http_shared.problems import wants_problem_json
from fleet_server.models import User
from fleet_server.services import accounts
from fleet_server.services.rights import Actor

SESSION_LIFETIME = timedelta(hours=12)
"""A shift: nobody has to log in twice a day, and a forgotten browser is closed by the next morning."""


@dataclass(frozen=True)
class Person(UserMixin):
    """The account behind a session, as templates see it."""

    id: int
    name: str
    fingerprint: str
    """Of the password's hash: a new password ends every session that the old one began."""
    actor: Actor

    def get_id(self) -> str:
        return f"{self.id}.{self.fingerprint}"


def person_of(user: User) -> Person:
    digest = hashlib.sha256(user.password_hash.encode()).hexdigest()
    return Person(user.id, user.name, digest[:16], accounts.actor_of(user))


def register_auth(app: Flask, *, is_https: bool) -> None:
    """Sessions by Flask-Login, CSRF by Flask-WTF."""
    app.config.update(
        SESSION_COOKIE_NAME="stadtsensor",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=is_https,
        PERMANENT_SESSION_LIFETIME=SESSION_LIFETIME,
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session: a form left open over lunch still works
    )
    CSRFProtect(app)
    manager: Any = LoginManager(app)  # type: ignore[no-untyped-call] # Flask-Login has no types
    manager.session_protection = None  # a phone changes its address while its owner walks

    @manager.user_loader  # type: ignore[untyped-decorator] # flask-login has no types
    def _load(session_id: str) -> Person | None:
        if is_database_away():
            return None
        user_id = session_id.partition(".")[0]
        user = accounts.find_user(current_session(), int(user_id)) if user_id.isdecimal() else None
        person = None if user is None else person_of(user)
        return person if person is not None and person.get_id() == session_id else None

    @manager.unauthorized_handler  # type: ignore[untyped-decorator] # as above
    def _unauthorized() -> Response:
        if wants_problem_json():
            raise Unauthorized("Log in first.")
        target = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for("web.login", next=target))

    @app.errorhandler(CSRFError)
    def _csrf(_problem: CSRFError) -> ResponseReturnValue:
        clearer = BadRequest("This form is out of date; load the page again and repeat.")
        return app.handle_http_exception(clearer)  # what it returns is a view's answer


def is_logged_in() -> bool:
    person: Any = current_user
    return bool(person.is_authenticated)

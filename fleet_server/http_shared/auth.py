"""Who is asking: a person by the session cookie, a program by its API key, and what neither may be made to do.

A key (`Authorization: Bearer sk_…`) counts on programs' addresses only, so that none of a browser's pages can be used with one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from flask import Flask, current_app, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user
from flask_wtf.csrf import CSRFError, CSRFProtect, generate_csrf
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import BadRequest, Unauthorized
from werkzeug.wrappers import Request, Response

from fleet_server import clock
from fleet_server.errors import Said
from fleet_server.http_shared.browsers import browser_name
from fleet_server.http_shared.database import current_session, is_database_away
from fleet_server.http_shared.problems import wants_problem_json
from fleet_server.models import User
from fleet_server.services import accounts, keys, logins
from fleet_server.services.rights import Actor, Right

log = structlog.get_logger(__name__)

KEY_PATHS = ("/api/", "/v1.1", "/feeds")
"""Programs' addresses: where keys count."""
_BEARER = "bearer"  # a scheme's name in any letters: RFC 9110, 11.1


@dataclass(frozen=True)
class Person(UserMixin):
    """Who is logged in, as views and templates see it."""

    id: int
    name: str
    actor: Actor
    login_id: int
    has_second_factor: bool
    lacks_second_factor: bool
    """This account has to have one before it may do anything else."""
    secret: str = field(repr=False)

    def get_id(self) -> str:
        return self.secret


@dataclass(frozen=True)
class Program(UserMixin):
    """Who asks with a key."""

    id: int
    name: str
    actor: Actor

    def get_id(self) -> str:
        raise RuntimeError("a program has no session")


def begin_login(user: User) -> None:
    """From this answer on the browser is logged in; nothing of an earlier session lives on, here or in the database."""
    end_login()
    secret = logins.begin(
        current_session(),
        user.id,
        browser=browser_name(request.headers.get("User-Agent", "")),
        now=clock.now(),
    )
    person = _person(secret)
    login_user(person)  # type: ignore[no-untyped-call] # Flask-Login has no types
    session.permanent = True


def end_login() -> None:
    """The browser is logged in no more, and copies of its cookie neither."""
    person: Any = current_user
    if isinstance(getattr(person, "login_id", None), int):
        logins.end(current_session(), person.login_id, user_id=person.id, now=clock.now())
    logout_user()  # type: ignore[no-untyped-call] # Flask-Login has no types
    session.clear()


def current_person() -> Person:
    """Who is logged in, for a view that only they reach."""
    person: Person = current_user._get_current_object()
    return person


def form_token() -> str | None:
    """What a browser sends along with each change; None for a program, which needs none and shall keep no cookie."""
    is_person = isinstance(current_user._get_current_object(), Person)
    return str(generate_csrf()) if is_person else None


def is_logged_in() -> bool:
    person: Any = current_user
    return bool(person.is_authenticated)


def register_auth(app: Flask, *, is_https: bool) -> None:
    """Sessions by Flask-Login, keys by us, CSRF by Flask-WTF."""
    app.config.update(
        SESSION_COOKIE_NAME="stadtsensor",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=is_https,
        PERMANENT_SESSION_LIFETIME=logins.LIFETIME,
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session: a form left open over lunch still works
        WTF_CSRF_CHECK_DEFAULT=False,  # we say below where
    )
    _register_csrf(app)
    manager: Any = LoginManager(app)  # type: ignore[no-untyped-call] # Flask-Login has no types
    manager.session_protection = None  # a phone changes its address while its owner walks

    @manager.user_loader  # type: ignore[untyped-decorator] # flask-login has no types
    def _load_person(secret: str) -> Person | None:
        if is_database_away() or _borne_key() is not None:
            return None
        return _person(secret)

    @manager.request_loader  # type: ignore[untyped-decorator] # as above
    def _load_program(_request: Request) -> Program | None:
        secret = _borne_key()
        return None if secret is None or is_database_away() else _program(secret)

    @manager.unauthorized_handler  # type: ignore[untyped-decorator] # as above
    def _unauthorized() -> Response:
        if wants_problem_json():
            raise Unauthorized("Log in first, or send an API key: `Authorization: Bearer sk_…`.")
        target = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for("web.login", next=target))


def _register_csrf(app: Flask) -> None:
    csrf = CSRFProtect(app)

    @app.before_request
    def _refuse_forged() -> None:
        if app.config["WTF_CSRF_ENABLED"] and _might_be_forged(app):
            csrf.protect(apply_exemptions=True)

    @app.errorhandler(CSRFError)
    def _csrf(_problem: CSRFError) -> ResponseReturnValue:
        clearer = BadRequest(
            "A browser's cookie came along: send the csrf_token of /api/v1/me as X-CSRFToken, or a key and no cookie."
            if request.path.startswith(KEY_PATHS)
            else Said("This form is out of date; load the page again and repeat.")
        )
        return app.handle_http_exception(clearer)  # what it returns is a view's answer


def _might_be_forged(app: Flask) -> bool:
    """Another site can make a browser send a request with its cookie, never one with a key of its choice.

    Programs' addresses without the cookie act for nobody or for a key. A page's form wants its token always: logging somebody else
    in needs no cookie.
    """
    has_cookie = app.config["SESSION_COOKIE_NAME"] in request.cookies
    return has_cookie or not request.path.startswith(KEY_PATHS)


def _borne_key() -> str | None:
    """The key that came with this request, where keys count."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if not request.path.startswith(KEY_PATHS) or scheme.lower() != _BEARER:
        return None
    return secret.strip()


def _person(secret: str) -> Person | None:
    found = logins.find(current_session(), secret)
    if found is None:
        return None
    user, actor = found.user, accounts.actor_of(found.user)
    _keep_unless_busy(
        lambda: logins.note_seen(
            current_session(), found.login_id, last_seen_at=found.last_seen_at, now=clock.now()
        )
    )
    wants_factor = (
        current_app.config["FLEET_SETTINGS"].require_totp and Right.MANAGE_PEOPLE in actor.rights
    )
    return Person(
        id=user.id,
        name=user.name,
        actor=actor,
        login_id=found.login_id,
        has_second_factor=found.has_second_factor,
        lacks_second_factor=wants_factor and not found.has_second_factor,
        secret=secret,
    )


def _program(secret: str) -> Program:
    now = clock.now()
    key = keys.find_key(current_session(), secret, now=now)
    actor = keys.actor_of(key)
    _keep_unless_busy(lambda: keys.note_use(current_session(), key, now=now))
    return Program(key.id, actor.name, actor)


def _keep_unless_busy(keep: Callable[[], None]) -> None:
    """When somebody was last seen is no reason to refuse them: reading goes on with a full disk."""
    try:
        keep()
    except OperationalError as problem:
        log.warning("last_seen_not_kept", reason=str(problem.orig))

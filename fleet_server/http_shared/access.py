"""Who may call what: every page and endpoint says it, beside its function; what says nothing stops the start.

`needs(right)` for who has a right, `for_everybody_logged_in` for what concerns one's own account, `open_to_all` for the rest.
A request is judged before its view sees it. docs/security/access.md shows the whole table; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask, current_app, redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user
from werkzeug.routing import Rule

from fleet_server.errors import Refused
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.problems import wants_problem_json
from fleet_server.models import Scope
from fleet_server.services import rights
from fleet_server.services.rights import Actor, Right

_View = TypeVar("_View", bound=Callable[..., Any])
_ACCESS = "fleet_access"
_WITHOUT_FACTOR = "fleet_without_second_factor"
_METHODS_OF_HTTP = frozenset({"HEAD", "OPTIONS"})
"""Answered by the framework: HEAD as GET, OPTIONS with nothing but names."""


class SecondFactorWanted(Refused):
    """The account has to have a second factor, and has none."""

    code = "second_factor_wanted"


@dataclass(frozen=True)
class Access:
    """`right` None: everybody who is logged in, or everybody at all when `is_open`."""

    right: Right | None = None
    is_open: bool = False


OPEN, LOGGED_IN = Access(is_open=True), Access()
# Views that libraries bring along.
_FOREIGN = {"static": OPEN}


def needs(right: Right) -> Callable[[_View], _View]:
    """For who has this right."""
    return _saying(Access(right))


def for_everybody_logged_in(view: _View) -> _View:
    """For what concerns one's own account."""
    return _saying(LOGGED_IN)(view)


def open_to_all(view: _View) -> _View:
    """For everybody; what is shown may still depend on who asks."""
    return _saying(OPEN)(view)


def even_without_second_factor(view: _View) -> _View:
    """For where somebody sets up the second factor that the account has to have."""
    setattr(view, _WITHOUT_FACTOR, True)
    return view


def access_of(app: Flask, rule: Rule, method: str) -> Access:
    """Raises LookupError when nothing was said about this method of this address."""
    if rule.endpoint in _FOREIGN:
        return _FOREIGN[rule.endpoint]
    view = app.view_functions[rule.endpoint]
    view_class = getattr(view, "view_class", None)
    if view_class is not None:
        name = "get" if method in _METHODS_OF_HTTP else method.lower()
        view = getattr(view_class, name, view)
    access = getattr(view, _ACCESS, None)
    if not isinstance(access, Access):
        raise LookupError(f"{method} {rule.rule} does not say who may call it (http_shared.access)")
    return access


def register_access(app: Flask) -> None:
    """Judge every request; after all views are registered."""
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - _METHODS_OF_HTTP:
            access_of(app, rule, method)
    app.before_request(_judge)
    app.jinja_env.globals["may"] = may


def current_actor() -> Actor | None:
    """Who asks; None without login and key, and for who has to set up a second factor first."""
    return None if _lacks_second_factor() else _logged_in()


def may(right: Right | str) -> bool:
    """Whether who asks has this right: for what a page offers."""
    actor = current_actor()
    return actor is not None and right in actor.rights


def act_if_logged_in() -> bool:
    """For a view that is open to all and shows more to who is logged in; True when somebody is."""
    actor = current_actor()
    if actor is not None:
        rights.act_as(current_session(), actor)
    return actor is not None


def has_to_do_with_all() -> bool:
    """Whether who asks is logged in, with all sites in scope."""
    actor = current_actor()
    return actor is not None and actor.scope is Scope.ALL


def _judge() -> ResponseReturnValue | None:
    if request.url_rule is None or request.method == "OPTIONS":
        return None
    access = access_of(current_app, request.url_rule, request.method)
    if access.is_open:
        return None  # without a look at the database: it may be away
    actor = _logged_in()
    if actor is None:
        refusal: ResponseReturnValue = current_app.login_manager.unauthorized()  # type: ignore[attr-defined] # Flask-Login puts it there
        return refusal
    rights.act_as(current_session(), actor)
    view = current_app.view_functions[request.url_rule.endpoint]
    if _lacks_second_factor() and not hasattr(view, _WITHOUT_FACTOR):
        if wants_problem_json():
            raise SecondFactorWanted("Set up a second factor for your account first.")
        return redirect(url_for("web.second_factor_page"))
    if access.right is not None:
        rights.require(actor, access.right)
    return None


def _logged_in() -> Actor | None:
    actor: Actor | None = getattr(current_user, "actor", None)
    return actor


def _lacks_second_factor() -> bool:
    return bool(getattr(current_user, "lacks_second_factor", False))


def _saying(access: Access) -> Callable[[_View], _View]:
    def mark(view: _View) -> _View:
        setattr(view, _ACCESS, access)
        return view

    return mark

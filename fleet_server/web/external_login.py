"""Logging in at another place (OpenID Connect): there, back, and the code of a second factor where the account here has one.

Between there and back the browser keeps, signed and in its session cookie, what only it may come back with.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import structlog
from flask import current_app, flash, redirect, render_template, request, session, url_for
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from fleet_server import clock
from fleet_server.errors import FleetError, NotFound
from fleet_server.http_shared.access import for_everybody_logged_in, open_to_all
from fleet_server.http_shared.auth import begin_login, current_person, is_logged_in
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.limits import LOGIN_LIMIT, limiter
from fleet_server.models import Scope, User
from fleet_server.services import accounts, external_logins
from fleet_server.settings import Settings
from fleet_server.web import oidc
from fleet_server.web.accounts import safe_target
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words
from fleet_server.web.people_words import fault_words

log = structlog.get_logger(__name__)

_BEGUN, _HALFWAY = "external_login", "external_halfway"
_CODE_PATIENCE = timedelta(minutes=5)


@web.get("/login/external")
@open_to_all
@limiter.limit(LOGIN_LIMIT)
def external_login() -> ResponseReturnValue:
    """To the other place."""
    target = safe_target(request.args.get("next", ""))
    if is_logged_in():
        return redirect(target)
    try:
        return redirect(_begin(target=target, link_to=None))
    except oidc.PlaceAway as problem:
        return _not_in(problem)


@web.get("/login/external/back")
@open_to_all
@limiter.limit(LOGIN_LIMIT)
def external_login_back() -> ResponseReturnValue:
    """From the other place, with its word for who this is."""
    kept: Any = session.pop(_BEGUN, None)  # good once, whatever comes of it
    settings = _settings()
    if not isinstance(kept, dict):
        return _not_in(oidc.NotVouched("this browser began no login"))
    link_to, target = kept.pop("link_to"), kept.pop("target")
    try:
        vouched = oidc.finish(
            settings, oidc.Begun(**kept), request.args, _back(), wall_now=datetime.now(UTC)
        )
        if link_to is not None:
            return _link(vouched, link_to)
        user, wants_code = external_logins.log_in(
            current_session(), vouched, scope=Scope(settings.oidc_scope), now=clock.now()
        )
    except (oidc.NotVouched, oidc.PlaceAway, accounts.LoginRefused) as problem:
        return _not_in(problem)
    if wants_code:
        session[_HALFWAY] = {"user_id": user.id, "target": target, "begun_s": _wall_s()}
        return redirect(url_for("web.external_login_code"))
    return _in(user, target)


@web.route("/login/external/code", methods=["GET", "POST"])
@open_to_all
@limiter.limit(LOGIN_LIMIT, methods=["POST"])
def external_login_code() -> ResponseReturnValue:
    """The second factor of whom the other place has vouched for a moment ago."""
    halfway: Any = session.get(_HALFWAY)
    if halfway is None or _wall_s() - halfway["begun_s"] > _CODE_PATIENCE.total_seconds():
        session.pop(_HALFWAY, None)
        return _not_in(oidc.NotVouched("no login is half done here"))
    if request.method == "GET":
        return render_template("login_code.html", fault="")
    try:
        user = accounts.log_in_by_code(
            current_session(),
            halfway["user_id"],
            request.form.get("code", ""),
            secret_key=_settings().session_key(),
            now=clock.now(),
        )
    except accounts.LoginLocked as problem:
        return render_template("login_code.html", fault=in_words(problem)), 403
    except accounts.LoginRefused:
        return render_template("login_code.html", fault=gettext("This code is not good.")), 403
    return _in(user, halfway["target"])


@web.post("/fleet/account/external-login")
@for_everybody_logged_in
@limiter.limit(LOGIN_LIMIT)
def begin_external_link() -> ResponseReturnValue:
    """Wants the password: who finds a browser open does not make a door of their own. Answers with a link, not a redirect: forms lead to us only."""
    person = current_person()
    try:
        accounts.check_password(
            current_session(), person.id, request.form.get("password", ""), now=clock.now()
        )
        address = _begin(target=url_for("web.account"), link_to=person.id)
    except FleetError as problem:
        return _account_fault(problem)
    return render_template("external_link.html", address=address)


@web.post("/fleet/account/external-login/unlink")
@for_everybody_logged_in
def unlink_external_login() -> ResponseReturnValue:
    user = current_session().get_one(User, current_person().id)
    try:
        external_logins.unlink(current_session(), user, now=clock.now())
    except FleetError as problem:
        return _account_fault(problem)
    flash(gettext("You log in here only now."))
    return redirect(url_for("web.account"), code=303)


def place_name() -> str:
    """What the login page calls the other place; empty when there is none."""
    settings = _settings()
    return settings.oidc_name or urlsplit(settings.oidc_issuer).hostname or ""


def _begin(*, target: str, link_to: int | None) -> str:
    settings = _settings()
    if not settings.oidc_issuer:
        raise NotFound("People log in here only.")
    begun, address = oidc.begin(settings, _back(), wall_now=datetime.now(UTC))
    session[_BEGUN] = {**asdict(begun), "target": target, "link_to": link_to}
    return address


def _link(vouched: external_logins.Vouched, user_id: int) -> ResponseReturnValue:
    if not is_logged_in() or current_person().id != user_id:
        return _not_in(oidc.NotVouched("another account is logged in by now"))
    try:
        external_logins.link(current_session(), user_id, vouched, now=clock.now())
    except external_logins.IdentityTaken as problem:
        flash(fault_words(problem))
    else:
        log.info("login_linked", user_id=user_id)
        flash(gettext("From now on you can log in with %(place)s, too.", place=place_name()))
    return redirect(url_for("web.account"))


def _in(user: User, target: str) -> ResponseReturnValue:
    has_role = bool(user.roles)
    begin_login(user)
    log.info("logged_in", user_id=user.id, external=True)
    if not has_role:
        flash(gettext("You are in, but may do nothing yet: an administrator gives you a role."))
        target = url_for("web.account")
    return redirect(target, code=303)


def _not_in(problem: FleetError) -> ResponseReturnValue:
    """One answer for every attack; what it was is in the log."""
    log.warning(
        "external_login_refused",
        code=problem.code,
        reason=str(problem),
        address=request.remote_addr,
    )
    place = place_name()
    if isinstance(problem, oidc.PlaceAway):
        fault = gettext("%(place)s cannot be asked now; try again later.", place=place)
    elif isinstance(problem, accounts.LoginRefused):
        fault = gettext("Your account is closed; ask an administrator.")
    else:
        fault = gettext("The login with %(place)s did not succeed; try again.", place=place)
    status = 503 if isinstance(problem, oidc.PlaceAway) else 403
    target = safe_target("")
    return render_template("login.html", next=target, name="", fault=fault), status


def _account_fault(problem: FleetError) -> ResponseReturnValue:
    flash(fault_words(problem))
    return redirect(url_for("web.account"), code=303)


def _back() -> str:
    return f"{_settings().public_url}{url_for('web.external_login_back')}"


def _wall_s() -> int:
    return int(datetime.now(UTC).timestamp())


def _settings() -> Settings:
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    return settings


@web.record_once
def _prepare(state: BlueprintSetupState) -> None:
    oidc.roles_by_value(state.app.config["FLEET_SETTINGS"])  # what is wrong stops the start
    state.app.jinja_env.globals["login_place"] = place_name

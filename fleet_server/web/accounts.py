"""Logging in and out."""

from __future__ import annotations

from urllib.parse import urlsplit

import structlog
from flask import current_app, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.http_shared.access import open_to_all
from fleet_server.http_shared.auth import begin_login, end_login, is_logged_in
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.limits import LOGIN_LIMIT, limiter
from fleet_server.services import accounts
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words

log = structlog.get_logger(__name__)


@web.route("/login", methods=["GET", "POST"])
@open_to_all
@limiter.limit(LOGIN_LIMIT, methods=["POST"])
def login() -> str | Response | tuple[str, int]:
    """The form, and who comes back from it with the right password, and code where the account wants one."""
    target = safe_target(request.values.get("next", ""))
    if request.method == "GET":
        if is_logged_in():
            return redirect(target)
        return render_template("login.html", next=target, name="", fault="")
    name = request.form.get("name", "").replace("\0", "")  # PostgreSQL knows no NUL
    try:
        user = accounts.log_in(
            current_session(),
            name,
            request.form.get("password", ""),
            now=clock.now(),
            code=request.form.get("code", ""),
            secret_key=current_app.config["FLEET_SETTINGS"].session_key(),
        )
    except (accounts.LoginRefused, accounts.LoginLocked) as problem:
        log.warning("login_refused", code=problem.code, address=request.remote_addr)
        page = render_template("login.html", next=target, name=name, fault=in_words(problem))
        return page, 403
    begin_login(user)
    log.info("logged_in", user_id=user.id)
    return redirect(target, code=303)


@web.post("/logout")
@open_to_all
def logout() -> Response:
    """Ends the session; a POST, so that no picture on another page can do it."""
    end_login()
    return redirect(url_for("web.public_sites"), code=303)


def safe_target(target: str) -> str:
    """`target` when it is a path of this server, else the nodes' page: never another host."""
    parts = urlsplit(target.replace("\\", "/"))
    is_ours = (
        target.startswith("/")
        and not target.startswith(("//", "/\\"))
        and not parts.scheme
        and not parts.netloc
        and target.isprintable()
    )
    return target if is_ours else url_for("web.nodes")

"""Where somebody asks for a link by mail, and sets a new password with its code, or with one from an administrator.

The code comes in the form's body, never in an address: addresses stand in logs and histories.
"""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from flask import current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import get_locale, gettext

from fleet_server import clock
from fleet_server.errors import Invalid, Refused
from fleet_server.http_shared.access import open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.limits import LOGIN_LIMIT, limiter
from fleet_server.services import accounts, telling
from fleet_server.web.blueprint import web
from fleet_server.web.people_words import fault_words

log = structlog.get_logger(__name__)


@web.route("/reset/ask", methods=["GET", "POST"])
@open_to_all
@limiter.limit(LOGIN_LIMIT, methods=["POST"])
def ask_for_reset() -> ResponseReturnValue:
    """The form, and one answer whatever the name: nobody learns which names exist, or have a mail address."""
    sends_mail = bool(current_app.config["FLEET_SETTINGS"].smtp_url)
    if request.method == "GET" or not sends_mail:
        return render_template("reset_ask.html", sends_mail=sends_mail, is_asked=False)
    telling.ask_for_reset(
        current_session(),
        request.form.get("name", "").replace("\0", "")[: accounts.NAME_MAX_LENGTH],
        language=str(get_locale()),
        now=clock.now(),
        wall_now=datetime.now(UTC),
    )
    log.info("reset_asked_for", address=request.remote_addr)
    return render_template("reset_ask.html", sends_mail=True, is_asked=True)


@web.route("/reset", methods=["GET", "POST"])
@open_to_all
@limiter.limit(LOGIN_LIMIT, methods=["POST"])
def reset() -> ResponseReturnValue:
    """The form, and who comes back from it with a good code."""
    if request.method == "GET":
        return render_template("reset.html", fault="")
    new = request.form.get("new", "")
    if new != request.form.get("again", ""):
        return render_template("reset.html", fault=gettext("The two new passwords differ.")), 400
    code = request.form.get("code", "").strip().rpartition("#")[2]
    try:
        user = accounts.finish_reset(current_session(), code, new, now=clock.now())
    except (Refused, Invalid) as problem:
        log.warning("reset_refused", code=problem.code, address=request.remote_addr)
        status = 403 if isinstance(problem, Refused) else 400
        return render_template("reset.html", fault=fault_words(problem)), status
    log.info("password_reset", user_id=user.id)
    flash(gettext("The new password is set; log in with it."))
    return redirect(url_for("web.login"), code=303)

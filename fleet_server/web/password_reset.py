"""Where somebody sets a new password with a code from an administrator.

The code comes in the form's body, never in an address: addresses stand in logs and histories.
"""

from __future__ import annotations

import structlog
from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from fleet_server import clock
from fleet_server.errors import Invalid, Refused
from fleet_server.http_shared.access import open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.limits import LOGIN_LIMIT, limiter
from fleet_server.services import accounts
from fleet_server.web.blueprint import web
from fleet_server.web.people_words import fault_words

log = structlog.get_logger(__name__)


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

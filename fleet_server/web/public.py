"""What everyone may see: all public sites with their latest state."""

from __future__ import annotations

from flask import current_app, render_template
from flask_babel import gettext

from fleet_server.http_shared.access import act_if_logged_in, open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.services import overviews
from fleet_server.web.blueprint import web


@web.get("/")
@open_to_all
def public_sites() -> str:
    """Every public site with value ± U, flag and time; in the demo, and for who is logged in, all sites."""
    shows_more = act_if_logged_in() or current_app.config["ALL_SITES_PUBLIC"]
    shown = overviews.Shown.BOTH if shows_more else overviews.Shown.PUBLIC
    sites = overviews.site_overviews(current_session(), shown=shown)
    groups = [
        {"word": word, "sites": [site for site in sites if site.kind == kind]}
        for kind, word in (("water", gettext("Waters")), ("tree", gettext("Trees")))
    ]
    return render_template("public_sites.html", groups=groups, housekeeping=overviews.HOUSEKEEPING)

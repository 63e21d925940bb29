"""The operator's list of sites."""

from __future__ import annotations

from flask import render_template

from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import overviews
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web


@web.get("/fleet/sites")
@needs(Right.SEE_FLEET)
def sites() -> str:
    """Every site with its nodes and the number of its datastreams."""
    found = overviews.site_overviews(current_session(), shown=overviews.Shown.OWN)
    return render_template("sites.html", sites=found, sensorthings="/v1.1")

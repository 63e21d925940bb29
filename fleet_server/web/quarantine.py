"""What could not be stored, and what the broker did not even let in, each with its reason."""

from __future__ import annotations

from flask import current_app, render_template, request

from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import cut_page
from fleet_server.services import overviews
from fleet_server.services.broker_status import read_status
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web

_PAGE_SIZE = 50
_MAX_ID_DIGITS = 15


@web.get("/fleet/quarantine")
@needs(Right.SEE_FLEET)
def quarantine() -> str:
    """Newest first; `?before=<id>` goes on to older ones."""
    before = request.args.get("before", "")
    if before and not (before.isdecimal() and before.isascii() and len(before) <= _MAX_ID_DIGITS):
        raise Invalid("before wants the number of a quarantine entry.")
    found = overviews.quarantine_entries(
        current_session(), before_id=int(before) if before else None, limit=_PAGE_SIZE + 1
    )
    page = cut_page(found, size=_PAGE_SIZE)
    older = page.items[-1].id if page.has_more else None
    broker = read_status(current_app.config["FLEET_SETTINGS"].broker_status_path)
    return render_template("quarantine.html", entries=page.items, before=older, broker=broker)

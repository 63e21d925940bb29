"""What everyone may see: public sites with their latest state, and where they are."""

from __future__ import annotations

from dataclasses import replace

from flask import current_app, render_template, request, url_for
from flask_babel import gettext

from fleet_server import clock
from fleet_server.http_shared.access import act_if_logged_in, open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.services import overviews, site_list, site_map
from fleet_server.services.overviews import Shown
from fleet_server.services.sites import SiteState
from fleet_server.web import drawn_map
from fleet_server.web.blueprint import web
from fleet_server.web.sites import EMPTY_MAP, read_address

_PAGE_SIZE = 60
_SORTING = "code"


@web.get("/")
@open_to_all
def public_sites() -> str:
    """Every public site with value ± U, flag and time; in the demo, and for who is logged in, all sites. In pages by code."""
    shows_more = act_if_logged_in() or current_app.config["ALL_SITES_PUBLIC"]
    shown = Shown.BOTH if shows_more else Shown.PUBLIC
    session, address = current_session(), read_address()
    state = address.state or SiteState.OPEN  # what is closed tells nothing of right now
    after = request.args.get("after")
    page = site_list.site_page(
        session,
        limit=_PAGE_SIZE,
        after=from_cursor(after, sorting=_SORTING) if after else None,
        kind=address.kind,
        text=address.text,
        state=state,
        box=address.box,
        shown=shown,
    )
    sites = overviews.describe_sites(session, page.items)
    sites.sort(key=lambda site: (site.name, site.id))
    groups = [
        {"word": word, "sites": [site for site in sites if site.kind == kind]}
        for kind, word in (("water", gettext("Waters")), ("tree", gettext("Trees")))
    ]
    wanted = replace(address.filter, state=state)
    found = EMPTY_MAP  # it stands on the first page
    if not after:
        found = site_map.site_map(session, wanted, shown=shown, now=clock.now())
    following = as_cursor(page.next_key, sorting=_SORTING) if page.next_key else None
    here = {site.id for site in sites}
    addresses = drawn_map.Addresses(
        of_site=lambda point: (
            f"#site-{point.site_id}"
            if point.site_id in here
            else url_for("web.public_sites", text=point.code)
        ),
        of_box=lambda box: url_for(
            "web.public_sites", **{**address.query, "box": drawn_map.box_text(box)}
        ),
    )
    return render_template(
        "public_sites.html",
        groups=groups,
        drawn=drawn_map.draw_map(found, addresses),
        address=address,
        next=url_for("web.public_sites", **address.query, after=following) if following else None,
        housekeeping=overviews.HOUSEKEEPING,
    )

"""Pages of the offices: what is to be done today, and why. Decisions come from `services/city_states.py`."""

from __future__ import annotations

from datetime import timedelta

from flask import render_template, request, url_for

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.services import city_states, city_words
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web
from fleet_server.web.city_words import PAGES

_PAGE_SIZE = 100
_PRINTED = 2000
_SORTING = "state"
STALE = timedelta(minutes=15)
"""A worker looks every minute; after that long what stands here may be over."""


@web.get("/city/trees")
@needs(Right.SEE_FLEET)
def city_trees() -> str:
    """Trees by how much they need water: the driest first, unknown named."""
    return _page("trees", "web.city_trees")


@web.get("/city/waters")
@needs(Right.SEE_FLEET)
def city_waters() -> str:
    """Waters by how they stand: the worst first, unknown named."""
    return _page("waters", "web.city_waters")


def _page(kind: str, endpoint: str) -> str:
    session, page, now = current_session(), PAGES[kind], clock.now()
    state = request.args.get("state") or None
    if state is not None and state not in page.states:
        raise Invalid(
            "%(name)s wants one of %(allowed)s.", name="state", allowed=", ".join(page.states)
        )
    is_printed, after = request.args.get("view") == "print", request.args.get("after")
    counts = city_states.counts_of(session, kind)
    found = city_states.states_of(
        session,
        kind,
        limit=_PRINTED if is_printed else _PAGE_SIZE,
        after=from_cursor(after, sorting=_SORTING) if after else None,
        state=state,
    )
    following = as_cursor(found.next_key, sorting=_SORTING) if found.next_key else None
    looked_at = city_states.last_look(session, kind)
    return render_template(
        "city_print.html" if is_printed else "city.html",
        page=page,
        kind=kind,
        endpoint=endpoint,
        state=state,
        counts={name: counts.get(name, 0) for name in page.states},
        found=found.items,
        said=city_words.said,
        now=now,
        looked_at=looked_at,
        is_stale=looked_at is not None and now - looked_at > STALE,
        next=url_for(endpoint, state=state, after=following) if following else None,
        print_address=url_for(endpoint, state=state, view="print"),
    )

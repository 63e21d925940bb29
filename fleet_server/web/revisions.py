"""Revisions as pages: the list, one of them watched live, and all versions of one observation."""

from __future__ import annotations

from typing import Any

from flask import Response, render_template, request

from fleet_server import clock
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.services import revision_list, version_history
from fleet_server.services.keyset import Page
from fleet_server.services.rights import Right
from fleet_server.web import live
from fleet_server.web.blueprint import web

_REVISIONS, _STREAMS = 50, 50


@web.get("/fleet/revisions")
@needs(Right.SEE_FLEET)
def revisions() -> str:
    """All revisions, newest first."""
    page = revision_list.revision_page(current_session(), limit=_REVISIONS, after=_after())
    return render_template("revisions.html", lines=page.items, following=_following(page))


@web.get("/fleet/revisions/<row_id:revision_id>")
@needs(Right.SEE_FLEET)
def revision(revision_id: int) -> str:
    """One revision: why, by whom, how far, and what it changed in which data stream."""
    session = current_session()
    line = revision_list.revision_of(session, revision_id)
    page = revision_list.stream_page(session, revision_id, limit=_STREAMS, after=_after())
    return render_template(
        "revision.html",
        line=line,
        streams=page.items,
        following=_following(page),
        looks_again_s=live.LOOKS_AGAIN_S,
        now=clock.now(),
    )


@web.get("/fleet/revisions/<row_id:revision_id>/live")
@needs(Right.SEE_FLEET)
def watch_revision(revision_id: int) -> Response:
    """Server-sent events: how far it is as a piece of its page, whenever that has changed; then the stream ends."""
    revision_list.revision_of(current_session(), revision_id)  # it is there, and the actor's to see

    def look() -> tuple[str, bool]:
        line = revision_list.revision_of(current_session(), revision_id)
        return render_template("revision_live.html", line=line), not line.is_done

    return live.watched(look)


@web.get("/fleet/observations/<observation_id:observation_id>")
@needs(Right.SEE_FLEET)
def observation(observation_id: int) -> str:
    """All versions of one observation: since and until when each was known, what made it, who changed it and why."""
    found = version_history.history_of(current_session(), observation_id)
    return render_template("observation.html", found=found)


def _after() -> Any:
    text = request.args.get("after", "")
    return from_cursor(text, sorting="") if text else None


def _following(page: Page[Any]) -> str | None:
    return None if page.next_key is None else as_cursor(page.next_key, sorting="")

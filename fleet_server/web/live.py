"""Pages that are watched live: a piece of a page is sent as a server-sent event whenever it has changed, until it is over.

Where no stream comes through, `static/live.js` has the page loaded again; without a script the page does that itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, current_app, request

from fleet_server.errors import Unavailable
from fleet_server.http_shared.database import current_session
from fleet_server.services import rights
from fleet_server.services.rights import Actor

LOOKS_AGAIN_S = 30
"""After so many seconds a page is loaded again that no stream comes through to."""
_LOOKS_EVERY_S = 2.0
# A stream ends by itself and is asked for again: what was given up on never holds a thread for long.
_STREAM_S = 60.0
_MOST_STREAMS = 4
_streams = threading.BoundedSemaphore(_MOST_STREAMS)

Look = Callable[[], tuple[str, bool]]
"""Draws the piece of the page, and says whether it can change yet; by the session of a request."""


class TooManyWatch(Unavailable):
    """So many pages are watched live already; this one falls back to being loaded again."""

    code = "too_many_watch"


def watched(look: Look) -> Response:
    """The stream of what `look` draws. The caller has looked whether it is there, and the actor's to see."""
    session, app = current_session(), current_app._get_current_object()  # type: ignore[attr-defined] # of the proxy
    if not _streams.acquire(blocking=False):
        raise TooManyWatch("So many pages are watched live already; load the page again.")
    answer = Response(
        _told(app, request.environ, rights.actor_of(session), look),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
    answer.call_on_close(_streams.release)
    return answer


def _told(app: Flask, environment: dict[str, Any], actor: Actor, look: Look) -> Iterator[str]:
    """No request's context, and no connection to the database, is held while nothing is asked."""
    ends_at, last = time.monotonic() + _STREAM_S, ""
    while time.monotonic() < ends_at:
        with app.request_context(environment):
            rights.act_as(current_session(), actor)
            piece, is_live = look()
        # Whoever has gone is noticed by what is sent even when nothing has changed.
        yield _event("standing", piece) if piece != last else ": still here\n\n"
        last = piece
        if not is_live:
            yield _event("ended", "")
            return
        time.sleep(_LOOKS_EVERY_S)


def _event(name: str, data: str) -> str:
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"event: {name}\n{lines}\n"

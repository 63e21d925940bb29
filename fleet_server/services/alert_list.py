"""Alerts in pages, newest first. Reads only."""

from __future__ import annotations

from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.services import alerting, keyset
from fleet_server.services.alerting import AlertOverview, Wanted


def alert_page(
    session: Session, wanted: Wanted, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[AlertOverview]:
    """Those that the actor has to do with. One statement.

    Raises:
        KeyWrong: `after` is a key of another list.
    """
    keyset.check_key(after, (int,))
    before_id = None if after is None else int(after[0])
    found = alerting.alerts(session, wanted, limit=limit + 1, before_id=before_id)
    shown = found[:limit]
    return keyset.Page(shown, (shown[-1].id,) if len(found) > limit else None)


def alert(session: Session, alert_id: int) -> AlertOverview:
    """Raises NotFound when there is none, or the actor has nothing to do with it."""
    found = alerting.alerts(session, Wanted(is_open=None), limit=1, ids=[alert_id])
    if not found:
        raise NotFound("There is no alert %(alert_id)s.", alert_id=alert_id)
    return found[0]

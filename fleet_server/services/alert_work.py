"""Work that alerts call for: which kind of work, until when, and one order of each alert's cause."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from fleet_server.errors import Invalid
from fleet_server.models import AlertKind, Severity, WorkKind, WorkOrder
from fleet_server.services import alert_list, alert_words, working
from fleet_server.services.working import WorkWanted

KINDS: Mapping[AlertKind, WorkKind] = {
    AlertKind.OFFLINE: WorkKind.LOOK,
    AlertKind.BATTERY: WorkKind.BATTERY,
    AlertKind.CLOCK_DRIFT: WorkKind.LOOK,
    AlertKind.SPOOL_GROWING: WorkKind.LOOK,
    AlertKind.REBOOT_LOOP: WorkKind.LOOK,
    AlertKind.SENSOR: WorkKind.LOOK,
    AlertKind.RADIO: WorkKind.LOOK,
}
"""What somebody goes there for; what is not here is mended from the office, or waits."""
DUE_AFTER: Mapping[Severity, timedelta] = {
    Severity.URGENT: timedelta(days=1),
    Severity.WARNING: timedelta(days=7),
    Severity.NOTICE: timedelta(days=30),
}


class NoWorkThere(Invalid):
    """Nobody has to go anywhere for this alert."""

    code = "no_work_there"


def order_for_alert(
    session: Session, alert_id: int, *, now: datetime, language: str = "en"
) -> WorkOrder:
    """Order the work; while it is not finished, the same order again. Committed on return.

    Raises:
        NotFound: there is no such alert for the actor.
        NoWorkThere: it is over, or of a kind that nobody goes anywhere for.
    """
    alert = alert_list.alert(session, alert_id)
    if alert.closed_at is not None or alert.kind not in KINDS:
        raise NoWorkThere(
            "Alert %(alert_id)s is over, or nothing that somebody goes there for.",
            alert_id=alert_id,
        )
    sentence = alert_words.sentence(alert.kind, alert.details, language)
    return working.order_work(
        session,
        WorkWanted(
            KINDS[alert.kind],
            now + DUE_AFTER[alert.severity],
            node_id=alert.node_id,
            summary=f"{alert_words.kind_word(alert.kind, language)}: {sentence}",
            cause=f"alert {alert.kind} {alert.subject}",
        ),
        now=now,
    )

"""Jobs that watch the fleet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from fleet_server.services import alerting, health, telling, trends
from fleet_server.settings import Settings

# A worker that was away shorter than this loses nothing of a node's day.
_NOTED_SINCE = timedelta(hours=2)


def look_quickly(session: Session, _settings: Settings, now: datetime) -> None:
    """Who is late, silent or back."""
    alerting.look(session, now=now, wall_now=datetime.now(UTC), is_quick=True)


def look_closely(session: Session, _settings: Settings, now: datetime) -> None:
    """Everything else that is wrong with nodes, after what they said was put to their days and schedules."""
    health.follow_configuration(session)
    trends.note_day(session, now=now, since=now - _NOTED_SINCE)
    alerting.look(session, now=now, wall_now=datetime.now(UTC))


def make_trends(session: Session, _settings: Settings, now: datetime) -> None:
    """How long batteries last and whether radios get worse; and old messages forgotten."""
    trends.make_trends(session, now=now)
    telling.forget_old(session, wall_now=datetime.now(UTC))

"""Values are judged among others once those are there."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server.services import judging
from fleet_server.settings import Settings


def judge_values(session: Session, _settings: Settings, now: datetime) -> None:
    """A bounded number of datastreams; the next run goes on with the others."""
    judging.judge_due(session, now=now)

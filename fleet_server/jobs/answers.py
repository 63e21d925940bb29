"""Answers that are kept for requests that may be sent again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server.services import repeating
from fleet_server.settings import Settings


def forget_old_answers(session: Session, _settings: Settings, now: datetime) -> None:
    """After a day nobody can ask for them again."""
    repeating.forget_old(session, now=now)

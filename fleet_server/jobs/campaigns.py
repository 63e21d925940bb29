"""Campaigns go on: what nodes told is read, waves open, nodes are offered what they shall run."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server.services import campaign_steps
from fleet_server.settings import Settings


def advance_campaigns(session: Session, _settings: Settings, now: datetime) -> None:
    """Everything that can go on now. Safe to repeat, in any number of processes."""
    while campaign_steps.advance_all(session, now=now):
        pass

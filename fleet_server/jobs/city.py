"""What the city decides, made anew from what came in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server.services import city_states
from fleet_server.settings import Settings


def decide_states(session: Session, _settings: Settings, now: datetime) -> None:
    """A bounded number of sites, those first that wait longest; the next run goes on with the others."""
    city_states.evaluate_due(session, now=now)

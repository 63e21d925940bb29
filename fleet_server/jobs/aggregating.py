"""Means of hours and days are made once their values are judged."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server.services import aggregating
from fleet_server.settings import Settings


def make_aggregates(session: Session, _settings: Settings, now: datetime) -> None:
    """A bounded number of datastreams; the next run goes on with the others."""
    aggregating.aggregate_due(session, now=now)

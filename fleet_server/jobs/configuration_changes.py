"""Configuration changes go on: waves are told, watched and opened; groups follow their rules."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server.services import grouping, staging
from fleet_server.settings import Settings


def advance_changes(session: Session, _settings: Settings, now: datetime) -> None:
    """Go on with every change under way. Safe to repeat, in any number of processes."""
    staging.advance_all(session, now=now)


def follow_group_rules(session: Session, _settings: Settings, now: datetime) -> None:
    """Nodes join and leave the groups whose rules find them, and are told what follows."""
    grouping.follow_rules(session, now=now)

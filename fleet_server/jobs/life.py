"""Jobs about a node's life."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server.services import node_life
from fleet_server.settings import Settings


def note_first_contacts(session: Session, _settings: Settings, now: datetime) -> None:
    """Nodes that were heard since they got their identity are enrolled now."""
    node_life.note_first_contacts(session, now=now)

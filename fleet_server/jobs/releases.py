"""What nodes are told of releases is kept from running out."""

from __future__ import annotations

from datetime import datetime

import structlog
from sqlalchemy.orm import Session

from fleet_server.errors import FleetError
from fleet_server.services import release_repository
from fleet_server.settings import Settings

log = structlog.get_logger(__name__)


def keep_metadata_fresh(session: Session, settings: Settings, now: datetime) -> None:
    """Sign the timestamp anew each day, and the snapshot before it runs out. Nothing where there are no releases.

    Raises:
        FleetError: it could not be signed; in seven days at the latest nodes take no update.
    """
    try:
        signed = release_repository.keep_fresh(session, settings.release_keys_dir, now=now)
    except FleetError as problem:
        log.error("release_metadata_not_signed", reason=str(problem))
        raise
    if signed:
        log.info("release_metadata_signed", roles=signed)

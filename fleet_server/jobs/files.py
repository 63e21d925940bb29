"""Files that nobody needs any more."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from sqlalchemy.orm import Session

from fleet_server.services import releasing, site_importing
from fleet_server.services.file_store import open_store
from fleet_server.settings import Settings

log = structlog.get_logger(__name__)


def forget_previews(_session: Session, settings: Settings, _now: datetime) -> None:
    """Files of sites that somebody looked at and did not import. Files carry the wall's time, whatever the fleet's clock says."""
    store = open_store(settings.files_url)
    count = site_importing.forget_previews(store=store, wall_now=datetime.now(UTC))
    if count:
        log.info("previews_forgotten", files=count)


def forget_release_files(session: Session, settings: Settings, now: datetime) -> None:
    """Files that were sent for a release that was then never published, and those of releases that were withdrawn long ago."""
    store = open_store(settings.files_url)
    count = releasing.forget_files(session, store, now=now, wall_now=datetime.now(UTC))
    if count:
        log.info("release_files_forgotten", files=count)

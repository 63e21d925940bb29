"""Values are made anew after a calibration, a rule or the software changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from fleet_server.services import backups, revising
from fleet_server.services.file_store import folder_of
from fleet_server.settings import Settings

log = structlog.get_logger(__name__)

_KEPT = 3
# Together well within the time after which a job is taken for dead.
_TURNS, _STREAMS_A_TURN = 20, 10
# Revisions come several at a time: an afternoon's twenty probes need one backup.
_SERVES = timedelta(hours=1)


def work_off_revisions(session: Session, settings: Settings, now: datetime) -> None:
    """Everything that is ordered. Safe to repeat; a second worker takes the next datastream.

    Raises:
        FleetError: a backup could not be made; it is tried again with the next run.
    """
    if not revising.has_work(session):
        session.rollback()
        return
    engine = session.get_bind()
    assert isinstance(engine, Engine)  # noqa: S101 - sessions of the worker are bound to its engine
    for _ in range(_TURNS):
        if not revising.advance(
            session,
            now=now,
            make_backup=lambda: backup_before(engine, settings),
            streams_at_once=_STREAMS_A_TURN,
        ):
            log.info("revisions_done")
            return


def backup_before(engine: Engine, settings: Settings) -> str | None:
    """Make the backup that precedes a revision, unless there is one of the last hour; where it is, None where none is wanted.

    Raises:
        FleetError: it could not be made.
    """
    into = settings.revision_backups_dir
    if into is None:
        return None
    wall_now = datetime.now(UTC)  # whatever the fleet's clock says: files carry the wall's
    recent = backups.newest(into)
    if recent is not None and wall_now - recent[1] < _SERVES:
        return str(recent[0])
    made = backups.back_up(
        engine,
        settings.data_dir,
        into,
        now=wall_now,
        files_dir=folder_of(settings.files_url),
    )
    backups.prune(into, keep=_KEPT)
    return str(made.folder)

"""`fleet db`: make the tables, bring them to this version, check that the database keeps what it confirms; backup and restore."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from fleet_server import clock
from fleet_server import db as database
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import refuse_missing, settings_of
from fleet_server.errors import Conflict, FleetError, Unavailable
from fleet_server.models import Base
from fleet_server.services import backups, keys, scheduling
from fleet_server.services.file_store import folder_of
from fleet_server.settings import Settings

_url_option = click.option("--database-url", help="sqlite:///… or postgresql+psycopg://…")


@click.group()
def db() -> None:
    """The database.

    Example: fleet db upgrade --data .fleet
    """


@db.command()
@data_option
@_url_option
@json_option
def upgrade(*, data_dir: str | None, database_url: str | None, as_json: bool) -> None:
    """Bring the tables to this version. Safe to repeat.

    Example: fleet db upgrade --database-url postgresql+psycopg://fleet@localhost/fleet
    """
    with _engine(data_dir, database_url) as engine:
        before = database.schema_revision(engine)
        database.upgrade(engine)
        after = database.schema_revision(engine)
    sentence = (
        "The tables were up to date." if before == after else f"The tables are at {after} now."
    )
    answer({"before": before, "after": after}, sentence, as_json=as_json)


@db.command()
@click.option(
    "--backup",
    "backup_dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Check this backup instead: every file of it, and that its database can be read.",
)
@data_option
@_url_option
@json_option
def check(
    *, backup_dir: Path | None, data_dir: str | None, database_url: str | None, as_json: bool
) -> None:
    """Check that the tables are of this version and that a commit survives power loss.

    Example: fleet db check --data .fleet --json
    """
    if backup_dir is not None:
        found = backups.check_backup(backup_dir)
        answer(_told(found), f"The backup is whole. {_summary(found)}", as_json=as_json)
        return
    refuse_missing(settings_of(data_dir, database_url))
    with _engine(data_dir, database_url) as engine:
        database.check_durability(engine)
        database.check_schema(engine)
        database.check_columns(engine, Base.metadata)
        revision = database.schema_revision(engine)
    answer(
        {"revision": revision, "durable": True},
        f"The tables are at {revision}; what is confirmed survives power loss.",
        as_json=as_json,
    )


@db.command()
@click.argument("into", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--keep",
    type=click.IntRange(1, 10_000),
    help="Remove older backups below INTO, all but the newest so many; never the one just made.",
)
@data_option
@_url_option
@json_option
def backup(
    *,
    into: Path,
    keep: int | None,
    data_dir: str | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Back up database, files, authority and secret key into a new folder below INTO. The server goes on meanwhile.

    The folder holds keys: keep it as secret as the server, and on another machine.

    Example: fleet db backup /var/backups/stadtsensor --keep 14
    """
    settings = settings_of(data_dir, database_url)
    refuse_missing(settings)
    with _engine(data_dir, database_url) as engine, _busy("Backing up"), _noted(engine):
        made = backups.back_up(
            engine,
            settings.data_dir,
            into,
            now=datetime.now(UTC),
            files_dir=folder_of(settings.files_url),
        )
    removed = [] if keep is None else backups.prune(into, keep=keep)
    elsewhere = _kept_elsewhere(settings)
    lacks = "".join(f" Not in it, keep it yourself: {what}." for what in elsewhere)
    answer(
        {
            **_told(made),
            "removed": [str(path) for path in removed],
            "kept_elsewhere": elsewhere,
        },
        f"{_summary(made)} It is in {made.folder}.{lacks}",
        as_json=as_json,
    )


@contextmanager
def _noted(engine: Engine) -> Iterator[None]:
    """Whether it went well is known to whoever watches the fleet: a backup that fails or stays out is an alert."""

    def note(error: str | None) -> None:
        # What became of the backup is what the person reads; what could not be noted calls as a backup that stays out.
        with suppress(DBAPIError, FleetError), database.session_factory(engine)() as session:
            scheduling.note_backup(session, wall_now=datetime.now(UTC), error=error)

    try:
        yield
    except (Conflict, Unavailable) as problem:
        note(str(problem))
        raise
    note(None)


@db.command()
@click.argument("backup_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--replace",
    "replaces",
    is_flag=True,
    help="What is there makes way: it is moved aside, PostgreSQL's tables into a schema of their own.",
)
@data_option
@_url_option
@json_option
def restore(
    *,
    backup_dir: Path,
    replaces: bool,
    data_dir: str | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Put a backup in place, and ask every node to send again what came after it. End all services first.

    Nobody stays logged in, and keys wait for a word: what was ended or revoked after the backup must not be good again.

    Example: fleet db restore /var/backups/stadtsensor/2026-07-01T02-00-00Z --data /var/lib/stadtsensor --replace
    """
    found = backups.check_backup(backup_dir)
    settings = settings_of(data_dir, database_url)
    clock.use_clock(settings.clock)
    with _busy("Restoring"):
        aside = backups.restore(
            found,
            settings.database_url,
            settings.data_dir,
            replaces=replaces,
            now=clock.now(),
            files_dir=folder_of(settings.files_url),
        )
        with (
            _engine(data_dir, database_url) as engine,
            database.session_factory(engine)() as session,
        ):
            held = [f"{key.id} of {key.user.name}" for key in keys.held_keys(session)]
    moved = f" Moved aside: {', '.join(str(path) for path in aside)}." if aside else ""
    answer(
        {**_told(found), "moved_aside": [str(path) for path in aside], "keys_held": held},
        f"Restored. {_summary(found)}{moved} Start the services: the nodes are asked for what came after that.\n"
        "Everybody logs in again; enrolment tokens are revoked; look through `fleet user list` for accounts that were closed or changed since."
        f"{_about_held(held)}",
        as_json=as_json,
    )


def _kept_elsewhere(settings: Settings) -> list[str]:
    """What a restore needs and a backup does not hold."""
    found = []
    if folder_of(settings.files_url) is None:
        found.append(f"the files at {settings.files_url}")
    if settings.secret_key:
        found.append("the secret key in FLEET_SECRET_KEY")
    return found


def _about_held(held: list[str]) -> str:
    if not held:
        return ""
    return f"\nKeys that wait until `fleet user key confirm NUMBER`, or their owners, say that they were not revoked since: {', '.join(held)}."


def _told(found: backups.Backup) -> dict[str, object]:
    return {
        "backup": str(found.folder),
        "made_at": found.made_at.isoformat(),
        "backend": found.backend,
        "revision": found.revision,
        "rows": dict(found.rows),
        "files": len(found.files),
    }


def _summary(found: backups.Backup) -> str:
    rows = ", ".join(f"{count} in {name}" for name, count in found.rows.items())
    return f"Backup of {found.made_at:%Y-%m-%d %H:%M:%S}Z at {found.revision}: {rows}; {len(found.files)} files."


@contextmanager
def _busy(what: str) -> Iterator[None]:
    """A sign of life on a terminal's stderr, nothing elsewhere: how long it takes is not known."""
    with Progress(
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        bar.add_task(what, total=None)
        yield


@contextmanager
def _engine(data_dir: str | None, database_url: str | None) -> Iterator[Engine]:
    settings = settings_of(data_dir, database_url)
    engine = database.make_engine(settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()

"""A command's database: a connection of its own, all closed when it is done; and waiting for one that is away."""

from __future__ import annotations

import getpass
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from fleet_server import clock, db
from fleet_server.errors import NotFound
from fleet_server.services import key_files, rights
from fleet_server.services.rights import Right
from fleet_server.settings import CONFIG_VARIABLE, Settings, load_settings

log = structlog.get_logger(__name__)

FIRST_BACK_OFF_S, LAST_BACK_OFF_S = 0.2, 5.0
# What a demo writes into its folder, so that other commands know its database and its clock.
_DEMO_CONFIGURATION = "fleet.toml"


@contextmanager
def open_session(data_dir: str | None) -> Iterator[Session]:
    """A session on the server's database, and the server's clock for this process.

    Raises:
        NotFound: there is no database; none is made.
        SchemaOutdated: the tables are not those of this version.
        Unavailable: the database cannot be reached.
    """
    settings = settings_of(data_dir)
    refuse_missing(settings)
    clock.use_clock(settings.clock)
    key_files.unlock_with(settings.ca_key_passphrase)
    engine = db.make_engine(settings.database_url)
    try:
        db.check_schema(engine)
        with db.session_factory(engine)() as session:
            rights.act_as(session, rights.Actor(f"console {_console_user()}", frozenset(Right)))
            yield session
    finally:
        engine.dispose()


def _console_user() -> str:
    """Who gave the command, as the machine knows them: whoever has the server's files and database may do everything."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a process whose user has no name
        return "unknown"


def settings_of(data_dir: str | Path | None, database_url: str | None = None) -> Settings:
    """Settings of a named folder: those that a demo wrote there, else those of a server that keeps its data there."""
    if data_dir is not None:
        configuration = Path(data_dir) / _DEMO_CONFIGURATION
        if configuration.exists():
            return load_settings({CONFIG_VARIABLE: str(configuration)}, database_url=database_url)
    return load_settings(data_dir=data_dir, database_url=database_url)


def refuse_missing(settings: Settings) -> None:
    """Raises NotFound where SQLite would make an empty database: a command that only looks must not leave one behind."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise NotFound(
            f"There is no database {url.database}: name the server's folder with --data, "
            "or make a new one with `fleet db upgrade`."
        )


def wait_for_database(
    engine: Engine, stop: threading.Event, *, check: Callable[[Engine], None]
) -> bool:
    """Wait until `check` passes, as long as the database does not answer; False when `stop` is set first.

    A file of SQLite's is not waited for: it is on this machine, and what is no database does not become one.

    Raises:
        FleetError: what `check` has against a database that does answer.
    """
    back_off_s = FIRST_BACK_OFF_S
    while not stop.is_set():
        try:
            check(engine)
        except (db.DatabaseAway, OperationalError, InterfaceError) as problem:
            if engine.dialect.name == "sqlite":
                raise
            reason = str(problem).splitlines()[0]
            log.warning("start_waits_for_database", reason=reason, seconds=back_off_s)
        else:
            return True
        stop.wait(back_off_s)
        back_off_s = min(back_off_s * 2, LAST_BACK_OFF_S)
    return False

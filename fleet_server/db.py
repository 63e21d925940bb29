"""The database connection: engines, sessions, writing transactions, durability, migrations.

Reading needs nothing special. Everything that writes does so inside `writing(…)`: SQLite must know at BEGIN (an upgrade from
read to write fails at once, whatever the time-out), and a receipt must survive power loss, not only kill -9.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker

from fleet_server.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

_WRITING = "fleet_writing"
_PAGE_BYTES = 8192  # SQLite: 8 KiB pages, measured best for rows clustered by (datastream, time)
# A writer on SQLite waits for the one before it; batches take well under a second.
_BUSY_TIMEOUT_MS = 30_000
_CONNECT_TIMEOUT_S = 10
# SQLite tells these in words only.
_SQLITE_LACKS = re.compile(r"no such (column|table)|has no column named")
_POSTGRESQL_LACKS = ("42703", "42P01")  # undefined_column, undefined_table
# insufficient_privilege, duplicate_table, read_only_sql_transaction
_POSTGRESQL_CROSSED = frozenset({"23505", "40001", "40P01"})
"""unique_violation, serialization_failure, deadlock_detected (PostgreSQL 15, appendix A)."""
_POSTGRESQL_UNFIT = ("42501", "42P07", "25006")
# A damaged file comes as the bare base class.
_SQLITE_UNFIT = (sqlite3.DatabaseError, sqlite3.OperationalError)
_MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION_TABLE = "alembic_version"


class NotDurable(Unavailable):
    """The database might lose what it has confirmed."""

    code = "database_not_durable"


class DatabaseAway(Unavailable):
    """The database does not answer; it may be there later."""

    code = "database_away"


class SchemaOutdated(Unavailable):
    """The database's tables are not those of this version."""

    code = "schema_outdated"


def make_engine(database_url: str) -> Engine:
    """An engine for SQLite or PostgreSQL whose every commit is on disk when it returns. Makes SQLite's folder."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return _make_sqlite_engine(database_url)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return create_engine(
        url,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "options": "-c synchronous_commit=on -c timezone=UTC",
        },
    )


def _make_sqlite_engine(database_url: str) -> Engine:
    file = make_url(database_url).database
    if file:
        _make_folder(Path(file).parent)
    engine = create_engine(database_url)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        cursor.execute(
            f"PRAGMA page_size = {_PAGE_BYTES}"
        )  # heeded only by a file that is still empty
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        is_writing = connection.get_execution_options().get(_WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    return engine


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            "The folder %(folder)s cannot be made: %(problem)s.",
            folder=folder,
            problem=error.strerror,
        ) from error


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after a commit, and which refuse to write outside `writing`."""
    sessions = sessionmaker(engine, expire_on_commit=False)
    event.listen(sessions, "before_flush", _refuse_flush_while_reading)
    event.listen(sessions, "do_orm_execute", _refuse_change_while_reading)
    return sessions


def _refuse_flush_while_reading(session: Session, *_: object) -> None:
    if (session.new or session.dirty or session.deleted) and not session.info.get(_WRITING):
        raise RuntimeError("a session writes only inside db.writing(session)")


def _refuse_change_while_reading(state: ORMExecuteState) -> None:
    changes = state.is_insert or state.is_update or state.is_delete
    if changes and not state.session.info.get(_WRITING):
        raise RuntimeError("a session writes only inside db.writing(session)")


@contextmanager
def writing(source: Session | sessionmaker[Session] | Engine) -> Iterator[Session]:
    """A writing transaction: committed and on disk when the block ends, rolled back when it raises.

    Inside another `writing` of the same session it is part of that one. A reading transaction that the session is in ends first,
    so what was read before is read again inside where it matters.
    """
    if isinstance(source, Engine):
        source = session_factory(source)
    if not isinstance(source, Session):
        with source() as session, writing(session):
            yield session
        return
    session = source
    if session.info.get(_WRITING):
        yield session
        return
    if session.in_transaction():
        session.commit()
    session.info[_WRITING] = True
    try:
        session.connection(execution_options={_WRITING: True})
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        raise
    finally:
        session.info.pop(_WRITING, None)


def check_durability(engine: Engine) -> None:
    """Refuse a database that may forget, on power loss, what it confirmed.

    Raises:
        NotDurable: with one sentence that names the weak setting.
        DatabaseAway: the database cannot be reached.
    """
    weak = _weak_sqlite(engine) if engine.dialect.name == "sqlite" else _weak_postgresql(engine)
    if weak:
        raise NotDurable(
            "The database might lose confirmed data on power loss: %(weak)s.", weak=weak
        )


def _weak_sqlite(engine: Engine) -> str | None:
    with connected(engine) as connection:
        journal = str(connection.exec_driver_sql("PRAGMA journal_mode").scalar()).lower()
        synchronous = int(connection.exec_driver_sql("PRAGMA synchronous").scalar() or 0)
    if journal != "wal":
        return f"journal_mode is {journal}, not wal"
    if synchronous < 2:
        return "synchronous is weaker than FULL"
    return None


def _weak_postgresql(engine: Engine) -> str | None:
    with connected(engine) as connection:
        for name, allowed in (
            ("fsync", ("on",)),
            ("full_page_writes", ("on",)),
            ("synchronous_commit", ("on", "remote_apply")),
        ):
            value = str(connection.execute(text(f"SHOW {name}")).scalar())
            if value not in allowed:
                return f"{name} is {value}, not {allowed[0]}"
    return None


@contextmanager
def connected(engine: Engine) -> Iterator[Connection]:
    """A connection for reading.

    Raises:
        DatabaseAway: the database cannot be reached.
        Invalid: its address has an option that the driver does not know.
    """
    where = engine.url.render_as_string(hide_password=True)
    try:
        connection = engine.connect()
    except ProgrammingError as error:
        raise Invalid(
            "The database %(where)s has no good address: %(problem)s.",
            where=where,
            problem=_first_line(error),
        ) from error
    except (DBAPIError, sqlite3.Error) as error:
        raise DatabaseAway(
            "The database %(where)s cannot be reached: %(problem)s",
            where=where,
            problem=_first_line(error),
        ) from error
    with connection:
        yield connection


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the tables to this version (or to `revision`). Safe to repeat.

    Raises:
        SchemaOutdated: the tables are of a version that this one does not know.
    """
    from alembic import command

    _refuse_unknown(schema_revision(engine))
    with _migrating(engine) as config:
        command.upgrade(config, revision)


def take_back(engine: Engine, revision: str) -> None:
    """The tables as an earlier version had them; what that version had no place for is gone. For tests of upgrades."""
    from alembic import command

    with _migrating(engine) as config:
        command.downgrade(config, revision)


@contextmanager
def _migrating(engine: Engine) -> Iterator[Config]:
    """One transaction for all steps.

    SQLite changes a table by making it anew, which its foreign keys must not hinder: they are checked once, at the end.
    """
    is_sqlite = engine.dialect.name == "sqlite"
    with connected(engine) as connection:
        connection.execution_options(**{_WRITING: True})
        driver: Any = connection.connection.driver_connection
        if is_sqlite:
            driver.execute("PRAGMA foreign_keys = OFF")  # heeded only outside of a transaction
        try:
            with connection.begin():
                config = _alembic_config()
                config.attributes["connection"] = connection
                yield config
                if is_sqlite:
                    orphan = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                    if orphan is not None:
                        raise SchemaOutdated(
                            "The tables cannot be brought to this version: a row of %(table)s names one of "
                            "%(parent)s that is not there. Run `fleet verify`, then restore a backup.",
                            table=orphan[0],
                            parent=orphan[2],
                        )
        finally:
            if is_sqlite:
                driver.execute("PRAGMA foreign_keys = ON")


def schema_revision(engine: Engine) -> str | None:
    """Which migration the tables are at; None when there are none."""
    with connected(engine) as connection:
        if not inspect(connection).has_table(_VERSION_TABLE):
            return None
        found = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608 - a word of ours
    return None if found is None else str(found)


def check_schema(engine: Engine) -> None:
    """Raises SchemaOutdated when the tables are not those of this version, DatabaseAway when nobody can tell."""
    wanted = known_revisions()[-1]
    found = schema_revision(engine)
    _refuse_unknown(found)
    if found != wanted:
        raise SchemaOutdated(
            "The database is at revision %(found)s, this version needs %(wanted)s: run `fleet db upgrade`.",
            found=found or "none",
            wanted=wanted,
        )


def known_revisions() -> list[str]:
    """Of all migrations, oldest first, by their files' names: every process that starts asks, and Alembic takes a tenth of a second
    to load."""
    return sorted(path.name.partition("_")[0] for path in _MIGRATIONS.glob("versions/[0-9]*.py"))


def _refuse_unknown(found: str | None) -> None:
    """`fleet db upgrade` cannot help a database that a newer version (or none of ours) has made."""
    if found is not None and found not in known_revisions():
        raise SchemaOutdated(
            "The database is of revision %(found)s, which this version does not know: update this "
            "installation, or use another database (another folder with --data).",
            found=found,
        )


def check_columns(engine: Engine, metadata: MetaData) -> None:
    """Raises SchemaOutdated when a table or column of `metadata` is missing, whatever revision the database claims."""
    with connected(engine) as connection:
        found = inspect(connection).get_multi_columns()
    columns = {name: {column["name"] for column in told} for (_, name), told in found.items()}
    for table in metadata.sorted_tables:
        missing = {column.name for column in table.columns} - columns.get(table.name, set())
        if missing:
            raise _tables_of_another_version(f"{table.name} has no {', '.join(sorted(missing))}")


def is_crossed(error: Exception) -> bool:
    """Whether two wrote the same at one moment, and this one came second. On SQLite there is one writer: it finds what the first wrote."""
    return _sqlstate(error) in _POSTGRESQL_CROSSED


def trouble_of(error: Exception) -> Unavailable | None:
    """What a database's error means for a person; None when it is nobody's fault but ours."""
    if isinstance(error, PoolTimeoutError):
        return Unavailable("The database has no connection left: try again.")
    if not isinstance(error, DBAPIError | sqlite3.Error):
        return None
    said = _first_line(error)
    if _SQLITE_LACKS.search(said) or _sqlstate(error) in _POSTGRESQL_LACKS:
        return _tables_of_another_version(said)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if (
        isinstance(error, OperationalError | InterfaceError)
        or type(cause) in _SQLITE_UNFIT
        or _sqlstate(error) in _POSTGRESQL_UNFIT
    ):
        return Unavailable("The database cannot be used: %(said)s.", said=said.rstrip("."))
    return None


def _tables_of_another_version(what: str) -> SchemaOutdated:
    return SchemaOutdated(
        "The database carries this version's number, but its tables are of another one (%(what)s): use a "
        "database that `fleet db upgrade` of this version made, or its backup.",
        what=what,
    )


def _sqlstate(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def _alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]

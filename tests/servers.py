"""A real PostgreSQL for tests: in a folder of its own, on loopback at a free port, gone afterwards."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from databases import KEPT

from fleet_server import db

_USER = "stadtsensor"
_SYSTEM_USER = "postgres"  # the server refuses to run as root
_PATIENCE_S = 30.0


def postgresql_programs() -> Path:
    """Folder of PostgreSQL's programs, newest version first; the test is skipped by name where there is none."""
    on_path = shutil.which("postgres")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    if on_path is not None:
        folders.append(Path(on_path))
    if not folders:
        pytest.skip("PostgreSQL is not installed")
    return folders[0].parent


# What a test could have changed of a database but its rows: a row of the catalogue that was changed has another transaction's number.
_SHAPE = b"""
    SELECT
        (SELECT count(*) FROM pg_attribute),
        (SELECT sum(xmin::text::bigint) FROM pg_attribute WHERE attrelid >= 16384),
        (SELECT sum(xmin::text::bigint) FROM pg_constraint),
        (SELECT sum(xmin::text::bigint) FROM pg_index),
        (SELECT sum(xmin::text::bigint) FROM pg_trigger),
        (SELECT sum(xmin::text::bigint) FROM pg_proc WHERE oid >= 16384),
        (SELECT count(*) FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_t%'),
        (SELECT count(*) FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
          WHERE datname = current_database()),
        (SELECT string_agg(version_num, ',') FROM alembic_version)
"""
# Makes a query that names the tables with rows in them, and whether there are many.
_ASK_WHICH = b"""
    SELECT string_agg(
        format('SELECT %L, pg_relation_size(%L) > 524288 WHERE EXISTS (SELECT FROM %I)',
            quote_ident(tablename), quote_ident(tablename), tablename), ' UNION ALL ')
      FROM pg_tables
     WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'audit_head', 'campaign_cursor')
"""
# To TRUNCATE takes ten times as long: every table and index gets new files. But where many rows were, those that are dead would make each
# later test wade through them. Keys and triggers are asleep meanwhile, for this alone.
_EMPTY = """
    BEGIN;
    SET LOCAL session_replication_role = replica;
    {each}
    UPDATE audit_head SET seq = 0, sha256 = repeat('0', 64);
    UPDATE campaign_cursor SET pack_id = 0;
    SELECT setval(quote_ident(sequencename)::regclass, start_value, false) FROM pg_sequences
     WHERE schemaname = 'public' AND last_value IS NOT NULL;
    COMMIT
"""
_END_OTHERS = f"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND NOT (application_name = '{KEPT}' AND state = 'idle')
""".encode()  # noqa: S608 - a word of ours


class PostgresqlServer:
    """One server in its folder. Also a source of empty databases (`databases.Databases`)."""

    def __init__(self, folder: Path, programs: Path, *, is_durable: bool) -> None:
        self.folder = folder
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._programs = programs
        self._is_durable = is_durable
        self._template: str | None = None
        self._shape: Any = None
        self._which = b""
        self._clean: list[str] = []  # databases that are as they were made
        # Who empties them: a session that has seen all tables is ten times as fast as a new one.
        self._emptying: dict[str, psycopg.Connection[Any]] = {}
        self._numbers = itertools.count(1)

    def initialise(self) -> None:
        """Make the cluster."""
        command = [
            self._programs / "initdb",
            "-D",
            self.folder / "data",
            "-U",
            _USER,
            "-A",
            "trust",
        ]
        options = ["--no-sync", "--encoding=UTF8", "--locale=C"]
        done = subprocess.run([*command, *options], capture_output=True, user=_run_as(), cwd="/")
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start it, again after `kill` too, and wait until it answers."""
        # Who tidies up by itself while tests run changes the order in which rows lie, now and then.
        weak = ["fsync=off", "full_page_writes=off", "autovacuum=off"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", self.folder / "data"),
                    *("-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1"),
                    *("-c", f"unix_socket_directories={self.folder}"),
                    *("-c", "shared_buffers=64MB"),
                    *("-c", "max_connections=60"),
                    *(() if self._is_durable else (part for word in weak for part in ("-c", word))),
                ],
                stdout=log,
                stderr=log,
                user=_run_as(),
                cwd="/",
            )
        deadline = time.monotonic() + _PATIENCE_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                # One that only needs longer must not live on beside the next one.
                self.kill()
                pytest.fail((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        # Else it was another one that answered.
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it; sessions that are still open are cut."""
        self._end(signal.SIGINT)

    def drop(self) -> None:
        """End it for good, without the time to make its files whole: they are thrown away."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """SIGKILL, as a crash would: the postmaster and, as the kernel does it for them, its children."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        while self._emptying:
            self._emptying.popitem()[1].close()
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        self.process.wait(_PATIENCE_S)
        self.process = None

    def dsn(self, database: str) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def url(self, database: str) -> str:
        """Address as the setting `database_url` has it."""
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, *, template: str | None = None) -> str:
        """A new database, empty or a copy; returns its name."""
        name = f"fleet_{next(self._numbers)}"
        suffix = f" TEMPLATE {template}" if template else ""
        self._run(f"CREATE DATABASE {name}{suffix}")
        return name

    def create_migrated(self) -> str:
        """A new database with all tables, for who changes more of it than rows; returns its name."""
        if self._template is None:
            self._template = self.create_database()
            engine = db.make_engine(self.url(self._template))
            db.upgrade(engine)
            engine.dispose()
        return self.create_database(template=self._template)

    @contextmanager
    def fresh(self) -> Iterator[str]:
        name = self._clean.pop() if self._clean else self.create_migrated()
        yield self.url(name)
        if self._empties(name):
            self._clean.append(name)
        else:
            self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _empties(self, database: str) -> bool:
        """Take all rows out of a database, which is much faster than to make one; False when its tables are not as they were made."""
        if database not in self._emptying:
            self._emptying[database] = psycopg.connect(self.dsn(database), autocommit=True)
        connection = self._emptying[database]
        connection.execute(_END_OTHERS)
        as_it_is = connection.execute(_SHAPE).fetchone()
        if self._shape is None:
            with psycopg.connect(self.dsn(str(self._template))) as template:
                self._shape = template.execute(_SHAPE).fetchone()
                (which,) = template.execute(_ASK_WHICH).fetchone() or ("",)
                self._which = which.encode()
        if as_it_is != self._shape:
            self._emptying.pop(database).close()
            return False
        each = [
            f"TRUNCATE {name} CASCADE;" if are_many else f"DELETE FROM {name};"  # noqa: S608 - as the catalogue has it
            for name, are_many in connection.execute(self._which).fetchall()
        ]
        connection.execute(_EMPTY.format(each="\n".join(each)).encode())
        return True

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def running_postgresql(*, is_durable: bool = True) -> Iterator[PostgresqlServer]:
    """A running server; `is_durable=False` is faster and refused by the product's own start."""
    programs = postgresql_programs()
    folder = Path(tempfile.mkdtemp(prefix="stadtsensor-postgresql-"))
    try:
        if _run_as() is not None:
            shutil.chown(folder, _SYSTEM_USER)
        server = PostgresqlServer(folder, programs, is_durable=is_durable)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.drop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_as() -> str | None:
    return _SYSTEM_USER if os.geteuid() == 0 else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

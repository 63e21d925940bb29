"""What a person reads when the database is not what a command needs: one sentence, never a traceback."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from databases import SqliteDatabases
from factories import NOON, SimulatedNode, deployed_node
from typed_commands import Answering, answering

from fleet_server import db
from fleet_server.cli.main import main
from fleet_server.services.ingest import store_batch
from fleet_server.settings import ENVIRONMENT_PREFIX


@pytest.fixture
def database(sqlite_databases: SqliteDatabases) -> Iterator[Path]:
    """A database with a node and its readings, all in the one file."""
    with sqlite_databases.fresh() as url:
        path = Path(url.removeprefix("sqlite:///"))
        engine = db.make_engine(url)
        with db.session_factory(engine)() as session:
            deployed_node(session)
            store_batch(session, SimulatedNode().packs(range(1, 40)), now=NOON)
        engine.dispose()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield path


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    """`fleet …` in an empty environment."""
    for name in list(os.environ):
        if name.startswith(ENVIRONMENT_PREFIX):
            monkeypatch.delenv(name)
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


@pytest.fixture
def on_database(fleet: Answering, monkeypatch: pytest.MonkeyPatch, database: Path) -> Answering:
    """`fleet …` with this database in its environment."""
    monkeypatch.setenv("FLEET_DATABASE_URL", f"sqlite:///{database}")
    monkeypatch.setenv("FLEET_DATA_DIR", str(database.parent))
    return fleet


def take_column_away(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ALTER TABLE node_status DROP COLUMN heap_low")
        connection.execute("ALTER TABLE pack DROP COLUMN uptime_ms")


def damage(database: Path) -> None:
    """The page that the packs begin at: what says which database this is stays whole."""
    with closing(sqlite3.connect(database)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'pack'"
        ).fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        file.seek((root - 1) * page_bytes)
        file.write(b"\xa5" * page_bytes)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("verify", "--data", "."), "no such column: pack.uptime_ms"),
        (("node", "list"), "no such column: node_status.heap_low"),
        (("db", "check"), "node_status has no heap_low"),
    ],
)
def test_tables_older_than_their_number_are_one_sentence(
    on_database: Answering, database: Path, command: tuple[str, ...], named: str
) -> None:
    take_column_away(database)
    done = on_database(*command)
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        "fleet: The database carries this version's number, but its tables are of another one "
        f"({named}): use a database that `fleet db upgrade` of this version made, or its backup.\n"
    )


def test_database_that_fails_in_the_middle_of_a_command_is_one_sentence(
    on_database: Answering, database: Path
) -> None:
    damage(database)
    done = on_database("verify", "--data", ".")
    assert (done.status, done.out) == (1, "")
    assert done.err == "fleet: The database cannot be used: database disk image is malformed.\n"


@pytest.mark.parametrize(
    "command",
    [("verify",), ("node", "list"), ("token", "create"), ("db", "check")],
)
def test_command_on_a_folder_without_a_database_says_so_and_makes_none(
    fleet: Answering, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = fleet(*command, "--data", str(tmp_path))
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        f"fleet: There is no database {tmp_path / 'fleet.sqlite3'}: name the server's folder with --data, "
        "or make a new one with `fleet db upgrade`.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_command_on_a_demos_folder_reaches_the_demos_database(
    fleet: Answering, database: Path, tmp_path: Path
) -> None:
    (tmp_path / "fleet.toml").write_text(f'database_url = "sqlite:///{database}"\n')
    done = fleet("node", "list", "--json", "--data", str(tmp_path))
    assert (done.status, done.err) == (0, "")
    assert len(json.loads(done.out)["nodes"]) == 1


@pytest.mark.parametrize("command", [("ca", "init"), ("demo", "--port", "0")])
def test_folder_that_the_machine_denies_is_one_sentence(
    fleet: Answering, tmp_path: Path, command: tuple[str, ...]
) -> None:
    for denied in ("ca", "lock"):
        (tmp_path / denied).symlink_to("/dev/full/nothing")
    done = fleet(*command, "--data", str(tmp_path))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"fleet: {tmp_path}/")
    assert " cannot be used: " in done.err
    assert len(done.err.splitlines()) == 1

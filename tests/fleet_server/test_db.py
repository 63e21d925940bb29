"""Connections, writing transactions, durability and migrations."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from databases import Databases
from factories import NOON, deployed_node, register_node
from servers import PostgresqlServer, postgresql_programs, running_postgresql
from sqlalchemy import CheckConstraint, Engine, MetaData, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.errors import Unavailable
from fleet_server.models import (
    Alert,
    AlertKind,
    AlertRecipient,
    Base,
    Counter,
    Delivery,
    Gap,
    JudgedStream,
    Node,
    NodeStatus,
    Site,
)
from fleet_server.models.base import ONCE_A_STATEMENT
from fleet_server.services import verifying
from tests.fleet_server import small_world


def _empty_url(databases: Databases, tmp_path: Path) -> str:
    if isinstance(databases, PostgresqlServer):
        return databases.url(databases.create_database())
    return f"sqlite:///{tmp_path}/empty.sqlite3"


def test_migrations_make_exactly_the_tables_of_the_models(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        by_triggers = {
            key.name
            for table in Base.metadata.sorted_tables
            for key in table.foreign_key_constraints
            if engine.dialect.name == "postgresql" and key.elements[0].info == ONCE_A_STATEMENT
        }
        differences = compare_metadata(context, Base.metadata)
        assert {kind for kind, *_ in differences} <= {"add_fk"}
        assert {key.name for _, key in differences} == by_triggers
        checks = {
            (table.name, check["name"])
            for table in Base.metadata.sorted_tables
            for check in inspect(connection).get_check_constraints(table.name)
        }
    wanted = {
        (table.name, constraint.name)
        for table in Base.metadata.sorted_tables
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert checks == wanted


_PACK = (
    "INSERT INTO pack (id, node_id, spool, seq, kind, received_at, stored_at, power_up, uptime_ms, body_sha256,"
    " payload_sha256, payload) SELECT 7, '{node_id}', 1, 1, 'event', node.enrolled_at, node.enrolled_at, 1, 1, 'a', 'b', 'c'"
    " FROM node"
)
_READING = "INSERT INTO raw_reading (pack_id, channel, raw_value, time_estimated) VALUES ({pack_id}, 'c', 1, {no})"
_OBSERVATION = (
    "INSERT INTO observation (datastream_id, sampled_at, flag, tests, lineage_id, known_from)"
    " SELECT {datastream_id}, node.enrolled_at, 9, 0, {lineage_id}, node.enrolled_at FROM node"
)
_LINEAGE = (
    "INSERT INTO lineage (id, sensor_id, calibration_id, inputs, conversion, correction, rule_set, pipeline_version,"
    " coverage_factor) SELECT 77, sensor_id, id, '', '', '', '', '', 2 FROM calibration LIMIT 1"
)


def _family(session: Session) -> dict[str, object]:
    """A node with one row of each table that names a parent; their keys."""
    node_id = deployed_node(session).node_id
    keys: dict[str, object] = {"node_id": node_id, "pack_id": 7, "lineage_id": 77}
    with db.writing(session):
        keys["datastream_id"] = session.execute(text("SELECT min(id) FROM datastream")).scalar_one()
        keys["no"] = "0" if session.get_bind().dialect.name == "sqlite" else "false"
        for statement in (_LINEAGE, _PACK, _READING, _OBSERVATION):
            session.execute(text(statement.format(**keys)))
    return keys


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        (_PACK.replace(" 7,", " 8,"), "node_id"),
        (_READING, "pack_id"),
        (_OBSERVATION, "datastream_id"),
        (_OBSERVATION, "lineage_id"),
        ("UPDATE pack SET node_id = '{node_id}'", "node_id"),
        ("UPDATE raw_reading SET pack_id = {pack_id}", "pack_id"),
        ("UPDATE observation SET datastream_id = {datastream_id}", "datastream_id"),
        ("UPDATE observation SET lineage_id = {lineage_id}", "lineage_id"),
    ],
)
def test_row_whose_parent_is_not_there_is_refused(
    session: Session, statement: str, wrong: str
) -> None:
    keys = _family(session)
    keys[wrong] = "nobody" if wrong == "node_id" else 999
    if statement is _OBSERVATION:
        # Its place must be free: a key that is taken would be refused, too.
        with db.writing(session):
            session.execute(text("DELETE FROM observation"))
    with pytest.raises(IntegrityError), db.writing(session):
        session.execute(text(statement.format(**keys)))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM node",
        "DELETE FROM pack",
        "DELETE FROM datastream",
        "DELETE FROM lineage",
        "UPDATE pack SET id = 8",
        "UPDATE lineage SET id = 8",
    ],
)
def test_parent_of_a_row_cannot_be_taken_away(session: Session, statement: str) -> None:
    _family(session)
    with pytest.raises(IntegrityError), db.writing(session):
        session.execute(text(statement))


def test_parent_without_children_can_be_taken_away(session: Session) -> None:
    _family(session)
    with db.writing(session):
        session.execute(text("DELETE FROM raw_reading"))
        session.execute(text("DELETE FROM pack"))
        session.execute(text("DELETE FROM observation"))
        session.execute(text("DELETE FROM lineage"))
    assert session.execute(text("SELECT count(*) FROM pack")).scalar_one() == 0


def test_parent_that_is_taken_away_while_a_child_is_added_leaves_no_orphan(
    sessions: sessionmaker[Session],
) -> None:
    with sessions() as session:
        keys = _family(session)
        with db.writing(session):
            session.execute(text("DELETE FROM raw_reading"))
            session.execute(text("DELETE FROM observation"))

    def take_away() -> None:
        with suppress(IntegrityError), sessions() as other, db.writing(other):
            other.execute(text("DELETE FROM pack"))

    remover = threading.Thread(target=take_away)
    with sessions() as session, db.writing(session):
        session.execute(text(_READING.format(**keys)))
        remover.start()
        remover.join(0.2)  # it waits for us, or has not begun: both end the same
    remover.join()
    with sessions() as session:
        orphans = text(
            "SELECT count(*) FROM raw_reading WHERE pack_id NOT IN (SELECT id FROM pack)"
        )
        assert session.execute(orphans).scalar_one() == 0
        assert session.execute(text("SELECT count(*) FROM raw_reading")).scalar_one() == 1


@pytest.mark.needs_postgresql
def test_dump_of_the_data_alone_is_taken_back_by_an_upgraded_database(
    postgresql_server: PostgresqlServer,
) -> None:
    """`pg_dump` restores without a search path: whatever runs at an insertion must find its tables nevertheless."""
    programs = postgresql_programs()
    with postgresql_server.fresh() as url:
        engine = db.make_engine(url)
        with db.session_factory(engine)() as session:
            keys = _family(session)
        dsn = postgresql_server.dsn(str(engine.url.database))
        dump = subprocess.run(
            [programs / "pg_dump", "--data-only", "--exclude-table=alembic_version", dsn],
            capture_output=True,
            check=True,
        ).stdout
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        with engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {tables}"))

        restore = [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", dsn]
        restored = subprocess.run(restore, input=dump, capture_output=True)

        assert restored.returncode == 0, restored.stderr.decode()
        with engine.connect() as connection:
            packs = connection.execute(text("SELECT id FROM pack")).scalars().all()
        assert packs == [keys["pack_id"]]
        for statement in ("DELETE FROM public.lineage", "UPDATE public.pack SET id = 8"):
            with pytest.raises(IntegrityError):
                _execute_without_search_path(engine, statement)
        engine.dispose()


def _execute_without_search_path(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL search_path = ''"))
        connection.execute(text(statement))


def test_database_of_a_newer_version_is_refused_and_stays_as_it_is(
    databases: Databases, tmp_path: Path
) -> None:
    engine = db.make_engine(_empty_url(databases, tmp_path))
    db.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (db.upgrade, db.check_schema):
        with pytest.raises(db.SchemaOutdated, match="revision 9999, which this version does not"):
            attempt(engine)
    assert db.schema_revision(engine) == "9999"
    engine.dispose()


def test_upgrade_makes_all_tables_and_can_be_repeated(databases: Databases, tmp_path: Path) -> None:
    engine = db.make_engine(_empty_url(databases, tmp_path))
    with pytest.raises(db.SchemaOutdated, match="fleet db upgrade"):
        db.check_schema(engine)
    db.upgrade(engine)
    db.upgrade(engine)
    db.check_schema(engine)
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
    assert set(Base.metadata.tables) <= set(tables)
    engine.dispose()


def test_rows_of_the_version_before_survive_the_upgrade(
    databases: Databases, tmp_path: Path
) -> None:
    engine = db.make_engine(_empty_url(databases, tmp_path))
    db.upgrade(engine, "0001")
    with engine.begin() as connection:
        old = MetaData()
        old.reflect(connection, only=["node", "node_status", "gap"])
        at = int(NOON.timestamp()) if engine.dialect.name == "sqlite" else NOON
        node = {"node_id": "n-1", "label": "l", "model": "tree-3", "state": "active"}
        node |= {"enrolled_at": at, "public_key_sha256": "k"}
        connection.execute(old.tables["node"].insert().values(node))
        connection.execute(old.tables["node_status"].insert().values(node_id="n-1", oldest=3))
        gap = {"node_id": "n-1", "spool": 7, "from_seq": 1, "to_seq": 2, "state": "declared_lost"}
        gap |= {"reason": "below_oldest", "noticed_at": at}
        connection.execute(old.tables["gap"].insert().values(gap))

    db.upgrade(engine)

    with db.session_factory(engine)() as session:
        status = session.get_one(NodeStatus, "n-1")
        kept = session.get_one(Gap, ("n-1", 7, 1))
        assert (status.oldest, status.thinned, status.lost) == (3, None, None)
        assert (status.publish_s, status.battery_level, status.late_at) == (3600, "normal", None)
        assert session.get_one(Node, "n-1").state == "enrolling"  # it was never heard
        assert (kept.to_seq, kept.reason, kept.noticed_at) == (2, "below_oldest", NOON)
    engine.dispose()


def _earlier_revisions() -> list[Any]:
    """From the first one all steps are gone, from the last one a single one; those between them nightly."""
    scripts = ScriptDirectory(str(Path(db.__file__).parent / "migrations"))
    first, *between, last = [script.revision for script in scripts.walk_revisions()][:0:-1]
    return [first, last, *(pytest.param(one, marks=pytest.mark.nightly) for one in between)]


def _content(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, as text, with the names of its columns."""
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        return {
            table.name: sorted(
                (
                    tuple(sorted((name, str(value)) for name, value in row._mapping.items()))
                    for row in connection.execute(table.select())
                ),
            )
            for table in tables.sorted_tables
            if table.name != "alembic_version"
        }


def _as_named_now(pair: tuple[str, str]) -> tuple[str, str]:
    """A node at a site was called active once."""
    return ("state", "deployed") if pair == ("state", "active") else pair


@pytest.mark.parametrize("revision", _earlier_revisions())
def test_a_lived_in_database_of_an_earlier_version_keeps_every_row_when_upgraded(
    databases: Databases, tmp_path: Path, revision: str
) -> None:
    """What a version held is what the same world is when it is taken back to that version."""
    engine = db.make_engine(_empty_url(databases, tmp_path))
    db.upgrade(engine)
    small_world.build_world(db.session_factory(engine), packs=8)
    db.take_back(engine, revision)
    assert db.schema_revision(engine) == revision
    before = _content(engine)
    assert before["pack"]

    db.upgrade(engine)

    after = _content(engine)
    assert set(before) <= set(after)
    for name, rows in before.items():
        columns = {column for row in rows for column, _ in row}
        kept = {tuple(sorted(pair for pair in row if pair[0] in columns)) for row in after[name]}
        assert {tuple(map(_as_named_now, row)) for row in rows} <= kept, (
            name
        )  # rows may be added: what is counted from now on
    db.check_columns(engine, Base.metadata)
    with db.session_factory(engine)() as session:
        assert verifying.verify(session).is_clean
    engine.dispose()


def test_values_judged_by_earlier_software_are_judged_again_after_an_upgrade(
    databases: Databases,
) -> None:
    """It made fewer tests: `fleet verify` must not find theirs missing."""
    with databases.fresh() as url:
        engine = db.make_engine(url)
        with db.session_factory(engine)() as session:
            deployed_node(session)
        known = db.known_revisions()
        db.take_back(engine, known[known.index("0025") - 1])
        with engine.begin() as connection:
            connection.execute(
                insert(JudgedStream).values(
                    datastream_id=1, judged_to=NOON, reached=NOON, due_at=NOON
                )
            )
        db.upgrade(engine)
        with db.session_factory(engine)() as session:
            judged = session.get_one(JudgedStream, 1)
            assert judged.judged_to is None
            assert (judged.due_at.year, judged.reached) == (2000, NOON)
        engine.dispose()


def test_migrations_are_known_by_their_files_names_as_alembic_knows_them() -> None:
    scripts = ScriptDirectory(str(Path(db.__file__).parent / "migrations"))
    assert db.known_revisions() == [one.revision for one in scripts.walk_revisions()][::-1]
    assert scripts.get_heads() == db.known_revisions()[-1:]


def test_upgrade_that_would_leave_an_orphan_changes_nothing(tmp_path: Path) -> None:
    """SQLite does not look while tables are made anew; whoever wrote past its keys is found at the end."""
    engine = db.make_engine(f"sqlite:///{tmp_path}/orphan.sqlite3")
    db.upgrade(engine, "0001")
    with sqlite3.connect(tmp_path / "orphan.sqlite3") as raw:
        raw.execute("INSERT INTO node_status (node_id) VALUES ('n-nobody')")

    with pytest.raises(db.SchemaOutdated, match="node_status names one of node that is not there"):
        db.upgrade(engine)
    assert db.schema_revision(engine) == "0001"


def test_nodes_of_the_version_before_get_their_state_and_their_schedule(
    databases: Databases, tmp_path: Path
) -> None:
    engine = db.make_engine(_empty_url(databases, tmp_path))
    db.upgrade(engine, "0005")
    with engine.begin() as connection:
        old = MetaData()
        old.reflect(connection)
        at = int(NOON.timestamp()) if engine.dialect.name == "sqlite" else NOON

        def add(table: str, **row: object) -> None:
            connection.execute(old.tables[table].insert().values(row))

        fields = {"enrolled_at": at, "label": "l", "model": "tree-3"}
        for number, state in enumerate(("active", "active", "enrolled", "revoked", "retired")):
            add("node", node_id=f"n-{number}", state=state, public_key_sha256=state * number, **fields)  # fmt: skip
            heard = None if state == "enrolled" else at
            add("node_status", node_id=f"n-{number}", last_heard_at=heard, power_up=5)
            add("configuration", node_id=f"n-{number}", version=1, settings={"publish_s": 900}, changed_at=at)  # fmt: skip
        add("site", id=1, code="s", name="S", kind="tree", latitude=51, longitude=7, description="", is_public=True, created_at=at)  # fmt: skip
        add("deployment", id=1, node_id="n-0", site_id=1, from_at=at)
        add("pack", id=7, node_id="n-0", spool=1, seq=1, kind="event", received_at=at, stored_at=at, power_up=5, uptime_ms=1, body_sha256=b"a", payload_sha256=b"b", payload=b"c")  # fmt: skip
        add("event", pack_id=7, node_id="n-0", name="battery", details=[["mv", 3450], ["level", "low"]])  # fmt: skip

    db.upgrade(engine)

    with db.session_factory(engine)() as session:
        states = session.scalars(select(Node.state).order_by(Node.node_id)).all()
        assert states == ["deployed", "enrolled", "enrolling", "revoked", "retired"]
        low, normal = (session.get_one(NodeStatus, node_id) for node_id in ("n-0", "n-1"))
        assert (low.publish_s, low.battery_level) == (900, "low")
        assert low.late_at == NOON + timedelta(seconds=900 * 4 * 3 / 2)
        assert (normal.late_at, normal.offline_at) == (
            NOON + timedelta(seconds=1350),
            NOON + timedelta(seconds=2700),
        )
        assert session.get_one(NodeStatus, "n-2").late_at is None
    engine.dispose()


def test_sqlite_has_the_layout_that_was_measured(tmp_path: Path) -> None:
    engine = db.make_engine(f"sqlite:///{tmp_path}/a.sqlite3")
    db.upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA page_size")).scalar() == 8192
        layout = "SELECT sql FROM sqlite_master WHERE name = 'observation'"
        assert "WITHOUT ROWID" in str(connection.execute(text(layout)).scalar())
    engine.dispose()


def test_sqlite_survives_power_loss_as_we_set_it_and_is_refused_when_weakened(
    tmp_path: Path,
) -> None:
    engine = db.make_engine(f"sqlite:///{tmp_path}/a.sqlite3")
    db.check_durability(engine)
    with engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA synchronous = NORMAL")  # type: ignore[union-attr]
    with pytest.raises(db.NotDurable, match="synchronous"):
        db.check_durability(engine)
    engine.dispose()


@pytest.mark.needs_postgresql
def test_postgresql_that_may_forget_is_refused(postgresql_server: PostgresqlServer) -> None:
    engine = db.make_engine(postgresql_server.url("postgres"))
    with pytest.raises(db.NotDurable, match="fsync is off"):
        db.check_durability(engine)
    engine.dispose()


@pytest.mark.needs_postgresql
def test_postgresql_as_installed_is_durable_even_where_asynchronous_commit_is_its_default() -> None:
    with running_postgresql() as server:
        name = server.create_database()
        plain = db.make_engine(server.url("postgres"))
        with plain.connect() as connection, connection.begin():
            connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
        plain.dispose()
        engine = db.make_engine(server.url(name))
        db.check_durability(engine)
        engine.dispose()


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://nobody@127.0.0.1:1/none", "sqlite:////proc/nowhere/a.sqlite3"]
)
def test_database_that_is_not_there_is_one_sentence(url: str) -> None:
    def check() -> None:
        db.check_durability(db.make_engine(url))

    with pytest.raises(Unavailable) as caught:
        check()
    assert "\n" not in str(caught.value)


def test_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no database\n" * 100)
    engine = db.make_engine(f"sqlite:///{tmp_path}/a.txt")
    with pytest.raises(Unavailable, match="not a database"):
        db.check_schema(engine)


def _failure(engine: Engine, statement: str) -> Exception:
    with pytest.raises(DBAPIError) as failed, engine.connect() as connection:
        connection.execute(text(statement))
    return failed.value


def test_missing_column_is_told_as_tables_of_another_version(engine: Engine) -> None:
    db.check_columns(engine, Base.metadata)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE site DROP COLUMN description"))
    with pytest.raises(db.SchemaOutdated, match="site has no description"):
        db.check_columns(engine, Base.metadata)
    for statement in ("SELECT description FROM site", "SELECT 1 FROM sight"):
        assert isinstance(db.trouble_of(_failure(engine, statement)), db.SchemaOutdated)


def test_mistake_of_ours_is_not_blamed_on_the_database(engine: Engine) -> None:
    doubled = "INSERT INTO counter VALUES ('a', '', 1), ('a', '', 1)"
    assert db.trouble_of(_failure(engine, doubled)) is None
    assert db.trouble_of(ValueError("a time without its time zone cannot be stored")) is None


@pytest.mark.needs_postgresql
def test_connection_lost_in_the_middle_is_one_sentence(postgresql_server: PostgresqlServer) -> None:
    engine = db.make_engine(postgresql_server.url(postgresql_server.create_database()))
    with engine.connect() as lost, engine.connect() as other:
        process = lost.execute(text("SELECT pg_backend_pid()")).scalar_one()
        other.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
        with pytest.raises(DBAPIError) as failed:
            lost.execute(text("SELECT 1"))
    trouble = db.trouble_of(failed.value)
    assert str(trouble).startswith("The database cannot be used: ")
    assert "\n" not in str(trouble)
    engine.dispose()


def test_session_refuses_to_write_outside_a_writing_transaction(session: Session) -> None:
    session.add(Counter(name="a", node_id="", count=1))
    with pytest.raises(RuntimeError, match="writing"):
        session.commit()
    session.rollback()
    with pytest.raises(RuntimeError, match="writing"):
        session.execute(update(Counter).values(count=2))


def test_writing_is_rolled_back_as_a_whole_when_it_fails(session: Session) -> None:
    def write_and_fail() -> None:
        with db.writing(session):
            session.add(Counter(name="a", node_id="", count=1))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert session.get(Counter, ("a", "")) is None


def test_writing_inside_writing_is_one_transaction(session: Session) -> None:
    def write_and_fail() -> None:
        with db.writing(session):
            with db.writing(session):
                session.add(Counter(name="a", node_id="", count=1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert session.get(Counter, ("a", "")) is None


def test_writers_that_read_first_wait_for_each_other(sessions: sessionmaker[Session]) -> None:
    """On SQLite a transaction that reads and then writes would fail here whatever its time-out is."""
    with db.writing(sessions()) as session:
        session.add(Counter(name="a", node_id="", count=0))
    faults: list[BaseException] = []

    def count_up() -> None:
        try:
            for _ in range(20):
                with sessions() as session, db.writing(session):
                    counter = session.get_one(Counter, ("a", ""), with_for_update=True)
                    counter.count += 1
        except BaseException as fault:  # noqa: BLE001 - handed to the test
            faults.append(fault)

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    with sessions() as session:
        assert session.get_one(Counter, ("a", "")).count == 80


def test_time_comes_back_as_it_went_in_to_the_second(session: Session) -> None:
    moment = datetime(2026, 7, 1, 12, 0, 0, 999_999, tzinfo=UTC)
    with db.writing(session):
        site = Site(code="a", name="A", kind="tree", latitude=51, longitude=7, created_at=moment)
        session.add(site)
    session.expire_all()
    assert session.get_one(Site, site.id).created_at == NOON
    assert session.get_one(Site, site.id).created_at.tzinfo is UTC


def test_time_without_a_zone_cannot_be_stored(session: Session) -> None:
    with pytest.raises(Exception, match="time zone"):
        register_node(session, "n-000001", now=datetime(2026, 7, 1))  # noqa: DTZ001 - the mistake itself


def test_alerts_of_the_version_before_stay_open_once_and_take_the_new_kind(
    databases: Databases, tmp_path: Path
) -> None:
    engine = db.make_engine(_empty_url(databases, tmp_path))
    db.upgrade(engine, "0012")
    at = int(NOON.timestamp()) if engine.dialect.name == "sqlite" else NOON
    with engine.begin() as connection:
        old = MetaData()
        old.reflect(connection)

        def put(table: str, **values: object) -> None:
            connection.execute(old.tables[table].insert().values(**values))

        alert = {"kind": "late", "subject": "node n-1", "severity": "notice", "opened_at": at}
        put("alert", id=1, details={}, closed_at=at, **alert)
        put("alert", id=2, details={}, **alert)
        put("silence", id=1, scope="all", key="", from_at=at, to_at=at + 9 if isinstance(at, int) else at + timedelta(hours=1), reason="r", made_by="a", made_at=at)  # fmt: skip
        put("alert_recipient", id=1, name="office", channel="mail", address="a@example.org", min_severity="notice", language="de", is_active=True, made_at=at)  # fmt: skip
        put("delivery", id=1, recipient_id=1, occasion="opened", content=[], made_at=at, due_at=at, attempts=0)  # fmt: skip
        put("job", name="deliver", due_at=at, error="no")

    db.upgrade(engine)

    with db.session_factory(engine)() as session:
        assert [one.is_active for one in session.scalars(select(AlertRecipient))] == [True]
        assert session.scalars(select(Delivery.recipient_id)).all() == [1]
        with pytest.raises(IntegrityError), db.writing(session):
            session.add(Alert(kind="late", subject="node n-1", severity="notice", details={}, opened_at=NOON))  # fmt: skip
        with db.writing(session):  # what is over is in nobody's way
            session.add(Alert(id=9, kind="job", subject="job deliver", severity="warning", details={}, opened_at=NOON, closed_at=NOON))  # fmt: skip
            session.add(Alert(id=10, kind="job", subject="job deliver", severity="warning", details={}, opened_at=NOON))  # fmt: skip
            for number, kind in enumerate(AlertKind, start=11):
                session.add(Alert(id=number, kind=kind, subject="new", severity="notice", details={}, opened_at=NOON))  # fmt: skip
    db.take_back(engine, "0014")  # which knows nothing of releases and campaigns
    with engine.connect() as connection:
        left = connection.scalars(text("SELECT kind FROM alert WHERE subject = 'new'"))
        assert {*AlertKind} - {*left} == {AlertKind.SIGNATURE, AlertKind.CAMPAIGN}
    engine.dispose()

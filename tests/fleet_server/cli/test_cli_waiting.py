"""A database that comes later, and certificates that are not here: what waits, and what ends with a sentence."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from brokers import Certificates, Hurried, free_port, running_embedded, wait_until
from databases import SqliteDatabases
from servers import PostgresqlServer, running_postgresql
from structlog.testing import capture_logs
from typed_commands import answering, tuning_undone

from fleet_server import db
from fleet_server.cli.database import wait_for_database
from fleet_server.cli.main import main
from fleet_server.cli.processes import own_program
from fleet_server.errors import Unavailable
from fleet_server.services import authority

_PATIENCE_S = 60
_WAITS = "start_waits_for_database"
_SERVICES = ("ingest", "worker", "serve --port 0 --node-port 0")


class Running:
    """One of the services, as a service manager starts it."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str]) -> None:
        self._log = folder / f"{command.split()[0]}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [own_program("fleet"), *command.split(), "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={"PATH": os.environ["PATH"], **environment},
            )

    def said(self) -> str:
        return self._log.read_text()

    def ready(self) -> dict[str, str]:
        assert self.process.stdout is not None
        event: dict[str, str] = json.loads(self.process.stdout.readline())
        assert event["event"] == "ready"
        return event

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(_PATIENCE_S)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgresqlServer]:
    """A durable server of this module's own, which its tests stop and start."""
    with running_postgresql() as server:
        yield server


@contextmanager
def services(folder: Path, url: str, broker_url: str) -> Iterator[list[Running]]:
    environment = {
        "FLEET_DATA_DIR": str(folder),
        "FLEET_DATABASE_URL": url,
        "FLEET_BROKER_URL": broker_url,
    }
    running = [Running(command, folder, environment) for command in _SERVICES]
    try:
        yield running
    finally:
        for one in running:
            one.process.kill()
            one.process.communicate()


def answer(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as answered:  # noqa: S310 - our own
            return int(answered.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


@pytest.mark.needs_postgresql
def test_services_wait_for_a_database_that_is_away_at_their_start_and_then_work(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    certificates = Certificates(tmp_path / "ca")
    with postgresql.fresh() as url, running_embedded(certificates) as broker:
        broker_url = f"mqtts://127.0.0.1:{broker.node_port}?service_port={broker.service_port}"
        postgresql.stop()
        with services(tmp_path, url, broker_url) as (ingest, worker, serve):
            try:
                pages = serve.ready()["url"]
                for one in (ingest, worker, serve):
                    wait_until(lambda one=one: one.said().count(_WAITS) > 1, patience_s=_PATIENCE_S)
                assert answer(f"{pages}/healthz") == 200
                for path in ("/readyz", "/", "/v1.1/Things", "/login"):
                    assert answer(f"{pages}{path}") == (200 if path == "/login" else 503), path
            finally:
                postgresql.start()
            ingest.ready()
            worker.ready()
            wait_until(lambda: answer(f"{pages}/readyz") == 200)
            assert answer(f"{pages}/v1.1/Things") == 200
            for one in (ingest, worker, serve):
                assert one.end() == 0, one.said()
                assert "Traceback" not in one.said()


@pytest.mark.needs_postgresql
def test_database_of_another_version_that_comes_later_ends_them_with_its_sentence(
    postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    Certificates(tmp_path / "ca")
    url = postgresql.url(postgresql.create_database())
    postgresql.stop()
    with services(tmp_path, url, f"mqtts://127.0.0.1:{free_port()}") as running:
        try:
            for one in running:
                wait_until(lambda one=one: _WAITS in one.said(), patience_s=_PATIENCE_S)
        finally:
            postgresql.start()
        for one in running:
            assert one.process.wait(_PATIENCE_S) == 1
            assert one.said().endswith("run `fleet db upgrade`.\n")


def test_service_that_waits_can_be_ended(tmp_path: Path) -> None:
    Certificates(tmp_path / "ca")
    url = f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/fleet"
    with services(tmp_path, url, f"mqtts://127.0.0.1:{free_port()}") as running:
        for one in running:
            wait_until(lambda one=one: _WAITS in one.said(), patience_s=_PATIENCE_S)
            assert one.end() == 0


def test_waiting_is_told_once_for_each_step_and_the_steps_grow() -> None:
    engine = db.make_engine(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/fleet")
    stop = Hurried(after=7)
    with capture_logs() as told:
        assert not wait_for_database(engine, stop, check=db.check_schema)
    assert stop.waited_s == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert [one["seconds"] for one in told] == stop.waited_s
    assert all("cannot be reached" in one["reason"] for one in told)


def test_file_that_is_no_database_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(random.Random(1).randbytes(300))
    engine = db.make_engine(f"sqlite:///{tmp_path / 'noise'}")
    with pytest.raises(Unavailable, match="file is not a database"):
        wait_for_database(engine, threading.Event(), check=db.check_schema)
    engine.dispose()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("ingest", "svc-ingest"),
        ("worker", "svc-control"),
        ("serve --port 0 --node-port 0", "node-listener"),
        ("broker embedded --node-port 0 --service-port 0", "broker"),
        ("broker mosquitto", "broker"),
        ("demo --port 0", "svc-ingest"),
    ],
)
def test_command_without_its_key_ends_and_says_which_file_and_what_to_do(
    sqlite_databases: SqliteDatabases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    name: str,
) -> None:
    folder = tmp_path / "ca"
    authority.initialise(folder, valid_from=datetime.now(UTC))
    with sqlite_databases.fresh() as url:
        shutil.copy(url.removeprefix("sqlite:///"), tmp_path / "fleet.sqlite3")
    key = authority.AuthorityFiles(folder).key(name)
    key.unlink()
    monkeypatch.setenv("FLEET_BROKER_URL", "mqtts://127.0.0.1:9")
    fleet = answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)
    with tuning_undone():
        done = fleet(*command.split(), "--data", str(tmp_path))
    assert (done.status, done.out) == (1, "")
    assert done.err == (
        f"fleet: {key} is missing: put it back from your copy of the ca folder, "
        f"or make a new pair with `fleet ca issue {name}`.\n"
    )


def test_service_on_a_plain_broker_needs_no_key(tmp_path: Path) -> None:
    db.upgrade(db.make_engine(f"sqlite:///{tmp_path / 'fleet.sqlite3'}"))
    environment = {
        "FLEET_DATA_DIR": str(tmp_path),
        "FLEET_BROKER_URL": f"mqtt://127.0.0.1:{free_port()}",
    }
    worker = Running("worker", tmp_path, environment)
    try:
        wait_until(lambda: "publisher_waits" in worker.said(), patience_s=_PATIENCE_S)
        assert worker.end() == 0
    finally:
        worker.process.kill()
        worker.process.communicate()

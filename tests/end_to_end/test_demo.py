"""`fleet demo` and `fleet verify` as a person or a script uses them: the whole system, real firmware included."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import PostgresqlServer, running_postgresql
from system import (
    SUMMER,
    free_port,
    is_clean,
    lived_summer,
    mosquitto_of,
    run_command,
    run_demo,
)

from fleet_server.cli.processes import Child, own_program

READY_FIELDS = {"event", "url", "user", "password"}
DONE_FIELDS = {
    "event", "nodes", "boots", "packs_written", "packs_stored", "packs_resent", "packs_duplicate", "packs_missing",
    "readings", "observations", "seconds", "url", "firmware_version", "vm",
}  # fmt: skip
VERIFY_FIELDS = {
    "packs", "gaps", "declared_lost", "duplicates", "readings_without_observation", "packs_damaged",
    "receipts_wrong", "observations_not_reproducible", "audit_chain_ok",
}  # fmt: skip
SAMPLES_PER_DAY = 96
Day = tuple[Path, dict[str, Any], dict[str, Any]]
READY_S = 60.0


@pytest.fixture(scope="module")
def postgresql_durable() -> Iterator[PostgresqlServer]:
    """A PostgreSQL that the product accepts."""
    with running_postgresql() as server:
        yield server


def _check_books(done: dict[str, Any]) -> None:
    assert done["packs_missing"] == 0
    assert done["packs_duplicate"] == 0
    assert done["packs_stored"] == done["packs_written"]
    assert done["observations"] > 0
    assert done["firmware_version"]
    assert done["vm"]


def _verify(data: Path, *options: str) -> dict[str, Any]:
    done = run_command("fleet", "verify", "--data", str(data), "--json", *options)
    assert done.returncode == 0, (done.stdout, done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    assert set(report) == VERIFY_FIELDS
    assert is_clean(report)
    return report


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A folder in which four nodes have lived through a day, and what the demo said. Others read it, too."""
    data = lived_summer(tmp_path_factory)
    ready, done = (
        json.loads((data.parent / f"{event}.json").read_bytes()) for event in ("ready", "done")
    )
    return data, ready, done


def test_a_day_of_four_nodes_is_stored_whole(day: Day) -> None:
    data, ready, done = day
    assert set(ready) == READY_FIELDS
    assert set(done) == DONE_FIELDS
    _check_books(done)
    assert done["nodes"] == 4
    # A node begins up to ten minutes late and has caught up within an hour of now.
    assert done["packs_written"] >= 4 * (SAMPLES_PER_DAY - 5)
    report = _verify(data)
    assert report["packs"] == done["packs_stored"]
    assert report["declared_lost"] == 0


def test_second_run_in_the_same_folder_goes_on(day: Day, tmp_path: Path) -> None:
    """The folder may have been moved in between."""
    lived, _, before = day
    data = Path(shutil.copytree(lived, tmp_path / "data"))
    _, done = run_demo(data, *SUMMER)
    _check_books(done)
    assert done["packs_written"] >= before["packs_written"]
    _verify(data)


@pytest.mark.needs_mosquitto
@pytest.mark.needs_postgresql
def test_the_same_on_real_servers(tmp_path: Path, postgresql_durable: PostgresqlServer) -> None:
    data = tmp_path / "data"
    database_url = postgresql_durable.url(postgresql_durable.create_database())
    with mosquitto_of(data, pid_file=tmp_path / "mosquitto.pid") as broker_url:
        _, done = run_demo(
            data, "--nodes", "1", "--days", "1", "--database-url", database_url, "--broker-url", broker_url
        )  # fmt: skip
    _check_books(done)
    report = _verify(data)
    assert report["packs"] == done["packs_stored"]
    assert not list(data.glob("*.sqlite3"))


# --- used wrongly


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--nodes", "0"], 2, "--nodes"),
        (
            ["--database-url", "postgresql+psycopg://nobody@127.0.0.1:1/none"],
            1,
            "cannot be reached",
        ),
        (["--broker-url", "mqtts://127.0.0.1:1"], 1, "127.0.0.1:1"),
    ],
)
def test_wrong_option_is_answered_with_a_sentence(
    tmp_path: Path, options: list[str], status: int, words: str
) -> None:
    """All others that are used wrongly: tests/fleet_server/cli/test_cli_wrong_use.py."""
    done = run_command(
        "fleet", "demo", "--json", "--port", "0", "--data", str(tmp_path / "data"), *options
    )
    assert done.returncode == status, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_command("fleet", "demo", "--data", str(tmp_path / "data"), "--port", port)
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_without_a_folder_is_answered_with_a_sentence(tmp_path: Path) -> None:
    done = run_command("fleet", "verify", "--data", str(tmp_path / "nothing"), "--json")
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


# --- ended


@contextmanager
def _live(folder: Path) -> Iterator[Child]:
    """A demo that runs until it is told to end."""
    child = Child(
        "demo",
        [
            own_program("fleet"), "demo", "--json", "--port", str(free_port()), "--nodes", "2", "--days", "1",
            "--data", str(folder / "data"),
        ],
        log_folder=folder,
    )  # fmt: skip
    child.wait_for("ready", timeout_s=READY_S)
    try:
        yield child
    finally:
        child.stop()


def _processes_that_name(folder: Path) -> list[str]:
    """Command lines and settings of running processes in which this folder stands."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def _tell_to_end(live: Child, number: signal.Signals, data: Path) -> None:
    """Everything ends with it, and no pack is missing."""
    live.process.send_signal(number)
    done = live.wait_for("done", timeout_s=60.0)
    assert live.process.wait(10.0) == 0
    assert done["packs_missing"] == 0
    assert done["packs_duplicate"] == 0
    assert _processes_that_name(data) == []


def test_a_demo_killed_in_the_middle_goes_on_in_the_next_run_and_leaves_nothing_behind_when_told_to_end(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with _live(tmp_path) as live:
        _wait_for_packs(data, more_than=8)
        live.process.send_signal(signal.SIGKILL)
        live.process.wait()
    before = max(_packs_written(data))
    with _live(tmp_path) as live:
        refused = run_command("fleet", "demo", "--data", str(data), "--port", "0")
        assert refused.returncode == 1
        assert "Another demo runs" in refused.stderr
        _wait_for_packs(data, more_than=before)
        _tell_to_end(live, signal.SIGINT, data)
    _verify(data)


@pytest.mark.nightly
def test_a_demo_that_its_service_manager_ends_leaves_nothing_behind(tmp_path: Path) -> None:
    with _live(tmp_path) as live:
        _tell_to_end(live, signal.SIGTERM, tmp_path / "data")


@pytest.mark.nightly
def test_a_demo_killed_in_the_middle_catches_up_in_the_next_run(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with _live(tmp_path) as live:
        _wait_for_packs(data, more_than=8)
        live.process.send_signal(signal.SIGKILL)
        live.process.wait()
    _, done = run_demo(data, "--nodes", "2", "--days", "1")
    _check_books(done)
    _verify(data)
    assert _processes_that_name(data) == []


def _packs_written(data: Path) -> list[int]:
    """By node."""
    ledgers = data.glob("nodes/*/ledger.json")
    return [json.loads(path.read_bytes())["packs_written"] for path in ledgers]


def _wait_for_packs(data: Path, *, more_than: int) -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        written = _packs_written(data)
        if len(written) == 2 and min(written) > more_than:
            return
        time.sleep(0.05)
    pytest.fail("no packs were written")

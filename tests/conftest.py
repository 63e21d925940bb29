"""For all tests: no way out of this machine, known skips only, hypothesis profiles, databases."""

from __future__ import annotations

import gc
import os
import socket
import sys
import tempfile
from collections.abc import Generator, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from databases import Databases, SqliteDatabases, close_kept, hurried_engine
from hypothesis import HealthCheck, settings
from servers import PostgresqlServer, running_postgresql
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.services import passwords

# ---------------------------------------------------------------------------------------------------------- hypothesis

# Of the same code the default run tries the same examples: what only one run in a hundred finds, a commit cannot be judged by.
# Every other run draws its own.
for _name, _examples in (("commit", 50), ("drawn", 50), ("ci", 500), ("night", 10_000)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        derandomize=_name == "commit",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def pytest_configure(config: pytest.Config) -> None:
    is_default = config.option.markexpr == "not nightly"
    profile = "commit" if is_default else "drawn"
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", profile))


# ------------------------------------------------------------------------------------------------------------ memory

# Python looks for rings of dead objects after every 700 new ones, and now and then through all that lives: a third of the processor
# time of collecting ten thousand tests. What a test lets go of in a ring goes a little later.
gc.set_threshold(20_000, 20, 100)


def pytest_collection_finish() -> None:
    """What is there now stays to the end."""
    gc.freeze()


# ------------------------------------------------------------------------------------------------------------ files

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of this user's below it
_WANTED_BYTES = 6 << 30
"""Four processes' files, and room for what they do."""


def _use_memory() -> None:
    """Put what tests write into memory where there is plenty: kills leave the same there, and no test cuts this computer's power.

    On a disk thousands of small files, each waited for, are a quarter of the time. Whoever has set TMPDIR has chosen.
    """
    if "TMPDIR" in os.environ or not _has_room(_MEMORY):
        return
    folder = _MEMORY / f"stadtsensor-tests-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return
    folder.chmod(0o711)  # PostgreSQL goes in as a user of its own
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def _has_room(folder: Path) -> bool:
    """Also for programs that are started from there."""
    if not os.access(folder, os.W_OK):
        return False
    told = os.statvfs(folder)
    free_bytes = min(told.f_bavail * told.f_frsize, _available_memory_bytes())
    return free_bytes > _WANTED_BYTES and not told.f_flag & os.ST_NOEXEC


def _available_memory_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    (available,) = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(available) * 1024


_use_memory()


# --------------------------------------------------------------------------------------------------------------- skips

_SKIPS = Path(__file__).with_name("skips.txt")


def _allowed_skips() -> dict[str, str]:
    """Kind by reason."""
    lines = _SKIPS.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(": ", 1) for line in lines if line and not line.startswith("#"))
    return {reason: kind for kind, reason in pairs}


def _fault_of_skip(reason: str) -> str | None:
    """Why this skip is not accepted; None when it is."""
    kind = _allowed_skips().get(reason)
    if kind is None:
        return f"This test was skipped for a reason that is not in tests/skips.txt: {reason}"
    if kind == "server" and os.environ.get("REQUIRE_SERVERS") == "1":
        return f"REQUIRE_SERVERS=1, but: {reason}"
    return None


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    given = report.longrepr
    reason = str(given[2] if isinstance(given, tuple) else given).removeprefix("Skipped: ")
    fault = _fault_of_skip(reason)
    if fault is not None:
        report.outcome = "failed"
        report.longrepr = fault


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report)
    return report


# ------------------------------------------------------------------------------------------ cases on PostgreSQL, and who begins


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    _keep_once_on_postgresql(items)
    _put_off_postgresql(items)
    yield
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        items[:] = _longest_first(items, processes)


def _keep_once_on_postgresql(items: list[pytest.Item]) -> None:
    """`once_on_postgresql`: before `-m` chooses, all cases but a test's first become nightly ones on PostgreSQL."""
    tried = set()
    for item in items:
        if item.get_closest_marker("once_on_postgresql") is None:
            continue
        if item.get_closest_marker("needs_postgresql") is None:
            continue
        name = item.nodeid.partition("[")[0]
        if name in tried:
            item.add_marker(pytest.mark.nightly)
        tried.add(name)


def _put_off_postgresql(items: list[pytest.Item]) -> None:
    """`postgresql_at_night`: nightly on PostgreSQL, but for tests of their own `also_on_postgresql`."""
    for item in items:
        if item.get_closest_marker("postgresql_at_night") is None:
            continue
        if item.get_closest_marker("needs_postgresql") is None:
            continue
        if item.get_closest_marker("also_on_postgresql") is None:
            item.add_marker(pytest.mark.nightly)


# Seconds that they take, roughly; those that share a demo stay together.
_LONG = {
    ("test_demo.py", "test_one_reading.py"): 120,
    ("test_kill.py",): 60,
    ("test_virtual_run.py",): 50,
    ("test_isolation.py",): 60,
    ("test_orders.py",): 45,
    ("test_restore.py",): 20,
}


def _longest_first(items: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """Let each process begin with some of the tests that take minutes: none is left with one when the others are done.

    xdist gives every process one part of the list, in order, and who is done early takes from the ends of the others'.
    """
    long: list[list[pytest.Item]] = [[] for _ in range(processes)]
    seconds = [0] * processes
    for names, takes_s in _LONG.items():
        least = seconds.index(min(seconds))
        seconds[least] += takes_s
        long[least] += [item for item in items if item.path.name in names]
    begun = {item for some in long for item in some}
    others = [item for item in items if item not in begun]
    ordered: list[pytest.Item] = []
    for number, some in enumerate(long):
        room = max(0, _end_of_part(items, processes, number) - len(ordered) - len(some))
        ordered += some + others[:room]
        others = others[room:]
    return ordered + others


def _end_of_part(items: list[pytest.Item], processes: int, number: int) -> int:
    """Where the part ends that xdist gives to this process."""
    end = 0
    for passed in range(number + 1):
        end += (len(items) - end) // (processes - passed)
    return end


# ------------------------------------------------------------------------------------------------------------ figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests recorded as `measured`, also when they pass and when they ran in other processes."""
    figures = [
        str(text)
        for report in terminalreporter.getreports("passed")
        for name, text in report.user_properties
        if name == "measured"
    ]
    if figures:
        terminalreporter.section("measured")
        terminalreporter.write_line("\n".join(figures))


# ------------------------------------------------------------------------------------------------------------- sockets


def _refuse_outside(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: Python calls it before every connection, and nothing can take it away again."""
    if event not in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        return
    opened, address = arguments
    is_internet = opened.family in (socket.AF_INET, socket.AF_INET6)
    if is_internet and address is not None and not _is_here(address[0]):
        raise AssertionError(f"a test tried to reach {address[0]}")


sys.addaudithook(_refuse_outside)


def _is_here(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


# ----------------------------------------------------------------------------------------------------------- passwords


@pytest.fixture(scope="session", autouse=True)
def shipped_hasher() -> Iterator[PasswordHasher]:
    """The one of a real server. Tests have the same argon2id at the least cost there is: a hash takes long on purpose."""
    shipped = passwords.HASHER
    passwords.HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    yield shipped
    passwords.HASHER = shipped


# ----------------------------------------------------------------------------------------------------------- databases


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A PostgreSQL of our own that forgets on power loss: fast. Skipped by name where it is not installed."""
    with running_postgresql(is_durable=False) as server:
        yield server
        close_kept()


@pytest.fixture(scope="session")
def sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> SqliteDatabases:
    return SqliteDatabases(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgresql)],
)
def databases(request: pytest.FixtureRequest) -> Databases:
    """Where to get empty databases with all tables: the same tests run on both."""
    if request.param == "sqlite":
        given: Databases = request.getfixturevalue("sqlite_databases")
    else:
        given = request.getfixturevalue("postgresql_server")
    return given


@pytest.fixture
def engine(databases: Databases) -> Iterator[Engine]:
    """An empty database with all tables, of its own for the test."""
    with databases.fresh() as url:
        made = hurried_engine(url)
        yield made
        made.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    return db.session_factory(engine)


@pytest.fixture
def session(sessions: sessionmaker[Session]) -> Iterator[Session]:
    with sessions() as opened:
        yield opened

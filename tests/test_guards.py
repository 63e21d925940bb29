"""What `conftest.py` promises for all tests holds: unknown skips fail, tables are tried once, nothing leaves this machine."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent


_TRIED = """
import pytest


def test_known():
    pytest.skip("mosquitto is not installed")


def test_required(monkeypatch):
    monkeypatch.setenv("REQUIRE_SERVERS", "1")
    pytest.skip("PostgreSQL is not installed")


def test_unlisted():
    pytest.skip("not today")


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize("case", ["first", "second", "third"])
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgresql)])
def test_table(kind, case):
    pass
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of some tests below this `conftest.py`: run once, because starting is what takes the time."""
    folder = tmp_path_factory.mktemp("guarded")
    for name in ("conftest.py", "skips.txt"):
        shutil.copy(_TESTS / name, folder)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # ours, not one further up
    (folder / "test_it.py").write_text(_TRIED, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name != "REQUIRE_SERVERS"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider"),
            *("-m", "not nightly", "-W", "ignore::pytest.PytestUnknownMarkWarning", str(folder)),
        ],
        env={**kept, "PYTHONPATH": str(_TESTS)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    return done.stdout


def test_skip_for_a_known_reason_is_a_skip(told: str) -> None:
    assert "::test_known SKIPPED" in told


def test_skip_for_a_missing_server_fails_where_servers_are_required(told: str) -> None:
    assert "::test_required FAILED" in told
    assert "REQUIRE_SERVERS=1, but: PostgreSQL is not installed" in told


def test_skip_for_a_reason_that_nobody_listed_fails(told: str) -> None:
    assert "::test_unlisted FAILED" in told
    assert "not in tests/skips.txt: not today" in told


def test_of_a_table_that_is_no_matter_of_the_database_one_case_is_tried_on_postgresql(
    told: str,
) -> None:
    ran = sorted(re.findall(r"::test_table\[([^]]+)\] PASSED", told))
    assert ran == ["postgresql-first", "sqlite-first", "sqlite-second", "sqlite-third"]


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_connection_to_anywhere_else_fails(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(family) as outward,
        pytest.raises(AssertionError, match="tried to reach"),
    ):
        outward.connect((host, 80))

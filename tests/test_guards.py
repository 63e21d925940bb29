"""What `conftest.py` promises for all tests holds: unknown skips fail, nothing leaves this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parent


def _run(folder: Path, reason: str, **environment: str) -> subprocess.CompletedProcess[str]:
    for name in ("conftest.py", "skips.txt"):
        shutil.copy(_TESTS / name, folder)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # ours, not one further up
    body = f"import pytest\n\n\ndef test_it():\n    pytest.skip({reason!r})\n"
    (folder / "test_it.py").write_text(body, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name != "REQUIRE_SERVERS"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env={**kept, "PYTHONPATH": str(_TESTS), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_skip_for_a_known_reason_is_a_skip(tmp_path: Path) -> None:
    assert _run(tmp_path, "mosquitto is not installed").returncode == 0


def test_skip_for_a_missing_server_fails_where_servers_are_required(tmp_path: Path) -> None:
    done = _run(tmp_path, "mosquitto is not installed", REQUIRE_SERVERS="1")
    assert done.returncode == 1
    assert "REQUIRE_SERVERS=1" in done.stdout


def test_skip_for_a_reason_that_nobody_listed_fails(tmp_path: Path) -> None:
    done = _run(tmp_path, "not today")
    assert done.returncode == 1
    assert "not in tests/skips.txt: not today" in done.stdout


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_connection_to_anywhere_else_fails(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(family) as outward,
        pytest.raises(AssertionError, match="tried to reach"),
    ):
        outward.connect((host, 80))

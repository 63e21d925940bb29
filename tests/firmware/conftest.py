"""What every test of the firmware starts from: a board with our files on it, on the real virtual machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nodes
import pytest
from authority import TestAuthority
from scripted_broker import ScriptedBroker

from hardware.virtual_board import clock
from hardware.virtual_board.board import Board
from hardware.virtual_board.wiring import Wiring


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Flashed, enrolled, and with nothing soldered to it."""
    return nodes.make_board(tmp_path / "node", Wiring(), node=nodes.tree_3())


@pytest.fixture(scope="session")
def shared_board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """For what only computes and leaves nothing behind."""
    return nodes.flashed_board(tmp_path_factory.mktemp("shared") / "node", Wiring())


@pytest.fixture(scope="session")
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    started = ScriptedBroker()
    yield started
    started.close()


@pytest.fixture
def faster_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a socket is open, let eight seconds of the node's time pass in one of ours: for waits that end in nothing."""
    start, real_ns, real_sleep = time.monotonic_ns(), time.monotonic_ns, time.sleep
    faster = SimpleNamespace(
        monotonic_ns=lambda: start + 8 * (real_ns() - start),
        sleep=lambda seconds: real_sleep(seconds / 8),
    )
    monkeypatch.setattr(clock, "time", faster)

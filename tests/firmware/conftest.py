"""What every test of the firmware starts from: a board with our files on it, on the real virtual machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nodes
import pytest
from hardware.virtual_board.board import Board
from hardware.virtual_board.wiring import Wiring
from scripted_broker import ScriptedBroker


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """Flashed, enrolled, and with nothing soldered to it."""
    return nodes.make_board(tmp_path / "node", Wiring(), node=nodes.tree_3())


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    started = ScriptedBroker()
    yield started
    started.close()

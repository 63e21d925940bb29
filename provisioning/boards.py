"""The boards that the bench can work on, behind one small protocol.

What is written to a board, and in which order, is decided in `flashing.py` and `enrolment.py`; a board here only
runs code and stores files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hardware.virtual_board.board import Board, ScriptFailed
from provisioning.errors import BenchError, UsedWrongly

_VIRTUAL = "virtual:"
_NS_PER_US = 1000


class BenchBoard(Protocol):
    """A board with MicroPython on the bench, virtual or on a cable.

    `known_wifi` are the networks (name, password) that a board of this kind finds wherever it is.
    """

    known_wifi: Sequence[tuple[str, str]]

    def exec(self, code: str) -> str:
        """Run MicroPython code to its end and return what it printed.

        Raises:
            BenchError: the code raised, or the board does not answer.
        """

    def mkdir(self, path: str) -> None:
        """Make a folder; no error when it is there."""

    def put(self, files: Mapping[str, bytes]) -> None:
        """Store files by absolute path, in this order, replacing those of the same name."""


class VirtualBoard:
    """A virtual board in its folder. Around it is any Wi-Fi that it looks for."""

    known_wifi: Sequence[tuple[str, str]] = (("virtual", "virtual"),)

    def __init__(self, folder: Path, *, start_utc_us: int = 0) -> None:
        """Opens the folder's board, or makes one that is switched on at `start_utc_us`."""
        self.folder = folder
        try:
            self._board = Board(folder, start_utc_us=start_utc_us)
        except OSError as error:
            raise BenchError(f"{folder} is no virtual board: {error.strerror}.") from error

    def exec(self, code: str) -> str:
        try:
            return self._board.exec(code)
        except ScriptFailed as failure:
            last_line = (str(failure).strip().splitlines() or ["no reason given"])[-1]
            raise BenchError(f"The board could not do it: {last_line}.") from failure

    def mkdir(self, path: str) -> None:
        self._board.exec(f"import os\ntry:\n    os.mkdir({path!r})\nexcept OSError:\n    pass")

    def put(self, files: Mapping[str, bytes]) -> None:
        try:
            self._board.write_files(dict(files))
        except OSError as error:
            raise BenchError(f"The board's flash cannot be written: {error}.") from error


def open_board(address: str) -> BenchBoard:
    """The board at an address as the command line takes it; a virtual one that is new is switched on now.

    Raises:
        UsedWrongly: the address names no kind of board that there is.
        BenchError: its folder cannot be a board's.
    """
    if address.startswith(_VIRTUAL) and len(address) > len(_VIRTUAL):
        return VirtualBoard(
            Path(address.removeprefix(_VIRTUAL)), start_utc_us=time.time_ns() // _NS_PER_US
        )
    raise UsedWrongly(f"{address} is not a board; an address looks like virtual:FOLDER.")

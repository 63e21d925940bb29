"""The boards that the bench can work on, behind one small protocol.

What is written to a board, and in which order, is decided in `flashing.py` and `enrolment.py`; a board here only
runs code and stores files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

from provisioning import ports
from provisioning.errors import BenchError, UsedWrongly
from provisioning.serial_board import SerialBoard
from provisioning.virtual_boards import ELSEWHERE, is_of_unix

VIRTUAL = "virtual:"
_NS_PER_US = 1000


class BenchBoard(Protocol):
    """A board with MicroPython on the bench, virtual or on a cable.

    `known_wifi` are the networks (name, password) that a board of this kind finds wherever it is.
    """

    known_wifi: Sequence[tuple[str, str]]

    def __enter__(self) -> Self:
        """For `with`, at whose end the board is closed."""

    def __exit__(self, *_: object) -> None:
        """Closes the board."""

    def exec(self, code: str, *, patience_s: float = 30.0) -> str:
        """Run MicroPython code to its end and return what it printed; it may be silent for `patience_s`.

        Raises:
            BenchError: the code raised, or the board does not answer.
        """

    def put(self, files: Mapping[str, bytes]) -> None:
        """Store files by absolute path, in this order, replacing those of the same name. Their folders are there."""

    def close(self) -> None:
        """Let the board go its own way."""


class VirtualBoard:
    """A virtual board in its folder. Around it is any Wi-Fi that it looks for."""

    known_wifi: Sequence[tuple[str, str]] = (("virtual", "virtual"),)

    def __init__(self, folder: Path, *, start_utc_us: int = 0) -> None:
        """Opens the folder's board, or makes one that is switched on at `start_utc_us`."""
        # Here, because a bench with real boards may be a computer that runs no virtual ones.
        try:
            from hardware.virtual_board.board import Board
        except ModuleNotFoundError as missing:
            if not is_of_unix(missing):
                raise
            raise BenchError(ELSEWHERE) from missing

        self.folder = folder
        try:
            self._board = Board(folder, start_utc_us=start_utc_us)
        except OSError as error:
            raise BenchError(f"{folder} is no virtual board: {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """It is nobody's between two calls anyway."""

    def exec(self, code: str, *, patience_s: float = 30.0) -> str:
        from hardware.virtual_board.board import ScriptFailed

        try:
            return self._board.exec(code)
        except ScriptFailed as failure:
            last_line = (str(failure).strip().splitlines() or ["no reason given"])[-1]
            raise BenchError(f"The board could not do it: {last_line}.") from failure

    def put(self, files: Mapping[str, bytes]) -> None:
        try:
            self._board.write_files(dict(files))
        except OSError as error:
            raise BenchError(f"The board's flash cannot be written: {error}.") from error


def open_board(address: str | None) -> BenchBoard:
    """The board at an address as the command line takes it; the only one that is plugged in when none is given.

    A virtual one that is new is switched on now.

    Raises:
        UsedWrongly: the address names no kind of board that there is.
        BenchError: the board cannot be used.
    """
    address = resolve_address(address)
    if address.startswith(VIRTUAL):
        folder = Path(address.removeprefix(VIRTUAL))
        return VirtualBoard(folder, start_utc_us=time.time_ns() // _NS_PER_US)
    return SerialBoard(address)


def resolve_address(address: str | None) -> str:
    """The address, checked in its form; that of the only board that is plugged in when none is given.

    Raises:
        UsedWrongly: the address names no kind of board that there is.
        BenchError: no board is plugged in, or several are.
    """
    if address is None:
        return ports.the_one_port(ports.plugged_in())
    is_virtual = address.startswith(VIRTUAL) and len(address) > len(VIRTUAL)
    if not (is_virtual or ports.is_port(address)):
        raise UsedWrongly(f"{address} is not a board; {ports.ADDRESS_FORMS}.")
    return address

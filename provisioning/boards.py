"""The boards that the bench can work on, behind one small protocol.

What is written to a board, and in which order, is decided in `flashing.py` and `enrolment.py`; a board here only
runs code, makes folders and stores files.
"""

from __future__ import annotations

from typing import Protocol


class BenchBoard(Protocol):
    """A board with MicroPython on the bench, virtual or on a cable."""

    def exec(self, code: str) -> str:
        """Run MicroPython code to its end and return what it printed.

        Raises:
            BenchError: the code raised, or the board does not answer.
        """

    def mkdir(self, path: str) -> None:
        """Make a folder; no error when it is there."""

    def put(self, path: str, data: bytes) -> None:
        """Store a file, replacing one of this name."""

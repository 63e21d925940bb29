"""MicroPython that the bench has a board run: how bytes get into it, and how answers get out."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from provisioning.errors import BenchError

if TYPE_CHECKING:
    from provisioning.boards import BenchBoard

ANSWER = "bench:"
"""What a script prints before each line of its answer, so that anything else a board says does not disturb."""


def base64_literal(data: bytes) -> str:
    """MicroPython that is these bytes; needs `a2b_base64` of `binascii`."""
    return f"a2b_base64({base64.b64encode(data)!r})"


def ask(board: BenchBoard, code: str, *, patience_s: float = 30.0) -> list[str]:
    """Run a script and return the lines of its answer, which it prints with `say`.

    Raises:
        BenchError: it failed, or the board said nothing.
    """
    say = f"def say(text):\n    print({ANSWER!r} + text)\n"
    printed = board.exec(say + code + f"\nprint({ANSWER!r} + 'end')\n", patience_s=patience_s)
    lines = [line.removeprefix(ANSWER) for line in printed.splitlines() if line.startswith(ANSWER)]
    if not lines or lines.pop() != "end":
        raise BenchError(
            "The board did not answer in full; see to its cable and repeat the command."
        )
    return lines

"""Which lines at the prompt are complete (what the console says and does: `test_served_board.py`)."""

from __future__ import annotations

import pytest

from hardware.virtual_board.cable.repl import wants_more


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 + 1",
        "print('(')",
        "x = 'it\\'s'  # (",
        "'''a\nb'''",
        "f(1,\n2)",
        "if x:\n  y\n",
        "iffy = 3",
        "'unfinished",
        "f)",
    ],
)
def test_a_complete_statement_runs(text: str) -> None:
    assert not wants_more(text)


@pytest.mark.parametrize(
    "text",
    [
        "f(1,",
        "x = [",
        "'''a",
        '"""a\n(',
        "1 + \\",
        "if x:",
        "if x:\n  y",
        "@decorator",
        "async def f():",
        "for i in range(3): print(i)",
    ],
)
def test_an_open_one_goes_on(text: str) -> None:
    assert wants_more(text)

"""A command as somebody types it, inside this process: what it ended with, and whether it said so in one sentence."""

from __future__ import annotations

import gc
import random
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

Ended = tuple[int, str]
"""Exit status and everything on stderr."""
Typed = Callable[[str], Ended]


class Answer(NamedTuple):
    """How a command ended: exit status, all of stdout, all of stderr."""

    status: int
    out: str
    err: str


Answering = Callable[..., Answer]


def make_files_that_are_none(folder: Path) -> None:
    """`empty` (a folder), `garbage` (a text) and `noise` (bytes): none of what any command asks for."""
    (folder / "empty").mkdir()
    (folder / "garbage").write_text("\0garbage = [[[")
    (folder / "noise").write_bytes(random.Random(1).randbytes(300) + b"\xff")


@contextmanager
def tuning_undone() -> Iterator[None]:
    """For `fleet ingest` inside this process: it tunes the one it runs in before it looks at anything."""
    thresholds, switch_interval_s = gc.get_threshold(), sys.getswitchinterval()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(switch_interval_s)


def typing(
    program: str,
    main: Callable[[], NoReturn],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Typed:
    """A function that runs `program` with what is typed. Nothing may stand on stdout."""

    def run(typed: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [program, *shlex.split(typed)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert out == ""
        assert isinstance(ended.value.code, int)
        return ended.value.code, err

    return run


def answering(
    *words: str,
    main: Callable[[], NoReturn],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Answering:
    """A function that runs the command that begins with these words with further arguments."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()  # what arranging has logged
        monkeypatch.setattr(sys, "argv", [*words, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        status = ended.value.code
        assert isinstance(status, int)
        return Answer(status, *capsys.readouterr())

    return run


def is_one_sentence(err: str, sentence: str) -> bool:
    """One line of ours, or click's two lines of usage before its own; it says `sentence`."""
    *before, last = err.strip().splitlines()
    is_alone = not before or "Usage: " in err
    return is_alone and sentence in last and "Traceback" not in err

"""The frozen code in front of boot.py, on the real MicroPython: what it does with a file system that cannot be mounted."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from hardware.virtual_board.board import Board

IMAGE = Path(__file__).parents[2] / "hardware" / "micropython_image"

_DISK = """
class Disk:
    def __init__(self, mounts_after, blank, can_make):
        self.mounts_after, self.blank, self.can_make, self.made = mounts_after, blank, can_make, 0
    def mount(self):
        self.mounts_after -= 1
        if self.mounts_after >= 0 and not self.made:
            raise OSError(19)
    def make(self):
        if not self.can_make:
            raise OSError(5)
        self.made += 1
    def is_blank(self):
        return self.blank
class Failures(_Failures):
    pass
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return Board(tmp_path_factory.mktemp("image") / "board")


def boots(
    board: Board, count: int, *, mounts_after: int, blank: bool = False, can_make: bool = True
) -> Any:
    """(seconds to sleep, file systems made, failures kept) of so many boots, each with a disk like that."""
    source = (IMAGE / "first_mount.py").read_text(encoding="utf-8")
    printed = board.exec(
        f"{source}{_DISK}"
        f"Failures().store(0)\nfor _ in range({count}):\n"
        f"    disk = Disk({mounts_after}, {blank}, {can_make})\n"
        "    print((bring_up(disk, Failures()), disk.made, Failures().load()), end=',')\n"
    )
    return list(ast.literal_eval(f"[{printed}]"))


def test_a_file_system_that_mounts_at_the_third_try_is_mounted(board: Board) -> None:
    assert boots(board, 1, mounts_after=2) == [(0, 0, 0)]


def test_a_damaged_file_system_is_slept_over_longer_and_longer_before_a_new_one_is_made(
    board: Board,
) -> None:
    naps = [(60, 0, 1), (300, 0, 2), (1800, 0, 3), (7200, 0, 4), (25200, 0, 5)]
    assert boots(board, 6, mounts_after=99) == [*naps, (0, 1, 0)]


def test_a_new_chip_gets_its_file_system_at_once(board: Board) -> None:
    assert boots(board, 1, mounts_after=99, blank=True) == [(0, 1, 0)]


def test_flash_that_cannot_even_be_made_anew_does_not_stay_awake(board: Board) -> None:
    assert boots(board, 7, mounts_after=99, can_make=False)[-1] == (25200, 0, 5)


def test_everything_that_the_manifest_freezes_is_there() -> None:
    frozen: list[Path] = []

    def freeze(path: str, scripts: tuple[str, ...]) -> None:
        if not path.startswith("$("):
            frozen.extend(IMAGE / path / script for script in scripts)

    names = {
        "freeze": freeze,
        "require": lambda name: None,
        "module": lambda name, base_path: frozen.append(IMAGE / base_path / name),
        "package": lambda name, base_path: frozen.append(IMAGE / base_path / name / "__init__.py"),
    }
    exec((IMAGE / "manifest.py").read_text(encoding="utf-8"), names)  # noqa: S102 - as MicroPython's build does
    assert len(frozen) == 7
    assert [path for path in frozen if not path.is_file()] == []

"""The virtual board's flash: every power cut leaves a file system and an NVS that are old or new."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hardware.virtual_board.board import Board
from hardware.virtual_board.flash import FLASH_BYTES, PARTITIONS, PowerCutPlan

START_US = 1_780_000_000_000_000

WRITE_FILES = """
import machine, os
for n in range(3):
    with open("/log", "ab") as f:
        f.write(bytes([65 + n]) * 700)
with open("/new.tmp", "wb") as f:
    f.write(b"second" * 1000)
os.rename("/new.tmp", "/state")
os.remove("/old")
os.mkdir("/folder")
machine.deepsleep(1000)
"""

WRITE_NVS = """
import machine, esp32
n = esp32.NVS("cfg")
for i in range(12):
    n.set_blob("link", bytes([i]) * 900)
try:
    n.erase_key("gone")
except OSError:
    pass  # erased before the cut
n.set_i32("done", 1)
machine.deepsleep(1000)
"""


def _operations(board: Board) -> int:
    result = board.run_wake()
    assert result.reason == "deepsleep"
    return result.flash.programs + result.flash.erases


@pytest.fixture
def files_board(tmp_path: Path) -> Board:
    board = Board(tmp_path / "node", start_utc_us=START_US)
    board.write_files({"/main.py": WRITE_FILES.encode(), "/state": b"first", "/old": b"o" * 5000})
    return board


def _copies(board: Board, tmp_path: Path, *, torn: bool, step: int = 1):
    """One copy of the untouched board for each flash operation of its wake, cut there."""
    pristine = tmp_path / "pristine"
    shutil.copytree(board.folder, pristine)
    for operation in range(1, _operations(board) + 1, step):
        folder = tmp_path / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, folder)
        cut = Board(folder)
        cut.power_cut = PowerCutPlan(operation, torn=torn)
        yield operation, cut


@pytest.mark.parametrize("torn", [False, True])
def test_a_power_cut_at_any_flash_operation_leaves_files_old_or_new(
    files_board: Board, tmp_path: Path, torn: bool
) -> None:
    seen = set()
    for operation, board in _copies(files_board, tmp_path, torn=torn):
        result = board.run_wake()
        assert result.reason == "power_cut", operation

        state = board.read_file("/state")
        assert state in (b"first", b"second" * 1000), operation
        seen.add(state[:5])
        files = dict(board.list_files())
        log = board.read_file("/log") if "/log" in files else b""
        assert log in [b"".join(bytes([65 + n]) * 700 for n in range(done)) for done in range(4)]
        assert files.get("/old", 5000) == 5000
        # and the node can go on
        assert board.run_wake().reason in ("deepsleep", "crash")
    assert seen == {b"first", b"secon"}


@pytest.mark.parametrize("torn", [False, True])
def test_a_power_cut_at_any_flash_operation_leaves_nvs_old_or_new(
    tmp_path: Path, torn: bool
) -> None:
    board = Board(tmp_path / "node", start_utc_us=START_US)
    board.exec(
        "import esp32\nn = esp32.NVS('cfg')\nn.set_blob('link', b'start')\n"
        "n.set_blob('gone', b'x')\nesp32.NVS('id').set_blob('key', b'identity' * 100)"
    )
    board.write_file("/main.py", WRITE_NVS.encode())

    values = []
    for operation, cut in _copies(board, tmp_path, torn=torn):
        assert cut.run_wake().reason == "power_cut", operation
        assert cut.nvs_blob("id", "key") == b"identity" * 100
        link = cut.nvs_blob("cfg", "link")
        assert link in [b"start"] + [bytes([i]) * 900 for i in range(12)], operation
        values.append(-1 if link == b"start" else link[0])
        assert cut.run_wake().reason == "deepsleep", operation
        assert cut.nvs_blob("cfg", "link") == bytes([11]) * 900

    assert values == sorted(values)
    assert values[-1] == 11


def test_after_a_power_cut_the_board_starts_cold(files_board: Board) -> None:
    files_board.power_cut = PowerCutPlan(3)
    files_board.run_wake()
    files_board.write_file("/main.py", b"import machine\nprint(machine.reset_cause())")

    assert files_board.run_wake().stdout == "1\n"


def test_a_cut_planned_beyond_the_wakes_last_operation_does_not_happen(files_board: Board) -> None:
    files_board.power_cut = PowerCutPlan(100_000)

    assert files_board.run_wake().reason == "deepsleep"


def test_the_flash_is_a_chip_image_that_takes_little_disk(tmp_path: Path) -> None:
    board = Board(tmp_path, start_utc_us=START_US)
    image = board.flash_path.read_bytes()

    assert len(image) == FLASH_BYTES
    assert image[0x8000:0x8002] == b"\xaa\x50"
    assert [p.label for p in PARTITIONS] == ["nvs", "otadata", "phy_init", "ota_0", "ota_1", "vfs"]
    assert PARTITIONS[-1].offset + PARTITIONS[-1].size == FLASH_BYTES
    assert board.flash_path.stat().st_blocks * 512 < 256 * 1024


def test_erased_sectors_are_all_ones_and_programs_only_clear_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hardware.virtual_board.flash import Flash

    program = Flash.program

    def checked(self: Flash, offset: int, data: bytes) -> bool:
        before = self.read(offset, len(data))
        assert all(new & ~old == 0 for old, new in zip(before, data, strict=True))
        return program(self, offset, data)

    monkeypatch.setattr(Flash, "program", checked)
    board = Board(tmp_path, start_utc_us=START_US)
    board.write_file("/main.py", (WRITE_FILES.replace("os.remove", "#") + "").encode())
    board.run_wake()
    board.write_file("/main.py", WRITE_NVS.encode())
    board.run_wake()

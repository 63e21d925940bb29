"""What becomes of a virtual node whose boot does not end in sleep."""

import struct
import zlib
from pathlib import Path

import pytest

from hardware.virtual_board.board import Board
from hardware.virtual_board.node_folder import EnrolledNode, NodeFolder
from hardware.virtual_board.pacing import FleetClock
from hardware.virtual_board.runner_worker import WakeFailed
from hardware.virtual_board.virtual_node import VirtualNode
from hardware.virtual_board.wiring import Wiring

START_UTC_S = 1_750_000_000
SLEEPS = "import machine\nmachine.deepsleep(900_000)\n"
CLOCK = FleetClock(START_UTC_S + 86_400, 0.0, 60.0)


def record(seq: int) -> bytes:
    head = struct.pack("<BBHIIQ", 0xA5, 0, 0, seq, 1, 0)
    return head + struct.pack("<I", zlib.crc32(head))


@pytest.fixture
def folder(tmp_path: Path) -> NodeFolder:
    folder = NodeFolder(tmp_path / "tree-01")
    Board(folder.path).power_on(at_utc_us=START_UTC_S * 1_000_000)
    folder.save(EnrolledNode("tree-01", "tree-3", "n-000001"))
    return folder


def node(folder: NodeFolder, program: str, **faults: float) -> VirtualNode:
    Board(folder.path).write_file("/main.py", program.encode())
    return VirtualNode(folder, Wiring(), clock=CLOCK, fault_rates=faults)


def wakes_after_s(running: VirtualNode) -> float:
    return running.wakes_at_us / 1_000_000 - START_UTC_S


def test_a_node_that_sleeps_boots_again_when_it_said(folder: NodeFolder) -> None:
    running = node(folder, SLEEPS)
    running.wake()
    assert 900 < wakes_after_s(running) < 905
    assert (running.boots, running.power_cuts) == (1, 0)


@pytest.mark.parametrize(
    "program", ["raise ValueError('loose wire')", "pass", "import machine\nmachine.deepsleep()"]
)
def test_a_node_that_stands_still_is_reset_by_somebody_an_hour_later(
    folder: NodeFolder, program: str
) -> None:
    running = node(folder, program)
    running.wake()
    assert 3600 < wakes_after_s(running) < 3700


def test_a_crash_is_written_to_the_log_with_its_last_words(
    folder: NodeFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    node(folder, "print('about to fail')\nraise ValueError('loose wire')").wake()
    log = capfd.readouterr().err
    assert log.startswith(f"tree-01 at {START_UTC_S}: crash: ValueError: loose wire\n")
    assert "about to fail" in log


def test_a_node_whose_power_is_cut_comes_back_a_minute_later_as_at_power_on(
    folder: NodeFolder,
) -> None:
    writes = "import machine\nprint(machine.reset_cause())\nfor n in range(99):\n open('/x%d' % n, 'w').close()\n"
    running = node(folder, writes, power_cut=1.0)
    running.wake()
    assert running.power_cuts == 1
    assert 60 < wakes_after_s(running) < 62
    board = Board(folder.path)
    board.write_file("/main.py", b"import machine\nprint(machine.reset_cause())\n")
    assert board.run_wake().stdout.startswith("1\n")


def test_a_node_killed_while_awake_goes_on_later_and_its_packs_are_counted(
    folder: NodeFolder,
) -> None:
    running = node(folder, SLEEPS)
    # As SIGKILL leaves it: awake in its file, a pack already on flash, nothing in the ledger.
    running._board._rtc.save(awake=True)
    Board(folder.path).write_files(
        {"/spool/id": b"SP1\0" + (9).to_bytes(4, "little"), "/spool/00000001.seg": record(1)}
    )
    again = VirtualNode(folder, Wiring(), clock=CLOCK)
    assert (again.packs_written, again.standing().packs_held) == (1, 1)
    assert wakes_after_s(again) >= 100


def test_a_folder_without_an_enrolled_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WakeFailed, match="holds no enrolled node"):
        VirtualNode(NodeFolder(tmp_path / "nobody"), Wiring(), clock=CLOCK)


def test_a_node_whose_files_are_gone_fails_and_counts_how_often(folder: NodeFolder) -> None:
    running = node(folder, SLEEPS)
    folder.flash_path.unlink()
    for times in (1, 2):
        with pytest.raises(WakeFailed, match="tree-01"):
            running.wake()
        assert running.failures_in_a_row == times


def test_a_node_is_caught_up_once_it_is_past_now_and_holds_nothing(folder: NodeFolder) -> None:
    running = node(folder, "import machine\nmachine.deepsleep(86_400_000)\n")
    assert not running.has_caught_up
    running.wake()
    assert running.has_caught_up

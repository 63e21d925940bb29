"""The spool on the real littlefs: nothing kept is ever lost, nothing is there twice, whenever the power goes."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import nodes
import pytest
from nodes import run_on

from hardware.virtual_board.board import Board
from hardware.virtual_board.flash import PowerCutPlan
from hardware.virtual_board.ledger import FlashSpool, SpoolLedger, spool_on_flash
from hardware.virtual_board.wiring import Wiring

PREPARE = """
from node.spool import Spool
def show(spool):
    print("packs", [(p[0], p[1], p[2], p[3], p[4]) for p in spool.packs(0, 1 << 30)])
    print("next", spool.next_seq, "oldest", spool.oldest, "receipt", spool.receipt, "id", spool.id)
def fill(spool, count, day=None):
    for _ in range(count):
        seq = spool.next_seq
        spool.append(7, seq * 1000, 5, b"body %d" % seq, day)
        print("kept", seq)
"""


def _body(seq: int) -> bytes:
    return b"body %d" % seq


def _shown(lines: list[str]) -> tuple[list[int], dict[str, int]]:
    """Sequences held (each checked for its content), and the numbers of the last `show`."""
    packs = eval([line for line in lines if line.startswith("packs")][-1][6:])  # noqa: S307
    for seq, power_up, uptime_ms, n_records, body in packs:
        assert (power_up, uptime_ms, n_records, body) == (7, seq * 1000, 5, _body(seq))
    words = [line for line in lines if line.startswith("next")][-1].split()
    return [pack[0] for pack in packs], dict(zip(words[::2], map(int, words[1::2]), strict=True))


def _kept(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("kept")]


def test_a_new_spool_is_empty_and_begins_with_one(board: Board) -> None:
    held, numbers = _shown(run_on(board, PREPARE + "show(Spool('/spool', None))"))

    assert held == []
    assert (numbers["next"], numbers["oldest"], numbers["receipt"]) == (1, 1, 0)
    assert numbers["id"] > 0


def test_records_lie_on_flash_as_the_contract_says(board: Board) -> None:
    _, numbers = _shown(
        run_on(board, PREPARE + "s = Spool('/spool', None)\nfill(s, 2)\ns.mark(1)\nshow(s)")
    )

    records = b""
    for seq in (1, 2):
        record = struct.pack("<BBHIIQ", 0xA5, 5, 6, seq, 7, seq * 1000) + _body(seq)
        records += record + struct.pack("<I", zlib.crc32(record))
    mark = struct.pack("<4sIII", b"MK2\0", 1, numbers["id"], 1) + bytes(28)
    assert board.read_file("/spool/00000001.seg") == records
    assert board.read_file("/spool/id") == b"SP1\0" + struct.pack("<I", numbers["id"])
    assert board.read_file("/spool/mark1") == mark + struct.pack("<I", zlib.crc32(mark))


def _segments(board: Board) -> dict[str, int]:
    return {
        path.removeprefix("/spool/"): size
        for path, size in board.list_files("/spool")
        if path.endswith(".seg")
    }


def test_a_segment_ends_with_its_day_and_is_named_by_its_first_pack(board: Board) -> None:
    run_on(
        board,
        PREPARE + "s = Spool('/spool', None)\nfill(s, 96, 20000)\nfill(s, 96, 20001)\n"
        "fill(s, 1, 20002)\nfill(s, 1, 20003)",
    )

    assert list(_segments(board)) == ["00000001.seg", "00000061.seg", "000000c1.seg"]


def test_a_segment_of_a_busy_day_takes_four_blocks_at_most(board: Board) -> None:
    free = "print(os.statvfs('/')[3])\n"
    before, after = run_on(
        board,
        f"import os\nfrom node.spool import Spool\ns = Spool('/spool', None)\n{free}"
        f"for n in range(500): s.append(7, n, 11, bytes(130), 1)\n{free}",
    )

    segments = list(_segments(board).values())
    assert all(size <= 4 * 4088 for size in segments)
    assert all(size > 4 * 4088 - 154 for size in segments[:-1]), "none is closed early"
    assert int(before) - int(after) == sum(-(-size // 4088) for size in segments)


def test_memory_and_search_find_the_same_spool(board: Board) -> None:
    lines = run_on(
        board,
        PREPARE + "s = Spool('/spool', None)\nfill(s, 70)\ns.mark(65)\n"
        "print(Spool('/spool', s.saved()).saved())\nprint(Spool('/spool', None).saved())",
    )

    assert lines[-1] == lines[-2]


# Not the others (oldest, receipt, …): only a search could tell, and the memory has a CRC of its own.
@pytest.mark.parametrize("field", [0, 1, 9, 10, 11])
def test_memory_that_does_not_fit_the_flash_costs_a_search_only(board: Board, field: int) -> None:
    lines = run_on(
        board,
        PREPARE + f"s = Spool('/spool', None)\nfill(s, 70)\nm = s.saved()\nm[{field}] -= 1\n"
        "t = Spool('/spool', m)\nfill(t, 1)\nshow(t)",
    )

    held, numbers = _shown(lines)
    assert held == list(range(1, 72))
    assert numbers["next"] == 72


def _torn(board: Board, path: str, keep: int, rubbish: bytes = b"") -> None:
    board.write_file(path, board.read_file(path)[:keep] + rubbish)


@pytest.mark.parametrize("keep", [0, 1, 19, 20, 25, 33])
@pytest.mark.parametrize("rubbish", [b"", b"\xff" * 40, b"\xa5" * 40])
def test_a_torn_record_is_as_if_it_had_never_been(board: Board, keep: int, rubbish: bytes) -> None:
    run_on(board, PREPARE + "fill(Spool('/spool', None), 3)")
    record_bytes = 20 + 6 + 4
    if keep < record_bytes:
        _torn(board, "/spool/00000001.seg", 2 * record_bytes + keep, rubbish)

    lines = run_on(board, PREPARE + "s = Spool('/spool', None)\nfill(s, 2)\nshow(s)")

    held, numbers = _shown(lines)
    first = 3 if keep < record_bytes else 4
    if keep == 0 and not rubbish:
        assert held == [1, 2, 3, 4]
    else:
        assert held == list(range(1, first + 2))
    assert numbers["next"] == first + 2
    with spool_on_flash(board.flash_path) as files:
        ledger = SpoolLedger(Path(board.folder) / "ledger.json")
        ledger.observe(files)
    assert ledger.packs_held == len(held)


def test_a_segment_of_which_nothing_is_whole_is_written_anew(board: Board) -> None:
    run_on(board, PREPARE + "s = Spool('/spool', None)\nfill(s, 64, 1)\nfill(s, 1, 2)")
    _torn(board, "/spool/00000041.seg", 5)

    lines = run_on(board, PREPARE + "s = Spool('/spool', None)\nfill(s, 2)\nshow(s)")

    held, numbers = _shown(lines)
    assert held == list(range(1, 67))
    assert numbers["next"] == 67


def test_a_sequence_that_the_memory_knows_is_never_used_again(board: Board) -> None:
    """The last record has rotted on the flash; it may have been sent, so its sequence belongs to it for ever."""
    lines = run_on(board, PREPARE + "s = Spool('/spool', None)\nfill(s, 3)\nprint(s.saved())")
    content = bytearray(board.read_file("/spool/00000001.seg"))
    content[70] ^= 1
    board.write_file("/spool/00000001.seg", bytes(content))

    held, _ = _shown(
        run_on(board, PREPARE + f"s = Spool('/spool', {lines[-1]})\nfill(s, 1)\nshow(s)")
    )

    assert held == [1, 2, 4]


def test_packs_behind_a_rotten_one_are_still_read_and_the_lost_one_is_given_up(
    board: Board,
) -> None:
    run_on(board, PREPARE + "fill(Spool('/spool', None), 6)")
    content = bytearray(board.read_file("/spool/00000001.seg"))
    content[70] ^= 1
    board.write_file("/spool/00000001.seg", bytes(content))

    lines = run_on(
        board,
        PREPARE + "s = Spool('/spool', None)\ns.give_up_unreadable()\nprint(s.oldest)\n"
        "s.mark(2)\ns.give_up_unreadable()\nprint(s.oldest)\nshow(s)",
    )

    held, _ = _shown(lines)
    assert lines[:2] == ["1", "4"]
    assert held == [1, 2, 4, 5, 6]


def test_a_receipt_never_goes_back_and_survives(board: Board) -> None:
    lines = run_on(
        board,
        PREPARE + "s = Spool('/spool', None)\nfill(s, 9)\nfor n in (3, 8, 5, 8): s.mark(n)\n"
        "print(s.receipt, Spool('/spool', None).receipt, Spool('/spool', None).depth)",
    )

    assert lines[-1] == "8 8 1"


def test_a_damaged_mark_gives_way_to_the_one_before(board: Board) -> None:
    run_on(board, PREPARE + "s = Spool('/spool', None)\nfill(s, 9)\ns.mark(3)\ns.mark(8)")
    board.write_file("/spool/mark0", b"MK1\0 but no more")

    assert run_on(board, PREPARE + "print(Spool('/spool', None).receipt)") == ["3"]


def test_a_lost_id_is_found_again_in_the_packs(board: Board) -> None:
    code = (
        "from node import senml\nfrom node.spool import Spool\ns = Spool('/spool', None)\n"
        "n, b = senml.body(s.id, 1, 7, 9, [('bat', 1)])\ns.append(7, 9, n, b)\nprint(s.id)"
    )
    (before,) = run_on(board, code)
    board.remove_file("/spool/id")

    after = run_on(board, "from node.spool import Spool\ns = Spool('/spool', None)\nprint(s.id)")

    assert after == [before]
    assert board.read_file("/spool/id")[4:] == struct.pack("<I", int(before))


def test_three_thousand_packs_cost_a_wake_no_search(board: Board) -> None:
    """At a normal wake the id and one record are read, whatever lies there."""
    code = (
        PREPARE
        + "s = Spool('/spool', None)\nfor n in range(3000): s.append(7, n, 11, bytes(130))\n"
    )
    saved = run_on(board, code + "print(s.saved())")[-1]

    lines = run_on(
        board,
        "import os\nfrom node.spool import Spool\ndef fail(*_): raise RuntimeError\nos.ilistdir = fail\n"
        f"s = Spool('/spool', {saved})\nprint(s.append(7, 1, 11, bytes(130)))",
    )

    assert lines == ["3001"]


# --- power ---

CUT_SCRIPT = (
    PREPARE
    + """
import machine
s = Spool('/spool', None)
fill(s, 2)
s.mark(60)
print('marked')
s.resend(10, 20)
print('asked')
s.note_resent(15, 60)
print('sent')
s.note_resent(20, 60)
print('done')
fill(s, 1, 1)
show(s)
machine.deepsleep(1000)
"""
)


@pytest.fixture(scope="module")
def nearly_full_segment(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """62 packs: the script above adds to the segment, marks, sends again, and begins the next."""
    folder = tmp_path_factory.mktemp("spool") / "node"
    board = nodes.make_board(folder, Wiring(), node=nodes.tree_3())
    run_on(board, PREPARE + "s = Spool('/spool', None)\nfill(s, 62)\ns.mark(50)")
    board.write_file("/main.py", CUT_SCRIPT.encode())
    return board


def _cut_at(base: Board, folder: Path, plan: PowerCutPlan | None) -> tuple[Board, str, int]:
    shutil.copytree(base.folder, folder)
    board = Board(folder)
    board.power_cut = plan
    result = board.run_wake()
    assert result.reason == ("deepsleep" if plan is None else "power_cut")
    return board, result.stdout, result.flash.programs + result.flash.erases


def _possible_again(said: str) -> list[str]:
    """What may be left to be sent again: what the last finished step left, or the one that was cut."""
    states = ["None", "[10, 20, 10, 0]", "[10, 20, 16, 0]", "None"]
    finished = sum(word in said for word in ("asked", "sent", "done"))
    return states[finished : finished + 2]


@pytest.mark.parametrize("torn", [False, True], ids=["between", "torn"])
def test_power_cut_at_every_flash_operation_loses_and_doubles_nothing(
    nearly_full_segment: Board, tmp_path: Path, torn: bool
) -> None:
    _, _, operations = _cut_at(nearly_full_segment, tmp_path / "whole", None)
    assert operations > 10
    for operation in range(1, operations + 1):
        folder = tmp_path / str(operation)
        plan = PowerCutPlan(at_operation=operation, torn=torn)
        board, said, _ = _cut_at(nearly_full_segment, folder, plan)

        lines = run_on(board, PREPARE + "s = Spool('/spool', None)\nprint(s.again)\nshow(s)")
        held, numbers = _shown(lines)
        after, _ = _shown(run_on(board, PREPARE + "s = Spool('/spool', None)\nfill(s, 1)\nshow(s)"))

        assert held == list(range(1, len(held) + 1)), f"operation {operation}"
        assert len(held) in (62 + len(_kept(said)), 63 + len(_kept(said)))
        assert numbers["next"] == len(held) + 1
        assert numbers["receipt"] in ((60,) if "marked" in said else (50, 60))
        assert lines[0] in _possible_again(said)
        assert after == [*held, len(held) + 1]
        shutil.rmtree(folder)


def test_power_cut_while_the_spool_is_made_leaves_one_spool(tmp_path: Path) -> None:
    base = nodes.make_board(tmp_path / "base", Wiring(), node=nodes.tree_3())
    base.write_file(
        "/main.py",
        (
            PREPARE + "s = Spool('/spool', None)\nshow(s)\nimport machine\nmachine.deepsleep(1)"
        ).encode(),
    )
    _, _, operations = _cut_at(base, tmp_path / "whole", None)
    for operation in range(1, operations + 1):
        plan = PowerCutPlan(at_operation=operation, torn=operation % 2 == 0)
        board, _, _ = _cut_at(base, tmp_path / str(operation), plan)

        open_twice = "print(Spool('/spool', None).id, Spool('/spool', None).id)"
        first, second = run_on(board, PREPARE + open_twice)[-1].split()

        assert first == second
        with spool_on_flash(board.flash_path) as files:
            assert isinstance(files, FlashSpool)
        shutil.rmtree(tmp_path / str(operation))

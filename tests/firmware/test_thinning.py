"""A spool that nobody hears for weeks: what it holds, what it thins, what it asks of the flash, and what it sends again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cbor2
import nodes
import pytest
from budgets import budget
from nodes import run_on
from scripted_broker import ScriptedBroker

from fleet_server.wire.senml import (
    EventPack,
    Pack,
    ThinnedPack,
    decode_event,
    decode_telemetry,
    encode_envelope,
)
from hardware.virtual_board.board import HEAP_BYTES, Board
from hardware.virtual_board.flash import FlashCounters, PowerCutPlan
from hardware.virtual_board.ledger import packs_in_segment, spool_on_flash
from hardware.virtual_board.network import NetworkPolicy
from hardware.virtual_board.wiring import Wiring

S = 1_000_000
DAY_PACKS, PACK_MS = 96, 900_000
MONTH_PACKS = 30 * DAY_PACKS
SPOOL_BLOCKS = 512 * 1024 // 4096
# A 4 MiB serial NOR flash of an ESP32 module: at least 100,000 erases of each sector (Winbond W25Q32JV, data sheet
# revision L, §1 "Features": "Min. 100K Program-Erase cycles per sector").
ERASES_OF_A_SECTOR = 100_000
YEARS = 10

# Packs of a tree at a quarter of an hour, in the order and with the readings that the node itself would keep.
PREPARE = """
import os
from node import senml, thinning
from node.spool import Spool
def readings(n):
    dry = 1000 + n * 7919 % 30000
    found = [("r30", dry), ("r60", dry + 1), ("r90", "open" if n % 5 == 0 else dry + 2)]
    return found + [("t30", 300 - n % 400), ("t60", 318), ("t90", "absent"), ("ref", 10003), ("bat", 3874)]
SAYS = False
def keep(spool, count, power_up=7):
    for _ in range(count):
        n = spool.next_seq
        spool.make_room(n // 96)
        n = spool.next_seq
        c, body = senml.body(spool.id, n, power_up, n * 900_000, readings(n))
        spool.append(power_up, n * 900_000, c, body, n // 96)
        if SAYS: print("kept", n)
def note(spool):
    with open("/noted", "w") as file:
        file.write(repr(spool.saved()))
def noted():
    try:
        with open("/noted") as file:
            return eval(file.read())
    except OSError:
        return None
def show(spool):
    print("next", spool.next_seq, "oldest", spool.oldest, "thinned", spool.thinned, "lost", spool.lost)
"""


def expected_reading(key: str, n: int) -> int | None:
    dry = 1000 + n * 7919 % 30000
    values = {"r30": dry, "r60": dry + 1, "r90": None if n % 5 == 0 else dry + 2}
    return {**values, "t30": 300 - n % 400, "t60": 318, "t90": None, "ref": 10003, "bat": 3874}[key]


@dataclass
class Content:
    """Everything readable in a board's spool, by what it is."""

    packs: dict[int, Pack]
    thinned: dict[int, ThinnedPack]
    events: dict[int, EventPack]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [(pack.from_seq, pack.to_seq) for pack in self.thinned.values()]


def content_of(board: Board) -> Content:
    content = Content({}, {}, {})
    with spool_on_flash(board.flash_path) as files:
        segments = sorted(name for name in files.sizes() if name.endswith(".seg"))
        packs = [pack for name in segments for pack in packs_in_segment(files.read(name))]
    for pack in packs:
        envelope = encode_envelope(node_id=nodes.NODE_ID, time_utc_s=None, oldest=0)
        payload = bytes((0x98, 1 + pack.n_records)) + envelope + pack.body
        if b"_event" in pack.body:
            content.events[pack.seq] = decode_event(payload)
            continue
        found = decode_telemetry(payload)
        kind = content.packs if isinstance(found, Pack) else content.thinned
        assert pack.seq == found.seq not in {**content.packs, **content.thinned}
        kind[pack.seq] = found  # type: ignore[assignment]
    return content


def numbers(lines: list[str]) -> dict[str, int]:
    """The numbers of the last `show`."""
    words = [line for line in lines if line.startswith("next")][-1].split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def kept(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("kept")]


# Days 0 to 30, the first of them without a pack 0: the next pack begins a day for which there is no room.
FULL = 31 * DAY_PACKS - 1
FIRST_DAY = range(1, DAY_PACKS)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A tree's spool with all that fits."""
    folder = tmp_path_factory.mktemp("full") / "node"
    board = nodes.make_board(folder, nodes.soil(), node=nodes.tree_3())
    run_on(board, PREPARE + f"s = Spool('/spool', None)\nkeep(s, {FULL})\nnote(s)")
    return board


@pytest.fixture
def full_board(full: Board, tmp_path: Path) -> Board:
    return Board(shutil.copytree(full.folder, tmp_path / "node"), full.wiring)


def add(
    board: Board, before: str = "", count: int = 1, *, searched: bool = False
) -> dict[str, int]:
    """Open the spool as a good wake does, or with a search, do something, keep packs; the numbers after that."""
    opened = "s = Spool('/spool', None if SEARCHED else noted())\n".replace(
        "SEARCHED", f"{searched}"
    )
    code = f"{opened}{before}\nkeep(s, {count})\nshow(s)"
    return numbers(run_on(board, PREPARE + code))


def assert_stands_for(pack: ThinnedPack, seqs: range | list[int]) -> None:
    """The extremes are those of just these packs."""
    for key, lowest, highest, reason in pack.extremes:
        values = [v for n in seqs if (v := expected_reading(key, n)) is not None]
        if values:
            assert (lowest, highest, reason) == (min(values), max(values), None), key
        else:
            assert (lowest, highest, reason) == (None, None, "absent"), key


# --- what it holds ---


def test_thirty_days_of_a_tree_fit_and_512_kib_are_never_exceeded(board: Board) -> None:
    lines = run_on(
        board,
        PREPARE + "s = Spool('/spool', None)\n"
        "free = os.statvfs('/')[3]\nmost, least = 0, 1 << 30\n"
        f"while s.next_seq < {42 * DAY_PACKS}:\n"
        "    keep(s, 4)\n    most = max(most, free - os.statvfs('/')[3])\n"
        "    if s.thinned: least = min(least, s.newest - s.oldest + 1)\n"
        "print(most, least, s.thinned)",
    )

    most, least, thinned = map(int, lines[-1].split())
    folder_blocks, block_being_written = 2, 1
    assert most + folder_blocks + block_being_written <= SPOOL_BLOCKS
    assert least >= MONTH_PACKS, "also right after a day was given up"
    assert thinned > 9 * DAY_PACKS


def test_a_full_spool_thins_its_oldest_day_and_keeps_the_new_pack(full_board: Board) -> None:
    after = add(full_board)

    content = content_of(full_board)
    (thinned,) = content.thinned.values()
    assert (thinned.from_seq, thinned.to_seq, thinned.packs) == (1, 95, 95)
    assert (thinned.seq, max(content.packs)) == (FULL + 1, FULL + 2)
    assert (thinned.power_up, thinned.uptime_ms) == (7, PACK_MS)
    assert (thinned.until_power_up, thinned.until_uptime_ms) == (7, 95 * PACK_MS)
    assert [extreme.key for extreme in thinned.extremes] == [
        *("r30", "r60", "r90", "t30", "t60", "t90", "ref", "bat")
    ]
    assert_stands_for(thinned, FIRST_DAY)
    assert min(content.packs) == 96
    assert after == {"next": FULL + 3, "oldest": 96, "thinned": 95, "lost": 0}


def test_a_day_with_a_receipt_is_given_up_without_a_trace(full_board: Board) -> None:
    after = add(full_board, "s.mark(95)")

    content = content_of(full_board)
    assert (content.thinned, min(content.packs), max(content.packs)) == ({}, 96, FULL + 1)
    assert after == {"next": FULL + 2, "oldest": 96, "thinned": 0, "lost": 0}


def test_of_a_day_with_half_a_receipt_the_rest_is_thinned(full_board: Board) -> None:
    after = add(full_board, "s.mark(50)")

    (thinned,) = content_of(full_board).thinned.values()
    assert (thinned.from_seq, thinned.to_seq, thinned.packs) == (51, 95, 45)
    assert_stands_for(thinned, range(51, 96))
    assert (after["thinned"], after["lost"]) == (45, 0)


def test_what_the_flash_has_lost_of_a_thinned_day_is_counted_as_lost(full_board: Board) -> None:
    path = "/spool/00000001.seg"
    content = bytearray(full_board.read_file(path))
    content[40] ^= 1  # in the body of the first pack
    full_board.write_file(path, bytes(content))

    after = add(full_board)

    (thinned,) = content_of(full_board).thinned.values()
    assert (thinned.from_seq, thinned.to_seq, thinned.packs) == (1, 95, 94)
    assert_stands_for(thinned, range(2, 96))
    assert (after["thinned"], after["lost"]) == (94, 1)


def test_a_day_of_which_nothing_is_readable_is_lost_and_counted(full_board: Board) -> None:
    full_board.write_file("/spool/00000001.seg", bytes(4000))

    after = add(full_board)

    assert content_of(full_board).thinned == {}
    assert after == {"next": FULL + 2, "oldest": 96, "thinned": 0, "lost": 95}


def test_a_day_over_a_power_cut_ends_in_the_later_power_up(board: Board) -> None:
    add(board, "keep(s, 4)\nkeep(s, 3, power_up=8)\nthinning.thin(s, 7)", 0)

    (thinned,) = content_of(board).thinned.values()
    assert (thinned.power_up, thinned.uptime_ms) == (7, PACK_MS)
    assert (thinned.until_power_up, thinned.until_uptime_ms) == (8, 7 * PACK_MS)


def test_events_and_what_was_thinned_before_move_to_new_sequences(board: Board) -> None:
    event = (
        "c, b = senml.body(s.id, s.next_seq, 7, 5, [('_event', 'crash'), ('what', 'hung')])\n"
        "s.append(7, 5, c, b)\n"
    )
    first = add(board, f"keep(s, 3)\n{event}keep(s, 2)\nthinning.thin(s, 6)\nshow(s)", 3)
    before = content_of(board)
    second = add(board, "thinning.thin(s, s.newest)", 0)
    after = content_of(board)

    (old_event,) = [e for e in before.events.values() if e.seq > 6]
    (old,) = [pack for pack in before.thinned.values() if pack.seq > 6]
    (new_event,) = [e for e in after.events.values() if e.seq > 11]
    copied, made = [pack for pack in after.thinned.values() if pack.seq > 11]
    assert (old.from_seq, old.to_seq, old.packs) == (1, 6, 5)
    assert copied.extremes == old.extremes
    assert (copied.from_seq, copied.to_seq) == (1, 6)
    assert (made.from_seq, made.to_seq, made.packs) == (7, 11, 3)
    assert new_event.details == old_event.details == (("what", "hung"),)
    assert (first["thinned"], first["lost"]) == (5, 0)
    assert (second["thinned"], second["lost"]) == (8, 0)


# More channels than a thinned pack has records for, with short keys and with the longest; how many of them it then holds.
MANY_CHANNELS = {"30 short keys": (30, "", 27), "30 of the longest keys": (30, "_" * 29, 21)}
MANY = (
    PREPARE
    + """
def readings(n):
    return [("k%02dPAD" % i, 1_000_000 * i + n) for i in range(COUNT)]
s = Spool("/spool", None)
keep(s, 5)
"""
)


@pytest.mark.parametrize(("count", "pad", "held"), MANY_CHANNELS.values(), ids=MANY_CHANNELS.keys())
@pytest.mark.parametrize("begun", [False, True], ids=["at once", "begun before a power cut"])
def test_a_day_of_more_channels_than_a_pack_holds_is_thinned_to_those_that_fit(
    board: Board, count: int, pad: str, held: int, begun: bool
) -> None:
    """A record above the spool's limit would be rubbish; one that the node cannot decode again would end in every search."""
    without_its_end = "s.give_up = lambda *counts: None\n" if begun else ""
    many = MANY.replace("COUNT", str(count)).replace("PAD", pad)
    run_on(board, many + without_its_end + "thinning.thin(s, 5)")

    after = numbers(run_on(board, many.replace("keep(s, 5)", "keep(s, 1)\nshow(s)")))

    content = content_of(board)
    (thinned,) = content.thinned.values()
    assert len(thinned.extremes) == held
    last = 1_000_000 * (held - 1)
    key = f"k{held - 1:02}{pad}"
    assert thinned.extremes[-1] == (key, last + 1, last + 5, None)
    assert (after["thinned"], after["lost"], after["next"]) == (5, 0, 8)
    assert 7 in content.packs


def test_the_longest_thinned_pack_moves_along_under_a_sequence_of_more_bytes(board: Board) -> None:
    """With all of its 22 channels it would have 2047 bytes under sequence 6, and 2049 under 307."""
    keys = [f"k{i:02}" + "_" * (28 if i < 10 else 27) for i in range(22)]
    many = f"readings = lambda n: [(k, 1_000_000 * i + n) for i, k in enumerate({keys})]\n"
    few = "readings = lambda n: [('bat', n)]\n"

    add(
        board, f"{many}keep(s, 5)\nthinning.thin(s, 5)\n{few}keep(s, 300)\nthinning.thin(s, 306)", 0
    )

    assert content_of(board).ranges[-2:] == [(1, 5), (6, 306)]


def test_a_pack_that_is_too_long_to_be_found_again_is_refused(board: Board) -> None:
    after = add(
        board,
        "keep(s, 1)\ntry:\n    s.append(7, 1, 4, bytes(2049))\n    print('kept')\nexcept ValueError as e:\n    print(e)",
        2,
    )

    assert sorted(content_of(board).packs) == [1, 2, 3]
    assert after["next"] == 4


def test_a_thinned_pack_that_nobody_can_read_stops_no_search(board: Board) -> None:
    add(board, "keep(s, 1)\ns.append(7, 1, 9, b'\\xa2\\x00\\x65_from\\x02')", 0)

    assert add(board, count=1, searched=True)["next"] == 4


FULL_FILE_SYSTEM = """
for name in ("/others", "/others too"):
    with open(name, "wb") as file:
        try:
            while True: file.write(bytes(3000)); file.flush()
        except OSError: pass
"""


@pytest.mark.parametrize("event", [False, True], ids=["packs", "packs and an event"])
def test_thinned_into_a_full_file_system_a_day_is_counted_as_what_it_became(
    board: Board, event: bool
) -> None:
    """There is room only when the day itself is gone."""
    begin = "s.append(7, 5, *senml.body(s.id, 1, 7, 5, [('_event', 'crash')]))\n" if event else ""
    prepared = f"{begin}keep(s, {95 - event})\nkeep(s, 30)\n"

    after = add(board, f"{prepared}{FULL_FILE_SYSTEM}thinning.thin(s, 95)\nos.remove('/others')", 1)

    content = content_of(board)
    (thinned,) = content.thinned.values()
    assert (thinned.from_seq, thinned.to_seq, thinned.packs) == (1, 95, 95 - event)
    assert len(content.events) == event
    assert (after["oldest"], after["thinned"], after["lost"]) == (96, 95 - event, 0)
    assert add(board, count=0, searched=True) == after


def test_a_node_that_has_to_thin_does_so_in_a_wake_with_30_kb_of_its_heap_to_spare(
    full_board: Board,
) -> None:
    fill = "s = Spool('/spool', noted())\nwhile not s._is_segment_over(184, None):\n"
    run_on(
        full_board,
        PREPARE + fill + "    s.append(7, 1, *senml.body(s.id, s.next_seq, 7, 1, readings(1)))",
    )
    full_board.network_policy = NetworkPolicy(wifi="absent")
    full_board.heap_bytes = HEAP_BYTES - 30_000

    result = full_board.run_wake()

    assert (result.reason, result.stdout) == ("deepsleep", "")
    content = content_of(full_board)
    assert content.ranges == [(1, 95)]
    assert max(content.packs) > max(content.thinned), "and its new pack is kept"
    assert result.awake_us < 20 * S


@pytest.mark.nightly
def test_in_four_hundred_silent_days_thirty_stay_whole_and_a_quarter_of_a_year_of_extremes(
    full_board: Board,
) -> None:
    after = add(full_board, count=370 * DAY_PACKS)

    content = content_of(full_board)
    assert after["thinned"] + len(content.packs) == FULL + 370 * DAY_PACKS
    assert max(content.packs) - min(content.packs) + 1 >= MONTH_PACKS
    assert sum(pack.packs for pack in content.thinned.values()) > 80 * DAY_PACKS
    assert after["lost"] < 500, "only what stood for days before that"


# --- power ---

THIN_AND_SLEEP = (
    PREPARE
    + "import machine\ns = Spool('/spool', noted())\nSAYS = True\nkeep(s, 2)\nmachine.deepsleep(1000)\n"
)


EVENT_FIRST = """
s = Spool('/spool', None)
c, body = senml.body(s.id, 1, 7, 5, [("_event", "crash")])
s.append(7, 5, c, body)
"""


@pytest.fixture(scope="module")
def about_to_thin(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Its next wake thins the first day, of which an event moves along, and keeps two packs."""
    board = nodes.make_board(
        tmp_path_factory.mktemp("thin") / "node", Wiring(), node=nodes.tree_3()
    )
    run_on(board, PREPARE + EVENT_FIRST + f"keep(s, {FULL - 1})\nnote(s)")
    board.write_file("/main.py", THIN_AND_SLEEP.encode())
    return board


def cut_at(base: Board, folder: Path, plan: PowerCutPlan | None) -> tuple[Board, str, int]:
    """A copy of the board after one wake with this cut, what it printed, and its flash operations."""
    board = Board(shutil.copytree(base.folder, folder), base.wiring)
    board.power_cut = plan
    result = board.run_wake()
    assert result.reason == ("deepsleep" if plan is None else "power_cut"), result.stdout
    return board, result.stdout, result.flash.programs + result.flash.erases


def assert_nothing_is_missing(content: Content) -> None:
    """Every pack of the whole days, and of the first one the packs or what stands for them; the event in any case."""
    assert set(range(96, FULL + 1)) <= set(content.packs)
    assert content.ranges or set(range(2, 96)) <= set(content.packs)
    assert content.events


@pytest.mark.parametrize("torn", [False, True], ids=["between", "torn"])
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.nightly)])
def test_power_cut_while_a_day_is_thinned_loses_and_counts_nothing_twice(
    about_to_thin: Board, tmp_path: Path, step: int, torn: bool
) -> None:
    _, _, operations = cut_at(about_to_thin, tmp_path / "whole", None)
    assert operations > 40
    for operation in range(1 + torn * (step // 2), operations + 1, step):
        folder = tmp_path / str(operation)
        board, said, _ = cut_at(
            about_to_thin, folder, PowerCutPlan(at_operation=operation, torn=torn)
        )
        cut = content_of(board)
        after = add(board, count=20, searched=True)
        whole = content_of(board)

        assert_nothing_is_missing(cut)
        assert set(kept(said)) <= set(cut.packs), f"operation {operation}"
        assert_nothing_is_missing(whole)
        assert whole.ranges == [(1, 95)], f"operation {operation}"
        assert min(whole.packs) == 96
        assert 1 <= len(whole.events) <= 2, "cut after the copy, it is copied once more"
        assert (after["thinned"], after["lost"]) == (94, 0), f"operation {operation}"
        assert after["next"] == max(whole.packs) + 1
        shutil.rmtree(folder)


# --- wear ---


def receipt_for_all(broker: ScriptedBroker) -> Callable[[int, int], bytes]:
    """A server that has everything up to what it heard last."""

    def receipt(spool: int, _: int) -> bytes:
        return cbor2.dumps({"spool": spool, "seq": max(broker.sequences())})

    return receipt


def live(board: Board, wakes: int) -> FlashCounters:
    """What so many wakes ask of the flash, all together."""
    total = FlashCounters()
    for _ in range(wakes):
        result = board.run_wake()
        assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"
        total.erases += result.flash.erases
        total.bytes_programmed += result.flash.bytes_programmed
        total.erases_by_sector.update(result.flash.erases_by_sector)
    return total


@pytest.mark.parametrize(
    ("days", "is_heard"),
    [
        (1, False),
        pytest.param(8, True, marks=pytest.mark.nightly),
        pytest.param(20, False, marks=pytest.mark.nightly),
    ],
    ids=["a silent day", "eight days", "twenty silent days"],
)
def test_the_flash_outlives_ten_years_of_a_full_spool(
    full_board: Board,
    broker: ScriptedBroker,
    record_property: Callable[[str, object], None],
    days: int,
    is_heard: bool,
) -> None:
    """A spool in use is always full: packs with a receipt go only when their space is needed."""
    nodes.connect_to(full_board, broker.port)
    broker.behaviour.receipt_for = receipt_for_all(broker)
    if is_heard:
        run_on(full_board, PREPARE + "s = Spool('/spool', None)\ns.mark(s.newest)")
    else:
        full_board.network_policy = NetworkPolicy(wifi="absent")

    used = live(full_board, days * DAY_PACKS)

    daily, hottest = used.erases / days, max(used.erases_by_sector.values()) / days
    years = ERASES_OF_A_SECTOR / hottest / 365
    record_property(
        "measured",
        f"wear, spool full, node {'heard' if is_heard else 'silent'}, {days} days: {daily:.0f} erases a day over"
        f" {len(used.erases_by_sector)} sectors, {hottest:.1f} of the most used one: {years:.0f} years to"
        f" {ERASES_OF_A_SECTOR:,} erases",
    )
    assert daily == pytest.approx(budget("flash erases, spool full"), rel=0.1)
    # Of a single day it is chance which sector is used most: the next day it is another one.
    if days > 1:
        assert years >= YEARS
        assert hottest == pytest.approx(budget("erases of the most used sector"), rel=0.5)

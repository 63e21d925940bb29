"""Which slot runs, and when a new version gives way: the record's rules on the real virtual machine, without a board around them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import groupby

import pytest
from nodes import run_on

from hardware.virtual_board.board import Board

POWER_ON, RESET, WATCHDOG, SLEPT, SOFT = 1, 2, 3, 4, 5
HOUR = 3_600
QUARTER = 900

# A wake: what ended the one before, seconds since its reset, how it went (None: nobody said so), and what its clock is off by.
Wake = tuple[int, int, str | None, int]


def wake(outcome: str | None, cause: int = SLEPT, passed_s: int = QUARTER, off_s: int = 0) -> Wake:
    return cause, passed_s, outcome, off_s


GOOD, QUIET, UNHEARD, BROKEN = map(wake, ("stored", "quiet", "unheard", "broken"))
CRASHED = wake(None)
FIRST = wake("stored", passed_s=1)


@dataclass(frozen=True)
class Life:
    """A new version's first wakes, and which slot runs after them: `b` is the new one."""

    name: str
    wakes: tuple[Wake, ...]
    ends: str


LIVES = (
    Life("flashed into place, not heard yet", (), "b trial"),
    Life("heard once", (FIRST,), "b trial"),
    Life("heard twice with a sleep between", (FIRST, GOOD), "b confirmed"),
    Life("heard, then silence, then heard", (FIRST, QUIET, QUIET, GOOD), "b confirmed"),
    Life("heard twice, but the power went between", (FIRST, wake("stored", POWER_ON)), "b trial"),
    Life(
        "heard, power gone, heard, slept, heard",
        (FIRST, wake("stored", POWER_ON), GOOD),
        "b confirmed",
    ),
    Life("two crashes", (CRASHED, CRASHED, QUIET), "b trial"),
    Life("three crashes", (CRASHED, CRASHED, CRASHED, QUIET), "a confirmed crashed"),
    Life(
        "a crash that goes on counting after a good wake",
        (FIRST, CRASHED, BROKEN, BROKEN),
        "a confirmed broke",
    ),
    Life(
        "hangs", (CRASHED, *[wake(None, WATCHDOG)] * 2, wake("quiet", WATCHDOG)), "a confirmed hung"
    ),
    Life(
        "never sleeps",
        (CRASHED, *[wake(None, RESET)] * 2, wake("quiet", RESET)),
        "a confirmed never slept",
    ),
    Life("the power went in its wakes", (CRASHED, *[wake(None, POWER_ON)] * 8), "b trial"),
    Life("let in, never receipted", (UNHEARD, UNHEARD, UNHEARD), "a confirmed no receipt"),
    Life("breaks a step of each wake", (BROKEN, BROKEN, BROKEN), "a confirmed broke"),
    Life("nobody there for a day", (*[QUIET] * 96, GOOD, GOOD), "b confirmed"),
    Life("nobody there for 72 hours", tuple([QUIET] * 288), "b trial"),
    Life("nobody there for longer", (*[QUIET] * 290,), "a confirmed too long"),
    Life(
        "each wake after a cut of the power",
        (*[wake("quiet", POWER_ON, -900)] * 2_001,),
        "a confirmed too long",
    ),
    Life(
        "its clock is a day wrong",
        (*[wake("stored", off_s=86_400)] * 3,),
        "a confirmed wrong clock",
    ),
    Life(
        "its clock is half an hour off",
        (wake("stored", off_s=1_800), wake("stored", off_s=1_800)),
        "b confirmed",
    ),
    Life("the RTC is set in between", (FIRST, wake("stored", passed_s=800_000_000)), "b confirmed"),
)

_LIVE = """
import judge, slots
for wakes in {lives!r}:
    now = 5000
    r = judge.on_trial(slots.Record(7), 1790000000, now)
    for cause, passed, outcome, off in [one for times, one in wakes for _ in range(times)]:
        now += passed
        r = slots.decode(judge.encode(judge.after_reset(r, cause, now, True)))
        if outcome is not None and r.slot == "b":
            utc = r.utc_s + r.elapsed_s + off
            r = slots.decode(judge.encode(judge.after_wake(r, outcome, utc, now + 3)))
    print(r.slot, r.state, judge.REASONS[r.reason])
"""


@pytest.fixture(scope="module")
def ends(shared_board: Board) -> dict[str, str]:
    lives = [[(len([*run]), one) for one, run in groupby(life.wakes)] for life in LIVES]
    printed = run_on(shared_board, _LIVE.format(lives=lives))
    return dict(zip((life.name for life in LIVES), printed, strict=True))


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_new_version_is_confirmed_gives_way_or_stays_on_trial(
    ends: dict[str, str], life: Life
) -> None:
    assert ends[life.name].strip() == life.ends


_CONFIRMED = """
import judge, slots
for is_whole, causes, good_after in {lives!r}:
    r = slots.Record()
    for n, cause in enumerate(causes):
        r = judge.after_reset(r, cause, 0, is_whole)
        r = judge.note_crash(r, is_whole) if cause != 3 else r
        if n == good_after:
            r = judge.after_wake(r, "stored", None, 0)
    print(r.slot, r.state, judge.REASONS[r.reason])
"""


def test_a_confirmed_version_that_crashes_twelve_times_in_a_row_gives_way_to_a_whole_spare_slot_only(
    shared_board: Board,
) -> None:
    lives = (
        (True, [SLEPT] * 12, None, "b confirmed crashed"),
        (True, [WATCHDOG] * 12, None, "b confirmed hung"),
        (True, [SLEPT] * 11, None, "a confirmed"),
        (True, [SLEPT] * 20, 10, "a confirmed"),
        (False, [SLEPT] * 40, None, "a confirmed"),
    )

    printed = run_on(shared_board, _CONFIRMED.format(lives=[life[:3] for life in lives]))

    assert [line.strip() for line in printed] == [life[3] for life in lives]


def _copy(counter: int, slot: int, state: int, counted: int = 0) -> bytes:
    head = struct.pack("<3sIBBBBBBHIII", b"SL2", counter, slot, state, counted, *[0] * 7)
    return head + struct.pack("<I", zlib.crc32(head))


A, B = _copy(4, 0, 0), _copy(5, 1, 1, 2)
WRONG_CRC = B[:-1] + bytes((B[-1] ^ 1,))
COPIES = (
    (None, None, "a confirmed 0"),
    (A, None, "a confirmed 0"),
    (A, B, "b trial 2"),
    (B, A, "b trial 2"),
    (A, WRONG_CRC, "a confirmed 0"),
    (WRONG_CRC, b"", "a confirmed 0"),
    (A, B[:-1], "a confirmed 0"),
    (_copy(9, 7, 0), A, "a confirmed 0"),
    (_copy(9, 1, 9), A, "a confirmed 0"),
)


def test_the_whole_copy_with_the_higher_counter_names_the_slot(shared_board: Board) -> None:
    printed = run_on(
        shared_board,
        f"import judge, slots\nfor first, second in {[copies[:2] for copies in COPIES]!r}:\n"
        "    r = slots.choose(first, second)\n    print(r.slot, r.state, r.counted)\n"
        "    assert judge.encode(slots.decode(judge.encode(r))) == judge.encode(r)",
    )

    assert printed == [copies[2] for copies in COPIES]

"""The node's time: whole numbers only, one that never runs backwards, and another that is believed with care."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nodes
import pytest
from nodes import BUILT_AT_UTC_S, run_on
from scripted_broker import ScriptedBroker

from hardware.paths import firmware_dir
from hardware.virtual_board.board import Board
from hardware.virtual_board.network import NetworkPolicy

S = 1_000_000

CLOCK = f"""
import os
from node import rtc_memory
from node.clock import Clock
state = rtc_memory.State()
clock = Clock(state)
FLOOR = {BUILT_AT_UTC_S}
"""


@pytest.mark.parametrize(
    ("utc_s", "believed"),
    [
        (BUILT_AT_UTC_S - 1, False),
        (BUILT_AT_UTC_S, True),
        (BUILT_AT_UTC_S + 15 * 365 * 86_400, True),
        (4_102_444_799, True),
        (4_102_444_800, False),
        (0, False),
    ],
)
def test_time_before_the_bundle_was_built_or_beyond_2100_is_not_believed(
    board: Board, utc_s: int, believed: bool
) -> None:
    printed = run_on(
        board,
        CLOCK + f"print(clock.learn({utc_s * 1000}, 5000, FLOOR), clock.utc_s(5000))",
    )

    assert printed == [f"{believed} {utc_s if believed else None}"]


def test_a_word_an_hour_off_is_believed_only_when_a_second_agrees(board: Board) -> None:
    start = (BUILT_AT_UTC_S + 1000) * 1000
    words = [(start, 0), (start + 7_200_000, 10), (start + 9_900_000, 20), (start + 9_900_030, 30)]

    printed = run_on(
        board, CLOCK + f"for w in {words!r}: print(clock.learn(*w, FLOOR), clock.utc_ms(0))"
    )

    assert printed == [
        f"True {start}",
        f"False {start}",
        f"False {start}",
        f"True {start + 9_900_000}",
    ]


def test_uptime_runs_through_deep_sleep_and_through_every_setting_of_the_rtc(board: Board) -> None:
    printed = run_on(
        board,
        CLOCK + "a = clock.uptime_ms()\nclock.show_to_tls(FLOOR)\nb = clock.uptime_ms()\n"
        f"clock.learn({(BUILT_AT_UTC_S + 86_400) * 1000}, b, FLOOR)\nclock.show_to_tls(FLOOR)\n"
        "c = clock.uptime_ms()\nimport time\ntime.sleep_ms(500)\nd = clock.uptime_ms()\n"
        "print(a, b, c, d, time.gmtime()[:6], clock.utc_s(d))",
    )

    first, second, third, fourth = map(int, printed[0].split("(")[0].split()[:4])
    assert 0 <= first <= second <= third < 100
    assert 500 <= fourth - third < 520
    assert printed[0].endswith(f" {BUILT_AT_UTC_S + 86_400}")


def test_the_rtc_shows_utc_to_tls(board: Board) -> None:
    printed = run_on(
        board,
        CLOCK + f"clock.learn({(BUILT_AT_UTC_S + 86_400) * 1000}, clock.uptime_ms(), FLOOR)\n"
        "clock.show_to_tls(FLOOR)\nimport time\nprint(time.time())",
    )

    assert int(printed[0]) + 946_684_800 == pytest.approx(BUILT_AT_UTC_S + 86_400, abs=1)


# --- SNTP ---

NONCE = b"12345678"


def packet(**changes: Any) -> bytes:
    """A good answer to the question with NONCE, unless changed."""
    good = {"first": 0x24, "stratum": 1, "nonce": NONCE, "seconds": 3_988_888_800, "length": 48}
    fields = good | changes
    seconds = fields["seconds"].to_bytes(4, "big")
    head = bytes((fields["first"], fields["stratum"], 6, 0xEC)) + bytes(20) + fields["nonce"]
    return (head + bytes(8) + seconds + b"\x80\0\0\0")[: fields["length"]]


@pytest.mark.parametrize(
    ("answer", "utc_ms"),
    [
        (packet(), 1_779_900_000_500),
        (packet(seconds=100), ((1 << 32) + 100 - 2_208_988_800) * 1000 + 500),
        (packet(first=0xE4), None),
        (packet(first=0x23), None),
        (packet(stratum=0), None),
        (packet(stratum=16), None),
        (packet(nonce=b"87654321"), None),
        (packet(length=47), None),
        (b"", None),
    ],
    ids=[
        "good",
        "after 2036",
        "server not synchronised",
        "a question",
        "kiss of death",
        "stratum 16",
        "not asked for",
        "short",
        "empty",
    ],
)
def test_only_a_servers_answer_to_our_own_question_is_a_time(
    shared_board: Board, answer: bytes, utc_ms: int | None
) -> None:
    printed = run_on(
        shared_board,
        f"from node.link import sntp\nprint(sntp.served_utc_ms({answer!r}, {NONCE!r}))",
    )

    assert printed == [str(utc_ms)]


def test_a_time_server_below_the_floor_leaves_the_packs_without_time(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    policy = NetworkPolicy(ntp="wrong", ntp_error_s=-10 * 365 * 86_400)
    board = nodes.make_board(
        tmp_path / "node",
        nodes.soil(),
        node=nodes.tree_3(),
        port=broker.port,
        network_policy=policy,
    )

    board.run_wake()

    state = broker.state()
    assert state["utc_s"] is None
    assert state["last_error"] == "no time"
    assert -3 not in broker.packs()[0][0]


def test_a_silent_time_server_costs_seconds_and_the_old_time_goes_on(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = nodes.make_board(tmp_path / "node", nodes.soil(), node=nodes.tree_3(), port=broker.port)
    board.run_wake()
    board.network_policy = NetworkPolicy(ntp="silent")
    said = len(broker.payloads("st"))

    while len(broker.payloads("st")) == said:
        result = board.run_wake()

    assert broker.state()["utc_s"] == pytest.approx(result.ended_us // S, abs=2)
    assert result.awake_us < 8 * S


def test_time_is_never_in_a_float() -> None:
    """An ESP32's float has 24 bits: after 2^24 ms, 4.7 hours, it cannot count milliseconds any more."""
    allowed = {"cbor.py", "schema.py"}  # read the floats of others
    for path in sorted(firmware_dir().rglob("*.py")):
        tree = ast.parse(path.read_text())
        floats = [
            node.lineno
            for node in ast.walk(tree)
            if (isinstance(node, ast.Constant) and isinstance(node.value, float))
            or (isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div))
            or (isinstance(node, ast.Name) and node.id == "float")
        ]
        assert not floats or path.name in allowed, f"{path}: {floats}"


# --- drift ---


@pytest.mark.parametrize("drift_ppm", [5_000, -8_000])
def test_a_clock_that_runs_wrong_while_asleep_is_measured_and_corrected(
    tmp_path: Path, broker: ScriptedBroker, drift_ppm: int
) -> None:
    board = nodes.make_board(
        tmp_path / "node", nodes.soil(), node=nodes.tree_3(), port=broker.port, drift_ppm=drift_ppm
    )
    for _ in range(10):
        board.run_wake()
    assert broker.state()["drift_ppm"] == pytest.approx(drift_ppm, rel=0.02)

    board.network_policy = NetworkPolicy(wifi="absent")
    wakes = [board.run_wake().started_us / S for _ in range(48)]
    board.network_policy = NetworkPolicy()
    while max(broker.sequences()) < 40:
        board.run_wake()

    own_s = [started_s % 900 for started_s in wakes]
    assert max(own_s) - min(own_s) < 15, (
        "half a day without a time server; uncorrected it would be minutes"
    )
    times = {pack[2][2]: pack[0][-3] for pack in broker.packs()}
    for seq, started_s in zip(range(11, 59), wakes, strict=True):
        assert times[seq] == pytest.approx(started_s, abs=15)


def test_one_wrong_word_of_a_time_server_is_no_drift(board: Board) -> None:
    """Half a minute in an hour is less than what is doubted, and more than an oscillator errs by."""
    hour = 3_600_000
    start = BUILT_AT_UTC_S * 1000 + hour
    words = [(start + n * hour + (90_000 if n == 3 else 0), n * hour) for n in range(1, 6)]

    printed = run_on(
        board,
        CLOCK
        + f"for w in {words!r}: clock.learn(*w, FLOOR); print(state.drift_ppm, clock.utc_ms(w[1]))",
    )

    assert [line.split()[0] for line in printed] == ["None", "0", "0", "0", "0"]
    assert int(printed[-1].split()[1]) == words[-1][0]

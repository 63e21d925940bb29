"""When a node wakes, what it reads then, and when it talks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import nodes
from nodes import START_US, run_on
from scripted_broker import ScriptedBroker

from hardware.virtual_board.board import Board

S = 1_000_000
# A schedule on which nothing runs: only what `plan` and the memory say.
PLAN = f"""
from node import measuring, plan, rtc_memory
from node.clock import Clock
state = rtc_memory.State()
clock = Clock(state)
state.offset_ms = {START_US // 1000 // 3_600_000 * 3_600_000}  # uptime 0 is a full hour
class C:
    node_id = "n-3f9a1c"
    sample_s, publish_s = 900, 3600
    every_s = {{}}
    urgent_s = 300
    node = {{}}
"""


def keys_of(pack: list[dict[int, Any]]) -> list[Any]:
    return [record[0] for record in pack[5:]]


def test_of_a_thousand_nodes_no_second_of_the_hour_sees_more_than_a_few(
    shared_board: Board,
) -> None:
    """Each at a quarter of an hour by its id, and up to a minute later by its id."""
    printed = run_on(
        shared_board,
        PLAN + "for number in range(1000):\n"
        "    C.node_id = 'n-%06x' % (number * 7919)\n"
        "    after = plan.sleep_ms(clock.schedule_ms(100000), state, C) + 100000\n"
        "    state.published_ms = after - 900000\n"
        "    due = [n for n in range(4) if plan.is_publish_due(state, C, clock, after + n * 900000)]\n"
        "    print(after // 1000 - 900, due[0])",
    )

    wakes = [tuple(map(int, line.split())) for line in printed]
    assert {second for second, _ in wakes} == set(range(60))
    assert set(Counter(quarter for _, quarter in wakes).values()) <= set(range(200, 300))
    # As in a draw of 240 places: 4.2 on the average, twenty hardly ever.
    assert max(Counter(wakes).values()) < 20


def test_a_probe_with_an_interval_of_its_own_is_absent_from_the_packs_between(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = nodes.tree_3() | {"every_s": {"t30": 1800, "ref": 3600}}
    board = nodes.make_board(tmp_path / "node", nodes.soil(), node=node, port=broker.port)

    times = [board.run_wake().started_us // S for _ in range(14)]

    every = ["r30", "r60", "r90", "t60", "t90", "bat"]
    packs = {pack[2][2]: keys_of(pack) for pack in broker.packs()}
    assert packs[1] == ["r30", "r60", "r90", "t30", "t60", "t90", "ref", "bat"], "all at power-on"
    for seq in range(2, 11):
        quarter = times[seq - 1] // 900 % 4
        expected = every + ["t30"] * (quarter % 2 == 0) + ["ref"] * (quarter == 0)
        assert sorted(packs[seq]) == sorted(expected), (seq, quarter)


def test_a_probe_whose_instant_was_missed_is_read_at_the_next_one(shared_board: Board) -> None:
    printed = run_on(
        shared_board,
        PLAN + "C.node = {'probes': [{'keys': ['do', 'tw']}, {'keys': ['tu']}]}\n"
        "C.every_s = {'tu': 10800}\n"
        "for minute in (0, 15, 165, 195, 210, 345, 360, 375):\n"
        "    ms = minute * 60000 + 50000\n"
        "    probes = measuring.due(state, C, clock, ms)\n"
        "    measuring.note_read(state, C, probes, ms)\n"
        "    print(minute, [p['keys'][0] for p in probes])",
    )

    assert [line for line in printed if "tu" in line] == [
        "0 ['do', 'tu']",
        "195 ['do', 'tu']",
        "360 ['do', 'tu']",
    ]


def test_what_a_probe_has_to_be_told_is_read_with_it(shared_board: Board) -> None:
    printed = run_on(
        shared_board,
        PLAN + "C.node = {'probes': [{'keys': ['tw']}, {'keys': ['ph'], 'needs': {'key': 'tw'}}]}\n"
        "C.every_s = {'tw': 3600, 'ph': 900}\n"
        "for minute in (0, 15, 30):\n"
        "    ms = minute * 60000 + 50000\n"
        "    probes = measuring.due(state, C, clock, ms)\n"
        "    measuring.note_read(state, C, probes, ms)\n"
        "    print([p['keys'][0] for p in probes])",
    )

    assert printed == ["['tw', 'ph']"] * 3


def test_a_wake_at_which_nothing_is_due_keeps_no_pack(tmp_path: Path) -> None:
    node = nodes.tree_3() | {"bat": None}
    node["probes"] = [probe for probe in node["probes"] if probe["slot"] == "d30"]
    node["every_s"] = {"t30": 3600}
    board = nodes.make_board(tmp_path / "node", nodes.soil(), node=node)

    results = [board.run_wake() for _ in range(5)]

    assert {result.reason for result in results} == {"deepsleep"}
    (packs,) = run_on(board, "from node.spool import Spool\nprint(Spool('/spool', None).newest)")
    assert int(packs) == 2

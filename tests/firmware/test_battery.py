"""A battery that gets low: the node goes without more and more, says so, and comes back."""

from __future__ import annotations

from pathlib import Path

import nodes
import pytest
from fake_probes import FakeVoltage
from scripted_broker import ScriptedBroker
from test_limits import told

from hardware.virtual_board.board import Board, WakeResult

S = 1_000_000
THRESHOLDS = {"low_mv": 3500, "mute_mv": 3350, "stop_mv": 3200}


class Tree:
    """A node at a tree with a battery of any voltage."""

    def __init__(self, folder: Path, port: int, **node: object) -> None:
        wiring = nodes.soil()
        self._cell = FakeVoltage(0)
        wiring.analog[35] = self._cell
        node = nodes.tree_3() | THRESHOLDS | node
        self.board: Board = nodes.make_board(folder, wiring, node=node, port=port)

    def wake(self, millivolts: int) -> WakeResult:
        self._cell.microvolt = millivolts * 1000 // 2
        result = self.board.run_wake()
        assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"
        return result

    def day(self, millivolts: int) -> int:
        """Six hours of it: how often the node talked."""
        return sum(self.wake(millivolts).connections for _ in range(24))


def test_a_low_battery_costs_publishing_first_then_the_radio_then_everything(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = Tree(tmp_path / "node", broker.port)
    node.wake(3900)

    assert node.day(3900) == 6
    assert 2 <= node.day(3490) <= 3, "once to say so, then every four hours"
    assert node.day(3340) == 1, "to say so"
    stopped = node.wake(3190)
    asleep = [node.wake(3190) for _ in range(3)]

    assert [told_of[1]["level"] for told_of in told(broker)] == ["low", "mute"]
    for result in (stopped, *asleep):
        assert (result.connections, result.radio_us) == (0, 0)
        assert result.sleep_us == 6 * 3600 * S
    assert all(result.awake_us < S for result in asleep), "no probe, no flash"
    assert all(result.flash.programs == 0 for result in asleep)


def test_a_battery_that_recovers_brings_everything_back_but_not_for_a_flicker(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = Tree(tmp_path / "node", broker.port)
    node.wake(3900)
    node.wake(3190)

    node.wake(3250)
    muted = node.wake(3310)
    still = node.wake(3440)
    low = node.wake(3460)
    normal = node.wake(3600)

    assert muted.radio_us == still.radio_us == 0
    assert (low.connections, normal.connections) == (1, 1)
    assert [(name, of["level"], of["mv"]) for name, of in told(broker)] == [
        ("battery", "stop", pytest.approx(3190, abs=2)),
        ("battery", "mute", pytest.approx(3310, abs=2)),
        ("battery", "low", pytest.approx(3460, abs=2)),
        ("battery", "normal", pytest.approx(3600, abs=2)),
    ]
    assert held_none(node.board)


def held_none(board: Board) -> bool:
    (depth,) = nodes.run_on(
        board, "from node.spool import Spool\nprint(Spool('/spool', None).depth)"
    )
    return depth == "0"


def test_a_node_that_wakes_up_with_an_empty_battery_does_not_try_its_radio(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = Tree(tmp_path / "node", broker.port)

    results = [node.wake(3300) for _ in range(3)]

    assert [result.radio_us for result in results] == [0, 0, 0]


def test_a_battery_that_cannot_be_measured_changes_nothing(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = Tree(tmp_path / "node", broker.port)
    node.wake(3900)
    node.wake(3300)

    unread = [node.wake(0) for _ in range(6)]

    assert sum(result.connections for result in unread) == 0
    assert node.wake(3900).connections == 1


def test_a_node_of_an_older_configuration_has_no_thresholds(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    none = dict.fromkeys(THRESHOLDS)
    node = Tree(tmp_path / "node", broker.port, **none)
    node.wake(2900)

    assert node.day(2900) == 6


def test_a_low_battery_has_no_haste(shared_board: Board) -> None:
    printed = nodes.run_on(
        shared_board,
        "from node import plan, rtc_memory\nstate = rtc_memory.State()\nstate.crossed = {'do below 4': 0}\n"
        "for state.level in range(4): print(plan.is_urgent(state))",
    )

    assert printed == ["True", "False", "False", "False"]

"""A supply that gives way, a battery that is swapped: told once, and never the beginning of a loop."""

from __future__ import annotations

from pathlib import Path

import nodes
import pytest
from scripted_broker import ScriptedBroker
from test_battery import Tree
from test_limits import told

from hardware.virtual_board.board import Board
from hardware.virtual_board.wiring import RADIO, Brownout

S = 1_000_000
SAMPLING_PIN = nodes.tree_3()["probes"][0]["pins"]["a"]


class WeakSupply:
    """Gives way under one load, as long as it is weak."""

    def __init__(self, load: int) -> None:
        self.is_weak = True
        self._load = load

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        if self.is_weak and level and pin == self._load:
            raise Brownout("the battery is too weak for this")


def weak_tree(folder: Path, broker: ScriptedBroker, load: int) -> tuple[Board, WeakSupply]:
    supply, wiring = WeakSupply(load), nodes.soil()
    wiring.power.append(supply)
    return nodes.make_board(folder, wiring, node=nodes.tree_3(), port=broker.port), supply


@pytest.mark.parametrize(
    ("load", "step"), [(RADIO, "talk"), (SAMPLING_PIN, "sample")], ids=["radio", "probes"]
)
def test_a_supply_that_gives_way_is_told_once_with_what_was_too_much_for_it(
    tmp_path: Path, broker: ScriptedBroker, load: int, step: str
) -> None:
    board, supply = weak_tree(tmp_path / "node", broker, load)
    assert board.run_wake().reason == "brownout"
    supply.is_weak = False

    board.run_wake()
    said = broker.state()["reset_cause"]
    board.power_on(at_utc_us=board.now_us + S)
    board.run_wake()

    assert said == "brown_out"
    assert told(broker) == [
        (
            "crash",
            {
                "what": "brown-out",
                "where": step,
                "cause": "brown_out",
                "boot": 2,
                "slot": "a",
                "version": "1.2.3",
            },
        )
    ]
    assert broker.state()["reset_cause"] == "power_on"


@pytest.mark.parametrize("load", [RADIO, SAMPLING_PIN], ids=["radio", "probes"])
def test_a_supply_that_stays_weak_is_not_tried_again_and_again(
    tmp_path: Path, broker: ScriptedBroker, load: int
) -> None:
    """A loop of resets would empty what is left in the battery within hours."""
    board, supply = weak_tree(tmp_path / "node", broker, load)
    started_us = board.now_us

    brown_outs = 0
    while board.now_us < started_us + 6 * 3600 * S:
        brown_outs += board.run_wake().reason == "brownout"

    assert 3 <= brown_outs <= 30
    supply.is_weak = False
    while not broker.payloads("st"):
        assert board.run_wake().reason == "deepsleep"
        assert board.now_us < started_us + 16 * 3600 * S, "it comes back by itself"


def test_a_battery_swap_is_told_with_both_voltages(tmp_path: Path, broker: ScriptedBroker) -> None:
    node = Tree(tmp_path / "node", broker.port)
    node.wake(3600)
    for before, now in ((3600, 3650), (3650, 4100), (4100, 3900)):
        node.wake(before)
        node.board.power_on(at_utc_us=node.board.now_us + 60 * S)
        node.wake(now)

    assert told(broker) == [
        (
            "battery_swap",
            {"mv": pytest.approx(4100, abs=2), "was_mv": pytest.approx(3650, abs=2)},
        )
    ]


def test_a_quick_swap_that_the_memory_survives_is_no_brown_out(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = Tree(tmp_path / "node", broker.port)
    node.wake(3600)
    node.board.power_on(at_utc_us=node.board.now_us + S, keeps_memory=True)

    node.wake(4100)

    assert [name for name, _ in told(broker)] == ["battery_swap"]
    assert broker.state()["reset_cause"] == "power_on"


def test_a_node_that_is_switched_on_for_the_first_time_has_nothing_to_tell(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    Tree(tmp_path / "node", broker.port).wake(4100)

    assert told(broker) == []

"""Whoever mounts a node sees within a minute that it is heard, and nothing makes that last."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import nodes
import pytest
from scripted_broker import ScriptedBroker
from test_limits import told

from hardware.catalogue import load_node_model
from hardware.scenes import load_scene
from hardware.virtual_board.board import Board, WakeResult
from hardware.virtual_board.network import NetworkPolicy
from hardware.virtual_board.scene_wiring import wire_board
from hardware.virtual_board.wiring import RADIO, Brownout, Wiring
from provisioning.node_configuration import node_map

S = 1_000_000
LAMP, BUTTON = 2, 0


class Panel:
    """The lamp as somebody sees it: (on for ms, off before for ms)."""

    def __init__(self) -> None:
        self.flashes_ms: list[int] = []
        self.is_weak = False
        self._since_us = 0

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        if self.is_weak and pin == RADIO and level:
            raise Brownout("the battery is too weak for this")
        if pin != LAMP:
            return
        if level:
            self._since_us = now_us
        else:
            self.flashes_ms.append(round((now_us - self._since_us) / 1000))

    def seen(self) -> str:
        """Flashes by length since the last look: s short, L long, f flicker."""
        signs = "".join("L" if ms > 2000 else "s" if ms > 150 else "f" for ms in self.flashes_ms)
        self.flashes_ms.clear()
        return signs


class Mounted:
    """A tree's node with lamp and button."""

    def __init__(self, folder: Path, port: int, **changes: Any) -> None:
        self.panel, self.wiring = Panel(), nodes.soil()
        self.wiring.power.append(self.panel)
        self.wiring.levels[BUTTON] = 1
        node = nodes.tree_3() | {"led": LAMP, "button": BUTTON} | changes
        self.board: Board = nodes.make_board(folder, self.wiring, node=node, port=port)

    def wake(self) -> WakeResult:
        result = self.board.run_wake()
        assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"
        return result

    def until_calm(self) -> list[WakeResult]:
        """Wakes until one sleeps for longer than field mode does."""
        results = [self.wake()]
        while (results[-1].sleep_us or 0) < 31 * S:
            results.append(self.wake())
            assert len(results) < 40
        return results


@pytest.fixture
def node(tmp_path: Path, broker: ScriptedBroker) -> Mounted:
    return Mounted(tmp_path / "node", broker.port)


def test_a_node_that_is_switched_on_publishes_every_half_minute_for_ten_minutes(
    node: Mounted, broker: ScriptedBroker
) -> None:
    results = node.until_calm()
    after = [node.wake() for _ in range(4)]

    starts_s = [result.started_us // S for result in results]
    assert {later - before for before, later in itertools.pairwise(starts_s)} <= {
        29,
        30,
        31,
    }
    assert all(result.connections == 1 for result in results[:-1])
    assert 570 <= starts_s[-1] - starts_s[0] <= 660
    assert sum(result.connections for result in after) <= 1
    assert told(broker) == [("field_mode", {"by": "power_on"})]
    first_s = (results[0].ended_us - results[0].started_us) / S
    assert first_s < 60, "within a minute"


def test_the_lamp_says_how_far_the_node_came(node: Mounted, broker: ScriptedBroker) -> None:
    seen = []
    for policy, receipts in (
        (NetworkPolicy(), True),
        (NetworkPolicy(wifi="absent"), True),
        (NetworkPolicy(tcp="refused"), True),
        (NetworkPolicy(), False),
    ):
        node.board.network_policy = policy
        broker.behaviour.gives_receipts = receipts
        node.wake()
        seen.append(node.panel.seen())

    flicker = "f" * 10
    assert seen == ["s" + "ss" + "L", flicker, "s" + flicker, "s" + "ss" + flicker]


def test_the_technicians_table_says_what_the_lamp_does(shared_board: Board) -> None:
    text = (Path(__file__).parents[2] / "docs" / "technician" / "field_mode.md").read_text()

    printed = nodes.run_on(
        shared_board,
        "from node import field_mode\n"
        "for stage, (n, on, _) in field_mode.CODES.items(): print(stage, n, on)",
    )

    rows = re.findall(r"^\| .* \| (\d+) × ([\d,]+) ms \| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(f"{stage} {n} {on.replace(',', '')}" for n, on, stage in rows) == sorted(printed)


def test_a_button_begins_it_and_a_wet_or_stuck_button_does_not_keep_it_going(
    node: Mounted, broker: ScriptedBroker
) -> None:
    node.until_calm()
    assert node.board.press_button(BUTTON, at_utc_us=node.board.now_us - 60 * S)
    assert 15 <= len(node.until_calm()) <= 24
    assert told(broker)[-1] == ("field_mode", {"by": "button"})

    # Six times today, the power-on among them.
    nodes.run_on(
        node.board,
        "from node import rtc_memory\nstate = rtc_memory.load()\n"
        "state.field_starts = state.field_starts * 3\nrtc_memory.store(state)",
    )
    node.wake()
    assert not node.board.press_button(BUTTON, at_utc_us=node.board.now_us - 60 * S)
    node.board.pass_time(until_utc_us=node.board.now_us + 86_400 * S)
    node.wake()
    assert node.board.press_button(BUTTON, at_utc_us=node.board.now_us - 60 * S), "another day"

    node.wiring.levels[BUTTON] = 0  # it does not come up again
    node.until_calm()
    assert not node.board.press_button(BUTTON, at_utc_us=node.board.now_us - 60 * S)


def test_it_ends_after_ten_minutes_although_nothing_answers(node: Mounted) -> None:
    node.board.network_policy = NetworkPolicy(wifi="absent")

    results = node.until_calm()

    assert results[-1].ended_us - results[0].started_us <= 660 * S


def test_power_that_goes_again_and_again_is_no_technician(node: Mounted) -> None:
    """A weak battery that the radio brings down, with all memory lost each time."""
    sleeps_s = []
    for _ in range(5):
        sleeps_s.append((node.wake().sleep_us or 0) // S)
        node.board.power_on(at_utc_us=node.board.now_us + S)

    assert [sleep_s <= 30 for sleep_s in sleeps_s] == [True] * 3 + [False] * 2


def test_a_supply_that_gives_way_ends_it(node: Mounted, broker: ScriptedBroker) -> None:
    node.panel.is_weak = True
    assert node.board.run_wake().reason == "brownout"
    node.panel.is_weak = False

    assert (node.wake().sleep_us or 0) > 31 * S


def test_a_low_battery_leaves_no_room_for_it(tmp_path: Path, broker: ScriptedBroker) -> None:
    node = Mounted(tmp_path / "node", broker.port, mute_mv=3900)

    result = node.wake()

    assert (result.radio_us, result.connections) == (0, 0)
    assert (result.sleep_us or 0) > 31 * S


def test_the_slowest_node_is_heard_within_a_minute_too(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    """A turbidity probe with a wiper takes 52 s."""
    wiring: Wiring = wire_board(load_scene("every_probe"), "pond-02")
    content = node_map(load_node_model("pond-2"))
    board = nodes.make_board(tmp_path / "node", wiring, node=content, port=broker.port)

    first, second = board.run_wake(), board.run_wake()

    assert (first.connections, second.connections) == (1, 1)
    assert first.awake_us < 65 * S
    assert second.ended_us - first.ended_us < 65 * S

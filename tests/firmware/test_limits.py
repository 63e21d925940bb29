"""A limit that is crossed makes a node sample faster and speak at once, without flapping and without wasting its battery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nodes
import pytest
from fake_probes import FakeModbus, FakeVoltage, floats_reply
from scripted_broker import ScriptedBroker

from fleet_server.wire.senml import decode_event
from hardware.virtual_board.board import Board, WakeResult
from hardware.virtual_board.network import NetworkPolicy
from hardware.virtual_board.wiring import Wiring

S = 1_000_000
BELOW_4 = ["do", "below", 4, 4.5]
FALL_1 = ["do", "fall", 1, 0.5]


class Pond:
    """A node in water whose oxygen is what a test says."""

    def __init__(self, folder: Path, port: int, node: dict[str, Any], **options: Any) -> None:
        self._probe = FakeModbus([b""])
        wiring = Wiring(uart={2: self._probe}, analog={35: FakeVoltage(1_937_000)})
        self.board: Board = nodes.make_board(folder, wiring, node=node, port=port, **options)

    def wake(self, oxygen: float | None) -> WakeResult:
        """One wake; None: the probe is silent."""
        reply = b"" if oxygen is None else floats_reply(90.0, oxygen, 17.25)
        self._probe.replies = [reply]
        result = self.board.run_wake()
        assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"
        return result


def pond(tmp_path: Path, broker: ScriptedBroker, **changes: Any) -> Pond:
    node = nodes.pond_1() | {"limits": [BELOW_4], "urgent_s": 300} | changes
    return Pond(tmp_path / "node", broker.port, node)


def told(broker: ScriptedBroker) -> list[tuple[str, dict[str, Any]]]:
    """Every event heard, once, in the order of their sequences."""
    events = {event.seq: event for event in map(decode_event, broker.payloads("ev"))}
    return [(event.event, dict(event.details)) for _, event in sorted(events.items())]


def test_low_oxygen_is_told_at_once_and_measured_faster_until_it_has_recovered(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = pond(tmp_path, broker)
    while not node.wake(8.0).connections:
        pass
    calm = node.wake(8.0)

    crossed = node.wake(3.5)
    during = [node.wake(oxygen) for oxygen in (3.9, 4.1, 4.4)]
    cleared = node.wake(4.6)
    after = [node.wake(4.4) for _ in range(3)]

    assert (calm.connections, calm.sleep_us or 0) == (0, pytest.approx(900 * S, abs=60 * S))
    for result in (crossed, *during):
        assert result.connections == 1
        assert result.sleep_us is not None
        assert result.sleep_us <= 330 * S
    assert cleared.connections == 1
    assert sum(result.connections for result in after) <= 1, "4.4 is above the limit"
    assert told(broker) == [
        ("limit_crossed", {"key": "do", "kind": "below", "limit": 4, "value": 3.5}),
        ("limit_cleared", {"key": "do", "kind": "below", "limit": 4, "value": pytest.approx(4.6)}),
    ]


def test_a_probe_that_is_read_hourly_is_read_at_every_wake_while_its_limit_is_crossed(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = pond(tmp_path, broker, urgent_s=900, every_s={"sat": 3600})
    for oxygen in (8.0, *[3.0] * 8, *[8.0] * 8):
        node.wake(oxygen)
    while len({pack[2][2] for pack in broker.packs()}) < 15:
        node.wake(8.0)

    packs = {pack[2][2]: [record[0] for record in pack[5:]] for pack in broker.packs()}
    oxygen_packs = [seq for seq, keys in sorted(packs.items()) if "do" in keys]
    crossed = next(seq for seq in oxygen_packs if seq > 1)
    assert crossed <= 6, "within the hour"
    run = [seq for seq in oxygen_packs if crossed <= seq < crossed + 4]
    # The event took a sequence of its own, just before the reading that crossed the limit.
    assert len(run) == 4
    assert "do" not in packs[2]


def test_no_haste_lets_the_radio_try_again_sooner_after_failures(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = pond(tmp_path, broker, urgent_s=900)
    node.board.network_policy = NetworkPolicy(tcp="refused")

    tries = sum(node.wake(3.0).connections > 0 for _ in range(32))

    assert 4 <= tries <= 7


def test_a_probe_that_falls_silent_does_not_keep_the_node_hasty(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    node = pond(tmp_path, broker)
    node.wake(3.0)

    sleeps = [(node.wake(None).sleep_us or 0) // S for _ in range(6)]

    assert [sleep_s <= 330 for sleep_s in sleeps] == [True] * 3 + [False] * 3
    assert told(broker)[-1] == (
        "limit_cleared",
        {"key": "do", "kind": "below", "limit": 4, "value": "timeout"},
    )


JUDGE = """
import struct
from node import limits, rtc_memory
state = rtc_memory.State()
class C: pass
def see(minute, value):
    if not isinstance(value, str): value = struct.pack('>f', value)
    return [name for name, _ in limits.judge(state, C, minute * 60000, [('do', value), ('tw', 7)])]
"""


@pytest.mark.parametrize(
    ("limit", "readings", "crossed"),
    [
        (BELOW_4, [5, 4.01, 3.99, 4.01, 4.49, 4.5, 4.01], [0, 0, 1, 1, 1, 0, 0]),
        (["do", "above", 4, 3], [4, 5, 3.5, 4, 3, 4], [0, 1, 1, 1, 0, 0]),
        (["tw", "above", 6, 5], [1, 1], [1, 1]),
        # A quarter of an hour apart: 0.4 in a quarter is no fall of 1.6 in an hour.
        (FALL_1, [8, 7.6, 8, 7.6, 8, 7.6], [0, 0, 0, 0, 0, 0]),
        (FALL_1, [8, 7.7, 7.4, 7.1, 6.8, 6.8, 6.8, 6.8, 6.8], [0, 0, 0, 0, 1, 1, 1, 0, 0]),
        (FALL_1, [8, 6.9, 6.8, 6.7, 6.6, 6.6], [0, 1, 1, 1, 1, 0]),
        (BELOW_4, [3, "crc", "crc", 3, "crc", "crc", "crc", "crc", "crc"], [1] * 7 + [0, 0]),
        (BELOW_4, ["open", "open"], [0, 0]),
    ],
    ids=[
        "below",
        "above",
        "an integer",
        "noise",
        "slow fall",
        "sudden fall",
        "faults",
        "never read",
    ],
)
def test_limits_begin_beyond_their_value_and_end_at_another(
    shared_board: Board, limit: list[Any], readings: list[Any], crossed: list[int]
) -> None:
    printed = nodes.run_on(
        shared_board,
        JUDGE + f"C.limits = [{limit!r}]\n"
        f"for n, value in enumerate({readings!r}):\n    see(15 * n, value)\n    print(len(state.crossed))",
    )

    assert list(map(int, printed)) == crossed


def test_hourly_readings_are_compared_with_the_one_before(shared_board: Board) -> None:
    printed = nodes.run_on(
        shared_board,
        JUDGE + f"C.limits = [{FALL_1!r}]\n"
        "for n, value in enumerate([8, 7.2, 6.1, 5.9]): print(see(60 * n, value))\n"
        "print(see(60 * 3 + 300, 2))",  # 3.9 in five hours
    )

    assert printed == ["[]", "[]", "['limit_crossed']", "['limit_cleared']", "[]"]


def test_what_the_node_remembers_of_limits_has_an_end(shared_board: Board) -> None:
    """The RTC's memory holds 2,048 bytes and 256 items."""
    (printed,) = nodes.run_on(
        shared_board,
        JUDGE
        + "C.limits = [['c%030d' % n, kind, -1, 1] for n in range(99) for kind in ('fall', 'below')]\n"
        "for n in range(200):\n"
        "    limits.judge(state, C, n * 60000, [('c%030d' % k, -n) for k in range(99)])\n"
        "rtc_memory.store(state)\nimport machine\n"
        "print(len(machine.RTC().memory()), len(rtc_memory._decode(machine.RTC().memory()).crossed))",
    )

    size, crossed = map(int, printed.split())
    assert (size < 2000, crossed) == (True, 16)

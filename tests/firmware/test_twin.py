"""What the server desires of a node, on the real virtual machine: a configuration holds whole or not at all and finds its way back;
a command is carried out once or not at all, and answered.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import nodes
import pytest
from scripted_broker import ScriptedBroker

from fleet_server.wire.configuration import sha256_hex
from fleet_server.wire.senml import decode_event, decode_pack
from fleet_server.wire.state_message import NodeStateMessage, decode_state
from hardware.virtual_board.board import Board, ScriptFailed, WakeResult
from hardware.virtual_board.flash import PowerCutPlan
from hardware.virtual_board.network import NetworkPolicy
from hardware.virtual_board.radio import AccessPoint

S = 1_000_000
INTERVALS = {"sample_s": 900, "publish_s": 3600}
NOWHERE = [["nirgends", "geheimnis"]]


def desired(
    values: dict[str, Any] | None = None, version: int = 2, commands: tuple[Any, ...] = ()
) -> bytes:
    return cbor2.dumps(
        {
            "config": {"version": version, "values": INTERVALS | (values or {})},
            "release": None,
            "commands": list(commands),
            "certificate": None,
        }
    )


def order(number: int, name: str, *, expires: int = 4_000_000_000, **args: Any) -> dict[str, Any]:
    return {"id": number, "name": name, "args": args, "expires": expires}


@pytest.fixture
def board(tmp_path: Path, broker: ScriptedBroker) -> Board:
    """A tree's node that was heard once, as provisioned."""
    made = nodes.make_board(
        tmp_path / "node", nodes.soil(), node=nodes.tree_3() | {"led": 2}, port=broker.port
    )
    broker.behaviour.desired = desired(version=1)
    wake(made)
    return made


@pytest.fixture
def other_broker() -> Iterator[ScriptedBroker]:
    started = ScriptedBroker()
    yield started
    started.close()


def wake(board: Board) -> WakeResult:
    """One wake, which must end in deep sleep."""
    result = board.run_wake()
    assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"
    return result


def talk(board: Board, broker: ScriptedBroker) -> NodeStateMessage:
    """Wakes until the node has said its state once more."""
    said = len(broker.payloads("st"))
    for _ in range(8):
        wake(board)
        if len(broker.payloads("st")) > said:
            return state(broker)
    raise AssertionError("the node was not heard")


def state(broker: ScriptedBroker) -> NodeStateMessage:
    return decode_state(broker.payloads("st")[-1])


def answers(broker: ScriptedBroker) -> list[tuple[int, str, str]]:
    """(id, name, result) of every answer, in order of their numbers."""
    events = {decode_event(payload).seq: decode_event(payload) for payload in broker.payloads("ev")}
    details = [dict(events[seq].details) for seq in sorted(events) if events[seq].event == "answer"]
    return [(int(one["id"]), str(one["name"]), str(one["result"])) for one in details]


# --- a configuration ---


def test_a_configuration_holds_at_once_and_is_confirmed_by_the_next_good_talk(
    board: Board, broker: ScriptedBroker
) -> None:
    values = {"sample_s": 300, "low_mv": 3_600, "limits": [["t30", "below", 32, 40.5]]}
    broker.behaviour.desired = desired(values)

    tried = talk(board, broker)
    board.power_on()
    confirmed = talk(board, broker)

    assert (tried.config_version, tried.config_state) == (2, "trial")
    assert (confirmed.config_version, confirmed.config_state) == (2, "trial"), "it is said first"
    assert talk(board, broker).config_state == "confirmed"
    assert state(broker).config_sha256 == sha256_hex(2, INTERVALS | values)
    assert nodes.run_on(
        board,
        "from node.config import Config\nc = Config()\n"
        "print(c.sample_s, c.desired('low_mv'), c.desired('limits'), c.desired('wrong', 7))",
    ) == ["300 3600 [['t30', 'below', 32, 40.5]] 7"]


def test_a_configuration_that_cannot_be_is_refused_by_name(
    board: Board, broker: ScriptedBroker
) -> None:
    broker.behaviour.desired = desired({"limits": [["do", "below", 4, 5]]})

    said = talk(board, broker)

    assert (said.config_version, said.config_state, said.config_reason) == (1, "refused", "limits")


def test_networks_that_are_not_there_are_left_again_by_itself(
    board: Board, broker: ScriptedBroker, faster_waits: None
) -> None:
    board.network_policy = NetworkPolicy(access_points=(AccessPoint("stadt", "geheim"),))
    broker.behaviour.desired = desired({"wifi": NOWHERE})
    tried = talk(board, broker)

    back = talk(board, broker)
    again = talk(board, broker)
    broker.behaviour.desired = desired({"publish_s": 1800}, version=3)
    talk(board, broker)

    assert (tried.config_version, tried.config_state) == (2, "trial")
    assert (back.config_version, back.config_state) == (1, "rolled_back")
    assert back.config_reason is not None
    assert "wifi" in back.config_reason
    assert (again.config_version, again.config_state) == (1, "rolled_back"), "not tried again"
    assert (state(broker).config_version, state(broker).config_state) == (3, "trial")
    assert "geheimnis" not in repr(broker.published)


def test_a_broker_that_moves_is_followed(
    board: Board, broker: ScriptedBroker, other_broker: ScriptedBroker
) -> None:
    other_broker.receipts = broker.receipts  # there is one server
    moved = desired({"host": "127.0.0.1", "port": other_broker.port})
    broker.behaviour.desired = other_broker.behaviour.desired = moved
    talk(board, broker)

    wake(board)
    wake(board)

    assert state(other_broker).config_state == "confirmed"
    assert len(broker.payloads("st")) == 2


def test_a_broker_without_a_server_behind_it_is_left_again(
    board: Board, broker: ScriptedBroker, other_broker: ScriptedBroker, faster_waits: None
) -> None:
    other_broker.behaviour.gives_receipts = False
    other_broker.behaviour.desired = None
    broker.behaviour.desired = desired({"port": other_broker.port})
    talk(board, broker)

    back = talk(board, broker)

    assert other_broker.connections == 3
    assert (back.config_version, back.config_state) == (1, "rolled_back")
    assert back.config_reason == "LinkError: no receipt"
    assert back.spool_depth == 4


def test_an_outage_is_no_failure_of_a_configuration_that_leaves_the_link_alone(
    board: Board, broker: ScriptedBroker
) -> None:
    broker.behaviour.desired = desired({"publish_s": 900})
    talk(board, broker)
    board.network_policy = NetworkPolicy(wifi="absent")

    for _ in range(12):
        wake(board)
    board.network_policy = NetworkPolicy()
    talk(board, broker)

    assert (state(broker).config_version, state(broker).config_state) == (2, "trial")
    assert talk(board, broker).config_state == "confirmed"


def test_a_configuration_under_which_wakes_crash_is_left_again(
    board: Board, broker: ScriptedBroker
) -> None:
    board.write_file("/a/node/whole_plan.mpy", board.read_file("/a/node/plan.mpy"))
    board.remove_file("/a/node/plan.mpy")
    board.write_file(
        "/a/node/plan.py",
        b"from node import whole_plan\nfrom node.whole_plan import *\n"
        b"def is_publish_due(state, config, *more):\n    if config.sample_s == 300: raise ValueError\n"
        b"    return whole_plan.is_publish_due(state, config, *more)\n",
    )
    broker.behaviour.desired = desired({"sample_s": 300})
    talk(board, broker)

    back = talk(board, broker)

    assert (back.config_version, back.config_state) == (1, "rolled_back")
    assert back.config_reason == "ValueError: "
    assert any(decode_event(payload).event == "crash" for payload in broker.payloads("ev"))


def test_a_node_that_is_provisioned_anew_forgets_what_was_desired_of_it_before(
    board: Board, broker: ScriptedBroker, other_broker: ScriptedBroker
) -> None:
    broker.behaviour.desired = desired({"sample_s": 300, "port": broker.port, "host": "127.0.0.1"})
    talk(board, broker)
    talk(board, broker)

    nodes.connect_to(board, other_broker.port)
    other_broker.behaviour.desired = desired(version=1)
    board.power_on(at_utc_us=board.now_us + 60 * S)
    wake(board)

    assert (state(other_broker).config_version, state(other_broker).config_state) == (
        1,
        "confirmed",
    )


# Taken, confirmed; another one taken, failed three times and given up: every transition there is, until the NVS has changed its half.
TRANSITIONS = """
from node.config import Config
class State: pass
state = State()
state.bearer = None
def show():
    c = Config()
    print([c.version, c.sample_s, c.link["host"], len(c.values.get("wifi", ())), c.state])
def steps(version):
    values = {"sample_s": 60 * version, "publish_s": 3600, "wifi": [["n" * 30, "p" * 50]] * (version - 4)}
    yield lambda c: c.apply({"version": version, "values": values}, None)
    yield lambda c: c.note_talk(state, True)
    values = dict(values)
    values["host"] = "h%d" % version
    yield lambda c: c.apply({"version": version + 100, "values": values}, None)
    for _ in range(3):
        yield lambda c: c.note_failure(state, "no way")
show()
for version in (5, 6, 7, 8):
    for step in steps(version):
        step(Config())
        show()
"""


def test_whenever_the_power_goes_the_whole_old_or_the_whole_new_configuration_holds(
    board: Board, tmp_path: Path
) -> None:
    base = shutil.copytree(board.folder, tmp_path / "base")
    whole = nodes.run_on(board, TRANSITIONS)
    show = TRANSITIONS.partition("def steps")[0] + "show()"
    operations = 0
    for operation in range(1, 100):
        cut = Board(shutil.copytree(base, tmp_path / "cut", dirs_exist_ok=True))
        cut.power_cut = PowerCutPlan(at_operation=operation, torn=operation % 2 == 1)
        try:
            nodes.run_on(cut, TRANSITIONS)
        except ScriptFailed as failed:
            shown = str(failed).splitlines()
        else:
            break
        done = sum(line == expected for line, expected in zip(shown, whole, strict=False))
        operations = operation
        (found,) = nodes.run_on(cut, show)
        assert found in whole[done - 1 : done + 1]
    assert len(set(whole)) == 17
    assert operations > 24, "the other half was begun, too"


# --- commands ---


class Led:
    """What a person sees at GPIO 2: how often it went on."""

    def __init__(self) -> None:
        self.flashes = 0

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        self.flashes += pin == 2 and level == 1


ALL = (
    order(11, "dump_log"),
    order(12, "identify"),
    order(13, "self_test"),
    order(14, "read_now"),
    order(15, "resend", **{"from": 1, "to": 1}),
    order(16, "reboot"),
)


def test_each_command_is_carried_out_once_and_answered(
    board: Board, broker: ScriptedBroker
) -> None:
    led = Led()
    board.wiring.power.append(led)
    sent = len(broker.payloads("tm"))
    broker.behaviour.desired = desired(version=1, commands=ALL)

    reasons = [board.run_wake().reason for _ in range(7)]

    assert reasons.count("reset") == 1
    assert led.flashes == 20
    assert sorted(answers(broker)) == [
        (11, "dump_log", "done"),
        (12, "identify", "done"),
        (13, "self_test", "done"),
        (14, "read_now", "done"),
        (15, "resend", "done"),
        (16, "reboot", "done"),
    ]
    sequences = broker.sequences()[sent:]
    assert sequences.count(1) == 1, "asked for again, once"
    events = [decode_event(payload) for payload in broker.payloads("ev")]
    details = {event.details[1][1]: dict(event.details) for event in events}
    packs = {decode_pack(payload).seq: decode_pack(payload) for payload in broker.payloads("tm")}
    read_now = packs[int(details["read_now"]["seq"])]
    assert [key for key, _, _ in read_now.readings] == [key for key, _, _ in packs[1].readings]
    assert details["self_test"]["channels"] == len(packs[1].readings)
    assert (details["resend"]["from"], details["resend"]["to"]) == (1, 1)
    assert details["dump_log"]["boots"] == 3
    assert state(broker).reset_cause == "deep_sleep"


ANSWERED: dict[str, tuple[dict[str, Any], str]] = {
    "too late": (order(21, "reboot", expires=1_700_000_000), "expired"),
    "unknown": (order(22, "dance"), "unsupported"),
    "another node's confirmation": (order(23, "factory_reset", confirm="n-other"), "refused"),
    "no confirmation": (order(24, "factory_reset"), "refused"),
    "range of texts": (order(25, "resend", **{"from": "1", "to": "2"}), "refused"),
    "range that is not held": (order(26, "resend", **{"from": 900, "to": 901}), "failed"),
}


def test_what_is_not_carried_out_is_answered_too(board: Board, broker: ScriptedBroker) -> None:
    rubbish = (7, [], {"id": "x", "name": "reboot", "expires": 1}, {"id": 3, "name": "reboot"})
    given = [one for one, _ in ANSWERED.values()]
    broker.behaviour.desired = desired(version=1, commands=(*rubbish, *given))

    talk(board, broker)
    talk(board, broker)

    assert sorted(answers(broker)) == [
        (one["id"], one["name"], result) for one, result in ANSWERED.values()
    ]


def test_a_node_without_a_led_says_that_it_cannot_show_itself(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = nodes.make_board(tmp_path / "dark", nodes.soil(), node=nodes.tree_3(), port=broker.port)
    broker.behaviour.desired = desired(version=1, commands=(order(5, "identify"),))

    talk(board, broker)

    assert answers(broker) == [(5, "identify", "unsupported")]


def test_a_probe_that_fails_its_self_test_is_named(board: Board, broker: ScriptedBroker) -> None:
    (broken,) = [probe for probe in nodes.tree_3()["probes"] if probe["keys"] == ["t30"]]
    del board.wiring.one_wire[broken["pins"]["data"]]
    broker.behaviour.desired = desired(version=1, commands=(order(6, "self_test"),))

    talk(board, broker)
    talk(board, broker)

    (event,) = [decode_event(payload) for payload in broker.payloads("ev")]
    details = dict(event.details)
    assert (details["result"], details["why"]) == ("failed", "t30 absent")


def test_before_the_time_is_known_nothing_is_carried_out(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = nodes.make_board(
        tmp_path / "node",
        nodes.soil(),
        node=nodes.tree_3(),
        port=broker.port,
        link={"ntp": ""},
    )
    broker.behaviour.desired = desired(version=1, commands=(order(6, "dump_log"),))

    talk(board, broker)
    assert answers(broker) == []
    nodes.connect_to(board, broker.port)
    talk(board, broker)
    talk(board, broker)

    assert answers(broker) == [(6, "dump_log", "done")]


def test_of_sixteen_commands_each_is_remembered(board: Board, broker: ScriptedBroker) -> None:
    for number in range(1, 17):
        broker.behaviour.desired = desired(version=1, commands=(order(number, "dance"),))
        board.power_on(at_utc_us=board.now_us + 60 * S)
        wake(board)
    broker.behaviour.desired = desired(
        version=1, commands=tuple(order(number, "dance") for number in range(1, 17))
    )

    board.power_on(at_utc_us=board.now_us + 60 * S)
    wake(board)

    assert [number for number, _, _ in answers(broker)] == list(range(1, 17))


def test_a_factory_reset_brings_back_what_was_provisioned_and_keeps_the_readings(
    board: Board, broker: ScriptedBroker
) -> None:
    broker.behaviour.desired = desired({"sample_s": 300})
    talk(board, broker)
    talk(board, broker)
    broker.behaviour.gives_receipts = False
    broker.behaviour.desired = desired(
        {"sample_s": 300}, commands=(order(9, "factory_reset", confirm=nodes.NODE_ID),)
    )
    while board.run_wake().reason != "reset":
        pass
    before = state(broker)
    broker.behaviour.gives_receipts = True
    broker.behaviour.desired = desired(version=3)

    talk(board, broker)

    assert answers(broker) == [(9, "factory_reset", "done")]
    assert (state(broker).config_version, state(broker).spool) == (3, before.spool)
    assert state(broker).power_up != before.power_up
    assert set(range(1, max(broker.sequences()))) <= {
        *broker.sequences(),
        *(decode_event(payload).seq for payload in broker.payloads("ev")),
    }


def test_whenever_the_power_goes_a_command_is_carried_out_once_at_most_and_answered(
    board: Board, broker: ScriptedBroker, tmp_path: Path
) -> None:
    """One that is carried out during the talk, and one after it."""
    commands = (order(8, "resend", **{"from": 1, "to": 1}), order(9, "read_now"))
    broker.behaviour.desired = desired(version=1, commands=commands)
    before = len(broker.published)
    results = set()
    for operation in range(1, 60):
        cut = Board(shutil.copytree(board.folder, tmp_path / "cut"), nodes.soil())
        cut.power_on(at_utc_us=cut.now_us + 60 * S)
        cut.power_cut = PowerCutPlan(at_operation=operation, torn=operation % 2 == 1)
        reason = cut.run_wake().reason
        for _ in range(2):
            cut.power_on(at_utc_us=cut.now_us + 60 * S)
            wake(cut)

        given = answers(broker)
        assert {name for _, name, _ in given} == {"resend", "read_now"}
        assert len(given) <= 3, "the power may go between one answer and the note of it"
        assert {result for _, _, result in given} <= {"done", "interrupted"}
        assert given.count((9, "read_now", "done")) <= 1
        results |= set(given)
        broker.forget(after=before)
        shutil.rmtree(cut.folder)
        if reason == "deepsleep":
            break
    assert len(results) == 4, "each was carried out, and each was interrupted"

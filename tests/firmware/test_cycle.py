"""Whole wakes, from the reset to deep sleep, against a scripted broker."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import nodes
import pytest
from authority import TestAuthority
from scripted_broker import CONNECT, PUBLISH, SUBSCRIBE, ScriptedBroker

from fleet_server.wire.senml import MAX_EVENT_BODY_BYTES, decode_event
from hardware.virtual_board.board import Board, WakeResult
from hardware.virtual_board.flash import PowerCutPlan
from hardware.virtual_board.ledger import (
    SpooledPack,
    SpoolLedger,
    packs_in_segment,
    spool_on_flash,
)
from hardware.virtual_board.network import NetworkPolicy

S = 1_000_000
SAMPLE_S, PUBLISH_S = 900, 3600


def tree(folder: Path, broker: ScriptedBroker, **options: Any) -> Board:
    options.setdefault("node", nodes.tree_3())
    return nodes.make_board(folder / "node", nodes.soil(), port=broker.port, **options)


def wake(board: Board) -> WakeResult:
    """One wake, which must end in deep sleep."""
    result = board.run_wake()
    assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"
    assert result.stdout == ""
    return result


def held(board: Board) -> tuple[list[tuple[int, int]], int]:
    """Sequences without a receipt by ranges, and how many packs were ever written."""
    ledger = SpoolLedger(board.folder / "ledger.json")
    with spool_on_flash(board.flash_path) as files:
        ledger.observe(files)
    return next(iter(ledger.held().values()), []), ledger.packs_written


def packs_on_flash(board: Board, *, above: int) -> list[SpooledPack]:
    """Every pack above a sequence, in order."""
    with spool_on_flash(board.flash_path) as files:
        segments = sorted(name for name in files.sizes() if name.endswith(".seg"))
        packs = [pack for name in segments for pack in packs_in_segment(files.read(name))]
    return [pack for pack in packs if pack.seq > above]


def assert_one_body_each(broker: ScriptedBroker) -> set[int]:
    """However often a pack was sent, it was the same pack; the sequences sent."""
    bodies: dict[int, Any] = {}
    for pack in broker.packs():
        assert bodies.setdefault(pack[2][2], pack[1:]) == pack[1:]
    return set(bodies)


# --- a good day ---


def test_first_wake_measures_keeps_and_is_heard_at_once(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker)

    result = wake(board)

    (pack,) = broker.packs()
    envelope, spool, seq, up, ms, *readings = pack
    state = broker.state()
    assert envelope == {-2: "n-3f9a1c:", -3: result.started_us // S, 0: "_oldest", 2: 1}
    assert seq == {0: "_seq", 2: 1}
    assert readings == [
        {0: "r30", 2: pytest.approx(4000, abs=20)},
        {0: "r60", 2: pytest.approx(4000, abs=20)},
        {0: "r90", 2: pytest.approx(4000, abs=20)},
        {0: "t30", 2: 318},
        {0: "t60", 2: 318},
        {0: "t90", 2: 318},
        {0: "ref", 2: pytest.approx(10_000, abs=40)},
        {0: "bat", 2: pytest.approx(3874, abs=3)},
    ]
    assert (state["spool"], state["power_up"]) == (spool[2], up[2])
    assert ms[2] <= state["uptime_ms"]
    assert held(board) == ([], 1)
    assert result.awake_us < 6 * S, "a scan and DHCP, once per power-up"


def test_state_says_what_the_node_is(tmp_path: Path, broker: ScriptedBroker) -> None:
    wake(tree(tmp_path, broker))

    state = broker.state()
    expected = {
        "model": "tree-3",
        "version": "1.2.3",
        "bundle_sha256": nodes.bundle().sha256,
        "config_version": 1,
        "slot": "a",
        "slot_state": "confirmed",
        "rssi_dbm": -63,
        "spool_depth": 1,
        "oldest": 1,
        "newest": 1,
        "boot_count": 1,
        "reset_cause": "power_on",
        "drift_ppm": None,
        "last_error": None,
    }
    assert {name: state[name] for name in expected} == expected
    assert state["battery_mv"] == pytest.approx(3874, abs=3)
    assert state["utc_s"] == pytest.approx(nodes.START_US // S + 2, abs=2)
    assert state["heap_low"] >= 30_000  # type: ignore[operator]


def test_sampling_keeps_to_the_quarter_hours_and_publishing_to_the_hour(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker, drift_ppm=5_000)

    wake(board)
    wakes = [wake(board) for _ in range(24)]

    own_s = [result.started_us // S % SAMPLE_S for result in wakes]
    assert max(own_s) - min(own_s) <= 20
    assert 0 <= min(own_s) <= 60, "the node's id adds up to a minute"
    assert len({result.started_us // S // SAMPLE_S for result in wakes}) == 24
    assert sum(result.connections for result in wakes) == 6
    assert sorted(broker.sequences()) == list(range(1, 1 + max(broker.sequences())))
    assert max(broker.sequences()) >= 22


def test_newest_pack_is_sent_first_and_then_the_backlog_in_order(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker, network_policy=NetworkPolicy(wifi="absent"))
    for _ in range(4):
        wake(board)

    board.network_policy = NetworkPolicy()
    while not broker.published:
        wake(board)

    newest = broker.sequences()[0]
    assert broker.sequences() == [newest, *range(1, newest)]
    assert held(board)[0] == []


def test_pack_of_an_earlier_power_up_is_sent_without_a_time(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker, network_policy=NetworkPolicy(wifi="absent"))
    wake(board)
    board.power_on(at_utc_us=board.now_us + 60 * S)
    board.network_policy = NetworkPolicy()

    wake(board)

    new, old = broker.packs()
    assert -3 in new[0]
    assert -3 not in old[0]
    assert new[3] != old[3], "another power-up has another id"


def test_pack_sampled_before_the_time_was_known_gets_its_time_when_sent(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker, network_policy=NetworkPolicy(wifi="absent"))
    started = [wake(board).started_us // S for _ in range(2)]
    board.network_policy = NetworkPolicy()

    while not broker.published:
        wake(board)

    times = {pack[2][2]: pack[0][-3] for pack in broker.packs()}
    for seq, started_s in enumerate(started, start=1):
        assert times[seq] == pytest.approx(started_s, abs=2)


def test_days_of_backlog_go_out_in_one_wake_with_little_memory(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker)
    wake(board)
    nodes.run_on(
        board,
        "from node import senml\nfrom node.spool import Spool\ns = Spool('/spool', None)\n"
        "for n in range(500):\n    c, b = senml.body(s.id, s.next_seq, 9, n, [('bat', n)])\n"
        "    s.append(9, n, c, b)",
    )
    broker.published.clear()

    while len(broker.published) < 2:
        wake(board)

    assert sorted(broker.sequences()) == list(range(2, 2 + len(broker.sequences())))
    assert len(broker.sequences()) > 500
    assert broker.state()["heap_low"] >= 30_000  # type: ignore[operator]


# --- receipts ---


def test_without_a_receipt_everything_is_sent_again(
    tmp_path: Path, broker: ScriptedBroker, faster_waits: None
) -> None:
    broker.behaviour.gives_receipts = False
    board = tree(tmp_path, broker)

    for _ in range(6):
        wake(board)

    assert broker.sequences()[0] == 1
    assert broker.sequences().count(1) >= 2
    assert held(board)[0] == [(1, 6)]
    assert_one_body_each(broker)


@pytest.mark.parametrize(
    "receipt",
    [
        lambda spool, seq: cbor2.dumps({"spool": spool ^ 1, "seq": seq}),
        lambda spool, seq: cbor2.dumps({"spool": spool, "seq": seq + 1}),
        lambda spool, seq: cbor2.dumps({"spool": spool, "seq": 1 << 40}),
        lambda spool, seq: cbor2.dumps({"spool": spool, "seq": -1}),
        lambda spool, seq: cbor2.dumps({"spool": spool, "seq": "1"}),
        lambda spool, seq: cbor2.dumps({"spool": spool, "seq": 1.0}),
        lambda spool, seq: cbor2.dumps({"spool": spool}),
        lambda spool, seq: cbor2.dumps([spool, seq]),
        lambda spool, seq: b"",
        lambda spool, seq: b"\xff" * 30,
    ],
    ids=[
        "another spool",
        "never sent",
        "far beyond",
        "negative",
        "text",
        "float",
        "no sequence",
        "list",
        "empty",
        "rubbish",
    ],
)
def test_receipt_that_cannot_be_true_is_ignored(
    tmp_path: Path, broker: ScriptedBroker, receipt: Callable[[int, int], bytes], faster_waits: None
) -> None:
    broker.behaviour.receipt_for = receipt
    board = tree(tmp_path, broker)

    wake(board)

    assert held(board)[0] == [(1, 1)]


def test_receipt_for_what_was_not_yet_sent_when_it_came_is_ignored(
    tmp_path: Path, broker: ScriptedBroker, faster_waits: None
) -> None:
    board = tree(tmp_path, broker)
    (spool,) = nodes.run_on(board, "from node.spool import Spool\nprint(Spool('/spool', None).id)")
    broker.behaviour.receipt = cbor2.dumps({"spool": int(spool), "seq": 1})
    broker.behaviour.gives_receipts = False

    wake(board)

    assert broker.sequences() == [1]
    assert held(board)[0] == [(1, 1)]


def test_retained_receipt_is_marked_before_anything_is_sent(
    tmp_path: Path, broker: ScriptedBroker, faster_waits: None
) -> None:
    board = tree(tmp_path, broker)
    broker.behaviour.gives_receipts = False
    wake(board)
    spool = broker.packs()[0][1][2]
    broker.behaviour.receipt = cbor2.dumps({"spool": spool, "seq": 1})

    while len(broker.payloads("st")) < 2:
        wake(board)

    assert broker.sequences().count(1) == 1


def test_node_leaves_as_soon_as_the_receipt_covers_its_newest_pack(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker)
    wake(board)
    with_receipt = next(r.awake_us for r in (wake(board) for _ in range(6)) if r.connections)
    broker.behaviour.gives_receipts = False

    without = next(r.awake_us for r in (wake(board) for _ in range(6)) if r.connections)

    assert without - with_receipt >= 1.5 * S


# --- desired state ---


def desired(values: Any, version: Any = 2) -> bytes:
    return cbor2.dumps(
        {
            "config": {"version": version, "values": values},
            "release": {"counter": 7},
            "commands": [],
            "certificate": b"\x30\x82",
        }
    )


def test_desired_intervals_hold_at_once_and_after_a_power_cut(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    broker.behaviour.desired = desired({"sample_s": 300, "publish_s": 600})
    board = tree(tmp_path, broker)

    result = wake(board)
    board.power_on()
    again = wake(board)

    state = broker.state()
    assert result.sleep_us is not None
    assert result.sleep_us <= 330 * S
    assert again.sleep_us is not None
    assert again.sleep_us <= 330 * S
    assert state["config_version"] == 2
    hashed = cbor2.dumps(
        {"version": 2, "values": {"sample_s": 300, "publish_s": 600}}, canonical=True
    )
    assert state["config_sha256"] == hashlib.sha256(hashed).hexdigest()


@pytest.mark.parametrize(
    "payload",
    [
        desired({"sample_s": 59}),
        desired({"sample_s": 90_000}),
        desired({"sample_s": 900, "publish_s": 600}),
        desired({"sample_s": "900"}),
        desired({"sample_s": 900.5}),
        desired({"sample_s": True}),
        desired({}, version=-1),
        desired({}, version="2"),
        desired(None),
        cbor2.dumps({"config": None}),
        cbor2.dumps([]),
        cbor2.dumps({}),
        b"\xa1",
        b"\xff" * 100,
        b"\x9f" * 3000,
    ],
    ids=range(15),
)
def test_desired_state_that_cannot_be_is_reported_and_changes_nothing(
    tmp_path: Path, broker: ScriptedBroker, payload: bytes
) -> None:
    broker.behaviour.desired = payload
    board = tree(tmp_path, broker)

    wake(board)

    state = broker.state()
    assert state["config_version"] == 1
    assert str(state["last_error"]).startswith("des ")
    assert held(board) == ([], 1)


def test_desired_state_as_large_as_allowed_is_read_and_a_larger_one_passed_over(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    filler = bytes(3900)
    broker.behaviour.desired = cbor2.dumps(
        {
            "config": {"version": 5, "values": {}},
            "release": None,
            "commands": [],
            "certificate": filler,
        }
    )
    wake(tree(tmp_path / "large", broker))
    assert broker.state()["config_version"] == 5
    assert broker.state()["heap_low"] >= 30_000  # type: ignore[operator]

    broker.behaviour.desired = cbor2.dumps({"config": bytes(60_000)})
    board = tree(tmp_path / "larger", broker)
    wake(board)
    assert broker.state()["config_version"] == 1
    assert held(board) == ([], 1)


# --- everything that can go wrong with a network ---

POLICIES = {
    "no access point": NetworkPolicy(wifi="absent"),
    "wrong password": NetworkPolicy(wifi="wrong_password"),
    "no address": NetworkPolicy(wifi="no_dhcp"),
    "slow access point": NetworkPolicy(wifi_connect_ms=60_000),
    "refused": NetworkPolicy(tcp="refused"),
    "unreachable": NetworkPolicy(tcp="unreachable"),
    "half open": NetworkPolicy(tcp="half_open"),
    "half open after the connect": NetworkPolicy(drop_after_sent=40),
    "half open after the subscribe": NetworkPolicy(drop_after_sent=110),
    "half open while publishing": NetworkPolicy(drop_after_sent=600),
    "no names": NetworkPolicy(dns=False),
    "slow": NetworkPolicy(delay_ms=1_500),
}
# Radio for 30 s, sampling 1 s, boot 0.5 s, and what `faster_waits` adds.
LONGEST_WAKE_S = 34


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_a_bad_network_costs_a_reading_nothing_and_ends_in_sleep(
    tmp_path: Path, broker: ScriptedBroker, policy: NetworkPolicy, faster_waits: None
) -> None:
    names = {"broker.example": "127.0.0.1"}
    bad, good = replace(policy, names=names), NetworkPolicy(names=names)
    board = tree(tmp_path, broker, network_policy=bad, link={"host": "broker.example"})

    results = [wake(board) for _ in range(2)]

    assert held(board)[1] == 2
    assert all(result.awake_us < LONGEST_WAKE_S * S for result in results)
    board.network_policy = good
    said = len(broker.payloads("st"))
    while len(broker.payloads("st")) == said:
        wake(board)
    assert held(board)[0] == []


@pytest.mark.parametrize("kind", [CONNECT, SUBSCRIBE, PUBLISH])
@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 20,
        b"\x20\xff\xff\xff\xff\x01",
        b"\x90\x00",
        b"\x00\x00",
        b"\x32\x01\x00",
        b"\x32\x04\xff\xff\x00\x00",
        b"\x36\x05\x00\x01a\x00\x01",
    ],
    ids=["ones", "no length", "empty suback", "type 0", "short publish", "topic beyond", "QoS 3"],
)
def test_a_broker_that_talks_rubbish_ends_in_sleep_with_the_pack_kept(
    tmp_path: Path, broker: ScriptedBroker, kind: int, answer: bytes
) -> None:
    broker.behaviour.answers[kind] = answer
    broker.behaviour.gives_receipts = False
    broker.behaviour.close_after = kind
    board = tree(tmp_path, broker)

    result = wake(board)

    assert held(board) == ([(1, 1)], 1)
    assert result.awake_us < LONGEST_WAKE_S * S


def test_a_broker_that_never_stops_talking_ends_in_sleep_with_the_pack_kept(
    tmp_path: Path, broker: ScriptedBroker, faster_waits: None
) -> None:
    broker.behaviour.floods = True
    board = tree(tmp_path, broker)

    result = wake(board)

    assert held(board) == ([(1, 1)], 1)
    assert result.awake_us < LONGEST_WAKE_S * S


@pytest.mark.parametrize("code", range(1, 7))
def test_a_refused_connect_is_reported_by_its_code_later(
    tmp_path: Path, broker: ScriptedBroker, code: int
) -> None:
    broker.behaviour.answers[CONNECT] = bytes((0x20, 2, 0, code))
    board = tree(tmp_path, broker)
    wake(board)
    broker.behaviour.answers.clear()

    wake(board)

    assert broker.state()["last_error"] == f"LinkError: connack {code}"


def test_a_refused_subscription_is_noticed(tmp_path: Path, broker: ScriptedBroker) -> None:
    broker.behaviour.answers[SUBSCRIBE] = b"\x90\x04\x00\x01\x80\x01"
    board = tree(tmp_path, broker)
    wake(board)
    broker.behaviour.answers.clear()

    wake(board)

    assert broker.sequences() == [2, 1]
    assert broker.state()["last_error"] == "LinkError: suback"


def test_replies_in_single_bytes_are_put_together(tmp_path: Path, broker: ScriptedBroker) -> None:
    broker.behaviour.bytes_at_a_time = 1
    board = tree(tmp_path, broker)

    wake(board)

    assert held(board) == ([], 1)


def test_topics_carry_the_deployments_prefix(tmp_path: Path, broker: ScriptedBroker) -> None:
    wake(tree(tmp_path, broker, link={"prefix": "bochum/nord"}))

    assert {topic for topic, _ in broker.published} == {
        "bochum/nord/up/n-3f9a1c/st",
        "bochum/nord/up/n-3f9a1c/tm",
    }
    assert broker.subscriptions == [
        "bochum/nord/dn/n-3f9a1c/des",
        "bochum/nord/dn/n-3f9a1c/rcpt",
    ]
    assert broker.client_ids == ["n-3f9a1c"]


def test_after_failures_the_radio_rests_while_sampling_goes_on(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker, network_policy=NetworkPolicy(tcp="refused"))

    wakes = [wake(board) for _ in range(96)]

    tries = sum(result.connections > 0 for result in wakes)
    assert 5 <= tries <= 10
    assert held(board)[1] == 96
    radio_s = sum(result.awake_us - min(r.awake_us for r in wakes) for result in wakes) / S
    assert radio_s <= 84, "a day without network costs no more than a normal day"


# --- crashes and power ---


def test_a_crash_becomes_an_event_with_its_place_once(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker)
    measuring = board.read_file("/a/node/measuring.mpy")
    board.remove_file("/a/node/measuring.mpy")
    board.write_file("/a/node/whole_measuring.mpy", measuring)
    broken = "from node.whole_measuring import *\ndef due(*_): raise ValueError('unforeseen')\n"
    board.write_file("/a/node/measuring.py", broken.encode())

    crashed = board.run_wake()
    board.remove_file("/a/node/measuring.py")
    board.write_file("/a/node/measuring.mpy", measuring)
    for _ in range(3):
        wake(board)

    assert crashed.reason == "deepsleep"
    (event,) = map(decode_event, broker.payloads("ev"))
    assert event.event == "crash"
    details: dict[str, Any] = dict(event.details)
    assert details == {
        "what": "ValueError: unforeseen",
        "where": "/node/measuring.py:2 due",
        "cause": "exception",
        "boot": 2,
        "slot": "a",
        "version": "1.2.3",
        "heap": pytest.approx(60_000, abs=30_000),
        "trace": details["trace"],
    }
    assert re.fullmatch(
        r".*node/cycle.py:\d+ _sample < node/waking.py:\d+ sample", details["trace"]
    )
    assert len(event.body) <= MAX_EVENT_BODY_BYTES
    assert held(board)[0] in ([], [(4, 4)])


def test_a_slot_that_cannot_even_crash_sleeps(tmp_path: Path, broker: ScriptedBroker) -> None:
    board = tree(tmp_path, broker)
    for path, _ in board.list_files("/a"):
        board.remove_file(path)

    assert board.run_wake().reason == "deepsleep"


def test_a_node_without_identity_sleeps(tmp_path: Path, broker: ScriptedBroker) -> None:
    board = tree(tmp_path, broker)
    board.exec("from esp32 import NVS\nNVS('id').erase_key('node_id')")

    assert board.run_wake().reason == "deepsleep"
    assert broker.connections == 0


def test_a_hanging_wake_is_ended_by_the_watchdog_and_told_with_its_step(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker)
    driver = board.read_file("/a/node/sensors/ds18b20.mpy")
    board.remove_file("/a/node/sensors/ds18b20.mpy")
    board.write_file("/a/node/sensors/ds18b20.py", b"import time\nwhile True: time.sleep(1)\n")

    hung = board.run_wake()
    board.remove_file("/a/node/sensors/ds18b20.py")
    board.write_file("/a/node/sensors/ds18b20.mpy", driver)
    wake(board)

    assert hung.reason == "watchdog"
    assert broker.state()["reset_cause"] == "watchdog"
    (event,) = map(decode_event, broker.payloads("ev"))
    assert dict(event.details) == {
        "what": "watchdog",
        "where": "sample",
        "cause": "watchdog",
        "boot": 2,
        "slot": "a",
        "version": "1.2.3",
    }


def test_garbage_in_the_rtc_memory_is_a_power_on(tmp_path: Path, broker: ScriptedBroker) -> None:
    board = tree(tmp_path, broker)
    wake(board)
    for garbage in (b"", b"\xff" * 2048, b"SSR6", b"SSR6\xff\xff" + bytes(300)):
        board.exec(f"import machine\nmachine.RTC().memory({garbage!r})")
        wake(board)

    assert held(board) == ([], 5)
    assert len({pack[3][2] for pack in broker.packs()}) == 5
    assert broker.state()["boot_count"] == 1


def test_an_rtc_set_by_a_stranger_is_a_new_power_up(tmp_path: Path, broker: ScriptedBroker) -> None:
    board = tree(tmp_path, broker)
    wake(board)
    board.exec("import machine\nmachine.RTC().datetime((2031, 1, 1, 0, 0, 0, 0, 0))")

    result = wake(board)

    first, second = broker.packs()
    assert first[3][2] != second[3][2]
    assert second[0][-3] == pytest.approx(result.started_us // S, abs=2)


# --- flash ---


def test_a_full_flash_gives_up_the_oldest_segment_and_goes_on(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker, network_policy=NetworkPolicy(wifi="absent"))
    nodes.run_on(
        board,
        "from node import senml\nfrom node.spool import Spool\ns = Spool('/spool', None)\n"
        "for n in range(150):\n    c, b = senml.body(s.id, s.next_seq, 7, n, [('bat', n)] * 9)\n"
        "    s.append(7, n, c, b)\n"
        "import os\ndef fill(name, size):\n    with open('/fill' + name, 'wb') as f:\n"
        "        for _ in range(size // 4096): f.write(bytes(4096))\n"
        "fill('', (os.statvfs('/')[3] - 8) * 4096)\n"
        "try:\n    for n in range(99): fill(str(n), 4096)\nexcept OSError: pass\n",
    )

    for _ in range(3):
        wake(board)

    ((first, last),) = held(board)[0]
    assert (first > 1, last) == (True, 153)
    board.network_policy = NetworkPolicy()
    while not broker.payloads("st"):
        wake(board)
    assert (broker.state()["thinned"], broker.state()["lost"]) == (0, first - 1)


def test_what_a_crashed_wake_has_kept_is_not_overwritten(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    """The first of another day, it begins a segment, keeps a pack and crashes: nobody noted where the pack lies."""
    board = tree(tmp_path, broker)
    nodes.run_on(
        board,
        "from node import senml\nfrom node.spool import Spool\ns = Spool('/spool', None)\n"
        "for n in range(30):\n    c, b = senml.body(s.id, s.next_seq, 7, n, [('bat', n)])\n"
        "    s.append(7, n, c, b)",
    )
    wake(board)
    board.network_policy = NetworkPolicy(wifi="absent")
    wake(board)  # this one knows which day it is
    plan = board.read_file("/a/node/plan.mpy")
    board.remove_file("/a/node/plan.mpy")
    board.write_file("/a/node/whole_plan.mpy", plan)
    broken = "from node.whole_plan import *\ndef is_publish_due(*_): raise ValueError\n"
    board.write_file("/a/node/plan.py", broken.encode())
    board.press_reset(at_utc_us=board.now_us + 86_400 * S)

    board.run_wake()
    (kept,) = packs_on_flash(board, above=32)
    board.remove_file("/a/node/plan.py")
    board.write_file("/a/node/plan.mpy", plan)
    wake(board)

    assert packs_on_flash(board, above=32)[0] == kept
    assert held(board)[1] == 35, "the pack, the crash and another pack came after 32"


def test_a_spool_that_cannot_be_opened_is_reported_and_the_node_still_talks(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker)
    board.write_file("/spool", b"a file where a folder should be")

    wake(board)

    assert broker.packs() == []
    assert broker.state()["spool"] is None
    assert str(broker.state()["last_error"]).startswith("OSError")


def test_power_cut_at_every_flash_operation_of_a_publishing_wake_loses_and_doubles_nothing(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker)
    wake(board)
    base = tmp_path / "base"
    shutil.copytree(board.folder, base)
    operations = 0
    for operation in range(1, 40):
        cut = Board(shutil.copytree(base, tmp_path / f"cut-{operation}"), nodes.soil())
        cut.power_on()
        cut.power_cut = PowerCutPlan(at_operation=operation, torn=operation % 2 == 1)
        if cut.run_wake().reason == "deepsleep":
            break
        operations = operation
        for _ in range(2):
            cut.power_on(at_utc_us=cut.now_us + 60 * S)
            wake(cut)

        ranges, written = held(cut)
        sent = assert_one_body_each(broker)
        assert ranges == []
        assert sent == set(range(1, written + 1))
        assert written in (3, 4)
        broker.forget(after=2)
        shutil.rmtree(cut.folder)
    assert operations >= 6


# --- TLS ---


def _tls_tree(tmp_path: Path, **options: Any) -> tuple[Board, ScriptedBroker, TestAuthority]:
    authority = options.pop("trusts", None) or TestAuthority()
    server_authority = options.pop("server_authority", authority)
    server = server_authority.issue(
        options.pop("server_name", "localhost"), **options.pop("since", {})
    )
    context = server_authority.server_context(server, tmp_path)
    broker = ScriptedBroker(context)
    identity = authority.identity(nodes.NODE_ID) | options.pop("identity", {})
    board = tree(tmp_path, broker, link={"tls": True}, identity=identity, **options)
    return board, broker, authority


def test_node_and_broker_prove_themselves_to_each_other(tmp_path: Path) -> None:
    board, broker, _ = _tls_tree(tmp_path)
    try:
        wake(board)
    finally:
        broker.close()

    assert held(board) == ([], 1)
    assert broker.state()["last_error"] is None


@pytest.mark.parametrize(
    "options",
    [{"server_authority": TestAuthority("another authority")}, {"server_name": "elsewhere"}],
    ids=["another authority", "another name"],
)
def test_a_broker_that_cannot_prove_itself_hears_nothing(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    board, broker, _ = _tls_tree(tmp_path, **options)
    try:
        wake(board)
    finally:
        broker.close()

    assert broker.published == []
    assert broker.client_ids == []
    assert held(board)[0] == [(1, 1)]


def test_a_broker_under_the_authority_to_come_is_trusted_too(tmp_path: Path) -> None:
    now, to_come = TestAuthority("now"), TestAuthority("to come")
    identity = to_come.identity(nodes.NODE_ID)
    board, broker, _ = _tls_tree(
        tmp_path,
        trusts=now,
        server_authority=to_come,
        identity={"key": identity["key"], "cert": identity["cert"], "ca1": identity["ca0"]},
    )
    try:
        wake(board)
    finally:
        broker.close()

    assert held(board) == ([], 1)


def test_without_any_time_the_floor_is_good_enough_to_connect(tmp_path: Path) -> None:
    board, broker, _ = _tls_tree(tmp_path, network_policy=NetworkPolicy(ntp="silent"))
    try:
        wake(board)
        state = broker.state()
    finally:
        broker.close()

    assert held(board) == ([], 1)
    assert state["utc_s"] is None
    assert state["last_error"] == "no time"
    assert -3 not in broker.packs()[0][0]

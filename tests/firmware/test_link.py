"""Wi-Fi on the virtual board: whom the node joins, how fast, what it makes of bad networks, and that it keeps its secrets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import nodes
import pytest
import tomli_w
from authority import TestAuthority
from budgets import budget
from scripted_broker import CONNECT, ScriptedBroker

from fleet_server.wire.configuration import MAX_NETWORKS
from hardware.virtual_board.board import Board, WakeResult
from hardware.virtual_board.ledger import SpoolLedger, spool_on_flash
from hardware.virtual_board.network import NetworkPolicy
from hardware.virtual_board.radio import AccessPoint
from provisioning.node_commands import read_wifi_file

S = 1_000_000
RADIO_S = 30

STADT = AccessPoint("stadt", "geheimnis", bssid=b"\x02stadt", channel=6)
OTHER = AccessPoint("anders", "kennwort", bssid=b"\x02other", channel=11, rssi_dbm=-80)
BOTH = [["stadt", "geheimnis"], ["anders", "kennwort"]]


def around(*points: AccessPoint, **policy: Any) -> NetworkPolicy:
    return NetworkPolicy(access_points=points, **policy)


def tree(
    folder: Path, broker: ScriptedBroker, policy: NetworkPolicy, wifi: Any = BOTH, **options: Any
) -> Board:
    options.setdefault("link", {})["wifi"] = wifi
    return nodes.make_board(
        folder / "node",
        nodes.soil(),
        node=nodes.tree_3(),
        port=broker.port,
        network_policy=policy,
        **options,
    )


def wake(board: Board) -> WakeResult:
    result = board.run_wake()
    assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"
    assert result.stdout == ""
    return result


def next_talk(board: Board) -> WakeResult:
    """Wakes until the radio was on; that wake."""
    while not (result := wake(board)).radio_us:
        pass
    return result


def held(board: Board) -> int:
    ledger = SpoolLedger(board.folder / "ledger.json")
    with spool_on_flash(board.flash_path) as files:
        ledger.observe(files)
    return ledger.packs_held


def remembered(board: Board) -> str:
    """What the node has kept of its way to the network."""
    return nodes.run_on(board, "from node import rtc_memory\nprint(rtc_memory.load().bearer)")[-1]


# --- names and passwords ---

ASCII = "".join(map(chr, range(32, 127)))
CREDENTIALS = {
    "plain": ("stadt", "geheimnis"),
    "first half of ASCII": (ASCII[:32], ASCII[:48]),
    "second half of ASCII": (ASCII[63:], ASCII[47:]),
    "quotes": ("'\"`´\\", "\"'\\'\"\\\\\"\"'''"),
    "braces and percent": ("{name} %s", "%(x)s {0} \\n \\u0041"),
    "umlauts": ("Bürgerbüro", "Grüße, Öl & Straße"),
    "emoji": ("🌳 Linde 🌳", "🔑🔑🔑🔑🔑"),
    "blanks at both ends": ("  stadt  ", "  geheimnis  "),
    "eight bytes": ("a", "12345678"),
    "63 bytes": ("n" * 32, "ü" * 31 + "x"),
    "64 hexadecimal digits": ("stadt", "0123456789abcdefABCDEF" * 2 + "0" * 20),
    "open": ("frei", ""),
    "null in words": ("null", "\\0\\x00null"),
}


def from_toml(tmp_path: Path, *networks: tuple[str, str]) -> list[list[str]]:
    """Names and passwords as the bench reads them from a technician's file."""
    file = tmp_path / "wifi.toml"
    tables = [{"ssid": name, "password": password} for name, password in networks]
    file.write_text(tomli_w.dumps({"network": tables}), encoding="utf-8")
    return [list(pair) for pair in read_wifi_file(file)]


@pytest.mark.parametrize(("name", "password"), CREDENTIALS.values(), ids=CREDENTIALS.keys())
def test_every_character_gets_from_the_technicians_file_to_the_access_point(
    tmp_path: Path, broker: ScriptedBroker, name: str, password: str
) -> None:
    wifi = from_toml(tmp_path, (name, password))
    board = tree(tmp_path, broker, around(AccessPoint(name, password)), wifi)

    wake(board)

    assert held(board) == 0
    assert broker.state()["last_error"] is None


@pytest.mark.parametrize("wrong", ["geheimnis ", "Geheimnis", "geheimni", "geheimnisse", ""])
def test_another_password_does_not_do(tmp_path: Path, broker: ScriptedBroker, wrong: str) -> None:
    """Or the test above could not fail."""
    board = tree(tmp_path, broker, around(STADT), [["stadt", wrong]])

    wake(board)

    assert (broker.published, held(board)) == ([], 1)


# --- whom it joins, and how fast ---


AWAY = [[f"weit {number}", "kennwort"] for number in range(2, MAX_NETWORKS + 1)]
LOCKED = [[f"zu {number}", "kennwort"] for number in range(4)]
# Of as many networks as a node may know, the one that lets it in: those in the list, what is around, and in which talk it is joined.
MANY = {
    "the first, where DHCP is slow": ([BOTH[0], *AWAY], (STADT,), 3_000, 1),
    "the last, the others are away": ([*AWAY, BOTH[0]], (STADT,), 870, 1),
    "the last, and it hides": ([*AWAY, BOTH[0]], (replace(STADT, is_hidden=True),), 870, 3),
    "the fifth, the keys of four are wrong": (
        [*LOCKED, BOTH[0], *AWAY[:3]],
        (
            *(AccessPoint(name, "x" * 8, bssid=b"\2%b!" % name.encode()) for name, _ in LOCKED),
            STADT,
        ),
        870,
        2,
    ),
}


@pytest.mark.parametrize(("networks", "points", "dhcp_ms", "talks"), MANY.values(), ids=MANY.keys())
def test_of_eight_networks_each_gets_the_time_that_joining_takes(
    tmp_path: Path,
    broker: ScriptedBroker,
    networks: list[list[str]],
    points: tuple[AccessPoint, ...],
    dhcp_ms: int,
    talks: int,
) -> None:
    assert len(networks) == MAX_NETWORKS
    board = tree(tmp_path, broker, around(*points, dhcp_ms=dhcp_ms), networks)

    results = [next_talk(board) for _ in range(talks)]

    assert len(broker.payloads("st")) == 1, "joined in the last of these talks"
    assert held(board) == 0
    assert max(result.radio_us for result in results) < 20 * S


def test_of_one_network_the_strongest_access_point_is_joined(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    weak = replace(STADT, bssid=b"\x02weak!", channel=1, rssi_dbm=-88)
    strong = replace(STADT, bssid=b"\x02stron", channel=9, rssi_dbm=-51)
    board = tree(tmp_path, broker, around(weak, STADT, strong))

    wake(board)

    assert broker.state()["rssi_dbm"] == -51


def test_of_several_networks_the_first_of_the_list_is_joined(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    near = replace(OTHER, rssi_dbm=-30)
    board = tree(tmp_path, broker, around(near, STADT))

    wake(board)

    assert broker.state()["rssi_dbm"] == STADT.rssi_dbm


def test_a_network_that_hides_is_joined_too(tmp_path: Path, broker: ScriptedBroker) -> None:
    board = tree(tmp_path, broker, around(replace(OTHER, is_hidden=True)))

    wake(board)

    assert held(board) == 0


def test_what_worked_is_joined_again_without_a_scan_and_without_dhcp(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    policy = around(STADT)
    board = tree(tmp_path, broker, policy)
    first = next_talk(board)

    again = next_talk(board)

    saved_ms = (first.radio_us - again.radio_us) / 1000
    assert saved_ms == pytest.approx(policy.scan_ms + policy.dhcp_ms, abs=300)


def test_an_address_is_asked_for_again_after_some_hours(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    """It was only lent."""
    board = tree(tmp_path, broker, around(STADT))
    next_talk(board)

    radio_ms = [next_talk(board).radio_us / 1000 for _ in range(8)]

    least = min(radio_ms)
    assert sum(ms > least + 600 for ms in radio_ms) == 1


def test_a_silent_time_server_costs_its_three_seconds_and_no_dhcp(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker, around(STADT))
    next_talk(board)
    usual = next_talk(board)
    board.network_policy = around(STADT, ntp="silent")

    silent = next_talk(board)

    assert (silent.radio_us - usual.radio_us) / S == pytest.approx(3, abs=0.6)


def test_memory_of_the_network_does_not_outlive_a_power_cut(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker, around(STADT))
    next_talk(board)
    assert "stadt" in remembered(board)
    board.power_on()

    assert remembered(board) == "None"
    wake(board)
    assert held(board) == 0


# --- bad networks ---

MOVED = replace(STADT, bssid=b"\x02moved", channel=13)
PORTAL = replace(STADT, is_portal=True)
WRONG_KEY = replace(STADT, key="neues geheimnis")

# What a node, that knows the first surroundings from a good exchange, finds at the next one, and is heard all the same.
SURVIVED = {
    "access point replaced": (around(STADT), around(MOVED)),
    "network vanished, another is there": (around(STADT), around(OTHER)),
    "password changed, another is there": (around(STADT), around(WRONG_KEY, OTHER)),
    "network hides now": (around(STADT), around(replace(STADT, is_hidden=True))),
    "DHCP silent, address still good": (around(STADT), around(STADT, wifi="no_dhcp")),
    "address given to another": (around(STADT), around(STADT, address="10.11.12.99")),
    "address and access point changed": (around(STADT), around(MOVED, address="10.9.8.7")),
    "time server silent": (around(STADT), around(STADT, ntp="silent")),
    "time server and DHCP silent": (around(STADT), around(STADT, ntp="silent", wifi="no_dhcp")),
}


@pytest.mark.parametrize(("before", "after"), SURVIVED.values(), ids=SURVIVED.keys())
def test_changed_surroundings_are_coped_with_in_the_same_wake(
    tmp_path: Path,
    broker: ScriptedBroker,
    before: NetworkPolicy,
    after: NetworkPolicy,
    faster_waits: None,
) -> None:
    board = tree(tmp_path, broker, before)
    next_talk(board)
    board.network_policy = after

    result = next_talk(board)

    assert held(board) == 0
    assert result.radio_us < 20 * S
    assert (
        "stadt" in remembered(board) or "moved" in remembered(board) or "other" in remembered(board)
    )


# What no node can cope with: what it finds, and what it says about that when it is heard again.
FAULTS = {
    "nothing there": (around(), "wifi 1 not found, 2 not found"),
    "wrong password": (around(WRONG_KEY), "wifi 1 password, 2 not found"),
    "both passwords wrong": (
        around(WRONG_KEY, replace(OTHER, key="x" * 8)),
        "wifi 1 password, 2 password",
    ),
    "password refused at once": (
        NetworkPolicy(wifi="wrong_password"),
        "wifi 1 password, 2 password",
    ),
    "DHCP silent": (around(STADT, wifi="no_dhcp"), "wifi 1 no address, 2 not found"),
    "captive portal": (around(PORTAL), ""),
    "captive portal everywhere": (NetworkPolicy(tcp="captive"), ""),
    "half open": (around(STADT, tcp="half_open"), ""),
    "vanishes before the session": (around(STADT, vanishes_after_ms=900), ""),
    "vanishes in the session": (around(STADT, delay_ms=100, vanishes_after_ms=1_400), ""),
    "nobody answers": (around(STADT, tcp="unreachable", ntp="silent", dns=False), ""),
}


@pytest.mark.parametrize(("policy", "told"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_bad_network_ends_in_sleep_with_the_pack_kept_and_is_told_later(
    tmp_path: Path, policy: NetworkPolicy, told: str, tls: bool, faster_waits: None
) -> None:
    authority = TestAuthority()
    context = authority.server_context(authority.issue("localhost"), tmp_path) if tls else None
    broker = ScriptedBroker(context)
    try:
        board = tree(
            tmp_path, broker, policy, link={"tls": tls}, identity=authority.identity(nodes.NODE_ID)
        )
        result = wake(board)
        assert broker.packs() == []
        assert held(board) == 1
        assert result.radio_us <= (RADIO_S + 2) * S

        board.network_policy = around(STADT)
        next_talk(board)
        assert held(board) == 0
        error = str(broker.state()["last_error"])
    finally:
        broker.close()
    assert error.startswith(("LinkError: ", "OSError: ", "TimedOut: ", "ValueError: "))
    assert told in error


BROKER = "broker.stadt"
# What stands at the address that the broker's name led to, when it leads elsewhere: whether the node is heard in the same talk.
FORMER_ADDRESS = {
    "nobody": ({}, True),
    "nobody, and time server and DHCP are silent": ({"ntp": "silent", "wifi": "no_dhcp"}, True),
    "somebody else": ({}, False),
}


@pytest.mark.parametrize(("policy", "at_once"), FORMER_ADDRESS.values(), ids=FORMER_ADDRESS.keys())
def test_a_broker_that_moves_is_found_by_its_name(
    tmp_path: Path, broker: ScriptedBroker, policy: Any, at_once: bool, faster_waits: None
) -> None:
    before = around(STADT, names={BROKER: "127.0.0.1"})
    board = tree(tmp_path, broker, before, link={"host": BROKER})
    next_talk(board)
    moved = ScriptedBroker(address=("127.0.0.2", broker.port))
    # The server behind it is the same, and has what came before.
    moved.behaviour.receipt_for = lambda spool, _: cbor2.dumps(
        {"spool": spool, "seq": moved.sequences()[0]}
    )
    try:
        board.network_policy = around(STADT, names={BROKER: "127.0.0.2"}, **policy)
        broker.behaviour.close_after = CONNECT
        if at_once:
            broker.close()

        next_talk(board)
        assert (held(board) == 0) is at_once
        if not at_once:
            next_talk(board)
    finally:
        moved.close()

    assert held(board) == 0


def test_a_name_server_that_lies_once_costs_one_talk(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    stranger = ScriptedBroker(address=("127.0.0.2", broker.port))
    stranger.behaviour.close_after = CONNECT
    try:
        lie = around(STADT, names={BROKER: "127.0.0.2"})
        board = tree(tmp_path, broker, lie, link={"host": BROKER})
        next_talk(board)
        assert (stranger.connections, held(board)) == (1, 1)
        board.network_policy = around(STADT, names={BROKER: "127.0.0.1"})

        next_talk(board)
    finally:
        stranger.close()

    assert held(board) == 0


# MicroPython raises it for every error of ESP-IDF that it has no words for (ports/esp32/network_common.c, esp_exceptions_helper).
FAILING_DRIVER = """
import network
class Failing(network.WLAN):
    def METHOD(self, *arguments, **options):
        raise RuntimeError("Wifi Unknown Error 0x300b")
network.WLAN = Failing
"""


@pytest.mark.parametrize("method", ["active", "connect", "status"])
def test_a_driver_that_fails_costs_a_talk_and_is_told(
    tmp_path: Path, broker: ScriptedBroker, method: str
) -> None:
    board = tree(tmp_path, broker, around(STADT))
    main = board.read_file("/main.py")
    board.write_file("/main.py", FAILING_DRIVER.replace("METHOD", method).encode() + main)
    wake(board)
    assert held(board) == 1
    board.write_file("/main.py", main)

    next_talk(board)

    assert held(board) == 0
    assert broker.state()["last_error"] == "LinkError: wifi driver 0"


def test_a_driver_that_fails_at_the_end_costs_nothing(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    """Neither the radio's silence nor the memory of this wake."""
    board = tree(tmp_path, broker, around(STADT))
    main = board.read_file("/main.py")
    board.write_file("/main.py", FAILING_DRIVER.replace("METHOD", "disconnect").encode() + main)

    wake(board)

    assert held(board) == 0
    assert "stadt" in remembered(board)


def test_behind_a_network_that_leads_nowhere_the_next_one_is_tried(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    board = tree(tmp_path, broker, around(PORTAL, OTHER))
    next_talk(board)
    assert held(board) == 1

    next_talk(board)

    assert held(board) == 0
    assert broker.state()["rssi_dbm"] == OTHER.rssi_dbm


def test_what_the_driver_says_of_one_network_is_not_held_against_the_next(
    tmp_path: Path, broker: ScriptedBroker
) -> None:
    """Both hide, the first is away; its "not found" stays in the driver until another gives an address."""
    board = tree(tmp_path, broker, around(replace(OTHER, is_hidden=True)))

    wake(board)

    assert held(board) == 0


# --- secrets ---

SECRETS = [["Stadt Ä", "S3cret-Ä'\"🔑 one"], ["Anders", "S3cret-Ä'\"🔑 two"]]
LEAKING = {
    **{name: policy for name, (policy, _) in FAULTS.items()},
    "good": around(AccessPoint(*SECRETS[0])),
    "wrong key of a secret network": around(AccessPoint(SECRETS[0][0], "another one")),
}


@pytest.mark.parametrize("policy", LEAKING.values(), ids=LEAKING.keys())
def test_no_password_is_printed_sent_or_kept_outside_the_configuration(
    tmp_path: Path, broker: ScriptedBroker, policy: NetworkPolicy, faster_waits: None
) -> None:
    board = tree(tmp_path, broker, policy, SECRETS)
    said = [wake(board).stdout]
    crash_in_the_driver(board)
    said.append(board.run_wake().stdout)
    board.network_policy = around(AccessPoint(*SECRETS[0]))
    board.remove_file("/a/node/link/wifi.py")
    for path in ("/a/node/link/wifi.mpy",):
        board.write_file(path, nodes.bundle().files_on_board()[path])
    said += [next_talk(board).stdout, next_talk(board).stdout]

    published = b"".join(payload for _, payload in broker.published)
    files = b"".join(board.read_file(path) for path, _ in board.list_files("/spool"))
    rtc = (board.folder / "rtc.bin").read_bytes()
    assert broker.payloads("st")
    for place in ("".join(said).encode(), published, files, rtc):
        assert b"S3cret" not in place


def crash_in_the_driver(board: Board) -> None:
    """A driver that, against all manners, quotes the password when it fails."""
    board.remove_file("/a/node/link/wifi.mpy")
    source = (Path(nodes.__file__).parents[2] / "firmware/node/link/wifi.py").read_text()
    quoting = source.replace(
        "        stale = self._wlan.status()", "        raise ValueError('cannot use ' + password)"
    )
    assert quoting != source
    board.write_file("/a/node/link/wifi.py", quoting.encode())


# --- figures ---

ROUND_TRIP_MS = 30
TLS_HANDSHAKE_MS = 1_200  # of an ESP32 with curves (design: measured by others); the board's is CPython's, milliseconds


# An address is used for some hours; what was lent before that is asked for anew.
FORGET_THE_ADDRESS = """
from node import rtc_memory
state = rtc_memory.load()
state.bearer[4] -= 30_000_000
rtc_memory.store(state)
"""
USUAL_MS = budget("wake to receipt, tree-3")
SLOWEST_MS = budget("wake to receipt, tree-3, slowest kind")
# Kinds of wakes that publish, usual one first; all but the first have forgotten something.
KNOWN, DHCP, POWER_UP = "known network", "with DHCP", "first after power-up"
HALF_MS, MOST_MS = 3_500, 8_000
TRIES, NEAR = 20, 1.04


def test_from_waking_to_the_receipt_half_of_the_wakes_take_three_and_a_half_seconds_and_none_eight(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    authority = TestAuthority()
    broker = ScriptedBroker(authority.server_context(authority.issue("localhost"), tmp_path))
    try:
        board = tree(
            tmp_path,
            broker,
            around(STADT, delay_ms=ROUND_TRIP_MS // 2),
            link={"tls": True},
            identity=authority.identity(nodes.NODE_ID),
        )
        taken_ms: dict[str, list[float]] = {POWER_UP: [], KNOWN: [], DHCP: []}
        # What comes on top of the model is this computer, whose time is the board's while a socket is open: the fastest of each
        # kind counts, and a busy computer is given more tries.
        for _ in range(TRIES):
            for kind in (POWER_UP, KNOWN, KNOWN, DHCP):
                if kind == POWER_UP:
                    board.power_on()
                elif kind == DHCP:
                    nodes.run_on(board, FORGET_THE_ADDRESS)
                taken_ms[kind].append(next_talk(board).awake_us / 1000 + TLS_HANDSHAKE_MS)
            fastest_ms = {kind: min(found_ms) for kind, found_ms in taken_ms.items()}
            if fastest_ms[KNOWN] <= min(HALF_MS, NEAR * USUAL_MS) and max(
                fastest_ms.values()
            ) <= min(MOST_MS, NEAR * SLOWEST_MS):
                break
    finally:
        broker.close()
    assert held(board) == 0
    # Most wakes know their network: half of all take what they take. However rare the slowest kind is, 95 of 100 wakes take no
    # longer than that.
    p50_ms, p95_ms = fastest_ms[KNOWN], max(fastest_ms.values())
    slowest_ms = max(ms for found_ms in taken_ms.values() for ms in found_ms)
    kinds = ", ".join(f"{kind} {ms:.0f}" for kind, ms in fastest_ms.items())
    record_property(
        "measured",
        f"wake to receipt, tree-3, ms: {kinds}; slowest as run here {slowest_ms:.0f} (boot 450, joining 730, DHCP 870, scan"
        f" 2,040 and the round trip of {ROUND_TRIP_MS} ms are the board's model; {TLS_HANDSHAKE_MS} for an ESP32's TLS are"
        " added)",
    )
    assert p50_ms <= HALF_MS
    assert p95_ms <= MOST_MS
    assert fastest_ms[KNOWN] < fastest_ms[DHCP] < fastest_ms[POWER_UP]
    assert p50_ms == pytest.approx(USUAL_MS, rel=0.05)
    assert p95_ms == pytest.approx(SLOWEST_MS, rel=0.05)

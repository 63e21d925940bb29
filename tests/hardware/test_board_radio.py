"""The virtual board's Wi-Fi: access points, addresses, and statuses as MicroPython's ESP32 port tells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardware.virtual_board.board import Board
from hardware.virtual_board.network import NetworkPolicy
from hardware.virtual_board.radio import AccessPoint

STADT = AccessPoint("stadt", "geheimnis", bssid=b"\x02stadt", channel=6, rssi_dbm=-60)
HIDDEN = AccessPoint("heim", "kennwort", bssid=b"\x02heim!", channel=3, is_hidden=True)

PREPARE = """
import network, socket, time
wlan = network.WLAN(network.STA_IF)
wlan.active(True)
begun = time.ticks_ms()
def wait(limit_ms=20_000):
    end = time.ticks_add(time.ticks_ms(), limit_ms)
    while not wlan.isconnected() and time.ticks_diff(end, time.ticks_ms()) > 0:
        time.sleep_ms(10)
    return time.ticks_diff(time.ticks_ms(), begun)
def within(ms):
    time.sleep_ms(ms)
    return wlan.status()
"""


@pytest.fixture
def board(tmp_path: Path) -> Board:
    policy = NetworkPolicy(access_points=(STADT, HIDDEN))
    return Board(tmp_path / "node", start_utc_us=1_780_000_000_000_000, network_policy=policy)


def said(board: Board, code: str) -> list[str]:
    return board.exec(PREPARE + code).splitlines()


def test_a_scan_shows_what_is_there_but_no_hidden_names(board: Board) -> None:
    assert said(board, "for point in wlan.scan(): print(point)") == [
        "(b'stadt', b'\\x02stadt', 6, -60, 3, 0)",
        "(b'', b'\\x02heim!', 3, -63, 3, 1)",
    ]


def test_joining_takes_its_time_and_dhcp_some_more(board: Board) -> None:
    (line,) = said(board, "wlan.connect('stadt', 'geheimnis')\nprint(wait(), wlan.ifconfig()[0])")

    took_ms, address = line.split()
    assert int(took_ms) == pytest.approx(730 + 870, abs=30)
    assert address == "10.11.12.13"


def test_with_an_address_of_its_own_it_waits_for_nobody(board: Board) -> None:
    static = "wlan.ifconfig(('10.11.12.13', '255.255.255.0', '10.11.12.1', '10.11.12.1'))\n"
    (line,) = said(board, static + "wlan.connect('stadt', 'geheimnis')\nprint(wait())")

    assert int(line) == pytest.approx(730, abs=30)


def test_an_address_that_belongs_to_another_leads_nowhere_until_dhcp_gives_the_right_one(
    board: Board,
) -> None:
    board.network_policy.address = "10.11.12.77"
    look_up = "try:\n    print(socket.getaddrinfo('10.1.1.1', 80) and socket.getaddrinfo('ntp', 123)[0][-1][0])\nexcept OSError:\n    print('nobody')\n"
    lines = said(
        board,
        "wlan.ifconfig(('10.11.12.13', '255.255.255.0', '10.11.12.1', '10.11.12.1'))\n"
        "wlan.connect('stadt', 'geheimnis')\nwait()\nprint(wlan.status())\n"
        + look_up
        + "wlan.ipconfig(dhcp4=True)\nprint(wlan.ifconfig()[0])\ntime.sleep(1)\nprint(wlan.ifconfig()[0])\n"
        + look_up,
    )

    assert lines == ["1010", "nobody", "0.0.0.0", "10.11.12.77", "192.0.2.123"]  # noqa: S104


def test_a_name_that_nobody_has_is_told_after_a_scan_also_without_a_limit_of_tries(
    board: Board,
) -> None:
    assert said(board, "wlan.connect('weg', 'x')\nprint(within(1900), within(300))") == ["1001 201"]


def test_a_wrong_key_is_told_only_when_the_tries_are_used_up(board: Board) -> None:
    code = "wlan.connect('stadt', 'falsch!!')\nprint(within(60_000))"
    assert said(board, code) == ["1001"]
    assert said(board, "wlan.config(reconnects=1)\n" + code.replace("60_000", "7_000")) == ["1001"]
    assert said(board, "wlan.config(reconnects=1)\n" + code) == ["15"]


def test_the_reason_of_the_network_before_stays_until_another_gives_an_address(
    board: Board,
) -> None:
    lines = said(
        board,
        "wlan.connect('weg', 'x')\nprint(within(3_000))\nwlan.disconnect()\nprint(wlan.status())\n"
        "wlan.connect('stadt', 'geheimnis')\nprint(wlan.status(), within(1_700))",
    )

    assert lines == ["201", "201", "201 1010"]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("'stadt', 'geheimnis', bssid=b'\\x02stadt'", "1010"),
        ("'stadt', 'geheimnis', bssid=b'\\x02other'", "201"),
        ("'heim', 'kennwort'", "1010"),
        ("'stadt', 'geheimnis' + 60 * 'x'", "1001"),
    ],
)
def test_only_the_access_point_that_was_meant_is_joined(
    board: Board, arguments: str, status: str
) -> None:
    assert said(board, f"wlan.connect({arguments})\nprint(within(2_500))") == [status]


def test_names_longer_than_the_radio_takes_are_cut_off_without_a_word(board: Board) -> None:
    board.network_policy.access_points = (AccessPoint("n" * 32, ""),)

    assert said(board, "wlan.connect('n' * 40)\nprint(within(2_000))") == ["1010"]


def test_an_access_point_that_vanishes_is_noticed(board: Board) -> None:
    board.network_policy.vanishes_after_ms = 3_000

    assert said(
        board,
        "wlan.config(reconnects=0)\nwlan.connect('stadt', 'geheimnis')\nwait()\nprint(wlan.status())\n"
        "print(within(4_000), wlan.isconnected(), wlan.ifconfig()[0])",
    ) == ["1010", "200 False 0.0.0.0"]


def test_a_portal_answers_for_everybody_and_hangs_up(board: Board) -> None:
    board.network_policy.tcp = "captive"

    lines = said(
        board,
        "wlan.connect('stadt', 'geheimnis')\nwait()\ns = socket.socket()\n"
        "s.connect(socket.getaddrinfo('broker.city', 8883)[0][-1])\nprint(s.send(b'hello'))\n"
        "print(s.recv(18), len(s.recv(500)) > 10, s.recv(9))",
    )

    assert lines == ["5", "b'HTTP/1.1 302 Found' True b''"]


def test_how_long_the_radio_was_on_is_counted(board: Board) -> None:
    board.write_file(
        "/main.py",
        (
            PREPARE + "time.sleep(2)\nwlan.active(False)\ntime.sleep(5)\nwlan.active(True)\n"
            "time.sleep(1)\nimport machine\nmachine.deepsleep(1000)"
        ).encode(),
    )

    assert board.run_wake().radio_us == pytest.approx(3_000_000, abs=20_000)

"""`provision node …` as a person types it."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import cbor2
import pytest
import tomli_w

from hardware.virtual_board.board import Board
from provisioning.node_commands import read_wifi_file
from tests.provisioning.conftest import GOOD_TOKEN, Command, Ended, SmallFleet, pem

PROVISION = Path(sys.executable).parent / "provision"
PASSWORD = "Grüße ~\"'\\#"


def provision(*arguments: object) -> Ended:
    result = subprocess.run(
        [PROVISION, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout, result.stderr


def enrolling(fleet: SmallFleet, folder: Path, *more: object) -> list[str]:
    words = [
        "node", "enrol", "--board", f"virtual:{folder}", "--server", fleet.url,
        "--server-ca", fleet.ca_file, "--token", GOOD_TOKEN,
        "--label", "tree-01", "--model", "tree-3", *more,
    ]  # fmt: skip
    return list(map(str, words))


def enrol(fleet: SmallFleet, folder: Path, *more: object) -> Ended:
    return provision(*enrolling(fleet, folder, *more))


def test_a_flashed_board_carries_the_compiled_firmware(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    status, out, _ = provision(
        "node", "flash", "--board", f"virtual:{folder}", "--build-date", "1750000000", "--json"
    )
    said = json.loads(out)
    assert (status, said["event"]) == (0, "flashed")
    files = dict(Board(folder).list_files())
    assert {"/boot.py", "/main.py", "/slots.py", "/a/node/cycle.mpy", "/a/VERSION"} <= set(files)
    version = json.loads(Board(folder).read_file("/a/VERSION"))
    assert version == {
        "version": said["version"],
        "counter": 0,
        "built_utc_s": 1750000000,
        "sha256": said["sha256"],
    }


def test_flashing_again_keeps_identity_and_spool(fleet: SmallFleet, tmp_path: Path) -> None:
    folder = tmp_path / "board"
    assert enrol(fleet, folder)[0] == 0
    Board(folder).write_file("/spool/00000001.seg", b"readings")
    assert provision("node", "flash", "--board", f"virtual:{folder}")[0] == 0
    assert Board(folder).nvs_blob("id", "node_id") == b"n-000001"
    assert Board(folder).read_file("/spool/00000001.seg") == b"readings"


def test_enrolling_says_who_the_node_is_and_twice_changes_nothing(
    fleet: SmallFleet, tmp_path: Path
) -> None:
    folder = tmp_path / "board"
    assert enrol(fleet, folder)[:2] == (0, "tree-01 is enrolled as n-000001.\n")
    status, out, _ = enrol(fleet, folder, "--json")
    assert status == 0
    assert json.loads(out) == {
        "event": "enrolled",
        "label": "tree-01",
        "node_id": "n-000001",
        "new": False,
    }
    assert enrol(fleet, folder, "--again")[1] == "tree-01 is enrolled as n-000002.\n"


def test_wifi_passwords_reach_the_board_and_no_output(fleet: SmallFleet, tmp_path: Path) -> None:
    wifi = tmp_path / "wifi.toml"
    wifi.write_text(
        f"[[network]]\nssid = 'Büro'\npassword = {json.dumps(PASSWORD, ensure_ascii=False)}\n",
        encoding="utf-8",
    )
    folder = tmp_path / "board"
    status, out, err = enrol(fleet, folder, "--wifi-file", wifi)
    assert status == 0
    assert cbor2.loads(Board(folder).nvs_blob("cfg", "link"))["wifi"] == [["Büro", PASSWORD]]
    assert PASSWORD not in out + err
    assert GOOD_TOKEN not in out + err


def test_a_virtual_board_that_is_told_no_wifi_finds_one(fleet: SmallFleet, tmp_path: Path) -> None:
    assert enrol(fleet, tmp_path / "board")[0] == 0
    assert cbor2.loads(Board(tmp_path / "board").nvs_blob("cfg", "link"))["wifi"] != []


@pytest.mark.parametrize(
    "content",
    [
        "network = 3",
        "[[network]]\nssid = 'x'",
        "[[network]]\npassword = secret-word",
        "",
        "network = ['ssid', 'password']",
        "[[network]]\nssid = 'x'\npassword = 'secret-word'\npriority = 1",
        "[[network]]\nssid = 'x'\npassword = 'secret-word'\n[[networks]]\nssid = 'y'",
    ],
)
def test_a_wrong_wifi_file_is_refused_without_quoting_it(
    fleet: SmallFleet, tmp_path: Path, provision: Command, content: str
) -> None:
    wifi = tmp_path / "wifi.toml"
    wifi.write_text(content)
    typed = shlex.join(enrolling(fleet, tmp_path / "board", "--wifi-file", wifi))
    status, _, err = provision(typed)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "secret-word" not in err
    assert fleet.requests == []


def test_a_wifi_file_may_begin_with_the_mark_that_some_editors_write(tmp_path: Path) -> None:
    wifi = tmp_path / "wifi.toml"
    wifi.write_bytes(b"\xef\xbb\xbf[[network]]\nssid = 'x'\npassword = ''\n")
    assert read_wifi_file(wifi) == [("x", "")]


def _table(ssid: object, password: object) -> dict[str, object]:
    return {"ssid": ssid, "password": password}


@pytest.mark.parametrize(
    ("networks", "told"),
    [
        ([], "holds 0 networks; a node takes 1 to 8"),
        ([_table("stadt", "geheimnis")] * 9, "holds 9 networks"),
        ([_table("", "geheimnis")], "network 1: the ssid has 0 bytes"),
        ([_table("stadt", ""), _table("ü" * 17, "geheimnis")], "network 2: the ssid has 34 bytes"),
        ([_table("stadt", "secret7")], "network 1: the password has 7 bytes"),
        ([_table("stadt", "🔑" * 16)], "the password has 64 bytes"),
        ([_table("stadt", "secret-word" * 6)], "the password has 66 bytes"),
        ([_table("stadt", "secret-\tword")], "network 1: ssid or password holds a control"),
        ([_table("stadt\x7f", "secret-word")], "network 1: ssid or password holds a control"),
        ([_table("stadt", "secret-word")] * 2, "network 2: it stands there already; remove it"),
        ([_table("stadt", 12345678)], "network 1: ssid and password must be texts"),
    ],
)
def test_a_network_that_no_radio_could_join_is_refused_by_its_place(
    fleet: SmallFleet,
    tmp_path: Path,
    provision: Command,
    networks: list[dict[str, object]],
    told: str,
) -> None:
    wifi = tmp_path / "wifi.toml"
    wifi.write_text(tomli_w.dumps({"network": networks}), encoding="utf-8")

    typed = shlex.join(enrolling(fleet, tmp_path / "board", "--wifi-file", wifi))
    status, out, err = provision(typed)

    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert told in err
    assert "secret" not in err
    assert fleet.requests == []


def test_a_refused_enrolment_is_one_sentence_and_leaves_the_board_unenrolled(
    fleet: SmallFleet, tmp_path: Path
) -> None:
    folder = tmp_path / "board"
    status, out, err = enrol(fleet, folder, "--token", "wrong")
    assert (status, out) == (1, "")
    assert err == "provision: The fleet refused the enrolment: The enrolment token is not valid.\n"
    assert enrol(fleet, folder)[0] == 0


def test_a_board_that_was_enrolled_as_another_model_is_not_passed_over_in_silence(
    fleet: SmallFleet, tmp_path: Path
) -> None:
    folder = tmp_path / "board"
    assert enrol(fleet, folder)[0] == 0
    status, out, err = enrol(fleet, folder, "--model", "pond-1")
    assert (status, out) == (1, "")
    assert "tree-01 was enrolled as tree-3, not pond-1; name that model, or enrol it anew" in err
    assert enrol(fleet, folder, "--model", "pond-1", "--again")[0] == 0
    assert enrol(fleet, folder, "--model", "pond-1")[0] == 0


def test_a_fleet_of_another_authority_is_one_sentence(fleet: SmallFleet, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    other.write_text(pem(type(fleet.authority)("Somebody else").certificate))
    status, _, err = enrol(fleet, tmp_path / "board", "--server-ca", other)
    assert (status, len(err.splitlines())) == (1, 1)
    assert "is not to be trusted" in err


@pytest.mark.parametrize(
    ("typed", "status"),
    [
        ("node enrol", 2),
        ("node flash --board ttyUSB0", 2),
        ("node flash --board /dev/ttyUSB77", 1),
        ("node fly", 2),
        ("--help", 0),
        ("node enrol --help", 0),
        ("node flash --help", 0),
        ("virtual run --help", 0),
        ("virtual bench --help", 0),
    ],
)
def test_wrong_use_and_help_have_their_exit_codes(
    provision: Command, typed: str, status: int
) -> None:
    result, out, _ = provision(typed)
    assert result == status
    if "--help" in typed:
        assert "Example:" in out


def test_the_bench_measures_boots_against_bare_starts_and_memory_per_node() -> None:
    status, out, err = provision(
        "virtual", "bench", "--seconds", "1", "--processes", "1", "--nodes", "12", "--json"
    )
    assert status == 0, err
    figures = json.loads(out)
    assert 0 < figures["boots_per_second"] < figures["limit_boots_per_second"]
    assert 0 < figures["rss_mb_per_1000_nodes"] < 1000

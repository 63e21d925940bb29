"""What a person at the bench can type wrongly: exit 2, one sentence, and no board is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from serial.tools import list_ports
from typed_commands import Typed, is_one_sentence, make_files_that_are_none, typing

from provisioning.main import main
from tests.provisioning.conftest import Authority, pem

_ADDRESS_FORM = "is not an address of the fleet; it looks like https://HOST:PORT."
_NOBODY = "--server https://127.0.0.1:9 --server-ca ca.crt --token T"
_ENROL = "node enrol --board virtual:board --label tree-01 --model tree-3"
_SHA256 = f"--image-sha256 {'ab' * 32}"
_TIMES = "--start 1750000000 --now 1750086400"
_RUN = f"virtual run --data board {_TIMES}"

# What was typed, the exit code, what the sentence says.
WRONG = (
    ("nothing", 2, "No such command 'nothing'."),
    ("node flash", 1, "No board is plugged in; plug one in, or name it with --board: an address looks like COM5, "),
    ("node flash --board nonsense", 2, "socket://HOST:PORT or virtual:FOLDER."),
    ("node flash --board virtual:", 2, "socket://HOST:PORT or virtual:FOLDER."),
    ("node flash --board http://127.0.0.1:9", 2, "http://127.0.0.1:9 is not a board; an address looks like COM5, "),
    ("node flash --board /dev/ttyUSB77", 1, "There is no port /dev/ttyUSB77; no board is plugged in: try another cable"),
    ("node flash --board socket://127.0.0.1:9", 1, "No board answers at socket://127.0.0.1:9; see that it is served there"),
    ("node flash --board virtual:board --image garbage", 2, "--image and --image-sha256 go together;"),
    ("node flash --board /dev/ttyUSB77 --image garbage --image-sha256 12", 2, "is a SHA-256: 64 hexadecimal digits."),
    (f"node flash --board /dev/ttyUSB77 --image garbage {_SHA256}", 1, "is not the image with that SHA-256; load it again"),
    (f"node flash --board /dev/ttyUSB77 --image nothing {_SHA256}", 1, "The image nothing cannot be read: No such file"),
    (f"node flash --board /dev/ttyUSB77 --image https://127.0.0.1:9/x {_SHA256}", 1, "/x: Connection refused; check address"),
    (f"node flash --board virtual:board --image garbage {_SHA256}", 2, "has its MicroPython; leave --image out."),
    (f"{_ENROL} {_NOBODY} --board /dev/ttyUSB77", 2, "A board on a cable must be told its Wi-Fi; give --wifi-file"),
    ("node flash --board virtual:garbage", 1, "garbage is no virtual board: File exists."),
    ("node flash --board virtual:board --build-date -5", 2, "is not in the range 0<=x<=4294967295."),
    ("node read --board nonsense", 2, "socket://HOST:PORT or virtual:FOLDER."),
    ("node test --board nonsense", 2, "socket://HOST:PORT or virtual:FOLDER."),
    ("node test --board /dev/ttyUSB77 --model nothing", 2, "'nothing' is not one of "),
    ("node wipe --board nonsense", 2, "socket://HOST:PORT or virtual:FOLDER."),
    ("node wipe --board virtual:board --everything", 2, "is erased by removing the folder."),
    (f"{_ENROL} --server nonsense --server-ca ca.crt --token T", 2, _ADDRESS_FORM),
    (f"{_ENROL} --server http://127.0.0.1:9 --server-ca ca.crt --token T", 2, _ADDRESS_FORM),
    (f"{_ENROL} --server https://127.0.0.1:abc --server-ca ca.crt --token T", 2, _ADDRESS_FORM),
    (f"{_ENROL} --server https://[::1 --server-ca ca.crt --token T", 2, _ADDRESS_FORM),
    (f"{_ENROL} --server 'https://a b' --server-ca ca.crt --token T", 2, _ADDRESS_FORM),
    (f"{_ENROL} --server https://127.0.0.1:9 --server-ca nothing --token T", 2, "is not there."),
    (f"{_ENROL} --server https://127.0.0.1:9 --server-ca garbage --token T", 2, "holds no certificate."),
    (f"{_ENROL} {_NOBODY} --label ''", 2, "A label has 1 to 64 printable characters."),
    (f"{_ENROL} {_NOBODY} --label {'x' * 65}", 2, "A label has 1 to 64 printable characters."),
    (f"{_ENROL} {_NOBODY} --label \udcff", 2, "A label has 1 to 64 printable characters."),
    (f"{_ENROL} {_NOBODY} --model nothing", 2, "'nothing' is not one of "),
    (f"{_ENROL} {_NOBODY} --wifi-file nothing", 2, "cannot be read: No such file or directory."),
    (f"{_ENROL} {_NOBODY} --wifi-file noise", 2, "noise is no text in UTF-8; save it in that encoding."),
    (f"{_RUN} --server nonsense --server-ca ca.crt --token T", 2, _ADDRESS_FORM),
    (f"{_RUN} --server https://127.0.0.1:9 --server-ca nothing --token T", 2, "is not there."),
    (f"{_RUN} {_NOBODY} --scene nothing", 2, "is a TOML file or one of bochum_summer"),
    (f"{_RUN} {_NOBODY} --scene garbage", 2, "(at line 1, column 1)."),
    (f"{_RUN} {_NOBODY} --series nothing", 2, "Directory 'nothing' does not exist."),
    (f"{_RUN} {_NOBODY} --series empty", 2, "is not in empty."),
    (f"{_RUN} {_NOBODY} --speed nan", 2, "nan is not a number to reckon with."),
    (f"{_RUN} {_NOBODY} --patience nan", 2, "nan is not a number to reckon with."),
    (f"{_RUN} {_NOBODY} --fault nothing:1", 2, "RATE from 0 to 1."),
    (f"{_RUN} {_NOBODY} --fault power_cut:2", 2, "RATE from 0 to 1."),
    (f"{_RUN} {_NOBODY} --start 1750086401", 2, "--start lies after --now; the nodes live from the one to the other."),
    (f"{_RUN} {_NOBODY} --now 99999999999", 2, "is not in the range 86400<=x<=4294967295."),
    (f"virtual run --data garbage {_TIMES} {_NOBODY}", 2, "Directory 'garbage' is a file."),
    (f"virtual run --data garbage/board {_TIMES} {_NOBODY}", 1, "cannot be used: Not a directory."),
    ("virtual serve --board garbage", 2, "Directory 'garbage' is a file."),
    ("virtual serve --board board --scene nothing", 2, "is a TOML file or one of bochum_summer"),
    ("virtual serve --board board --node nobody", 2, "has no node nobody."),
    ("virtual serve --board board --port 7000 --tcp-port 7000", 2, "The two doors need a port each."),
    ("virtual serve --board board --chip esp8266", 2, "is not one of"),
    ("virtual bench --nodes 1", 2, "1 is not in the range x>=10."),
    ("virtual bench --seconds nan", 2, "nan is not a number to reckon with."),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are typed."""
    made = tmp_path_factory.mktemp("typed")
    make_files_that_are_none(made)
    (made / "ca.crt").write_text(pem(Authority("Nobody").certificate))
    return made


@pytest.fixture
def provision(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(list_ports, "comports", list)  # nothing is plugged into this computer
    return typing("provision", main, monkeypatch, capsys)


@pytest.mark.parametrize(("typed", "status", "sentence"), WRONG)
def test_wrong_use_is_told_in_one_sentence_and_touches_no_board(
    provision: Typed, folder: Path, typed: str, status: int, sentence: str
) -> None:
    ended, err = provision(typed)
    assert (ended, is_one_sentence(err, sentence)) == (status, True), err
    assert not (folder / "board").exists()


def test_fleet_that_does_not_answer_is_no_wrong_use(provision: Typed, tmp_path: Path) -> None:
    ended, err = provision(f"{_ENROL} {_NOBODY} --board virtual:{tmp_path / 'board'}")
    assert (ended, err) == (
        1,
        "provision: https://127.0.0.1:9 cannot be reached: Connection refused; see to address and network (at the server: does"
        " fleet serve run?) and repeat the command.\n",
    )

"""`provision node …` on a board at a serial port: the real esptool and mpremote's transport on a served virtual board."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography import x509
from typed_commands import is_one_sentence

from hardware.paths import firmware_dir
from hardware.virtual_board.board import Board
from hardware.virtual_board.cable.chips import ESP32_S3
from hardware.virtual_board.cable.serving import Serving
from hardware.virtual_board.esp_image import token_image
from provisioning.boards import BenchBoard, VirtualBoard
from provisioning.enrolment import FleetAddress, enrol_node, read_node_id
from provisioning.errors import BenchError
from provisioning.firmware_bundle import FirmwareBundle, build_bundle
from provisioning.flashing import flash_firmware
from provisioning.serial_board import SerialBoard
from provisioning.wiping import NAMES
from tests.hardware.cable import connected, served
from tests.provisioning.conftest import GOOD_TOKEN, Command, SmallFleet
from tests.provisioning.pulled_cable import cable_to

BUILT_UTC_S = 1_750_000_000
FIRMWARE = sorted(firmware_dir().rglob("*.py"))
DEEP_SLEEP = 4  # machine.reset_cause()
PASSWORD = "Grüße ~\"'\\#"


@pytest.fixture(scope="module")
def bundle() -> FirmwareBundle:
    return build_bundle(built_at_utc_s=BUILT_UTC_S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "board"


@pytest.fixture
def serving(folder: Path) -> Iterator[Serving]:
    with served(folder) as running:
        yield running


@pytest.fixture
def tcp(serving: Serving) -> str:
    return serving.doors.tcp_url


def image_options(tmp_path: Path, image: bytes) -> str:
    (tmp_path / "image.bin").write_bytes(image)
    return f"--image image.bin --image-sha256 {hashlib.sha256(image).hexdigest()}"


def enrolling(fleet: SmallFleet, address: str, *more: str, label: str = "tree-01") -> str:
    Path("wifi.toml").write_text(
        f"[[network]]\nssid = 'Büro'\npassword = {json.dumps(PASSWORD, ensure_ascii=False)}\n",
        encoding="utf-8",
    )
    options = f"--server {fleet.url} --server-ca {fleet.ca_file} --token {GOOD_TOKEN}"
    return (
        f"node enrol --board {address} {options} --label {label} --model tree-3 --wifi-file wifi.toml"
        f" {' '.join(more)}"
    )


def is_flashed(folder: Path, bundle: FirmwareBundle) -> bool:
    board = Board(folder)
    return all(board.read_file(path) == data for path, data in bundle.files_on_board().items())


def test_a_board_becomes_a_node_is_read_and_becomes_nobody_again(
    provision: Command, fleet: SmallFleet, tmp_path: Path, folder: Path, bundle: FirmwareBundle
) -> None:
    at = f"virtual:{folder}"
    build = f"--build-date {BUILT_UTC_S} --json"
    flashed = json.loads(provision(f"node flash --board {at} {build}")[1])
    assert json.loads(provision(f"node flash --board {at} {build}")[1])["files_written"] == 0
    assert is_flashed(folder, bundle)
    assert provision(enrolling(fleet, at))[:2] == (0, "tree-01 is enrolled as n-000001.\n")
    assert provision(enrolling(fleet, at))[1].startswith("tree-01 was enrolled before as n-000001;")
    said = provision(enrolling(fleet, at, label="tree-02"))[2]
    assert is_one_sentence(said, "The board is tree-01 (n-000001), not tree-02; take another board")
    assert len(fleet.requests) == 1

    _, out, _ = provision(f"node read --board {at} --json")
    read = json.loads(out)
    assert (read["label"], read["node_id"], read["model"]) == ("tree-01", "n-000001", "tree-3")
    assert (read["mac"][:8], read["wifi"]) == ("24:6f:28", ["Büro"])
    assert read["firmware"]["sha256"] == flashed["sha256"]
    words = provision(f"node read --board {at}")[1]
    assert "tree-01, n-000001" in words
    assert PASSWORD not in out + words
    board = Board(folder)
    assert cbor2.loads(board.nvs_blob("cfg", "link"))["wifi"] == [["Büro", PASSWORD]]

    assert board.run_wake().reason == "deepsleep"  # with a pack on flash that nobody has heard
    for options, sentence in (
        ("", "The board is tree-01 (n-000001); say that you mean it with --node-id n-000001."),
        ("--node-id n-000002", "The board is tree-01 (n-000001), not n-000002; nothing was wiped."),
        ("--node-id n-000001", "packs that the fleet has not confirmed; let it talk once more"),
    ):
        status, _, err = provision(f"node wipe --board {at} {options}")
        assert (status, is_one_sentence(err, sentence)) == (1, True), err
    everything = [(namespace, name) for namespace in NAMES for name in NAMES[namespace]]
    written = set(re.findall(r'NVS\("(\w+)"\)', "".join(map(Path.read_text, FIRMWARE))))
    assert written <= NAMES.keys()
    VirtualBoard(folder).exec(
        f"import esp32\nfor space, name in {everything!r}:\n    esp32.NVS(space).set_blob(name, b'old')\n"
        "esp32.NVS('id').set_blob('node_id', b'n-000001')"
    )
    assert provision(f"node wipe --board {at} --node-id n-000001 --drop-readings")[0] == 0
    assert provision(f"node wipe --board {at}")[1] == "The board was nobody, and is so now.\n"
    assert [path for path, _ in Board(folder).list_files() if path.startswith("/spool")] == []
    assert is_flashed(folder, bundle)
    for namespace, name in everything:
        with pytest.raises(OSError, match="4354"):
            Board(folder).nvs_blob(namespace, name)


@pytest.mark.filterwarnings("ignore:set.*is deprecated:DeprecationWarning")  # pyserial's client
def test_a_sleeping_node_is_reached_by_its_reset_line_and_gets_no_image_written_over_it(
    provision: Command, fleet: SmallFleet, tmp_path: Path, folder: Path
) -> None:
    assert provision(enrolling(fleet, f"virtual:{folder}"))[0] == 0
    Board(folder).write_file("/main.py", b"import machine\nmachine.deepsleep(3_600_000)")
    image = image_options(tmp_path, token_image())
    with served(folder) as serving:
        until_s = time.monotonic() + 30
        while Board(folder).reset_cause != DEEP_SLEEP:
            assert time.monotonic() < until_s
        status, _, err = provision(f"node flash --board {serving.doors.rfc2217_url} {image}")
    assert status == 1
    assert is_one_sentence(
        err, "The board is node n-000001, and MicroPython written anew would wipe"
    )


def test_a_watchdog_that_the_firmware_has_armed_does_not_end_a_session(folder: Path) -> None:
    armed = b"import machine\nmachine.WDT(timeout=1500)\nprint('armed')"
    Board(folder).write_file("/boot.py", armed)
    with served(folder) as serving:
        with connected(serving.doors.tcp_url) as cable:
            cable.hear(b"armed\r\n")
        with SerialBoard(serving.doors.tcp_url) as board:
            assert board.exec("import time\ntime.sleep_ms(1600)\nprint(1)") == "1\r\n"


def test_a_board_that_says_something_for_ever_is_given_up(tcp: str) -> None:
    with SerialBoard(tcp) as board, pytest.raises(BenchError, match="was lost in the middle of it"):
        board.exec(
            "import time\nwhile True:\n    print('.')\n    time.sleep_ms(100)", patience_s=0.5
        )


def test_another_chip_is_refused_by_its_name(provision: Command, folder: Path) -> None:
    with served(folder, chip=ESP32_S3) as serving:
        status, _, err = provision(f"node flash --board {serving.doors.tcp_url}")
    assert status == 1
    assert is_one_sentence(
        err, "is an ESP32-S3; the firmware is for the ESP32, take a board with that."
    )


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (
            b"no image at all, but long enough",
            "is no image of an ESP32: it does not begin with E9; take the .bin file",
        ),
        (token_image(chip_id=9), "is an image for another chip; take the one for the ESP32."),
        (token_image(bytes(4 << 20)), "is larger than a node's flash."),
    ],
)
def test_a_file_that_is_no_image_for_this_chip_is_refused_before_the_board_is_asked(
    provision: Command, tmp_path: Path, image: bytes, sentence: str
) -> None:
    status, _, err = provision(f"node flash --board /dev/ttyUSB77 {image_options(tmp_path, image)}")
    assert (status, is_one_sentence(err, sentence)) == (1, True), err


def test_a_board_without_micropython_says_what_to_do_and_an_image_helps(
    provision: Command, tmp_path: Path, folder: Path, bundle: FirmwareBundle
) -> None:
    with served(folder) as serving:
        port = serving.doors.pty_path  # faster than esptool's first speed, as a real port
        assert provision(f"node wipe --board {port} --everything")[0] == 0
        status, _, err = provision(f"node read --board {port}")
        assert (status, is_one_sentence(err, "has no MicroPython that answers;")) == (1, True), err
        options = f"{image_options(tmp_path, token_image())} --build-date {BUILT_UTC_S}"
        assert provision(f"node flash --board {port} {options}")[0] == 0
    assert is_flashed(folder, bundle)


class Forgetful(VirtualBoard):
    """Its flash keeps one file with a bit turned, and one blob of its identity cut short."""

    def put(self, files: Mapping[str, bytes]) -> None:
        turned = {path: data[:-1] + bytes([data[-1] ^ 1]) for path, data in files.items()}
        super().put({**files, "/a/node/plan.mpy": turned["/a/node/plan.mpy"]})

    def exec(self, code: str, *, patience_s: float = 30.0) -> str:
        short = code.replace("set_blob('cert', a2b_base64(", "set_blob('cert', b'' and (")
        return super().exec(short, patience_s=patience_s)


def test_what_a_board_does_not_keep_is_found_by_reading_it_back(
    folder: Path, fleet: SmallFleet, bundle: FirmwareBundle
) -> None:
    board = Forgetful(folder)
    with pytest.raises(
        BenchError, match=r"has not kept /a/node/plan\.mpy as it was written; flash it"
    ):
        flash_firmware(board, bundle)
    with pytest.raises(BenchError, match="has not kept its identity as it was written; enrol it"):
        enrol_on(board, fleet)
    assert read_node_id(board) is None


def enrol_on(board: BenchBoard, fleet: SmallFleet) -> None:
    enrol_node(
        board,
        FleetAddress(fleet.url, fleet.ca_file),
        label="tree-01",
        model_id="pond-1",
        token=GOOD_TOKEN,
        wifi=[("Büro", PASSWORD)],
    )


@contextmanager
def held(terminal: str) -> Iterator[None]:
    """As programs hold a port that they have open."""
    descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may do everything; somebody else may not use the port."""
    before = os.geteuid()
    os.seteuid(65534 if before == 0 else before)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_board_in_use_or_not_to_be_used_is_one_sentence_and_undisturbed(
    provision: Command, serving: Serving
) -> None:
    terminal, tcp = serving.doors.pty_path, serving.doors.tcp_url
    with held(terminal):
        status, _, err = provision(f"node read --board {terminal}")
    assert (status, is_one_sentence(err, "is in use by another program; end it")) == (1, True), err
    with connected(tcp) as cable:
        cable.enter_raw_repl()
        status, _, err = provision(f"node read --board {tcp}")
        assert (status, is_one_sentence(err, "no other program uses it")) == (1, True), err
        assert cable.exec("print('undisturbed')") == (b"undisturbed\r\n", b"")
    Path(terminal).chmod(0o600 if os.geteuid() == 0 else 0)
    with as_nobody():
        status, _, err = provision(f"node read --board {terminal}")
    assert (status, is_one_sentence(err, f"You may not use {terminal}; have yourself added")) == (
        1,
        True,
    ), err


def flash_through(tcp: str, bundle: FirmwareBundle, *, pulled_after: int | None = None) -> Any:
    with cable_to(tcp, pulled_after=pulled_after) as cable, SerialBoard(cable.url) as board:
        flash_firmware(board, bundle)
    return cable.passed_bytes


def pull_and_repeat(folder: Path, bundle: FirmwareBundle, pulled_after: int) -> None:
    """Flashing is broken off there; the board boots into nothing or the whole, and the same call makes it whole."""
    with served(folder) as serving:
        with pytest.raises(
            BenchError, match=r"was lost in the middle of it|No board answers"
        ) as lost:
            flash_through(serving.doors.tcp_url, bundle, pulled_after=pulled_after)
        assert "\n" not in str(lost.value)
    files = dict(Board(folder).list_files())
    assert "/main.py" not in files or is_flashed(folder, bundle)
    with served(folder) as serving:
        flash_through(serving.doors.tcp_url, bundle)
    assert is_flashed(folder, bundle)


@pytest.mark.parametrize(
    "share",
    [
        0.5,
        pytest.param(0.01, marks=pytest.mark.nightly),
        pytest.param(0.97, marks=pytest.mark.nightly),
    ],
)
def test_a_cable_pulled_while_flashing_leaves_a_board_that_the_same_command_finishes(
    tmp_path: Path, bundle: FirmwareBundle, share: float
) -> None:
    few = {path: bundle.slot_files[path] for path in ("node/cycle.mpy", "node/plan.mpy")}
    small = replace(bundle, slot_files=few)
    pull_and_repeat(tmp_path / "board", small, int(share * _SMALL_BUNDLE_BYTES))


@pytest.mark.nightly
def test_a_cable_pulled_at_any_of_many_places_is_the_same(
    tmp_path: Path, bundle: FirmwareBundle
) -> None:
    with served(tmp_path / "whole") as serving:
        all_bytes = flash_through(serving.doors.tcp_url, bundle)
        assert flash_through(serving.doors.tcp_url, bundle) < all_bytes / 5
    for number in range(60):
        pull_and_repeat(tmp_path / str(number), bundle, 1 + all_bytes * number // 62)


def test_a_cable_pulled_while_enrolling_leaves_a_board_that_asks_again_with_the_same_key(
    folder: Path, fleet: SmallFleet
) -> None:
    def enrol_through(tcp: str, pulled_after: int | None) -> None:
        with cable_to(tcp, pulled_after=pulled_after) as cable, SerialBoard(cable.url) as board:
            enrol_on(board, fleet)

    with served(folder) as serving:
        for pulled_after in (_TO_THE_KEY_BYTES, _TO_THE_CERTIFICATE_BYTES):
            with pytest.raises(BenchError, match="was lost in the middle of it"):
                enrol_through(serving.doors.tcp_url, pulled_after)
        enrol_through(serving.doors.tcp_url, None)
    assert Board(folder).nvs_blob("id", "node_id").startswith(b"n-")
    keys = {
        x509.load_pem_x509_csr(request["csr_pem"].encode()).public_key().public_numbers()
        for request in fleet.requests
    }
    assert (len(fleet.requests), len(keys)) == (2, 1)


# Half-way through what goes to a board before the fleet is asked, and after.
_TO_THE_KEY_BYTES, _TO_THE_CERTIFICATE_BYTES = 700, 3_500

_SMALL_BUNDLE_BYTES = 11_900
"""About what flashing that takes over the cable; more, and the cable is not pulled at all, which fails."""

"""`provision virtual serve` as a person starts it, with the real tools at its RFC 2217 port and a whole node in it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hardware.virtual_board.esp_image import token_image
from provisioning.boards import VirtualBoard
from provisioning.enrolment import FleetAddress, enrol_node
from provisioning.firmware_bundle import build_bundle
from provisioning.flashing import flash_firmware
from tests.hardware.cable import connected, esptool, mpremote, printed_by
from tests.provisioning.conftest import GOOD_TOKEN, SmallFleet
from tests.provisioning.small_ingest import SmallIngest, small_ingest

PROVISION = Path(sys.executable).parent / "provision"
BUILT_UTC_S = 1_750_000_000


@contextmanager
def serving(*options: str | Path) -> Iterator[dict[str, str]]:
    """The ready line of a served board; at the end Ctrl-C, which has to end it well."""
    process = subprocess.Popen(
        [PROVISION, "virtual", "serve", "--json", *options], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def refused(*options: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [PROVISION, "virtual", "serve", *options], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_real_tools_work_on_a_new_board_with_its_reset_lines(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("print('hello', __name__)")
    with serving() as ready:
        assert ready["event"] == "ready"
        assert ready["url"].startswith("rfc2217://127.0.0.1:")
        assert ready["tcp"].startswith("socket://127.0.0.1:")
        assert Path(ready["pty"]).is_char_device()

        printed = printed_by(mpremote(ready["url"], "exec", "import os; print(os.listdir())"))
        assert printed == "[]\n"
        assert printed_by(mpremote(ready["url"], "run", tmp_path / "hello.py")) == (
            "hello __main__\n"
        )
        assert "ESP32-D0WD-V3" in printed_by(esptool(ready["url"], "chip-id"))
        # esptool has reset it by its lines: MicroPython is there again.
        assert printed_by(mpremote(ready["tcp"], "exec", "print(1)")) == "1\n"


@pytest.mark.nightly
def test_flash_is_written_and_erased_through_rfc_2217(tmp_path: Path) -> None:
    (tmp_path / "image.bin").write_bytes(token_image(bytes(50_000)))
    with serving() as ready:
        url = ready["url"]
        printed_by(esptool(url, "erase-flash"))
        assert mpremote(ready["tcp"], "exec", "1").returncode == 1
        written = printed_by(esptool(url, "write-flash", "0x1000", tmp_path / "image.bin"))
        assert "Hash of data verified" in written
        printed_by(esptool(url, "read-flash", "0x1000", "5000", tmp_path / "back.bin"))
        assert (tmp_path / "back.bin").read_bytes() == token_image(bytes(50_000))[:5000]
        printed = printed_by(mpremote(url, "exec", "import os; print(os.listdir())"))
        assert printed == "[]\n"


@pytest.fixture
def ingest(fleet: SmallFleet, tmp_path: Path) -> Iterator[SmallIngest]:
    with small_ingest(fleet, tmp_path / "fleet") as running:
        yield running


def test_a_node_on_the_cable_wakes_measures_and_is_heard(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path
) -> None:
    folder = tmp_path / "nodes" / "tree-02"
    board = VirtualBoard(folder)
    flash_firmware(board, build_bundle(built_at_utc_s=BUILT_UTC_S))
    enrolment = enrol_node(
        board,
        FleetAddress(fleet.url, fleet.ca_file),
        label="tree-02",
        model_id="tree-3",
        token=GOOD_TOKEN,
        wifi=board.known_wifi,
    )
    del board

    with (
        serving("--board", folder, "--node", "tree-02") as ready,
        connected(ready["tcp"]) as cable,
    ):
        ingest.wait_for_packs(enrolment.node_id, 1)
        # Asleep or about to be: Ctrl-C is its reset button here, and breaks into the next wake.
        cable.enter_raw_repl()
        printed, _ = cable.exec("import os\nprint(os.listdir('/spool'))")
        assert b".seg" in printed

    (pack, *_) = ingest.of(enrolment.node_id)
    values = {key: value for key, value, _ in pack.readings}
    assert None not in [values[key] for key in ("r30", "t30", "bat")]


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (["--node", "nobody"], 2, "The scene bochum_summer has no node nobody."),
        (["--scene", "nowhere"], 2, "provision: "),
        (["--chip", "esp8266"], 2, "Invalid value for '--chip'"),
        (["--port", "70000"], 2, "Invalid value for '--port'"),
        (["--port", "7", "--tcp-port", "7"], 2, "The two doors need a port each."),
        (["--board", "/proc/nothing"], 1, "/proc/nothing cannot be used"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_sentence(
    options: list[str], status: int, sentence: str
) -> None:
    code, said = refused(*options)

    assert (code, sentence in said) == (status, True), said
    assert "Traceback" not in said


def test_a_port_or_board_that_is_taken_is_told_in_a_sentence(tmp_path: Path) -> None:
    with serving("--board", tmp_path / "board") as ready:
        port = ready["url"].rpartition(":")[2]
        assert refused("--port", port) == (
            1,
            f"provision: Port {port} is in use by another program; leave it out to take any.\n",
        )
        _, said = refused("--board", tmp_path / "board")
        assert said.endswith("board cannot be used: in use by another program.\n")

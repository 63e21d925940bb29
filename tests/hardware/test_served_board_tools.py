"""The real esptool and mpremote on a served board, over bare TCP (RFC 2217: tests/provisioning/test_virtual_serve.py)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardware.virtual_board.cable.serving import Serving
from hardware.virtual_board.esp_image import token_image
from tests.hardware.cable import esptool, mpremote, printed_by, served


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One board for all tests here; each leaves it with MicroPython."""
    with served(tmp_path_factory.mktemp("served") / "board") as running:
        yield running


@pytest.fixture(scope="module")
def tcp(serving: Serving) -> str:
    return serving.doors.tcp_url


def test_mpremote_runs_code_on_the_real_machine(tcp: str) -> None:
    printed = printed_by(mpremote(tcp, "exec", "import sys; print(sys.implementation.name, 2**70)"))

    assert printed == "micropython 1180591620717411303424\n"


def test_files_copied_there_and_back_are_the_same(tcp: str, tmp_path: Path) -> None:
    content = random.Random(1).randbytes(3000)
    (tmp_path / "there.bin").write_bytes(content)

    there = ["fs", "mkdir", ":bin", "+", "fs", "cp", tmp_path / "there.bin", ":bin/x"]
    back = ["fs", "cp", ":bin/x", tmp_path / "back.bin", "+", "fs", "ls", ":bin"]
    printed = printed_by(mpremote(tcp, *there, "+", *back))

    assert (tmp_path / "back.bin").read_bytes() == content
    assert "3000 x" in printed


def test_esptool_writes_verifies_and_reads_flash(tcp: str, tmp_path: Path) -> None:
    image = token_image(random.Random(2).randbytes(20_000))
    (tmp_path / "image.bin").write_bytes(image)

    written = printed_by(esptool(tcp, "write-flash", "0x1000", tmp_path / "image.bin"))
    verified = printed_by(esptool(tcp, "verify-flash", "0x1000", tmp_path / "image.bin"))
    printed_by(esptool(tcp, "read-flash", "0x1000", str(len(image)), tmp_path / "back.bin"))

    assert "Hash of data verified" in written
    assert "Verification successful" in verified
    assert (tmp_path / "back.bin").read_bytes() == image


def test_esptool_tells_chip_flash_and_address(tcp: str, serving: Serving) -> None:
    printed = printed_by(esptool(tcp, "flash-id"))

    assert "ESP32-D0WD-V3 (revision v3.1)" in printed
    assert "Detected flash size: 4MB" in printed
    mac = printed_by(mpremote(tcp, "exec", "import machine; print(machine.unique_id().hex(':'))"))
    assert f"MAC:                {mac.strip()}" in printed
    assert mac.startswith("24:6f:28:")

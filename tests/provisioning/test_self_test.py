"""`provision node test`: the node's own drivers measure on a served board, and the table says what to do."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from typed_commands import is_one_sentence

from hardware.catalogue import load_node_model, node_model_ids
from hardware.scenes import load_scene
from hardware.virtual_board.scene_wiring import wire_board
from provisioning.boards import VirtualBoard
from provisioning.firmware_bundle import build_bundle
from provisioning.flashing import flash_firmware
from provisioning.self_test import judge
from tests.hardware.cable import served
from tests.provisioning.conftest import Command

GOLDEN = Path(__file__).parents[1] / "golden"


def flashed(folder: Path) -> Path:
    flash_firmware(VirtualBoard(folder), build_bundle(built_at_utc_s=1_750_000_000))
    return folder


def test_loose_wires_are_told_with_their_pins_and_the_other_probes_pass(
    provision: Command, tmp_path: Path
) -> None:
    wiring = wire_board(load_scene(), "tree-01")
    del wiring.one_wire[13]
    del wiring.analog[33]
    with served(flashed(tmp_path / "board"), wiring=wiring) as serving:
        tcp = serving.doors.tcp_url
        status, _, err = provision(f"node test --board {tcp}")
        assert (status, is_one_sentence(err, "say with --model what the node is built as.")) == (
            2,
            True,
        )
        status, out, _ = provision(f"node test --board {tcp} --model tree-3 --json")
    said = json.loads(out)
    assert (status, said["passed"]) == (1, False)
    failed = {one["channel"]: one for one in said["channels"] if not one["passed"]}
    assert failed.keys() == {"t60", "r60"}
    assert failed["t60"]["reason"] == "absent"
    assert failed["t60"]["next_step"].endswith("its wires at slot d60 (data GPIO13)")
    assert "slot w60 (a GPIO27, b GPIO14, adc GPIO33)" in failed["r60"]["next_step"]


def test_what_was_measured_is_shown_as_a_table(provision: Command, tmp_path: Path) -> None:
    status, out, _ = provision(
        f"node test --board virtual:{flashed(tmp_path / 'board')} --model pond-1"
    )
    assert status == 1
    assert out.endswith("4 of 4 channels failed; do what the table says and test again.\n")
    assert "-2 … 45 °C" in out


def test_a_board_without_firmware_cannot_be_tested_and_says_so(
    provision: Command, tmp_path: Path
) -> None:
    status, _, err = provision(f"node test --board virtual:{tmp_path / 'board'} --model pond-1")
    assert (status, is_one_sentence(err, "no firmware to measure with; flash it first.")) == (
        1,
        True,
    )


@pytest.mark.parametrize("model_id", node_model_ids())
def test_every_reason_and_silence_fail_every_channel_with_a_next_step(model_id: str) -> None:
    model = load_node_model(model_id)
    reasons = json.loads((GOLDEN / "reasons.json").read_text())
    for reason in [*reasons, "None"]:
        for result in judge(model, {channel.key: f"r{reason}" for channel in model.channels}):
            assert not result.has_passed
            assert result.next_step
            assert "{" not in result.next_step
    assert not any(result.has_passed for result in judge(model, {}))


def float32(value: float) -> str:
    return "f" + struct.pack(">f", value).hex()


@pytest.mark.parametrize(
    ("model_id", "key", "said", "value", "is_good"),
    [
        ("tree-3", "t30", "i320", 20.0, True),
        ("tree-3", "t30", "i-880", -55.0, False),  # the probe can, no bench is so cold
        ("tree-3", "ref", "i10041", 10_041, True),
        ("tree-3", "ref", "i9100", 9_100, False),  # a wrong resistor
        ("tree-3", "bat", "i0", 0, False),  # no divider
        ("tree-3", "r30", "i34999", 34_999, True),
        ("soil-1", "t30", "i11868", 18.68, True),
        ("pond-1", "do", float32(8.5), 8.5, True),
        ("pond-1", "do", float32(20.5), 20.5, False),
        ("pond-1", "do", float32(-1e30), -1e30, False),
    ],
)
def test_values_are_judged_by_what_a_probe_and_a_bench_can_be(
    model_id: str, key: str, said: str, value: float, is_good: bool
) -> None:
    results = judge(load_node_model(model_id), {key: said})
    (result,) = (one for one in results if one.channel == key)
    assert result.value == pytest.approx(value)
    assert result.has_passed is is_good


def test_no_number_is_no_pass() -> None:
    results = judge(load_node_model("pond-1"), {"do": float32(float("nan"))})
    assert not any(result.has_passed for result in results)

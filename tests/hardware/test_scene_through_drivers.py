"""A scene read by the real drivers on the real virtual machine: scene → wire → firmware/node/sensors → raw values."""

from __future__ import annotations

import json
import struct

import pytest
from perfect_driver import tension_kpa

from hardware.catalogue import load_node_model
from hardware.paths import firmware_dir
from hardware.scenes import load_scene
from hardware.scenes.faults import Fault
from hardware.virtual_board.board import Board
from hardware.virtual_board.scene_truth import Truth
from hardware.virtual_board.scene_wiring import wire_board
from provisioning.node_configuration import node_map

_START = 1_752_580_800  # noon, UTC
REASONS = {"absent", "timeout", "crc", "por", "range", "short", "open", "spread", "frame", "error"}

# As cycle.py does, with nothing around it.
_READ_PROBES = """
import sys, json
sys.path.insert(0, "/a")
from node import plan
from node.deadline import Deadline
found = plan.measure({probes!r}, Deadline(75_000))
print("RAW" + json.dumps({{k: v.hex() if isinstance(v, bytes) else v for k, v in found}}))
"""


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(load_scene("every_probe"), now_utc_s=_START)


@pytest.fixture
def board(tmp_path, truth):
    def make(label: str) -> Board:
        board = Board(tmp_path / label, wire_board(truth, label), start_utc_us=_START * 1_000_000)
        sources = {
            f"/a/{path.relative_to(firmware_dir()).as_posix()}": path.read_bytes()
            for path in (firmware_dir() / "node").rglob("*.py")
            if path.parent.name in ("node", "bus", "sensors")
        }
        sources["/slots.py"] = (firmware_dir() / "slots.py").read_bytes()
        board.write_files(sources)
        return board

    return make


def _raw(board: Board, truth: Truth, label: str) -> dict[str, int | str]:
    probes = node_map(load_node_model(truth.scene.node(label).model))["probes"]
    printed = board.exec(_READ_PROBES.format(probes=probes))
    return json.loads(printed.split("RAW", 1)[1])


def test_tree_drivers_reach_the_truth_through_gpios_and_one_wire(board, truth):
    raw = _raw(board("tree-01"), truth, "tree-01")
    for depth_cm in (30, 60, 90):
        temperature_c = raw[f"t{depth_cm}"] / 16
        true_c = truth.value("tree-01", "soil_temperature", depth_cm, _START)
        assert temperature_c == pytest.approx(true_c, abs=0.5)
        tension = tension_kpa(raw[f"r{depth_cm}"], temperature_c)
        true_kpa = truth.value("tree-01", "soil_water_tension", depth_cm, _START)
        assert tension == pytest.approx(true_kpa, rel=0.12, abs=3.0)


def test_water_driver_reaches_the_truth_through_modbus(board, truth):
    raw = _raw(board("pond-01"), truth, "pond-01")
    for key, tolerance in (("sat", 0.035), ("do", 0.035), ("tw", 0.03)):
        (value,) = struct.unpack(">f", bytes.fromhex(raw[key]))
        assert value == pytest.approx(truth.value("pond-01", key, 0, _START + 10), rel=tolerance)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.DISCONNECTED, "absent"),
        (Fault.SHORT, "short"),
        (Fault.BAD_CRC, "crc"),
        (Fault.HALF_FRAME, "crc"),
        (Fault.POWER_ON, "por"),
    ],
)
def test_thermometers_fault_becomes_its_reason(board, truth, fault, reason):
    one = board("tree-01")
    one.wiring.one_wire[4].faults.put(fault)
    raw = _raw(one, truth, "tree-01")
    assert raw["t30"] == reason
    assert isinstance(raw["t60"], int)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Fault.DISCONNECTED, "open"), (Fault.SHORT, "short"), (Fault.UNEVEN, "spread")],
)
def test_watermarks_fault_becomes_its_reason(board, truth, fault, reason):
    one = board("tree-01")
    one.wiring.analog[33].faults.put(fault)
    raw = _raw(one, truth, "tree-01")
    assert raw["r60"] == reason
    assert isinstance(raw["r30"], int)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.DISCONNECTED, "timeout"),
        (Fault.SLOW, "timeout"),
        (Fault.HALF_FRAME, "frame"),
        (Fault.BAD_CRC, {"crc", "frame"}),
    ],
)
def test_oxygen_probes_fault_becomes_its_reason(board, truth, fault, reason):
    one = board("pond-01")
    one.wiring.uart[2].probes[0].faults.put(fault)
    raw = _raw(one, truth, "pond-01")
    assert set(raw.values()) <= (reason if isinstance(reason, set) else {reason})


def test_stray_bytes_on_the_bus_do_not_hide_the_answer(board, truth):
    one = board("pond-01")
    one.wiring.uart[2].probes[0].faults.put(Fault.NOISE, strength=0.0)
    raw = _raw(one, truth, "pond-01")
    assert all(len(value) == 8 for value in raw.values())


def _soil(wiring):
    return wiring.uart[2].probes[0]


def _oxygen(wiring):
    return wiring.uart[2].probes[0]


def _turbidity(wiring):
    return wiring.uart[1].probes[0]


def _level(wiring):
    return wiring.i2c[0, 72]


def _acidity(wiring):
    return wiring.i2c[0, 99]


_SOIL_KEYS = ("v30", "e30", "t30")


@pytest.mark.parametrize(
    ("label", "probe", "fault", "reasons"),
    [
        ("soil-01", _soil, Fault.DISCONNECTED, dict.fromkeys(_SOIL_KEYS, "timeout")),
        ("soil-01", _soil, Fault.SLOW, dict.fromkeys(_SOIL_KEYS, "timeout")),
        ("soil-01", _soil, Fault.HALF_FRAME, dict.fromkeys(_SOIL_KEYS, "frame")),
        ("soil-01", _soil, Fault.INVALID, dict.fromkeys(_SOIL_KEYS, "range")),
        ("pond-02", _oxygen, Fault.INVALID, {"sat": "range", "do": "range"}),
        ("pond-02", _turbidity, Fault.INVALID, {"tu": "error"}),
        ("pond-02", _turbidity, Fault.NO_WIPER, {"wipe": "timeout"}),
        ("pond-02", _turbidity, Fault.DISCONNECTED, {"tu": "timeout", "wipe": "timeout"}),
        ("pond-02", _level, Fault.DISCONNECTED, {"lvl": "open"}),
        ("pond-02", _level, Fault.SHORT, {"lvl": "short"}),
        ("pond-02", _level, Fault.INVALID, {"lvl": "range"}),
        ("pond-02", _level, Fault.BUSY, {"lvl": "timeout"}),
        ("pond-02", _level, Fault.BUS_HELD, {"lvl": "timeout"}),
        ("pond-03", _acidity, Fault.DISCONNECTED, {"ph": "absent"}),
        ("pond-03", _acidity, Fault.BUSY, {"ph": "timeout"}),
        ("pond-03", _acidity, Fault.INVALID, {"ph": "frame"}),
        ("pond-03", _acidity, Fault.HALF_FRAME, {"ph": "frame"}),
        ("pond-03", _acidity, Fault.NOISE, {"ph": "frame"}),
        (
            "pond-03",
            _acidity,
            Fault.BUS_HELD,
            {"ph": "timeout", "do": "timeout", "ec": "timeout"},
        ),
    ],
)
def test_each_probes_fault_becomes_its_reason_and_costs_the_others_nothing(
    board, truth, label, probe, fault, reasons
):
    one = board(label)
    probe(one.wiring).faults.put(fault)
    raw = _raw(one, truth, label)
    assert {key: value for key, value in raw.items() if value in REASONS} == reasons


def test_a_stuck_probe_looks_like_any_other_to_its_node(board, truth):
    # Whether a value has stood still too long is for the server to see: one wake knows one value.
    one = board("soil-01")
    one.wiring.uart[2].probes[0].faults.put(Fault.STUCK, since_utc_s=_START - 9 * 86400)
    raw = _raw(one, truth, "soil-01")
    then = truth.value("soil-01", "v30", 30, _START - 9 * 86400)
    assert raw["v30"] / 10_000 == pytest.approx(then, abs=0.03)


def test_no_probe_of_any_model_ends_a_wake_with_an_exception(board, truth):
    """Nothing is wired at all: every key has its reason."""
    for label, reasons in (
        ("soil-01", {"timeout"}),
        ("pond-02", {"timeout", "absent"}),
        ("pond-03", {"absent"}),
    ):
        one = board(label)
        one.wiring.uart.clear()
        one.wiring.i2c.clear()
        one.wiring.one_wire.clear()
        assert set(_raw(one, truth, label).values()) == reasons

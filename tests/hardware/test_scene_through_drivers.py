"""A scene read by the real drivers on the real virtual machine: scene → wire → firmware/node/sensors → raw values."""

from __future__ import annotations

import json
import struct

import pytest
from perfect_driver import tension_kpa

from hardware.catalogue import load_node_model, load_sensor_type
from hardware.paths import firmware_dir
from hardware.scenes import load_scene
from hardware.scenes.faults import Fault
from hardware.virtual_board.board import Board
from hardware.virtual_board.scene_truth import Truth
from hardware.virtual_board.scene_wiring import wire_board

_START = 1_752_580_800  # noon, UTC

# One probe after another, as cycle.py drives them: start, wait, read; once more when the driver asks for it.
_READ_PROBES = """
import sys, json, time, struct
sys.path.insert(0, "/a")
from node.deadline import Deadline
from node.errors import SensorError
out = {{}}
for driver, keys, pins, options in {probes!r}:
    probe = __import__("node.sensors." + driver, None, None, ("Driver",)).Driver(pins, options)
    limit = Deadline(25_000)
    try:
        probe.start(time.ticks_ms())
        raw = None
        while raw is None:
            time.sleep_ms(probe.ready_in(time.ticks_ms()))
            raw = probe.read(limit)
    except SensorError as error:
        raw = [str(error.code)] * len(keys)
    finally:
        probe.stop()
    for key, value in zip(keys, raw):
        out[key] = value.hex() if isinstance(value, bytes) else value
print("RAW" + json.dumps(out))
"""


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(load_scene(), now_utc_s=_START)


@pytest.fixture
def board(tmp_path, truth):
    def make(label: str) -> Board:
        board = Board(tmp_path / label, wire_board(truth, label), start_utc_us=_START * 1_000_000)
        sources = {
            f"/a/{path.relative_to(firmware_dir()).as_posix()}": path.read_bytes()
            for path in (firmware_dir() / "node").rglob("*.py")
            if path.parent.name in ("node", "bus", "sensors")
        }
        board.write_files(sources)
        return board

    return make


def _raw(board: Board, truth: Truth, label: str) -> dict[str, int | str]:
    model = load_node_model(truth.scene.node(label).model)
    probes = [
        (
            load_sensor_type(slot.sensor_type).driver,
            [channel.key for channel in slot.channels],
            dict(slot.pins),
            dict(slot.options),
        )
        for slot in model.slots
        if slot.id != "bat"
    ]
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
    one.wiring.uart[2].faults.put(fault)
    raw = _raw(one, truth, "pond-01")
    assert set(raw.values()) <= (reason if isinstance(reason, set) else {reason})


def test_stray_bytes_on_the_bus_do_not_hide_the_answer(board, truth):
    one = board("pond-01")
    one.wiring.uart[2].faults.put(Fault.NOISE, strength=0.0)
    raw = _raw(one, truth, "pond-01")
    assert all(len(value) == 8 for value in raw.values())

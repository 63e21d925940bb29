"""Soil and level nodes of a scene, read by the real drivers on the real virtual machine, and observed by the server's formulas.

The scene's truth → the probe's wire → the node's driver → raw numbers → value, u and flag, compared with the truth again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.measurement.pipeline import CONVERSIONS, Observed, observe
from fleet_server.measurement.quality import Flag
from hardware.catalogue import Channel, load_node_model, load_sensor_type
from hardware.scenes import load_scene
from hardware.scenes.faults import Fault
from hardware.virtual_board.board import Board
from hardware.virtual_board.probes.faults import FaultSwitch
from hardware.virtual_board.scene_truth import Truth
from hardware.virtual_board.scene_wiring import wire_board
from hardware.virtual_board.wiring import Wiring
from provisioning.firmware_bundle import build_bundle
from provisioning.node_configuration import node_map

_START = 1_752_580_800  # noon, UTC


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(load_scene("soil_and_level"), now_utc_s=_START)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return build_bundle(built_at_utc_s=_START - 86_400, version="1.2.3").files_on_board()


Measure = Callable[[str, Wiring], dict[str, Any]]


@pytest.fixture
def measure(tmp_path: Path, truth: Truth, files: dict[str, bytes]) -> Measure:
    """What a node of the scene makes of its probes, as it does it at every wake."""

    def of(label: str, wiring: Wiring) -> dict[str, Any]:
        board = Board(tmp_path / label, wiring, start_utc_us=_START * 1_000_000)
        board.write_files(files)
        probes = node_map(load_node_model(truth.scene.node(label).model))["probes"]
        printed = board.exec(
            "import sys\nsys.path.insert(0, '/a')\nfrom node import plan\n"
            "from node.deadline import Deadline\n"
            f"print(repr(plan.measure({probes!r}, Deadline(40000))))"
        )
        return dict(eval(printed.splitlines()[-1]))  # noqa: S307 - a literal printed by our own node

    return of


def _observed(model_id: str, raw: dict[str, Any], channel: Channel) -> Observed:
    """By the node model's conversion and the sensor type's factory accuracy, with its inputs."""
    model = load_node_model(model_id)
    sensor_type = load_sensor_type(model.slot_of(channel.key).sensor_type)
    accuracy = sensor_type.quantity(channel.property).accuracy
    value = raw[channel.key]
    is_reason = isinstance(value, str)
    return observe(
        channel.conversion,
        [None if is_reason else value],
        {name: _observed(model_id, raw, model.channel(key)) for name, key in channel.needs.items()},
        CalibrationParameters(u_abs=accuracy.absolute, u_rel=accuracy.relative),
        observed_property=channel.property,
        reasons=[value if is_reason else None],
    )


@pytest.mark.parametrize(
    ("label", "model_id"), [("tree-01", "tree-2"), ("tree-02", "tree-3"), ("level-01", "level-1")]
)
def test_every_channel_is_observed_within_its_uncertainty_of_the_truth(
    truth: Truth, measure: Measure, label: str, model_id: str
) -> None:
    raw = measure(label, wire_board(truth, label))

    channels = [one for one in load_node_model(model_id).channels if one.key != "bat"]
    assert set(raw) == {channel.key for channel in channels}
    for channel in channels:
        assert channel.conversion in CONVERSIONS
        observed = _observed(model_id, raw, channel)
        true = truth.value(label, channel.key, channel.depth_cm, _START + 2)
        assert true is not None
        value, u = float(observed.value[0]), float(observed.u[0])
        # Three standard uncertainties: one reading of each of many channels.
        assert abs(value - true) <= 3 * u, (channel.key, value, true, u)
        # A level that nobody compared with a gauge is bad until somebody does.
        expected = Flag.BAD if channel.property == "water_level" else Flag.GOOD
        assert observed.flag[0] == expected, channel.key


def _first_sensor(wiring: Wiring) -> FaultSwitch:
    return wiring.lines[1].sensors[0].faults  # type: ignore[attr-defined,no-any-return]


def _module(wiring: Wiring) -> FaultSwitch:
    return wiring.lines[2].faults  # type: ignore[attr-defined,no-any-return]


def _on_pin(pin: int) -> Callable[[Wiring], FaultSwitch]:
    return lambda wiring: wiring.analog[pin].faults  # type: ignore[attr-defined]


_SOIL = ("v30", "t30", "e30")


@pytest.mark.parametrize(
    ("label", "probe", "fault", "keys", "reasons"),
    [
        ("tree-01", _first_sensor, Fault.DISCONNECTED, _SOIL, {"absent"}),
        ("tree-01", _first_sensor, Fault.SLOW, _SOIL, {"absent"}),
        ("tree-01", _first_sensor, Fault.HALF_FRAME, _SOIL, {"frame"}),
        ("tree-01", _first_sensor, Fault.BAD_CRC, _SOIL, {"crc", "frame"}),
        ("tree-01", _first_sensor, Fault.MALFUNCTION, _SOIL, {"range"}),
        ("tree-01", _on_pin(32), Fault.DISCONNECTED, ("i10",), {"range"}),
        ("tree-01", _on_pin(32), Fault.SHORT, ("i10",), {"range"}),
        ("tree-02", _on_pin(36), Fault.DISCONNECTED, ("ref",), {"open"}),
        ("tree-02", _on_pin(36), Fault.SHORT, ("ref",), {"short"}),
        ("tree-02", _on_pin(36), Fault.UNEVEN, ("ref",), {"spread"}),
        ("level-01", _module, Fault.DISCONNECTED, ("lvl",), {"absent"}),
        ("level-01", _module, Fault.NO_ECHO, ("lvl",), {"range"}),
        ("level-01", _module, Fault.BAD_CRC, ("lvl",), {"crc"}),
        ("level-01", _module, Fault.HALF_FRAME, ("lvl",), {"crc", "frame"}),
        ("level-01", _on_pin(36), Fault.DISCONNECTED, ("full",), {"open"}),
        ("level-01", _on_pin(36), Fault.SHORT, ("full",), {"short"}),
        ("level-01", _on_pin(36), Fault.BOUNCE, ("full",), {"spread"}),
    ],
)  # fmt: skip
def test_fault_becomes_a_reason_and_the_neighbours_go_on(
    truth: Truth,
    measure: Measure,
    label: str,
    probe: Callable[[Wiring], FaultSwitch],
    fault: Fault,
    keys: tuple[str, ...],
    reasons: set[str],
) -> None:
    wiring = wire_board(truth, label)
    probe(wiring).put(fault)

    raw = measure(label, wiring)

    assert {raw[key] for key in keys} <= reasons
    assert all(isinstance(value, int) for key, value in raw.items() if key not in keys)


@pytest.mark.parametrize(
    ("label", "probe", "keys"), [("tree-01", _first_sensor, _SOIL), ("level-01", _module, ("lvl",))]
)
def test_stray_bytes_on_the_line_do_not_hide_the_answer(
    truth: Truth,
    measure: Measure,
    label: str,
    probe: Callable[[Wiring], FaultSwitch],
    keys: tuple[str, ...],
) -> None:
    clean = measure(label, wire_board(truth, label))
    wiring = wire_board(truth, label)
    probe(wiring).put(Fault.NOISE, strength=0.0)

    noisy = measure(label, wiring)

    assert [noisy[key] for key in keys] == pytest.approx([clean[key] for key in keys], abs=30)


def test_broken_reference_takes_the_trust_from_every_tension(
    truth: Truth, measure: Measure
) -> None:
    wiring = wire_board(truth, "tree-02")
    wiring.analog[36].faults.put(Fault.UNEVEN)  # type: ignore[attr-defined]

    raw = measure("tree-02", wiring)

    model = load_node_model("tree-3")
    for key in ("r30", "r60", "r90"):
        observed = _observed("tree-3", raw, model.channel(key))
        assert observed.flag[0] == Flag.BAD
        assert observed.value[0] > 0


def test_stuck_sensor_tells_for_ever_what_was_true_when_it_got_stuck(
    truth: Truth, measure: Measure
) -> None:
    # That nothing moves is for rules over time to see; the driver cannot know.
    wiring = wire_board(truth, "tree-01")
    _first_sensor(wiring).put(Fault.STUCK, since_utc_s=_START - 9 * 3600)

    raw = measure("tree-01", wiring)

    then = truth.value("tree-01", "t30", 30, _START - 9 * 3600)
    assert raw["t30"] / 10 == pytest.approx(then, abs=0.4)

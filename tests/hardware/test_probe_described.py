"""A Modbus probe that exists only as a TOML file: node, wire and catalogue carry it without a line of code."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from hardware.catalogue import CatalogueError, parse_sensor_type
from hardware.scenes import load_scene
from hardware.virtual_board import scene_wiring
from hardware.virtual_board.probes.described import DescribedProbe
from hardware.virtual_board.probes.modbus import frame
from hardware.virtual_board.wiring import UartSettings

# Made up: two kinds of numbers, an odd byte order, a status that has to be 1, input registers, even parity.
TURBIDITY = """
id = "murk-7"
title = "Made-up turbidity probe"
manufacturer = "Nobody"
driver = "modbus"
interface = "modbus_rtu"
warm_up_ms = 500
stabilise_ms = 0
measure_ms = 100
source = "Made up for a test; there is no such probe."
assumed = []
wires = []
parts = []
supply = { rail = "switched_5v", minimum_v = 5, maximum_v = 5 }
current = { warm_up_ma = 10, stabilise_ma = 10, measure_ma = 10, asleep_ua = 0 }
calibration = { against = "nothing", every_days = 1, steps = [] }
mounting = { place = "water", hole_mm = 0, length_mm = 0, cable_mm = 5, cable_m = 1, orientation = "down", steps = [] }
error_signs = [{ reason = "timeout", sign = "silence", remedy = "none" }]
[modbus]
function = 4
baud = 19200
parity = "even"
[[modbus.guards]]
register = { at = 40, kind = "u16" }
minimum = 1
maximum = 1
reason = "error"
properties = ["turbidity"]
meaning = "not ready"
[[quantities]]
property = "turbidity"
unit = "FNU"
raw_unit = "FNU"
minimum = 0
maximum = 400
raw_minimum = 0
raw_maximum = 400
raw_resolution = 0.1
register = { at = 10, kind = "f32", order = "cdab" }
accuracy = { absolute = 0.5, relative = 0.03 }
drift_per_year = { absolute = 0.1, relative = 0.0 }
[[quantities]]
property = "water_temperature"
unit = "Cel"
raw_unit = "Cel/10"
minimum = -5
maximum = 50
raw_minimum = -50
raw_maximum = 500
raw_resolution = 1
register = { at = 12, kind = "s16" }
accuracy = { absolute = 0.3, relative = 0.0 }
drift_per_year = { absolute = 0.1, relative = 0.0 }
"""


@pytest.fixture
def probe() -> DescribedProbe:
    probe = DescribedProbe(
        parse_sensor_type(TURBIDITY, name="sensors/murk-7.toml"),
        {"turbidity": lambda _: 17.5, "water_temperature": lambda _: -1.2},
        serial="test",
        power_pin=None,
    )
    probe.line_set(UartSettings(19_200, 8, 0))
    return probe


def test_it_keeps_its_truth_where_its_file_says(probe):
    (_, reply), *_ = probe.receive(frame(bytes.fromhex("0104 000a 0003")), 10**15)
    # 17.5 is 418C0000h; its low word comes first.
    assert reply == frame(bytes.fromhex("0104 06 0000 418c") + struct.pack(">h", -12))
    (_, reply), *_ = probe.receive(frame(bytes.fromhex("0104 0028 0001")), 10**15)
    assert reply[3:5] == b"\0\x01"


@pytest.mark.parametrize("request_body", ["0104 000d 0001", "0104 000a 0000"])
def test_registers_that_its_file_does_not_name_are_refused(probe, request_body):
    (_, reply), *_ = probe.receive(frame(bytes.fromhex(request_body)), 10**15)
    assert reply == frame(bytes.fromhex("018402"))


def test_a_driver_without_a_model_is_said_before_the_board_starts(monkeypatch):
    unknown = replace(parse_sensor_type(TURBIDITY, name="sensors/murk-7.toml"), driver="lidar")
    monkeypatch.setattr(scene_wiring, "load_sensor_type", lambda _id: unknown)
    with pytest.raises(CatalogueError, match="no model of a probe with the driver lidar"):
        scene_wiring.wire_board(load_scene(), "tree-01")

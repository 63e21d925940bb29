"""The soil moisture probe on RS485, held to the bytes that its maker's documents and another driver give."""

from __future__ import annotations

import struct

import pytest

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.modbus import frame
from hardware.virtual_board.probes.smt100 import Smt100
from hardware.virtual_board.wiring import UartSettings

_S = 1_000_000
_NOW = 1_750_000_000 * _S
_READ = frame(bytes([1, 3, 0, 0, 0, 3]))
_TRUTH = {"soil_water_content": 0.344, "soil_permittivity": 15.2, "soil_temperature": 27.97}


def _probe(tolerance: float = 0.0, power_pin: int | None = None, **values: float | None) -> Smt100:
    truth = _TRUTH | values
    sources = {name: (lambda _, value=value: value) for name, value in truth.items()}
    probe = Smt100(sources, serial="test", tolerance=tolerance, power_pin=power_pin)
    probe.line_set(UartSettings(9600, 8, 0))
    return probe


def _ask(probe: Smt100, request: bytes = _READ, now_us: int = _NOW) -> bytes:
    replies = probe.receive(request, now_us)
    return replies[0][1] if replies else b""


def test_registers_are_those_of_the_makers_examples():
    # 31FDh 27.97 °C, 0D70h 34.4 %, 05F0h 15.2 (slowtec, truebner-smt100).
    assert _ask(_probe()) == frame(bytes.fromhex("010306 31fd 0d70 05f0"))


@pytest.mark.parametrize(
    ("temperature_c", "raw"), [(-40.0, 0x1770), (0.0, 0x2710), (60.0, 0x3E80), (80.0, 0x4650)]
)
def test_temperature_counts_from_minus_100_degrees(temperature_c, raw):
    reply = _ask(_probe(soil_temperature=temperature_c), frame(bytes([1, 3, 0, 0, 0, 1])))
    assert struct.unpack(">H", reply[3:5]) == (raw,)


def test_input_registers_are_the_same_and_the_fifth_is_the_address():
    reply = _ask(_probe(), frame(bytes([1, 4, 0, 0, 0, 5])))
    assert struct.unpack(">5H", reply[3:13])[::4] == (0x31FD, 1)


@pytest.mark.parametrize(
    ("baudrate", "parity"), [(9600, None), (9600, 1), (19_200, 0)], ids=["8N1", "8O1", "faster"]
)
def test_a_master_of_another_speed_or_parity_is_not_understood(baudrate, parity):
    probe = _probe()
    probe.line_set(UartSettings(baudrate, 8, parity))
    assert _ask(probe) == b""


def test_probe_answers_only_after_its_supply_has_warmed_it_up():
    probe = _probe(power_pin=25)
    assert _ask(probe) == b""
    probe.power_changed(25, 1, _NOW)
    assert _ask(probe, now_us=_NOW + 200_000) == b""
    assert _ask(probe, now_us=_NOW + 300_000) != b""


def test_what_is_invalid_is_ffff():
    probe = _probe()
    probe.faults.put(Fault.INVALID)
    assert _ask(probe) == frame(bytes.fromhex("010306 ffff ffff ffff"))


def test_permittivity_below_one_is_told_as_it_is():
    assert _ask(_probe(soil_permittivity=0.5, soil_water_content=0.0))[5:9] == b"\0\0\0\x32"


def test_permittivity_that_nobody_gave_follows_from_the_water():
    probe = Smt100({"soil_water_content": lambda _: 0.25}, serial="test", tolerance=0.0)
    probe.line_set(UartSettings(9600, 8, 0))
    assert struct.unpack(">H", _ask(probe)[7:9]) == (1328,)


def test_parts_as_built_keep_the_makers_three_per_cent_and_half_degree():
    for number in range(200):
        sources = {name: (lambda _, value=value: value) for name, value in _TRUTH.items()}
        probe = Smt100(sources, serial=str(number))
        probe.line_set(UartSettings(9600, 8, 0))
        temperature, water, permittivity = struct.unpack(">HHH", _ask(probe)[3:9])
        assert temperature / 100 - 100 == pytest.approx(27.97, abs=0.4)
        assert water / 10_000 == pytest.approx(0.344, abs=0.03)
        assert permittivity / 100 == pytest.approx(15.2, rel=0.05)

"""The two optical probes on RS485, held to the frames of their maker's instructions and what users found out."""

from __future__ import annotations

import math
import struct

import pytest

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.modbus import Rs485Bus, frame
from hardware.virtual_board.probes.yosemitech import Y504, Y511
from hardware.virtual_board.wiring import UartSettings

_S = 1_000_000
_NOW = 1_750_000_000 * _S
_START = bytes.fromhex("0103 2500 0000 4ec6")
_STARTED = frame(bytes.fromhex("010300"))
_READ = bytes.fromhex("0103 2600 0004 4f41")  # figure 26
_WIPE = frame(bytes.fromhex("0110 3100 0000 00"))
_READY_US = 60 * _S


def _constant(value: float | None):
    return lambda _: value


def _y511(turbidity: float | None = 17.625, temperature_c: float = 17.625, **options) -> Y511:
    sources = {"turbidity": _constant(turbidity), "water_temperature": _constant(temperature_c)}
    return Y511(sources, serial="test", tolerance=0.0, **options)


def _y504(saturation: float = 92.5, **options) -> Y504:
    sources = {
        "oxygen_saturation": _constant(saturation),
        "water_temperature": _constant(17.625),
    }
    return Y504(sources, serial="test", tolerance=0.0, **options)


def _ask(probe, request: bytes, now_us: int = _NOW) -> bytes:
    replies = probe.receive(request, now_us)
    return replies[0][1] if replies else b""


def test_reading_is_the_makers_example_byte_for_byte():
    # Figures 26 and 27: 17.625 °C and 17.625 NTU, low byte first, CRC 12 65.
    probe = _y511()
    assert _ask(probe, _START) == _STARTED
    assert _ask(probe, _READ, _NOW + 600 * _S) == bytes.fromhex("010308 00008d41 00008d41 1265")


def test_five_registers_have_the_error_code_of_the_turbidity_probe():
    probe = _y511()
    _ask(probe, _START)
    request = frame(bytes.fromhex("0103 2600 0005"))
    assert _ask(probe, request, _NOW + _READY_US)[11:13] == b"\0\0"
    probe.faults.put(Fault.INVALID)
    assert _ask(probe, request, _NOW + _READY_US)[11:13] == b"\x01\0"


def test_without_the_start_command_there_are_zeros():
    assert _ask(_y511(), _READ, _NOW + _READY_US)[3:11] == bytes(8)


def test_stop_ends_the_measurement():
    probe = _y504()
    _ask(probe, _START)
    assert len(_ask(probe, frame(bytes.fromhex("0103 2e00 0001")))) == 7
    assert _ask(probe, _READ, _NOW + _READY_US)[3:11] == bytes(8)


@pytest.mark.parametrize(
    "request_body", ["0103 2602 0002", "0103 0000 0001", "0103 2500 0001", "0110 3200 0000 00"]
)
def test_anything_but_the_instructions_requests_gets_no_answer(request_body):
    probe = _y511()
    _ask(probe, _START)
    assert _ask(probe, frame(bytes.fromhex(request_body))) == b""


def test_oxygen_is_a_ratio_and_settles_within_the_stated_eight_seconds():
    probe = _y504(power_pin=25)
    probe.power_changed(25, 1, _NOW)
    assert _ask(probe, _START, _NOW + 300_000) == b""
    assert _ask(probe, _START, _NOW + 375_000) == _STARTED

    def ratio(after_s: float) -> float:
        reply = _ask(probe, _READ, _NOW + 375_000 + round(after_s * _S))
        return struct.unpack("<f", reply[7:11])[0]

    assert ratio(1.0) == 0.0
    assert ratio(2.0) < 0.8
    assert ratio(9.7) == pytest.approx(0.925, rel=2e-3)


def test_oxygen_probe_without_a_valid_value_says_not_a_number():
    probe = _y504()
    probe.faults.put(Fault.INVALID)
    _ask(probe, _START)
    assert math.isnan(struct.unpack("<f", _ask(probe, _READ, _NOW + _READY_US)[7:11])[0])


def test_wiper_answers_turns_and_blinds_the_probe_meanwhile():
    probe = _y511(turbidity=5.0)
    _ask(probe, _START)
    assert _ask(probe, _WIPE) == frame(bytes.fromhex("0110 3100 0000"))
    seen = [
        struct.unpack("<f", _ask(probe, _READ, _NOW + after_s * _S)[7:11])[0] for after_s in (9, 48)
    ]
    assert seen[0] > 10
    assert seen[1] == pytest.approx(5.0, rel=5e-3)
    assert probe.wipes == [_NOW]


def test_wiper_that_does_not_obey_is_silent_and_the_probe_goes_on():
    probe = _y511()
    probe.faults.put(Fault.NO_WIPER)
    _ask(probe, _START)
    assert _ask(probe, _WIPE) == b""
    assert len(_ask(probe, _READ, _NOW + _READY_US)) == 13


def test_of_two_probes_on_a_bus_the_one_addressed_answers():
    bus = Rs485Bus([_y504(address=1), _y511(address=10)])
    bus.line_set(UartSettings(9600))
    assert len(bus.receive(_START, _NOW)) == 1
    assert bus.receive(frame(bytes.fromhex("0a03 2500 0000")), _NOW)[0][1][0] == 10
    assert bus.receive(frame(bytes.fromhex("0203 2500 0000")), _NOW) == []


def test_parts_as_built_keep_what_the_maker_states():
    for number in range(200):
        sources = {
            "turbidity": _constant(100.0),
            "oxygen_saturation": _constant(90.0),
            "water_temperature": _constant(12.0),
        }
        for kind, truth, within in ((Y504, 0.9, 0.01), (Y511, 100.0, 0.05)):
            probe = kind(sources, serial=str(number))
            _ask(probe, _START)
            reply = _ask(probe, _READ, _NOW + _READY_US)
            temperature_c, value = struct.unpack("<ff", reply[3:11])
            assert temperature_c == pytest.approx(12.0, abs=0.2)
            assert value == pytest.approx(truth, rel=within)

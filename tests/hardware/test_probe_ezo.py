"""The EZO circuits on I²C, held to their data sheets' commands, answers and times."""

from __future__ import annotations

import pytest

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.ezo import Ezo, EzoDo, EzoEc, EzoPh

_S = 1_000_000
_NOW = 1_750_000_000 * _S


def _circuit(kind: type[Ezo], value: float | None, water_c: float | None = 25.0, **options) -> Ezo:
    return kind(lambda _: value, lambda _: water_c, serial="test", tolerance=0.0, **options)


def _say(circuit: Ezo, command: bytes, after_us: int = _S, now_us: int = _NOW) -> bytes | None:
    if not circuit.write(command, now_us):
        return None
    return circuit.read(20, now_us + after_us)


def test_reading_is_the_data_sheets_example():
    # EZO pH V 5.8, p. 51: 1, "9.560", NUL after 900 ms; beyond it the line is not driven.
    answer = _say(_circuit(EzoPh, 9.56), b"R")
    assert answer == b"\x019.560\x00" + b"\xff" * 13


def test_before_its_time_the_circuit_is_busy_and_after_it_the_answer_is_given_once():
    circuit = _circuit(EzoPh, 7.0)
    assert _say(circuit, b"R", after_us=899_000)[0] == 254
    assert circuit.read(8, _NOW + 900_000)[0] == 1
    assert circuit.read(8, _NOW + 900_001)[0] == 255


@pytest.mark.parametrize("command", [b"X", b"", b"T,warm", b"R,1", b"\xff\xfe"])
def test_what_the_circuit_does_not_know_is_an_error(command):
    assert _say(_circuit(EzoPh, 7.0), command)[0] == 2


def test_temperature_is_kept_until_the_supply_goes():
    circuit = _circuit(EzoPh, 7.0, power_pin=25)
    assert circuit.write(b"R", _NOW) is False
    circuit.power_changed(25, 1, _NOW)
    later = _NOW + 850_000
    assert _say(circuit, b"T,?", now_us=later)[:11] == b"\x01?T,25.00\x00\xff"
    assert _say(circuit, b"T,19.50", now_us=later)[:3] == b"\x01\x00\xff"
    assert _say(circuit, b"t,?", now_us=later)[:10] == b"\x01?T,19.50\x00"
    circuit.power_changed(25, 0, later)
    assert circuit.read(1, later) is None
    circuit.power_changed(25, 1, later)
    assert _say(circuit, b"T,?", now_us=later + _S)[:10] == b"\x01?T,25.00\x00"


def test_circuit_acknowledges_nothing_before_it_has_started():
    circuit = _circuit(EzoPh, 7.0, power_pin=25)
    circuit.power_changed(25, 1, _NOW)
    assert circuit.write(b"R", _NOW + 700_000) is False
    assert circuit.write(b"R", _NOW + 850_000) is True


@pytest.mark.parametrize(
    ("kind", "value", "water_c", "told", "shown"),
    [
        (EzoPh, 4.0, 5.0, b"T,5", b"4.000"),
        (EzoPh, 4.0, 5.0, b"T,25", b"4.201"),  # slope 55.19 instead of 59.16 mV
        (EzoPh, 7.0, 5.0, b"T,25", b"7.000"),
        (EzoDo, 9.09, 20.0, b"T,20", b"9.09"),
        (EzoDo, 12.77, 5.0, b"T,20", b"9.09"),  # saturated: the pressure is the same
        (EzoEc, 1413.0, 25.0, b"T,25", b"1413"),
        (EzoEc, 1413.0, 5.0, b"T,25", b"890.8"),  # PSS-78: 0.6304
        (EzoEc, 500.0, 5.0, b"T,25", b"315.2"),
        (EzoEc, 80.0, 25.0, b"T,25", b"80.00"),
    ],
)
def test_circuit_shows_what_it_takes_the_water_for(kind, value, water_c, told, shown):
    circuit = _circuit(kind, value, water_c)
    _say(circuit, told)
    assert _say(circuit, b"R").split(b"\0")[0] == b"\x01" + shown


@pytest.mark.parametrize(
    ("fault", "first", "whole"),
    [(Fault.BUSY, 254, False), (Fault.INVALID, 255, False), (Fault.HALF_FRAME, 1, False)],
)
def test_fault_is_seen_in_the_answer(fault, first, whole):
    circuit = _circuit(EzoPh, 7.0)
    circuit.faults.put(fault)
    answer = _say(circuit, b"R")
    assert answer[0] == first
    assert (b"\0" in answer) == whole


def test_noise_makes_one_byte_unprintable():
    circuit = _circuit(EzoPh, 7.0)
    circuit.faults.put(Fault.NOISE)
    assert sum(byte & 0x80 != 0 for byte in _say(circuit, b"R")[:7]) == 1


@pytest.mark.parametrize("value", [7.0, None])
def test_disconnected_or_without_a_value_nobody_acknowledges(value):
    circuit = _circuit(EzoPh, value)
    if value is not None:
        circuit.faults.put(Fault.DISCONNECTED)
    assert circuit.write(b"R", _NOW) is False
    assert circuit.read(4, _NOW) is None


def test_held_bus_is_held_only_under_supply():
    circuit = _circuit(EzoPh, 7.0, power_pin=25)
    circuit.faults.put(Fault.BUS_HELD)
    assert not circuit.holds_line(_NOW)
    circuit.power_changed(25, 1, _NOW)
    assert circuit.holds_line(_NOW)

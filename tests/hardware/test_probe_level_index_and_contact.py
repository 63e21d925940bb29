"""Ultrasonic module, capacitive probe, supervised contact and reference resistor, held to their makers' figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.a02yyuw import WIRE, A02yyuw, frame, sound_m_s
from hardware.virtual_board.probes.capacitive import AIR_MV, WATER_MV, Capacitive
from hardware.virtual_board.probes.contact import Contact
from hardware.virtual_board.probes.watermark import ReferenceResistor

_NOW = 1_750_000_000_000_000
_S = 1_000_000

# --- A02YYUW ---


def _module(level_m=-1.0, air_c=None, tolerance=0.0, serial="test", power_pin=None):
    # There, in air that is three quarters saturated, sound makes the 344 m/s of an ideal module.
    air_c = 19.7 if air_c is None else air_c
    return A02yyuw(
        lambda _: level_m, lambda _: air_c, serial=serial, tolerance=tolerance, power_pin=power_pin
    )


def _said(module: A02yyuw, seconds: float = 2.0, settings=WIRE) -> bytes:
    heard = module.heard(settings, _NOW, _NOW + round(seconds * _S))
    return b"".join(data for _, data in heard)


def _first(module: A02yyuw) -> int:
    said = _said(module)
    at = said.index(0xFF)
    return int.from_bytes(said[at + 1 : at + 3], "big")


def test_frame_is_the_makers_example():
    # DFRobot wiki: FF 07 A1 A7 is 1953 mm.
    assert frame(1953) == bytes.fromhex("ff07a1a7")


@pytest.mark.parametrize(
    ("temperature_c", "humidity", "m_s"),
    # Cramer 1993, table of the speed in dry air at 0 and 20 °C; 1.2 m/s more in saturated air of 20 °C.
    [(0.0, 0.0, 331.50), (20.0, 0.0, 343.36), (20.0, 1.0, 344.6)],
)
def test_speed_of_sound(temperature_c, humidity, m_s):
    assert sound_m_s(temperature_c, humidity) == pytest.approx(m_s, abs=0.1)


def test_module_speaks_by_itself_several_times_a_second_and_each_frame_is_whole():
    said = _said(_module(), seconds=3.0)
    frames = [said[at : at + 4] for at in range(0, len(said) - 3, 4)]
    assert 10 <= len(frames) <= 30
    assert set(frames) == {frame(1000)}


def test_listening_in_small_steps_hears_the_same():
    module = _module(tolerance=1.0)
    steps = b"".join(
        data
        for step in range(0, 2 * _S, 700)
        for _, data in module.heard(WIRE, _NOW + step, _NOW + step + 700)
    )
    assert steps == b"".join(data for _, data in module.heard(WIRE, _NOW, _NOW + 2_000_600))


def test_receiver_at_another_speed_gets_rubbish():
    assert frame(1000) not in _said(_module(), settings=replace(WIRE, baudrate=4800))


def test_warm_air_makes_the_water_seem_nearer():
    assert _first(_module(air_c=35.0)) < 980 < _first(_module(air_c=25.0)) < 1000
    assert _first(_module(air_c=-10.0)) > 1050


def test_modules_as_built_keep_the_makers_centimetre():
    # ±1 cm, and what the speed that it reckons by makes of a metre.
    errors = [_first(_module(tolerance=1.0, serial=str(number))) - 1000 for number in range(200)]
    assert max(map(abs, errors)) <= 10 + 12
    assert min(errors) < -8 < 8 < max(errors)


def test_silent_without_supply_and_for_a_moment_after_it_came():
    module = _module(power_pin=25)
    assert _said(module) == b""
    module.power_changed(25, 1, _NOW)
    assert _said(module, seconds=0.25) == b""
    assert _said(module, seconds=0.5).startswith(frame(1000))


@pytest.mark.parametrize(("level_m", "mm"), [(-0.02, 0), (-5.2, 4500), (0.3, 0)])
def test_beyond_its_range_it_tells_its_limits(level_m, mm):
    assert _first(_module(level_m)) == mm


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.DISCONNECTED, b""),
        (Fault.NO_ECHO, frame(0xFFFD)),
        (Fault.HALF_FRAME, frame(1000)[:2]),
    ],
)
def test_faults_show_on_the_line(fault, said):
    module = _module()
    module.faults.put(fault)
    heard = _said(module)
    assert heard[: len(said)] == said
    assert bool(heard) == bool(said)


# --- capacitive probe ---


def _capacitive(index=0.0, tolerance=0.0, serial="test", power_pin=None):
    return Capacitive(lambda _: index, serial=serial, tolerance=tolerance, power_pin=power_pin)


@pytest.mark.parametrize(("index", "mv"), [(0.0, AIR_MV), (1.0, WATER_MV), (0.5, 1905.0)])
def test_wet_soil_is_a_low_voltage_between_the_makers_two(index, mv):
    assert _capacitive(index).microvolts(32, {}, _NOW) == pytest.approx(1000 * mv, abs=1)


def test_makers_two_readings_of_a_ten_bit_converter_at_5_volts():
    # DFRobot wiki SEN0193: 520 in air, 260 in water.
    assert pytest.approx(520 / 1023 * 5000, rel=0.001) == AIR_MV
    assert pytest.approx(260 / 1023 * 5000, rel=0.001) == WATER_MV


def test_voltage_settles_after_the_supply_came():
    probe = _capacitive(power_pin=33)
    assert probe.microvolts(32, {}, _NOW) == 0
    probe.power_changed(33, 1, _NOW)
    assert probe.microvolts(32, {}, _NOW + 100_000) < 0.6 * 1000 * AIR_MV
    assert probe.microvolts(32, {}, _NOW + _S) == pytest.approx(1000 * AIR_MV, rel=0.002)


def test_units_differ_so_that_each_needs_its_own_two_points():
    units = [_capacitive(tolerance=1.0, serial=str(number)) for number in range(50)]
    assert max(unit.air_mv for unit in units) - min(unit.air_mv for unit in units) > 150


@pytest.mark.parametrize(
    ("fault", "microvolts"), [(Fault.DISCONNECTED, 0), (Fault.SHORT, 3_300_000)]
)
def test_cable_faults_are_at_the_rails(fault, microvolts):
    probe = _capacitive(0.5)
    probe.faults.put(fault)
    assert probe.microvolts(32, {}, _NOW) == microvolts


# --- contact ---


def _contact(is_closed: float) -> Contact:
    return Contact(
        lambda _: is_closed, power_pin=26, pull_ohm=10_000, series_ohm=4_700,
        parallel_ohm=15_000, supply_uv=3_300_000, serial="test", tolerance=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(("is_closed", "share"), [(1.0, 4.7 / 14.7), (0.0, 19.7 / 29.7)])
def test_contact_divides_the_supply_as_ohm_says(is_closed, share):
    assert _contact(is_closed).microvolts(34, {26: 1}, _NOW) == pytest.approx(
        3_300_000 * share, rel=1e-3
    )


def test_contact_without_its_pull_up_is_at_ground():
    assert _contact(1.0).microvolts(34, {26: None}, _NOW) == 0


@pytest.mark.parametrize(
    ("fault", "microvolts"), [(Fault.DISCONNECTED, 3_300_000), (Fault.SHORT, 165)]
)
def test_cut_and_shorted_cables_are_neither_open_nor_closed(fault, microvolts):
    contact = _contact(1.0)
    contact.faults.put(fault)
    assert contact.microvolts(34, {26: 1}, _NOW) == pytest.approx(microvolts, abs=5)


def test_bouncing_contact_is_both():
    contact = _contact(1.0)
    contact.faults.put(Fault.BOUNCE)
    seen = {contact.microvolts(34, {26: 1}, _NOW + step) for step in range(40)}
    assert len(seen) == 2


# --- reference resistor ---


def test_reference_resistor_halves_the_supply_both_ways():
    reference = ReferenceResistor(
        lambda _: 10_000.0, pins=(19, 21), series_ohm=10_000, supply_uv=3_300_000,
        serial="test", tolerance=0.0,
    )  # fmt: skip
    for levels in ({19: 1, 21: 0}, {19: 0, 21: 1}):
        assert reference.microvolts(36, levels, _NOW) == 1_650_000

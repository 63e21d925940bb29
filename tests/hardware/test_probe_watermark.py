"""Watermark 200SS and battery divider as ADC1 sees them, held to Irrometer's table and to Ohm's law."""

from __future__ import annotations

import pytest
from perfect_driver import tension_kpa

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.battery import BatteryDivider
from hardware.virtual_board.probes.watermark import Watermark, resistance_ohm

_NOW = 1_750_000_000_000_000
_A, _B, _ADC = 25, 26, 32
_SUPPLY_UV = 3_300_000


def _probe(tension: float | None, temperature_c: float = 24.0, tolerance: float = 0.0) -> Watermark:
    return Watermark(
        lambda _: tension, lambda _: temperature_c,
        pins=(_A, _B), series_ohm=10_000, supply_uv=_SUPPLY_UV, serial="test", tolerance=tolerance,
    )  # fmt: skip


def _both_ways(probe: Watermark) -> tuple[float, float]:
    v1 = probe.microvolts(_ADC, {_A: 1, _B: 0}, _NOW)
    v2 = probe.microvolts(_ADC, {_A: 0, _B: 1}, _NOW)
    return 10_000 * (_SUPPLY_UV - v1) / v1, 10_000 * v2 / (_SUPPLY_UV - v2)


@pytest.mark.parametrize(
    ("tension", "ohm"),
    [(0, 550), (9, 1000), (10, 1100), (15, 2000), (35, 6000), (55, 9200), (75, 12200), (100, 15575), (200, 28075)],
)  # fmt: skip
def test_resistance_at_24_degrees_is_irrometers_table(tension, ohm):
    assert resistance_ohm(tension, 24.0) == pytest.approx(ohm)


@pytest.mark.parametrize(
    ("ohm", "tension"),
    [(1000, 10.4), (2000, 15.2), (4000, 25.2), (10_000, 61.4), (20_000, 134.1), (27_000, 193.0)],
)
def test_the_way_there_and_the_way_back_come_from_two_sources_and_meet_at_the_check_values(
    ohm, tension
):
    assert tension_kpa(ohm, 24.0) == pytest.approx(tension, abs=0.06)
    assert resistance_ohm(tension, 24.0) == pytest.approx(ohm, rel=0.03, abs=175)


@pytest.mark.parametrize("temperature_c", [12, 16, 20, 24, 26])
@pytest.mark.parametrize("tension", [12, 15, 20, 30, 45, 60, 80, 120, 190])
def test_formulas_of_both_sources_agree_within_six_per_cent_in_summer_soil(tension, temperature_c):
    there_and_back = tension_kpa(resistance_ohm(tension, temperature_c), temperature_c)
    assert there_and_back == pytest.approx(tension, rel=0.067)


@pytest.mark.parametrize("temperature_c", [12, 16, 20, 24])
@pytest.mark.parametrize("tension", [0, 2, 5, 9])
def test_in_wet_soil_the_sources_agree_within_four_kilopascals(tension, temperature_c):
    there_and_back = tension_kpa(resistance_ohm(tension, temperature_c), temperature_c)
    assert there_and_back == pytest.approx(tension, abs=4.0)


def test_colder_soil_has_more_resistance_by_about_two_per_cent_a_degree():
    assert resistance_ohm(50, 14.0) / resistance_ohm(50, 24.0) == pytest.approx(1.24, abs=0.02)


def test_node_between_equal_resistors_carries_half_the_supply():
    ten_kilohm = _probe(55 + 20 * 800 / 3000)  # between 9.2 kΩ at 55 kPa and 12.2 kΩ at 75 kPa
    assert ten_kilohm.microvolts(_ADC, {_A: 1, _B: 0}, _NOW) == _SUPPLY_UV // 2
    assert ten_kilohm.microvolts(_ADC, {_A: 0, _B: 1}, _NOW) == _SUPPLY_UV // 2


@pytest.mark.parametrize("tension", [9, 15, 55, 100, 200])
def test_both_polarities_give_the_same_resistance(tension):
    forward, reverse = _both_ways(_probe(tension))
    assert forward == pytest.approx(resistance_ohm(tension, 24.0), rel=1e-3)
    assert reverse == pytest.approx(forward, rel=1e-3)


@pytest.mark.parametrize(
    ("levels", "microvolts"),
    [
        ({}, 0),
        ({_A: None, _B: None}, 0),
        ({_A: 0, _B: 0}, 0),
        ({_A: 1, _B: 1}, _SUPPLY_UV),
        ({_A: 1, _B: None}, _SUPPLY_UV),
        ({_A: None, _B: 0}, 0),
    ],
)
def test_without_current_the_node_follows_whatever_drives_it(levels, microvolts):
    assert _probe(50).microvolts(_ADC, levels, _NOW) == microvolts


def test_broken_wire_carries_no_voltage_forward_and_all_of_it_back():
    for probe in (_probe(50), _probe(None)):
        probe.faults.put(Fault.DISCONNECTED)
        assert probe.microvolts(_ADC, {_A: 1, _B: 0}, _NOW) == 0
        assert probe.microvolts(_ADC, {_A: 0, _B: 1}, _NOW) == _SUPPLY_UV


def test_short_reads_far_below_300_ohm():
    probe = _probe(50)
    probe.faults.put(Fault.SHORT)
    assert max(_both_ways(probe)) < 300


def test_corroded_contact_makes_the_polarities_disagree():
    probe = _probe(50)
    probe.faults.put(Fault.UNEVEN)
    forward, reverse = _both_ways(probe)
    assert forward > 1.25 * reverse


def test_repeated_readings_scatter_by_millivolts_not_more():
    probe = _probe(50, tolerance=1.0)
    readings = [probe.microvolts(_ADC, {_A: 1, _B: 0}, _NOW) for _ in range(200)]
    assert 2_000 < max(readings) - min(readings) < 12_000


def test_the_same_part_in_the_same_order_gives_the_same_readings():
    runs = [
        [_probe(50, tolerance=1.0).microvolts(_ADC, {_A: 1, _B: 0}, _NOW + n) for n in range(20)]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_battery_divider_halves_the_battery_and_reads_nothing_without_one():
    divider = BatteryDivider(lambda _: 4000.0, divider_milli=2000, serial="t", tolerance=0.0)
    assert divider.microvolts(35, {}, _NOW) == 2_000_000
    divider.faults.put(Fault.DISCONNECTED)
    assert divider.microvolts(35, {}, _NOW) == 0

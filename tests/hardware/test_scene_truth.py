"""The synthetic Bochum summer: repeatable, physically plausible, and readable within the factory accuracy."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from math import atan2, cos, exp, pi, sin, sqrt

import pytest
from perfect_driver import can_read, read_board

from hardware.catalogue import load_node_model, load_sensor_type
from hardware.scenes import load_scene
from hardware.virtual_board.probes.ds18b20 import crc8
from hardware.virtual_board.scene_models import (
    DAY_S,
    Soil,
    Water,
    air_pressure_hpa,
    breathe_water,
    dry_soil,
    oxygen_at_saturation_mg_l,
    radiation_w_m2,
    rain_mm_h,
    soil_temperature_c,
    sunrise_utc_h,
)
from hardware.virtual_board.scene_truth import Truth
from hardware.virtual_board.scene_wiring import wire_board

_START = 1_752_537_600  # a midnight, UTC
_DAYS = 20
_HOURS = range(_START // 3600, _START // 3600 + 24 * _DAYS)
_BOCHUM = (51.48, 7.22)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(load_scene(), now_utc_s=_START + _DAYS * DAY_S)


def _day(truth: Truth, label: str, key: str, day: int) -> list[float]:
    return [truth.value(label, key, 0, _START + day * DAY_S + hour * 3600) for hour in range(24)]


# --- repeatable ---


def test_truth_depends_on_seed_and_time_alone(truth):
    other = Truth(load_scene(), now_utc_s=0)
    moments = [_START + step * 7_777 for step in range(40)]
    asked_backwards = [other.value("pond-03", "do", 0, moment) for moment in reversed(moments)]
    assert [truth.value("pond-03", "do", 0, moment) for moment in moments] == asked_backwards[::-1]


def test_truth_is_the_same_in_another_process(truth):
    code = (
        "from hardware.scenes import load_scene;"
        "from hardware.virtual_board.scene_truth import Truth;"
        f"print(repr(Truth(load_scene(), now_utc_s=5).value('tree-04', 'r60', 0, {_START})))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == repr(truth.value("tree-04", "r60", 0, _START))


def test_another_seed_is_another_summer(truth):
    other = Truth(load_scene(seed=2), now_utc_s=0)
    assert other.value("pond-01", "tw", 0, _START) != truth.value("pond-01", "tw", 0, _START)


def test_generated_sites_of_one_kind_differ_from_their_template():
    truth = Truth(load_scene(nodes=40), now_utc_s=0)
    dissolved = {truth.value(f"pond-{n:02d}", "do", 0, _START) for n in range(1, 21)}
    assert len(dissolved) == 20


def test_blocks_of_the_integration_meet_without_a_step(truth):
    block_s = 32 * DAY_S
    seam = (_START // block_s + 1) * block_s
    for label, key in (
        ("tree-01", "r30"),
        ("tree-01", "r90"),
        ("pond-01", "do"),
        ("pond-01", "tw"),
    ):
        quarters = [truth.value(label, key, 0, seam + n * 900) for n in range(-4 * 12, 4 * 12)]
        steps = [abs(b - a) for a, b in pairwise(quarters)]
        assert max(steps) < 0.03 * max(quarters)


def test_property_and_depth_name_the_same_truth_as_the_key(truth):
    by_key = truth.value("tree-02", "t60", 0, _START)
    assert truth.value("tree-02", "soil_temperature", 60, _START) == by_key


# --- formulas against published figures ---


@pytest.mark.parametrize(
    ("temperature_c", "mg_l"),
    [(0, 14.62083), (5, 12.77100), (10, 11.28795), (15, 10.08386), (20, 9.09243), (25, 8.26346), (30, 7.55880)],
)  # fmt: skip
def test_garcia_and_gordon_agree_with_benson_and_krause_to_a_tenth_of_a_per_mille(
    temperature_c, mg_l
):
    assert oxygen_at_saturation_mg_l(temperature_c, 0.0) == pytest.approx(mg_l, rel=1.2e-4)


def test_salt_and_height_take_oxygen_away_as_published():
    assert oxygen_at_saturation_mg_l(20, 0, salinity=5) == pytest.approx(8.82812, rel=3e-4)
    height_m = 434.0  # 0.95 atm (measurement.md 1.5: 8.62738 at 20 °C)
    assert air_pressure_hpa(height_m) == pytest.approx(0.95 * 1013.25, rel=1e-3)
    assert oxygen_at_saturation_mg_l(20, height_m) == pytest.approx(8.62738, rel=1e-3)


@pytest.mark.parametrize(("height_m", "hpa"), [(34, 1009.17), (100, 1001.29), (520, 952.32)])
def test_pressure_is_the_standard_atmospheres(height_m, hpa):
    assert air_pressure_hpa(height_m) == pytest.approx(hpa, abs=0.02)


def test_campbells_curve_goes_there_and_back():
    soil = Soil()
    assert soil.tension_kpa(soil.water_content(47.0)) == pytest.approx(47.0)
    assert soil.tension_kpa(soil.saturation) == pytest.approx(soil.air_entry_kpa)


def test_sun_rises_in_bochum_in_mid_july_at_half_past_three_utc():
    # 15 July, Bochum: 5:30 CEST by the almanac, which counts the sun's upper rim and refraction (some 6 min).
    assert sunrise_utc_h(*_BOCHUM) == pytest.approx(3.55, abs=0.15)
    midnight = [radiation_w_m2(1, _START + h * 3600, *_BOCHUM) for h in (23, 0, 1, 2)]
    assert midnight == [0.0] * 4


# --- plausible ---


@pytest.mark.parametrize("label", [f"pond-{n:02d}" for n in range(1, 7)])
def test_oxygen_is_lowest_around_sunrise_and_highest_in_the_afternoon(truth, label):
    sunrise = sunrise_utc_h(*_BOCHUM)
    for day in range(_DAYS):
        oxygen = _day(truth, label, "do", day)
        lowest = min(range(12), key=oxygen.__getitem__)
        highest = max(range(24), key=oxygen.__getitem__)
        assert sunrise - 2 <= lowest <= sunrise + 3
        assert 10 <= highest <= 20


@pytest.mark.parametrize("label", [f"pond-{n:02d}" for n in range(1, 7)])
def test_waters_stay_within_what_a_warm_summer_gives(truth, label):
    for day in range(_DAYS):
        assert all(14 < value < 31 for value in _day(truth, label, "tw", day))
        assert all(1.5 < value < 16 for value in _day(truth, label, "do", day))
        assert all(20 < value < 190 for value in _day(truth, label, "sat", day))


def test_a_park_pond_swings_more_between_day_and_night_than_a_lake(truth):
    def swing(label: str) -> float:
        days = [_day(truth, label, "do", day) for day in range(_DAYS)]
        return sum(max(day) - min(day) for day in days) / _DAYS

    assert swing("pond-01") > 2 * swing("pond-03")


def test_oxygen_and_saturation_belong_together(truth):
    moment = _START + 40_000
    oxygen, temperature_c, saturation = (
        truth.value("pond-02", key, 0, moment) for key in ("do", "tw", "sat")
    )
    assert saturation == pytest.approx(
        100 * oxygen / oxygen_at_saturation_mg_l(temperature_c, 79.0), rel=2e-3
    )


def test_tension_stays_within_what_the_probe_can_follow(truth):
    for number in range(1, 7):
        for key in ("r30", "r60", "r90"):
            for day in range(_DAYS):
                assert all(1 < value < 200 for value in _day(truth, f"tree-{number:02d}", key, day))


def test_dry_days_dry_the_soil_most_near_the_surface_and_by_day():
    dry = next(
        hour for hour in range(_HOURS.start, _HOURS.start + 24 * 400, 24)
        if all(rain_mm_h(1, hour + k) == 0 for k in range(24 * 4))
    )  # fmt: skip
    tensions = dry_soil(Soil(), 1, *_BOCHUM, range(dry - 24 * 10, dry + 24 * 4))[24 * 10 :]
    rise = [tensions[-1][layer] / tensions[0][layer] for layer in range(3)]
    assert rise[0] > 1.15 > max(rise[1:])
    assert min(rise) > 0.99
    noon, night = (
        tensions[24 + 14][0] - tensions[24 + 10][0],
        tensions[48 + 2][0] - tensions[48 - 2][0],
    )
    assert noon > 5 * abs(night)


def test_rain_wets_the_top_first_and_the_deep_later_and_less():
    seed = 1
    storm = next(h for h in range(_HOURS.start, _HOURS.start + 24 * 400) if rain_mm_h(seed, h) > 6)
    tensions = dry_soil(Soil(unsealed=1.0), seed, *_BOCHUM, range(storm - 24 * 20, storm + 24 * 3))
    before = tensions[24 * 20 - 1]
    after_3_h = tensions[24 * 20 + 3]
    assert after_3_h[0] < 0.9 * before[0]
    assert after_3_h[2] > 0.9 * before[2]


def test_daily_warmth_reaches_deeper_soil_later_and_damped_as_heat_conduction_says():
    soil = Soil(shade=0.0)
    moments = [_START + quarter * 900 for quarter in range(96 * _DAYS)]

    def daily_wave(depth_cm: float) -> tuple[float, float]:
        """Amplitude (K) and hour of the maximum of the 24 h part."""
        values = [soil_temperature_c(soil, 1, depth_cm, moment) for moment in moments]
        level = sum(values) / len(values)
        turns = [2 * pi * (moment - _START) / DAY_S for moment in moments]
        real = (
            sum((v - level) * cos(t) for v, t in zip(values, turns, strict=True)) * 2 / len(values)
        )
        imaginary = (
            sum((v - level) * sin(t) for v, t in zip(values, turns, strict=True)) * 2 / len(values)
        )
        return sqrt(real**2 + imaginary**2), atan2(imaginary, real) / (2 * pi) * 24 % 24

    damping_m = sqrt(0.5e-6 * DAY_S / pi)
    shallow, deep = daily_wave(10), daily_wave(30)
    assert deep[0] / shallow[0] == pytest.approx(exp(-0.2 / damping_m), rel=0.25)
    lag_h = (deep[1] - shallow[1]) % 24
    assert lag_h == pytest.approx(0.2 / damping_m / (2 * pi) * 24, abs=1.0)


def test_soil_is_calmer_the_deeper_it_is(truth):
    spreads = []
    for key in ("t30", "t60", "t90"):
        values = [truth.value("tree-01", key, 0, _START + n * 6 * 3600) for n in range(4 * 90)]
        spreads.append(max(values) - min(values))
    assert spreads[0] > spreads[1] > spreads[2] > 0.5


def test_water_without_life_and_light_comes_to_rest_at_saturation():
    still = Water(production_mg_l_h=0.0, respiration_mg_l_d=0.0, reaeration_per_d=5.0)
    temperature_c, oxygen = breathe_water(still, 1, (*_BOCHUM, 100.0), range(240))[-1]
    assert oxygen == pytest.approx(oxygen_at_saturation_mg_l(temperature_c, 100.0), rel=0.02)


def test_battery_runs_down_between_changes(truth):
    day_by_day = [truth.value("pond-01", "bat", 0, _START + day * DAY_S) for day in range(_DAYS)]
    assert all(2900 < level < 4250 for level in day_by_day)
    falls = [b - a for a, b in pairwise(day_by_day)]
    assert sorted(falls)[len(falls) // 2] < 0


# --- disturbances ---


def test_disturbance_comes_back_on_its_days_and_touches_what_depends_on_it(truth):
    first_even_day = _START - _START % (2 * DAY_S) + 2 * DAY_S
    inside, outside = first_even_day + 2.5 * 3600, first_even_day + 5 * 3600
    assert truth.is_disturbed("tree-02", "t60", 0, inside)
    assert truth.is_disturbed("tree-02", "r60", 0, inside)  # no tension without its temperature
    assert not truth.is_disturbed("tree-02", "r30", 0, inside)
    assert not truth.is_disturbed("tree-02", "t60", 0, outside)
    assert not truth.is_disturbed("tree-02", "t60", 0, inside + DAY_S)
    assert truth.is_disturbed("tree-02", "t60", 0, inside + 2 * DAY_S)


def test_a_reading_sampled_just_before_a_disturbance_counts_as_disturbed(truth):
    begins = _START - _START % (2 * DAY_S) + 2 * DAY_S + 2 * 3600
    assert truth.is_disturbed("tree-02", "t60", 0, begins - 10)
    assert not truth.is_disturbed("tree-02", "t60", 0, begins - 90)


def test_disturbed_probe_shows_its_fault_on_the_wire(truth):
    model = load_node_model("tree-3")
    inside = _START - _START % (2 * DAY_S) + 2 * DAY_S + int(2.5 * 3600)
    wiring = wire_board(truth, "tree-02")
    probe = wiring.one_wire[model.slot_of("t60").pins["data"]]
    probe.reset(inside * 1_000_000)
    probe.write_byte(0xCC, inside * 1_000_000)
    probe.write_byte(0xBE, inside * 1_000_000)
    pad = bytes(probe.read_byte(inside * 1_000_000) for _ in range(9))
    assert crc8(pad) != 0


# --- wiring ---


def test_tree_node_is_wired_as_its_model_says(truth):
    wiring = wire_board(truth, "tree-01")
    assert sorted(wiring.one_wire) == [4, 13, 18]
    assert sorted(wiring.analog) == [32, 33, 35, 36, 39]
    assert not wiring.uart


def test_water_node_is_wired_as_its_model_says(truth):
    wiring = wire_board(truth, "pond-01")
    assert list(wiring.uart) == [2]
    assert wiring.power == wiring.uart[2].probes
    assert list(wiring.analog) == [35]


def test_two_wirings_of_one_node_carry_the_same_bytes(truth):
    model = load_node_model("tree-3")
    runs = [
        [read_board(wire_board(truth, "tree-05"), model, _START + n * 900) for n in range(5)]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(("scene", "readings"), [("bochum_summer", 4000), ("every_probe", 1500)])
def test_perfect_driver_and_conversion_meet_the_truth_within_the_factory_accuracy(scene, readings):
    """Every node, every channel, k = 2: at least 95 % overall and for each property."""
    truth = Truth(load_scene(scene), now_utc_s=_START)
    hits: dict[str, list[bool]] = {}
    for node in truth.scene.nodes:
        model = load_node_model(node.model)
        if not can_read(model):
            continue
        wiring = wire_board(truth, node.label)
        for moment in range(_START, _START + 10 * DAY_S, 11_700):
            values = read_board(wiring, model, moment)
            for channel in model.channels:
                if truth.is_disturbed(node.label, channel.key, 0, moment):
                    continue
                quantity = load_sensor_type(model.slot_of(channel.key).sensor_type).quantity(
                    channel.property
                )
                value = values[channel.key]
                error = value - truth.value(node.label, channel.key, 0, moment)
                u = quantity.accuracy.standard_uncertainty(value)
                hits.setdefault(channel.property, []).append(abs(error) <= 2 * u)
    assert sum(map(len, hits.values())) > readings
    for name, within in hits.items():
        assert sum(within) / len(within) >= 0.95, name


def test_factory_accuracy_holds_for_hundreds_of_parts_not_only_the_scenes():
    """Another seed is another set of parts: the share of readings within k = 2 over many of them."""
    within = total = 0
    for seed in range(20):
        truth = Truth(load_scene(nodes=2, seed=100 + seed), now_utc_s=0)
        for node in truth.scene.nodes:
            model = load_node_model(node.model)
            for moment in (_START + 50_000, _START + 5 * DAY_S):
                values = read_board(wire_board(truth, node.label), model, moment)
                for channel in model.channels:
                    quantity = load_sensor_type(model.slot_of(channel.key).sensor_type).quantity(
                        channel.property
                    )
                    true_value = truth.value(node.label, channel.key, 0, moment)
                    u = quantity.accuracy.standard_uncertainty(values[channel.key])
                    within += abs(values[channel.key] - true_value) <= 2 * u
                    total += 1
    assert within / total >= 0.95

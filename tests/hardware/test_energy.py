"""A node's charge per day: on-times × currents, at the battery."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from hardware.boards import BoardTimes, load_board
from hardware.catalogue import NodeModel, load_node_model, node_model_ids
from hardware.connections import sensor_type_of
from hardware.energy import (
    FIELD_MODE_MS,
    FIELD_SLEEP_MS,
    FIELD_WAKE_MS,
    LAMP_ON_MS,
    LAMP_SHOW_MS,
    Estimate,
    Wakes,
    WakeTimes,
    estimate,
    field_mode,
    planned_times,
    planned_wakes,
    urgent_day,
)
from hardware.paths import firmware_dir


def day_of(model_id: str, *, board_id: str | None = None, sample_every_s: int = 900) -> Estimate:
    model = load_node_model(model_id)
    board = load_board(board_id or model.board)
    wakes = planned_wakes(model, board, sample_every_s=sample_every_s)
    return estimate(model, board, wakes, publish_every_s=3600)


def every_time(model: NodeModel, times: WakeTimes) -> list[Wakes]:
    """96 wakes a day that read everything."""
    return [Wakes(96, frozenset(slot.id for slot in model.slots), times)]


def item(day: Estimate, what: str) -> float:
    return next(one.mah_per_day for one in day.items if one.what.startswith(what))


def on_one_bus(model: NodeModel) -> NodeModel:
    """The water node with oxygen and turbidity on one bus and one supply."""
    first, second, *others = model.slots
    shared = replace(second, pins=first.pins, options={**second.options, "uart": 2})
    return replace(model, slots=(first, shared, *others))


@pytest.mark.parametrize("model_id", node_model_ids())
def test_every_model_stays_within_its_goal_and_lasts_a_year(model_id):
    model = load_node_model(model_id)
    board = load_board(model.board)
    wakes = planned_wakes(model, board, sample_every_s=model.sample_every_s)
    day = estimate(model, board, wakes, publish_every_s=model.publish_every_s)
    assert day.is_within_goal
    assert day.battery_days >= 365


def test_slots_that_are_read_seldom_are_counted_when_their_interval_begins():
    """Oxygen and level hourly, turbidity every 3 h, of 96 wakes: 72 read the battery alone."""
    model = load_node_model("pond-2")
    wakes = planned_wakes(model, load_board(model.board), sample_every_s=900)
    assert {one.due: one.per_day for one in wakes} == {
        frozenset({"bat"}): 72,
        frozenset({"bat", "o2", "lvl"}): 16,
        frozenset({"bat", "o2", "lvl", "tu"}): 8,
    }
    assert [one.times.awake_ms for one in wakes] == [505, 500 + 10_075, 500 + 52_000]


def test_a_sample_interval_that_does_not_divide_a_slots_reads_it_at_the_first_sample_after():
    model = load_node_model("pond-2")
    wakes = planned_wakes(model, load_board(model.board), sample_every_s=5000)
    assert sum(one.per_day for one in wakes) == pytest.approx(86_400 / 5000)
    # Every sample is the first of an hour; 0, 15,000, 25,000, … are the first of three hours.
    assert all("o2" in one.due for one in wakes)
    assert sum(one.per_day for one in wakes if "tu" in one.due) == pytest.approx(8, rel=0.05)


def test_a_probe_on_the_same_supply_is_fed_while_another_is_read_and_costs_it():
    """16 times 10.075 s with oxygen alone and 8 times 52 s with both, at 12 V from 3.6 V with 80 %."""
    model, board = on_one_bus(load_node_model("pond-2")), load_board("esp32-lpkit")
    wakes = planned_wakes(model, board, sample_every_s=900)
    day = estimate(model, board, wakes, publish_every_s=3600)
    per_ma = 12 / (3.6 * 0.8) / 3600
    both_s = 16 * 10.075 + 8 * 52
    circuits_mah = (1 + 1) * both_s / 3600  # converter and transceiver, half of them each probe's
    o2, tu = item(day, "probe o2"), item(day, "probe tu")
    assert o2 == pytest.approx(20 * both_s * per_ma + circuits_mah / 2)
    assert tu == pytest.approx(30 * both_s * per_ma + circuits_mah / 2)
    unread = 20 * 8 * (52 - 10.075) + 30 * 16 * 10.075
    assert day.for_others_mah == pytest.approx(unread * per_ma)
    apart = day_of("pond-2")
    assert apart.for_others_mah == 0
    assert day.mah_per_day - apart.mah_per_day == pytest.approx(unread * per_ma, abs=0.5)
    assert (day.is_within_goal, apart.is_within_goal) == (False, True)


def test_reading_seldom_is_what_brings_turbidity_within_the_goal():
    model, board = load_node_model("pond-2"), load_board("esp32-lpkit")
    always = replace(model, slots=tuple(replace(slot, every_s=None) for slot in model.slots))
    wakes = planned_wakes(always, board, sample_every_s=900)
    day = estimate(always, board, wakes, publish_every_s=3600)
    assert day.mah_per_day > 7 * day_of("pond-2").mah_per_day


def test_a_day_with_limits_crossed_reads_their_slots_each_time_and_publishes_as_often():
    """Oxygen 96 times instead of 24, talks too; turbidity and level as ever."""
    model, usual = load_node_model("pond-2"), day_of("pond-2")
    urgent = urgent_day(model, load_board(model.board))
    assert urgent is not None
    for what in ("probe o2", "joining", "talking"):
        assert item(urgent, what) == pytest.approx(4 * item(usual, what))
    for what in ("probe tu", "probe lvl", "starting"):
        assert item(urgent, what) == pytest.approx(item(usual, what))
    assert urgent_day(load_node_model("tree-3"), load_board("esp32-lpkit")) is None


def test_a_field_mode_with_round_numbers_is_what_pencil_and_paper_say():
    """20 wakes: 1 s each of starting, waiting, joining and talking; 4.5 s of showing, 3.6 of them with the lamp."""
    model, board = load_node_model("tree-3"), load_board("esp32-lpkit")
    currents = replace(board.currents, boot_ma=60, awake_ma=40, join_ma=120, talk_ma=90)
    times = BoardTimes(boot_ms=1000, load_ms=245, join_ms=1000, talk_ms=1000)  # and 755 of a probe
    found = field_mode(model, replace(board, currents=currents, times=times))
    assert found is not None
    one_mas = 60 + 40 + 120 + 90 + 4.5 * 40 + 3.6 * 4.8
    probes_mas = sum(sensor_type_of(slot).ready_ms * sensor_type_of(slot).currents.measure_ma for slot in model.slots) / 1000  # fmt: skip
    assert found.wakes == 20
    assert found.mah == pytest.approx(20 * (one_mas + probes_mas) / 3600, rel=0.02)


def test_a_node_whose_probe_takes_longer_than_half_a_minute_has_fewer_wakes_of_field_mode():
    model, board = load_node_model("pond-2"), load_board("esp32-lpkit")
    found = field_mode(model, board)
    assert found is not None
    assert found.wakes == 10
    assert field_mode(replace(model, button=None), board) is None


def test_field_mode_lasts_as_long_and_its_lamp_speaks_as_the_firmware_has_it():
    folder = firmware_dir() / "node"
    source = (folder / "field_mode.py").read_text() + (folder / "cycle.py").read_text()
    numbers = dict(
        re.findall(r"^(_LASTS_MS|_FIELD_MS|_SHORTEST_MS) = const\(([\d_]+)\)", source, re.M)
    )
    assert {name: int(number) for name, number in numbers.items()} == {
        "_LASTS_MS": FIELD_MODE_MS, "_FIELD_MS": FIELD_WAKE_MS, "_SHORTEST_MS": FIELD_SLEEP_MS,
    }  # fmt: skip
    codes = re.findall(r'^    "(wifi|broker|receipt)": \((\d+), (\d+), (\d+)\),', source, re.M)
    assert len(codes) == 3
    assert sum(int(n) * int(on) for _, n, on, _ in codes) == LAMP_ON_MS
    assert sum(int(n) * (int(on) + int(off)) for _, n, on, off in codes) == LAMP_SHOW_MS


def test_a_board_that_never_really_sleeps_misses_the_goal_and_says_so():
    day = day_of("tree-3", board_id="esp32-devkitc")
    assert not day.is_within_goal
    assert item(day, "asleep, board") == pytest.approx(24 * 3.8, rel=0.01)


def test_a_tree_node_with_round_numbers_is_what_pencil_and_paper_say():
    """96 wakes of 1 s at 60 mA and 1 s at 40 mA, 24 talks of 1 s at 120 mA and 1 s at 90 mA, 100 µA asleep."""
    model, board = load_node_model("tree-3"), load_board("esp32-lpkit")
    currents = replace(
        board.currents, asleep_ua=100, boot_ma=60, awake_ma=40, join_ma=120, talk_ma=90
    )
    times = WakeTimes(1000, 1000, 1000, 1000, {slot.id: 0.0 for slot in model.slots})
    day = estimate(
        model, replace(board, currents=currents), every_time(model, times), publish_every_s=3600
    )
    asleep_h = 24 - (96 * 2 + 24 * 2) / 3600
    assert item(day, "asleep, board") == pytest.approx(0.1 * asleep_h)
    assert item(day, "starting") == pytest.approx(96 * 60 / 3600)
    assert item(day, "awake") == pytest.approx(96 * 40 / 3600)
    assert item(day, "joining") == pytest.approx(24 * 120 / 3600)
    assert item(day, "talking") == pytest.approx(24 * 90 / 3600)


def test_a_probe_at_12_volts_takes_its_power_from_the_battery_with_the_converters_loss():
    """16.7 mA at 12 V for 10.075 s, 80 % of 3.6 V, and 2 mA of converter and transceiver: 96 times a day."""
    probe_mas = 16.7 * 12 / (3.6 * 0.8) * 10.075
    expected_mah = 96 * (probe_mas + 2 * 10.075) / 3600
    assert item(day_of("pond-1"), "probe o2") == pytest.approx(expected_mah)


def test_a_probe_that_is_fed_for_longer_than_planned_costs_more():
    model, board = load_node_model("pond-1"), load_board("esp32-lpkit")
    times = planned_times(model, board)
    longer = replace(times, probe_ms={**times.probe_ms, "o2": 2 * times.probe_ms["o2"]})
    days = [
        estimate(model, board, every_time(model, one), publish_every_s=3600)
        for one in (times, longer)
    ]
    assert item(days[1], "probe o2") == pytest.approx(2 * item(days[0], "probe o2"))


def test_sampling_four_times_as_often_costs_four_times_the_wakes_and_not_the_talks():
    often, seldom = day_of("pond-1"), day_of("pond-1", sample_every_s=3600)
    for what in ("starting", "awake", "probe o2"):
        assert item(often, what) == pytest.approx(4 * item(seldom, what))
    assert item(often, "talking") == item(seldom, "talking")


def test_thermometers_that_stay_fed_and_the_divider_are_counted_while_asleep():
    asleep_h = 24 - 1.2
    expected_ua = 3 * 0.75 + 1.9
    assert item(day_of("tree-3"), "asleep, probes") == pytest.approx(
        asleep_h * expected_ua / 1000, rel=0.06
    )

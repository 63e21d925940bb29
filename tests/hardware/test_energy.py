"""A node's charge per day: on-times × currents, at the battery."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hardware.boards import load_board
from hardware.catalogue import load_node_model, node_model_ids
from hardware.energy import Estimate, WakeTimes, estimate, planned_times


def day_of(model_id: str, *, board_id: str | None = None, sample_every_s: int = 900) -> Estimate:
    model = load_node_model(model_id)
    board = load_board(board_id or model.board)
    return estimate(
        model,
        board,
        planned_times(model, board),
        sample_every_s=sample_every_s,
        publish_every_s=3600,
    )


def item(day: Estimate, what: str) -> float:
    return next(one.mah_per_day for one in day.items if one.what.startswith(what))


# Not for a battery alone: turbidity takes 50 s at its full pace (docs/technician/hardware.md).
_NEEDS_MAINS = {"pond-2"}


@pytest.mark.parametrize("model_id", sorted(set(node_model_ids()) - _NEEDS_MAINS))
def test_every_model_stays_within_its_goal_and_lasts_a_year(model_id):
    model = load_node_model(model_id)
    day = estimate(
        model,
        load_board(model.board),
        planned_times(model, load_board(model.board)),
        sample_every_s=model.sample_every_s,
        publish_every_s=model.publish_every_s,
    )
    assert day.is_within_goal
    assert day.battery_days >= 365


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
        model, replace(board, currents=currents), times, sample_every_s=900, publish_every_s=3600
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
        estimate(model, board, one, sample_every_s=900, publish_every_s=3600)
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

"""When a node may boot, told with numbers: now is 10,000 s, the wall clock 500 s, speed 60."""

import math

from hardware.virtual_board.pacing import FleetClock, Standing, boots_at_wall_s, is_caught_up

CLOCK = FleetClock(now_utc_s=10_000, wall_s=500, speed=60)


def node(
    wakes_at_s: float, *, held: int = 0, slept_in_wall_s: float = 0, asked_in_wall_s: float = 0
) -> Standing:
    return Standing(wakes_at_s, held, 3600, slept_in_wall_s, asked_in_wall_s)


def test_a_node_in_the_past_boots_at_once() -> None:
    assert boots_at_wall_s(node(5000), CLOCK, until_caught_up=False) < CLOCK.wall_s
    assert boots_at_wall_s(node(5000), CLOCK, until_caught_up=True) == -math.inf


def test_a_node_that_is_past_now_waits_for_the_fleets_clock() -> None:
    assert boots_at_wall_s(node(10_900), CLOCK, until_caught_up=False) == 515
    assert CLOCK.utc_s(515) == 10_900


def test_a_node_is_caught_up_when_it_is_past_now_and_nothing_waits_for_a_receipt() -> None:
    assert not is_caught_up(node(6400), CLOCK)
    assert not is_caught_up(node(6401, held=1), CLOCK)
    assert is_caught_up(node(6401), CLOCK)
    assert boots_at_wall_s(node(6401), CLOCK, until_caught_up=True) == math.inf


def test_a_node_past_now_that_waits_for_a_receipt_goes_on_to_its_next_publishing() -> None:
    assert boots_at_wall_s(node(13_000, held=2), CLOCK, until_caught_up=True) == -math.inf


def test_a_node_far_past_now_asks_for_its_receipt_only_once_a_second() -> None:
    waiting = node(13_601, held=2, slept_in_wall_s=710, asked_in_wall_s=700)
    assert boots_at_wall_s(waiting, CLOCK, until_caught_up=True) == 701


def test_a_node_almost_a_day_past_now_hardly_runs_on() -> None:
    waiting = node(10_000 + 72_001, held=2, slept_in_wall_s=710, asked_in_wall_s=700)
    assert boots_at_wall_s(waiting, CLOCK, until_caught_up=True) == 720

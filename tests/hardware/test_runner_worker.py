"""The worker boots its boards in the right order, at the right time, and ends when told."""

import threading
import time

import pytest

from hardware.virtual_board.pacing import FleetClock, Standing
from hardware.virtual_board.runner_worker import Orders, WakeFailed, Worker

NOW_UTC_S = 1_000_000
PUBLISH_EVERY_S = 3600
SAMPLE_EVERY_S = 900


class Sleeper:
    """A node that samples every 15 minutes, publishes every fourth time and takes no time to do so."""

    def __init__(self, label: str, *, starts_at_s: int = NOW_UTC_S - 86_400) -> None:
        self.label = label
        self.wakes_at_us = starts_at_s * 1_000_000
        self.boots = self.packs_written = self.power_cuts = self.failures_in_a_row = 0
        self.has_caught_up = False
        self.held = 0
        self.log: list[int] = []
        self.slept_in_wall_s = 0.0
        self.breaks = False

    def wake(self) -> None:
        if self.breaks:
            self.failures_in_a_row += 1
            raise WakeFailed("the flash file is gone")
        self.log.append(self.wakes_at_us // 1_000_000)
        self.boots += 1
        self.packs_written += 1
        self.held = self.held + 1 if self.boots % 4 else 0
        self.wakes_at_us += SAMPLE_EVERY_S * 1_000_000
        self.slept_in_wall_s = time.time()
        if self.wakes_at_us / 1e6 > NOW_UTC_S - PUBLISH_EVERY_S and not self.held:
            self.has_caught_up = True

    def standing(self) -> Standing:
        wakes_at_s = self.wakes_at_us / 1_000_000
        return Standing(wakes_at_s, self.held, PUBLISH_EVERY_S, self.slept_in_wall_s)


def orders(*, until_caught_up: bool, speed: float = 60.0, awake_limit: int = 2) -> Orders:
    return Orders(
        data_dir="",
        scene="",
        scene_nodes=None,
        series_dir=None,
        labels=[],
        clock=FleetClock(NOW_UTC_S, time.time(), speed),
        until_caught_up=until_caught_up,
        awake_limit=awake_limit,
    )


def run_until(worker: Worker, condition: object) -> None:
    thread = threading.Thread(target=worker.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.005)
    worker.stop()
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() < deadline


def test_orders_survive_their_way_to_the_worker() -> None:
    given = orders(until_caught_up=True)
    assert Orders.from_line(given.to_line()) == given


def test_boards_live_through_the_past_side_by_side() -> None:
    nodes = [Sleeper("a"), Sleeper("b"), Sleeper("c")]
    spreads = []
    worker = Worker(orders(until_caught_up=True, awake_limit=1), nodes)
    wakes = [node.wake for node in nodes]
    for node, wake in zip(nodes, wakes, strict=True):

        def noted(wake: object = wake) -> None:
            times = [other.wakes_at_us for other in nodes]
            spreads.append(max(times) - min(times))
            wake()  # type: ignore[operator]

        node.wake = noted  # type: ignore[method-assign]
    run_until(worker, lambda: worker.status().caught_up == 3)
    assert max(spreads) <= SAMPLE_EVERY_S * 1_000_000


def test_until_caught_up_ends_at_the_last_publishing_before_now() -> None:
    node = Sleeper("a")
    worker = Worker(orders(until_caught_up=True), [node])
    run_until(worker, lambda: worker.status().caught_up == 1)
    assert NOW_UTC_S - PUBLISH_EVERY_S - SAMPLE_EVERY_S < node.log[-1] <= NOW_UTC_S
    status = worker.status()
    assert (status.packs_held, status.boots, status.behind) == (0, node.boots, [])


def test_after_the_past_a_board_boots_by_the_fleets_clock() -> None:
    node = Sleeper("a", starts_at_s=NOW_UTC_S + 10)
    wall_s = time.time()
    # 3,000 s of the fleet per second: a boot every 0.3 s.
    worker = Worker(orders(until_caught_up=False, speed=3000.0), [node])
    run_until(worker, lambda: node.boots == 3)
    assert 0.6 <= time.time() - wall_s < 5.0


def test_a_worker_that_is_told_to_stop_finishes_the_boots_that_run() -> None:
    node = Sleeper("a")
    is_awake, may_sleep = threading.Event(), threading.Event()
    wake = node.wake

    def slow() -> None:
        is_awake.set()
        assert may_sleep.wait(5)
        wake()

    node.wake = slow  # type: ignore[method-assign]
    worker = Worker(orders(until_caught_up=True), [node])
    thread = threading.Thread(target=worker.run)
    thread.start()
    assert is_awake.wait(5)
    worker.stop()
    may_sleep.set()
    thread.join(5)
    assert not thread.is_alive()
    assert node.boots == 1


def test_a_board_that_cannot_be_run_ends_the_worker_and_is_named(
    capfd: pytest.CaptureFixture[str],
) -> None:
    broken = Sleeper("broken")
    broken.breaks = True
    failure = Worker(orders(until_caught_up=True), [Sleeper("a"), broken]).run()
    assert failure == "broken cannot be run: the flash file is gone"
    assert "WakeFailed" in capfd.readouterr().err


def test_the_account_of_a_thousand_sleeping_boards_is_quick() -> None:
    nodes = [Sleeper(f"n{index}", starts_at_s=NOW_UTC_S + 86_400) for index in range(1000)]
    worker = Worker(orders(until_caught_up=False), nodes)
    started = time.thread_time()  # its own work: the machine that runs the tests may be busy
    assert worker.status().nodes == 1000
    assert time.thread_time() - started < 0.1

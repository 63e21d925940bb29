"""One worker process of the runner: some of the boards, a thread for each one that is awake.

Started by `runner.py` with one JSON line on stdin (the orders); writes JSON lines on stdout (how far it is) and ends
when stdin closes or says stop, after the boots that are running. A board that sleeps is a few numbers here and a file
on disk; only one that is awake has a virtual machine.
"""

from __future__ import annotations

import heapq
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

from hardware.virtual_board.pacing import FleetClock, Standing, boots_at_wall_s

_STDIN, _STDOUT = 0, 1
_STATUS_EVERY_S = 0.5
_IDLE_POLL_S = 0.25
_FAILURES_IN_A_ROW_LIMIT = 5


@dataclass(frozen=True)
class Orders:
    """What the parent asks of one worker."""

    data_dir: str
    scene: str
    scene_nodes: int | None
    series_dir: str | None
    labels: list[str]
    clock: FleetClock
    until_caught_up: bool
    awake_limit: int
    series_end_utc_s: int = 0
    scene_seed: int | None = None
    fault_seed: int = 1
    fault_rates: dict[str, float] = field(default_factory=dict)

    def to_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Orders:
        content = json.loads(line)
        return cls(**{**content, "clock": FleetClock(**content["clock"])})


@dataclass
class Status:
    """How far one worker's boards are."""

    nodes: int = 0
    boots: int = 0
    packs_written: int = 0
    packs_held: int = 0
    caught_up: int = 0
    in_the_past: int = 0
    power_cuts: int = 0
    sim_utc_s_min: float = 0.0
    sim_utc_s_max: float = 0.0
    behind: list[str] = field(default_factory=list)


class WakeFailed(Exception):
    """The board's own machinery failed during a boot (not the firmware: that would be a crash and a reset)."""


class Bootable(Protocol):
    """A node as the worker needs it; what is behind it is `virtual_node.VirtualNode`."""

    label: str
    power_cuts: int
    failures_in_a_row: int
    has_caught_up: bool

    @property
    def wakes_at_us(self) -> int: ...

    @property
    def boots(self) -> int: ...

    @property
    def packs_written(self) -> int: ...

    def wake(self) -> None:
        """Boot and run until it sleeps again. Raises WakeFailed."""

    def standing(self) -> Standing:
        """Where it stands, for the pacing."""


class _Queued(NamedTuple):
    """A sleeping board in the queue: ready ones first, among them the one that is furthest behind."""

    at_wall_s: float
    wakes_at_us: int
    place: int


class Worker:
    """Boots its boards in the order of their wake times."""

    def __init__(self, orders: Orders, nodes: Sequence[Bootable]) -> None:
        self._orders = orders
        self._nodes = nodes
        self._changed = threading.Condition()
        self._queue = [self._entry(index) for index in range(len(nodes))]
        heapq.heapify(self._queue)
        self._is_stopping = False
        self._failure: str | None = None

    def run(self) -> str | None:
        """Work until told to stop; returns what went wrong, if anything."""
        threads = [
            threading.Thread(target=self._work, name=f"board-{number}")
            for number in range(min(self._orders.awake_limit, len(self._nodes)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._failure

    def stop(self) -> None:
        """No more boots after those that run now."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def status(self) -> Status:
        """Counted over all its boards."""
        clock = self._orders.clock
        standings = [(node, node.standing()) for node in self._nodes]
        wakes = [standing.wakes_at_s for _, standing in standings] or [0.0]
        return Status(
            nodes=len(standings),
            boots=sum(node.boots for node in self._nodes),
            packs_written=sum(node.packs_written for node in self._nodes),
            packs_held=sum(standing.packs_held for _, standing in standings),
            caught_up=sum(node.has_caught_up for node in self._nodes),
            in_the_past=sum(standing.wakes_at_s <= clock.now_utc_s for _, standing in standings),
            power_cuts=sum(node.power_cuts for node in self._nodes),
            sim_utc_s_min=min(wakes),
            sim_utc_s_max=max(wakes),
            behind=[node.label for node in self._nodes if not node.has_caught_up][:20],
        )

    def _work(self) -> None:
        while (index := self._take()) is not None:
            node = self._nodes[index]
            try:
                node.wake()
            except WakeFailed as failure:
                # The board's own machinery failed, not the firmware: a person must see it; tried again a few times.
                traceback.print_exc()
                if node.failures_in_a_row >= _FAILURES_IN_A_ROW_LIMIT:
                    self._give_up(node, failure)
            except Exception as mistake:  # noqa: BLE001 - ours; a thread that dies silently would lose its board
                traceback.print_exc()
                self._give_up(node, mistake)
            with self._changed:
                heapq.heappush(self._queue, self._entry(index))
                self._changed.notify()

    def _give_up(self, node: Bootable, cause: Exception) -> None:
        self._failure = f"{node.label} cannot be run: {cause or type(cause).__name__}"
        self.stop()

    def _take(self) -> int | None:
        """The board that has to boot next, as soon as it may; None when it is time to stop."""
        with self._changed:
            while not self._is_stopping:
                wait_s = _IDLE_POLL_S
                if self._queue:
                    wait_s = min(wait_s, self._queue[0].at_wall_s - time.time())
                    if wait_s <= 0:
                        return heapq.heappop(self._queue).place
                self._changed.wait(wait_s)
            return None

    def _entry(self, index: int) -> _Queued:
        node = self._nodes[index]
        at_wall_s = boots_at_wall_s(
            node.standing(), self._orders.clock, until_caught_up=self._orders.until_caught_up
        )
        return _Queued(at_wall_s, node.wakes_at_us, index)


def main() -> None:
    """Read the orders, run the boards, report until stdin closes or says stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # They reach the whole process group; the parent takes them and stops its workers in order.
        signal.signal(number, signal.SIG_IGN)
    line, rest = _read_line(_STDIN)
    # Only now: a test of the scheduling needs no virtual machine.
    from hardware.virtual_board.virtual_node import open_nodes

    orders = Orders.from_line(line)
    worker = Worker(orders, open_nodes(orders))
    if rest:
        worker.stop()
    threading.Thread(target=_listen, args=(worker,), daemon=True).start()
    has_ended = threading.Event()
    reporter = threading.Thread(target=_report, args=(worker, has_ended))
    reporter.start()
    failure = worker.run()
    has_ended.set()
    reporter.join()
    _say({"status": asdict(worker.status()), "failure": failure})


def _read_line(descriptor: int) -> tuple[str, bytes]:
    """The first line and what came after it. Without Python's buffers: a thread that waits in one cannot be ended."""
    data = b""
    while b"\n" not in data:
        piece = os.read(descriptor, 65536)
        if not piece:
            sys.exit(1)
        data += piece
    line, rest = data.split(b"\n", 1)
    return line.decode(), rest


def _listen(worker: Worker) -> None:
    # Anything said, and the end of the pipe (the parent was killed), both mean: stop.
    os.read(_STDIN, 1)
    worker.stop()


def _report(worker: Worker, has_ended: threading.Event) -> None:
    last: Status | None = None
    while not has_ended.wait(_STATUS_EVERY_S):
        status = worker.status()
        if status != last:
            _say({"status": asdict(status), "failure": None})
            last = status


def _say(content: dict[str, Any]) -> None:
    try:
        os.write(_STDOUT, (json.dumps(content) + "\n").encode())
    except OSError:
        # The parent is gone; stdin tells us to stop at the same moment.
        return

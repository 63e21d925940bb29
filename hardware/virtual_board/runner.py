"""Runs many virtual boards: worker processes side by side, one clock, one account of how far all are.

The past is lived through as fast as the machine can, each board at its own pace; then boards boot by the fleet's
simulated clock. Everything about a board is in its folder, so that a run that was killed goes on where it was: a board
that was awake then sees a power cut. Two runs on one folder exclude each other.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from hardware.virtual_board.pacing import FleetClock
from hardware.virtual_board.runner_worker import Orders, Status

_TICK_S = 0.1
_REPORT_EVERY_S = 0.5
# A boot in progress may wait for the broker; after this a worker that was told to stop is ended.
_STOP_PATIENCE_S = 40.0
# Workers of a killed run notice it at once, but finish the boots that were running.
_LOCK_PATIENCE_S = 45.0
_LAST_BOOTS_S = 5.0
_NAMED_NODES = 5
# Not `-m`: the module would then be there twice, with two classes of each name.
_WORKER_PROGRAM = "from hardware.virtual_board.runner_worker import main; main()"


class RunnerError(Exception):
    """The boards cannot be run or did not catch up; the text is one sentence for a person."""


@dataclass(frozen=True)
class RunPlan:
    """What to run.

    `labels` name folders below `data_dir` that are flashed and enrolled; `scene`, `scene_nodes` and `series_dir` say
    what surrounds them. With `until_caught_up` the run ends when every board is past the clock's now (less one publish
    interval) and every pack on its flash has a receipt; `patience_s` without any progress ends it with an error.
    Measured series end at `series_end_utc_s`. `fault_rates` are shares of boots, by
    the kinds of `faults.FAULTS`.
    """

    data_dir: Path
    scene: str
    scene_nodes: int | None
    series_dir: Path | None
    labels: tuple[str, ...]
    clock: FleetClock
    until_caught_up: bool = False
    processes: int = os.cpu_count() or 1
    awake_limit: int = 64
    patience_s: float = 120.0
    scene_seed: int | None = None
    series_end_utc_s: int = 0
    fault_seed: int = 1
    fault_rates: Mapping[str, float] = field(default_factory=dict)


class FolderLock(NamedTuple):
    """The proof that a data folder is held; workers inherit `descriptor`, so that it outlives a killed parent."""

    descriptor: int


@contextmanager
def holding(data_dir: Path) -> Iterator[FolderLock]:
    """Hold a data folder against other runs; waits for boards of a killed run that still finish their boots.

    Raises:
        RunnerError: another run holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "run.lock").open("ab") as run, (data_dir / "boards.lock").open("ab") as boards:
        if not _try_lock(run):
            raise RunnerError(f"{data_dir} is in use by another run.")
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while not _try_lock(boards):
            if time.monotonic() > deadline:
                raise RunnerError(f"Boards of a killed run in {data_dir} do not end.")
            time.sleep(_TICK_S)
        yield FolderLock(boards.fileno())


def run_boards(
    plan: RunPlan, lock: FolderLock, *, report: Callable[[Status], None], stop: threading.Event
) -> Status:
    """Run until `stop` is set, or until caught up when the plan says so; returns the last account.

    `report` is called at most twice per second, and only when something changed. On return every board sleeps and
    its folder is complete.

    Raises:
        RunnerError: a board cannot be run, or the boards make no progress any more.
    """
    with _started(plan, lock) as workers:
        watch = _Watch(plan)
        reported_at, reported = 0.0, None
        while not stop.wait(_TICK_S):
            status = total(worker.status for worker in workers)
            if status != reported and time.monotonic() - reported_at >= _REPORT_EVERY_S:
                report(status)
                reported_at, reported = time.monotonic(), status
            for worker in workers:
                worker.complain_if_ended()
            # Workers that have not spoken yet have no nodes counted.
            if plan.until_caught_up and status.caught_up == len(plan.labels):
                break
            watch.look(status)
        for worker in workers:
            worker.tell_to_stop()
        for worker in workers:
            worker.wait()
        status = total(worker.status for worker in workers)
        report(status)
        return status


def total(statuses: Iterator[Status]) -> Status:
    """All workers' accounts as one."""
    spoken = [status for status in statuses if status.nodes]
    result = Status()
    for status in spoken:
        for part in fields(Status):
            if not part.name.startswith("sim_utc_s"):
                setattr(result, part.name, getattr(result, part.name) + getattr(status, part.name))
    result.sim_utc_s_min = min((status.sim_utc_s_min for status in spoken), default=0.0)
    result.sim_utc_s_max = max((status.sim_utc_s_max for status in spoken), default=0.0)
    return result


class _Watch:
    """Notices that nothing moves any more."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._mark: tuple[int, int] | None = None
        self._moved_at = time.monotonic()

    def look(self, status: Status) -> None:
        if not self._plan.until_caught_up:
            return
        # A boot is progress only while a board lives through the past; after that only receipts are.
        mark = (status.boots if status.in_the_past else -1, status.caught_up)
        if mark != self._mark:
            self._mark, self._moved_at = mark, time.monotonic()
        elif time.monotonic() - self._moved_at > self._plan.patience_s:
            names = ", ".join(status.behind[:_NAMED_NODES])
            others = len(self._plan.labels) - status.caught_up - _NAMED_NODES
            raise RunnerError(
                f"{names}{f' and {others} others' if others > 0 else ''} made no progress for "
                f"{self._plan.patience_s:.0f} s: {status.packs_held} packs wait for a receipt."
            )


class _WorkerProcess:
    """One worker and what it said last."""

    def __init__(self, orders: Orders, lock: FolderLock) -> None:
        self.status = Status()
        self._failure: str | None = None
        self._process = subprocess.Popen(  # noqa: S603 - this Python, our own module
            [sys.executable, "-c", _WORKER_PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # The lock lives as long as any process has it: boards of a killed run are never run twice.
            pass_fds=[lock.descriptor],
        )
        self._say(orders.to_line())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def complain_if_ended(self) -> None:
        if self._process.poll() is None:
            return
        self._reader.join()
        raise RunnerError(
            self._failure
            or f"A process that runs boards ended with exit {self._process.returncode}."
        )

    def tell_to_stop(self) -> None:
        self._say("stop")

    def wait(self) -> None:
        """Until it has ended. Raises RunnerError when it has to be killed or failed at the end."""
        try:
            self._process.wait(_STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RunnerError(
                f"A boot did not end within {_STOP_PATIENCE_S:.0f} s and was killed."
            ) from None
        self._reader.join()
        if self._failure:
            raise RunnerError(self._failure)

    def wait_until(self, deadline: float) -> None:
        """Until it has ended or the monotonic clock says `deadline`."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe above
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # It has ended; complain_if_ended or wait tells why.
            return

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe above
        for line in self._process.stdout:
            try:
                said: dict[str, Any] = json.loads(line)
            except ValueError:
                # Half a line of a worker that was killed.
                continue
            self.status = Status(**said["status"])
            self._failure = said.get("failure")


@contextmanager
def _started(plan: RunPlan, lock: FolderLock) -> Iterator[list[_WorkerProcess]]:
    count = max(1, min(plan.processes, len(plan.labels)))
    workers = [
        _WorkerProcess(
            Orders(
                data_dir=str(plan.data_dir),
                scene=plan.scene,
                scene_nodes=plan.scene_nodes,
                series_dir=None if plan.series_dir is None else str(plan.series_dir),
                labels=list(plan.labels[number::count]),
                clock=plan.clock,
                until_caught_up=plan.until_caught_up,
                awake_limit=max(1, plan.awake_limit // count),
                series_end_utc_s=plan.series_end_utc_s,
                scene_seed=plan.scene_seed,
                fault_seed=plan.fault_seed,
                fault_rates=dict(plan.fault_rates),
            ),
            lock,
        )
        for number in range(count)
    ]
    try:
        yield workers
    finally:
        # After a failure, too, boards are given the time to fall asleep: a kill would be a power cut for each.
        for worker in workers:
            worker.tell_to_stop()
        deadline = time.monotonic() + _LAST_BOOTS_S
        for worker in workers:
            worker.wait_until(deadline)
            worker.kill()


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

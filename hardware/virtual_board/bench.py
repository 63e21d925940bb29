"""How fast boards boot and how much memory sleeping ones take, beside what the bare machine can do.

Measures what is in a data folder of enrolled nodes; who makes that folder is `provision virtual bench`. The limit is a
start of the same machine with an empty program, in the same processes right after.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hardware.virtual_board import errno_esp32 as errno
from hardware.virtual_board.board import HEAP_BYTES, ROM_HEAP_BYTES
from hardware.virtual_board.pacing import FleetClock
from hardware.virtual_board.runner_worker import Orders
from hardware.virtual_board.virtual_node import open_nodes
from hardware.virtual_board.vm import Vm

_LIMIT_SHARE = 0.25
_PROGRAM = "from hardware.virtual_board.bench import main; main()"
_BYTES_PER_PAGE = os.sysconf("SC_PAGE_SIZE")
_BYTES_PER_MB = 1_000_000


@dataclass(frozen=True)
class BootRates:
    """Boots per second of all processes together, and bare machine starts per second of the same.

    `cpu_ms_per_boot` is processor time, which a busy computer does not change.
    """

    boots_per_second: float
    limit_boots_per_second: float
    boots: int
    cpu_ms_per_boot: float


@dataclass(frozen=True)
class IdleMemory:
    """Resident memory of one process without nodes, and what each sleeping node adds."""

    process_bytes: int
    bytes_per_node: int
    nodes: int

    def rss_mb_per_1000_nodes(self, processes: int) -> float:
        """All worker processes with a thousand sleeping nodes."""
        return (processes * self.process_bytes + 1000 * self.bytes_per_node) / _BYTES_PER_MB


def measure_boots(
    data_dir: Path, scene: str, labels: list[str], *, seconds: float, processes: int
) -> BootRates:
    """Boot the nodes in turn for `seconds` in every process, each process with nodes of its own."""
    results = _in_processes(
        [
            {
                "measure": "boots",
                "orders": _orders(
                    data_dir, scene, len(labels), labels[number::processes]
                ).to_line(),
                "seconds": seconds,
            }
            for number in range(processes)
        ]
    )
    return BootRates(
        boots_per_second=sum(result["boots"] / result["boot_seconds"] for result in results),
        limit_boots_per_second=sum(result["bare"] / result["bare_seconds"] for result in results),
        boots=sum(result["boots"] for result in results),
        cpu_ms_per_boot=1000
        * sum(result["cpu_seconds"] for result in results)
        / sum(result["boots"] for result in results),
    )


def measure_memory(data_dir: Path, scene: str, labels: list[str]) -> IdleMemory:
    """Resident memory of nodes that have booted once and sleep, in a process of their own."""
    (result,) = _in_processes(
        [{"measure": "memory", "orders": _orders(data_dir, scene, len(labels), labels).to_line()}]
    )
    return IdleMemory(result["process_bytes"], result["bytes_per_node"], len(labels) - 1)


def main() -> None:
    """The measuring process: one JSON task on stdin, one JSON result on stdout."""
    task = json.loads(sys.stdin.readline())
    orders = Orders.from_line(task["orders"])
    if task["measure"] == "memory":
        result = _measure_memory_here(orders)
    else:
        result = _measure_boots_here(orders, task["seconds"])
    sys.stdout.write(json.dumps(result) + "\n")


def _measure_boots_here(orders: Orders, seconds: float) -> dict[str, Any]:
    nodes = open_nodes(orders)
    for node in nodes:
        node.wake()
    boots, started, cpu_started = 0, time.perf_counter(), time.process_time()
    while (boot_seconds := time.perf_counter() - started) < seconds:
        nodes[boots % len(nodes)].wake()
        boots += 1
    cpu_seconds = time.process_time() - cpu_started
    bare, started = 0, time.perf_counter()
    while (bare_seconds := time.perf_counter() - started) < seconds * _LIMIT_SHARE:
        _start_bare_machine()
        bare += 1
    return {
        "boots": boots,
        "boot_seconds": boot_seconds,
        "cpu_seconds": cpu_seconds,
        "bare": bare,
        "bare_seconds": bare_seconds,
    }


def _measure_memory_here(orders: Orders) -> dict[str, Any]:
    first, others = orders.labels[0], orders.labels[1:]
    warm = open_nodes(replace(orders, labels=[first]))[0]
    warm.wake()
    warm.wake()
    before = _resident_bytes()
    nodes = open_nodes(replace(orders, labels=others))
    for node in nodes:
        node.wake()
    grown = _resident_bytes() - before
    return {"process_bytes": before, "bytes_per_node": grown // len(nodes)}


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _BYTES_PER_PAGE


class _NoFiles:
    """A machine without a file system."""

    def _missing(self, *_: object, **__: object) -> Any:
        raise OSError(errno.ENOENT, "no file system")

    open = stat = mkdir = rmdir = unlink = rename = _missing

    def console(self, data: bytes) -> None:
        """Not looked at."""

    def typed(self, size: int) -> bytes:
        """Nobody is there."""
        return b""


class _HostClock:
    """The computer's own time."""

    def realtime_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_ns(self, duration_ns: int) -> None:
        time.sleep(duration_ns / 1e9)


def _start_bare_machine() -> None:
    heap = HEAP_BYTES + ROM_HEAP_BYTES
    vm = Vm(files=_NoFiles(), clock=_HostClock(), operations={})
    vm.run(arguments=["micropython", "-X", f"heapsize={heap}", "-c", "pass"])


def _orders(data_dir: Path, scene: str, scene_nodes: int, labels: list[str]) -> Orders:
    return Orders(
        data_dir=str(data_dir),
        scene=scene,
        scene_nodes=scene_nodes,
        series_dir=None,
        labels=labels,
        clock=FleetClock(0.0, 0.0, 1.0),
        until_caught_up=False,
        awake_limit=1,
    )


def _in_processes(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The result of every task, all measured at the same time.

    Raises:
        RuntimeError: a measuring process failed.
    """
    running = []
    for task in tasks:
        process = subprocess.Popen(  # noqa: S603 - this Python, our own module
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None  # noqa: S101 - opened as a pipe above
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.close()
        running.append(process)
    results = []
    for process in running:
        assert process.stdout is not None  # noqa: S101
        said = process.stdout.read()
        process.stdout.close()
        if process.wait() != 0:
            raise RuntimeError(f"a measuring process ended with exit {process.returncode}")
        results.append(json.loads(said))
    return results

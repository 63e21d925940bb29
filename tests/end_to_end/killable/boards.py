"""Boards that are killed while they publish and while they write to flash; each node in a process of its own.

    python boards.py ORDERS     (a file of one JSON line: hardware.virtual_board.runner_worker.Orders)

Fault points: `after_publish` (a pack has left the node, no acknowledgement has come) and `during_spool_write` (some
program operation of the flash, torn or whole, between the opening and the closing of a spool segment). With a broker
that is not ours, its fault points lie here, too: `before_broker_ack` stops it, lets the pack reach its socket and
kills it; `after_broker_ack` kills it when its PUBACK has come.

No node gets far ahead of the others: afterwards all of them have to live as long as the one that got furthest.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fault_points import FaultPoint, load_plan, process_id, run_and_restart, wrap

from hardware.virtual_board import filesystem, flash, network, runner_worker, virtual_node

_PUBLISH_QOS1, _PUBACK = 0x32, 0x40
_TOPIC_ENDING = b"/tm"
_TOPIC_WITHIN = 80
_SEGMENT_ENDING = ".seg"
_BROKER = "broker"
# Twice as long as a node may be silent that publishes once an hour.
_LEAD_US = 2 * 3600 * 1_000_000
_LOOK_EVERY_S = 0.02

_plan = load_plan()
_after_publish = FaultPoint("after_publish", _plan)
_during_spool_write = FaultPoint("during_spool_write", _plan)
_before_broker_ack = FaultPoint("before_broker_ack", _plan)
_after_broker_ack = FaultPoint("after_broker_ack", _plan)
# A board lives in one thread: what it has open for writing stands here.
_open_segments = threading.local()


def _is_pack(data: bytes) -> bool:
    return data[:1] == bytes([_PUBLISH_QOS1]) and _TOPIC_ENDING in data[:_TOPIC_WITHIN]


def _send(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(self: network.Network, payload: str) -> int:
        _, address, size, _ = map(int, payload.split())
        if not _is_pack(bytes(self._memory(address, size))):
            return int(original(self, payload))
        broker = process_id(_plan, _BROKER)
        if broker is not None and _before_broker_ack.is_due():
            with suppress(ProcessLookupError):
                os.kill(broker, signal.SIGSTOP)
            try:
                sent = int(original(self, payload))
            except BaseException:
                # Nothing was taken: the pack is not under way, and the broker must go on.
                with suppress(ProcessLookupError):
                    os.kill(broker, signal.SIGCONT)
                raise
            _before_broker_ack.kill([broker], f"{sent} bytes sent to a stopped broker")
            return sent
        sent = int(original(self, payload))
        if _after_publish.is_due():
            _after_publish.kill_self(f"{sent} bytes")
        return sent

    return send


def _recv(original: Callable[..., Any]) -> Callable[..., Any]:
    def recv(self: network.Network, payload: str) -> int:
        received = int(original(self, payload))
        broker = process_id(_plan, _BROKER)
        if broker is not None and received:
            _, address, _, _ = map(int, payload.split())
            data = bytes(self._memory(address, received))
            if data[0] == _PUBACK and _after_broker_ack.is_due():
                _after_broker_ack.kill([broker], f"PUBACK {data[:4].hex()}")
        return received

    return recv


def _open(original: Callable[..., Any]) -> Callable[..., Any]:
    def open_file(self: filesystem.FileSystem, path: str, **options: Any) -> Any:
        if options["write"] and path.endswith(_SEGMENT_ENDING):
            _open_segments.path = path
        return original(self, path, **options)

    return open_file


def _close(original: Callable[..., Any]) -> Callable[..., Any]:
    def close(self: filesystem.FlashFile) -> None:
        original(self)
        _open_segments.path = None

    return close


def _program(original: Callable[..., Any]) -> Callable[..., Any]:
    def program(self: flash.Flash, offset: int, data: bytes) -> Any:
        path = getattr(_open_segments, "path", None)
        if path is None or not _during_spool_write.is_due():
            return original(self, offset, data)
        whole = bool(int.from_bytes(os.urandom(1), "big") & 1)
        original(self, offset, data if whole else data[: len(data) // 2])
        return _during_spool_write.kill_self(
            f"{path} at {offset:#x}, {'whole' if whole else 'torn'}"
        )

    return program


def _wait_for_others(
    labels: Sequence[str],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A boot that waits while another node is more than the lead behind; where each one is, stands in the plan's folder."""
    files = {label: _plan.folder / f"{label}.at" for label in labels}

    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def wake(self: virtual_node.VirtualNode) -> None:
            scratch = files[self.label].with_suffix(".new")
            scratch.write_text(str(self.wakes_at_us))
            scratch.replace(files[self.label])
            while self.wakes_at_us > min(map(_reached_us, files.values())) + _LEAD_US:
                time.sleep(_LOOK_EVERY_S)
            original(self)

        return wake

    return wrapper


def _reached_us(file: Path) -> int:
    try:
        return int(file.read_text())
    except FileNotFoundError:
        return 0


def _run(orders: runner_worker.Orders) -> None:
    """The runner's own worker, with its orders on stdin as it gets them from the runner."""
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.write(writing, (orders.to_line() + "\n").encode())
    runner_worker.main()


def main() -> None:
    wrap(network.Network, "_send", _send)
    wrap(network.Network, "_recv", _recv)
    wrap(filesystem.FileSystem, "open", _open)
    wrap(filesystem.FlashFile, "close", _close)
    wrap(flash.Flash, "program", _program)
    assert (
        virtual_node.open_nodes
    )  # imported before the fork, so that a restart does not wait for it
    orders = runner_worker.Orders.from_line(Path(sys.argv[1]).read_text(encoding="utf-8"))
    wrap(virtual_node.VirtualNode, "wake", _wait_for_others(orders.labels))
    run_and_restart(
        {
            label: lambda label=label: _run(replace(orders, labels=[label]))
            for label in orders.labels
        }
    )


if __name__ == "__main__":
    main()

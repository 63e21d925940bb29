"""A cable between bench and board that is pulled after so many bytes have gone through it."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass
class Cable:
    url: str
    passed_bytes: int = 0
    """From the bench to the board."""


@contextmanager
def cable_to(tcp_url: str, *, pulled_after: int | None = None) -> Iterator[Cable]:
    """A `socket://` address that leads to the board's, until `pulled_after` bytes have gone to it; then to nothing."""
    board = urlsplit(tcp_url)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    cable = Cable(f"socket://127.0.0.1:{listener.getsockname()[1]}")
    is_over = threading.Event()

    def carry() -> None:
        while not is_over.is_set():
            try:
                bench, _ = listener.accept()
            except TimeoutError:
                continue
            with bench, _reached(board.hostname, board.port) as chip:
                _join(cable, bench, chip, is_over, pulled_after)
            if pulled_after is not None and cable.passed_bytes >= pulled_after:
                break
        listener.close()

    thread = threading.Thread(target=carry)
    thread.start()
    try:
        yield cable
    finally:
        is_over.set()
        thread.join()


def _reached(host: str | None, port: int | None) -> socket.socket:
    """The board's door; it opens a moment after the one before has left."""
    while True:
        try:
            return socket.create_connection((host, port))
        except ConnectionRefusedError:
            threading.Event().wait(0.01)


def _join(
    cable: Cable,
    bench: socket.socket,
    chip: socket.socket,
    is_over: threading.Event,
    pulled_after: int | None,
) -> None:
    for end in (bench, chip):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not is_over.is_set():
        ready, _, _ = select.select([bench, chip], [], [], 0.05)
        for end in ready:
            try:
                data = end.recv(4096)
            except OSError:
                return
            if not data:
                return
            if end is chip:
                bench.sendall(data)
                continue
            left = len(data) if pulled_after is None else pulled_after - cable.passed_bytes
            chip.sendall(data[:left])
            cable.passed_bytes += len(data[:left])
            if len(data) > left or left == 0:
                return

"""SIGTERM and Ctrl-C, for commands that run until they are told to end."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told_to_end() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, however often they come, so that everything is ended in order."""
    told = threading.Event()

    def tell(*_: object) -> None:
        # In a thread of its own: a handler runs in the middle of the main thread, perhaps of `told.wait` or of the handler
        # before it, and `told.set` would then wait for ever for a lock that the main thread itself holds.
        _thread.start_new_thread(told.set, ())

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

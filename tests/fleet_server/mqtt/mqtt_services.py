"""Running a consumer or publisher inside a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from brokers import wait_until

NODE_ID = "n-000001"
"""The deployed node of these tests."""


@contextmanager
def at_work(service: Any) -> Iterator[Any]:
    """Run a consumer or publisher in a thread until the block ends; it is ready when the block begins."""
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(target=service.run, args=(stop,), kwargs={"on_ready": ready.set})
    thread.start()
    try:
        wait_until(ready.is_set)
        yield service
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()

"""Running a consumer or publisher inside a test, and taking its database away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from brokers import wait_until
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

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


@contextmanager
def database_away(sessions: sessionmaker[Session], table: str) -> Iterator[None]:
    """Every transaction on SQLite that needs the table fails as long as it is not there."""
    engine = sessions.kw["bind"]
    assert isinstance(engine, Engine)
    _execute(engine, f"ALTER TABLE {table} RENAME TO away")
    try:
        yield
    finally:
        _execute(engine, f"ALTER TABLE away RENAME TO {table}")


def _execute(engine: Engine, statement: str) -> None:
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA legacy_alter_table = ON")
        connection.cursor().execute(statement)
    finally:
        connection.close()

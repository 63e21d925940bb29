"""The node of these tests, and taking a service's database away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

NODE_ID = "n-000001"
"""The deployed node of these tests."""


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

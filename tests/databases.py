"""Empty databases with all tables, quickly: each is a copy of one that was migrated once."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Dialect, Engine, Pool, event, make_url
from sqlalchemy.util import LRUCache

from fleet_server import db

KEPT = "kept"
"""What connections call themselves at PostgreSQL that are there for the next test, too."""


def hurried_engine(url: str) -> Engine:
    """An engine over a database whose power no test cuts: to wait for the disk is most of the time otherwise."""
    if make_url(url).get_backend_name() == "postgresql":
        return _engine_on_kept_connections(url)
    engine = db.make_engine(url)
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
    _share_statements(engine)
    return engine


_kept: dict[str, Pool] = {}


def _engine_on_kept_connections(url: str) -> Engine:
    """Each its own engine, with listeners of its own. A new connection costs more than most tests do with it: PostgreSQL reads anew
    what it knows of every table."""
    engine = db.make_engine(
        make_url(url)
        .update_query_dict({"application_name": KEPT})
        .render_as_string(hide_password=False)
    )
    engine.pool = _kept.setdefault(url, engine.pool)
    engine.dispose = lambda close=True: None  # type: ignore[method-assign] # the connections stay
    _share_statements(engine)
    return engine


def close_kept() -> None:
    """When their server ends."""
    while _kept:
        _kept.popitem()[1].dispose()


_dialects: dict[str, Dialect] = {}
_compiled: LRUCache[Any, Any] = LRUCache(2000)


def _share_statements(engine: Engine) -> None:
    """Every statement is compiled once for all databases of a kind: an engine of its own would do it anew for each test."""
    name = engine.dialect.name
    if name not in _dialects:
        engine.connect().close()  # now it knows its server
        _dialects[name] = engine.dialect
    engine.dialect = _dialects[name]
    engine.update_execution_options(compiled_cache=_compiled)


class Databases(Protocol):
    """A source of empty databases."""

    def fresh(self) -> AbstractContextManager[str]:
        """The address of a new database with all tables; gone afterwards."""


class SqliteDatabases:
    """SQLite files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.sqlite3"
        self._numbers = itertools.count(1)

    @contextmanager
    def fresh(self) -> Iterator[str]:
        if not self._template.exists():
            engine = db.make_engine(f"sqlite:///{self._template}")
            db.upgrade(engine)
            with engine.connect() as connection:  # everything into the one file that is copied
                connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            engine.dispose()
        path = self._folder / f"{next(self._numbers)}.sqlite3"
        shutil.copy(self._template, path)
        yield f"sqlite:///{path}"
        for leftover in self._folder.glob(f"{path.name}*"):
            leftover.unlink()

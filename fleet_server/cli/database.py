"""A command's own connection: settings, clock, database of this version; all closed when the command is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from fleet_server import clock, db
from fleet_server.settings import load_settings


@contextmanager
def open_session(data_dir: str | None) -> Iterator[Session]:
    """A session on the server's database, and the server's clock for this process.

    Raises:
        SchemaOutdated: the tables are not those of this version.
        Unavailable: the database cannot be reached.
    """
    settings = load_settings(data_dir=data_dir)
    clock.use_clock(settings.clock)
    engine = db.make_engine(settings.database_url)
    try:
        db.check_schema(engine)
        with db.session_factory(engine)() as session:
            yield session
    finally:
        engine.dispose()

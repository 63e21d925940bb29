"""What `fleet ingest` and `fleet worker` have in common as processes: settings, database, SIGTERM, the ready line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.cli.answers import answer
from fleet_server.cli.database import refuse_missing, wait_for_database
from fleet_server.cli.stopping import told_to_end
from fleet_server.logs import set_up_logging
from fleet_server.mqtt import connection
from fleet_server.services import key_files
from fleet_server.settings import Settings, load_settings


class Service(Protocol):
    """Something that runs until it is told to stop."""

    def run(self, stop: threading.Event, *, on_ready: Callable[[], None]) -> None: ...


class MakeService(Protocol):
    """How such a service is made."""

    def __call__(
        self, settings: Settings, sessions: sessionmaker[Session], *, name: str | None
    ) -> Service: ...


def run_service(
    title: str,
    make: MakeService,
    *,
    service: str,
    data_dir: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Run until SIGTERM or SIGINT, waiting for the database first; says once that it is at work.

    Args:
        service: Its name at the broker.

    Raises:
        PairUnusable: it cannot show the broker who it is.
        NotFound: there is no file of SQLite's, or no authority.
        SchemaOutdated: the database is not this version's.
        NotDurable: it might forget what it confirmed.
    """
    settings = load_settings(data_dir=data_dir)
    refuse_missing(settings)
    connection.check_certificates(settings, service)
    set_up_logging(settings)
    clock.use_clock(settings.clock)
    key_files.unlock_with(settings.ca_key_passphrase)
    engine = db.make_engine(settings.database_url)
    running = make(settings, db.session_factory(engine), name=name)

    def say_ready() -> None:
        answer({"event": "ready"}, f"{title} is at work.", as_json=as_json)

    try:
        with told_to_end() as stop:
            if wait_for_database(engine, stop, check=_check):
                running.run(stop, on_ready=say_ready)
    finally:
        engine.dispose()


def _check(engine: Engine) -> None:
    db.check_durability(engine)
    db.check_schema(engine)

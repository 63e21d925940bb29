"""What `fleet ingest` and `fleet worker` have in common as processes: settings, database, SIGTERM, the ready line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.cli.answers import answer
from fleet_server.cli.stopping import told_to_end
from fleet_server.logs import set_up_logging
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
    title: str, make: MakeService, *, data_dir: str | None, name: str | None, as_json: bool
) -> None:
    """Run until SIGTERM or SIGINT; says once that it is ready.

    Raises:
        SchemaOutdated: the database is not this version's.
        NotDurable: it might forget what it confirmed.
    """
    settings = load_settings(data_dir=data_dir)
    set_up_logging(settings)
    clock.use_clock(settings.clock)
    engine = db.make_engine(settings.database_url)
    db.check_durability(engine)
    db.check_schema(engine)
    service = make(settings, db.session_factory(engine), name=name)
    with told_to_end() as stop:
        service.run(
            stop,
            on_ready=lambda: answer({"event": "ready"}, f"{title} is at work.", as_json=as_json),
        )
    engine.dispose()

"""`fleet worker`: send receipts and desired states to the nodes, and do what is due by schedule."""

from __future__ import annotations

import threading
from collections.abc import Callable

import click
from sqlalchemy.orm import Session, sessionmaker

from fleet_server.cli.answers import ProcessName, data_option, json_option
from fleet_server.cli.service_process import run_service
from fleet_server.settings import Settings
from fleet_server.wire.topics import SERVICE_CONTROL


class _Worker:
    """The publisher, and beside it the scheduled jobs: neither waits for the other."""

    def __init__(
        self, settings: Settings, sessions: sessionmaker[Session], *, name: str | None
    ) -> None:
        from fleet_server.mqtt.publisher import Publisher

        self._settings, self._sessions = settings, sessions
        self._publisher = Publisher(settings, sessions, name=name)

    def run(self, stop: threading.Event, *, on_ready: Callable[[], None]) -> None:
        from fleet_server.jobs.schedule import running_jobs

        with running_jobs(self._sessions, self._settings):
            self._publisher.run(stop, on_ready=on_ready)


@click.command()
@data_option
@click.option(
    "--name", type=ProcessName(), help="For several workers on one mosquitto: each its own name."
)
@json_option
def worker(data_dir: str | None, name: str | None, as_json: bool) -> None:
    """Send receipts and desired states to the nodes and do what is due by schedule (alerts, mails), until SIGTERM.

    Keeps the revocation list from running out.

    Example: fleet worker --data /var/lib/stadtsensor
    """
    run_service(
        "worker", _Worker, service=SERVICE_CONTROL, data_dir=data_dir, name=name, as_json=as_json
    )

"""`fleet ingest`: store what the nodes publish."""

from __future__ import annotations

import gc

import click

from fleet_server.cli.answers import data_option, json_option
from fleet_server.cli.service_process import run_service

_OBJECTS_BETWEEN_COLLECTIONS = 20_000


@click.command()
@data_option
@click.option(
    "--name",
    help="For several ingest processes on one mosquitto: each its own name, and they share the work.",
)
@json_option
def ingest(data_dir: str | None, name: str | None, as_json: bool) -> None:
    """Store what the nodes publish, until SIGTERM.

    Each message is acknowledged to the broker after it is on disk; broker and database may come and go.

    Example: fleet ingest --data /var/lib/stadtsensor
    """
    from fleet_server.mqtt.consumer import Consumer

    # What the start has made stays; searching it for garbage again and again would cost a tenth of the work.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    run_service("ingest", Consumer, data_dir=data_dir, name=name, as_json=as_json)

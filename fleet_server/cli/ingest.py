"""`fleet ingest`: store what the nodes publish."""

from __future__ import annotations

import gc
import sys

import click

from fleet_server.cli.answers import ProcessName, data_option, json_option
from fleet_server.cli.service_process import run_service
from fleet_server.wire.topics import SERVICE_INGEST

_OBJECTS_BETWEEN_COLLECTIONS = 100_000
# The thread that stores lets go of Python's lock at every statement, and gets it back from the one that receives only after this
# time: with Python's own 5 ms a batch waited as long as it worked.
_SWITCH_INTERVAL_S = 0.0005


@click.command()
@data_option
@click.option(
    "--name",
    type=ProcessName(),
    help="For several ingest processes on one mosquitto: each its own name, and they share the work.",
)
@json_option
def ingest(data_dir: str | None, name: str | None, as_json: bool) -> None:
    """Store what the nodes publish, until SIGTERM.

    Each message is acknowledged to the broker after it is on disk; broker and database may come and go, and may come later.

    Example: fleet ingest --data /var/lib/stadtsensor
    """
    from fleet_server.mqtt.consumer import Consumer

    # What the start has made stays; searching it for garbage again and again would cost a tenth of the work.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    run_service(
        "ingest", Consumer, service=SERVICE_INGEST, data_dir=data_dir, name=name, as_json=as_json
    )

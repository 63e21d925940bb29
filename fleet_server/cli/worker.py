"""`fleet worker`: send receipts and desired states to the nodes."""

from __future__ import annotations

import click

from fleet_server.cli.answers import ProcessName, data_option, json_option
from fleet_server.cli.service_process import run_service
from fleet_server.wire.topics import SERVICE_CONTROL


@click.command()
@data_option
@click.option(
    "--name", type=ProcessName(), help="For several workers on one mosquitto: each its own name."
)
@json_option
def worker(data_dir: str | None, name: str | None, as_json: bool) -> None:
    """Send receipts and desired states to the nodes, until SIGTERM; keeps the revocation list from running out.

    Example: fleet worker --data /var/lib/stadtsensor
    """
    from fleet_server.mqtt.publisher import Publisher

    run_service(
        "worker", Publisher, service=SERVICE_CONTROL, data_dir=data_dir, name=name, as_json=as_json
    )

"""`fleet worker`: send receipts and desired states to the nodes."""

from __future__ import annotations

import click

from fleet_server.cli.answers import data_option, json_option
from fleet_server.cli.service_process import run_service


@click.command()
@data_option
@click.option("--name", help="For several workers on one mosquitto: each its own name.")
@json_option
def worker(data_dir: str | None, name: str | None, as_json: bool) -> None:
    """Send receipts and desired states to the nodes, until SIGTERM; keeps the revocation list from running out.

    Example: fleet worker --data /var/lib/stadtsensor
    """
    from fleet_server.mqtt.publisher import Publisher

    run_service("worker", Publisher, data_dir=data_dir, name=name, as_json=as_json)

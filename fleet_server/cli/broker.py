"""`fleet broker`: the embedded broker, mosquitto's configuration, and putting a broker's memory right."""

from __future__ import annotations

import asyncio

import click

from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.logs import set_up_logging
from fleet_server.settings import load_settings


@click.group()
def broker() -> None:
    """The message broker between nodes and server.

    Example: fleet broker embedded --node-port 8883 --service-port 8884
    """


@broker.command()
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--node-port", type=click.IntRange(0, 65535), default=8883, show_default=True)
@click.option("--service-port", type=click.IntRange(0, 65535), default=8884, show_default=True)
@json_option
def embedded(
    data_dir: str | None, host: str, node_port: int, service_port: int, as_json: bool
) -> None:
    """Run the embedded broker (demo and tests, this machine only) until SIGTERM.

    Port 0 takes any free one. What it refuses is counted in DATA/broker/status.json.

    Example: fleet broker embedded --node-port 0 --service-port 0 --json
    """
    # amqtt takes half a second to import, which the other commands need not wait for.
    from fleet_server.broker import embedded as embedded_broker

    settings = load_settings(data_dir=data_dir)
    set_up_logging(settings)

    def say_ready(running: embedded_broker.EmbeddedBroker) -> None:
        ports = {f"{name.value[:-1]}_port": port for name, port in running.ports.items()}
        sentence = f"The embedded broker listens on {host}: nodes {ports['node_port']}, services {ports['service_port']}."
        answer({"event": "ready", **ports}, sentence, as_json=as_json)

    asyncio.run(
        embedded_broker.run(
            settings, host=host, node_port=node_port, service_port=service_port, on_ready=say_ready
        )
    )

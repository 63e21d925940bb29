"""`fleet broker`: the embedded broker, mosquitto's configuration, and putting a broker's memory right."""

from __future__ import annotations

import asyncio
import shlex
from functools import partial
from pathlib import Path

import click

from fleet_server.cli.answers import Host, answer, data_option, json_option
from fleet_server.cli.stopping import told_to_end
from fleet_server.errors import Unavailable
from fleet_server.logs import set_up_logging
from fleet_server.settings import SettingWrong, load_settings


@click.group()
def broker() -> None:
    """The message broker between nodes and server.

    What the broker refuses is counted in DATA/broker/status.json; /metrics and the page about quarantine show it.

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

    Port 0 takes any free one.

    Example: fleet broker embedded --node-port 0 --service-port 0 --json
    """
    # amqtt takes half a second to import, which the other commands need not wait for.
    from fleet_server.broker import embedded as embedded_broker
    from fleet_server.services.authority import check_pair, check_public_files

    settings = load_settings(data_dir=data_dir)
    check_public_files(settings.ca_dir)
    check_pair(settings.ca_dir, "broker")
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


@broker.command()
@data_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files. [default: DATA/mosquitto]",
)
@click.option(
    "--host",
    type=Host(),
    default="127.0.0.1",
    show_default=True,
    help="Name or address of the broker as nodes and services know it; a loopback one keeps it on this machine.",
)
@click.option("--node-port", type=click.IntRange(1, 65535), default=8883, show_default=True)
@click.option("--service-port", type=click.IntRange(1, 65535), default=8884, show_default=True)
@click.option(
    "--public-port",
    type=click.IntRange(1, 65535),
    help="Public reading of v1.1/#, at a broker of its own: writes public.conf, too.",
)
@click.option(
    "--service-bind",
    type=Host(),
    help="Address of the services' listener. [default: as the nodes' listener]",
)
@click.option(
    "--user",
    help="System user of mosquitto when root starts it. [default: mosquitto if it can reach the files]",
)
@json_option
def config(
    data_dir: str | None,
    out: Path | None,
    host: str,
    node_port: int,
    service_port: int,
    public_port: int | None,
    service_bind: str | None,
    user: str | None,
    as_json: bool,
) -> None:
    """Write the configuration of a mosquitto 2.0 and say how to start and use it.

    Example: fleet broker config --host broker.example.org --out /etc/mosquitto/stadtsensor
    """
    from fleet_server.broker import mosquitto
    from fleet_server.services.authority import existing_files

    settings = load_settings(data_dir=data_dir)
    plan = mosquitto.MosquittoPlan(
        folder=out or settings.data_dir / "mosquitto",
        host=host,
        node_port=node_port,
        service_port=service_port,
        public_port=public_port,
        service_bind=service_bind,
        user=user,
    )
    files = existing_files(settings.ca_dir)
    path = mosquitto.write_configuration(plan, files, prefix=settings.topic_prefix)
    url = mosquitto.broker_url(plan)
    start = shlex.join(["fleet", "broker", "mosquitto", "--configuration", str(path)])
    sentence = f"Set, for all processes of the server:\n  FLEET_BROKER_URL='{url}'\nand start the broker with:\n  {start}"
    fields = {"configuration": str(path), "start": start, "broker_url": url}
    if public_port:
        public = path.with_name(mosquitto.PUBLIC_CONFIGURATION_FILE)
        fields["start_public"] = shlex.join(["mosquitto", "-c", str(public)])
        sentence += (
            f"\nand the public's broker, which needs the first, with:\n  {fields['start_public']}"
        )
    answer(fields, sentence, as_json=as_json)


@broker.command(name="mosquitto")
@data_option
@click.option(
    "--configuration",
    type=click.Path(dir_okay=False, path_type=Path),
    help="As `fleet broker config` wrote it. [default: DATA/mosquitto/mosquitto.conf]",
)
@json_option
def run_mosquitto(data_dir: str | None, configuration: Path | None, as_json: bool) -> None:
    """Run mosquitto until SIGTERM: count what it refuses, let revocations take effect at once.

    A revoked node's session ends within a second, without SIGHUP and `fleet broker kick`. FLEET_BROKER_URL must lead to this
    mosquitto, and the authority's folder must be here.

    Example: fleet broker mosquitto --configuration /etc/mosquitto/stadtsensor/mosquitto.conf
    """
    from fleet_server.broker import mosquitto, mosquitto_process
    from fleet_server.broker.access import ListenerName
    from fleet_server.broker.refusals import Tally
    from fleet_server.mqtt.kicking import end_session
    from fleet_server.services.authority import check_pair, check_public_files, existing_files

    settings = load_settings(data_dir=data_dir)
    check_public_files(settings.ca_dir)
    check_pair(settings.ca_dir, "broker")
    set_up_logging(settings)
    path = configuration or settings.data_dir / "mosquitto" / mosquitto.CONFIGURATION_FILE
    doors = mosquitto.doors_of(path)
    ports = {f"{door.value[:-1]}_port": port for port, door in doors.items()}
    shown = ", ".join(f"{door.value} {port}" for port, door in doors.items())
    if settings.broker_is_embedded or doors.get(settings.service_port) is not ListenerName.SERVICES:
        raise SettingWrong(
            f"FLEET_BROKER_URL must lead to this mosquitto, whose doors are {shown}; `fleet broker config` says how."
        )
    process = mosquitto_process.MosquittoProcess(
        path,
        existing_files(settings.ca_dir),
        doors=doors,
        end_session=partial(end_session, settings),
        tally=Tally(settings.broker_status_path),
        prefix=settings.topic_prefix,
    )
    with told_to_end() as stop:
        mosquitto_process.run(
            process,
            stop,
            on_ready=lambda: answer(
                {"event": "ready", **ports}, f"mosquitto listens: {shown}.", as_json=as_json
            ),
        )


@broker.command()
@data_option
@json_option
def resync(data_dir: str | None, as_json: bool) -> None:
    """Let the worker publish every receipt and desired state again.

    It does so by itself when the broker has lost its memory; this is for when in doubt.

    Example: fleet broker resync
    """
    from fleet_server import clock
    from fleet_server.cli.database import open_session
    from fleet_server.services import publishing

    with open_session(data_dir) as session:
        nodes = publishing.mark_everything_changed(session, now=clock.now())
    answer({"nodes": nodes}, f"The states of {nodes} nodes will be sent again.", as_json=as_json)


@broker.command()
@click.option("--host", type=Host(), required=True, help="Where nodes shall find the broker.")
@click.option("--port", type=click.IntRange(1, 65535), default=8883, show_default=True)
@click.option("--server-name", type=Host(), help="The name in its certificate. [default: --host]")
@click.option("--look", is_flag=True, help="Tell nobody; only show how far the nodes are.")
@data_option
@json_option
def move(
    *,
    host: str,
    port: int,
    server_name: str | None,
    look: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Tell every node that the broker is found at another address, and show who has followed. Safe to repeat.

    Let the broker answer at both addresses until all have followed: a node that sleeps looks for it at the old one.

    Example: fleet broker move --host broker2.example.org
    """
    from fleet_server.cli.broker_move import move_broker

    move_broker(host, port, server_name, look=look, data_dir=data_dir, as_json=as_json)


@broker.command()
@click.argument("node_id")
@data_option
@json_option
def kick(node_id: str, data_dir: str | None, as_json: bool) -> None:
    """End a node's live session on a mosquitto that `fleet broker mosquitto` does not look after.

    First `fleet node revoke`, then SIGHUP to mosquitto so that it reads the list, then this.

    Example: fleet broker kick n-3f9a1c
    """
    from fleet_server.mqtt.kicking import end_session

    settings = load_settings(data_dir=data_dir)
    if settings.broker_is_embedded:
        raise Unavailable("The embedded broker ends revoked sessions by itself, within a second.")
    end_session(settings, node_id)
    answer({"node_id": node_id}, f"The session of {node_id} was ended.", as_json=as_json)

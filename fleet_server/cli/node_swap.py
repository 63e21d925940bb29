"""`fleet node swap-sensor` and `replace`: another probe in a slot, another node at a site; history is kept."""

from __future__ import annotations

from datetime import datetime

import click

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.moments import EXAMPLE_TIME, UtcTime, not_in_future
from fleet_server.cli.named_nodes import find_node, moment_text
from fleet_server.services import deploying

_at_option = click.option(
    "--at", type=UtcTime(), help=f"When that was, for example {EXAMPLE_TIME}. [default: now]"
)


@click.command(name="swap-sensor")
@click.argument("node_id_or_label")
@click.argument("slot")
@click.option("--serial", required=True, help="Serial number of the probe that is there now.")
@_at_option
@data_option
@json_option
def swap_sensor(
    *,
    node_id_or_label: str,
    slot: str,
    serial: str,
    at: datetime | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Another probe is in a slot. Readings go on in the same datastreams; the old probe keeps its calibrations.

    Example: fleet node swap-sensor tree-01 w30 --serial A1240
    """
    with open_session(data_dir) as session:
        now = clock.now()
        found = find_node(session, node_id_or_label)
        when = not_in_future(at or now, now=now, option="--at")
        deploying.swap_sensor(session, found.node_id, slot, serial=serial, at=when, now=now)
    since = moment_text(when)
    fields = {"node_id": found.node_id, "slot": slot, "serial": serial, "since": since}
    sentence = (
        f"Sensor {serial} is in slot {slot} of {found.label} ({found.node_id}) since {since}."
    )
    answer(fields, sentence, as_json=as_json)


@click.command()
@click.argument("old_node")
@click.argument("new_node")
@click.option(
    "--new-probes",
    is_flag=True,
    help="The new node brings its own probes. [default: those in the ground stay]",
)
@_at_option
@data_option
@json_option
def replace(
    *,
    old_node: str,
    new_node: str,
    new_probes: bool,
    at: datetime | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """NEW_NODE stands where OLD_NODE stood and feeds the same datastreams; the old one is free.

    Example: fleet node replace tree-01 tree-21
    """
    with open_session(data_dir) as session:
        now = clock.now()
        old, new = find_node(session, old_node), find_node(session, new_node)
        when = not_in_future(at or now, now=now, option="--at")
        deploying.replace_node(
            session, old.node_id, new.node_id, at=when, now=now, keeps_probes=not new_probes
        )
    since = moment_text(when)
    fields = {"old_node_id": old.node_id, "new_node_id": new.node_id, "since": since}
    sentence = f"{new.label} ({new.node_id}) stands where {old.label} ({old.node_id}) stood, since {since}."
    answer(fields, sentence, as_json=as_json)

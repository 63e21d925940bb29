"""`provision node upload`: enrolment packets to the fleet, and its answers back into them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from provisioning.board_options import json_option, server_ca_option, server_option, token_option
from provisioning.enrolment import FleetAddress, check_fleet
from provisioning.errors import UsedWrongly
from provisioning.packets import read_packet, upload_packet, write_packet


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, metavar="PACKET…", type=click.Path(path_type=Path)
)
@server_option
@server_ca_option
@token_option
@json_option
def upload(
    paths: tuple[Path, ...],
    server: str | None,
    server_ca: Path | None,
    token: str | None,
    as_json: bool,
) -> None:
    """Have the fleet answer enrolment packets that a bench without network has made. Needs no board.

    Packets that are answered already are passed over; safe to repeat.

    Example: provision node upload tree-01.packet tree-02.packet --server https://fleet.example:8443
    --server-ca root.crt --token T
    """
    fleet, token = fleet_from(server, server_ca, token)
    check_fleet(fleet)
    packets = {path: read_packet(path) for path in paths}
    uploaded = {}
    for path, packet in packets.items():
        answered = packet
        if packet.answer is None:
            answered = upload_packet(packet, fleet, token=token)
            write_packet(path, answered)
        uploaded[packet.label] = (answered.answer or {}).get("node_id")
        if not as_json:
            click.echo(f"{packet.label} will be {uploaded[packet.label]}.")
    if as_json:
        click.echo(json.dumps({"event": "uploaded", "nodes": uploaded}))
    else:
        click.echo(
            "Take the packets back to the bench and repeat provision node enrol --packet there."
        )


def fleet_from(
    server: str | None, server_ca: Path | None, token: str | None
) -> tuple[FleetAddress, str]:
    """The fleet to ask, and the token to ask with. Raises UsedWrongly: one of the three is missing."""
    if server is None or server_ca is None or token is None:
        raise UsedWrongly(
            "Give --server, --server-ca and --token; without network to the fleet, give --packet FILE instead."
        )
    return FleetAddress(server, server_ca), token

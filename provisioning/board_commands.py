"""`provision node read` and `wipe`: what is on a board, and taking it off."""

from __future__ import annotations

import json
from typing import Any

import click

from provisioning.board_options import board_option, json_option
from provisioning.board_reading import BoardReading, read_board
from provisioning.boards import VIRTUAL, open_board, resolve_address
from provisioning.errors import UsedWrongly
from provisioning.esptool_process import erase_chip
from provisioning.serial_board import NoMicroPython
from provisioning.wiping import check_may_wipe, wipe_board


@click.command()
@board_option
@json_option
def read(address: str | None, as_json: bool) -> None:
    """Tell what a board is: chip, firmware, identity, broker, Wi-Fi names, spool. Nothing on it is changed.

    Keys and passwords are never read off a board.

    Example: provision node read --board /dev/ttyUSB0
    """
    with open_board(address) as board:
        reading = read_board(board)
    click.echo(json.dumps(as_plain(reading)) if as_json else _in_words(reading))


@click.command()
@board_option
@click.option("--node-id", help="The node that you mean; wanted for a board that is one.")
@click.option(
    "--drop-readings", is_flag=True, help="Also when packs would be lost that the fleet has not."
)
@click.option(
    "--everything",
    is_flag=True,
    help="Erase the whole chip, MicroPython too; the way out for a board that does not answer.",
)
@json_option
def wipe(
    address: str | None,
    node_id: str | None,
    drop_readings: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """Take identity, configuration and readings off a board; the firmware stays, for the next node.

    The fleet does not know of it: revoke the node there too when it is not to come back.

    Example: provision node wipe --board /dev/ttyUSB0 --node-id n-3f9a1c
    """
    address = resolve_address(address)
    if everything and address.startswith(VIRTUAL):
        raise UsedWrongly("A virtual board in a folder is erased by removing the folder.")
    was = None
    try:
        with open_board(address) as board:
            was = read_board(board)
            check_may_wipe(was, node_id=node_id, drops_readings=drop_readings)
            if not everything:
                wipe_board(board)
    except NoMicroPython:
        if not everything:
            raise
    if everything:
        erase_chip(address)
    if as_json:
        click.echo(json.dumps({"event": "wiped", "node_id": was and was.node_id}))
    elif was is not None and was.node_id is not None:
        click.echo(f"The board was {was.label or 'a node'} ({was.node_id}) and is nobody now.")
    else:
        click.echo("The board was nobody, and is so now.")


def as_plain(reading: BoardReading) -> dict[str, Any]:
    """For JSON."""
    expires_at, spool = reading.certificate_expires_at, reading.spool
    return {
        "mac": reading.mac,
        "micropython": reading.micropython,
        "firmware": reading.firmware,
        "node_id": reading.node_id,
        "label": reading.label,
        "model": reading.model,
        "certificate_serial": reading.certificate_serial,
        "certificate_expires_at": expires_at.isoformat() if expires_at else None,
        "broker": reading.broker,
        "wifi": reading.wifi,
        "spool": vars(spool) if spool else None,
    }


def _in_words(reading: BoardReading) -> str:
    firmware, spool = reading.firmware or {}, reading.spool
    expires_at = reading.certificate_expires_at
    node = f"{reading.label or 'without label'}, {reading.node_id}" if reading.node_id else "nobody"
    rows = {
        "node": node,
        "model": reading.model or "none",
        "board": reading.mac,
        "MicroPython": reading.micropython,
        "firmware": str(firmware.get("version", "none")),
        "certificate": f"{reading.certificate_serial}, until {expires_at:%Y-%m-%d}"
        if expires_at
        else "none",
        "broker": reading.broker or "none",
        "Wi-Fi": ", ".join(reading.wifi) or "none",
        "spool": f"{spool.newest} packs written, {spool.waiting} without receipt"
        if spool
        else "none",
    }
    return "\n".join(f"{name + ':':13} {value}" for name, value in rows.items())

"""`provision node …`: one board at the bench."""

from __future__ import annotations

import json
import string
import time
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hardware.catalogue import node_model_ids
from provisioning.board_options import (
    board_option,
    image_option,
    image_sha256_option,
    json_option,
    server_ca_option,
    server_option,
    token_option,
    wifi_file_option,
)
from provisioning.boards import VIRTUAL, BenchBoard, open_board, resolve_address
from provisioning.enrolment import (
    Enrolment,
    check_label,
    check_request,
    enrol_node,
    present_enrolment,
)
from provisioning.errors import BenchError, UsedWrongly
from provisioning.firmware_bundle import build_bundle
from provisioning.flashing import flash_firmware
from provisioning.micropython_image import check_pin, load_image
from provisioning.packet_command import fleet_from
from provisioning.packets import finish_with_packet, make_packet, read_packet, write_packet
from provisioning.preparing import prepare_chip
from provisioning.progress import tell

LAST_UTC_S = 2**32 - 1
"""A node counts its time in 32 bits."""

MAX_NETWORKS = 8
"""More would not fit into a blob of the node's memory, and would take longer to try than a node is awake."""

# IEEE 802.11: a name has at most 32 bytes, a passphrase 8 to 63, a key 64 digits. The radio cuts off what is longer.
_SSID_BYTES = 32
_PASSWORD_BYTES = (8, 63)
_KEY_DIGITS = 64
_CONTROL = "Cc"  # Unicode's category


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def node() -> None:
    """One board at the bench: flash, enrol, test, label, read and wipe it."""


@node.command()
@board_option
@image_option
@image_sha256_option
@click.option(
    "--build-date",
    "built_at_utc_s",
    type=click.IntRange(0, LAST_UTC_S),
    metavar="UTC_S",
    help="Floor of the node's clock, seconds since 1970; now when not given.",
)
@json_option
def flash(
    address: str | None,
    image_source: str | None,
    image_sha256: str | None,
    built_at_utc_s: int | None,
    as_json: bool,
) -> None:
    """Compile the firmware and write it to a board, read it back and start it.

    Identity and readings on the board stay; MicroPython is written only to a board that is no node yet. Safe to repeat
    whatever happened: what is there already is not written again.

    Example: provision node flash --board /dev/ttyUSB0 --image ESP32_GENERIC-v1.27.0.bin --image-sha256 9b1c…
    """
    address = resolve_address(address)
    sha256 = check_pin(image_source, image_sha256)
    if address.startswith(VIRTUAL) and image_source:
        raise UsedWrongly("A virtual board in a folder has its MicroPython; leave --image out.")
    image = load_image(image_source, sha256) if image_source else None
    bundle = build_bundle(
        built_at_utc_s=int(time.time()) if built_at_utc_s is None else built_at_utc_s
    )
    tell("The chip …" if image is None else "The chip and MicroPython …")
    chip = prepare_chip(address, image)
    with open_board(address) as board:
        tell(f"Firmware {bundle.version} …")
        written = flash_firmware(board, bundle)
    if as_json:
        content = {
            "event": "flashed",
            "version": bundle.version,
            "sha256": bundle.sha256,
            "slot_bytes": bundle.slot_size_bytes,
            "files_written": written,
            "chip": chip and chip.title,
            "mac": chip and chip.mac,
        }
        click.echo(json.dumps(content))
    else:
        click.echo(f"Firmware {bundle.version} is on the board ({bundle.slot_size_bytes} bytes).")


@node.command()
@board_option
@server_option
@server_ca_option
@token_option
@click.option("--label", required=True, help="What people call the node, for example tree-01.")
@click.option(
    "--model", required=True, type=click.Choice(node_model_ids()), help="What it is built as."
)
@wifi_file_option
@click.option(
    "--packet",
    "packet_path",
    type=click.Path(path_type=Path),
    help="Without network to the fleet: write the request to this file, or finish with the answer that is in it.",
)
@click.option("--again", is_flag=True, help="Draw a new identity even when the board has one.")
@json_option
def enrol(
    address: str | None,
    server: str | None,
    server_ca: Path | None,
    token: str | None,
    label: str,
    model: str,
    wifi_file: Path | None,
    packet_path: Path | None,
    again: bool,
    as_json: bool,
) -> None:
    """Give a flashed board its identity and configuration.

    Safe to repeat: a board that is enrolled keeps its identity unless --again is given, and one whose enrolment was
    interrupted is enrolled from the start.

    Example: provision node enrol --board virtual:bench/tree-01 --server https://fleet.example:8443
    --server-ca root.crt --token T --label tree-01 --model tree-3
    """
    address = resolve_address(address)
    if packet_path is None:
        fleet, token = fleet_from(server, server_ca, token)
        check_request(fleet, label=label)
    elif server or again:
        raise UsedWrongly("--packet asks no server and goes with neither --server nor --again.")
    check_label(label)
    told = networks_for(address, wifi_file)
    with open_board(address) as board:
        tell("Identity and configuration …")
        wifi = board.known_wifi if told is None else told
        if packet_path is not None:
            enrolment = _enrol_by_packet(board, packet_path, label=label, model_id=model, wifi=wifi)
        else:
            enrolment = enrol_node(
                board, fleet, label=label, model_id=model, token=token or "", wifi=wifi, again=again
            )
    if enrolment is None:
        _say_packet(packet_path, label, as_json=as_json)
    elif as_json:
        content = {"event": "enrolled", "label": label, "node_id": enrolment.node_id}
        click.echo(json.dumps({**content, "new": enrolment.is_new}))
    elif enrolment.is_new:
        click.echo(f"{label} is enrolled as {enrolment.node_id}.")
    else:
        click.echo(f"{label} was enrolled before as {enrolment.node_id}; nothing was changed.")


def _enrol_by_packet(
    board: BenchBoard, path: Path, *, label: str, model_id: str, wifi: Sequence[tuple[str, str]]
) -> Enrolment | None:
    """Enrolled with the packet's answer; None when a packet was written instead, because there was none."""
    present = present_enrolment(board, label=label, model_id=model_id)
    if present is not None:
        return present
    if not path.exists():
        write_packet(path, make_packet(board, label=label, model_id=model_id))
        return None
    packet = read_packet(path)
    if (packet.label, packet.model) != (label, model_id):
        raise BenchError(
            f"{path} is the packet of {packet.label} ({packet.model}); name another file for {label}."
        )
    return finish_with_packet(board, packet, wifi=wifi)


def _say_packet(path: Path | None, label: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"event": "packet", "label": label, "file": str(path)}))
    else:
        click.echo(
            f"Wrote {path}; have the fleet answer it with provision node upload, then repeat this command."
        )


def networks_for(address: str, wifi_file: Path | None) -> list[tuple[str, str]] | None:
    """The Wi-Fi networks that a board at this address is told; None for a virtual one, which knows one.

    Raises:
        UsedWrongly: a board on a cable needs the file, or the file cannot be used.
    """
    if wifi_file is not None:
        return read_wifi_file(wifi_file)
    if not address.startswith(VIRTUAL):
        raise UsedWrongly(
            "A board on a cable must be told its Wi-Fi; give --wifi-file with [[network]] tables, ssid and password each."
        )
    return None


def read_wifi_file(path: Path) -> list[tuple[str, str]]:
    """Network names and passwords, in the file's order.

    Every character that a network can have is kept as it is. What a radio would cut off or refuse is refused here, because on
    the node nobody would see why: names of more than 32 bytes, passwords that are none.

    Raises:
        UsedWrongly: the file cannot be read, or an entry is not a name with a password.
    """
    try:
        # With or without the mark that some editors put before the first character.
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        pairs = [(network["ssid"], network["password"]) for network in content["network"]]
    except OSError as error:
        raise UsedWrongly(f"The Wi-Fi file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsedWrongly(f"{path} is no text in UTF-8; save it in that encoding.") from error
    except (ValueError, KeyError, TypeError) as error:
        # The cause is not shown: TOML errors quote the line, and the line may be a password.
        raise UsedWrongly(f"{path} must hold [[network]] tables with ssid and password.") from error
    if not 1 <= len(pairs) <= MAX_NETWORKS:
        raise UsedWrongly(f"{path} holds {len(pairs)} networks; a node takes 1 to {MAX_NETWORKS}.")
    _refuse_unknown_keys(path, content)
    for place, (name, password) in enumerate(pairs, start=1):
        fault = _fault_of_network(name, password)
        if fault is None and pairs.index((name, password)) < place - 1:
            fault = "it stands there already; remove it once."
        if fault is not None:
            raise UsedWrongly(f"{path}, network {place}: {fault}")
    return pairs


def _refuse_unknown_keys(path: Path, content: Mapping[str, Any]) -> None:
    """A misspelt key is not passed over; it is not quoted either, since a forgotten quotation mark can make a password one."""
    if content.keys() != {"network"}:
        raise UsedWrongly(f"{path} holds more than [[network]] tables; remove the rest.")
    for place, network in enumerate(content["network"], start=1):
        if network.keys() != {"ssid", "password"}:
            raise UsedWrongly(
                f"{path}, network {place}: it holds more than ssid and password; remove the rest."
            )


def _fault_of_network(name: object, password: object) -> str | None:
    """What is wrong with a network, without quoting it; None when nothing is."""
    if not isinstance(name, str) or not isinstance(password, str):
        return "ssid and password must be texts; write them in quotes."
    if any(unicodedata.category(character) == _CONTROL for character in name + password):
        return "ssid or password holds a control character, which no network has; write it again."
    size = len(name.encode())
    if not 1 <= size <= _SSID_BYTES:
        return f"the ssid has {size} bytes, a network's name has 1 to {_SSID_BYTES} (an umlaut counts two, an emoji four)."
    size = len(password.encode())
    is_key = size == _KEY_DIGITS and all(digit in string.hexdigits for digit in password)
    if size and not is_key and not _PASSWORD_BYTES[0] <= size <= _PASSWORD_BYTES[1]:
        return (
            f"the password has {size} bytes, a network's password has 8 to 63 (an umlaut counts two, an emoji four),"
            " or 64 hexadecimal digits, or none where the network is open."
        )
    return None

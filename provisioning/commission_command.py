"""`provision node commission`, everything for one node or for a list of them in a row, and `provision node label`."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from hardware.catalogue import load_node_model, node_model_ids
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
from provisioning.board_reading import read_board
from provisioning.boards import VIRTUAL, open_board, resolve_address
from provisioning.commissioning import Bench, commission, write_papers
from provisioning.enrolment import check_fleet, check_label
from provisioning.errors import BenchError, UsedWrongly
from provisioning.firmware_bundle import build_bundle
from provisioning.micropython_image import check_pin, load_image
from provisioning.node_commands import networks_for
from provisioning.packet_command import fleet_from
from provisioning.progress import tell
from provisioning.protocol import verdict
from provisioning.records import Record, Records, read_record

_SKIP, _QUIT = "s", "q"
_NODE_KEYS = {"label", "model", "board", "serials"}


@dataclass(frozen=True)
class Planned:
    """One node to be made; its board's address, when it has one of its own."""

    label: str
    model: str
    address: str | None = None
    serials: Mapping[str, str] = field(default_factory=dict)


@click.command("commission")
@board_option
@server_option
@server_ca_option
@token_option
@wifi_file_option
@click.option("--label", help="What people call the node, for example tree-01.")
@click.option("--model", type=click.Choice(node_model_ids()), help="What it is built as.")
@click.option(
    "--serial",
    "serials",
    multiple=True,
    metavar="SLOT=NUMBER",
    help="Serial number of the probe in a slot.",
)
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(path_type=Path),
    help="Instead of --label, --model and --serial: TOML with a [[node]] table of label, model and serials for each.",
)
@image_option
@image_sha256_option
@click.option(
    "--records",
    "records_path",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("bench"),
    show_default=True,
    help="Where each node has a folder with its record, sticker and protocol.",
)
@click.option("--tester", default="", help="Who stands at the bench; stands in the protocol.")
@click.option("--pages", "pages_url", help="Where the fleet's pages are, for the QR code.")
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(0, 3600),
    default=180,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the first reading; 0: not at all, and the node is not accepted yet.",
)
@json_option
def commission_nodes(
    *,
    address: str | None,
    server: str | None,
    server_ca: Path | None,
    token: str | None,
    wifi_file: Path | None,
    label: str | None,
    model: str | None,
    serials: tuple[str, ...],
    plan_path: Path | None,
    image_source: str | None,
    image_sha256: str | None,
    records_path: Path,
    tester: str,
    pages_url: str | None,
    wait_s: int,
    as_json: bool,
) -> None:
    """Everything from a bare board to an accepted node: flash, enrol, test, wait for its first reading, print the papers.

    With --plan many in a row at one port: it asks for the next board, and those that are accepted are passed over. Safe to
    repeat at any time; it goes on where it was. Ends with 1 when a node is not accepted.

    Example: provision node commission --plan nodes.toml --server https://fleet.example:8443 --server-ca root.crt
    --token T --wifi-file wifi.toml
    """
    planned = _planned(plan_path, label=label, model=model, serials=serials)
    fleet, token = fleet_from(server, server_ca, token)
    check_fleet(fleet)
    pin = check_pin(image_source, image_sha256) or None
    for one in planned:
        if (one.address or address or "").startswith(VIRTUAL) and pin:
            raise UsedWrongly("A virtual board in a folder has its MicroPython; leave --image out.")
    records = Records(records_path)
    todo = [one for one in planned if not _is_accepted(records, one)]
    image = load_image(image_source, pin) if image_source and pin else None
    bundle = build_bundle(built_at_utc_s=int(time.time()))
    outcomes: dict[str, Record | str | None] = {
        one.label: records.load(one.label) for one in planned if one not in todo
    }
    is_row = plan_path is not None and len(planned) > 1
    # One node ends with its own sentence; in a row the others go on.
    for number, one in enumerate(todo):
        if (
            is_row
            and number
            and one.address is None
            and not _has_next_board(one, sys.stdin.readline)
        ):
            continue
        record = _record(records, one, tester)
        try:
            at = resolve_address(one.address or address)
            bench = Bench(
                fleet=fleet,
                token=token,
                wifi=networks_for(at, wifi_file),
                records=records,
                bundle=bundle,
                image=image,
                image_sha256=pin,
                wait_s=wait_s,
                pages_url=pages_url,
            )
            outcomes[one.label] = commission(at, record, bench, tell=tell)
        except BenchError as error:
            if not is_row:
                raise
            outcomes[one.label] = str(error)
            click.echo(f"{one.label}: {error}", err=True)
    _say(planned, outcomes, records, as_json=as_json)
    if not all(_is_good(outcomes.get(one.label)) for one in planned):
        sys.exit(1)


@click.command("label")
@board_option
@click.option(
    "--record",
    "record_path",
    type=click.Path(path_type=Path),
    help="Instead of a board: the record of a node that was commissioned; its protocol is written anew too.",
)
@click.option(
    "--out",
    "folder",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for label.svg and label.pdf, protocol.html and protocol.pdf.",
)
@click.option("--pages", "pages_url", help="Where the fleet's pages are, for the QR code.")
@json_option
def label_node(
    address: str | None,
    record_path: Path | None,
    folder: Path,
    pages_url: str | None,
    as_json: bool,
) -> None:
    """Write the sticker (62 × 29 mm, with QR code) and the protocol of a node, from its board or from its record.

    Example: provision node label --record bench/tree-01/record.json --out papers --pages https://fleet.example
    """
    if record_path is not None and address is not None:
        raise UsedWrongly("Give --board or --record, not both.")
    record = _record_of_board(address) if record_path is None else read_record(record_path)
    if record is None:
        raise UsedWrongly(f"There is no record {record_path}; commissioning a node makes one.")
    if record.node_id is None:
        raise BenchError(f"{record.label} is not enrolled yet; a sticker wants its node id.")
    files = write_papers(record, folder, pages_url=pages_url)
    if as_json:
        click.echo(json.dumps({"node_id": record.node_id, "files": [str(path) for path in files]}))
    else:
        click.echo("\n".join(f"Wrote {path}." for path in files))


def _record_of_board(address: str | None) -> Record:
    with open_board(address) as board:
        found = read_board(board)
    if found.node_id is None:
        raise BenchError("The board is nobody yet; enrol it first.")
    firmware = found.firmware or {}
    return Record(
        label=found.label or found.node_id,
        model=found.model or "",
        mac=found.mac,
        node_id=found.node_id,
        micropython=found.micropython,
        firmware_version=firmware.get("version"),
        firmware_sha256=firmware.get("sha256"),
        certificate_serial=found.certificate_serial,
        certificate_expires_at=f"{found.certificate_expires_at:%Y-%m-%d}",
        broker=found.broker,
        wifi=found.wifi,
    )


# --- the plan ---


def _planned(
    path: Path | None, *, label: str | None, model: str | None, serials: tuple[str, ...]
) -> list[Planned]:
    if path is None:
        if label is None or model is None:
            raise UsedWrongly("Give --label and --model for one node, or --plan for many.")
        pairs = [one.partition("=") for one in serials]
        if not all(slot and number for slot, _, number in pairs):
            raise UsedWrongly("--serial is SLOT=NUMBER, for example w30=A1234.")
        planned = [Planned(label, model, serials={slot: number for slot, _, number in pairs})]
    elif label or model or serials:
        raise UsedWrongly("--plan says label, model and serials itself; leave those options out.")
    else:
        planned = read_plan(path)
    for one in planned:
        _check_planned(one)
    return planned


def read_plan(path: Path) -> list[Planned]:
    """The nodes of a plan, in the file's order.

    Raises:
        UsedWrongly: it is none, or a node in it cannot be.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["node"]
    except OSError as error:
        raise UsedWrongly(f"The plan {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsedWrongly(f"The plan {path} is no text in UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsedWrongly(f"The plan {path} is no TOML: {error}.") from error
    except KeyError as error:
        raise UsedWrongly(f"The plan {path} has no [[node]] table.") from error
    if not isinstance(tables, list) or not tables:
        raise UsedWrongly(f"The plan {path} has no [[node]] table.")
    planned = [_planned_in(path, number, table) for number, table in enumerate(tables, start=1)]
    labels = [one.label for one in planned]
    used = [serial for one in planned for serial in one.serials.values()]
    for what, names in (("label", labels), ("serial number", used)):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UsedWrongly(f"The plan {path} has the {what} {twice} twice.")
    return planned


def _planned_in(path: Path, number: int, table: Any) -> Planned:
    where = f"The plan {path}, node {number}"
    if not isinstance(table, dict):
        raise UsedWrongly(f"{where} must be a [[node]] table.")
    unknown = table.keys() - _NODE_KEYS
    if unknown:
        raise UsedWrongly(
            f"{where} has {sorted(unknown)[0]!r}; a node has label, model, serials and board."
        )
    serials = table.get("serials", {})
    texts = [table.get("label"), table.get("model"), table.get("board", "")]
    if not isinstance(serials, dict) or not all(
        isinstance(one, str) for one in (*texts, *serials.values())
    ):
        raise UsedWrongly(
            f"{where} must have label and model as texts, and serials as texts by slot."
        )
    return Planned(table["label"], table["model"], table.get("board"), serials)


def _check_planned(one: Planned) -> None:
    check_label(one.label)
    if one.model not in node_model_ids():
        raise UsedWrongly(
            f"{one.label}: {one.model!r} is not one of {', '.join(map(repr, node_model_ids()))}."
        )
    if one.address is not None:
        resolve_address(one.address)
    slots = [slot.id for slot in load_node_model(one.model).slots]
    for slot, number in one.serials.items():
        if slot not in slots:
            raise UsedWrongly(
                f"{one.label}: {one.model} has no slot {slot}; it has {', '.join(slots)}."
            )
        if not number.isprintable() or not number.strip():
            raise UsedWrongly(f"{one.label}: the serial number of slot {slot} is empty.")


# --- the row ---


def _is_accepted(records: Records, one: Planned) -> bool:
    record = records.load(one.label)
    return record is not None and record.accepted_at is not None and record.model == one.model


def _is_good(outcome: Record | str | None) -> bool:
    return isinstance(outcome, Record) and outcome.accepted_at is not None


def _record(records: Records, one: Planned, tester: str) -> Record:
    record = records.load(one.label) or Record(one.label, one.model)
    if record.model != one.model:
        raise UsedWrongly(
            f"{one.label} is a {record.model} by its record; move {records.folder_of(one.label)} away to begin anew as"
            f" {one.model}."
        )
    record.serials = {**record.serials, **one.serials}
    record.tester = tester or record.tester
    return record


def _has_next_board(one: Planned, read_line: Callable[[], str]) -> bool:
    """Ask for the board of this node; False when it is to be passed over.

    Raises:
        BenchError: nobody answers, or wants to end.
    """
    click.echo(
        f"Plug in the board for {one.label} and press Enter ({_SKIP}: pass it over, {_QUIT}: end).",
        err=True,
    )
    answer = read_line()
    if not answer or answer.strip().lower() == _QUIT:
        raise BenchError("Ended; repeat the command to go on with the next board.")
    return answer.strip().lower() != _SKIP


def _say(
    planned: list[Planned],
    outcomes: Mapping[str, Record | str | None],
    records: Records,
    *,
    as_json: bool,
) -> None:
    rows = []
    for one in planned:
        outcome = outcomes.get(one.label)
        record = outcome if isinstance(outcome, Record) else records.load(one.label)
        rows.append(
            {
                "label": one.label,
                "node_id": record and record.node_id,
                "accepted": _is_good(outcome),
                "why": outcome
                if isinstance(outcome, str)
                else verdict(record)
                if record
                else "Passed over.",
                "folder": str(records.folder_of(one.label)),
            }
        )
    if as_json:
        click.echo(json.dumps({"event": "commissioned", "nodes": rows}))
        return
    for row in rows:
        click.echo(f"{row['label']} ({row['node_id'] or 'no id'}): {row['why']} {row['folder']}")

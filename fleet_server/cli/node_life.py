"""`fleet node state` and `register`: where nodes stand in their life, and nodes that are not built yet."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.named_nodes import find_node
from fleet_server.errors import Invalid
from fleet_server.services import node_life, registering
from fleet_server.services.registering import NewNode
from fleet_server.wire.states import NodeState

_LIST_BYTES_MAX = 4 * 1024 * 1024


@click.command()
@click.argument("node_id_or_label")
@click.argument("wanted", type=click.Choice([str(one) for one in NodeState]), metavar="STATE")
@click.option("--reason", default="", help="Why; the audit log keeps it. Most changes want one.")
@data_option
@json_option
def state(
    *, node_id_or_label: str, wanted: str, reason: str, data_dir: str | None, as_json: bool
) -> None:
    """Bring a node into a STATE: maintenance, lost, retired … What is not allowed is refused with what would be.

    Example: fleet node state tree-01 maintenance --reason "new probe in 30 cm"
    """
    with open_session(data_dir) as session:
        found = find_node(session, node_id_or_label)
        before = found.state
        changed = node_life.change_state(
            session, found.node_id, NodeState(wanted), now=clock.now(), reason=reason
        )
        fields = {
            "node_id": changed.node_id,
            "label": changed.label,
            "before": before,
            "state": changed.state,
        }
    text = f"{fields['label']} ({fields['node_id']}) was {before} and is {wanted} now."
    answer(fields, text, as_json=as_json)


@click.command()
@click.argument("label", required=False)
@click.option("--model", help="The node model it shall be built as.")
@click.option("--site", "site_code", default="", help="Code of the site where it shall stand.")
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path),
    help="A list instead of one: columns label, model, and where wanted site and serial_<slot>.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would become of the list.")
@data_option
@json_option
def register(
    *,
    label: str | None,
    model: str | None,
    site_code: str,
    csv_file: Path | None,
    dry_run: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Put nodes on the list before they are built; who enrols one with that LABEL gives it the id that it has here.

    Example: fleet node register tree-07 --model tree-3 --site stadtpark-linde
    """
    if (label is None) == (csv_file is None):
        raise click.UsageError("Give a LABEL with --model, or a list with --csv.")
    if csv_file is not None:
        _register_list(csv_file, dry_run=dry_run, data_dir=data_dir, as_json=as_json)
        return
    if model is None or dry_run:
        raise click.UsageError("A LABEL wants --model; --dry-run is for lists.")
    with open_session(data_dir) as session:
        new = NewNode(str(label), model, site_code)
        node = registering.register_node(session, new, now=clock.now())
        fields = {"node_id": node.node_id, "label": node.label, "model": node.model}
    answer(fields, f"Registered {label} as {fields['node_id']}.", as_json=as_json)


def _register_list(path: Path, *, dry_run: bool, data_dir: str | None, as_json: bool) -> None:
    text = _text_of(path)
    with open_session(data_dir) as session:
        report = registering.register_list(session, text, now=clock.now(), is_preview=dry_run)
    rows = [
        {"row": one.row, "label": one.label, "node_id": one.node_id, "fault": one.fault}
        for one in report.rows
    ]
    good = len(rows) - report.faults
    if report.faults:
        outcome = f"{report.faults} of {len(rows)} rows are wrong; nothing was registered."
    elif report.is_applied:
        outcome = f"Registered {good} nodes."
    else:
        outcome = f"{good} nodes would be registered; leave out --dry-run to do it."
    lines = [f"row {one.row}: {one.fault}" for one in report.rows if one.fault]
    told = {"applied": report.is_applied, "wrong": report.faults, "rows": rows}
    answer(told, "\n".join([*lines, outcome]), as_json=as_json)
    if report.faults:
        sys.exit(1)


def _text_of(path: Path) -> str:
    if path.stat().st_size > _LIST_BYTES_MAX:
        raise Invalid(f"{path} is larger than 4 MiB; give it in parts.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise Invalid(f"{path} is no text in UTF-8; save it as that.") from problem

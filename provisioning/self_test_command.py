"""`provision node test`: every sensor slot of a node, measured on its board."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console
from rich.table import Table

from hardware.catalogue import NodeModel, load_node_model, node_model_ids
from provisioning.board_options import board_option, json_option
from provisioning.board_reading import read_board
from provisioning.boards import BenchBoard, open_board
from provisioning.errors import BenchError, UsedWrongly
from provisioning.progress import tell
from provisioning.self_test import ChannelResult, as_plain, run_self_test

_WIDTH = 160


@click.command("test")
@board_option
@click.option(
    "--model",
    "model_id",
    type=click.Choice(node_model_ids()),
    help="What the node is built as; an enrolled board knows it.",
)
@json_option
def test_node(address: str | None, model_id: str | None, as_json: bool) -> None:
    """Measure every sensor slot with the node's own drivers, and say what to do about each that fails.

    Ends with 1 when one fails. Put soil moisture probes into water and water probes into a bucket first.

    Example: provision node test --board /dev/ttyUSB0
    """
    with open_board(address) as board:
        model = model_of(board, model_id)
        tell("Measuring every probe; the slowest takes a minute …")
        results = run_self_test(board, model)
    failed = sum(not result.has_passed for result in results)
    if as_json:
        content = {"model": model.id, "passed": not failed, "channels": as_plain(results)}
        click.echo(json.dumps(content))
    else:
        show(results)
        click.echo(_summary(results, failed))
    if failed:
        sys.exit(1)


def model_of(board: BenchBoard, model_id: str | None) -> NodeModel:
    """The model that the board was enrolled as, which must be the one that is named, if one is.

    Raises:
        UsedWrongly: neither the board nor anybody else says what it is.
        BenchError: the board was enrolled as another model.
    """
    known = read_board(board).model
    if known is None and model_id is None:
        raise UsedWrongly("The board is not enrolled; say with --model what the node is built as.")
    if known is not None and model_id not in (None, known):
        raise BenchError(
            f"The board was enrolled as {known}, not {model_id}; leave --model out, or enrol it with --again."
        )
    return load_node_model(known or model_id or "")


def show(results: list[ChannelResult]) -> None:
    """The results as a table."""
    table = Table(box=None, pad_edge=False)
    for name in ("slot", "probe", "channel", "value", "may be", "result"):
        table.add_column(name, no_wrap=name != "result")
    for result in results:
        table.add_row(
            result.slot,
            result.probe,
            result.channel,
            value_in_words(result),
            f"{result.lowest:g} … {result.highest:g} {_unit(result)}".rstrip(),
            "pass" if result.has_passed else f"FAIL: {result.next_step}",
        )
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    console.print(table)


def value_in_words(result: ChannelResult) -> str:
    """`21.5 Cel`, or the reason why there is none."""
    if result.value is None:
        return result.reason or "nothing"
    return f"{result.value:g} {_unit(result)}".rstrip()


def _summary(results: list[ChannelResult], failed: int) -> str:
    if failed:
        return f"{failed} of {len(results)} channels failed; do what the table says and test again."
    return f"All {len(results)} channels passed."


def _unit(result: ChannelResult) -> str:
    return {"Cel": "°C", "1": ""}.get(result.unit, result.unit)

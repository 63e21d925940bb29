"""How a command answers: one sentence for a person, or one JSON object on one line of stdout for a program."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on one line of stdout."
)
data_option = click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False),
    help="The server's data folder (FLEET_DATA_DIR).",
)


def answer(fields: Mapping[str, object], sentence: str, *, as_json: bool) -> None:
    """Print `fields` for a program or `sentence` for a person, at once even when stdout is a pipe."""
    click.echo(json.dumps(fields) if as_json else sentence)

"""`fleet uncertainty`: what a value's uncertainty is made of, and what would make it smaller."""

from __future__ import annotations

import click

from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.named_nodes import find_node, moment_text
from fleet_server.errors import Invalid
from fleet_server.services import budget_documents, budget_words, budgeting
from fleet_server.services.budgeting import ValueBudget
from fleet_server.services.flag_reasons import Quantity

_HIGHEST_ID = (1 << 53) - 1
_BAR = 20


@click.command()
@click.argument("node", required=False)
@click.argument("channel", required=False)
@click.option(
    "--observation",
    "observation_id",
    type=click.IntRange(1, _HIGHEST_ID),
    help="Of this one instead of a channel's newest; the feed's @iot.id.",
)
@click.option(
    "--version", type=click.IntRange(1, 2**31 - 1), help="Of an earlier version. [default: now]"
)
@data_option
@json_option
def uncertainty(
    *,
    node: str | None,
    channel: str | None,
    observation_id: int | None,
    version: int | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """What the uncertainty of a channel's newest value is made of, and what would make it smaller.

    Example: fleet uncertainty tree-01 r30
    """
    if (observation_id is None) != (node is not None and channel is not None) or (
        observation_id is not None and node is not None
    ):
        raise Invalid("Name a node and its channel, like tree-01 r30, or give --observation.")
    with open_session(data_dir) as session:
        if observation_id is None:
            node_id = find_node(session, node or "").node_id
            observation_id = budgeting.latest_of_channel(session, node_id, channel or "")
        found = budgeting.budget_of(session, observation_id, version=version)
        told, text = budget_documents.budget_document(found), _text(found)
    answer(told, text, as_json=as_json)


def _text(found: ValueBudget) -> str:
    unit = found.datastream.unit
    lines = [
        f"{found.datastream.property} at {found.site.code}, {moment_text(found.sampled_at)}:"
        f" {Quantity(found.value, unit)}",
        f"u = {Quantity(found.u, unit)}, k = {found.k:.4g}, U = {Quantity(found.expanded_u, unit)},"
        f" {budget_words.freedom_said(found.degrees_of_freedom)} degrees of freedom",
        str(budget_words.standing_said(found)),
        "",
    ]
    conversion = found.version.made_by.lineage.conversion
    names = [str(budget_words.part_said(one.name)) for one in found.parts]
    width = max(map(len, names))
    for name, part in zip(names, found.parts, strict=True):
        bar = "█" * round(_BAR * part.share_pct / 100.0)
        lines.append(
            f"{part.share_pct:5.1f} % {bar:<{_BAR}} {name:<{width}}"
            f"  u {Quantity(part.u, unit)}  ({budget_words.source_said(part, conversion)})"
        )
    return "\n".join([*lines, "", *map(str, budget_words.remedies_said(found))])

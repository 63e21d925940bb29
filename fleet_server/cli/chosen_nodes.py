"""Options by which commands mean several nodes at once, and a layer of settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from sqlalchemy.orm import Session

from fleet_server.cli.named_nodes import find_node
from fleet_server.services import layering, selecting
from fleet_server.services.layering import Layer
from fleet_server.services.selecting import SITE_KINDS, Selection

_F = TypeVar("_F", bound=Callable[..., Any])


def rule_options(command: _F) -> _F:
    """`--model`, `--site-kind`, `--tag`, `--near`: together they must all be so."""
    for option in (
        click.option(
            "--near",
            metavar="LAT,LON,METRES",
            help="Nodes at sites around a place, like 51.4818,7.2162,800.",
        ),
        click.option("--tag", help="Nodes with this tag."),
        click.option("--site-kind", type=click.Choice(SITE_KINDS), help="Nodes made for these."),
        click.option("--model", help="Nodes of this model."),
    ):
        command = option(command)
    return command


def nodes_options(command: _F) -> _F:
    """`rule_options`, and by name: `--node` and `--group`."""
    command = click.option("--group", help="Nodes in this group.")(command)
    return click.option(
        "--node", "nodes", multiple=True, help="A node's id or label; repeat for several."
    )(rule_options(command))


def rule_of(
    *, model: str | None, site_kind: str | None, tag: str | None, near: str | None
) -> Selection:
    return Selection(
        model=model,
        site_kind=site_kind,
        tag=tag,
        near=None if near is None else selecting.near_of(near),
    )


def selection_of(
    session: Session, *, nodes: Sequence[str], group: str | None, **rule: str | None
) -> Selection:
    """What the options mean. Raises NotFound for a node that is not there."""
    found = rule_of(**rule)
    ids = tuple(find_node(session, name).node_id for name in nodes) or None
    return Selection(
        model=found.model,
        site_kind=found.site_kind,
        tag=found.tag,
        near=found.near,
        group=group,
        node_ids=ids,
    )


def layer_options(command: _F) -> _F:
    """`--fleet`, `--model`, `--group`: one of them."""
    for option in (
        click.option("--group", help="The nodes of this group."),
        click.option("--model", help="The nodes of this model."),
        click.option("--fleet", "is_fleet", is_flag=True, help="All nodes."),
    ):
        command = option(command)
    return command


def layer_of(session: Session, *, is_fleet: bool, model: str | None, group: str | None) -> Layer:
    if sum((is_fleet, model is not None, group is not None)) != 1:
        raise click.UsageError("Say whose settings: --fleet, --model MODEL or --group GROUP.")
    if is_fleet:
        return layering.FLEET
    if model is not None:
        return layering.find_layer(session, "model", model)
    return layering.find_layer(session, "group", group or "")

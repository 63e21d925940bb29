"""`fleet node configure`, `command` and `show`: what a node shall be and do, and how it stands to that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from fleet_server import clock
from fleet_server.cli.answers import FiniteRange, answer, data_option, json_option
from fleet_server.cli.chosen_nodes import nodes_options, selection_of
from fleet_server.cli.database import open_session, settings_of
from fleet_server.cli.named_nodes import find_node, moment_text
from fleet_server.cli.pairs import Pair, as_mapping, settings_given, wifi_option
from fleet_server.models import Node
from fleet_server.services import commanding, configuring, grouping, node_settings, ordering
from fleet_server.services.commanding import CommandOverview, CommandState
from fleet_server.services.configuring import ConfigurationOverview
from fleet_server.web import words


@click.command()
@click.argument("node_id_or_label")
@click.argument("settings", nargs=-1, type=Pair(), metavar="[NAME=VALUE]...")
@wifi_option
@data_option
@json_option
def configure(
    *,
    node_id_or_label: str,
    settings: tuple[tuple[str, Any], ...],
    wifi_file: Path | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Want other settings of one node; those that are not named stay, and NAME= leaves one to its groups, model and fleet again.

    The node tries them when it connects next, and goes back by itself when they do not lead to the server.

    Example: fleet node configure pond-01 publish_s=1800 'limits=[["do", "below", 4, 4.5]]'
    """
    wanted = settings_given(settings, wifi_file)
    with open_session(data_dir) as session:
        found = find_node(session, node_id_or_label)
        version = configuring.configure_node(
            session,
            found.node_id,
            wanted,
            now=clock.now(),
            secret_key=settings_of(data_dir).session_key,
        )
        overview = configuring.configuration_of(session, found.node_id)
    fields = {
        "node_id": found.node_id,
        "label": found.label,
        "version": version,
        "settings": overview.settings,
    }
    sentence = f"{found.label} ({found.node_id}) shall run configuration {version}; it hears of it when it connects."
    answer(fields, sentence, as_json=as_json)


@click.command()
@click.argument("node_id_or_label")
@click.argument("name")
@click.argument("arguments", nargs=-1, type=Pair(), metavar="[NAME=VALUE]...")
@click.option(
    "--hours",
    type=FiniteRange(0.1, 168),
    default=24.0,
    show_default=True,
    help="How long it is worth doing; a node that connects later does not do it.",
)
@data_option
@json_option
def command(
    *,
    node_id_or_label: str,
    name: str,
    arguments: tuple[tuple[str, Any], ...],
    hours: float,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Tell a node to do something once. NAME is resend, dump_log, identify, read_now, self_test, factory_reset or reboot.

    It is told when the node connects next; `fleet node show` has its answer.

    Example: fleet node command tree-01 self_test
    """
    with open_session(data_dir) as session:
        found = find_node(session, node_id_or_label)
        command_id = commanding.order_command(
            session,
            found.node_id,
            name,
            as_mapping(arguments),
            now=clock.now(),
            lifetime=timedelta(hours=hours),
        )
    fields = {"node_id": found.node_id, "label": found.label, "id": command_id, "name": name}
    sentence = f"{found.label} ({found.node_id}) is told {name} when it connects; `fleet node show` has its answer."
    answer(fields, sentence, as_json=as_json)


@click.command()
@click.argument("node_id_or_label")
@data_option
@json_option
def show(*, node_id_or_label: str, data_dir: str | None, as_json: bool) -> None:
    """What is wanted of a node, what it runs, and what became of its commands.

    Example: fleet node show tree-01
    """
    with open_session(data_dir) as session:
        found = find_node(session, node_id_or_label)
        configuration = configuring.configuration_of(session, found.node_id)
        commands = commanding.commands_of(session, found.node_id, now=clock.now())
        groups = grouping.groups_of(session, found.node_id)
        tags = grouping.tags_of(session, found.node_id)
    fields = {
        "node_id": found.node_id,
        "label": found.label,
        "model": found.model,
        "configuration": {
            "version": configuration.version,
            "settings": configuration.settings,
            "running_version": configuration.running_version,
            "origins": {name: one.origin for name, one in configuration.origins.items()},
            "standing": configuration.standing,
            "reason": configuration.reason,
            "held_back": configuration.held_back,
        },
        "groups": [group.name for group in groups],
        "tags": tags,
        "commands": [_fields(one) for one in commands],
    }
    answer(fields, _shown(found, configuration, commands), as_json=as_json)


def _shown(
    found: Node, configuration: ConfigurationOverview, commands: Sequence[CommandOverview]
) -> str:
    standing = words.standing_words(configuration.standing)
    why = f" ({configuration.reason})" if configuration.reason else ""
    lines = [
        f"{found.label} ({found.node_id}, {found.model})",
        f"Configuration {configuration.version} is {standing.word}{why}. {standing.meaning}",
    ]
    if configuration.held_back:
        lines.append(f"It is not told what its layers want: {configuration.held_back}")
    lines += [
        f"  {name}={value_text(value)}{_origin(configuration, name)}"
        for name, value in sorted(configuration.settings.items())
    ]
    lines.append("Commands, newest first:" if commands else "No commands.")
    lines += [f"  {_line(one)}" for one in commands]
    return "\n".join(lines)


def value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _origin(configuration: ConfigurationOverview, name: str) -> str:
    origin = configuration.origins.get(name)
    return f"  (from {origin.origin})" if origin else ""


@click.command()
@click.argument("command_id", type=click.IntRange(1, (1 << 31) - 1))
@data_option
@json_option
def cancel(*, command_id: int, data_dir: str | None, as_json: bool) -> None:
    """Take a pending command back; a node that has heard of it already may have begun it, and then still answers.

    Example: fleet node cancel 1234567
    """
    with open_session(data_dir) as session:
        commanding.cancel_command(session, command_id, now=clock.now())
    answer(
        {"id": command_id}, f"Command {command_id} is told to its node no more.", as_json=as_json
    )


@click.command()
@click.argument("model")
@data_option
@json_option
def schema(*, model: str, data_dir: str | None, as_json: bool) -> None:
    """What may be wanted of a node of this model, as JSON Schema.

    Example: fleet node schema tree-3
    """
    with open_session(data_dir) as session:
        found = node_settings.schema_of(session, model)
    answer(found, json.dumps(found, indent=2, ensure_ascii=False), as_json=as_json)


@click.command()
@click.argument("name")
@click.argument("arguments", nargs=-1, type=Pair(), metavar="[NAME=VALUE]...")
@nodes_options
@click.option("--all", "is_for_all", is_flag=True, help="All nodes in service.")
@click.option("--hours", type=FiniteRange(0.1, 168), default=24.0, show_default=True)
@click.option("--confirm-nodes", type=int, help="For reboot: how many nodes you mean.")
@click.option("--dry-run", is_flag=True, help="Say for how many it would be ordered.")
@data_option
@json_option
def order(
    *,
    name: str,
    arguments: tuple[tuple[str, Any], ...],
    is_for_all: bool,
    hours: float,
    confirm_nodes: int | None,
    dry_run: bool,
    data_dir: str | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Tell many nodes to do something once: `fleet node command` for all that the options mean.

    Example: fleet node order self_test --group Innenstadt --dry-run
    """
    with open_session(data_dir) as session:
        selection = selection_of(session, **chosen)
        if selection.is_empty != is_for_all:
            raise click.UsageError("Say which nodes, or --all.")
        given: dict[str, Any] = {"now": clock.now(), "lifetime": timedelta(hours=hours)}
        if dry_run:
            report = ordering.preview_order(
                session, selection, name, as_mapping(arguments), **given
            )
        else:
            report = ordering.order_for_many(
                session,
                selection,
                name,
                as_mapping(arguments),
                confirmed_nodes=confirm_nodes,
                **given,
            )
    counts = {outcome.value: count for outcome, count in report.counts.items()}
    fields = {"dry_run": dry_run, "batch": report.batch, **counts, "busy_nodes": list(report.busy)}
    would = "would be told" if dry_run else "are told"
    sentence = (
        f"{counts['told']} nodes {would} {name}; {counts['busy']} have too many commands waiting."
    )
    if report.batch:
        sentence += f" `fleet node commands --batch {report.batch}` has their answers."
    answer(fields, sentence, as_json=as_json)


@click.command()
@click.option("--batch", help="Those ordered together.")
@click.option(
    "--state",
    type=click.Choice([state.value for state in CommandState]),
    help="Those that stand so.",
)
@click.option("--name", help="Those of this name.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@data_option
@json_option
def commands(
    *,
    batch: str | None,
    state: str | None,
    name: str | None,
    limit: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Commands to all nodes with what became of them, newest first.

    Example: fleet node commands --state expired
    """
    wanted = ordering.CommandFilter(state=state, name=name, batch=batch)
    with open_session(data_dir) as session:
        page = ordering.command_page(session, wanted, now=clock.now(), limit=limit)
    rows = [{"node_id": one.node_id, "batch": one.batch, **_fields(one)} for one in page.items]
    lines = [f"{one.node_id}  {_line(one)}" for one in page.items]
    text = "\n".join(lines) or "There are no such commands."
    answer({"commands": rows, "has_more": page.next_key is not None}, text, as_json=as_json)


def _line(one: CommandOverview) -> str:
    said = ", ".join(f"{key}={words.detail(value)}" for key, value in one.details)
    until = f", until {moment_text(one.expires_at)}" if one.state is CommandState.PENDING else ""
    return f"{moment_text(one.ordered_at)}  {one.name}: {words.command_word(one)}{until}{f' ({said})' if said else ''}"


def _fields(one: CommandOverview) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "arguments": dict(one.arguments),
        "state": one.state,
        "result": one.result,
        "details": {str(key): value for key, value in one.details},
        "ordered_at": moment_text(one.ordered_at),
        "expires_at": moment_text(one.expires_at),
        "answered_at": moment_text(one.answered_at),
    }

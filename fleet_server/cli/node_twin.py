"""`fleet node configure`, `command` and `show`: what a node shall be and do, and how it stands to that."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

from fleet_server import clock
from fleet_server.cli.answers import FiniteRange, answer, data_option, json_option
from fleet_server.cli.database import open_session, settings_of
from fleet_server.cli.named_nodes import find_node, moment_text
from fleet_server.models import Node
from fleet_server.services import commanding, configuring
from fleet_server.services.commanding import CommandOverview, CommandState
from fleet_server.services.configuring import ConfigurationOverview
from fleet_server.web import words
from fleet_server.wire.configuration import WIFI


class _Pair(click.ParamType[tuple[str, Any]]):
    """`name=value`; a value is a number, a text, or JSON where it has a structure."""

    name = "NAME=VALUE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        name, sign, text = str(value).partition("=")
        if not (name and sign):
            self.fail(f"{value!r} is not NAME=VALUE, like publish_s=1800.", param, ctx)
        return name, _value(text)


@click.command()
@click.argument("node_id_or_label")
@click.argument("settings", nargs=-1, type=_Pair(), metavar="[NAME=VALUE]...")
@click.option(
    "--wifi-file",
    type=click.Path(path_type=Path),
    help="TOML with the Wi-Fi networks: [[network]] with ssid and password, best first.",
)
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
    """Want other settings of a node; those that are not named stay, and NAME= takes one back to what was provisioned.

    The node tries them when it connects next, and goes back by itself when they do not lead to the server.

    Example: fleet node configure pond-01 publish_s=1800 'limits=[["do", "below", 4, 4.5]]'
    """
    wanted = _as_mapping(settings)
    if wanted.get(WIFI) is not None:
        raise click.UsageError(
            "Give networks with --wifi-file: what is typed stands in the list of processes."
        )
    if wifi_file is not None:
        wanted[WIFI] = _networks(wifi_file)
    if not wanted:
        raise click.UsageError("Name a setting, like publish_s=1800.")
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
@click.argument("arguments", nargs=-1, type=_Pair(), metavar="[NAME=VALUE]...")
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
            _as_mapping(arguments),
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
    fields = {
        "node_id": found.node_id,
        "label": found.label,
        "model": found.model,
        "configuration": {
            "version": configuration.version,
            "settings": configuration.settings,
            "running_version": configuration.running_version,
            "standing": configuration.standing,
            "reason": configuration.reason,
        },
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
    lines += [
        f"  {name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in sorted(configuration.settings.items())
    ]
    lines.append("Commands, newest first:" if commands else "No commands.")
    lines += [f"  {_line(one)}" for one in commands]
    return "\n".join(lines)


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


def _as_mapping(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in given:
            raise click.UsageError(f"{name} is given twice.")
        given[name] = value
    return given


def _value(text: str) -> Any:
    """What JSON reads as something, else the text itself; None for nothing."""
    if not text:
        return None
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _networks(path: Path) -> list[list[Any]]:
    try:
        networks: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return [[network["ssid"], network["password"]] for network in networks["network"]]
    except OSError as error:
        raise click.UsageError(
            f"The Wi-Fi file {path} cannot be read: {error.strerror}."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        # The cause is not shown: TOML errors quote the line, and the line may be a password.
        raise click.UsageError(
            f"{path} must hold [[network]] tables with ssid and password."
        ) from error

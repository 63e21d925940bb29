"""`NAME=VALUE` on a command line, and Wi-Fi networks from a file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fleet_server.services.typed_values import value_of
from fleet_server.wire.configuration import WIFI


class Pair(click.ParamType[tuple[str, Any]]):
    """`name=value`; a value is a number, a text, or JSON where it has a structure; None for nothing."""

    name = "NAME=VALUE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        name, sign, text = str(value).partition("=")
        if not (name and sign):
            self.fail(f"{value!r} is not NAME=VALUE, like publish_s=1800.", param, ctx)
        return name, value_of(text)


wifi_option = click.option(
    "--wifi-file",
    type=click.Path(path_type=Path),
    help="TOML with the Wi-Fi networks: [[network]] with ssid and password, best first.",
)


def as_mapping(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in given:
            raise click.UsageError(f"{name} is given twice.")
        given[name] = value
    return given


def settings_given(pairs: Sequence[tuple[str, Any]], wifi_file: Path | None) -> dict[str, Any]:
    """The settings that somebody typed, with the networks of the file."""
    wanted = as_mapping(pairs)
    if wanted.get(WIFI) is not None:
        raise click.UsageError(
            "Give networks with --wifi-file: what is typed stands in the list of processes."
        )
    if wifi_file is not None:
        wanted[WIFI] = _networks(wifi_file)
    if not wanted:
        raise click.UsageError("Name a setting, like publish_s=1800.")
    return wanted


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

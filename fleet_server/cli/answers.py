"""What commands have in common: options that are read strictly, and answers.

An answer is one sentence for a person, or one JSON object on one line of stdout for a program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import click

from fleet_server.services.typed_values import typed_number
from fleet_server.settings import is_host

_NO_END = ("nan", "inf", "infinity")
_PROCESS_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


class FiniteRange(click.FloatRange):
    """A number in a range; `nan`, which is in every range and in none, is not one."""

    _like = "with a point, like 1.5"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            number = self._read(str(value))
        except ValueError:
            if str(value).strip("+-").lower() in _NO_END:
                self.fail(f"{value} is not a number to reckon with.", param, ctx)
            self.fail(f"{value!r} is no number; write it {self._like}.", param, ctx)
        return float(super().convert(number, param, ctx))

    def _read(self, text: str) -> float:
        if "," in text:  # in English it would be a thousand
            raise ValueError(text)
        return typed_number(text)


class MeasuredRange(FiniteRange):
    """A measured number in a range, as it is written beside an instrument: `7,02` is `7.02`."""

    _like = "like 1.5 or 1,5"

    def _read(self, text: str) -> float:
        return typed_number(text)


class Host(click.ParamType[str]):
    """A name or an address that a machine can have."""

    name = "host"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        text = str(value)
        if not is_host(text):
            self.fail(
                f"{text!r} is no name or address of a machine, like broker.example.org or 10.0.0.7.",
                param,
                ctx,
            )
        return text


class ProcessName(click.ParamType[str]):
    """What tells several processes of one service apart; it becomes part of a client id."""

    name = "name"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        text = str(value)
        if not _PROCESS_NAME.fullmatch(text):
            self.fail(f"{text!r} is not 1 to 32 letters, digits, - and _.", param, ctx)
        return text


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

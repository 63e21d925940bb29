"""Settings and arguments as people type them: `publish_s=1800`, `limits=[["do", "below", 4, 4.5]]`, `low_mv=` to take one back."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fleet_server.errors import Invalid
from fleet_server.wire.configuration import WIFI


class TypedWrong(Invalid):
    """What was typed names nothing."""

    code = "typed_wrong"


def pairs_of_lines(text: str) -> dict[str, Any]:
    """One NAME=VALUE a line. Raises TypedWrong, with one sentence."""
    given: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, sign, value = line.partition("=")
        name = name.strip()
        if not (name and sign):
            raise TypedWrong("%(line)r is not NAME=VALUE, like publish_s=1800.", line=line)
        if name in given:
            raise TypedWrong("%(name)s is given twice.", name=name)
        given[name] = value_of(value.strip())
    return given


def settings_of_lines(text: str) -> dict[str, Any]:
    """As `pairs_of_lines`; at least one, and no passwords: a page would show them again."""
    given = pairs_of_lines(text)
    if not given:
        raise TypedWrong("Name a setting, like publish_s=1800.")
    if given.get(WIFI) is not None:
        raise TypedWrong("Wi-Fi networks are given with --wifi-file of the command, or by the API.")
    return given


def value_of(text: str) -> Any:
    """What JSON reads as something, else the text itself; None for nothing."""
    if not text:
        return None
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)

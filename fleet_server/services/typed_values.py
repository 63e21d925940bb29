"""Settings, arguments and numbers as people type them: `publish_s=1800`, `limits=[["do", "below", 4, 4.5]]`, `low_mv=` to take one back."""

from __future__ import annotations

import json
import math
import re
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


def typed_number(text: str) -> float:
    """A number as people write one: with a point or a comma, with − or -; one letter's worth of doubt and it is none.

    Python's own reading takes `1_000` and the digits of every script; here neither is a number, and neither are `nan` and `1.000,5`.

    >>> typed_number("−3,5"), typed_number("1e-3")
    (-3.5, 0.001)

    Raises:
        ValueError: it is none.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no number")
    number = float(text.replace("\N{MINUS SIGN}", "-").replace(",", "."))
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is beyond every number")
    return number


_NUMBER = re.compile(
    r"[+\-\N{MINUS SIGN}]?(?:[0-9]{1,30}(?:[.,][0-9]{0,30})?|[.,][0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?",
    re.ASCII,
)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)

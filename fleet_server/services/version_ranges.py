"""Ranges of versions as people write them: `1.27.0`, `<1.28`, `>=1.20,<1.27.3`. Order is that of Semantic Versioning 2.0.0 (§11)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet_server.errors import Invalid

_PART = re.compile(r"\s*(<=|>=|<|>|==|=|!=|)\s*v?([0-9A-Za-z][0-9A-Za-z.+-]{0,63})\s*")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "": operator.eq,
    "!=": operator.ne,
}
_MOST_PARTS = 10
_MOST_LENGTH = 200


class RangeWrong(Invalid):
    """This is no range of versions."""

    code = "version_range_wrong"


@dataclass(frozen=True)
class VersionRange:
    """All of its conditions hold; none: every version."""

    conditions: tuple[tuple[str, str], ...]

    def holds(self, version: str) -> bool:
        return all(
            _COMPARE[sign](version_key(version), version_key(bound))
            for sign, bound in self.conditions
        )


def read_range(text: str) -> VersionRange:
    """A range from what somebody typed.

    >>> [read_range(">=1.20,<1.27.3").holds(one) for one in ("1.19.1", "1.20", "1.27.3-rc1", "1.27.3")]
    [False, True, True, False]

    Raises:
        RangeWrong: it is none.
    """
    parts = text.split(",") if text.strip() else []
    if len(text) > _MOST_LENGTH or len(parts) > _MOST_PARTS:
        raise RangeWrong("A range of versions has at most %(most)s parts.", most=_MOST_PARTS)
    found = [_PART.fullmatch(part) for part in parts]
    conditions = tuple((match[1], match[2]) for match in found if match is not None)
    if len(conditions) != len(parts):
        raise RangeWrong(
            "%(text)r is no range of versions; write 1.27.0, <1.28 or >=1.20,<1.27.3.", text=text
        )
    return VersionRange(conditions)


def version_key(version: str) -> tuple[Any, ...]:
    """What versions are ordered by: numbers as numbers, a pre-release before its release; missing numbers are 0.

    >>> sorted(["1.10", "1.9.1", "1.10.0-rc.2", "1.10.0-rc.10"], key=version_key)
    ['1.9.1', '1.10.0-rc.2', '1.10.0-rc.10', '1.10']
    """
    core, dash, before = version.removeprefix("v").partition("+")[0].partition("-")
    numbers = [_identifier(part) for part in core.split(".")]
    while numbers and numbers[-1] == (0, 0, ""):
        numbers.pop()
    return (tuple(numbers), not dash, tuple(_identifier(part) for part in before.split(".")))


def _identifier(part: str) -> tuple[int, int, str]:
    """Numbers come before words."""
    return (0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part)

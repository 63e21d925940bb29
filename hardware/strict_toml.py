"""TOML tables that are read strictly: every key is wanted, of the wanted kind, and nothing is left over.

A mistake ends in one sentence that names the file, the place in it and the key, as the exception of the caller's
choice; a misspelt key is refused, never silently ignored.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable
from typing import Any, TypeVar, cast

Built = TypeVar("Built")

# One step of a path: a key, and in an array of tables which of its rows.
_STEP = re.compile(r"(\w+)(?:\[([^\]]+)\])?(?:\.|$)")


class StrictTable:
    """One TOML table; each reading method takes its key out, `finish` refuses what is left."""

    def __init__(self, raw: dict[str, Any], where: str, error: type[Exception]) -> None:
        self._raw = dict(raw)
        self._written = raw
        self.where = where
        self._error = error

    @classmethod
    def from_toml(cls, text: str, name: str, error: type[Exception]) -> StrictTable:
        """The top table of a file that errors call `name`."""
        try:
            return cls(tomllib.loads(text), name, error)
        except tomllib.TOMLDecodeError as mistake:
            raise error(f"{name} is not valid TOML: {mistake}.") from mistake

    def has(self, key: str) -> bool:
        """Whether the key is there and not yet taken."""
        return key in self._raw

    def text(self, key: str, default: str | None = None) -> str:
        return cast("str", self._take(key, str, "a text", default))

    def whole(self, key: str, default: int | None = None) -> int:
        return cast("int", self._take(key, int, "a whole number", default))

    def number(self, key: str, default: float | None = None) -> float:
        is_written = key in self._raw
        number = float(self._take(key, (int, float), "a number", default))
        if is_written and not math.isfinite(number):
            raise self.mistake(f"{key} must be a number, not {number}.")
        return number

    def amount(self, key: str, *, above_zero: bool = False) -> float:
        """A number that cannot be negative, such as a current or a length."""
        number = self.number(key)
        if number < 0 or (above_zero and not number):
            raise self.mistake(f"{key} must be {'above 0' if above_zero else '0 or more'}.")
        return number

    def count(self, key: str, *, at_least: int = 0) -> int:
        """A whole number from `at_least` upwards."""
        number = self.whole(key)
        if number < at_least:
            raise self.mistake(f"{key} must be {at_least} or more.")
        return number

    def truth(self, key: str, *, default: bool) -> bool:
        value = self._raw.pop(key, default)
        if not isinstance(value, bool):
            raise self._error(f"{self.where}: {key} must be true or false.")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        values = self._take(key, (list, tuple), "a list of texts", default)
        if not all(isinstance(value, str) for value in values):
            raise self._error(f"{self.where}: {key} must be a list of texts.")
        return tuple(values)

    def wholes(self, key: str) -> tuple[int, ...]:
        values = self._take(key, list, "a list of whole numbers")
        if not all(type(value) is int for value in values):
            raise self._error(f"{self.where}: {key} must be a list of whole numbers.")
        return tuple(values)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """A text that is one of `choices`."""
        value = self.text(key)
        if value not in choices:
            raise self._error(
                f"{self.where}: {key} must be one of {', '.join(choices)}, not {value}."
            )
        return value

    def one(self, key: str, build: Callable[[StrictTable], Built]) -> Built:
        """A table of its own, read by `build`."""
        return self._build(self._take(key, dict, "a table"), key, build)

    def rows(
        self, key: str, build: Callable[[StrictTable], Built], *, at_least: int
    ) -> tuple[Built, ...]:
        """An array of tables, each read by `build`; may be left out when `at_least` is 0."""
        rows = self._take(key, list, "a list of tables", [] if at_least == 0 else None)
        if len(rows) < at_least or not all(isinstance(row, dict) for row in rows):
            raise self._error(f"{self.where}: {key} must be a list of at least one table.")
        return tuple(
            self._build(row, f"{key}[{_name_of(row, index)}]", build)
            for index, row in enumerate(rows)
        )

    def mapping(self, key: str, kind: type | tuple[type, ...], described: str) -> dict[str, Any]:
        """A table of plain values under names of the writer's choice; empty when it is not there."""
        values = self._take(key, dict, "a table", {})
        for name, value in values.items():
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not object):
                raise self._error(f"{self.where}: {key}.{name} must be {described}.")
        return dict(values)

    def holds_text(self, key: str) -> bool:
        """Whether a text stands there, and not a table."""
        return isinstance(self._raw.get(key), str)

    def mistake(self, sentence: str) -> Exception:
        """What to raise for a mistake that the caller has found in this table."""
        return self._error(f"{self.where}: {sentence}")

    def raw(self, key: str) -> dict[str, Any]:
        """A table as it stands, empty when it is not there; the caller reads it strictly."""
        return cast("dict[str, Any]", self._take(key, dict, "a table", {}))

    def paths(self, key: str) -> tuple[str, ...]:
        """A list of paths to what is written in this table.

        `current.asleep_ua` is one value, `wires.colour` that of every row, `wires[A].colour` of those rows that call
        themselves A in any of their texts. A path that leads nowhere is a mistake.
        """
        paths = self.texts(key)
        for path in paths:
            if not _leads_somewhere(self._written, path):
                raise self.mistake(f"{key} names {path}, which is not in the file.")
        return paths

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        if self._raw:
            raise self._error(f"{self.where}: the key {sorted(self._raw)[0]} is not known.")

    def _build(self, raw: dict[str, Any], key: str, build: Callable[[StrictTable], Built]) -> Built:
        inner = StrictTable(raw, f"{self.where}: {key}", self._error)
        built = build(inner)
        inner.finish()
        return built

    def _take(
        self, key: str, kind: type | tuple[type, ...], described: str, default: Any = None
    ) -> Any:
        if key not in self._raw:
            if default is None:
                raise self._error(f"{self.where}: the key {key} is missing.")
            return default
        value = self._raw.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._error(f"{self.where}: {key} must be {described}.")
        return value


def _leads_somewhere(table: dict[str, Any], path: str) -> bool:
    """Whether `path` ends at something that is written in `table`."""
    steps = list(_STEP.finditer(path))
    if not steps or "".join(step.group() for step in steps) != path or path.endswith("."):
        return False
    found: list[Any] = [table]
    for step in steps:
        key, row_name = step.groups()
        values = [one[key] for one in found if isinstance(one, dict) and key in one]
        found = [row for value in values for row in _rows(value, row_name)]
    return bool(found)


def _rows(value: Any, name: str | None) -> list[Any]:
    """The rows of an array of tables, those called `name` if there is one; any other value is its own only row."""
    if not (isinstance(value, list) and value and all(isinstance(row, dict) for row in value)):
        return [value] if name is None else []
    return [row for row in value if name is None or name in row.values()]


def _name_of(row: dict[str, Any], index: int) -> Any:
    return next(
        (row[key] for key in ("id", "label", "key", "role", "reason", "signal") if key in row),
        index,
    )

"""Frozen dataclasses of limits as JSON has them, and back: rules are data that people edit, so what they wrote is checked place by place."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Final


def plain(value: object) -> Any:
    """A dataclass as an object, a tuple as a list; an infinite number is null.

    >>> plain((1.0, math.inf))
    [1.0, None]
    """
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and math.isinf(value):
        return None
    return value


def made(kind: type[Any], data: object, where: str) -> Any:
    """The dataclass `kind` from what `plain` wrote, or a person.

    Args:
        where: what `data` is called in a sentence.

    Raises:
        ValueError: it is not that; the sentence says where.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object.")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(map(str, data)) - fields.keys())
    if unknown:
        raise ValueError(f"{where} has no {unknown[0]}; it has {', '.join(fields)}.")
    missing = [
        name
        for name, field in fields.items()
        if name not in data and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks {missing[0]}.")
    return kind(
        **{
            name: _value(hints[name], fields[name].default, part, f"{where}.{name}")
            for name, part in data.items()
        }
    )


def _value(hint: Any, when_left_out: object, data: object, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
        if data is None:
            return None
    if dataclasses.is_dataclass(hint):
        return made(typing.cast(type[Any], hint), data, where)
    if hint == tuple[float, float]:
        if not isinstance(data, list | tuple) or len(data) != 2:
            raise ValueError(f"{where} must be two numbers.")
        low, high = data
        return (_number(low, -math.inf, where), _number(high, math.inf, where))
    if typing.get_origin(hint) is tuple:
        return _list_of(typing.get_args(hint)[0], data, where)
    if hint is float:
        return _number(data, when_left_out, where)
    if hint is int and isinstance(data, float) and data.is_integer():
        data = int(data)
    if not isinstance(data, hint) or (hint is int and isinstance(data, bool)):
        raise ValueError(f"{where} must be {_KINDS[hint]}.")
    return data


def _list_of(kind: Any, data: object, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise ValueError(f"{where} must be a list.")
    return tuple(
        _value(kind, dataclasses.MISSING, one, f"{where}[{place}]")
        for place, one in enumerate(data)
    )


_KINDS: Final = {int: "a whole number", str: "a text", bool: "true or false"}


def _number(data: object, when_null: object, where: str) -> float:
    if data is None and isinstance(when_null, float) and math.isinf(when_null):
        return when_null
    if isinstance(data, bool) or not isinstance(data, int | float):
        raise ValueError(f"{where} must be a number.")
    try:
        return float(data)
    except OverflowError as problem:
        raise ValueError(f"{where} is too large a number.") from problem

"""Keyset paging: a page begins after a key, never after a number of rows, so that new rows shift nothing."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

from fleet_server.services.keyset import Key, KeyWrong

T = TypeVar("T")
_LONGEST_CURSOR = 1000
_HIGHEST = 2**63


@dataclass(frozen=True)
class Page(Generic[T]):
    """`items` of one page; `has_more` when at least one further row follows."""

    items: Sequence[T]
    has_more: bool


def cut_page(rows: Sequence[T], *, size: int) -> Page[T]:
    """Of `size + 1` rows asked for, the page and whether there was one more."""
    return Page(items=rows[:size], has_more=len(rows) > size)


def with_query(url: str, parameters: dict[str, str]) -> str:
    """`url` with these parameters; `$`, `,` and `(` stay readable as the OGC's own examples write them."""
    return f"{url}?{urlencode(parameters, quote_via=quote, safe='$,()/:')}"


def as_cursor(key: Key, *, sorting: str) -> str:
    """The key as one word of an address, for this sorting of a list.

    >>> as_cursor(("tree-01", 7), sorting="label")
    'WyJsYWJlbCIsInRyZWUtMDEiLDdd'
    """
    told = json.dumps([sorting, *key], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(told).decode().rstrip("=")


def from_cursor(cursor: str, *, sorting: str) -> Key:
    """The key again.

    Raises:
        KeyWrong: it is no cursor of ours, or one of another sorting.
    """
    try:
        if len(cursor) > _LONGEST_CURSOR:
            raise ValueError
        told = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise _no_cursor() from error
    if not (isinstance(told, list) and told[:1] == [sorting] and all(map(_is_part, told))):
        raise _no_cursor()
    return tuple(told[1:])


def _is_part(value: object) -> bool:
    if isinstance(value, str):
        return "\0" not in value and value.encode("utf-8", "replace").decode() == value
    return type(value) is int and -_HIGHEST <= value < _HIGHEST


def _no_cursor() -> KeyWrong:
    return KeyWrong("after wants what the page before gave for it; begin the list again without.")

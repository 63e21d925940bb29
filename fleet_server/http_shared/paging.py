"""Keyset paging: a page begins after a key, never after a number of rows, so that new rows shift nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

T = TypeVar("T")


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

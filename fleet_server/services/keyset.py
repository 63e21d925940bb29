"""Lists in pages: a page begins after the key of the row before it, so that new rows shift nothing and the last page costs as the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, false, or_
from sqlalchemy.orm import Session

from fleet_server.errors import Invalid

T = TypeVar("T")
KeyPart = str | int
Key = tuple[KeyPart, ...]
"""Where a page ended: the sorted columns' values in its last row; moments as seconds since 1970."""


class KeyWrong(Invalid):
    """No page of this list ends there."""

    code = "key_wrong"


@dataclass(frozen=True)
class Page(Generic[T]):
    """`next_key`: give it as `after` for the page that follows; None on the last one."""

    items: Sequence[T]
    next_key: Key | None


@dataclass(frozen=True)
class Sorting:
    """`columns` never hold NULL, and the last one is unique; all go the same way.

    `kinds` are the types of their values, in the same order.
    """

    columns: tuple[ColumnElement[Any], ...]
    kinds: tuple[type[KeyPart | datetime], ...]
    is_descending: bool = False

    def after(self, key: Key) -> ColumnElement[bool]:
        """Rows that come after `key`.

        Raises:
            KeyWrong: it is a key of another list.
        """
        check_key(key, self.kinds)
        values = [
            _moment(part) if kind is datetime else part
            for part, kind in zip(key, self.kinds, strict=True)
        ]
        found: ColumnElement[bool] = false()
        # (a, b) > (x, y) spelt out: both databases take an index for the first column's part.
        for column, value in reversed(list(zip(self.columns, values, strict=True))):
            beyond = column < value if self.is_descending else column > value
            found = or_(beyond, and_(column == value, found))
        first = self.columns[0]
        return and_(first <= values[0] if self.is_descending else first >= values[0], found)

    def order(self) -> list[ColumnElement[Any]]:
        return [column.desc() if self.is_descending else column.asc() for column in self.columns]


def check_key(key: Key | None, kinds: tuple[type[KeyPart | datetime], ...]) -> None:
    """Raises KeyWrong when the key's parts are of other kinds."""
    wanted = [int if kind is datetime else kind for kind in kinds]
    if key is not None and [type(part) for part in key] != wanted:
        raise KeyWrong("This page follows none of this list; begin the list again.")


def page_of(
    session: Session,
    query: Select[*tuple[Any, ...]],
    sorting: Sorting,
    *,
    limit: int,
    after: Key | None,
    made: Callable[[Any], T],
) -> Page[T]:
    """One page of `query`, which must select neither more nor less than it shows. One statement.

    Args:
        made: what becomes of a row.
    """
    if after is not None:
        query = query.where(sorting.after(after))
    sorted_query = query.add_columns(
        *(column.label(f"key_{place}") for place, column in enumerate(sorting.columns))
    ).order_by(*sorting.order())
    rows = session.execute(sorted_query.limit(limit + 1)).all()
    shown = rows[:limit]
    places = range(len(sorting.columns))
    next_key = (
        tuple(_part(getattr(shown[-1], f"key_{place}")) for place in places)
        if len(rows) > limit
        else None
    )
    return Page(items=[made(row) for row in shown], next_key=next_key)


def _part(value: Any) -> KeyPart:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def _moment(seconds: KeyPart) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise KeyWrong("This page follows none of this list; begin the list again.") from error

"""Many rows at once, without an object per row: `INSERT … VALUES` of many rows on SQLite, `COPY` on PostgreSQL.

Rows are tuples, or come as columns; moments are integer seconds UTC. Whoever calls holds the writing transaction.
The database works without holding Python's lock: `inserting` lets the caller go on computing meanwhile.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import psycopg
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    String,
    Table,
    any_,
    func,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from fleet_server.models import UtcSeconds
from fleet_server.services import binary_copy
from fleet_server.services.binary_copy import Column, DoesNotFit

Row = Sequence[Any]
Columns = Mapping[str, Column]
"""Rows by their columns' names, all equally long."""

_SQLITE_ROWS = 250  # of at most 20 columns: far below the 32,766 values that a statement may have
_IF_ABSENT = " ON CONFLICT DO NOTHING"
_WORTH_A_TRY = 100  # rows
_WORTH_A_THREAD = 100  # rows; fewer are there before another thread has begun
_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy's own


def insert_rows(
    session: Session,
    table: Table,
    columns: tuple[str, ...],
    rows: Sequence[Row],
    *,
    if_absent: bool = False,
) -> int:
    """Insert rows; with `if_absent`, those whose key is taken are passed over. Returns how many were inserted."""
    if not rows:
        return 0
    by_name = dict(zip(columns, zip(*rows, strict=True), strict=True))
    return insert_columns(session, table, by_name, if_absent=if_absent)


def insert_columns(
    session: Session, table: Table, columns: Columns, *, if_absent: bool = False
) -> int:
    """The same for rows given as columns. NaN in an array is null."""
    if not length_of(columns):
        return 0
    return _execute(session.connection(), table, columns, _IF_ABSENT if if_absent else "")


def length_of(columns: Columns) -> int:
    """How many rows these are."""
    return len(next(iter(columns.values()), ()))


@contextmanager
def inserting(
    session: Session, table: Table, columns: Columns, *, if_absent: bool = False
) -> Iterator[Future[int]]:
    """Insert rows while the block computes; they are there when it ends, or it raises what the database said.

    Inside the block nobody may use the session. The future's result is that of `insert_columns`.
    """
    if length_of(columns) < _WORTH_A_THREAD:
        done: Future[int] = Future()
        done.set_result(insert_columns(session, table, columns, if_absent=if_absent))
        yield done
        return
    insertion = _threads().submit(insert_columns, session, table, columns, if_absent=if_absent)
    try:
        yield insertion
    finally:
        # Whatever the block did: the session is handed back only when the database is done with it.
        insertion.exception()
    insertion.result()


def add_to_counts(
    session: Session, table: Table, columns: tuple[str, ...], rows: Sequence[Row]
) -> None:
    """Add the last column of each row to the count that its key has, or begin it. Keys must differ.

    Rows are worked in their order: sort them, so that two workers never wait for each other.
    """
    *key, count = map(_quoted, columns)
    insert_or_change(
        session,
        table,
        columns,
        rows,
        key=", ".join(key),
        change=f"{count} = {_quoted(table.name)}.{count} + excluded.{count}",
    )


def insert_or_change(
    session: Session,
    table: Table,
    columns: tuple[str, ...],
    rows: Sequence[Row],
    *,
    key: str,
    change: str,
) -> None:
    """Insert rows; those whose key is taken change the stored row instead. The same two promises as of `add_to_counts`.

    `key` and `change` are SQL of our own, and never text from outside.
    """
    if rows:
        by_name = dict(zip(columns, zip(*rows, strict=True), strict=True))
        conflict = f" ON CONFLICT ({key}) DO UPDATE SET {change}"
        _execute(session.connection(), table, by_name, conflict)


def update_rows(
    session: Session, table: Table, columns: tuple[str, ...], rows: Sequence[Row]
) -> None:
    """Give the rows that the first column, a key, names the values of the others. The caller holds these rows."""
    _update(session.connection(), table, columns, rows, postgresql="{new}", sqlite="{new}")


def update_columns(
    session: Session, table: Table, columns: Columns, *, key: tuple[str, ...]
) -> int:
    """Give rows given as columns, found by their key, the values of the other columns. NaN in an array is null.

    Returns how many rows there were. The caller holds them.
    """
    if not length_of(columns):
        return 0
    connection = session.connection()
    name = _quoted(table.name)
    others = [column for column in columns if column not in key]
    if connection.dialect.name == "sqlite":
        changes = ", ".join(f"{_quoted(column)} = ?" for column in others)
        where = " AND ".join(f"{_quoted(column)} = ?" for column in key)
        rows = zip(*(_items(columns[column]) for column in (*others, *key)), strict=True)
        statement = f"UPDATE {name} SET {changes} WHERE {where}"  # noqa: S608 - our own names
        return connection.exec_driver_sql(statement, list(rows)).rowcount
    changes = ", ".join(f"{_quoted(column)} = given.{_quoted(column)}" for column in others)
    where = " AND ".join(f"{name}.{_quoted(column)} = given.{_quoted(column)}" for column in key)
    return connection.exec_driver_sql(
        f"UPDATE {name} SET {changes}"  # noqa: S608 - our own names
        f" FROM ({_postgresql_given(table, tuple(columns))}) AS given WHERE {where}",
        _arrays(table, columns),
    ).rowcount


def move_forward(
    session: Session, table: Table, columns: tuple[str, ...], rows: Sequence[Row]
) -> None:
    """The same with moments that never go back: of the stored one and the new one the later stays, or the one that is not null."""
    # SQLite's max of a null is null.
    _update(
        session.connection(),
        table,
        columns,
        rows,
        postgresql="greatest({old}, {new})",
        sqlite="coalesce(max({old}, {new}), {old}, {new})",
    )


def reserve_ids(session: Session, table: Table, count: int) -> list[int]:
    """Keys for `count` new rows of a table with a numbered key."""
    connection = session.connection()
    name = _quoted(table.name)
    if connection.dialect.name == "sqlite":  # the one writer is us
        highest = connection.exec_driver_sql(
            f"SELECT coalesce(max(id), 0) FROM {name}"  # noqa: S608 - our own table's name
        ).scalar_one()
        return list(range(highest + 1, highest + 1 + count))
    # The sequence is looked up once, and its numbers come as one row: both would cost more than the numbers themselves.
    ids: list[int] = connection.exec_driver_sql(
        "SELECT array_agg(nextval(sequence)) FROM generate_series(1, %s),"
        " (SELECT pg_get_serial_sequence(%s, 'id')::regclass AS sequence OFFSET 0) AS found",
        (count, table.name),
    ).scalar_one()
    return ids


def is_among(session: Session, column: Any, numbers: Any) -> ColumnElement[bool]:
    """Whether a column is one of these whole numbers, as one parameter however many they are."""
    given = np.unique(numbers).tolist()
    if session.get_bind().dialect.name == "sqlite":
        listed = func.json_each(json.dumps(given)).table_valued("value")
        return column.in_(select(listed.c.value))  # type: ignore[no-any-return]
    return column == any_(literal(given, ARRAY(BigInteger)))  # type: ignore[no-any-return]


def chunks(rows: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """`rows` in pieces of at most `size`."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


@cache
def _threads() -> ThreadPoolExecutor:
    # Not just one: an insertion may have to wait until another transaction's ends.
    return ThreadPoolExecutor(thread_name_prefix="bulk")


def _execute(connection: Connection, table: Table, columns: Columns, conflict: str) -> int:
    if connection.dialect.name == "sqlite":
        return _execute_sqlite(connection, table, columns, conflict)
    try:
        if not conflict:
            return _copy_postgresql(connection, table, columns)
        if conflict == _IF_ABSENT and length_of(columns) >= _WORTH_A_TRY:
            # Nearly always all of them are new, and copied they are there in half the time.
            with connection.begin_nested():
                return _copy_postgresql(connection, table, columns)
    except DoesNotFit:
        pass  # PostgreSQL says so itself, below
    except IntegrityError as error:
        if not (conflict and isinstance(error.orig, psycopg.errors.UniqueViolation)):
            raise
    names = tuple(columns)
    statement = (
        f"INSERT INTO {_quoted(table.name)} ({', '.join(map(_quoted, names))})"
        f" {_postgresql_given(table, names)}{conflict}"
    )
    return connection.exec_driver_sql(statement, _arrays(table, columns)).rowcount


def _arrays(table: Table, columns: Columns) -> tuple[str, ...]:
    return tuple(_array(table.c[name].type, _items(column)) for name, column in columns.items())


def _items(column: Column) -> Sequence[Any]:
    """Python's own objects, None for NaN."""
    if not isinstance(column, np.ndarray):
        return column
    items: list[Any] = column.tolist()
    if column.dtype.kind == "f":
        for place in np.flatnonzero(np.isnan(column)).tolist():
            items[place] = None
    return items


def _update(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    rows: Sequence[Row],
    *,
    postgresql: str,
    sqlite: str,
) -> None:
    if not rows:
        return
    name, (key, *names) = _quoted(table.name), columns
    if connection.dialect.name == "sqlite":
        changes = ", ".join(
            f"{_quoted(column)} = {sqlite.format(old=_quoted(column), new=f'?{place}')}"
            for place, column in enumerate(names, 2)
        )
        statement = f"UPDATE {name} SET {changes} WHERE {_quoted(key)} = ?1"  # noqa: S608 - our own names
        connection.exec_driver_sql(statement, [tuple(row) for row in rows])
        return
    # One statement for all of them: each of its own costs as much as two packs.
    changes = ", ".join(
        f"{_quoted(column)} = {postgresql.format(old=f'{name}.{_quoted(column)}', new=f'given.{_quoted(column)}')}"
        for column in names
    )
    connection.exec_driver_sql(
        f"UPDATE {name} SET {changes} FROM ({_postgresql_given(table, columns)}) AS given"  # noqa: S608 - our own names
        f" WHERE {name}.{_quoted(key)} = given.{_quoted(key)}",
        _arrays(table, dict(zip(columns, zip(*rows, strict=True), strict=True))),
    )


def _execute_sqlite(connection: Connection, table: Table, columns: Columns, conflict: str) -> int:
    # Python's lock is let go at every step of a statement: with one row to a step, the thread that receives messages
    # would stop this one at every row.
    rows = list(zip(*map(_items, columns.values()), strict=True))
    names = tuple(columns)
    whole = len(rows) - len(rows) % _SQLITE_ROWS
    inserted = 0
    if whole:
        statement = _sqlite_insert(table, names, _SQLITE_ROWS) + conflict
        flat = [
            tuple(itertools.chain.from_iterable(some))
            for some in chunks(rows[:whole], _SQLITE_ROWS)
        ]
        inserted += connection.exec_driver_sql(statement, flat).rowcount
    if whole < len(rows):
        statement = _sqlite_insert(table, names, 1) + conflict
        inserted += connection.exec_driver_sql(statement, rows[whole:]).rowcount
    return inserted


def _copy_postgresql(connection: Connection, table: Table, columns: Columns) -> int:
    content = binary_copy.encode([table.c[name].type for name in columns], [*columns.values()])
    names = ", ".join(map(_quoted, columns))
    statement = f"COPY {_quoted(table.name)} ({names}) FROM STDIN (FORMAT binary)"
    try:
        with _driver(connection).cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(content)
    except psycopg.Error as error:
        # SQLAlchemy knows no COPY: what the driver raises is told as SQLAlchemy tells everything else.
        is_gone = _driver(connection).closed
        if is_gone:
            connection.invalidate(error)
        raise DBAPIError.instance(
            statement,
            None,
            error,
            psycopg.Error,
            connection_invalidated=is_gone,
            dialect=connection.dialect,
        ) from error
    return length_of(columns)


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment] # psycopg's, by its dialect
    return driver


def _array(kind: TypeEngine[Any], column: Iterable[Any]) -> str:
    """A PostgreSQL array as text: a fifth of the time that the driver needs for a list."""
    if isinstance(kind, String):
        items = ["NULL" if text is None else _quoted_item(text) for text in column]
    elif isinstance(kind, LargeBinary):
        items = ["NULL" if data is None else f'"\\\\x{data.hex()}"' for data in column]
    else:
        items = ["NULL" if number is None else str(number) for number in column]
    return f"{{{','.join(items)}}}"


def _quoted_item(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@cache
def _sqlite_insert(table: Table, columns: tuple[str, ...], count: int) -> str:
    names = ", ".join(map(_quoted, columns))
    marks = f"({', '.join('?' * len(columns))})"
    return (
        f"INSERT INTO {_quoted(table.name)} ({names})"  # noqa: S608 - our own names
        f" VALUES {', '.join([marks] * count)}"
    )


@cache
def _postgresql_given(table: Table, columns: tuple[str, ...]) -> str:
    """A query that makes rows of arrays."""
    values, arrays = [], []
    for position, column in enumerate(columns):
        kind = table.c[column].type
        is_moment = isinstance(kind, UtcSeconds)
        value = f"to_timestamp(c{position})" if is_moment else f"c{position}"
        values.append(f"{value} AS {_quoted(column)}")
        arrays.append(f"%s::{'bigint' if is_moment else kind.compile(_POSTGRESQL)}[]")
    aliases = ", ".join(f"c{position}" for position in range(len(columns)))
    return f"SELECT {', '.join(values)} FROM unnest({', '.join(arrays)}) AS given({aliases})"  # noqa: S608 - our own names


def _quoted(name: str) -> str:
    return f'"{name}"'

"""Rows as PostgreSQL's binary COPY reads them, made column by column. No database here: columns in, bytes out.

The format is that of PostgreSQL's documentation of COPY ("Binary Format"): a signature; each row's number of fields, and for each
field its length (-1 = null) and its bytes in network order; -1. Rows whose fields are equally long are made together, as one array.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import REAL, BigInteger, Boolean, Float, Integer, LargeBinary, SmallInteger, String
from sqlalchemy.types import TypeEngine

from fleet_server.models import UtcSeconds

Column = Sequence[Any] | NDArray[Any]
"""Items of one column. None is null, and so is NaN in an array; moments are integer seconds UTC."""

_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # no flags, no more header
_END = b"\xff\xff"
_NULL = -1
_EPOCH_S = 946_684_800  # PostgreSQL counts microseconds from 2000-01-01
_SECOND_US = 1_000_000
# The first that fits is taken: small and big integers are Integers, too, and single precision is a Float.
_NUMBERS: tuple[tuple[type[TypeEngine[Any]], str], ...] = (
    (UtcSeconds, ">i8"),
    (SmallInteger, ">i2"),
    (BigInteger, ">i8"),
    (Integer, ">i4"),
    (Boolean, "u1"),
    (REAL, ">f4"),
    (Float, ">f8"),
)


class DoesNotFit(ValueError):
    """A number is beyond its column's type."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """One column: numbers as PostgreSQL has them, or the bytes of texts, and how long each is."""

    content: NDArray[Any] | list[bytes]
    lengths: NDArray[np.int32]


def encode(kinds: Sequence[TypeEngine[Any]], columns: Sequence[Column]) -> bytes:
    """Rows for `COPY … FROM STDIN (FORMAT binary)` from columns of these types, equally long and not empty.

    Rows may come in another order. It is fast where all columns but the last have items of few lengths.

    Raises:
        DoesNotFit: a number is beyond its column's type.
    """
    fields = [_fields(kind, column) for kind, column in zip(kinds, columns, strict=True)]
    has_tail = isinstance(fields[-1].content, list)
    shaped = fields[:-1] if has_tail else fields
    parts: list[bytes] = [_HEAD]
    for members in _alike([field.lengths for field in shaped]):
        rows = _rows(fields, members, has_tail=has_tail)
        if has_tail:
            texts = fields[-1].content
            heads, width = rows.tobytes(), rows.itemsize
            for place, member in enumerate(members.tolist()):
                parts += (heads[place * width : (place + 1) * width], texts[member])
        else:
            parts.append(rows.tobytes())
    parts.append(_END)
    return b"".join(parts)


def _fields(kind: TypeEngine[Any], column: Column) -> _Fields:
    is_null = _nulls(column)
    content: NDArray[Any] | list[bytes]
    if is_null is not None and is_null.all():
        content = [b""] * len(is_null)
        lengths = np.empty(len(is_null), np.int32)
    elif isinstance(kind, String | LargeBinary):
        content = _texts(kind, column)
        lengths = np.fromiter(map(len, content), np.int32, len(content))
    else:
        content = _numbers(kind, column, is_null)
        lengths = np.full(len(content), content.itemsize, np.int32)
    if is_null is not None:
        lengths[is_null] = _NULL
    return _Fields(content, lengths)


def _nulls(column: Column) -> NDArray[np.bool_] | None:
    """Which items are null; None when none is."""
    if not isinstance(column, np.ndarray):
        nulls = column.count(None)
        if nulls in (0, len(column)):
            return np.ones(nulls, np.bool_) if nulls else None
        return np.fromiter((item is None for item in column), np.bool_, len(column))
    if column.dtype.kind != "f":
        return None
    is_null: NDArray[np.bool_] = np.isnan(column)
    return is_null if is_null.any() else None


def _texts(kind: TypeEngine[Any], column: Column) -> list[bytes]:
    """Bytes of texts or of bytes, none where there is nothing."""
    if isinstance(kind, String):
        return [b"" if text is None else text.encode() for text in column]
    return [data or b"" for data in column]


def _numbers(
    kind: TypeEngine[Any], column: Column, is_null: NDArray[np.bool_] | None
) -> NDArray[Any]:
    wanted = np.dtype(next(code for known, code in _NUMBERS if isinstance(kind, known)))
    if is_null is not None and not isinstance(column, np.ndarray):
        column = [0 if item is None else item for item in column]
    try:
        numbers = np.asarray(column, np.float64 if wanted.kind == "f" else np.int64)
        if isinstance(kind, UtcSeconds):
            numbers = (numbers - _EPOCH_S) * _SECOND_US
        with np.errstate(over="raise"):
            fitting = numbers.astype(wanted)
    except (OverflowError, FloatingPointError) as error:
        raise DoesNotFit(str(error)) from error
    if wanted.kind != "f" and not np.array_equal(fitting, numbers):
        raise DoesNotFit(f"a number does not fit into {kind!r}")
    return fitting


def _alike(lengths: Sequence[NDArray[np.int32]]) -> Iterator[NDArray[np.intp]]:
    """Places of rows whose fields have the same lengths, for each such set of lengths."""
    varying = [column for column in lengths if column.min() != column.max()]
    if not varying:
        yield np.arange(len(lengths[0]))
        return
    _, shapes = np.unique(np.stack(varying), axis=1, return_inverse=True)
    shapes = shapes.ravel()
    order = np.argsort(shapes, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(shapes[order])) + 1)


def _rows(fields: Sequence[_Fields], members: NDArray[np.intp], *, has_tail: bool) -> NDArray[Any]:
    """Rows that are alike, complete but for the bytes of the last field where that is a tail."""
    layout: list[tuple[str, str]] = [("count", ">i2")]
    lengths = [int(field.lengths[members[0]]) for field in fields]
    for place, (field, length) in enumerate(zip(fields, lengths, strict=True)):
        layout.append((f"length {place}", ">i4"))
        is_tail = has_tail and place == len(fields) - 1
        if length > 0 and not is_tail:
            content = field.content
            code = f"S{length}" if isinstance(content, list) else content.dtype.str
            layout.append((f"content {place}", code))
    rows = np.empty(len(members), layout)
    rows["count"] = len(fields)
    for place, field in enumerate(fields):
        rows[f"length {place}"] = field.lengths[members]
        if (name := f"content {place}") in rows.dtype.fields:  # type: ignore[operator]  # it has fields
            content = field.content
            rows[name] = (
                [content[member] for member in members.tolist()]
                if isinstance(content, list)
                else content[members]
            )
    return rows

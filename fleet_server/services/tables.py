"""Tables in files that people bring: text in whatever encoding, CSV with whatever separator. Bytes in, rows out; no database of ours.

What cannot be read at all is refused with one sentence (`FileWrong`); what a column means is the business of who imports the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet_server.errors import Invalid

LARGEST_FILE_BYTES = 10 * 1024 * 1024
MOST_ROWS = 200_000
MOST_COLUMNS = 200

_SEPARATORS = (";", ",", "\t")
_ARCHIVE_MAGIC = b"PK\x03\x04"
_TOO_MANY = "\0too many"
"""A column name that no file has: marks a row with more cells than the head has names."""


class FileWrong(Invalid):
    """The file cannot be read as a table."""

    code = "file_wrong"


@dataclass(frozen=True)
class Row:
    """One row: its number as the person who looks into the file finds it, its cells as text, and where it is (x east, y north)."""

    number: int
    cells: Mapping[str, str]
    position: tuple[float, float] | None = None


@dataclass(frozen=True)
class Table:
    """`epsg`: the coordinate system that the file itself names. `has_geometry`: positions come from it, not from columns.

    `encoding`: what its text was read as.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    has_geometry: bool = False
    epsg: int | None = None
    encoding: str = "UTF-8"


def refuse_large_or_empty(data: bytes) -> None:
    """Raises FileWrong."""
    if len(data) > LARGEST_FILE_BYTES:
        raise FileWrong(
            "The file has more than %(largest_mb)s MB; split it and import the parts.",
            largest_mb=LARGEST_FILE_BYTES // 1024**2,
        )
    if not data.strip():
        raise FileWrong("The file is empty.")


def read_text(data: bytes) -> tuple[str, str] | None:
    """Text and its encoding: UTF-8 with or without byte order mark, UTF-16 with one, else Windows-1252, which German spreadsheets write.

    None: it is no text. Raises FileWrong for a spreadsheet.
    """
    if data.startswith(_ARCHIVE_MAGIC):
        raise FileWrong(
            "This is a spreadsheet or an archive; save it as CSV (UTF-8) and import that."
        )
    encodings = {"utf-8-sig": "UTF-8", "cp1252": "Windows-1252"}
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = {"utf-16": "UTF-16"}
    for encoding, name in encodings.items():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return None if "\0" in text else (text, name)
    return None


def read_csv(text: str, *, encoding: str = "UTF-8") -> Table:
    """The table in a text, whose separator is seen from its head. Raises FileWrong."""
    # Only what ends lines of CSV: `splitlines` would also cut at characters inside a cell.
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=_separator(text))
    try:
        head = [cell.strip() for cell in next(reader, [])]
        columns = checked_columns(head)
        rows = []
        line = reader.line_num
        for cells in reader:
            number, line = line + 1, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(head):
                # More cells than the head names: which is which cannot be known. Told as a row that is wrong.
                cells = [*cells[: len(head)]]
                rows.append(Row(number, {_TOO_MANY: "1", **dict(zip(head, cells, strict=False))}))
            else:
                named = zip(head, cells, strict=False)
                rows.append(Row(number, {name: cell.strip() for name, cell in named if name}))
            refuse_too_many(rows)
    except csv.Error as problem:
        raise FileWrong(
            "Line %(line)s of the file is no CSV: %(problem)s.",
            line=reader.line_num,
            problem=problem,
        ) from problem
    return Table(columns, tuple(rows), encoding=encoding)


def has_too_many_cells(row: Row) -> bool:
    return _TOO_MANY in row.cells


def _separator(text: str) -> str:
    """The one that cuts the head into most columns."""
    head = next((line for line in io.StringIO(text) if line.strip()), "")

    def columns(separator: str) -> int:
        try:
            return len(next(csv.reader([head], delimiter=separator), []))
        except csv.Error:
            return 0

    return max(_SEPARATORS, key=columns)


def checked_columns(head: Sequence[str]) -> tuple[str, ...]:
    columns = [name for name in head if name]
    if not columns:
        raise FileWrong("The first line of the file has to name its columns.")
    if len(columns) > MOST_COLUMNS:
        raise FileWrong("The file has more than %(most)s columns.", most=MOST_COLUMNS)
    double = next((name for name in columns if columns.count(name) > 1), None)
    if double is not None:
        raise FileWrong("The file has two columns %(column)r; rename one of them.", column=double)
    return tuple(columns)


def refuse_too_many(rows: Sequence[Row]) -> None:
    if len(rows) > MOST_ROWS:
        raise FileWrong(
            "The file has more than %(most)s rows; split it and import the parts.", most=MOST_ROWS
        )

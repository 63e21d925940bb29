"""Measured series from CSV files: one column over time, in published units, with holes where nothing valid was.

Reads, never repairs: an empty, flagged, rejected, impossible or mis-dated value becomes a hole (`None`). What cannot be
read at all (a column that is not there, a unit nobody knows, a time that does not parse) is refused with one
sentence that names file and column.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from pathlib import Path
from types import MappingProxyType

# Longest hole that is bridged by a straight line between two measured neighbours, in native steps.
LONGEST_BRIDGE_STEPS = 2

# unit in the file → (published unit, factor, offset): published = value · factor + offset
UNITS: Mapping[str, tuple[str, float, float]] = MappingProxyType(
    {
        "mg/L": ("mg/L", 1.0, 0.0),
        "ug/L": ("mg/L", 1e-3, 0.0),
        "%": ("%", 1.0, 0.0),
        "1": ("%", 100.0, 0.0),
        "Cel": ("Cel", 1.0, 0.0),
        "degF": ("Cel", 5 / 9, -160 / 9),
        "K": ("Cel", 1.0, -273.15),
        "kPa": ("kPa", 1.0, 0.0),
        "cbar": ("kPa", 1.0, 0.0),
        "hPa": ("kPa", 0.1, 0.0),
        "mV": ("mV", 1.0, 0.0),
        "V": ("mV", 1000.0, 0.0),
        "m3/m3": ("m3/m3", 1.0, 0.0),
        "%vol": ("m3/m3", 0.01, 0.0),
        "pH": ("pH", 1.0, 0.0),
        "uS/cm": ("uS/cm", 1.0, 0.0),
        "mS/cm": ("uS/cm", 1000.0, 0.0),
        "FNU": ("FNU", 1.0, 0.0),
        "m": ("m", 1.0, 0.0),
        "cm": ("m", 0.01, 0.0),
    }
)


class SceneError(Exception):
    """A scene or one of its series cannot be used; the text is one sentence."""


@dataclass(frozen=True)
class Rejection:
    """A stretch of the file's own time that whoever wrote the scene does not believe, and why."""

    start: str
    end: str
    why: str


@dataclass(frozen=True)
class Column:
    """Where one channel's values stand in a CSV file, and how to read them.

    `flag_column` holds the provider's verdict; a value is dropped when its flag starts with one of `reject_flags`.
    `minimum`/`maximum`, in `unit`, bound what is possible; `utc_offset_h` is that of the file's clock.
    """

    file: Path
    column: str
    unit: str
    time_columns: tuple[str, ...]
    time_format: str
    utc_offset_h: float
    step_s: int
    delimiter: str = ","
    missing: tuple[str, ...] = ("", "NA", "NaN")
    flag_column: str = ""
    reject_flags: tuple[str, ...] = ()
    minimum: float = float("-inf")
    maximum: float = float("inf")
    rejections: tuple[Rejection, ...] = ()


@dataclass(frozen=True)
class Series:
    """One channel's measured values in published units; `None` is a hole. Times rise strictly, in UTC seconds."""

    times_s: tuple[int, ...]
    values: tuple[float | None, ...]
    step_s: int

    @property
    def span_s(self) -> int:
        """From the first row to one native step after the last: the length at which a repetition follows."""
        return self.times_s[-1] - self.times_s[0] + self.step_s

    def at(self, utc_s: float) -> float | None:
        """The value at a time of the series' own: measured, or on the line between two measured neighbours.

        The neighbours are at most `LONGEST_BRIDGE_STEPS` native steps apart (one row is missing); else, beside a
        row without a valid value, and outside, `None`.
        """
        right = bisect_right(self.times_s, utc_s)
        if right == 0:
            return None
        before_s, before = self.times_s[right - 1], self.values[right - 1]
        if before_s == utc_s or before is None or right == len(self.times_s):
            return before if before_s == utc_s else None
        after_s, after = self.times_s[right], self.values[right]
        if after is None or after_s - before_s > LONGEST_BRIDGE_STEPS * self.step_s:
            return None
        return before + (after - before) * (utc_s - before_s) / (after_s - before_s)


def published_unit(unit: str, *, where: str) -> str:
    """The unit that values in `unit` are published in. Raises SceneError when nobody knows it."""
    if unit not in UNITS:
        raise SceneError(f"{where}: the unit {unit} is not known; there are {', '.join(UNITS)}.")
    return UNITS[unit][0]


@lru_cache(maxsize=64)
def read_series(column: Column) -> Series:
    """Read one column. Raises SceneError: file missing or empty, column missing, time or number not parsable."""
    name = column.file.name
    header, rows = _rows(column.file, column.delimiter)
    at = {title: index for index, title in enumerate(header)}
    for wanted in (*column.time_columns, column.column, column.flag_column):
        if wanted and wanted not in at:
            raise SceneError(f"{name}: the column {wanted} is missing.")
    _, factor, offset = UNITS[column.unit]
    rejected = [
        (_parse_time(one.start, column, "reject"), _parse_time(one.end, column, "reject"))
        for one in column.rejections
    ]
    times_s: list[int] = []
    values: list[float | None] = []
    for row in rows:
        clock = " ".join(row[at[title]].strip() for title in column.time_columns)
        utc_s = _parse_time(clock, column, " + ".join(column.time_columns))
        # A clock that stands still or runs backwards cannot say when the row was measured.
        if times_s and utc_s <= times_s[-1]:
            continue
        flag = row[at[column.flag_column]].strip() if column.flag_column else ""
        value = _number(row[at[column.column]].strip(), column)
        if value is not None and (
            flag.startswith(column.reject_flags)
            or not column.minimum <= value <= column.maximum
            or any(start <= utc_s <= end for start, end in rejected)
        ):
            value = None
        times_s.append(utc_s)
        values.append(None if value is None else value * factor + offset)
    if all(value is None for value in values):
        raise SceneError(f"{name}: the column {column.column} holds no valid value.")
    return Series(times_s=tuple(times_s), values=tuple(values), step_s=column.step_s)


@lru_cache(maxsize=8)
def _rows(file: Path, delimiter: str) -> tuple[list[str], list[list[str]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            lines = [line for line in csv.reader(stream, delimiter=delimiter) if line]
    except FileNotFoundError:
        raise SceneError(f"The measured series {file.name} is not in {file.parent}.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SceneError(f"{file.name} cannot be read as CSV: {error}.") from error
    if len(lines) < 2:
        raise SceneError(f"{file.name} is empty.")
    header = [title.strip() for title in lines[0]]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) < len(header):
            raise SceneError(
                f"{file.name}: row {number} has {len(line)} of {len(header)} columns, "
                f"{header[len(line)]} is missing."
            )
    return header, lines[1:]


def _parse_time(clock: str, column: Column, title: str) -> int:
    try:
        local = datetime.strptime(clock, column.time_format).replace(tzinfo=UTC)
    except ValueError:
        raise SceneError(
            f"{column.file.name}: {clock!r} in the column {title} is not a time of the form "
            f"{column.time_format}."
        ) from None
    return int(local.timestamp() - column.utc_offset_h * 3600)


def _number(text: str, column: Column) -> float | None:
    if text in column.missing:
        return None
    try:
        value = float(text)
    except ValueError:
        raise SceneError(
            f"{column.file.name}: {text!r} in the column {column.column} is not a number."
        ) from None
    return value if isfinite(value) else None

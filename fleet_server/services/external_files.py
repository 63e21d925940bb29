"""Files of other people's measurements: which column is what, and every cell as a value, or as a sentence. Bytes in, values out; no database.

The same bytes by the same rules give the same bits: `fleet verify` reads every imported file again through here. What a site or a depth
is, and whether a time lies in the future, is the importing's business (`external_importing.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from fleet_server.errors import FleetError, Invalid
from fleet_server.measurement import given_units
from fleet_server.measurement.given_units import UnitUnknown, UnitUnlike
from fleet_server.models.observation import observation_id
from fleet_server.services.flag_reasons import Number
from fleet_server.services.tables import (
    FileWrong,
    Row,
    Table,
    has_too_many_cells,
    read_csv,
    read_text,
    refuse_large_or_empty,
)
from fleet_server.wire.states import QualityFlag

READER_VERSION = given_units.VERSION
MOST_VALUES = 200_000
MISSING_WORDS = ("", "-", "--", "n/a", "na", "k.a.", "n.b.")
_DEEPEST_CM = 10_000
_LONGEST_CELL = 200
_DATE_ORDERS = ("dmy", "mdy")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_GROUPS = {
    ",": re.compile(r"[+-]?[0-9]{1,3}(?:[.\s'][0-9]{3})+(?:,[0-9]*)?"),
    ".": re.compile(r"[+-]?[0-9]{1,3}(?:[,\s'][0-9]{3})+(?:\.[0-9]*)?"),
}
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity|unendlich)", re.IGNORECASE)
_ISO = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?)?\s*(Z|[+-]\d{2}:?\d{2})?"
)
_DOTTED = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:,?\s+(\d{1,2}):(\d{2})(?::(\d{2}))?)?")
_SLASHED = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})(?:,?\s+(\d{1,2}):(\d{2})(?::(\d{2}))?)?")
_CLOCK_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")


class CellWrong(Invalid):
    """A cell or a row that cannot be taken."""

    code = "cell_wrong"


@dataclass(frozen=True)
class ValueColumn:
    """A column of values. What is None is said by the column of that meaning, else it is not known.

    Attributes:
        u: standard uncertainty of every value, in the column's unit, as digits.
        u_column: where it stands row by row.
        flag_column: the provider's flags, which `MeasurementRules.flags` turns into ours.
    """

    column: str
    property: str | None = None
    unit: str | None = None
    depth_cm: int | None = None
    u: str | None = None
    u_column: str | None = None
    flag_column: str | None = None


@dataclass(frozen=True)
class MeasurementRules:
    """How a file is read: columns by their meaning, and what the file does not say itself.

    Attributes:
        values: one column (long form: `property` and `unit` say what each row is) or several (wide form).
        time: column of the time, or of the date when `clock_time` names one of its own.
        zone: of times that name none, like `Europe/Berlin` or `+01:00`.
        date_order: of dates with slashes, `dmy` or `mdy`.
        time_of_day: of dates without a time, `HH:MM`.
        flags: the provider's flag, or its first word → ours.
        missing: words that stand where there is no value, beside the usual ones.
        decimal: `,` or `.`; None: seen from the file.
        sites, properties: the file's names → our codes and properties.
        k: coverage factor of the uncertainties that are given; 1: they are standard uncertainties.
    """

    values: tuple[ValueColumn, ...]
    time: str
    clock_time: str | None = None
    zone: str | None = None
    date_order: str | None = None
    time_of_day: str | None = None
    site: str | None = None
    site_code: str | None = None
    property: str | None = None
    unit: str | None = None
    depth: str | None = None
    sample: str | None = None
    flags: Mapping[str, int] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    decimal: str | None = None
    k: str = "1"

    def stored(self) -> dict[str, Any]:
        """As it is kept beside the bytes."""
        stored = asdict(self)
        return {**stored, "values": [*stored["values"]], "missing": [*stored["missing"]]}


def rules_of(stored: Mapping[str, Any]) -> MeasurementRules:
    """The rules that were kept. Raises KeyError or TypeError when these are none."""
    rules = MeasurementRules(
        **{
            **stored,
            "values": tuple(ValueColumn(**one) for one in stored["values"]),
            "missing": tuple(stored.get("missing", ())),
        }
    )
    named = [(place.name, getattr(rules, place.name)) for place in fields(rules)]
    for column in rules.values:
        named += [(place.name, getattr(column, place.name)) for place in fields(column)]
    for name, value in named:
        if not _fits(name, value):
            raise TypeError(f"{name} is of another kind")
    return rules


_MAPPINGS: Mapping[str, type] = {"flags": int, "sites": str, "properties": str}


def _fits(name: str, value: object) -> bool:
    """Whether a rule is of the kind that it has to be; as JSON it could be any."""
    if name in _MAPPINGS:
        return isinstance(value, dict) and all(
            isinstance(key, str) and type(one) is _MAPPINGS[name] for key, one in value.items()
        )
    if name == "missing":
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    if name == "depth_cm":
        return value is None or (type(value) is int and 0 <= value <= _DEEPEST_CM)
    if name in ("column", "time", "k"):
        return isinstance(value, str)
    return name == "values" or value is None or isinstance(value, str)


@dataclass(frozen=True, slots=True)
class GivenValue:
    """A value in the published unit, with where it stands. `limit_sign`: it is known only to lie below `<` or above `>` `limit_value`."""

    row: int
    column: str
    site_code: str
    property: str
    depth_cm: int
    sampled_s: int
    value: float | None
    u: float | None
    flag: int
    limit_sign: str
    limit_value: float | None
    given: str
    given_unit: str
    sample: str


@dataclass(frozen=True)
class WrongCell:
    """What cannot be taken, where it stands, and the code that programs compare. `column` is empty when the whole row is meant."""

    row: int
    column: str
    sentence: str
    code: str


@dataclass
class ReadFile:
    """All of a file. `empty`: cells without a value; `backwards`: rows that are older than the row above."""

    values: list[GivenValue] = field(default_factory=list)
    wrong: list[WrongCell] = field(default_factory=list)
    empty: int = 0
    backwards: int = 0
    encoding: str = "UTF-8"


def read_measurements(data: bytes, rules: MeasurementRules) -> ReadFile:
    """Every value of a file. Raises FileWrong when it is no table at all, or the rules do not fit it."""
    table = read_table(data)
    check_rules(table, rules)
    return _Reader(table, rules).read()


def read_table(data: bytes) -> Table:
    """The table in a CSV file. Raises FileWrong."""
    refuse_large_or_empty(data)
    found = read_text(data)
    if found is None:
        raise FileWrong("This is no text in UTF-8 or Windows-1252; save it as CSV (UTF-8).")
    text, encoding = found
    table = read_csv(text, encoding=encoding)
    if not table.rows:
        raise FileWrong("The file has no rows below its head.")
    return table


def check_rules(table: Table, rules: MeasurementRules) -> None:
    """Raises FileWrong when the rules name columns that are not there, contradict themselves, or leave open what is what."""
    for column in _columns_of(rules):
        if column not in table.columns:
            known = ", ".join(table.columns)
            raise FileWrong(
                "The file has no column %(column)r; it has %(known)s.", column=column, known=known
            )
    if not rules.values:
        raise FileWrong("Which column holds the values? Name it, with its property and unit.")
    if (rules.site is None) == (rules.site_code is None):
        raise FileWrong("Where was measured? Name either the column of the sites or one site.")
    for one in rules.values:
        _check_column(one, rules)
    _check_words(rules)


def _columns_of(rules: MeasurementRules) -> Iterator[str]:
    named = (rules.time, rules.clock_time, rules.site, rules.property, rules.unit, rules.depth)
    for one in (*named, rules.sample):
        if one is not None:
            yield one
    for column in rules.values:
        for one in (column.column, column.u_column, column.flag_column):
            if one is not None:
                yield one


def _check_column(one: ValueColumn, rules: MeasurementRules) -> None:
    if one.property is None and rules.property is None:
        raise FileWrong(
            "What is measured in column %(column)r? Name its property.", column=one.column
        )
    if one.unit is None and rules.unit is None:
        raise FileWrong("In which unit is column %(column)r? Name it.", column=one.column)
    if one.property is not None:
        _check_property(one.property)
    if one.property is not None and one.unit is not None:
        _converted(Fraction(0), one.unit, one.property)
    if one.u is not None and _positive(one.u) is None:
        raise FileWrong("The uncertainty %(u)r is no number above zero.", u=one.u)
    if one.u is not None and one.u_column is not None:
        raise FileWrong("Give the uncertainty of %(column)r once.", column=one.column)
    if one.flag_column is not None and not rules.flags:
        raise FileWrong("Say what the provider's flags mean, like <0>=1 for good.")


def _check_words(rules: MeasurementRules) -> None:
    if _positive(rules.k) is None or not 1 <= float(rules.k) <= 5:
        raise FileWrong("The coverage factor %(k)r is no number from 1 to 5.", k=rules.k)
    if rules.decimal not in (None, ",", "."):
        raise FileWrong("The decimal mark is a comma or a point.")
    if rules.date_order not in (None, *_DATE_ORDERS):
        raise FileWrong("The order of dates is dmy or mdy.")
    if rules.time_of_day is not None and _clock_time(rules.time_of_day) is None:
        raise FileWrong("%(text)r is no time of day; write it like 12:00.", text=rules.time_of_day)
    if rules.zone is not None:
        zone_of(rules.zone)
    for name in rules.properties.values():
        _check_property(name)
    for word, flag in rules.flags.items():
        if flag not in list(QualityFlag):
            raise FileWrong("%(word)r stands for one of the flags 1, 2, 3, 4, 9.", word=word)


def _positive(text: str) -> Fraction | None:
    number = Fraction(Decimal(text)) if _NUMBER.fullmatch(text) else None
    return number if number is not None and number > 0 else None


def zone_of(name: str) -> tzinfo:
    """A time zone by its name or its offset. Raises FileWrong.

    >>> zone_of("+01:00")
    datetime.timezone(datetime.timedelta(seconds=3600))
    """
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        span = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        if span < timedelta(hours=15):
            return timezone(-span if offset[1] == "-" else span)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as problem:
        raise FileWrong(
            "There is no time zone %(zone)r; write it like Europe/Berlin or +01:00.", zone=name
        ) from problem


# ------------------------------------------------------------------------------------------------------------------ rows


class _Reader:
    def __init__(self, table: Table, rules: MeasurementRules) -> None:
        self._table = table
        self._rules = rules
        self._zone = None if rules.zone is None else zone_of(rules.zone)
        self._decimal = rules.decimal or _decimal_mark(table, rules)
        self._missing = {*MISSING_WORDS, *(word.strip().casefold() for word in rules.missing)}
        self._k = Fraction(Decimal(rules.k))
        self._read = ReadFile(encoding=table.encoding)
        self._first_rows: dict[tuple[str, str, int, int], int] = {}
        self._last_s: dict[str, int] = {}

    def read(self) -> ReadFile:
        for row in self._table.rows:
            if has_too_many_cells(row):
                self._wrong(row, "", CellWrong("The row has more cells than the head has columns."))
                continue
            self._read_row(row)
        return self._read

    def _read_row(self, row: Row) -> None:
        rules = self._rules
        given = [one for one in rules.values if not self._is_missing(row.cells.get(one.column, ""))]
        self._read.empty += len(rules.values) - len(given)
        if not given:
            return
        try:
            sampled_s = self._time(row)
        except FleetError as problem:
            self._wrong(row, rules.time, problem)
            return
        site_code = rules.site_code or row.cells.get(rules.site or "", "")
        site_code = rules.sites.get(site_code, site_code)
        if not site_code:
            self._wrong(row, rules.site or "", CellWrong("The row names no site."))
            return
        if sampled_s < self._last_s.get(site_code, sampled_s):
            self._read.backwards += 1
        self._last_s[site_code] = sampled_s
        for column in given:
            try:
                self._take(self._value(row, column, site_code, sampled_s))
            except FleetError as problem:
                self._wrong(row, column.column, problem)

    def _take(self, one: GivenValue) -> None:
        if len(self._read.values) >= MOST_VALUES:
            raise FileWrong(
                "The file has more than %(most)s values; split it and import the parts.",
                most=MOST_VALUES,
            )
        instant = (one.site_code, one.property, one.depth_cm, one.sampled_s)
        if instant in self._first_rows:
            raise CellWrong(
                "Row %(row)s gives a value of the same instant already.",
                row=self._first_rows[instant],
            )
        self._first_rows[instant] = one.row
        self._read.values.append(one)

    def _value(self, row: Row, column: ValueColumn, site_code: str, sampled_s: int) -> GivenValue:
        rules, given = self._rules, row.cells[column.column]
        named = column.property or row.cells.get(rules.property or "", "")
        observed_property = rules.properties.get(named, named)
        _check_property(observed_property)
        unit = column.unit if column.unit is not None else row.cells.get(rules.unit or "", "")
        depth_cm = self._depth(row, column, observed_property)
        sign = given[0] if given[0] in "<>" else ""
        number = self._number(given[len(sign) :].strip(), given)
        value = _converted(number, unit, observed_property)
        flag = self._flag(row, column)
        _check_possible(value, observed_property, flag)
        u = self._u(row, column)
        return GivenValue(
            row=row.number,
            column=column.column,
            site_code=site_code,
            property=observed_property,
            depth_cm=depth_cm,
            sampled_s=sampled_s,
            value=None if sign else value,
            u=None if sign or u is None else _converted_u(u, number, unit, observed_property),
            flag=QualityFlag.MISSING if sign else flag,
            limit_sign=sign,
            limit_value=value if sign else None,
            given=given[:_LONGEST_CELL],
            given_unit=unit[:_LONGEST_CELL],
            sample=row.cells.get(rules.sample or "", "")[:_LONGEST_CELL],
        )

    def _is_missing(self, cell: str) -> bool:
        return cell.casefold() in self._missing

    def _depth(self, row: Row, column: ValueColumn, observed_property: str) -> int:
        if column.depth_cm is not None:
            return column.depth_cm
        text = row.cells.get(self._rules.depth or "", "")
        if not text:
            if observed_property.startswith("soil_"):
                raise CellWrong("At which depth was the soil measured? Name it in cm.")
            return 0
        depth = self._number(text, text)
        if depth.denominator != 1 or not 0 <= depth <= _DEEPEST_CM:
            raise CellWrong("The depth %(text)r is no whole number of cm.", text=text)
        return int(depth)

    def _number(self, text: str, cell: str) -> Fraction:
        if len(text) > _LONGEST_CELL:
            raise CellWrong("The cell has more than %(most)s characters.", most=_LONGEST_CELL)
        if _NOT_FINITE.fullmatch(text):
            raise CellWrong(
                "%(cell)r is no number; leave the cell empty where there is no value, or say that %(cell)s stands for none.",
                cell=cell,
            )
        plain = text.replace("−", "-").replace("\u00a0", " ").replace("\u202f", " ")
        if _GROUPS[self._decimal].fullmatch(plain):
            plain = re.sub(r"[\s'.]" if self._decimal == "," else r"[\s',]", "", plain)
        if self._decimal == ",":
            if "." in plain:
                raise CellWrong(
                    "%(cell)r has a decimal point in a file with decimal commas; say which mark it is.",
                    cell=cell,
                )
            plain = plain.replace(",", ".")
        if not _NUMBER.fullmatch(plain):
            raise CellWrong("%(cell)r is no number.", cell=cell)
        return Fraction(Decimal(plain))

    def _u(self, row: Row, column: ValueColumn) -> Fraction | None:
        """Standard uncertainty in the column's unit; None: nobody said."""
        text = column.u
        if column.u_column is not None:
            text = row.cells.get(column.u_column, "")
            if self._is_missing(text):
                return None
            number = self._number(text, text)
        elif text is None:
            return None
        else:
            number = Fraction(Decimal(text))
        if number <= 0:
            raise CellWrong(
                "An uncertainty of %(text)s cannot be; leave it empty when nobody knows it.",
                text=text,
            )
        return number / self._k

    def _flag(self, row: Row, column: ValueColumn) -> int:
        if column.flag_column is None:
            return QualityFlag.NOT_EVALUATED
        text = row.cells.get(column.flag_column, "").strip()
        if not text:
            return QualityFlag.NOT_EVALUATED
        flags = self._rules.flags
        for word in (text, text.split()[0]):
            if word in flags:
                if flags[word] == QualityFlag.MISSING:
                    raise CellWrong("The flag says that there is no value, and there is one.")
                return flags[word]
        raise CellWrong("Nobody said what the flag %(text)r means; name it.", text=text)

    # -- times

    def _time(self, row: Row) -> int:
        rules = self._rules
        text = row.cells.get(rules.time, "")
        if rules.clock_time is not None:
            text = f"{text} {row.cells.get(rules.clock_time, '')}".strip()
        moment = self._moment(text)
        try:
            observation_id(1, moment)
        except ValueError as problem:
            raise CellWrong(
                "The time %(text)r lies before 2000 or after 2067, of which nothing is kept.",
                text=text,
            ) from problem
        return int(moment.timestamp())

    def _moment(self, text: str) -> datetime:
        if not text:
            raise CellWrong("The row has no time.")
        day, at, offset = self._parts(text)
        if at is None and self._rules.time_of_day is not None:
            at = _clock_time(self._rules.time_of_day)
        if at is None:
            raise CellWrong(
                "%(text)r is a day without a time; say at which time of day, like 12:00.", text=text
            )
        local = datetime.combine(day, at)
        if offset:
            return local.replace(tzinfo=UTC if offset == "Z" else zone_of(offset))
        if self._zone is None:
            raise CellWrong(
                "%(text)r names no time zone; say in which the times are, like Europe/Berlin.",
                text=text,
            )
        return _in_zone(local, self._zone, text)

    def _parts(self, text: str) -> tuple[date, time | None, str]:
        iso, dotted, slashed = (one.fullmatch(text) for one in (_ISO, _DOTTED, _SLASHED))
        if iso is not None:
            if iso[7] and iso[7].strip("0"):
                raise CellWrong("%(text)r is not to the second; round it.", text=text)
            return (
                self._day(text, iso[1], iso[2], iso[3]),
                _at(text, *iso.group(4, 5, 6)),
                iso[8] or "",
            )
        if dotted is not None:
            day = self._day(text, dotted[3], dotted[2], dotted[1])
            return day, _at(text, *dotted.group(4, 5, 6)), ""
        if slashed is not None:
            order = self._rules.date_order
            if order is None:
                raise CellWrong("Is %(text)r day/month or month/day? Say dmy or mdy.", text=text)
            month, day_of_month = (
                (slashed[2], slashed[1]) if order == "dmy" else slashed.group(1, 2)
            )
            day = self._day(text, slashed[3], month, day_of_month)
            return day, _at(text, *slashed.group(4, 5, 6)), ""
        raise CellWrong(
            "%(text)r is no time; write it like 2026-07-01T12:00:00Z or 01.07.2026 14:00.",
            text=text,
        )

    def _day(self, text: str, year: str, month: str, day: str) -> date:
        try:
            return date(int(year), int(month), int(day))
        except ValueError as problem:
            raise CellWrong("There is no such day as in %(text)r.", text=text) from problem

    def _wrong(self, row: Row, column: str, problem: FleetError) -> None:
        self._read.wrong.append(WrongCell(row.number, column, problem.said, problem.code))


def _at(text: str, hour: str | None, minute: str | None, second: str | None) -> time | None:
    if hour is None or minute is None:
        return None
    try:
        return time(int(hour), int(minute), int(second or 0))
    except ValueError as problem:
        raise CellWrong("There is no such time as in %(text)r.", text=text) from problem


def _clock_time(text: str) -> time | None:
    found = _CLOCK_TIME.fullmatch(text)
    try:
        return None if found is None else time(int(found[1]), int(found[2]), int(found[3] or 0))
    except ValueError:
        return None


def _in_zone(local: datetime, zone: tzinfo, text: str) -> datetime:
    """A local time that there is, once. In a night of clock change an hour is twice, or not at all."""
    first, second = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return first
    if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        raise CellWrong(
            "There is no %(text)r in this time zone: the clocks were put forward; write the time with its offset, like +02:00.",
            text=text,
        )
    raise CellWrong(
        "%(text)r is twice in this time zone: the clocks were put back; write the time with its offset, like +02:00.",
        text=text,
    )


def _decimal_mark(table: Table, rules: MeasurementRules) -> str:
    """Comma where a value can only be read so; thousands are set off by the other."""
    columns = [one for value in rules.values for one in (value.column, value.u_column) if one]
    for row in table.rows:
        for column in columns:
            cell = row.cells.get(column, "").lstrip("<> ")
            comma = cell.rfind(",")
            if comma < 0 or cell.count(",") > 1:
                continue
            is_group = re.fullmatch(r"[+-]?[0-9]{1,3},[0-9]{3}", cell) is not None
            if comma > cell.rfind(".") and not is_group:
                return ","
    return "," if _has_lone_groups(table, columns) else "."


def _has_lone_groups(table: Table, columns: Sequence[str]) -> bool:
    """Whether a comma stands before three figures everywhere: `7,125` is more likely a number of ours than seven thousand."""
    cells = (row.cells.get(column, "") for row in table.rows for column in columns)
    has_comma = False
    for cell in cells:
        if "." in cell:
            return False
        has_comma |= "," in cell
    return has_comma


def _check_property(name: str) -> None:
    if name not in given_units.PROPERTIES:
        raise CellWrong(
            "%(name)r is no property that can be given; one is %(known)s.",
            name=name,
            known=", ".join(given_units.PROPERTIES),
        )


def _converted(number: Fraction, unit: str, observed_property: str) -> float:
    try:
        value = given_units.converted(number, unit, observed_property)
    except UnitUnlike as problem:
        raise CellWrong(
            "%(unit)s does not measure %(property)s in %(ours)s: no factor leads from one to the other.",
            unit=str(problem),
            property=observed_property,
            ours=given_units.PROPERTIES[observed_property].unit,
        ) from problem
    except UnitUnknown as problem:
        raise CellWrong(
            "%(property)s is not given in %(unit)r, but in %(known)s.",
            property=observed_property,
            unit=problem.unit,
            known=", ".join(problem.known),
        ) from problem
    except OverflowError as problem:
        raise CellWrong("The number is larger than any.") from problem
    return value


def _converted_u(u: Fraction, number: Fraction, unit: str, observed_property: str) -> float:
    try:
        found = given_units.converted_u(u, number, unit, observed_property)
    except OverflowError as problem:
        raise CellWrong("The uncertainty is larger than any.") from problem
    if not 1e-30 < found < 1e30:  # as it is kept, in single precision
        raise CellWrong("An uncertainty of %(u)s cannot be.", u=f"{found:g}")
    return found


def _check_possible(value: float, observed_property: str, flag: int) -> None:
    """Whoever calls a value bad themselves is believed; anybody else has perhaps named the wrong unit."""
    low, high = given_units.PROPERTIES[observed_property].possible
    if flag != QualityFlag.BAD and not low <= value <= high:
        raise CellWrong(
            "%(value)s %(unit)s is no possible %(property)s; is the unit right?",
            value=Number(value),
            unit=given_units.PROPERTIES[observed_property].unit,
            property=observed_property,
        )
    if not math.isfinite(value):
        raise CellWrong("The number is larger than any.")

"""`fleet measurement`: what others measured, beside what the nodes do."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.moments import UtcTime
from fleet_server.cli.named_nodes import moment_text
from fleet_server.errors import Invalid
from fleet_server.measurement import given_units
from fleet_server.models import ExternalImport, ImportKind
from fleet_server.services import check_points, external_importing, hand_readings, keyset
from fleet_server.services.check_points import CheckPoint, ProbeTrend
from fleet_server.services.external_files import MeasurementRules, ValueColumn, rules_of
from fleet_server.services.external_importing import ImportPlan, Origin
from fleet_server.services.hand_readings import HandReading
from fleet_server.services.tables import LARGEST_FILE_BYTES

_AT_ONCE = 500
_NUMBER = click.IntRange(1, 2**31 - 1)
_KEYS = {
    "property": "property",
    "unit": "unit",
    "depth": "depth_cm",
    "u": "u",
    "u-column": "u_column",
    "flag-column": "flag_column",
}


class _Column(click.ParamType[ValueColumn]):
    """`COLUMN,property=…,unit=…[,depth=CM][,u=…][,u-column=…][,flag-column=…]`."""

    name = "COLUMN,property=…,unit=…"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> ValueColumn:
        column, *pairs = next(csv.reader([str(value)]), [""])
        given: dict[str, Any] = {}
        for pair in pairs:
            key, equals, text = pair.partition("=")
            if not (equals and key.strip() in _KEYS):
                self.fail(f"{pair!r} is none of {', '.join(_KEYS)} with =.", param, ctx)
            given[_KEYS[key.strip()]] = text.strip()
        if "depth_cm" in given:
            if not given["depth_cm"].isdecimal() or len(given["depth_cm"]) > 5:
                self.fail(f"{given['depth_cm']!r} is no depth in whole cm.", param, ctx)
            given["depth_cm"] = int(given["depth_cm"])
        return ValueColumn(column.strip(), **given)


class _Pair(click.ParamType[tuple[str, str]]):
    """`THEIRS=OURS`."""

    name = "THEIRS=OURS"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        theirs, equals, ours = (part.strip() for part in str(value).rpartition("="))
        if not (theirs and equals and ours):
            self.fail(f"{value!r} is not THEIRS=OURS.", param, ctx)
        return theirs, ours


@click.group()
def measurement() -> None:
    """Hand readings, laboratory values and other networks' measurements, with where they come from.

    Example: fleet measurement list
    """


@measurement.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice([one.value for one in ImportKind]),
    default="third_party",
    show_default=True,
)
@click.option("--source", required=True, help="Who measured: person, laboratory, system.")
@click.option("--method", default="", help="How, like DIN EN ISO 5814.")
@click.option("--instrument", default="", help="With what, and its serial number.")
@click.option("--report", "report_number", default="", help="Number of report or certificate.")
@click.option("--note", default="")
@click.option(
    "--rules",
    "rules_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="How the file is read, as `fleet measurement show N --rules` wrote it; instead of the options below.",
)
@click.option(
    "--values", "columns", type=_Column(), multiple=True, help="A column of values; repeat."
)
@click.option("--time", "time_column", help="Column of the time, or of the date.")
@click.option("--clock-time", help="Column of the time of day, beside that of the date.")
@click.option("--zone", help="Of times that name none, like Europe/Berlin or +01:00.")
@click.option("--date-order", type=click.Choice(["dmy", "mdy"]), help="Of dates with slashes.")
@click.option("--time-of-day", help="Of dates without a time, like 12:00.")
@click.option("--site", "site_code", help="The site of all rows.")
@click.option("--site-column", "site", help="Column of the site's code.")
@click.option("--site-name", "sites", type=_Pair(), multiple=True, help="Their name of a site.")
@click.option("--property-column", "property", help="Column that says what was measured.")
@click.option(
    "--property-name", "properties", type=_Pair(), multiple=True, help="Their name of a property."
)
@click.option("--unit-column", "unit", help="Column of the unit.")
@click.option("--depth-column", "depth", help="Column of the depth in cm.")
@click.option("--sample-column", "sample", help="Column of the sample's number.")
@click.option("--flag", "flags", type=_Pair(), multiple=True, help="Their flag, ours: 1 2 3 4 9.")
@click.option("--missing", multiple=True, help="A word that stands where there is no value.")
@click.option("--decimal", type=click.Choice([",", "."]), help="[default: seen from the file]")
@click.option("--k", default="1", help="Coverage factor of given uncertainties. [default: 1]")
@click.option("--rehearse", is_flag=True, help="Only say what would happen.")
@data_option
@json_option
def import_file(
    *,
    file: Path,
    kind: str,
    rules_file: Path | None,
    columns: tuple[ValueColumn, ...],
    time_column: str | None,
    rehearse: bool,
    data_dir: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Import all values of FILE (CSV), or none: when a cell is wrong every wrong one is told, and the exit status is 1.

    Example: fleet measurement import labor.csv --kind laboratory --source "Umweltlabor" --report 4711 --site stadtpark-teich --time Datum --zone Europe/Berlin --values "O2,property=dissolved_oxygen,unit=mg/L,u=0.2" --rehearse
    """
    if file.stat().st_size > LARGEST_FILE_BYTES:
        raise Invalid(f"{file} has more than {LARGEST_FILE_BYTES // 1024**2} MB; split it.")
    about = {name: given.pop(name) for name in ("source", "method", "instrument", "report_number")}
    origin = Origin(ImportKind(kind), note=given.pop("note"), file_name=file.name, **about)
    if rules_file is not None:
        rules = _rules_in(rules_file)
    elif time_column is None:
        raise click.UsageError("Which column is the time? Name it with --time.")
    else:
        rules = _rules(columns, time_column, given)
    data = file.read_bytes()
    with open_session(data_dir) as session:
        now = clock.now()
        if rehearse:
            plan = external_importing.plan_import(session, data, rules, now=now)
            number = None
        else:
            done = external_importing.import_measurements(session, data, rules, origin, now=now)
            plan, number = done.plan, done.import_id
    answer(
        {"import": number, "rehearsal": rehearse, **_plan_document(plan)},
        "\n".join(_told(plan, number, rehearse=rehearse)),
        as_json=as_json,
    )
    sys.exit(0 if not plan.wrong_count and plan.values_count else 1)


def _rules(
    columns: tuple[ValueColumn, ...], time_column: str, given: Mapping[str, Any]
) -> MeasurementRules:
    flags = {}
    for theirs, ours in given["flags"]:
        if ours not in ("1", "2", "3", "4", "9"):
            raise click.UsageError(f"{theirs} stands for one of the flags 1, 2, 3, 4, 9.")
        flags[theirs] = int(ours)
    return MeasurementRules(
        columns,
        time_column,
        **{
            **given,
            "flags": flags,
            "sites": dict(given["sites"]),
            "properties": dict(given["properties"]),
        },
    )


def _rules_in(file: Path) -> MeasurementRules:
    try:
        return rules_of(json.loads(file.read_bytes()))
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise Invalid(
            f"{file} holds no rules; `fleet measurement show N --rules` writes some."
        ) from problem


# A value may begin with a minus, and is no option then.
@measurement.command(context_settings={"ignore_unknown_options": True})
@click.argument("site")
@click.argument(
    "observed_property", metavar="PROPERTY", type=click.Choice([*given_units.PROPERTIES])
)
@click.argument("value")
@click.argument("unit")
@click.option("--at", "at", type=UtcTime(), help="When, in UTC. [default: now]")
@click.option("--depth", "depth_cm", type=click.IntRange(0, 10_000), help="In cm; soil needs it.")
@click.option("--u", default="", help="Standard uncertainty, in the same unit.")
@click.option("--instrument", default="", help="With what, and its serial number.")
@click.option("--by", "source", required=True, help="Who read it.")
@click.option("--note", default="")
@data_option
@json_option
def hand(
    *,
    site: str,
    observed_property: str,
    value: str,
    unit: str,
    at: datetime | None,
    data_dir: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Write down one reading of a staff gauge, a thermometer, a hand probe, a pF meter.

    Example: fleet measurement hand stadtpark-teich water_level 1,42 m --by "Ada Kern" --instrument "Pegellatte"
    """
    with open_session(data_dir) as session:
        now = clock.now()
        reading = HandReading(site, observed_property, value, unit, at or now, **given)
        number = hand_readings.take_down(session, reading, now=now)
    answer({"import": number}, f"It is kept as import {number}.", as_json=as_json)


@measurement.command(name="list")
@click.option("--site", "site_code", help="Only those with values of this site.")
@data_option
@json_option
def list_imports(*, site_code: str | None, data_dir: str | None, as_json: bool) -> None:
    """Imports, newest first.

    Example: fleet measurement list --site stadtpark-teich
    """
    found: list[ExternalImport] = []
    with open_session(data_dir) as session:
        after: keyset.Key | None = None
        while True:
            page = external_importing.import_page(
                session, limit=_AT_ONCE, after=after, site_code=site_code
            )
            found += page.items
            after = page.next_key
            if after is None:
                break
        rows = [_document(one) for one in found]
        lines = [_line(one) for one in found]
    answer({"imports": rows}, "\n".join(lines) or "Nothing was imported.", as_json=as_json)


@measurement.command()
@click.argument("number", type=_NUMBER)
@click.option("--rules", "only_rules", is_flag=True, help="Only how its file was read, as JSON.")
@click.option("--file", "only_file", is_flag=True, help="Only its file, byte for byte.")
@data_option
@json_option
def show(
    *, number: int, only_rules: bool, only_file: bool, data_dir: str | None, as_json: bool
) -> None:
    """One import: who, how, from which file; with --rules what a next file of the same kind is read by.

    Example: fleet measurement show 3 --rules > labor.json
    """
    with open_session(data_dir) as session:
        row = external_importing.import_of(session, number)
        if only_file:
            click.echo(row.content, nl=False)
        elif only_rules:
            click.echo(json.dumps(row.rules))
        else:
            fields = _document(row)
            lines = [
                f"{name}: {value}" for name, value in fields.items() if value not in ("", None)
            ]
            answer({**fields, "rules": row.rules}, "\n".join(lines), as_json=as_json)


@measurement.command()
@click.argument("number", type=_NUMBER)
@click.option("--reason", required=True, help="Why; it is kept.")
@data_option
@json_option
def withdraw(*, number: int, reason: str, data_dir: str | None, as_json: bool) -> None:
    """Take an import back: what was there before is there again, what it said stays readable.

    Example: fleet measurement withdraw 3 --reason "the wrong pond"
    """
    with open_session(data_dir) as session:
        row = external_importing.withdraw_import(session, number, reason=reason, now=clock.now())
        fields = _document(row)
    answer(fields, f"Import {number} is withdrawn.", as_json=as_json)


@measurement.command(name="check-points")
@click.option("--site", "site_code", help="Only of this site.")
@click.option("--probe", "serial", help="Only beside this probe's values: its serial number.")
@click.option(
    "--window-minutes",
    type=click.IntRange(0, 24 * 60),
    default=60,
    show_default=True,
    help="How far the probe's value may lie from the other, on each side.",
)
@data_option
@json_option
def list_check_points(
    *,
    site_code: str | None,
    serial: str | None,
    window_minutes: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """What others measured beside what the probe showed then: difference, its uncertainty, E_n (at most 1 agrees), trend.

    Example: fleet measurement check-points --site stadtpark-teich
    """
    with open_session(data_dir) as session:
        points = check_points.check_points(
            session, site_code=site_code, serial=serial, window=timedelta(minutes=window_minutes)
        )
    trends = check_points.trends(points)
    lines = [_point_line(one) for one in points] + [_trend_line(one) for one in trends]
    answer(
        {
            "check_points": [_point_document(one) for one in points],
            "trends": [_trend_document(one) for one in trends],
        },
        "\n".join(lines) or "Nobody else measured what a probe measures there.",
        as_json=as_json,
    )


def _point_line(one: CheckPoint) -> str:
    unit = f" {one.unit}" if one.unit else ""
    given = f"{one.limit_sign} {one.limit_value:g}" if one.limit_sign else _number(one.given)
    told = f"{one.observation_id}  {moment_text(one.at)}  {one.site_code} {one.observed_property} {one.depth_cm} cm  {one.source}: {given}{unit}"
    if one.measured is None:
        return f"{told}; no value of a probe near"
    told += f"; {one.serial}: {one.measured.value:.6g}{unit}"
    if one.difference is not None:
        told += f"; difference {one.difference:+.3g}{unit}"
    if one.en is not None:
        told += f", En {one.en:+.2f}, {'agrees' if one.agrees else 'does not agree'}"
    elif one.difference is not None:
        told += ", uncertainty not known"
    return told


def _number(number: float | None) -> str:
    return "–" if number is None else f"{number:.6g}"


def _trend_line(one: ProbeTrend) -> str:
    what = f"{one.serial} {one.observed_property} {one.depth_cm} cm, {one.count} check points"
    if one.trend is None:
        return f"{what}: a trend wants three"
    slopes = [line.slope for line in (one.trend.line, one.trend.low, one.trend.high)]
    return "{}: {:+.3g} {unit} a day (90 %: {:+.3g} to {:+.3g})".format(
        what, *slopes, unit=one.unit
    )


def _point_document(one: CheckPoint) -> dict[str, Any]:
    measured = one.measured
    return {
        "site": one.site_code,
        "property": one.observed_property,
        "depth_cm": one.depth_cm,
        "unit": one.unit,
        "at": moment_text(one.at),
        "observation": one.observation_id,
        "import": one.import_id,
        "source": one.source,
        "given": one.given,
        "given_u": one.given_u,
        "limit_sign": one.limit_sign,
        "limit_value": one.limit_value,
        "serial": one.serial,
        "measured": None if measured is None else measured.value,
        "measured_u": None if measured is None else measured.u,
        "away_s": None if measured is None else measured.away_s,
        "is_interpolated": measured is not None and measured.is_interpolated,
        "is_corrected": one.is_corrected,
        "difference": one.difference,
        "difference_u": one.difference_u,
        "en": one.en,
        "agrees": one.agrees,
    }


def _trend_document(one: ProbeTrend) -> dict[str, Any]:
    trend = one.trend
    return {
        "serial": one.serial,
        "property": one.observed_property,
        "depth_cm": one.depth_cm,
        "unit": one.unit,
        "count": one.count,
        "per_day": None if trend is None else trend.line.slope,
        "per_day_low": None if trend is None else trend.low.slope,
        "per_day_high": None if trend is None else trend.high.slope,
    }


def _told(plan: ImportPlan, number: int | None, *, rehearse: bool) -> list[str]:
    lines = [f"Row {one.row}{_in(one.column)}: {one.sentence}" for one in plan.wrong]
    if plan.wrong_count > len(plan.wrong):
        lines.append(f"{plan.wrong_count - len(plan.wrong)} further cells are wrong.")
    lines += [f"{name}: {count} values" for name, count in plan.streams.items()]
    lines.append(
        f"{plan.new} new, {plan.replacing} in place of others, {plan.empty} cells empty,"
        f" {plan.without_u} without uncertainty, {plan.limits} below or above a limit; read as {plan.encoding}."
    )
    if plan.backwards:
        lines.append(
            f"{plan.backwards} rows are older than the row above; they are taken as they stand."
        )
    if number is not None:
        lines.append(f"Imported as import {number}.")
    elif rehearse:
        lines.append("Nothing was changed; without --rehearse it is.")
    else:
        lines.append("Nothing was imported.")
    return lines


def _in(column: str) -> str:
    return f", {column}" if column else ""


def _plan_document(plan: ImportPlan) -> dict[str, Any]:
    return {
        "new": plan.new,
        "replacing": plan.replacing,
        "empty": plan.empty,
        "without_u": plan.without_u,
        "limits": plan.limits,
        "backwards": plan.backwards,
        "encoding": plan.encoding,
        "streams": dict(plan.streams),
        "wrong_count": plan.wrong_count,
        "wrong": [
            {"row": one.row, "column": one.column, "code": one.code, "sentence": one.sentence}
            for one in plan.wrong
        ],
    }


def _line(row: ExternalImport) -> str:
    state = "  (withdrawn)" if row.withdrawn_at is not None else ""
    return f"{row.id}  {row.kind}  {row.source}  {row.file_name}  {row.values_count} values, {moment_text(row.imported_at)}{state}"


def _document(row: ExternalImport) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": str(row.kind),
        "source": row.source,
        "method": row.method,
        "instrument": row.instrument,
        "report_number": row.report_number,
        "note": row.note,
        "file_name": row.file_name,
        "sha256": row.content_sha256,
        "values": row.values_count,
        "author": row.author,
        "imported_at": moment_text(row.imported_at),
        "withdrawn_by": row.withdrawn_by,
        "withdrawn_at": moment_text(row.withdrawn_at),
        "withdrawn_reason": row.withdrawn_reason,
    }

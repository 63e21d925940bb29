"""`fleet correction`: what a probe lost between two visits, put right in its values."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from fleet_server import clock
from fleet_server.cli.answers import MeasuredRange, answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.moments import EXAMPLE_TIME, UtcTime
from fleet_server.cli.named_nodes import moment_text
from fleet_server.measurement.drift import Check
from fleet_server.services import correcting, keyset, taking_over
from fleet_server.services.correcting import CorrectionRecord, NewCorrection
from fleet_server.services.typed_values import typed_number
from hardware import vocabulary

_AT_ONCE = 500
_NUMBER = MeasuredRange(-1e9, 1e9)


class _Check(click.ParamType[Check]):
    """`READING=STANDARD`: what the cleaned probe showed in a standard of that value."""

    name = "READING=STANDARD"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Check:
        found = _check(str(value))
        if found is None:
            self.fail(
                f"{value!r} is no check; write what was read and what it should be, like 7.06=7.00.",
                param,
                ctx,
            )
        return found


def _check(text: str) -> Check | None:
    reading, equals, standard = text.partition("=")
    try:
        return (
            Check(standard=typed_number(standard.strip()), reading=typed_number(reading.strip()))
            if equals
            else None
        )
    except ValueError:
        return None


@click.group()
def correction() -> None:
    """Drift and fouling that a visit found, put right since the visit before.

    Example: fleet correction list A1240
    """


@correction.command(name="list")
@click.argument("serial")
@click.option("--property", "observed_property", type=click.Choice(sorted(vocabulary.PROPERTIES)))
@data_option
@json_option
def list_corrections(
    *, serial: str, observed_property: str | None, data_dir: str | None, as_json: bool
) -> None:
    """Drift corrections of the probe with this serial number, newest first.

    Example: fleet correction list A1240
    """
    found: list[CorrectionRecord] = []
    with open_session(data_dir) as session:
        after: keyset.Key | None = None
        while True:
            page = correcting.correction_page(session, serial=serial, limit=_AT_ONCE, after=after)
            found += page.items
            after = page.next_key
            if after is None:
                break
    if observed_property is not None:
        found = [one for one in found if one.row.property == observed_property]
    answer(
        {"corrections": [_document(one) for one in found]},
        "\n".join(map(_line, found)) or "There is no drift correction of this probe.",
        as_json=as_json,
    )


@correction.command()
@click.argument("serial")
@click.argument("observed_property", metavar="PROPERTY")
@click.option(
    "--from",
    "from_at",
    type=UtcTime(),
    required=True,
    help=f"The visit that left the probe right, like {EXAMPLE_TIME}.",
)
@click.option("--to", "to_at", type=UtcTime(), required=True, help="The visit that found it so.")
@click.option(
    "--fouling", type=_NUMBER, default=0.0, help="What cleaning added, in the property's unit."
)
@click.option(
    "--fouling-percent", type=_NUMBER, default=0.0, help="What cleaning added, in % of the value."
)
@click.option("--low", type=_Check(), help="The cleaned probe in the lower, or the only, standard.")
@click.option(
    "--high",
    type=_Check(),
    help="The cleaned probe in the higher standard; alone: drift in proportion.",
)
@click.option("--note", default="", help="What else there is to know.")
@data_option
@json_option
def draft(
    *,
    serial: str,
    observed_property: str,
    from_at: datetime,
    to_at: datetime,
    fouling: float,
    fouling_percent: float,
    low: Check | None,
    high: Check | None,
    note: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Write a drift correction down. It changes nothing until somebody else approves it.

    Example: fleet correction draft A1240 ph --from 2026-06-01T09:00:00Z --to 2026-07-01T09:00:00Z --low 7.06=7.00 --high 10.11=10.01
    """
    with open_session(data_dir) as session:
        made = correcting.draft_correction(
            session,
            NewCorrection(
                serial,
                observed_property,
                from_at,
                to_at,
                fouling=fouling,
                fouling_relative=fouling_percent / 100.0,
                low=low,
                high=high,
                note=note,
            ),
            now=clock.now(),
        )
        record = correcting.record_of(session, made.id)
    answer(
        _document(record),
        f"Drift correction {made.id} is a draft; with it the record is {made.rating}. Somebody else approves it: fleet correction approve {made.id}",
        as_json=as_json,
    )


@correction.command(name="take-over")
@click.argument("observation", type=click.IntRange(1, 2**53 - 1))
@click.option(
    "--from",
    "from_at",
    type=UtcTime(),
    required=True,
    help=f"The visit that left the probe right, like {EXAMPLE_TIME}.",
)
@click.option("--note", default="", help="What else there is to know.")
@data_option
@json_option
def take_over(
    *, observation: int, from_at: datetime, note: str, data_dir: str | None, as_json: bool
) -> None:
    """Draft a correction from a check point, by the number that `fleet measurement check-points` gives it.

    Example: fleet correction take-over 8590772000 --from 2026-06-01T09:00:00Z
    """
    with open_session(data_dir) as session:
        made = taking_over.take_over(
            session, observation, from_at=from_at, note=note, now=clock.now()
        )
        record = correcting.record_of(session, made.id)
    answer(
        _document(record),
        f"Correction {made.id} is a draft; with it the record is {made.rating}. Somebody else approves it: fleet correction approve {made.id}",
        as_json=as_json,
    )


@correction.command()
@click.argument("number", type=click.IntRange(1, 2**31 - 1))
@data_option
@json_option
def approve(*, number: int, data_dir: str | None, as_json: bool) -> None:
    """Let a draft hold: the worker makes the values between its visits anew. Not by who wrote it.

    Example: fleet correction approve 3
    """
    with open_session(data_dir) as session:
        correcting.approve_correction(session, number, now=clock.now())
        record = correcting.record_of(session, number)
    answer(
        _document(record),
        f"Drift correction {number} holds; its values are made anew by the worker (fleet recompute --check proves them).",
        as_json=as_json,
    )


@correction.command()
@click.argument("number", type=click.IntRange(1, 2**31 - 1))
@click.option("--reason", required=True, help="Why; it is kept.")
@data_option
@json_option
def withdraw(*, number: int, reason: str, data_dir: str | None, as_json: bool) -> None:
    """Take a drift correction back; what was shown with it stays readable.

    Example: fleet correction withdraw 3 --reason "the wrong bottle"
    """
    with open_session(data_dir) as session:
        correcting.withdraw_correction(session, number, reason=reason, now=clock.now())
        record = correcting.record_of(session, number)
    answer(_document(record), f"Drift correction {number} is withdrawn.", as_json=as_json)


def _line(record: CorrectionRecord) -> str:
    row, serial = record.row, record.serial
    return (
        f"{row.id}  {row.status}  {serial} {row.property} version {row.version},"
        f" {moment_text(row.from_at)} to {moment_text(row.to_at)}, {row.rating}"
    )


def _document(record: CorrectionRecord) -> dict[str, Any]:
    row = record.row
    return {
        "id": row.id,
        "status": str(row.status),
        "serial": record.serial,
        "property": row.property,
        "version": row.version,
        "from_at": moment_text(row.from_at),
        "to_at": moment_text(row.to_at),
        "fouling": row.fouling,
        "fouling_relative": row.fouling_relative,
        "low": _pair(record.low),
        "high": _pair(record.high),
        "rating": row.rating,
        "note": row.note,
        "from_import": row.from_import_id,
        "author": row.author,
        "approved_by": row.approved_by,
        "withdrawn_by": row.withdrawn_by,
        "withdrawn_reason": row.withdrawn_reason,
    }


def _pair(check: Check | None) -> dict[str, float] | None:
    return None if check is None else {"standard": check.standard, "reading": check.reading}

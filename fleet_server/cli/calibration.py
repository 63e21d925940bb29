"""`fleet calibration`: what probes are calibrated against, drafts and their fit, approval, certificates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from fleet_server import clock
from fleet_server.cli.answers import MeasuredRange, answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.moments import UtcTime
from fleet_server.cli.named_nodes import find_node, moment_text
from fleet_server.errors import Invalid
from fleet_server.models import (
    CalibrationKind,
    CalibrationStatus,
    DriftCorrection,
    PointStage,
    Standard,
    StandardKind,
)
from fleet_server.services import (
    calibrating,
    calibration_documents,
    calibration_list,
    certificate_sheet,
    certifying,
    fitting,
    guiding,
    keyset,
    observing,
    rehearsing,
    settling,
    standards,
)
from fleet_server.services.calibrating import CalibrationRecord, NewCalibration, NewPoint
from fleet_server.services.calibration_list import CalibrationFilter
from fleet_server.services.guiding import GuidedChannel, Worth
from fleet_server.services.standards import NewStandard
from fleet_server.services.typed_values import typed_number
from hardware import vocabulary

_AT_ONCE = 500
_SHOWN_STANDARDS = 20
_WHY_NOT = {
    "few": "too few readings yet",
    "short": "not watched for long enough yet",
    "slope": "it still drifts",
    "spread": "it jumps to and fro",
    "stale": "nothing new came; switch field mode on at the node",
}
_LARGEST_DRAFT_BYTES = 1_000_000
_KINDS = [kind.value for kind in CalibrationKind if kind != CalibrationKind.FACTORY]
_NUMBER = MeasuredRange(-1e9, 1e9)


_keep_option = click.option(
    "--keep-correction",
    "kept",
    type=click.IntRange(1, 2**31 - 1),
    multiple=True,
    metavar="NUMBER",
    help="A drift correction within its time that stays as it is; repeat for several.",
)
_withdraw_option = click.option(
    "--withdraw-correction",
    "withdrawn",
    type=click.IntRange(1, 2**31 - 1),
    multiple=True,
    metavar="NUMBER",
    help="One that is withdrawn with this; repeat for several.",
)


class _Point(click.ParamType[NewPoint]):
    """`READING=VALUE±U`, or `READING=standard:ID[@°C]`."""

    name = "READING=VALUE±U"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> NewPoint:
        found = _point(str(value))
        if found is None:
            self.fail(
                f"{value!r} is no point; write it like 7.02=7.00±0.01 or 7.02=standard:3@21.5.",
                param,
                ctx,
            )
        return found


def _point(text: str) -> NewPoint | None:
    reading, equals, worth = text.partition("=")
    try:
        if equals and worth.startswith("standard:"):
            number, _, temperature = worth.removeprefix("standard:").partition("@")
            return NewPoint(
                typed_number(reading.strip()),
                standard_id=_whole(number),
                temperature_c=typed_number(temperature.strip()) if temperature else None,
            )
        reference, sign, u = worth.replace("+-", "±").partition("±")
        if equals and sign:
            return NewPoint(
                typed_number(reading.strip()),
                typed_number(reference.strip()),
                typed_number(u.strip()),
            )
    except ValueError:
        return None
    return None


def _whole(text: str) -> int:
    """A standard's number. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError(f"{text!r} is no number of a standard")
    return int(text)


class _Circumstance(click.ParamType[tuple[str, float | str]]):
    """`NAME=VALUE`."""

    name = "NAME=VALUE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float | str]:
        name, equals, told = (part.strip() for part in str(value).partition("="))
        if not (name and equals):
            self.fail(f"{value!r} is not like temperature_c=21.5.", param, ctx)
        try:
            return name, typed_number(told)
        except ValueError:
            return name, told


class _Worth(click.ParamType[tuple[float, float]]):
    """`°C=VALUE`, or one value for any temperature."""

    name = "°C=VALUE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        temperature, equals, worth = str(value).partition("=")
        try:
            return (
                (typed_number(temperature.strip()), typed_number(worth.strip()))
                if equals
                else (20.0, typed_number(temperature.strip()))
            )
        except ValueError:
            self.fail(f"{value!r} is not like 20=6.881.", param, ctx)


@click.group()
def calibration() -> None:
    """Calibrations of probes, from the points to the certificate.

    Example: fleet calibration list --status draft
    """


@calibration.command(name="list")
@click.option("--status", type=click.Choice([one.value for one in CalibrationStatus]))
@click.option("--serial", help="Of one probe.")
@click.option("--property", "observed_property", type=click.Choice(sorted(vocabulary.PROPERTIES)))
@click.option("--with-factory", is_flag=True, help="The makers' calibrations, too.")
@data_option
@json_option
def list_calibrations(
    *,
    status: str | None,
    serial: str | None,
    observed_property: str | None,
    with_factory: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Calibrations, newest first.

    Example: fleet calibration list --status draft
    """
    wanted = CalibrationFilter(
        CalibrationStatus(status) if status else None, serial, observed_property, with_factory
    )
    rows = []
    with open_session(data_dir) as session:
        after: keyset.Key | None = None
        while True:
            page = calibration_list.calibration_page(session, wanted, limit=_AT_ONCE, after=after)
            rows += [
                calibration_documents.line_document(
                    one.calibration, serial=one.serial, sensor_type=one.sensor_type
                )
                for one in page.items
            ]
            after = page.next_key
            if after is None:
                break
    lines = [
        f"{one['id']}  {one['status']}  {one['serial']} {one['property']} version {one['version']},"
        f" from {one['valid_from']}"
        for one in rows
    ]
    answer(
        {"calibrations": rows}, "\n".join(lines) or "There is no such calibration.", as_json=as_json
    )


@calibration.command()
@click.option("--due", is_flag=True, help="Only those that have to be calibrated by now.")
@click.option("--type", "sensor_type", help="Of one type, like ezo_ph.")
@click.option("--find", "text", default="", help="Part of a serial number or a node's label.")
@data_option
@json_option
def probes(
    *, due: bool, sensor_type: str | None, text: str, data_dir: str | None, as_json: bool
) -> None:
    """Probes with when each has to be calibrated again.

    Example: fleet calibration probes --due
    """
    now_rows: list[dict[str, Any]] = []
    with open_session(data_dir) as session:
        now = clock.now()
        after: keyset.Key | None = None
        while True:
            page = calibration_list.probe_page(
                session,
                now=now,
                limit=_AT_ONCE,
                after=after,
                is_due=due,
                sensor_type=sensor_type,
                text=text,
            )
            now_rows += [
                {
                    "serial": one.sensor.serial,
                    "sensor_type": one.sensor.sensor_type,
                    "node_id": one.node_id,
                    "site": one.site_name,
                    "calibrated_at": certifying.moment(one.calibrated_at),
                    "due_at": certifying.moment(one.due_at),
                    "is_due": one.is_due(now),
                }
                for one in page.items
            ]
            after = page.next_key
            if after is None:
                break
    lines = [
        f"{one['serial']}  {one['sensor_type']}  {'DUE since' if one['is_due'] else 'due'} {one['due_at']}"
        f"  {one['node_id'] or 'nowhere'}"
        for one in now_rows
    ]
    answer({"probes": now_rows}, "\n".join(lines) or "There is no such probe.", as_json=as_json)


@calibration.command()
@click.argument("calibration_id", type=click.IntRange(1, 2**31 - 1))
@data_option
@json_option
def show(*, calibration_id: int, data_dir: str | None, as_json: bool) -> None:
    """One calibration with its points, its fit and where it stands.

    Example: fleet calibration show 12
    """
    with open_session(data_dir) as session:
        record = calibrating.record_of(session, calibration_id)
    answer(calibration_documents.record_document(record), _text(record), as_json=as_json)


@calibration.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), required=False)
@click.option("--serial", help="Of the probe.")
@click.option("--property", "observed_property", type=click.Choice(sorted(vocabulary.PROPERTIES)))
@click.option("--kind", type=click.Choice(_KINDS), default="linear", show_default=True)
@click.option("--point", "points", type=_Point(), multiple=True, help="Repeat for several.")
@click.option("--by", "performed_by", help="Who did it.")
@click.option("--at", type=UtcTime(), help="When. [default: now]")
@click.option("--environment", type=_Circumstance(), multiple=True, help="Like temperature_c=21.5.")
@click.option("--u-absolute", type=_NUMBER, help="The probe's own, beside the fit.")
@click.option("--u-relative", type=_NUMBER, help="The same, as a part of the value.")
@click.option("--u-drift", type=_NUMBER, help="What a year adds to it. [default: as is suggested]")
@data_option
@json_option
def new(
    *,
    file: str | None,
    serial: str | None,
    observed_property: str | None,
    kind: str,
    points: Sequence[NewPoint],
    performed_by: str | None,
    at: datetime | None,
    environment: Sequence[tuple[str, float | str]],
    u_absolute: float | None,
    u_relative: float | None,
    u_drift: float | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a draft, from FILE (JSON; - is stdin) or from options.

    Example: fleet calibration new --serial PH-7 --property ph --by tina --point 7.02=standard:3@21.5 --point 4.05=standard:4@21.5
    """
    if file is None and not (serial and observed_property and performed_by):
        raise click.UsageError("Give a FILE, or --serial, --property and --by.")
    text = None if file is None else _read(file)
    with open_session(data_dir) as session:
        now = clock.now()
        if text is not None:
            given = calibration_documents.read_draft(text, now=now)
        else:
            given = NewCalibration(
                serial=serial or "",
                property=observed_property or "",
                kind=CalibrationKind(kind),
                performed_by=performed_by or "",
                performed_at=at or now,
                points=points,
                environment=dict(environment),
                u_absolute=u_absolute,
                u_relative=u_relative,
                u_drift_absolute=u_drift,
            )
        record = calibrating.draft_calibration(session, given, now=now)
    answer(calibration_documents.record_document(record), _text(record), as_json=as_json)


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except FileNotFoundError as problem:
        raise Invalid(f"There is no file {file}.") from problem
    if len(data) > _LARGEST_DRAFT_BYTES:
        raise Invalid("A draft has at most 1 MB.")
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise Invalid("The draft is no text in UTF-8.") from problem


@calibration.command()
@click.argument("calibration_id", type=click.IntRange(1, 2**31 - 1))
@click.argument("value", type=_Point(), metavar="READING=VALUE±U")
@click.option("--step", default="", help="Its name: a step that is taken again replaces it.")
@click.option(
    "--stage",
    type=click.Choice([one.value for one in PointStage]),
    default="fit",
    show_default=True,
)
@data_option
@json_option
def point(
    *,
    calibration_id: int,
    value: NewPoint,
    step: str,
    stage: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Add a point to a draft, or replace the one of its step. Safe to repeat with --step.

    Example: fleet calibration point 12 7.02=standard:3@21.5 --step seven
    """
    taken = NewPoint(
        value.indicated,
        value.reference,
        value.u_reference,
        value.standard_id,
        value.temperature_c,
        stage=PointStage(stage),
        step=step,
    )
    with open_session(data_dir) as session:
        record = calibrating.put_point(session, calibration_id, taken, now=clock.now())
    answer(calibration_documents.record_document(record), _text(record), as_json=as_json)


@calibration.command()
@click.argument("calibration_id", type=click.IntRange(1, 2**31 - 1))
@click.option("--u-absolute", type=_NUMBER, help="The probe's own, beside the fit.")
@click.option("--u-relative", type=_NUMBER, help="The same, as a part of the value.")
@click.option("--u-drift", "u_drift_absolute", type=_NUMBER, help="What a year adds to it.")
@click.option(
    "--u-drift-relative", type=_NUMBER, help="What a year adds to it, as a part of the value."
)
@data_option
@json_option
def own(*, calibration_id: int, data_dir: str | None, as_json: bool, **given: float | None) -> None:
    """Say how sure the probe of a draft is by itself, and what a year adds to that; what is not given stays.

    Example: fleet calibration own 12 --u-absolute 0.02 --u-drift 0.1
    """
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError(
            "Say which: --u-absolute, --u-relative, --u-drift or --u-drift-relative."
        )
    with open_session(data_dir) as session:
        record = calibrating.change_draft(session, calibration_id, changes, now=clock.now())
    answer(calibration_documents.record_document(record), _text(record), as_json=as_json)


@calibration.command()
@click.argument("calibration_id", type=click.IntRange(1, 2**31 - 1))
@data_option
@json_option
def fit(*, calibration_id: int, data_dir: str | None, as_json: bool) -> None:
    """Fit a draft's points anew; exit 1 with the reason when the fit cannot be trusted.

    Example: fleet calibration fit 12
    """
    with open_session(data_dir) as session:
        record = calibrating.refit(session, calibration_id, now=clock.now())
    answer(calibration_documents.record_document(record), _text(record), as_json=as_json)


@calibration.command()
@click.argument("calibration_id", type=click.IntRange(1, 2**31 - 1))
@click.option("--sha256", help="Of what you looked at: refuse when it is another by now.")
@click.option("--from", "valid_from", type=UtcTime(), help="Holds from then. [default: its draft]")
@click.option(
    "--dry-run", is_flag=True, help="Only say which values would change, and by how much."
)
@_keep_option
@_withdraw_option
@data_option
@json_option
def approve(
    *,
    calibration_id: int,
    sha256: str | None,
    valid_from: datetime | None,
    kept: Sequence[int],
    withdrawn: Sequence[int],
    dry_run: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Let somebody else's draft hold; what was observed since is made anew.

    Example: fleet calibration approve 12 --from 2026-07-01T12:00:00Z --dry-run
    """
    if dry_run:
        _rehearse(calibration_id, sha256, valid_from, data_dir=data_dir, as_json=as_json)
        return
    with open_session(data_dir) as session:
        record = calibrating.approve_calibration(
            session,
            calibration_id,
            now=clock.now(),
            looked_at=sha256,
            valid_from=valid_from,
            corrections=settling.verdicts_of(kept, withdrawn),
        )
    answer(calibration_documents.record_document(record), _text(record), as_json=as_json)


def _rehearse(
    calibration_id: int,
    sha256: str | None,
    valid_from: datetime | None,
    *,
    data_dir: str | None,
    as_json: bool,
) -> None:
    with open_session(data_dir) as session:
        found = rehearsing.rehearse_approval(
            session, calibration_id, looked_at=sha256, valid_from=valid_from
        )
        told = calibration_documents.rehearsal_document(found)
        text = _rehearsal_text(found)
    answer({"is_dry_run": True, **told}, text, as_json=as_json)


def _rehearsal_text(found: rehearsing.Rehearsal) -> str:
    lines = []
    for one in found.streams:
        change = one.change
        much = (
            "only flags, u or lineage"
            if change.largest is None or change.mean is None
            else f"by {change.mean:+.4g} in the mean, {change.largest:.4g} at most"
        )
        lines.append(
            f"{one.site.code} {one.stream.property} {one.stream.depth_cm} cm: {change.changed} of"
            f" {change.compared} values change, {much} ({one.stream.unit});"
            f" {change.flags_changed} get another flag, {change.removed} go."
        )
    if not lines:
        lines.append("Its approval would change no value: none was sampled within its time.")
    if found.is_cut:
        lines.append(
            f"Looked at: the newest {found.newest_max} values of each;"
            f" {found.left_out} further datastreams not at all."
        )
    lines += [
        f"{_held(one)}; this is as if it stayed. Its approval wants --keep-correction {one.id}"
        f" or --withdraw-correction {one.id}."
        for one in found.corrections
    ]
    return "\n".join([*lines, "Nothing was changed."])


@calibration.command()
@click.argument("calibration_id", type=click.IntRange(1, 2**31 - 1))
@click.option("--reason", required=True, help="Why; it is kept.")
@_keep_option
@_withdraw_option
@data_option
@json_option
def withdraw(
    *,
    calibration_id: int,
    reason: str,
    kept: Sequence[int],
    withdrawn: Sequence[int],
    data_dir: str | None,
    as_json: bool,
) -> None:
    """A calibration was a mistake, or a draft came to nothing; its record stays.

    Example: fleet calibration withdraw 12 --reason "wrong bottle"
    """
    with open_session(data_dir) as session:
        record = calibrating.withdraw_calibration(
            session,
            calibration_id,
            reason=reason,
            now=clock.now(),
            corrections=settling.verdicts_of(kept, withdrawn),
        )
    answer(calibration_documents.record_document(record), _text(record), as_json=as_json)


@calibration.command()
@click.argument("calibration_id", type=click.IntRange(1, 2**31 - 1))
@click.option("--pdf", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
@data_option
@json_option
def certificate(
    *, calibration_id: int, pdf: Path | None, data_dir: str | None, as_json: bool
) -> None:
    """What was approved, as it was then, with its hash; as PDF with --pdf.

    Example: fleet calibration certificate 12 --pdf certificate.pdf
    """
    with open_session(data_dir) as session:
        told, sha256 = calibrating.certificate_of(session, calibration_id)
    if pdf is not None:
        pdf.write_bytes(certificate_sheet.certificate_pdf(told, sha256))
    where = f" It is in {pdf}." if pdf is not None else ""
    sentence = f"Certificate of calibration {calibration_id}, SHA-256 {sha256}.{where}"
    answer({"certificate": told, "sha256": sha256}, sentence, as_json=as_json)


@calibration.command()
@click.argument("node")
@click.argument("key")
@data_option
@json_option
def guide(*, node: str, key: str, data_dir: str | None, as_json: bool) -> None:
    """Begin, or go on with, the steps of channel KEY of NODE: what it reads now, and what comes next.

    Example: fleet calibration guide pond-07 ph
    """
    with open_session(data_dir) as session:
        now = clock.now()
        node_id = find_node(session, node).node_id
        record = guiding.begin_guided(session, node_id, key, now=now)
        channel = guiding.guided_channel(session, record)
        live = guiding.live_readings(session, channel, now=now)
    told = calibration_documents.live_document(record, channel, live)
    steps, reading = told["steps"], told["reading"]
    fields = {
        "calibration": record.calibration.id,
        "node_id": node_id,
        "serial": record.sensor.serial,
        "property": channel.observed_property,
        **told,
        "read_at": certifying.moment(told["read_at"]),
        "next": next((one["step"] for one in steps if one["taken"] is None), None),
    }
    shown = "no reading yet" if reading is None else f"{reading:.6g} {channel.unit}"
    usable = _usable(data_dir, channel.observed_property)
    state = (
        f"steady for {told['steady_for_s']:.0f} s"
        if fields["is_steady"]
        else f"not steady: {_WHY_NOT[told['why_not']]}"
    )
    lines = [f"Calibration {record.calibration.id} of {record.sensor.serial}: {shown}, {state}."]
    lines += [
        f"{one['step']} ({one['worth']}): {'to do' if one['taken'] is None else one['taken']}"
        for one in steps
    ]
    lines.append(_next(record, channel, fields["next"], usable))
    answer(fields, "\n".join(lines), as_json=as_json)


def _usable(data_dir: str | None, observed_property: str) -> Sequence[Standard]:
    """Standards that may be used now."""
    with open_session(data_dir) as session:
        page = standards.standard_page(
            session,
            limit=_SHOWN_STANDARDS,
            observed_property=observed_property,
            usable_at=clock.now(),
        )
    return page.items


def _next(
    record: CalibrationRecord,
    channel: GuidedChannel,
    step_id: str | None,
    usable: Sequence[Standard],
) -> str:
    """What to type next."""
    number = record.calibration.id
    if step_id is None:
        return f"All steps are taken. Look at it: fleet calibration show {number}. Somebody else approves it."
    step = channel.procedure.step(step_id)
    if step.worth is Worth.STANDARD and not usable:
        return f"No usable standard for {channel.observed_property} is on the list: fleet calibration standards add."
    options = {
        Worth.STANDARD: " --standard NUMBER --temperature °C",
        Worth.SATURATION: " --temperature °C --pressure hPa",
        Worth.SHOWN: " --shown VALUE --u U",
        Worth.FIXED: "",
    }[step.worth]
    lines = [f"Next, when it is steady: fleet calibration take {number} {step.id}{options}"]
    if step.worth is Worth.STANDARD:
        lines += [f"  standard {one.id}: {one.name} {one.lot}".rstrip() for one in usable]
    return "\n".join(lines)


@calibration.command()
@click.argument("calibration_id", type=click.IntRange(1, 2**31 - 1))
@click.argument("step")
@click.option("--standard", "standard_id", type=click.IntRange(1, 2**31 - 1), help="Its number.")
@click.option("--temperature", "temperature_c", type=MeasuredRange(-50, 150), help="Of it, °C.")
@click.option("--pressure", "pressure_hpa", type=MeasuredRange(500, 1100), help="Of the air, hPa.")
@click.option("--shown", type=_NUMBER, help="What the gauge shows.")
@click.option("--u", "u_shown", type=_NUMBER, help="How well that can be read.")
@click.option("--unsteady", "takes_unsteady", is_flag=True, help="Take it as it is.")
@data_option
@json_option
def take(
    *,
    calibration_id: int,
    step: str,
    standard_id: int | None,
    temperature_c: float | None,
    pressure_hpa: float | None,
    shown: float | None,
    u_shown: float | None,
    takes_unsteady: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Take STEP of a guided calibration when the reading stands still. Safe to repeat: the last one counts.

    Example: fleet calibration take 12 ph7 --standard 3 --temperature 21.5
    """
    taking = guiding.Taking(
        step, standard_id, temperature_c, pressure_hpa, shown, u_shown, takes_unsteady
    )
    with open_session(data_dir) as session:
        record = guiding.take_step(session, calibration_id, taking, now=clock.now())
    answer(calibration_documents.record_document(record), _text(record), as_json=as_json)


@calibration.group(name="standards")
def standards_group() -> None:
    """What probes are calibrated against: buffers, instruments, saturated water.

    Example: fleet calibration standards list
    """


@standards_group.command(name="list")
@click.option("--property", "observed_property", type=click.Choice(sorted(vocabulary.PROPERTIES)))
@click.option("--usable", is_flag=True, help="Neither expired nor discarded.")
@data_option
@json_option
def list_standards(
    *, observed_property: str | None, usable: bool, data_dir: str | None, as_json: bool
) -> None:
    """Standards by name.

    Example: fleet calibration standards list --property ph --usable
    """
    rows = []
    with open_session(data_dir) as session:
        after: keyset.Key | None = None
        while True:
            page = standards.standard_page(
                session,
                limit=_AT_ONCE,
                after=after,
                observed_property=observed_property,
                usable_at=clock.now() if usable else None,
            )
            rows += [calibration_documents.standard_document(one) for one in page.items]
            after = page.next_key
            if after is None:
                break
    lines = [
        f"{one['id']}  {one['name']} {one['lot']}  {one['property']}, u {one['u']:g}"
        f"{', expires ' + one['expires_at'] if one['expires_at'] else ''}"
        f"{', discarded' if one['discarded_at'] else ''}"
        for one in rows
    ]
    answer({"standards": rows}, "\n".join(lines) or "There is no such standard.", as_json=as_json)


@standards_group.command(name="add")
@click.argument("name")
@click.option("--kind", type=click.Choice([one.value for one in StandardKind]), required=True)
@click.option(
    "--property",
    "observed_property",
    type=click.Choice(sorted(vocabulary.PROPERTIES)),
    required=True,
)
@click.option("--worth", type=_Worth(), multiple=True, help="At a temperature; repeat for several.")
@click.option("--u", type=_NUMBER, required=True, help="Its standard uncertainty.")
@click.option("--lot", default="")
@click.option("--certificate", default="", help="Number of its own.")
@click.option("--expires", type=UtcTime(), help="Nothing is calibrated against it after that.")
@data_option
@json_option
def add_standard(
    *,
    name: str,
    kind: str,
    observed_property: str,
    worth: Sequence[tuple[float, float]],
    u: float,
    lot: str,
    certificate: str,
    expires: datetime | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Put standard NAME on the list.

    Example: fleet calibration standards add "pH 7 buffer" --kind solution --property ph --worth 20=6.881 --worth 25=6.865 --u 0.01 --lot L-7
    """
    given = NewStandard(
        StandardKind(kind), observed_property, name, u, worth, lot, certificate, expires
    )
    with open_session(data_dir) as session:
        made = standards.add_standard(session, given, now=clock.now())
    fields = calibration_documents.standard_document(made)
    answer(fields, f"Standard {made.id}: {made.name} {made.lot}".strip() + ".", as_json=as_json)


@standards_group.command()
@click.argument("standard_id", type=click.IntRange(1, 2**31 - 1))
@data_option
@json_option
def discard(*, standard_id: int, data_dir: str | None, as_json: bool) -> None:
    """Nothing is calibrated against it any more. Safe to repeat.

    Example: fleet calibration standards discard 3
    """
    with open_session(data_dir) as session:
        found = standards.discard_standard(session, standard_id, now=clock.now())
    fields = calibration_documents.standard_document(found)
    answer(fields, f"Standard {standard_id} is discarded.", as_json=as_json)


def _text(record: CalibrationRecord) -> str:
    found = record.calibration
    unit = vocabulary.PROPERTIES[found.property]
    lines = [
        f"Calibration {found.id} ({found.status}): {record.sensor.serial} {found.property}, {found.kind},"
        f" version {found.version}",
        f"value = {found.offset:.6g} + {found.slope:.6g} · x, {unit}"
        f" (u {found.u_offset:.3g} and {found.u_slope:.3g}, covariance {found.slope_offset_covariance:.3g})",
    ]
    if observing.is_drifting(found):
        lines.append(
            f"a year adds {found.u_drift_absolute:.3g} and {100 * found.u_drift_relative:.3g} % of the value to u"
        )
    residuals = iter((found.fit or {}).get("residuals", []))
    for one in record.points:
        residual = next(residuals, None) if one.stage == PointStage.FIT else None
        told = "" if residual is None else f", residual {residual:.3g}"
        lines.append(f"{one.stage} {one.step}: {one.indicated:.6g} in {one.reference:.6g} ± {one.u_reference:.3g}{told}")  # fmt: skip
    lines += [
        f"Cannot be approved: {fitting.in_words(one.code, one.numbers)}" for one in record.faults
    ]
    lines += [f"{_held(one)}." for one in record.corrections]
    lines.append(f"SHA-256 {found.certificate_sha256 or record.sha256}")
    return "\n".join(lines)


def _held(row: DriftCorrection) -> str:
    return (
        f"Drift correction {row.id} holds within its time,"
        f" {moment_text(row.from_at)} to {moment_text(row.to_at)}"
    )

"""`fleet flag`: what persons say of values, and why a value has its flag."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.moments import EXAMPLE_TIME, UtcTime
from fleet_server.cli.named_nodes import moment_text
from fleet_server.models import PersonFlag
from fleet_server.services import flag_reasons, flagging, rights
from fleet_server.services.flagging import FLAGS, Flagged, Verdict

_WORDS = {1: "good", 2: "not evaluated", 3: "suspect", 4: "bad", 9: "missing"}


def _of_series(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which values: a site, a property, and a depth where there are several."""
    command = click.option("--depth", "depth_cm", type=click.IntRange(0, 10_000), help="cm.")(
        command
    )
    command = click.argument("observed_property", metavar="PROPERTY")(command)
    return click.argument("site_code", metavar="SITE")(command)


def _of_range(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--reason", required=True, help="Why; it is kept.")(command)
    command = click.option(
        "--to", "to_at", type=UtcTime(), required=True, help="Sampled before that."
    )(command)
    return click.option(
        "--from",
        "from_at",
        type=UtcTime(),
        required=True,
        help=f"Sampled then or later, like {EXAMPLE_TIME}.",
    )(command)


@click.group()
def flag() -> None:
    """What persons say of values, and why a value has its flag.

    Example: fleet flag why linde-12 soil_water_content 2026-07-01T12:00:00Z
    """


@flag.command()
@_of_series
@click.argument("word", metavar="FLAG", type=click.Choice(list(FLAGS)))
@_of_range
@data_option
@json_option
def give(
    *,
    site_code: str,
    observed_property: str,
    depth_cm: int | None,
    word: str,
    from_at: datetime,
    to_at: datetime,
    reason: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Flag values: good, suspect or bad. It wins over every test, and what was known before is kept.

    Example: fleet flag give teich-1 ph bad --from 2026-07-01T12:00:00Z --to 2026-07-02T00:00:00Z --reason "cable bitten"
    """
    _say(
        (site_code, observed_property, depth_cm),
        (from_at, to_at),
        flag=FLAGS[word],
        reason=reason,
        data_dir=data_dir,
        as_json=as_json,
    )


@flag.command(name="take-back")
@_of_series
@_of_range
@data_option
@json_option
def take_back(
    *,
    site_code: str,
    observed_property: str,
    depth_cm: int | None,
    from_at: datetime,
    to_at: datetime,
    reason: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Take back what persons said of values: the tests have the word again.

    Example: fleet flag take-back teich-1 ph --from 2026-07-01T12:00:00Z --to 2026-07-02T00:00:00Z --reason "wrong pond"
    """
    _say(
        (site_code, observed_property, depth_cm),
        (from_at, to_at),
        flag=None,
        reason=reason,
        data_dir=data_dir,
        as_json=as_json,
    )


@flag.command(name="list")
@_of_series
@data_option
@json_option
def list_flags(
    *,
    site_code: str,
    observed_property: str,
    depth_cm: int | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """All that persons ever said of a series, the last word first.

    Example: fleet flag list teich-1 ph
    """
    with open_session(data_dir) as session:
        stream = flagging.find_datastream(session, site_code, observed_property, depth_cm)
        found = [_fields(one) for one in flagging.flags_of(session, stream.id)]
    lines = [
        f"{one['id']}: {one['flag']} from {one['from']} to {one['to']}, {one['author']}: {one['reason']}"
        for one in found
    ]
    answer({"flags": found}, "\n".join(lines) or "Nobody said anything of it.", as_json=as_json)


@flag.command()
@_of_series
@click.argument("sampled_at", metavar="TIME", type=UtcTime())
@data_option
@json_option
def why(
    *,
    site_code: str,
    observed_property: str,
    depth_cm: int | None,
    sampled_at: datetime,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Why a value has its flag, with the numbers.

    Example: fleet flag why linde-12 soil_water_content 2026-07-01T12:00:00Z --depth 30
    """
    with open_session(data_dir) as session:
        stream = flagging.find_datastream(session, site_code, observed_property, depth_cm)
        verdict = flagging.why(session, stream, sampled_at)
        sentences = _sentences(verdict, observed_property)
        word = _WORDS[verdict.observation.flag]
        value = verdict.observation.value
    answer(
        {"value": value, "flag": word, "reasons": sentences},
        "\n".join([f"{'No value' if value is None else f'{value:g}'}: {word}.", *sentences]),
        as_json=as_json,
    )


def _say(
    series: tuple[str, str, int | None],
    span: tuple[datetime, datetime],
    *,
    flag: int | None,
    reason: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    with open_session(data_dir) as session:
        stream_id = flagging.find_datastream(session, *series).id
        session.rollback()
        made: Flagged = flagging.give_flag(
            session,
            stream_id,
            from_at=span[0],
            to_at=span[1],
            flag=flag,
            reason=reason,
            author=rights.actor_of(session).name,
            now=clock.now(),
        )
    answer(
        {"id": made.id, "values": made.values, "changed": made.changed},
        f"Said of {made.values} values; {made.changed} of them have another flag now.",
        as_json=as_json,
    )


def _sentences(verdict: Verdict, observed_property: str) -> list[str]:
    said = []
    if verdict.person is not None:
        said.append(f"{verdict.person.author}: {verdict.person.reason}")
    said += [str(flag_reasons.said(one, observed_property)) for one in verdict.reasons]
    said += [str(flag_reasons.said_without_numbers(one)) for one in verdict.others]
    return said


def _fields(one: PersonFlag) -> dict[str, Any]:
    return {
        "id": one.id,
        "flag": "taken back" if one.flag is None else _WORDS[one.flag],
        "from": moment_text(one.from_at),
        "to": moment_text(one.to_at),
        "reason": one.reason,
        "author": one.author,
        "at": moment_text(one.created_at),
    }

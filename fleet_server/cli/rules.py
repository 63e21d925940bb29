"""`fleet rules`: the limits that values are judged by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.rule_files import read_rules
from fleet_server.measurement.rules import to_data
from fleet_server.models import Datastream
from fleet_server.services import flagging, quality_rules, rehearsing_rules, rights

_FLAG_WORDS = {1: "good", 2: "not evaluated", 3: "suspect", 4: "bad", 9: "missing"}


@click.group()
def rules() -> None:
    """The limits that values are judged by: of a property, or of one series.

    Example: fleet rules show soil_water_content
    """


@rules.command()
@click.argument("observed_property", metavar="PROPERTY")
@click.option("--site", "site_code", help="Of this site's values.")
@click.option("--depth", "depth_cm", type=click.IntRange(0, 10_000), help="cm.")
@data_option
@json_option
def show(
    *,
    observed_property: str,
    site_code: str | None,
    depth_cm: int | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """The limits in force, as `fleet rules set` takes them.

    Example: fleet rules show dissolved_oxygen --site teich-1
    """
    with open_session(data_dir) as session:
        stream = _named(session, observed_property, (site_code, depth_cm))
        found = quality_rules.rules_of(session, observed_property, stream)
    limits = to_data(found.rules)
    answer(
        {"version": found.version, "limits": limits},
        json.dumps(limits, indent=2, ensure_ascii=False),
        as_json=as_json,
    )


@rules.command(name="set")
@click.argument("observed_property", metavar="PROPERTY")
@click.argument(
    "file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--site", "site_code", help="Only for this site's values.")
@click.option("--depth", "depth_cm", type=click.IntRange(0, 10_000), help="cm.")
@click.option("--reason", help="Why; it is kept.")
@click.option(
    "--dry-run", is_flag=True, help="Tell which flags it would change, and change nothing."
)
@data_option
@json_option
def set_(
    *,
    observed_property: str,
    file: Path,
    site_code: str | None,
    depth_cm: int | None,
    reason: str | None,
    dry_run: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Put other limits in force, from a file of JSON; `null` in it: the general ones again. Values are judged again by them.

    Example: fleet rules set turbidity muddy.json --site teich-1 --reason "a muddy pond"
    """
    limits, series = (
        read_rules(file, what="limits", begin_with="fleet rules show"),
        (site_code, depth_cm),
    )
    if dry_run:
        _rehearse(observed_property, limits, series, data_dir=data_dir, as_json=as_json)
        return
    if reason is None:
        raise click.UsageError("Say why with --reason, or try it with --dry-run.")
    _set(observed_property, limits, series, reason=reason, data_dir=data_dir, as_json=as_json)


@rules.command()
@click.argument("observed_property", metavar="PROPERTY")
@click.option("--site", "site_code", help="Of this site's values.")
@click.option("--depth", "depth_cm", type=click.IntRange(0, 10_000), help="cm.")
@data_option
@json_option
def history(
    *,
    observed_property: str,
    site_code: str | None,
    depth_cm: int | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """All versions of limits, the newest first: who changed what, when and why.

    Example: fleet rules history turbidity --site teich-1
    """
    with open_session(data_dir) as session:
        stream = _named(session, observed_property, (site_code, depth_cm))
        found = quality_rules.versions_of(session, observed_property, stream)
        told: list[dict[str, Any]] = [
            {
                "version": one.made.version,
                "author": one.made.author,
                "created_at": f"{one.made.created_at:%Y-%m-%dT%H:%M:%SZ}",
                "reason": one.made.reason,
                "changes": [
                    {"limit": change.name, "before": change.before, "after": change.after}
                    for change in one.changes
                ],
            }
            for one in found
        ]
    lines = [
        f"{one['version']}  {one['created_at']}  {one['author']}: {one['reason']}"
        + "".join(
            f"\n   {change['limit']}: {_limit(change['before'])} → {_limit(change['after'])}"
            for change in one["changes"]
        )
        for one in told
    ]
    nobody = (
        "Nobody ever set any for all series; those of one are told with --site."
        if stream is None
        else "Nobody ever set any."
    )
    answer({"versions": told}, "\n".join(lines) or nobody, as_json=as_json)


@rules.command()
@click.argument("site_code", metavar="SITE")
@click.argument("observed_property", metavar="PROPERTY")
@click.option("--depth", "depth_cm", type=click.IntRange(0, 10_000), help="cm.")
@click.option("--dry-run", is_flag=True, help="Show what would be learned, and change nothing.")
@data_option
@json_option
def learn(
    *,
    site_code: str,
    observed_property: str,
    depth_cm: int | None,
    dry_run: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Widen a series' limits to what its first thirty good days did.

    Example: fleet rules learn teich-1 dissolved_oxygen --dry-run
    """
    with open_session(data_dir) as session:
        stream = flagging.find_datastream(session, site_code, observed_property, depth_cm)
        limits = to_data(quality_rules.learned(session, stream))
    if dry_run:
        answer(
            {"limits": limits}, json.dumps(limits, indent=2, ensure_ascii=False), as_json=as_json
        )
        return
    _set(
        observed_property,
        limits,
        (site_code, depth_cm),
        reason="Learned from the first thirty good days.",
        data_dir=data_dir,
        as_json=as_json,
    )


def _named(
    session: Session, observed_property: str, series: tuple[str | None, int | None]
) -> Datastream | None:
    """The one that site and depth name; None where no site is named: the limits of all."""
    site_code, depth_cm = series
    if site_code is None:
        return None
    return flagging.find_datastream(session, site_code, observed_property, depth_cm)


def _set(
    observed_property: str,
    limits: dict[str, Any] | None,
    series: tuple[str | None, int | None],
    *,
    reason: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    with open_session(data_dir) as session:
        stream = _named(session, observed_property, series)
        stream_id = None if stream is None else stream.id
        session.rollback()
        version = quality_rules.set_rules(
            session,
            observed_property,
            limits,
            reason=reason,
            author=rights.actor_of(session).name,
            now=clock.now(),
            datastream_id=stream_id,
        ).version
    answer(
        {"version": version},
        f"Version {version} is in force; the worker judges the values again.",
        as_json=as_json,
    )


def _rehearse(
    observed_property: str,
    limits: dict[str, Any] | None,
    series: tuple[str | None, int | None],
    *,
    data_dir: str | None,
    as_json: bool,
) -> None:
    with open_session(data_dir) as session:
        stream = _named(session, observed_property, series)
        stream_id = None if stream is None else stream.id
        found = rehearsing_rules.rehearse_rules(
            session, observed_property, limits, now=clock.now(), datastream_id=stream_id
        )
    steps: list[dict[str, Any]] = [
        {
            "before": step.before,
            "after": step.after,
            "count": step.count,
            "examples": [one.observation_id for one in step.examples],
        }
        for step in found.steps
    ]
    lines = [
        f"With these limits {found.changed} of {found.compared} values of the last year would have another flag."
    ]
    lines += [
        f"{step.count}: {_FLAG_WORDS[step.before]} → {_FLAG_WORDS[step.after]}, first at"
        f" {step.examples[0].sampled_at:%Y-%m-%dT%H:%M:%SZ} ({step.examples[0].value:g})"
        for step in found.steps
    ]
    if found.left_out:
        lines.append(f"{found.left_out} more series with older values were not looked at.")
    answer(
        {
            "compared": found.compared,
            "changed": found.changed,
            "steps": steps,
            "left_out": found.left_out,
        },
        "\n".join(lines),
        as_json=as_json,
    )


def _limit(value: object) -> str:
    return "none" if value is None else json.dumps(value)

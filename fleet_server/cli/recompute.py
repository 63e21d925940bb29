"""`fleet recompute`: make stored values anew by what is in force, tell first what would change, or prove every bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from fleet_server import clock, db
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session, settings_of
from fleet_server.cli.moments import EXAMPLE_TIME, UtcTime
from fleet_server.errors import Invalid
from fleet_server.jobs import revisions
from fleet_server.services import revising, rights, verifying
from fleet_server.services.revising import Change

_SHOWN_MAX = 40
_PROVED = ("observations_not_reproducible", "readings_without_observation", "packs_damaged")
"""What `--check` is about; gaps, receipts and the audit log are `fleet verify`'s."""


@click.command()
@click.option("--dry-run", is_flag=True, help="Tell what would change, and change nothing.")
@click.option(
    "--check",
    is_flag=True,
    help="Prove that every version is what its lineage gives, from the packs' bytes on.",
)
@click.option("--site", "site_code", help="Only this site's values.")
@click.option("--property", "observed_property", help="Only values of this property.")
@click.option(
    "--from",
    "from_at",
    type=UtcTime(),
    help=f"Only what was sampled from then on, like {EXAMPLE_TIME}.",
)
@click.option("--to", "to_at", type=UtcTime(), help="Only what was sampled before.")
@click.option(
    "--reason", help="Why; it is kept with the new versions. Needed unless it is only looked at."
)
@data_option
@json_option
def recompute(
    *,
    dry_run: bool,
    check: bool,
    site_code: str | None,
    observed_property: str | None,
    from_at: datetime | None,
    to_at: datetime | None,
    reason: str | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make values anew by the calibrations, rules and software in force. What they were stays readable.

    A backup is made before the first value changes. It may be stopped at any point: the worker, or the next call, goes on.

    Example: fleet recompute --site linde-12 --dry-run
    """
    if from_at is not None and to_at is not None and to_at <= from_at:
        raise Invalid("--to must be later than --from.")
    if check:
        if dry_run or site_code or observed_property or from_at or to_at or reason:
            raise Invalid("--check looks at everything; leave out the other options.")
        _check(data_dir, as_json=as_json)
        return
    if not dry_run and not (reason or "").strip():
        raise Invalid("Say why with --reason, or look first with --dry-run.")
    why = "" if dry_run else revising.checked_reason(reason or "")
    with open_session(data_dir) as session:
        streams = revising.streams(
            session, site_code=site_code, observed_property=observed_property
        )
        found = _look(session, [*streams], from_at, to_at)
        if dry_run:
            _tell(found, streams, as_json=as_json)
            return
        _work(session, data_dir, found, why, from_at, to_at, as_json=as_json)


def _look(
    session: Session, streams: list[int], from_at: datetime | None, to_at: datetime | None
) -> list[Change]:
    with _progress("Comparing", len(streams)) as advance:
        found = []
        for change in revising.changes(session, streams, from_at=from_at, to_at=to_at):
            found.append(change)
            advance()
    return found


def _tell(found: list[Change], streams: dict[int, str], *, as_json: bool) -> None:
    changing = [one for one in found if one.changed or one.removed]
    summary = {
        "compared": sum(one.compared for one in found),
        "changed": sum(one.changed for one in found),
        "removed": sum(one.removed for one in found),
        "datastreams": [_row(one, streams[one.datastream_id]) for one in changing],
    }
    if as_json:
        click.echo(json.dumps(summary))
        return
    for one in changing[:_SHOWN_MAX]:
        largest = (
            "only flags, u or lineage" if one.largest is None else f"by {one.largest:.4g} at most"
        )
        click.echo(
            f"{streams[one.datastream_id]}: {one.changed} of {one.compared} values change, {largest};"
            f" {one.flags_changed} get another flag, {one.removed} go."
        )
    if len(changing) > _SHOWN_MAX:
        click.echo(f"… and {len(changing) - _SHOWN_MAX} further datastreams.")
    click.echo(
        f"{summary['compared']} values compared: {summary['changed']} would become a new version,"
        f" {summary['removed']} would go. Nothing was changed."
    )


def _row(change: Change, name: str) -> dict[str, Any]:
    return {
        "datastream": change.datastream_id,
        "name": name,
        "compared": change.compared,
        "changed": change.changed,
        "removed": change.removed,
        "largest_change": change.largest,
        "mean_change": change.mean,
        "flags_changed": change.flags_changed,
    }


def _work(
    session: Session,
    data_dir: str | None,
    found: list[Change],
    reason: str,
    from_at: datetime | None,
    to_at: datetime | None,
    *,
    as_json: bool,
) -> None:
    now = clock.now()
    changing = [one.datastream_id for one in found if one.changed or one.removed]
    revision_id = None
    if changing:
        with db.writing(session):
            revision_id = revising.order_for_streams(
                session,
                changing,
                kind="software",
                reason=reason,
                author=rights.actor_of(session).name,
                from_at=from_at,
                to_at=to_at,
                now=now,
            )
    settings = settings_of(data_dir)
    engine = session.get_bind()
    assert isinstance(engine, Engine)  # noqa: S101 - `open_session` binds to one
    with _progress("Switching", len(changing)) as advance:
        while revising.advance(
            session,
            now=now,
            make_backup=lambda: revisions.backup_before(engine, settings),
            streams_at_once=1,
        ):
            advance()
    changed = sum(one.changed for one in found)
    answer(
        {"revision": revision_id, "datastreams": len(changing), "changed": changed},
        f"{changed} values in {len(changing)} datastreams have a new version."
        if changing
        else "Everything is what it would be made to: nothing was changed.",
        as_json=as_json,
    )


def _check(data_dir: str | None, *, as_json: bool) -> None:
    with open_session(data_dir) as session, _progress("Recomputing", None) as advance:
        report = verifying.verify(session, on_progress=lambda done, total: advance(done, total))
    proved = {
        "observations": report.observations,
        "versions": report.versions,
        "waiting": report.waiting,
        "not_reproducible": sum(getattr(report, kind) for kind in _PROVED),
    }
    if as_json:
        click.echo(json.dumps(proved))
    else:
        for sentence in report.findings_of(*_PROVED):
            click.echo(sentence, err=True)
        faults = proved["not_reproducible"]
        click.echo(
            f"{report.observations} observations and {report.versions} earlier versions were made again from the packs' bytes: "
            + (
                f"{faults} finding{'' if faults == 1 else 's'}."
                if faults
                else "every bit is the same."
            )
        )
    if proved["not_reproducible"]:
        sys.exit(1)


@contextmanager
def _progress(title: str, total: int | None) -> Iterator[Any]:
    """A bar on a terminal's stderr, nothing elsewhere."""
    with Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(title, total=total)

        def advance(done: int | None = None, of: int | None = None) -> None:
            if done is None:
                bar.advance(task)
            else:
                bar.update(task, completed=done, total=of)

        yield advance

"""`fleet verify`: recompute everything from the packs as received."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from fleet_server import db
from fleet_server.cli.answers import json_option
from fleet_server.cli.database import refuse_missing, settings_of
from fleet_server.errors import NotFound
from fleet_server.services import verifying


@click.command()
@click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Data folder of a server or of a demo.",
)
@click.option("--database-url", help="Check this database instead of the folder's own.")
@json_option
def verify(*, data_dir: Path, database_url: str | None, as_json: bool) -> None:
    """Recompute every observation from the packs as received, and check identities, gaps and receipts.

    Exit 1 when anything but `packs` and `declared_lost` is not zero (or true).

    Example: fleet verify --data .demo --json
    """
    if database_url is None and not data_dir.is_dir():
        raise NotFound(f"There is no folder {data_dir}. Name a data folder with --data.")
    settings = settings_of(data_dir, database_url)
    refuse_missing(settings)
    engine = db.make_engine(settings.database_url)
    try:
        db.check_schema(engine)
        with db.session_factory(engine)() as session, _progress_bar() as on_progress:
            report = verifying.verify(session, on_progress=on_progress)
    finally:
        engine.dispose()
    if as_json:
        click.echo(json.dumps(report.counts()))
    else:
        for name, count in report.counts().items():
            click.echo(f"{name:30} {count}")
        for sentence in report.findings:
            click.echo(sentence, err=True)
        for sentence in report.notes:
            click.echo(sentence, err=True)
        click.echo("All is well." if report.is_clean else "Something is wrong.", err=True)
    if not report.is_clean:
        sys.exit(1)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's stderr, nothing elsewhere."""
    with Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("Recomputing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

"""`fleet db`: make the tables, bring them to this version, check that the database keeps what it confirms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Engine

from fleet_server import db as database
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import refuse_missing, settings_of
from fleet_server.models import Base

_url_option = click.option("--database-url", help="sqlite:///… or postgresql+psycopg://…")


@click.group()
def db() -> None:
    """The database.

    Example: fleet db upgrade --data .fleet
    """


@db.command()
@data_option
@_url_option
@json_option
def upgrade(*, data_dir: str | None, database_url: str | None, as_json: bool) -> None:
    """Bring the tables to this version. Safe to repeat.

    Example: fleet db upgrade --database-url postgresql+psycopg://fleet@localhost/fleet
    """
    with _engine(data_dir, database_url) as engine:
        before = database.schema_revision(engine)
        database.upgrade(engine)
        after = database.schema_revision(engine)
    sentence = (
        "The tables were up to date." if before == after else f"The tables are at {after} now."
    )
    answer({"before": before, "after": after}, sentence, as_json=as_json)


@db.command()
@data_option
@_url_option
@json_option
def check(*, data_dir: str | None, database_url: str | None, as_json: bool) -> None:
    """Check that the tables are of this version and that a commit survives power loss.

    Example: fleet db check --data .fleet --json
    """
    refuse_missing(settings_of(data_dir, database_url))
    with _engine(data_dir, database_url) as engine:
        database.check_durability(engine)
        database.check_schema(engine)
        database.check_columns(engine, Base.metadata)
        revision = database.schema_revision(engine)
    answer(
        {"revision": revision, "durable": True},
        f"The tables are at {revision}; what is confirmed survives power loss.",
        as_json=as_json,
    )


@contextmanager
def _engine(data_dir: str | None, database_url: str | None) -> Iterator[Engine]:
    settings = settings_of(data_dir, database_url)
    engine = database.make_engine(settings.database_url)
    try:
        yield engine
    finally:
        engine.dispose()

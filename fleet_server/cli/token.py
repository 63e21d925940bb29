"""`fleet token`: what allows a bench to enrol nodes."""

from __future__ import annotations

from datetime import timedelta

import click

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.services import enrolment


@click.group()
def token() -> None:
    """Enrolment tokens.

    Example: fleet token create --uses 20
    """


@token.command()
@click.option(
    "--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many nodes."
)
@click.option(
    "--hours",
    type=click.IntRange(1, 24 * 31),
    default=24,
    show_default=True,
    help="Good for so long.",
)
@click.option("--note", default="", help="What it is for; shown to operators.")
@data_option
@json_option
def create(*, uses: int, hours: int, note: str, data_dir: str | None, as_json: bool) -> None:
    """Make a token for the bench. It is shown this once; only its hash is kept.

    Example: fleet token create --uses 20 --note "spring planting"
    """
    with open_session(data_dir) as session:
        made = enrolment.create_token(
            session, uses=uses, lifetime=timedelta(hours=hours), note=note, now=clock.now()
        )
    answer({"token": made, "uses": uses, "hours": hours}, made, as_json=as_json)

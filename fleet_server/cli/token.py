"""`fleet token`: what allows a bench to enrol nodes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import click

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.named_nodes import moment_text
from fleet_server.models import EnrolmentToken
from fleet_server.services import enrolment

_NEWEST = 100


@click.group()
def token() -> None:
    """Enrolment tokens.

    Example: fleet token create --uses 20
    """


@token.command()
@click.option(
    "--uses",
    type=click.IntRange(1, enrolment.MOST_USES),
    default=1,
    show_default=True,
    help="How many nodes.",
)
@click.option(
    "--hours",
    type=click.IntRange(1, 24 * 31),
    default=24,
    show_default=True,
    help="Good for so long.",
)
@click.option("--model", help="Only for nodes of this model.")
@click.option("--label", help="Only for the node with this label.")
@click.option("--note", default="", help="What it is for; shown to operators.")
@data_option
@json_option
def create(
    *,
    uses: int,
    hours: int,
    model: str | None,
    label: str | None,
    note: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a token for the bench. It is shown this once; only its hash is kept.

    Example: fleet token create --uses 20 --model tree-3 --note "spring planting"
    """
    with open_session(data_dir) as session:
        made = enrolment.create_token(
            session,
            uses=uses,
            lifetime=timedelta(hours=hours),
            note=note,
            model=model,
            label=label,
            now=clock.now(),
        )
    fields = {"token": made, "uses": uses, "hours": hours, "model": model, "label": label}
    answer(fields, made, as_json=as_json)


@token.command(name="list")
@data_option
@json_option
def list_tokens(*, data_dir: str | None, as_json: bool) -> None:
    """The newest tokens: what each is for, and whether it is still good. The secret itself is kept nowhere.

    Example: fleet token list
    """
    with open_session(data_dir) as session:
        found = enrolment.tokens(session, limit=_NEWEST)
    now = clock.now()
    answer({"tokens": _fields(found, now)}, _lines(found, now), as_json=as_json)


@token.command()
@click.argument("token_id", type=click.IntRange(1, 2**31 - 1))
@data_option
@json_option
def revoke(*, token_id: int, data_dir: str | None, as_json: bool) -> None:
    """Let nobody enrol with a token any more, by its number in `fleet token list`. Nodes that it has enrolled stay.

    Example: fleet token revoke 7
    """
    with open_session(data_dir) as session:
        enrolment.revoke_token(session, token_id, now=clock.now())
    answer({"token_id": token_id}, f"Token {token_id} is revoked.", as_json=as_json)


def _fields(tokens: Sequence[EnrolmentToken], now: datetime) -> list[dict[str, object]]:
    return [
        {
            "token_id": one.id,
            "standing": enrolment.standing_of_token(one, now=now),
            "uses_left": one.uses_left,
            "model": one.model,
            "label": one.label,
            "note": one.note,
            "made_by": one.made_by,
            "created_at": moment_text(one.created_at),
            "expires_at": moment_text(one.expires_at),
        }
        for one in tokens
    ]


def _lines(tokens: Sequence[EnrolmentToken], now: datetime) -> str:
    if not tokens:
        return "There is no token; make one with `fleet token create`."
    return "\n".join(
        f"{one.id:5} {enrolment.standing_of_token(one, now=now):8} {one.uses_left} left, "
        f"until {moment_text(one.expires_at)}, {one.model or 'any model'}"
        f"{', only ' + one.label if one.label else ''}{' – ' + one.note if one.note else ''}"
        for one in tokens
    )

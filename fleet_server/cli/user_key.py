"""`fleet user key`: keys with which programs act for people."""

from __future__ import annotations

from datetime import datetime, timedelta

import click

from fleet_server import clock, db
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.models import ApiKey, Role, Scope
from fleet_server.services import accounts, keys


@click.group()
def key() -> None:
    """Keys with which programs act for people.

    Example: fleet user key list anna
    """


@key.command()
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="One of the owner's roles; may be given several times.",
)
@click.option(
    "--scope",
    type=click.Choice([scope.value for scope in Scope]),
    help="At most the owner's, which it is unless it is given.",
)
@click.option(
    "--days",
    type=click.IntRange(1, keys.LONGEST_LIFETIME.days),
    required=True,
    help="Good for so long.",
)
@click.option("--note", required=True, help="What it is for.")
@data_option
@json_option
def add(
    *,
    name: str,
    roles: tuple[str, ...],
    scope: str | None,
    days: int,
    note: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a key. It is shown this once; only its hash is kept.

    Example: fleet user key add anna --role auditor --days 90 --note "weekly report"
    """
    with open_session(data_dir) as session:
        owner = accounts.account_named(session, name)
        made = keys.make_key(
            session,
            owner.id,
            roles=[Role(role) for role in roles],
            scope=Scope(scope or owner.scope),
            lifetime=timedelta(days=days),
            note=note,
            now=clock.now(),
        )
    answer({**_row(made.key), "secret": made.secret}, made.secret, as_json=as_json)


@key.command(name="list")
@click.argument("name")
@data_option
@json_option
def list_keys(*, name: str, data_dir: str | None, as_json: bool) -> None:
    """All keys of somebody, the newest first.

    Example: fleet user key list anna --json
    """
    with open_session(data_dir) as session:
        found = keys.keys_of(session, accounts.account_named(session, name).id)
        now = clock.now()
    lines = [_line(one, now) for one in found]
    answer(
        {"keys": [_row(one) for one in found]},
        "\n".join(lines) or f"{name} has no key.",
        as_json=as_json,
    )


@key.command()
@click.argument("number", type=click.IntRange(1, 2**31 - 1))
@data_option
@json_option
def revoke(*, number: int, data_dir: str | None, as_json: bool) -> None:
    """Make a key good for nothing, at once.

    Example: fleet user key revoke 7
    """
    with open_session(data_dir) as session:
        revoked = keys.revoke_key(session, number, owner_id=None, now=clock.now())
    answer(_row(revoked), f"Revoked key {number} of {revoked.user.name}.", as_json=as_json)


@key.command()
@click.argument("numbers", type=click.IntRange(1, 2**31 - 1), nargs=-1, required=True)
@data_option
@json_option
def confirm(*, numbers: tuple[int, ...], data_dir: str | None, as_json: bool) -> None:
    """Let keys be good again that wait since a backup was restored, because they were not revoked in between.

    Example: fleet user key confirm 7 9
    """
    with open_session(data_dir) as session, db.writing(session):
        now = clock.now()
        confirmed = [keys.confirm_key(session, one, owner_id=None, now=now) for one in numbers]
    lines = [f"Key {one.id} of {one.user.name}: {_standing(one, now)}." for one in confirmed]
    answer({"keys": [_row(one) for one in confirmed]}, "\n".join(lines), as_json=as_json)


def _line(one: ApiKey, now: datetime) -> str:
    roles = ", ".join(row.role for row in one.roles)
    return f"{one.id}: {one.note}; {roles} for {one.scope}; {_standing(one, now)}"


def _standing(one: ApiKey, now: datetime) -> str:
    if one.revoked_at:
        return "revoked"
    if one.expires_at <= now:
        return f"expired {one.expires_at:%Y-%m-%d}"
    return "waits to be confirmed" if one.held_at else f"until {one.expires_at:%Y-%m-%d}"


def _told(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _row(one: ApiKey) -> dict[str, object]:
    return {
        "id": one.id,
        "owner": one.user.name,
        "note": one.note,
        "roles": [row.role for row in one.roles],
        "scope": one.scope,
        "expires_at": _told(one.expires_at),
        "last_used_at": _told(one.last_used_at),
        "revoked_at": _told(one.revoked_at),
        "held_at": _told(one.held_at),
    }

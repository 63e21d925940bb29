"""`fleet user`: local accounts."""

from __future__ import annotations

import sys

import click
from sqlalchemy import select

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.models import User
from fleet_server.services import accounts

_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin."
)


@click.group()
def user() -> None:
    """Local accounts.

    Example: fleet user add anna
    """


@user.command()
@click.argument("name")
@_password_option
@data_option
@json_option
def add(*, name: str, password_stdin: bool, data_dir: str | None, as_json: bool) -> None:
    """Make an account; asks for the password.

    Example: fleet user add anna
    """
    password = _password(from_stdin=password_stdin)
    with open_session(data_dir) as session:
        made = accounts.create_user(session, name, password, now=clock.now())
        answer({"id": made.id, "name": made.name}, f"Made account {made.name}.", as_json=as_json)


@user.command()
@click.argument("name")
@_password_option
@data_option
@json_option
def passwd(*, name: str, password_stdin: bool, data_dir: str | None, as_json: bool) -> None:
    """Change an account's password and lift its lock; asks for the password.

    Example: fleet user passwd anna
    """
    password = _password(from_stdin=password_stdin)
    with open_session(data_dir) as session:
        accounts.set_password(session, name, password)
    answer({"name": name}, f"Changed the password of {name}.", as_json=as_json)


@user.command(name="list")
@data_option
@json_option
def list_users(*, data_dir: str | None, as_json: bool) -> None:
    """All accounts with their last login.

    Example: fleet user list --json
    """
    with open_session(data_dir) as session:
        users = session.scalars(select(User).order_by(User.name)).all()
    rows = [
        {
            "id": one.id,
            "name": one.name,
            "is_active": one.is_active,
            "last_login_at": one.last_login_at.isoformat() if one.last_login_at else None,
        }
        for one in users
    ]
    lines = [f"{row['name']:24} {row['last_login_at'] or 'never logged in'}" for row in rows]
    answer({"users": rows}, "\n".join(lines) or "There is no account yet.", as_json=as_json)


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    try:
        password: str = click.prompt(
            "Password", hide_input=True, confirmation_prompt=True, err=True
        )
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError(
            "Nobody is there to be asked for the password; give it with --password-stdin."
        ) from None
    return password

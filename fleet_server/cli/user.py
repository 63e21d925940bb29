"""`fleet user`: local accounts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
from sqlalchemy import select

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session, settings_of
from fleet_server.cli.user_key import key
from fleet_server.models import Role, Scope, User
from fleet_server.services import accounts, logins, second_factor

_Command = TypeVar("_Command", bound=Callable[..., Any])

_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of stdin."
)


_scope_option = click.option(
    "--scope",
    type=click.Choice([scope.value for scope in Scope]),
    default=Scope.ALL.value,
    show_default=True,
    help="Which sites, and nodes made for them, the person has to do with.",
)


def _roles_option(*, is_required: bool = False) -> Callable[[_Command], _Command]:
    return click.option(
        "--role",
        "roles",
        type=click.Choice([role.value for role in Role]),
        multiple=True,
        required=is_required,
        help="What the person does; may be given several times.",
    )


@click.group()
def user() -> None:
    """Local accounts, and what each may do.

    Example: fleet user add anna --role operator
    """


@user.command()
@click.argument("name")
@_roles_option()
@_scope_option
@click.option("--mail", help="Where a link for a new password goes.")
@_password_option
@data_option
@json_option
def add(
    *,
    name: str,
    roles: tuple[str, ...],
    scope: str,
    mail: str | None,
    password_stdin: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make an account; asks for the password. The first one is an administrator's unless --role says otherwise.

    Example: fleet user add anna --role technician --role trees_office --scope trees
    """
    password = _password(from_stdin=password_stdin)
    with open_session(data_dir) as session:
        made = accounts.create_user(
            session,
            name,
            password,
            now=clock.now(),
            roles=[Role(role) for role in roles],
            scope=Scope(scope),
            mail=mail,
        )
        answer({"id": made.id, **_row(made)}, f"Made account {_line(made)}.", as_json=as_json)


@user.command()
@click.argument("name")
@_roles_option(is_required=True)
@_scope_option
@data_option
@json_option
def allow(
    *, name: str, roles: tuple[str, ...], scope: str, data_dir: str | None, as_json: bool
) -> None:
    """Say anew what somebody may do; holds from their next click on.

    Example: fleet user allow anna --role operator
    """
    with open_session(data_dir) as session:
        changed = accounts.allow(
            session,
            name,
            roles=[Role(role) for role in roles],
            scope=Scope(scope),
            now=clock.now(),
        )
        answer(_row(changed), f"{_line(changed)}.", as_json=as_json)


@user.command(name="close")
@click.argument("name")
@data_option
@json_option
def close_account(*, name: str, data_dir: str | None, as_json: bool) -> None:
    """Let somebody in no more; their sessions end at once, what they did stays.

    Example: fleet user close anna
    """
    with open_session(data_dir) as session:
        changed = accounts.set_active(session, name, is_active=False, now=clock.now())
        answer(_row(changed), f"Closed the account {name}.", as_json=as_json)


@user.command(name="open")
@click.argument("name")
@data_option
@json_option
def open_account(*, name: str, data_dir: str | None, as_json: bool) -> None:
    """Let somebody in again.

    Example: fleet user open anna
    """
    with open_session(data_dir) as session:
        changed = accounts.set_active(session, name, is_active=True, now=clock.now())
        answer(_row(changed), f"Opened the account {name}.", as_json=as_json)


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
        accounts.set_password(session, name, password, now=clock.now())
    answer({"name": name}, f"Changed the password of {name}.", as_json=as_json)


@user.command()
@click.argument("name")
@data_option
@json_option
def reset(*, name: str, data_dir: str | None, as_json: bool) -> None:
    """Make a code with which somebody sets a new password, once, within the hour. It is shown this once.

    Example: fleet user reset anna
    """
    with open_session(data_dir) as session:
        code = accounts.begin_reset(session, name, now=clock.now())
    link = f"{settings_of(data_dir).public_url}/reset#{code}"
    answer({"name": name, "code": code, "link": link}, link, as_json=as_json)


@user.command(name="mail")
@click.argument("name")
@click.argument("address", required=False)
@data_option
@json_option
def set_mail(*, name: str, address: str | None, data_dir: str | None, as_json: bool) -> None:
    """Say where a link for a new password goes; without an address: nowhere.

    Example: fleet user mail anna anna@example.org
    """
    with open_session(data_dir) as session:
        changed = accounts.set_mail(session, name, address, now=clock.now())
        sentence = f"Links for {name} go to {address or 'nobody'}."
        answer(_row(changed), sentence, as_json=as_json)


@user.command(name="log-out")
@click.argument("name")
@data_option
@json_option
def log_out(*, name: str, data_dir: str | None, as_json: bool) -> None:
    """End all sessions of somebody; the password stays.

    Example: fleet user log-out anna
    """
    with open_session(data_dir) as session:
        ended = logins.end_all(session, accounts.account_named(session, name), now=clock.now())
    answer({"name": name, "ended": ended}, f"Ended {ended} sessions of {name}.", as_json=as_json)


@user.command(name="no-second-factor")
@click.argument("name")
@data_option
@json_option
def no_second_factor(*, name: str, data_dir: str | None, as_json: bool) -> None:
    """Take somebody's second factor off, who has lost phone and recovery codes.

    Example: fleet user no-second-factor anna
    """
    with open_session(data_dir) as session:
        second_factor.remove(session, accounts.account_named(session, name), now=clock.now())
    answer({"name": name}, f"{name} logs in without a second factor now.", as_json=as_json)


@user.command(name="list")
@data_option
@json_option
def list_users(*, data_dir: str | None, as_json: bool) -> None:
    """All accounts with their last login.

    Example: fleet user list --json
    """
    with open_session(data_dir) as session:
        users = session.scalars(select(User).order_by(User.name)).all()
    rows = [{"id": one.id, **_row(one)} for one in users]
    lines = [_line(one) for one in users]
    answer({"users": rows}, "\n".join(lines) or "There is no account yet.", as_json=as_json)


user.add_command(key)


def _row(account: User) -> dict[str, object]:
    last = account.last_login_at
    return {
        "name": account.name,
        "roles": [row.role for row in account.roles],
        "scope": account.scope,
        "is_active": account.is_active,
        "mail": account.mail,
        "last_login_at": None if last is None else last.isoformat(),
    }


def _line(account: User) -> str:
    roles = ", ".join(row.role for row in account.roles) or "no role"
    closed = "" if account.is_active else ", closed"
    last = account.last_login_at
    seen = "never logged in" if last is None else f"last login {last:%Y-%m-%d}"
    return f"{account.name}: {roles} for {account.scope}{closed}; {seen}"


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

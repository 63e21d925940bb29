"""Local accounts: argon2id passwords, and a lock that grows with wrong ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused
from fleet_server.models import User

PASSWORD_MIN_LENGTH = 12
FREE_FAILURES = 5
"""Wrong passwords in a row before the account waits."""
FIRST_LOCK = timedelta(seconds=30)
LONGEST_LOCK = timedelta(minutes=15)

_NAME_MAX_LENGTH = 64


class LoginRefused(Refused):
    """Name or password is wrong. Which of them is not told."""

    code = "login_refused"


class LoginLocked(Refused):
    """Too many wrong passwords; `fields["wait_s"]` says how long to wait."""

    code = "login_locked"


class AccountWrong(Invalid):
    """The account cannot be made like this."""

    code = "account_wrong"


class AccountExists(Conflict):
    """The name is taken."""

    code = "account_exists"


def create_user(session: Session, name: str, password: str, *, now: datetime) -> User:
    """A new account. Committed on return.

    Raises:
        AccountWrong: the name or the password is not acceptable.
        AccountExists: the name is taken.
    """
    if not 1 <= len(name) <= _NAME_MAX_LENGTH or not name.isprintable() or name != name.strip():
        raise AccountWrong(f"A name has 1 to {_NAME_MAX_LENGTH} printable characters.")
    password_hash = _hash(password)
    with db.writing(session):
        if session.scalar(select(User.id).where(User.name == name)) is not None:
            raise AccountExists(f"There is already an account {name!r}.")
        user = User(name=name, password_hash=password_hash, is_active=True, created_at=now)
        session.add(user)
    return user


def set_password(session: Session, name: str, password: str) -> None:
    """Replace an account's password and lift its lock. Committed on return.

    Raises:
        AccountWrong: the password is too short.
        NotFound: no such account.
    """
    password_hash = _hash(password)
    with db.writing(session):
        user = session.scalar(select(User).where(User.name == name))
        if user is None:
            raise NotFound(f"There is no account {name!r}.")
        user.password_hash, user.failures, user.locked_until = password_hash, 0, None


def log_in(session: Session, name: str, password: str, *, now: datetime) -> User:
    """The account that name and password belong to. Committed on return, failures too.

    An attempt counts as wrong before it is tried, so that many at once are not many free ones; and no transaction waits for the
    password's hash, which takes long on purpose.

    Raises:
        LoginLocked: too many wrong passwords in a row; nothing was tried.
        LoginRefused: name or password is wrong.
    """
    user_id, password_hash = _begin_attempt(session, name, now)
    if not _verify(password_hash, password) or user_id is None:
        raise LoginRefused("Name or password is wrong.")
    with db.writing(session):
        user = session.get_one(User, user_id, with_for_update=True, populate_existing=True)
        user.failures, user.locked_until, user.last_login_at = 0, None, now
    return user


def _begin_attempt(session: Session, name: str, now: datetime) -> tuple[int | None, str]:
    """Count the attempt; returns whose password to try, with nobody's hash when there is no such account."""
    with db.writing(session):
        user = session.scalar(
            select(User)
            .where(User.name == name, User.is_active)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        if user is None:
            return None, _nobodys_hash()
        if user.locked_until is not None and user.locked_until > now:
            wait_s = int((user.locked_until - now).total_seconds())
            raise LoginLocked(f"Too many wrong passwords; try again in {wait_s} s.", wait_s=wait_s)
        user.failures += 1
        if user.failures >= FREE_FAILURES:
            user.locked_until = now + lock_after(user.failures)
        return user.id, user.password_hash


def find_user(session: Session, user_id: int) -> User | None:
    """The active account with this id: who a session cookie belongs to."""
    user = session.get(User, user_id)
    return user if user is not None and user.is_active else None


def lock_after(failures: int) -> timedelta:
    """How long an account waits after so many wrong passwords in a row: doubled with each.

    >>> lock_after(5), lock_after(6), lock_after(99)
    (datetime.timedelta(seconds=30), datetime.timedelta(seconds=60), datetime.timedelta(seconds=900))
    """
    doublings = min(max(failures - FREE_FAILURES, 0), 10)
    return min(FIRST_LOCK * (1 << doublings), LONGEST_LOCK)


_hasher = PasswordHasher()  # argon2id with the library's current parameters (RFC 9106, low-memory)


def _hash(password: str) -> str:
    if len(password) < PASSWORD_MIN_LENGTH:
        raise AccountWrong(f"A password has at least {PASSWORD_MIN_LENGTH} characters.")
    return _hasher.hash(password)


@cache
def _nobodys_hash() -> str:
    """Verified against when there is no such account, so that the answer takes as long."""
    return _hasher.hash("nobody has this password")


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerifyMismatchError, VerificationError, InvalidHashError):
        return False

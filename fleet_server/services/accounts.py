"""Local accounts: who may do what, argon2id passwords, and a lock that grows with wrong ones."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused
from fleet_server.models import Role, Scope, User, UserRole
from fleet_server.services import auditing, rights

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


class LastAdministrator(Conflict):
    """Nobody could manage people any more."""

    code = "last_administrator"


def create_user(
    session: Session,
    name: str,
    password: str,
    *,
    now: datetime,
    roles: Collection[Role] = (),
    scope: Scope = Scope.ALL,
) -> User:
    """A new account. Committed on return.

    Args:
        roles: what the person does; none is given to the first account only, which becomes an administrator's.

    Raises:
        AccountWrong: name, password or roles are not acceptable.
        AccountExists: the name is taken.
    """
    if not 1 <= len(name) <= _NAME_MAX_LENGTH or not name.isprintable() or name != name.strip():
        raise AccountWrong(f"A name has 1 to {_NAME_MAX_LENGTH} printable characters.")
    password_hash = _hash(password)
    with db.writing(session):
        if session.scalar(select(User.id).where(User.name == name)) is not None:
            raise AccountExists(f"There is already an account {name!r}.")
        if not roles and session.scalar(select(User.id).limit(1)) is None:
            roles = (Role.ADMINISTRATOR,)
        user = User(
            name=name, password_hash=password_hash, scope=scope, is_active=True, created_at=now
        )
        user.roles = _rows(roles)
        session.add(user)
        session.flush()
        auditing.record(
            session,
            "account_made",
            subject=f"account {name}",
            now=now,
            roles=sorted(set(roles)),
            scope=scope,
        )
    return user


def allow(
    session: Session, name: str, *, roles: Collection[Role], scope: Scope, now: datetime
) -> User:
    """Replace what somebody may do. Holds from the next request on. Committed on return.

    Raises:
        AccountWrong: no role.
        LastAdministrator: nobody would be left to manage people.
        NotFound: no such account.
    """
    with db.writing(session):
        user = _locked_user(session, name)
        before, scope_before = _roles_of(user), user.scope
        user.roles = _rows(roles)
        user.scope = scope
        session.flush()
        _refuse_without_administrator(session)
        auditing.record(
            session,
            "account_allowed",
            subject=f"account {name}",
            now=now,
            roles=sorted(set(roles)),
            scope=scope,
            roles_before=sorted(before),
            scope_before=scope_before,
        )
    return user


def set_active(session: Session, name: str, *, is_active: bool, now: datetime) -> User:
    """Let somebody in again, or not any more: sessions end with the next request. Committed on return.

    Raises:
        LastAdministrator: nobody would be left to manage people.
        NotFound: no such account.
    """
    with db.writing(session):
        user = _locked_user(session, name)
        if user.is_active != is_active:
            user.is_active = is_active
            session.flush()
            _refuse_without_administrator(session)
            action = "account_opened" if is_active else "account_closed"
            auditing.record(session, action, subject=f"account {name}", now=now)
    return user


def set_password(session: Session, name: str, password: str, *, now: datetime) -> None:
    """Replace an account's password and lift its lock. Committed on return.

    Raises:
        AccountWrong: the password is too short.
        NotFound: no such account.
    """
    password_hash = _hash(password)
    with db.writing(session):
        user = _locked_user(session, name)
        user.password_hash, user.failures, user.locked_until = password_hash, 0, None
        auditing.record(session, "password_changed", subject=f"account {name}", now=now)


def actor_of(user: User) -> rights.Actor:
    """Who acts when this person does."""
    return rights.Actor(user.name, rights.rights_of(_roles_of(user)), Scope(user.scope))


def _roles_of(user: User) -> list[Role]:
    return [Role(row.role) for row in user.roles]


def _rows(roles: Collection[Role]) -> list[UserRole]:
    if not roles:
        raise AccountWrong(f"Say what this person does; there are {', '.join(Role)}.")
    return [UserRole(role=role) for role in sorted(set(roles))]


def _locked_user(session: Session, name: str) -> User:
    query = select(User).where(User.name == name).with_for_update()
    user = session.scalar(query.execution_options(populate_existing=True))
    if user is None:
        raise NotFound(f"There is no account {name!r}.")
    return user


def _refuse_without_administrator(session: Session) -> None:
    left = (
        select(User.id)
        .join(UserRole, UserRole.user_id == User.id)
        .where(User.is_active, UserRole.role == Role.ADMINISTRATOR, User.scope == Scope.ALL)
        .limit(1)
    )
    if session.scalar(left) is None:
        raise LastAdministrator(
            "Nobody would be left to manage people; make somebody else an administrator first."
        )


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
        rights.act_as(session, actor_of(user))
        auditing.record(session, "logged_in", subject=f"account {name}", now=now)
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
            auditing.record(
                session,
                "account_locked",
                subject=f"account {name}",
                now=now,
                failures=user.failures,
            )
        return user.id, user.password_hash


def find_user(session: Session, user_id: int) -> User | None:
    """The active account with this id: who a session cookie belongs to."""
    user = session.get(User, user_id, options=[joinedload(User.roles)])
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

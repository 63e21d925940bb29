"""Local accounts: who may do what, passwords, and a lock that grows with wrong ones.

Who manages people does it for those of the own scope only: nobody gives more than they have, or takes over who has more.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused, listed
from fleet_server.models import PasswordReset, Role, Scope, UnknownName, User, UserRole
from fleet_server.services import auditing, logins, passwords, rights, second_factor
from fleet_server.services.mail_addresses import LONGEST, is_mail_address

FREE_FAILURES = 5
"""Wrong passwords in a row before the account waits."""
FIRST_LOCK = timedelta(seconds=30)
LONGEST_LOCK = timedelta(minutes=15)
RESET_LIFETIME = timedelta(hours=1)
"""Long enough to hand it over, short enough to be no second password."""

RESET_PAUSE = timedelta(minutes=10)
"""So soon after a code none is mailed: nobody's mailbox is flooded by who knows their name."""

NAME_MAX_LENGTH = 64
_RESERVED_NAME = re.compile(r"machine|(console|key|token|login) .*", re.IGNORECASE | re.DOTALL)
"""How the audit log names who is no person."""
_RESET_BYTES = 24
_UNKNOWN_NAMES_KEPT = timedelta(days=1)


class LoginRefused(Refused):
    """Name, password or code is wrong. Which of them is not told."""

    code = "login_refused"


class LoginLocked(Refused):
    """Too many wrong passwords; `fields["wait_s"]` says how long to wait."""

    code = "login_locked"


class AccountWrong(Invalid):
    """The account cannot be made like this; `fields["weakness"]` says what is wrong with a password."""

    code = "account_wrong"


class AccountExists(Conflict):
    """The name is taken."""

    code = "account_exists"


class ResetRefused(Refused):
    """The code is unknown, used or expired. Which of these is not told."""

    code = "reset_refused"


class BeyondScope(Refused):
    """Somebody would get a scope that who acts does not have."""

    code = "beyond_scope"


class LastAdministrator(Conflict):
    """Nobody could manage people any more."""

    code = "last_administrator"


@dataclass(frozen=True)
class MailedReset:
    """What goes into a mail, this once."""

    name: str
    mail: str
    code: str


def create_user(
    session: Session,
    name: str,
    password: str | None,
    *,
    now: datetime,
    roles: Collection[Role] = (),
    scope: Scope = Scope.ALL,
    mail: str | None = None,
) -> User:
    """A new account. Committed on return.

    Args:
        password: None when nobody shall know one: the person sets it with the code of `begin_reset`.
        roles: what the person does; none is given to the first account only, which becomes an administrator's.

    Raises:
        AccountWrong: name, password, roles or mail address are not acceptable.
        AccountExists: the name is taken.
        BeyondScope: the scope is not that of who makes the account.
    """
    check_name(name)
    password_hash = passwords.NONE if password is None else _hash(password, name=name)
    _refuse_beyond_scope(session, scope)
    _check_mail(mail)
    with db.writing(session):
        if session.scalar(select(User.id).where(User.name == name)) is not None:
            raise AccountExists("There is already an account %(name)r.", name=name)
        if not roles and session.scalar(select(User.id).limit(1)) is None:
            roles = (Role.ADMINISTRATOR,)
        user = User(
            name=name,
            mail=mail,
            password_hash=password_hash,
            scope=scope,
            is_active=True,
            created_at=now,
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


def check_name(name: str) -> None:
    """Raises AccountWrong for what nobody can be called."""
    if not 1 <= len(name) <= NAME_MAX_LENGTH or not name.isprintable() or name != name.strip():
        raise AccountWrong("A name has 1 to %(longest)s printable characters.", longest=NAME_MAX_LENGTH)  # fmt: skip
    if _RESERVED_NAME.fullmatch(name):
        raise AccountWrong("The audit log calls others %(name)r; take another name.", name=name)


def allow(
    session: Session, name: str, *, roles: Collection[Role], scope: Scope, now: datetime
) -> User:
    """Replace what somebody may do. Holds from the next request on. Committed on return.

    Raises:
        AccountWrong: no role.
        BeyondScope: the scope is not that of who acts.
        LastAdministrator: nobody would be left to manage people.
        NotFound: no such account.
    """
    _refuse_beyond_scope(session, scope)
    with db.writing(session):
        user = _managed_user(session, name)
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
    """Let somebody in again, or not any more: sessions end, keys and reset codes are good for nothing. Committed on return.

    Raises:
        LastAdministrator: nobody would be left to manage people.
        NotFound: no such account.
    """
    with db.writing(session):
        user = _managed_user(session, name)
        if user.is_active != is_active:
            user.is_active = is_active
            session.flush()
            _refuse_without_administrator(session)
            _forget_reset(session, user)
            logins.end_all(session, user, now=now)
            action = "account_opened" if is_active else "account_closed"
            auditing.record(session, action, subject=f"account {name}", now=now)
    return user


def set_mail(session: Session, name: str, mail: str | None, *, now: datetime) -> User:
    """Where a link for a new password of this account goes; None: nowhere. Committed on return; safe to repeat.

    Raises:
        AccountWrong: this is no mail address.
        NotFound: no such account.
    """
    _check_mail(mail)
    with db.writing(session):
        user = _managed_user(session, name)
        if user.mail != mail:
            user.mail = mail
            session.flush()
            auditing.record(
                session, "mail_changed", subject=f"account {name}", now=now, has_mail=bool(mail)
            )
    return user


def change_own_mail(
    session: Session, user_id: int, mail: str | None, *, password: str, now: datetime
) -> None:
    """Wants the password: who finds a browser open does not lead links to themselves. Committed on return, a wrong password too.

    Raises:
        AccountWrong: this is no mail address.
        LoginLocked: too many wrong passwords in a row; nothing was tried.
        LoginRefused: the password is wrong.
    """
    _check_mail(mail)
    check_password(session, user_id, password, now=now)
    set_mail(session, session.get_one(User, user_id).name, mail, now=now)


def set_password(session: Session, name: str, password: str, *, now: datetime) -> None:
    """Replace somebody's password, lift the lock, end all sessions. Committed on return.

    Raises:
        AccountWrong: the password is not good enough.
        NotFound: no such account.
    """
    password_hash = _hash(password, name=name)
    with db.writing(session):
        _replace_password(session, _managed_user(session, name), password_hash, now=now)


def change_password(
    session: Session, user_id: int, *, old: str, new: str, login_id: int, now: datetime
) -> None:
    """Replace one's own password; all sessions but `login_id` end. Committed on return, a wrong old password too.

    Raises:
        AccountWrong: the new password is not good enough.
        LoginLocked: too many wrong passwords in a row; nothing was tried.
        LoginRefused: the old password is wrong.
    """
    name = session.get_one(User, user_id).name
    password_hash = _hash(new, name=name)
    _try_password(session, name, old, now=now)
    with db.writing(session):
        user = _locked_user(session, name)
        _replace_password(session, user, password_hash, now=now, but=login_id)


def check_password(session: Session, user_id: int, password: str, *, now: datetime) -> None:
    """Ask somebody who is logged in once more. Committed on return, a wrong password too.

    Raises:
        LoginLocked: too many wrong passwords in a row; nothing was tried.
        LoginRefused: the password is wrong.
    """
    name = session.get_one(User, user_id).name
    _try_password(session, name, password, now=now)
    with db.writing(session):
        user = _locked_user(session, name)
        user.failures, user.locked_until = 0, None


def begin_reset(session: Session, name: str, *, now: datetime) -> str:
    """A code with which the person sets a new password, once, within the hour. It is shown this once; only its hash is kept.

    The old password stays good until then, an earlier code does not. Committed on return.

    Raises:
        AccountWrong: the account is closed.
        NotFound: no such account.
    """
    with db.writing(session):
        user = _managed_user(session, name)
        if not user.is_active:
            raise AccountWrong("The account %(name)r is closed; open it first.", name=name)
        return _new_reset(session, user, now=now, is_mailed=False)


def begin_mailed_reset(
    session: Session, name: str, *, now: datetime, is_repeated: bool
) -> MailedReset | None:
    """A code to be mailed; None when nobody is called like this, or has a mail address, or had a code a moment ago. Committed on return.

    Args:
        is_repeated: the mail with the code before did not arrive, so there is no pause.
    """
    with db.writing(session):
        user = session.scalar(
            select(User)
            .where(User.name == name, User.is_active, User.mail.is_not(None))
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        if user is None or user.mail is None:
            return None
        begun = session.get(PasswordReset, user.id, populate_existing=True)
        if begun is not None and begun.made_at > now - RESET_PAUSE and not is_repeated:
            return None
        return MailedReset(name, user.mail, _new_reset(session, user, now=now, is_mailed=True))


def _new_reset(session: Session, user: User, *, now: datetime, is_mailed: bool) -> str:
    code = secrets.token_urlsafe(_RESET_BYTES)
    with db.writing(session):
        _forget_reset(session, user)
        session.add(
            PasswordReset(
                user_id=user.id,
                code_sha256=_sha256(code),
                made_at=now,
                expires_at=now + RESET_LIFETIME,
            )
        )
        session.flush()
        auditing.record(
            session,
            "password_reset_begun",
            subject=f"account {user.name}",
            now=now,
            is_mailed=is_mailed,
        )
    return code


def finish_reset(session: Session, code: str, password: str, *, now: datetime) -> User:
    """Set the password of the account that the code was made for, lift its lock, end its sessions. Committed on return.

    A second factor stays: who has the code alone does not get in.

    Raises:
        AccountWrong: the password is not good enough; the code can be used again.
        ResetRefused: the code is unknown, used or expired, or the account is closed.
    """
    user = _user_of_reset(session, code, now)
    password_hash = _hash(password, name=user.name)
    with db.writing(session):
        _locked_user(session, user.name)
        user = _user_of_reset(session, code, now)  # of two who come with one code, one is late
        rights.act_as(session, actor_of(user))
        _replace_password(session, user, password_hash, now=now)
    return user


def account_named(session: Session, name: str) -> User:
    """Raises NotFound when there is no such account, or it is none that who acts has to do with."""
    user = session.scalar(select(User).where(User.name == name))
    if user is None or not _has_to_do_with(session, user):
        raise NotFound("There is no account %(name)r.", name=name)
    return user


def find_account(session: Session, user_id: int) -> User:
    """Raises NotFound when there is no such account, or it is none that who acts has to do with."""
    user = session.get(User, user_id, populate_existing=True)
    if user is None or not _has_to_do_with(session, user):
        raise NotFound("There is no such account.")
    return user


def accounts_by_name(session: Session, *, limit: int, after: str | None = None) -> Sequence[User]:
    """Accounts that who acts has to do with, in the order of their names. Two statements, however many."""
    query = select(User).order_by(User.name).limit(limit)
    if after is not None:
        query = query.where(User.name > after)
    scope = rights.actor_of(session).scope
    if scope is not Scope.ALL:
        query = query.where(User.scope == scope)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def actor_of(user: User) -> rights.Actor:
    """Who acts when this person does."""
    return rights.Actor(user.name, rights.rights_of(_roles_of(user)), Scope(user.scope))


def _roles_of(user: User) -> list[Role]:
    return [Role(row.role) for row in user.roles]


def _rows(roles: Collection[Role]) -> list[UserRole]:
    if not roles:
        raise AccountWrong("Say what this person does; there are %(roles)s.", roles=listed(Role))
    return [UserRole(role=role) for role in sorted(set(roles))]


def _has_to_do_with(session: Session, user: User) -> bool:
    return rights.actor_of(session).scope in (Scope.ALL, Scope(user.scope))


def _refuse_beyond_scope(session: Session, scope: Scope) -> None:
    own = rights.actor_of(session).scope
    if own not in (Scope.ALL, scope):
        raise BeyondScope("You can give the scope %(own)s only, which is your own.", own=own)


def _managed_user(session: Session, name: str) -> User:
    """The account, held until the transaction ends; not there when it is beyond the scope of who acts."""
    user = _locked_user(session, name)
    if not _has_to_do_with(session, user):
        raise NotFound("There is no account %(name)r.", name=name)
    return user


def _replace_password(
    session: Session, user: User, password_hash: str, *, now: datetime, but: int | None = None
) -> None:
    user.password_hash, user.failures, user.locked_until = password_hash, 0, None
    _forget_reset(session, user)
    session.flush()
    auditing.record(session, "password_changed", subject=f"account {user.name}", now=now)
    logins.end_all(session, user, now=now, but=but)


def _forget_reset(session: Session, user: User) -> None:
    session.execute(delete(PasswordReset).where(PasswordReset.user_id == user.id))


def _user_of_reset(session: Session, code: str, now: datetime) -> User:
    user = session.scalar(
        select(User)
        .join(PasswordReset, PasswordReset.user_id == User.id)
        .where(PasswordReset.code_sha256 == _sha256(code), PasswordReset.expires_at > now)
        .where(User.is_active)
    )
    if user is None:
        raise ResetRefused("This code is not good any more; ask an administrator for a new one.")
    return user


def _locked_user(session: Session, name: str) -> User:
    query = select(User).where(User.name == name).with_for_update()
    user = session.scalar(query.execution_options(populate_existing=True))
    if user is None:
        raise NotFound("There is no account %(name)r.", name=name)
    return user


def has_administrator(session: Session, *, but: int | None = None) -> bool:
    """Whether anybody, but perhaps this account, can manage all people."""
    left = (
        select(User.id)
        .join(UserRole, UserRole.user_id == User.id)
        .where(User.is_active, UserRole.role == Role.ADMINISTRATOR, User.scope == Scope.ALL)
        .limit(1)
    )
    if but is not None:
        left = left.where(User.id != but)
    return session.scalar(left) is not None


def _refuse_without_administrator(session: Session) -> None:
    if not has_administrator(session):
        raise LastAdministrator(
            "Nobody would be left to manage people; make somebody else an administrator first."
        )


def log_in(
    session: Session,
    name: str,
    password: str,
    *,
    now: datetime,
    code: str = "",
    secret_key: str = "",
) -> User:
    """The account that name and password belong to. Committed on return, failures too.

    An attempt counts as wrong before it is tried, so that many at once are not many free ones; and no transaction waits for the
    password's hash, which takes long on purpose.

    Args:
        code: of the second factor, where the account has one; a wrong one is answered as a wrong password is.
        secret_key: what second factors are sealed under.

    Raises:
        LoginLocked: too many wrong passwords in a row; nothing was tried.
        LoginRefused: name, password or code is wrong.
    """
    user_id = _try_password(session, name, password, now=now)
    return _finish_login(session, user_id, code, secret_key=secret_key, now=now)


def log_in_by_code(
    session: Session, user_id: int, code: str, *, secret_key: str, now: datetime
) -> User:
    """The second half of a login of whom another place has vouched for; wrong codes count as wrong passwords do. Committed on return.

    Raises:
        LoginLocked: too many wrong ones in a row; nothing was tried.
        LoginRefused: the code is wrong, or the account is closed.
    """
    user = session.get(User, user_id)
    if user is None or _begin_attempt(session, user.name, now)[2] != user_id:
        raise _refused()  # a restored backup may not know who was half in
    return _finish_login(session, user_id, code, secret_key=secret_key, now=now)


def _finish_login(
    session: Session, user_id: int, code: str, *, secret_key: str, now: datetime
) -> User:
    with db.writing(session):
        user = session.get_one(User, user_id, with_for_update=True, populate_existing=True)
        if not second_factor.take_code(session, user, code, secret_key=secret_key, now=now):
            raise _refused()
        note_login(session, user, now=now)
    return user


def note_login(session: Session, user: User, *, now: datetime, **details: str) -> None:
    """Somebody is in. Part of the caller's transaction."""
    with db.writing(session):
        rights.act_as(session, actor_of(user))
        user.failures, user.locked_until, user.last_login_at = 0, None, now
        auditing.record(session, "logged_in", subject=f"account {user.name}", now=now, **details)


def _try_password(session: Session, name: str, password: str, *, now: datetime) -> int:
    """Id of the account that name and password belong to; who is right still has to end the row of failures."""
    user_id, password_hash, _ = _begin_attempt(session, name, now)
    if not passwords.is_right(password_hash, password) or user_id is None:
        raise _refused()
    return user_id


def _refused() -> LoginRefused:
    return LoginRefused("Name, password or code is wrong.")


def _begin_attempt(
    session: Session, name: str, now: datetime
) -> tuple[int | None, str, int | None]:
    """Count the attempt; returns whose password to try, with nobody's hash when there is none, and whose account it is.

    Names that nobody has wait as accounts do: otherwise the wait would tell which names exist.
    """
    with db.writing(session):
        user = session.scalar(
            select(User)
            .where(User.name == name, User.is_active)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        tried = user or _unknown_name(session, name, now)
        if tried.locked_until is not None and tried.locked_until > now:
            wait_s = int((tried.locked_until - now).total_seconds())
            raise LoginLocked("Too many wrong passwords; try again in %(wait_s)s s.", wait_s=wait_s)
        tried.failures += 1
        if tried.failures >= FREE_FAILURES:
            tried.locked_until = now + lock_after(tried.failures)
        if user is None:
            return None, passwords.nobodys_hash(), None
        if user.locked_until is not None and user.locked_until > now:
            auditing.record(
                session,
                "account_locked",
                subject=f"account {name}",
                now=now,
                failures=user.failures,
            )
        if user.password_hash == passwords.NONE:
            return None, passwords.nobodys_hash(), user.id
        return user.id, user.password_hash, user.id


def _unknown_name(session: Session, name: str, now: datetime) -> UnknownName:
    session.execute(delete(UnknownName).where(UnknownName.tried_at < now - _UNKNOWN_NAMES_KEPT))
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    key = _sha256(name)
    session.execute(
        insert(UnknownName)
        .values(name_sha256=key, failures=0, tried_at=now)
        .on_conflict_do_update(index_elements=["name_sha256"], set_={"tried_at": now})
    )
    return session.get_one(UnknownName, key, with_for_update=True, populate_existing=True)


def lock_after(failures: int) -> timedelta:
    """How long an account waits after so many wrong passwords in a row: doubled with each.

    >>> lock_after(5), lock_after(6), lock_after(99)
    (datetime.timedelta(seconds=30), datetime.timedelta(seconds=60), datetime.timedelta(seconds=900))
    """
    doublings = min(max(failures - FREE_FAILURES, 0), 10)
    return min(FIRST_LOCK * (1 << doublings), LONGEST_LOCK)


def _check_mail(mail: str | None) -> None:
    if mail is not None and not (len(mail) <= LONGEST and is_mail_address(mail)):
        raise AccountWrong("Give one e-mail address, like anna@example.org.", field="mail")


def _hash(password: str, *, name: str) -> str:
    weakness = passwords.weakness_of(password, name=name)
    if weakness is not None:
        raise AccountWrong(passwords.SENTENCES[weakness], weakness=weakness)
    return passwords.make_hash(password)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()

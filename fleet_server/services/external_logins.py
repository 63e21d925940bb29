"""Accounts of people who log in at another place, known by that place's issuer and subject: never by a name or a mail address.

What was said there was checked before (`web.oidc`). A second factor that the account has here is asked for all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, NotFound
from fleet_server.models import ExternalIdentity, Role, Scope, User, UserRole
from fleet_server.services import accounts, auditing, passwords, second_factor

_LONGEST_KEPT_NAME = 50
_SHORT_HASH = 6


class IdentityTaken(Conflict):
    """Somebody else's account is known by it, or the account is known by another of this place."""

    code = "identity_taken"


class OnlyWayIn(Conflict):
    """Without it nobody could log in to the account."""

    code = "only_way_in"


@dataclass(frozen=True)
class Vouched:
    """Whom another place vouches for. `roles` None: roles are given here, by an administrator."""

    issuer: str
    subject: str
    name: str
    roles: frozenset[Role] | None = None


def log_in(session: Session, vouched: Vouched, *, scope: Scope, now: datetime) -> tuple[User, bool]:
    """The account of whom another place vouches for, made when there is none; and whether a code of its second factor is still wanted.

    Committed on return. Somebody who is wanted a code of is not logged in yet (`accounts.log_in_by_code` goes on).

    Args:
        scope: of an account that is made.

    Raises:
        LoginRefused: the account is closed here.
    """
    try:
        return _log_in(session, vouched, scope=scope, now=now)
    except IntegrityError:  # of two first logins at once, one made the account
        return _log_in(session, vouched, scope=scope, now=now)


def link(session: Session, user_id: int, vouched: Vouched, *, now: datetime) -> None:
    """From now on the account's owner may come from there. Committed on return; safe to repeat.

    Raises:
        IdentityTaken: another account is known by this, or this account by another of the same issuer.
    """
    with db.writing(session):
        user = session.get_one(User, user_id, with_for_update=True)
        found = session.get(ExternalIdentity, (vouched.issuer, vouched.subject))
        own = session.scalar(_identities(user_id).where(ExternalIdentity.issuer == vouched.issuer))
        if found is not None and found.user_id == user_id:
            return
        if found is not None or own is not None:
            raise IdentityTaken("One account belongs to one login, and the other way round.")
        _add_identity(session, user, vouched, now=now)


def unlink(session: Session, user: User, *, now: datetime) -> None:
    """The account's owner comes from nowhere else any more. Committed on return.

    Raises:
        NotFound: the account was known by nothing.
        OnlyWayIn: the account has no password.
    """
    with db.writing(session):
        user = session.get_one(User, user.id, with_for_update=True, populate_existing=True)
        identities = session.scalars(_identities(user.id)).all()
        if not identities:
            raise NotFound("The account %(name)r is linked with no other login.", name=user.name)
        if user.password_hash == passwords.NONE:
            raise OnlyWayIn("Set a password first: without it nobody could log in any more.")
        for one in identities:
            session.delete(one)
            _note(session, "login_unlinked", user, one.issuer, one.subject, now=now)


def issuers_of(session: Session, user_id: int) -> list[str]:
    """Hosts of the other places that the account's owner may come from. One statement."""
    return [_host(one.issuer) for one in session.scalars(_identities(user_id))]


def _log_in(
    session: Session, vouched: Vouched, *, scope: Scope, now: datetime
) -> tuple[User, bool]:
    with db.writing(session):
        found = session.get(ExternalIdentity, (vouched.issuer, vouched.subject))
        if found is None:
            user = _make(session, vouched, scope=scope, now=now)
        else:
            user = session.get_one(
                User, found.user_id, with_for_update=True, populate_existing=True
            )
        if not user.is_active:
            raise accounts.LoginRefused("This account is closed; ask an administrator.")
        if vouched.roles is not None:
            _follow(session, user, vouched.roles, issuer=vouched.issuer, now=now)
        wants_code = second_factor.has_factor(session, user.id)
        if not wants_code:
            accounts.note_login(session, user, now=now, vouched_by=_host(vouched.issuer))
    return user, wants_code


def _make(session: Session, vouched: Vouched, *, scope: Scope, now: datetime) -> User:
    """Without a password, and without a role: even the very first account is nobody's that another place may name."""
    user = User(
        name=_free_name(session, vouched),
        password_hash=passwords.NONE,
        scope=scope,
        is_active=True,
        created_at=now,
    )
    session.add(user)
    session.flush()
    auditing.record(
        session,
        "account_made",
        subject=f"account {user.name}",
        now=now,
        by=_by(vouched.issuer),
        roles=[],
        scope=scope,
    )
    _add_identity(session, user, vouched, now=now, by=_by(vouched.issuer))
    return user


def _free_name(session: Session, vouched: Vouched) -> str:
    """What the other place calls them, with something behind it where somebody is called that already."""
    name = "".join(letter for letter in vouched.name if letter.isprintable()).strip()
    try:
        accounts.check_name(name)
        if session.scalar(select(User.id).where(User.name == name)) is None:
            return name
    except accounts.AccountWrong:
        pass
    digest = hashlib.sha256(f"{vouched.issuer}\n{vouched.subject}".encode(errors="replace"))
    kept = name[:_LONGEST_KEPT_NAME].strip().replace(" ", "_")
    return f"{kept or 'account'}_{digest.hexdigest()[:_SHORT_HASH]}"


def _follow(
    session: Session, user: User, roles: Collection[Role], *, issuer: str, now: datetime
) -> None:
    """What the other place says now holds; but who is the last administrator stays one."""
    before = {Role(row.role) for row in user.roles}
    wanted = set(roles)
    is_losing = Role.ADMINISTRATOR in before - wanted
    if is_losing and not accounts.has_administrator(session, but=user.id):
        wanted.add(Role.ADMINISTRATOR)
    if wanted == before:
        return
    user.roles = [UserRole(role=role) for role in sorted(wanted)]
    session.flush()
    auditing.record(
        session,
        "account_allowed",
        subject=f"account {user.name}",
        now=now,
        by=_by(issuer),
        roles=sorted(wanted),
        scope=user.scope,
        roles_before=sorted(before),
        scope_before=user.scope,
    )


def _add_identity(
    session: Session, user: User, vouched: Vouched, *, now: datetime, by: str | None = None
) -> None:
    session.add(
        ExternalIdentity(
            issuer=vouched.issuer, subject=vouched.subject, user_id=user.id, linked_at=now
        )
    )
    session.flush()
    _note(session, "login_linked", user, vouched.issuer, vouched.subject, now=now, by=by)


def _note(
    session: Session,
    action: str,
    user: User,
    issuer: str,
    subject: str,
    *,
    now: datetime,
    by: str | None = None,
) -> None:
    auditing.record(
        session, action, subject=f"account {user.name}", now=now, by=by, issuer=issuer, external_subject=subject
    )  # fmt: skip


def _identities(user_id: int) -> Select[ExternalIdentity]:
    return select(ExternalIdentity).where(ExternalIdentity.user_id == user_id)


def _by(issuer: str) -> str:
    return f"login {_host(issuer)}"


def _host(issuer: str) -> str:
    return urlsplit(issuer).netloc

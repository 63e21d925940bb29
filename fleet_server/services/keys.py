"""API keys: how a program acts for a person, with less than the person may, until a day.

A key is `sk_` and 32 random bytes, shown once; what is kept is its SHA-256, which is what it is looked up by: no comparison of ours can
tell how much of a guess was right. What it may follows its owner: closed account, roles or scope taken away hold for the key at once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session, joinedload

from fleet_server import db
from fleet_server.errors import Invalid, NotFound, Refused, Unauthenticated, listed
from fleet_server.models import ApiKey, ApiKeyRole, Role, Scope, User
from fleet_server.services import auditing, rights

PREFIX = "sk_"
LONGEST_LIFETIME = timedelta(days=366)
"""A year, whatever year it is."""
_SECRET_BYTES = 32
_LONGEST_NOTE = 120


class ApiKeyWrong(Invalid):
    """The key cannot be made like this."""

    code = "api_key_wrong"


class BeyondOwner(Refused):
    """The key would be allowed more than its owner."""

    code = "beyond_owner"


class KeyRefused(Unauthenticated):
    """The key is unknown, expired or revoked, or its owner's account is closed."""

    code = "key_refused"


@dataclass(frozen=True)
class NewKey:
    """`secret` is shown this once."""

    key: ApiKey
    secret: str


def make_key(
    session: Session,
    user_id: int,
    *,
    roles: Collection[Role],
    scope: Scope,
    lifetime: timedelta,
    note: str,
    now: datetime,
) -> NewKey:
    """A key of a person. Committed on return.

    Args:
        note: what it is for, for whoever wonders later.

    Raises:
        BeyondOwner: a role or the scope is not the owner's.
        ApiKeyWrong: no role, no note, or good for longer than a year.
        NotFound: no such account.
    """
    note = note.strip()
    if not 1 <= len(note) <= _LONGEST_NOTE or not note.isprintable():
        raise ApiKeyWrong(
            "Say in 1 to %(longest)s printable characters what the key is for.",
            longest=_LONGEST_NOTE,
        )
    if not timedelta() < lifetime <= LONGEST_LIFETIME:
        raise ApiKeyWrong("A key is good for at least a day and at most a year.")
    if not roles:
        raise ApiKeyWrong("Say what the key may: one or several of its owner's roles.")
    secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    with db.writing(session):
        owner = session.get(User, user_id, with_for_update=True, populate_existing=True)
        if owner is None or not owner.is_active:
            raise NotFound("There is no such account, or it is closed.")
        _refuse_beyond(owner, roles, scope)
        key = ApiKey(
            user=owner,
            secret_sha256=_sha256(secret),
            note=note,
            scope=scope,
            created_at=now,
            expires_at=now + lifetime,
            roles=[ApiKeyRole(role=role) for role in sorted(set(roles))],
        )
        session.add(key)
        session.flush()
        auditing.record(
            session,
            "key_made",
            subject=f"key {key.id} of {owner.name}",
            now=now,
            roles=sorted(set(roles)),
            scope=scope,
            expires_at=key.expires_at.isoformat(timespec="seconds"),
            note=note,
        )
    return NewKey(key, secret)


def revoke_key(session: Session, key_id: int, *, owner_id: int | None, now: datetime) -> ApiKey:
    """Make a key good for nothing. Committed on return; safe to repeat.

    Args:
        owner_id: whose key it must be; None when who acts may revoke others' keys.

    Raises:
        NotFound: there is no such key.
    """
    with db.writing(session):
        key = _locked_key(session, key_id, owner_id)
        if key.revoked_at is None:
            key.revoked_at = now
            session.flush()
            auditing.record(
                session, "key_revoked", subject=f"key {key.id} of {key.user.name}", now=now
            )
    return key


def hold_all(session: Session, *, now: datetime) -> Sequence[ApiKey]:
    """Make all keys wait for a word, because a backup brought them back: some may have been revoked since. Returns which. Committed on return."""
    with db.writing(session):
        held = update(ApiKey).where(
            ApiKey.revoked_at.is_(None), ApiKey.expires_at > now, ApiKey.held_at.is_(None)
        )
        session.execute(held.values(held_at=now))
        return held_keys(session)


def held_keys(session: Session) -> Sequence[ApiKey]:
    """Keys that wait for a word. Two statements, however many."""
    query = select(ApiKey).where(ApiKey.held_at.is_not(None), ApiKey.revoked_at.is_(None))
    query = query.options(joinedload(ApiKey.user)).order_by(ApiKey.id)
    return session.scalars(query.execution_options(populate_existing=True)).all()


def confirm_key(session: Session, key_id: int, *, owner_id: int | None, now: datetime) -> ApiKey:
    """This key was not revoked: let it be good again. Committed on return; safe to repeat. A revoked one stays revoked.

    Args:
        owner_id: whose key it must be; None when who acts may confirm others' keys.

    Raises:
        NotFound: there is no such key.
    """
    with db.writing(session):
        key = _locked_key(session, key_id, owner_id)
        if key.held_at is not None and key.revoked_at is None:
            key.held_at = None
            session.flush()
            auditing.record(
                session, "key_confirmed", subject=f"key {key.id} of {key.user.name}", now=now
            )
    return key


def keys_of(session: Session, user_id: int) -> Sequence[ApiKey]:
    """All keys of a person, the newest first. Two statements, however many."""
    query = select(ApiKey).where(ApiKey.user_id == user_id).order_by(ApiKey.id.desc())
    return session.scalars(query.options(joinedload(ApiKey.user))).all()


def find_key(session: Session, secret: str, *, now: datetime) -> ApiKey:
    """The key with this secret, with its owner. One statement, whether there is one or not.

    Raises:
        KeyRefused: it is not good (any more).
    """
    query = (
        select(ApiKey)
        .where(ApiKey.secret_sha256 == _sha256(secret))
        .options(joinedload(ApiKey.roles), joinedload(ApiKey.user).joinedload(User.roles))
        .execution_options(populate_existing=True)
    )
    key = session.execute(query).unique().scalar_one_or_none()
    if key is None:
        raise KeyRefused("There is no such API key; make one on your account's page.")
    if key.revoked_at is not None:
        raise KeyRefused("This API key was revoked.")
    if key.held_at is not None:
        raise KeyRefused(
            "This API key waits since a backup was restored: its owner confirms it on the account's page, or `fleet user key confirm` does."
        )
    if key.expires_at <= now:
        raise KeyRefused(
            "This API key expired on %(day)s; make a new one.", day=f"{key.expires_at:%Y-%m-%d}"
        )
    if not key.user.is_active:
        raise KeyRefused("The account that this API key belongs to is closed.")
    return key


def actor_of(key: ApiKey) -> rights.Actor:
    """Who acts when a program does with this key: what both key and owner may, but nothing that is for persons only.

    Raises:
        KeyRefused: they have no site in common.
    """
    roles = {Role(row.role) for row in key.roles} & {Role(row.role) for row in key.user.roles}
    scope = _common_scope(Scope(key.scope), Scope(key.user.scope))
    if scope is None:
        raise KeyRefused(
            "This API key is for sites that its owner has nothing to do with any more."
        )
    may = rights.rights_of(roles) - rights.FOR_PERSONS_ONLY
    return rights.Actor(f"key {key.id} of {key.user.name}", may, scope, is_program=True)


def note_use(session: Session, key: ApiKey, *, now: datetime) -> None:
    """Keep when a key was last used, to the hour: at most one write an hour. Committed on return."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    if key.last_used_at is not None and key.last_used_at >= hour:
        return
    with db.writing(session):
        session.execute(
            update(ApiKey)
            .where(ApiKey.id == key.id)
            .where(or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < hour))
            .values(last_used_at=hour)
        )


def _locked_key(session: Session, key_id: int, owner_id: int | None) -> ApiKey:
    key = session.get(ApiKey, key_id, with_for_update=True, populate_existing=True)
    scope = rights.actor_of(session).scope
    if (
        key is None
        or owner_id not in (None, key.user_id)
        or (owner_id is None and scope not in (Scope.ALL, Scope(key.user.scope)))
    ):
        raise NotFound("There is no key %(key_id)s.", key_id=key_id)
    return key


def _refuse_beyond(owner: User, roles: Collection[Role], scope: Scope) -> None:
    own = {Role(row.role) for row in owner.roles}
    beyond = sorted(set(roles) - own)
    if beyond:
        raise BeyondOwner(
            "%(name)s is not %(beyond)s; a key may what its owner may at most: %(own)s.",
            name=owner.name,
            beyond=listed(beyond),
            own=listed(sorted(own)),
        )
    if Scope(owner.scope) not in (Scope.ALL, scope):
        raise BeyondOwner(
            "%(name)s has to do with %(scope)s only, and so has a key.",
            name=owner.name,
            scope=owner.scope,
        )


def _common_scope(one: Scope, other: Scope) -> Scope | None:
    if one is Scope.ALL:
        return other
    return one if other in (Scope.ALL, one) else None


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()

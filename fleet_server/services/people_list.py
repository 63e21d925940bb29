"""People and their keys in pages. Reads only."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from fleet_server.errors import NotFound
from fleet_server.models import ApiKey, Role, Scope, User, UserRole
from fleet_server.services import accounts, keyset, rights

_BY_NAME = keyset.Sorting((User.name,), (str,))  # type: ignore[arg-type] # a column of a class
_NEWEST_FIRST = keyset.Sorting((ApiKey.id,), (int,), is_descending=True)  # type: ignore[arg-type] # as above


def people_page(
    session: Session,
    *,
    limit: int,
    after: keyset.Key | None = None,
    role: Role | None = None,
    is_active: bool | None = None,
) -> keyset.Page[User]:
    """Accounts that who acts has to do with, by name; only of a role, or open or closed ones. Two statements."""
    query = select(User).options(selectinload(User.roles))
    scope = rights.actor_of(session).scope
    if scope is not Scope.ALL:
        query = query.where(User.scope == scope)
    if role is not None:
        query = query.where(
            select(UserRole).where(UserRole.user_id == User.id, UserRole.role == role).exists()
        )
    if is_active is not None:
        query = query.where(User.is_active == is_active)
    return keyset.page_of(
        session, query, _BY_NAME, limit=limit, after=after, made=lambda row: row[0]
    )


def key_page(
    session: Session, user_id: int, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[ApiKey]:
    """Keys of somebody, the newest first.

    Raises:
        NotFound: no such account, or none that who acts has to do with.
    """
    accounts.find_account(session, user_id)
    query = (
        select(ApiKey)
        .where(ApiKey.user_id == user_id)
        .options(joinedload(ApiKey.user), selectinload(ApiKey.roles))
    )
    return keyset.page_of(
        session, query, _NEWEST_FIRST, limit=limit, after=after, made=lambda row: row[0]
    )


def key_of(session: Session, user_id: int, key_id: int) -> ApiKey:
    """Raises NotFound when this account, one that who acts has to do with, has no such key."""
    accounts.find_account(session, user_id)
    key = session.get(ApiKey, key_id, populate_existing=True)
    if key is None or key.user_id != user_id:
        raise NotFound("There is no key %(key_id)s.", key_id=key_id)
    return key

"""Filters that people keep under a name, for themselves or for all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlencode

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound
from fleet_server.models import SavedView
from fleet_server.services import auditing, rights
from fleet_server.services.rights import Right

NAME_MAX_LENGTH = 60
MOST_PER_OWNER = 100
_QUERY_MAX_LENGTH = 1000


class ViewWrong(Invalid):
    """No view can be like this."""

    code = "view_wrong"


def views(session: Session) -> list[SavedView]:
    """The actor's own and those that are shared, by name. One statement."""
    own = SavedView.owner == rights.actor_of(session).name
    found = select(SavedView).where(or_(own, SavedView.is_shared))
    return list(session.scalars(found.order_by(SavedView.name, SavedView.id)))


def save_view(
    session: Session, name: str, query: Mapping[str, str], *, is_shared: bool, now: datetime
) -> SavedView:
    """Keep a filter; one of the same name and owner is replaced. Committed on return.

    Raises:
        ViewWrong: the name cannot be, or the filter is too long.
        Conflict: the actor has as many as one may have.
    """
    name, text = name.strip(), urlencode(query)
    if not (1 <= len(name) <= NAME_MAX_LENGTH and name.isprintable()):
        raise ViewWrong(f"A view's name has 1 to {NAME_MAX_LENGTH} printable characters.")
    if len(text) > _QUERY_MAX_LENGTH:
        raise ViewWrong("This filter is too long to be kept.")
    owner = rights.actor_of(session).name
    with db.writing(session):
        own = session.scalars(select(SavedView).where(SavedView.owner == owner)).all()
        view = next((one for one in own if one.name == name), None)
        if view is None:
            if len(own) >= MOST_PER_OWNER:
                raise Conflict(f"You have {MOST_PER_OWNER} views; take one away first.")
            view = SavedView(owner=owner, name=name)
            session.add(view)
        view.query, view.is_shared, view.saved_at = text, is_shared, now
        session.flush()
        auditing.record(
            session, "view_saved", subject=f"view {name}", now=now, query=text, is_shared=is_shared
        )
    return view


def forget_view(session: Session, view_id: int, *, now: datetime) -> None:
    """Take a view away: one's own, or a shared one as administrator. Committed on return.

    Raises:
        NotFound: there is none that the actor may take away.
    """
    actor = rights.actor_of(session)
    with db.writing(session):
        view = session.get(SavedView, view_id)
        may = view is not None and (
            view.owner == actor.name or (view.is_shared and Right.MANAGE_PEOPLE in actor.rights)
        )
        if view is None or not may:
            raise NotFound("There is no such view of yours.")
        session.delete(view)
        session.flush()
        auditing.record(
            session, "view_forgotten", subject=f"view {view.name}", now=now, owner=view.owner
        )

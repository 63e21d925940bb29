"""Filters that people keep under a name, for themselves or for all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import parse_qsl, urlencode

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound
from fleet_server.models import SavedView
from fleet_server.services import auditing, keyset, rights
from fleet_server.services.rights import Right

NAME_MAX_LENGTH = 60
MOST_PER_OWNER = 100
_QUERY_MAX_LENGTH = 1000
_BY_NAME = keyset.Sorting((SavedView.name, SavedView.id), (str, int))  # type: ignore[arg-type] # columns of a class


class ViewWrong(Invalid):
    """No view can be like this."""

    code = "view_wrong"


class ViewExists(Conflict):
    """One view of an owner has this name already."""

    code = "view_exists"


def views(session: Session) -> list[SavedView]:
    """The actor's own and those that are shared, by name. One statement."""
    return list(session.scalars(_seen(session).order_by(SavedView.name, SavedView.id)))


def view_page(
    session: Session, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[SavedView]:
    """As `views`, in pages. One statement."""
    return keyset.page_of(
        session, _seen(session), _BY_NAME, limit=limit, after=after, made=lambda row: row.SavedView
    )


def find_view(session: Session, view_id: int) -> SavedView:
    """One of `views`. Raises NotFound."""
    view = session.scalar(_seen(session).where(SavedView.id == view_id))
    if view is None:
        raise NotFound("There is no such view.")
    return view


def save_view(
    session: Session, name: str, query: Mapping[str, str], *, is_shared: bool, now: datetime
) -> SavedView:
    """Keep a filter; one of the same name and owner is replaced. Committed on return.

    Raises:
        ViewWrong, Conflict: as `create_view`.
    """
    with db.writing(session):
        view = _own(session, name.strip())
        if view is None:
            return create_view(session, name, query, is_shared=is_shared, now=now)
        _write(session, view, name=name, query=query, is_shared=is_shared, now=now)
    return view


def create_view(
    session: Session, name: str, query: Mapping[str, str], *, is_shared: bool, now: datetime
) -> SavedView:
    """Keep a filter. Committed on return.

    Raises:
        ViewWrong: the name cannot be, or the filter is too long.
        ViewExists: the actor has one of this name.
        Conflict: the actor has as many as one may have.
    """
    owner = rights.actor_of(session).name
    with db.writing(session):
        if _own(session, name.strip()) is not None:
            raise ViewExists(
                "You have a view %(name)s already; change it, or choose a name.", name=name.strip()
            )
        theirs = select(func.count()).select_from(SavedView).where(SavedView.owner == owner)
        if (session.scalar(theirs) or 0) >= MOST_PER_OWNER:
            raise Conflict("You have %(most)s views; take one away first.", most=MOST_PER_OWNER)
        view = SavedView(owner=owner)
        _write(session, view, name=name, query=query, is_shared=is_shared, now=now)
    return view


def change_view(
    session: Session,
    view_id: int,
    *,
    now: datetime,
    name: str | None = None,
    query: Mapping[str, str] | None = None,
    is_shared: bool | None = None,
) -> SavedView:
    """Change a view that the actor may take away; what is None stays. Committed on return.

    Raises:
        NotFound: there is none that the actor may change.
        ViewWrong, ViewExists: as `create_view`.
    """
    with db.writing(session):
        view = _in_hand(session, view_id)
        name = view.name if name is None else name
        same = select(SavedView.id).where(
            SavedView.owner == view.owner, SavedView.name == name.strip(), SavedView.id != view_id
        )
        if session.scalar(same) is not None:
            raise ViewExists(
                "%(owner)s has a view %(name)s already.", owner=view.owner, name=name.strip()
            )
        _write(
            session,
            view,
            name=name,
            query=filter_of(view) if query is None else query,
            is_shared=view.is_shared if is_shared is None else is_shared,
            now=now,
        )
    return view


def forget_view(session: Session, view_id: int, *, now: datetime) -> None:
    """Take a view away: one's own, or a shared one as administrator. Committed on return.

    Raises:
        NotFound: there is none that the actor may take away.
    """
    with db.writing(session):
        view = _in_hand(session, view_id)
        session.delete(view)
        session.flush()
        auditing.record(
            session, "view_forgotten", subject=f"view {view.name}", now=now, owner=view.owner
        )


def filter_of(view: SavedView) -> dict[str, str]:
    """The filter that was kept, by name."""
    return dict(parse_qsl(view.query))


# ---------------------------------------------------------------------------------------------------------------- private


def _seen(session: Session) -> Select[SavedView]:
    own = SavedView.owner == rights.actor_of(session).name
    return select(SavedView).where(or_(own, SavedView.is_shared))


def _own(session: Session, name: str) -> SavedView | None:
    owner = rights.actor_of(session).name
    found = select(SavedView).where(SavedView.owner == owner, SavedView.name == name)
    return session.scalar(found)


def _in_hand(session: Session, view_id: int) -> SavedView:
    actor = rights.actor_of(session)
    view = session.get(SavedView, view_id, with_for_update=True)
    may = view is not None and (
        view.owner == actor.name or (view.is_shared and Right.MANAGE_PEOPLE in actor.rights)
    )
    if view is None or not may:
        raise NotFound("There is no such view of yours.")
    return view


def _write(
    session: Session,
    view: SavedView,
    *,
    name: str,
    query: Mapping[str, str],
    is_shared: bool,
    now: datetime,
) -> None:
    name, text = name.strip(), urlencode(query)
    if not (1 <= len(name) <= NAME_MAX_LENGTH and name.isprintable()):
        raise ViewWrong(
            "A view's name has 1 to %(longest)s printable characters.", longest=NAME_MAX_LENGTH
        )
    if len(text) > _QUERY_MAX_LENGTH:
        raise ViewWrong("This filter is too long to be kept.")
    view.name, view.query, view.is_shared, view.saved_at = name, text, is_shared, now
    session.add(view)
    session.flush()
    auditing.record(
        session, "view_saved", subject=f"view {name}", now=now, query=text, is_shared=is_shared
    )

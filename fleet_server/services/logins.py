"""Who is logged in where: sessions that can be seen and ended. A cookie carries a secret; what is kept is its hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, contains_eager

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.models import LoginSession, SecondFactor, User, UserRole
from fleet_server.services import auditing

LIFETIME = timedelta(hours=12)
"""A shift: nobody has to log in twice a day, and a forgotten browser is closed by the next morning."""
_KEPT = timedelta(days=90)
_SECRET_BYTES = 32
_LONGEST_BROWSER = 60


@dataclass(frozen=True)
class LoggedIn:
    """Whom a cookie belongs to."""

    login_id: int
    user: User
    has_second_factor: bool
    last_seen_at: datetime


def begin(session: Session, user_id: int, *, browser: str, now: datetime) -> str:
    """A new session of a person who has just proved who they are; returns the cookie's secret. Committed on return.

    Args:
        browser: what the person knows it by, like `Firefox, Android`.
    """
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    with db.writing(session):
        session.execute(
            delete(LoginSession).where(
                LoginSession.user_id == user_id, LoginSession.last_seen_at < now - _KEPT
            )
        )
        session.add(
            LoginSession(
                user_id=user_id,
                secret_sha256=_sha256(secret),
                begun_at=now,
                last_seen_at=now,
                browser=browser[:_LONGEST_BROWSER],
            )
        )
    return secret


def find(session: Session, secret: str) -> LoggedIn | None:
    """Whom a cookie's secret belongs to; None when its session was ended or the account is closed. One statement."""
    query = (
        select(LoginSession, SecondFactor.confirmed_at)
        .join(LoginSession.user)
        .outerjoin(UserRole, UserRole.user_id == User.id)
        .outerjoin(SecondFactor, SecondFactor.user_id == User.id)
        .where(
            LoginSession.secret_sha256 == _sha256(secret),
            LoginSession.ended_at.is_(None),
            User.is_active,
        )
        .options(contains_eager(LoginSession.user).contains_eager(User.roles))
        .execution_options(populate_existing=True)
    )
    row = session.execute(query).unique().one_or_none()
    if row is None:
        return None
    login, confirmed_at = row
    return LoggedIn(login.id, login.user, confirmed_at is not None, login.last_seen_at)


def note_seen(session: Session, login_id: int, *, last_seen_at: datetime, now: datetime) -> None:
    """Keep when a session was last used, to the minute: at most one write a minute. Committed on return."""
    minute = now.replace(second=0, microsecond=0)
    if last_seen_at >= minute:
        return
    with db.writing(session):
        session.execute(
            update(LoginSession)
            .where(LoginSession.id == login_id, LoginSession.last_seen_at < minute)
            .values(last_seen_at=minute)
        )


def open_sessions(session: Session, user_id: int, *, now: datetime) -> Sequence[LoginSession]:
    """Sessions of a person that may still be used, the last used first. One statement."""
    query = (
        select(LoginSession)
        .where(
            LoginSession.user_id == user_id,
            LoginSession.ended_at.is_(None),
            LoginSession.last_seen_at > now - LIFETIME,
        )
        .order_by(LoginSession.last_seen_at.desc(), LoginSession.id.desc())
    )
    return session.scalars(query).all()


def end(session: Session, login_id: int, *, user_id: int, now: datetime) -> None:
    """End one session of a person, so that a copy of its cookie is good for nothing. Committed on return; safe to repeat.

    Raises:
        NotFound: the person has no such session.
    """
    with db.writing(session):
        login = session.get(LoginSession, login_id, with_for_update=True)
        if login is None or login.user_id != user_id:
            raise NotFound("There is no such session.")
        if login.ended_at is None:
            login.ended_at = now


def end_all(session: Session, user: User, *, now: datetime, but: int | None = None) -> int:
    """End all sessions of a person, `but` one where it is given; returns how many. Committed on return."""
    query = update(LoginSession).where(
        LoginSession.user_id == user.id, LoginSession.ended_at.is_(None)
    )
    if but is not None:
        query = query.where(LoginSession.id != but)
    with db.writing(session):
        ended = len(session.execute(query.values(ended_at=now).returning(LoginSession.id)).all())
        if ended:
            auditing.record(
                session, "sessions_ended", subject=f"account {user.name}", now=now, sessions=ended
            )
    return ended


def end_everybodys(session: Session, *, now: datetime) -> int:
    """End all sessions of all people; returns how many. Committed on return."""
    query = update(LoginSession).where(LoginSession.ended_at.is_(None)).values(ended_at=now)
    with db.writing(session):
        return len(session.execute(query.returning(LoginSession.id)).all())


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()

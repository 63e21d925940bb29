"""One database session per request, opened when first asked for and closed when the answer is made."""

from __future__ import annotations

from flask import Flask, current_app, g
from sqlalchemy.orm import Session, sessionmaker

_EXTENSION = "stadtsensor_sessions"
_AWAY = "database_is_away"


def register_database(app: Flask, sessions: sessionmaker[Session]) -> None:
    app.extensions[_EXTENSION] = sessions

    @app.teardown_appcontext
    def _close(_problem: BaseException | None) -> None:
        session: Session | None = g.pop("database_session", None)
        if session is not None:
            session.close()  # rolls back what no service committed


def current_session() -> Session:
    if "database_session" not in g:
        g.database_session = current_app.extensions[_EXTENSION]()
    session: Session = g.database_session
    return session


def note_database_away() -> None:
    """From now on this request is answered without the database: the page that says so must not ask it who is looking."""
    g.setdefault(_AWAY, True)


def is_database_away() -> bool:
    return _AWAY in g

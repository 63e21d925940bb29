"""One database session per request, opened when first asked for and closed when the answer is made."""

from __future__ import annotations

from flask import Flask, current_app, g
from sqlalchemy.orm import Session, sessionmaker

_EXTENSION = "stadtsensor_sessions"


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

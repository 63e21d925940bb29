"""Accounts from before sessions, keys and second factors keep what they had."""

from __future__ import annotations

from pathlib import Path

from databases import Databases
from factories import NOON
from servers import PostgresqlServer
from sqlalchemy import MetaData

from fleet_server import db
from fleet_server.models import Role, Scope
from fleet_server.services import accounts, auditing, logins, passwords


def test_account_of_the_version_before_logs_in_after_the_upgrade(
    databases: Databases, tmp_path: Path
) -> None:
    is_postgresql = isinstance(databases, PostgresqlServer)
    url = (
        databases.url(databases.create_database())
        if isinstance(databases, PostgresqlServer)
        else f"sqlite:///{tmp_path}/before.sqlite3"
    )
    engine = db.make_engine(url)
    db.upgrade(engine, "0005")
    with engine.begin() as connection:
        old = MetaData()
        old.reflect(connection, only=["user_account", "user_role"])
        at = NOON if is_postgresql else int(NOON.timestamp())
        account = {"id": 7, "name": "anna", "scope": "waters", "is_active": True, "failures": 4}
        account |= {"password_hash": passwords.make_hash("correct horse battery"), "created_at": at}
        connection.execute(old.tables["user_account"].insert().values(account))
        role = {"user_id": 7, "role": "waters_office"}
        connection.execute(old.tables["user_role"].insert().values(role))

    db.upgrade(engine)

    with db.session_factory(engine)() as session:
        user = accounts.log_in(session, "anna", "correct horse battery", now=NOON)
        secret = logins.begin(session, user.id, browser="?", now=NOON)
        found = logins.find(session, secret)
        assert found is not None
        assert (found.user.name, found.has_second_factor) == ("anna", False)
        assert [row.role for row in found.user.roles] == [Role.WATERS_OFFICE]
        assert found.user.scope == Scope.WATERS
        assert auditing.verify_chain(session).fault is None
    engine.dispose()

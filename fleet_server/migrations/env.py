"""How Alembic reaches the database: the connection that `db.upgrade` hands over, else the one of the settings."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from fleet_server import db
from fleet_server.models import Base
from fleet_server.settings import load_settings


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=False,
    )
    with context.begin_transaction():
        context.run_migrations()


_given = context.config.attributes.get("connection")
if _given is not None:
    _migrate(_given)
else:
    _engine = db.make_engine(load_settings().database_url)
    with _engine.connect() as _connection, _connection.begin():
        _migrate(_connection)

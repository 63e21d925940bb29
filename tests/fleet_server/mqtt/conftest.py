"""A server's data folder, a broker of each kind, and a node that publishes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import (
    Certificates,
    RunningBroker,
    node_client,
    running_broker,
    settings_for,
)
from databases import SqliteDatabases, hurried_engine
from factories import deployed_node
from mqtt_services import NODE_ID
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.settings import Settings


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "ca")


@pytest.fixture
def broker(kind: str, certificates: Certificates, tmp_path: Path) -> Iterator[RunningBroker]:
    with running_broker(kind, certificates, tmp_path) as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, broker: RunningBroker) -> Settings:
    return settings_for(tmp_path, broker)


@pytest.fixture
def sessions(sqlite_databases: SqliteDatabases) -> Iterator[sessionmaker[Session]]:
    """A database with one deployed node; the two kinds of database are compared elsewhere."""
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        made = db.session_factory(engine)
        with made() as session:
            deployed_node(session, NODE_ID)
        yield made
        engine.dispose()


@pytest.fixture
def node(broker: RunningBroker, certificates: Certificates) -> Iterator[Any]:
    """The deployed node, connected."""
    with node_client(broker, certificates.node(NODE_ID)) as client:
        assert client.connect(NODE_ID, keep_alive_s=600) == 0
        yield client

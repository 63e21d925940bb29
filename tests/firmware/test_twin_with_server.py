"""From what an operator wants to what the database knows of it: real services, a real broker and the node's real machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import nodes
import pytest
from brokers import Certificates, at_work, running_broker, settings_for, wait_until
from databases import SqliteDatabases
from factories import deployed_node
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.models import Event
from fleet_server.mqtt.consumer import Consumer
from fleet_server.mqtt.publisher import Publisher
from fleet_server.services import commanding, configuring, publishing
from fleet_server.services.configuring import ConfigurationOverview, Standing
from fleet_server.settings import Settings
from hardware.virtual_board.board import Board
from hardware.virtual_board.network import NetworkPolicy
from hardware.virtual_board.radio import AccessPoint


class Fleet:
    """One deployed node with everything that looks after it at work."""

    def __init__(self, board: Board, sessions: sessionmaker[Session], settings: Settings) -> None:
        self.board = board
        self.sessions = sessions
        self._key = settings.session_key

    def configure(self, **wanted: object) -> None:
        with self.sessions() as session:
            configuring.configure_node(
                session, nodes.NODE_ID, wanted, now=clock.now(), secret_key=self._key
            )
        wait_until(self._is_told)

    def order(self, name: str, **arguments: object) -> None:
        with self.sessions() as session:
            commanding.order_command(session, nodes.NODE_ID, name, arguments, now=clock.now())
        wait_until(self._is_told)

    def _is_told(self) -> bool:
        with self.sessions() as session:
            return publishing.count_due(session) == 0

    def wakes(self, count: int) -> None:
        for _ in range(count):
            assert self.board.run_wake().reason in ("deepsleep", "reset")

    def configuration(self) -> ConfigurationOverview:
        with self.sessions() as session:
            return configuring.configuration_of(session, nodes.NODE_ID)

    def results(self) -> dict[str, str | None]:
        with self.sessions() as session:
            found = commanding.commands_of(session, nodes.NODE_ID, now=clock.now())
            return {one.name: one.result for one in found}

    def answers(self) -> int:
        with self.sessions() as session:
            return len(session.scalars(select(Event.pack_id).where(Event.name == "answer")).all())


@pytest.fixture
def fleet(tmp_path: Path, sqlite_databases: SqliteDatabases) -> Iterator[Fleet]:
    certificates = Certificates(tmp_path / "ca")
    pair = certificates.node(nodes.NODE_ID)
    with (
        running_broker("embedded", certificates, tmp_path) as broker,
        sqlite_databases.fresh() as url,
    ):
        engine = db.make_engine(url)
        sessions = db.session_factory(engine)
        with sessions() as session:
            deployed_node(session, nodes.NODE_ID)
        settings = settings_for(tmp_path, broker)
        board = nodes.make_board(
            tmp_path / "node",
            nodes.soil(),
            node=nodes.tree_3() | {"led": 2},
            port=broker.node_port,
            link={"tls": True, "wifi": [["stadt", "geheimnis"]]},
            identity=nodes.identity(
                pair.certificate, pair.key, certificates.files.root_certificate
            ),
            start_utc_us=time.time_ns() // 1000,
            network_policy=NetworkPolicy(access_points=(AccessPoint("stadt", "geheimnis"),)),
        )
        with at_work(Consumer(settings, sessions)), at_work(Publisher(settings, sessions)):
            yield Fleet(board, sessions, settings)
        engine.dispose()


def test_a_bad_configuration_goes_back_by_itself_and_each_command_is_answered_once(
    fleet: Fleet,
) -> None:
    fleet.wakes(1)
    wait_until(lambda: fleet.configuration().standing is Standing.IN_FORCE)

    fleet.configure(wifi=[["nirgends", "geheimnis"]])
    fleet.order("resend", **{"from": 1, "to": 1})
    for name in ("self_test", "read_now", "reboot"):
        fleet.order(name)
    fleet.wakes(8)

    wait_until(lambda: fleet.configuration().standing is Standing.ROLLED_BACK)
    assert fleet.configuration().running_version == 1
    assert "wifi" in (fleet.configuration().reason or "")
    names = ("resend", "self_test", "read_now", "reboot")
    wait_until(lambda: fleet.results() == dict.fromkeys(names, "done"))
    assert fleet.answers() == 4, "the commands stood in every desired state until then"

    fleet.configure(wifi=[["stadt", "geheimnis"]], publish_s=900, limits=[["t30", "below", 1.1, 2]])
    fleet.wakes(8)
    wait_until(lambda: fleet.configuration().standing is Standing.IN_FORCE)
    assert fleet.configuration().running_version == 3

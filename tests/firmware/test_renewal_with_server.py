"""Certificates and roots change while nodes sleep, with the real services, a real broker, the nodes' own listener and the nodes' real
machine: none is lost.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import nodes
import pytest
from brokers import Certificates, at_work, running_broker, settings_for, wait_until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from databases import SqliteDatabases, hurried_engine
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server import clock, db
from fleet_server.app import create_node_app
from fleet_server.cli.node_tls import NodeTls
from fleet_server.cli.serve import listen
from fleet_server.models import Node, NodeStatus
from fleet_server.mqtt.consumer import Consumer
from fleet_server.mqtt.publisher import Publisher
from fleet_server.services import (
    authority,
    configuring,
    credentials,
    enrolment,
    moving,
    publishing,
    rolling_over,
)
from fleet_server.services.moving import BrokerAddress
from fleet_server.services.rolling_over import NodesMissing
from hardware.virtual_board.board import HEAP_BYTES, Board

LEAST_FREE_BYTES = 30_000
YEARS = timedelta(days=365)
_DER = serialization.Encoding.DER


class Door:
    """A port of this machine that stays open while what stands behind it changes. `passed_bytes`: in both directions."""

    def __init__(self) -> None:
        self.target = 0
        self.passed_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ends: list[socket.socket] = [self._listener]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._ends.append(near)
                self._pass_on(near)

    def _pass_on(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self.target))
        except OSError:  # nothing stands behind the door
            near.close()
            return
        self._ends.append(far)
        for source, sink in ((near, far), (far, near)):
            Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                self.passed_bytes += len(data)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class Fleet:
    """Enrolled nodes, and everything that looks after them."""

    def __init__(
        self, folder: Path, certificates: Certificates, url: str, *, broker: str = "embedded"
    ) -> None:
        self.folder = folder
        self.broker = broker
        self.certificates = certificates
        self.ca_dir = certificates.folder
        self.broker_door, self.other_door, self.listener_door = Door(), Door(), Door()
        self.engine = hurried_engine(url)
        self.sessions = db.session_factory(self.engine)
        self.boards: dict[str, Board] = {}

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Broker, ingest, publisher and the nodes' listener, as they start with the authority's files as they are now."""
        with ExitStack() as running:
            broker = running.enter_context(
                running_broker(self.broker, self.certificates, self.folder)
            )
            self.broker_door.target = self.other_door.target = broker.node_port
            settings = settings_for(self.folder, broker)
            running.enter_context(at_work(Consumer(settings, self.sessions)))
            running.enter_context(at_work(Publisher(settings, self.sessions)))
            app = create_node_app(settings, self.sessions)
            tls = NodeTls(self.certificates.files)
            listener = listen(app, "127.0.0.1", 0, threads=2, tls=tls)
            self.listener_door.target = listener.bind_addr[1]
            thread = Thread(target=listener.serve)
            thread.start()
            running.callback(thread.join)
            running.callback(listener.stop)
            yield

    def enrol(
        self, count: int, *, at: datetime | None = None, knows_listener: bool = True
    ) -> list[str]:
        """New nodes; `at`: when their certificates were signed; `knows_listener`: not of a server that had none."""
        return [self._enrol(at, knows_listener=knows_listener) for _ in range(count)]

    @property
    def listener(self) -> list[object]:
        """As a node is told it."""
        return ["127.0.0.1", self.listener_door.port, "localhost"]

    def _enrol(self, at: datetime | None, *, knows_listener: bool) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
        request = x509.CertificateSigningRequestBuilder().subject_name(name)
        with self.sessions() as session:
            token = enrolment.create_token(session, uses=1, now=clock.now())
            given = enrolment.enrol_node(
                session,
                token=token,
                label=f"tree-{len(self.boards)}",
                model="tree-3",
                csr_pem=request.sign(key, hashes.SHA256())
                .public_bytes(serialization.Encoding.PEM)
                .decode(),
                ca_dir=self.ca_dir,
                now=clock.now(),
            )
            certificate = x509.load_pem_x509_certificate(given.certificate_pem.encode())
            if at is not None:
                certificate = self._signed_long_ago(session, given.node_id, certificate, at)
        identity = {
            "cert": certificate.public_bytes(_DER),
            "key": key.private_bytes(
                _DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            "node_id": given.node_id.encode(),
        }
        for number, pem in enumerate(given.ca_pem):
            root = x509.load_pem_x509_certificate(pem.encode())
            identity[f"ca{number}"] = root.public_bytes(_DER)
        self.boards[given.node_id] = nodes.make_board(
            self.folder / given.node_id,
            nodes.soil(),
            node=nodes.tree_3(),
            port=self.broker_door.port,
            link={"tls": True} | ({"renew": self.listener} if knows_listener else {}),
            identity=identity,
            start_utc_us=time.time_ns() // 1000,
        )
        self.boards[given.node_id].heap_bytes = HEAP_BYTES - LEAST_FREE_BYTES
        return given.node_id

    def _signed_long_ago(
        self, session: Session, node_id: str, certificate: x509.Certificate, at: datetime
    ) -> x509.Certificate:
        issued = authority.sign_node_again(
            self.ca_dir, certificate.public_bytes(_DER), node_id=node_id, now=at
        )
        with db.writing(session):
            current = credentials.credentials_of(session, node_id, now=at).current
            assert current is not None
            session.delete(current)
            session.flush()
            credentials.enter_issued(session, node_id, issued, now=at)
            session.get_one(Node, node_id).certificate_expires_at = issued.not_after
        return x509.load_pem_x509_certificate(issued.pem.encode())

    def wake(self, *node_ids: str, times: int = 1) -> None:
        """The next wakes of these nodes, each in an hour of its own."""
        for _ in range(times):
            for node_id in node_ids:
                board = self.boards[node_id]
                board.power_on(at_utc_us=board.now_us + 3_600_000_000)
                result = board.run_wake()
                assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"

    def are_told(self) -> None:
        def is_published() -> bool:
            with self.sessions() as session:
                return publishing.count_due(session) == 0

        wait_until(is_published)

    def status(self, node_id: str) -> NodeStatus:
        with self.sessions() as session:
            return session.get_one(NodeStatus, node_id)

    def heard(self) -> set[str]:
        with self.sessions() as session:
            heard = NodeStatus.last_state_at.is_not(None)
            return set(session.scalars(select(NodeStatus.node_id).where(heard)))


@pytest.fixture
def fleet(tmp_path: Path, sqlite_databases: SqliteDatabases) -> Iterator[Fleet]:
    authority.initialise(tmp_path / "ca", valid_from=datetime.now(UTC) - 4 * YEARS)
    certificates = Certificates(tmp_path / "ca")
    with sqlite_databases.fresh() as url:
        fleet = Fleet(tmp_path, certificates, url)
        yield fleet
        for door in (fleet.broker_door, fleet.other_door, fleet.listener_door):
            door.close()
        fleet.engine.dispose()


def test_nodes_that_slept_through_the_end_of_their_certificate_or_a_forced_change_of_root_come_back(
    fleet: Fleet,
) -> None:
    expired, revoked = fleet.enrol(2, at=datetime.now(UTC) - 3 * YEARS)
    (unaware,) = fleet.enrol(1, knows_listener=False)
    now = clock.now()
    with fleet.serving():
        with fleet.sessions() as session:
            configuring.configure_node(session, unaware, {"renew": fleet.listener}, now=now)
        fleet.are_told()
        fleet.wake(unaware, times=2)
    with fleet.sessions() as session, db.writing(session):
        session.execute(update(NodeStatus).values(last_state_at=None))
    with fleet.sessions() as session:
        credentials.revoke_node(session, revoked, "stolen", fleet.ca_dir, now=now)
        rolling_over.begin(session, fleet.ca_dir, now=now)
        rolling_over.switch(session, fleet.ca_dir, now=now, force=True)
    with fleet.serving():
        fleet.wake(expired, revoked, times=2)
        for _ in range(24):
            assert fleet.boards[unaware].run_wake().reason == "deepsleep"
            if unaware in fleet.heard():
                break
        wait_until(lambda: fleet.heard() == {expired, unaware})
    with fleet.sessions() as session:
        assert rolling_over.roll_over(session).missing == 0
        credentials.note_in_use(session, now=now)
        found = credentials.credentials_of(session, expired, now=now)
    assert found.current is not None
    assert found.current.name == found.said_certificate
    assert found.current.expires_at > now + YEARS


def _root_follows_root(fleet: Fleet, count: int) -> None:
    """Half of the nodes are asleep at every step, each half in turn."""
    now = clock.now()
    everybody = fleet.enrol(count)
    first, second = everybody[: count // 2], everybody[count // 2 :]
    with fleet.serving():
        fleet.wake(*everybody)
        wait_until(lambda: len(fleet.heard()) == count)
        with fleet.sessions() as session:
            rolling_over.begin(session, fleet.ca_dir, now=now)
        fleet.are_told()
        fleet.wake(*first, times=2)
        with fleet.sessions() as session:
            wait_until(lambda: rolling_over.roll_over(session).followed == len(first))
            with pytest.raises(NodesMissing, match=f"{len(second)} of {count}"):
                rolling_over.switch(session, fleet.ca_dir, now=now)
        # Weeks later the others wake, and the first ones fall asleep.
        fleet.wake(*second, times=2)
        with fleet.sessions() as session:
            wait_until(lambda: not rolling_over.roll_over(session).missing)
            rolling_over.switch(session, fleet.ca_dir, now=now)
    with fleet.serving():
        fleet.wake(*second, times=2)
        with fleet.sessions() as session:
            rolling_over.finish(session, fleet.ca_dir, now=now)
    with fleet.serving():
        with fleet.sessions() as session:
            assert rolling_over.roll_over(session).step is None
            new = session.get_one(NodeStatus, second[0]).roots.split()[1]
        fleet.are_told()
        fleet.wake(*everybody, times=2)
        wait_until(lambda: {fleet.status(node).roots for node in everybody} == {new})


def test_one_root_takes_the_others_place_while_half_of_the_nodes_are_asleep(fleet: Fleet) -> None:
    _root_follows_root(fleet, 2)


@pytest.mark.nightly
def test_one_root_takes_the_others_place_in_a_fleet_of_fifty(fleet: Fleet) -> None:
    _root_follows_root(fleet, 50)


def _broker_moves(fleet: Fleet, count: int) -> None:
    """The broker is found at both addresses until all have followed; half of the nodes are asleep for weeks."""
    now = clock.now()
    everybody = fleet.enrol(count)
    awake, asleep = everybody[: count // 2], everybody[count // 2 :]
    with fleet.serving():
        target = BrokerAddress.checked("localhost", fleet.other_door.port)
        fleet.wake(*everybody)
        wait_until(lambda: len(fleet.heard()) == count)
        with fleet.sessions() as session:
            moving.move_broker(session, target, now=now)
        fleet.are_told()
        fleet.wake(*awake, times=3)

        def followed() -> int:
            with fleet.sessions() as session:
                return moving.progress(session, target).followed

        wait_until(lambda: followed() == len(awake))
        with fleet.sessions() as session:
            waiting = moving.progress(session, target).waiting
            assert {one.node_id for one in waiting} == set(asleep)
        fleet.wake(*asleep, times=3)
        wait_until(lambda: followed() == count)


def test_nodes_follow_the_broker_to_another_address_when_they_wake(fleet: Fleet) -> None:
    _broker_moves(fleet, 2)


@pytest.mark.nightly
def test_a_fleet_of_fifty_follows_the_broker_to_another_address(fleet: Fleet) -> None:
    _broker_moves(fleet, 50)

"""Another root takes effect while broker and services run: nobody is restarted, and nobody's session ends."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from brokers import (
    Certificates,
    Gone,
    RawClient,
    RunningBroker,
    at_work,
    node_client,
    service_client,
    wait_until,
)
from mqtt_services import NODE_ID
from sqlalchemy.orm import Session, sessionmaker

from fleet_server.mqtt.consumer import Consumer
from fleet_server.services import authority
from fleet_server.settings import Settings


def test_another_root_is_shown_and_trusted_by_who_runs_and_sessions_go_on(
    broker: RunningBroker,
    certificates: Certificates,
    settings: Settings,
    sessions: sessionmaker[Session],
    tmp_path: Path,
) -> None:
    folder, files = certificates.folder, certificates.files
    pair = certificates.node("n-000002")
    before = _copy(files.root_certificate, tmp_path / "before.crt")
    with (
        at_work(Consumer(settings, sessions)),
        node_client(broker, certificates.node(NODE_ID)) as staying,
    ):
        assert staying.connect(NODE_ID, keep_alive_s=600) == 0
        authority.make_next_root(folder)
        following = _copy(files.next_root_certificate, tmp_path / "following.crt")
        assert not _trusts(broker, pair, following)

        authority.switch_root(folder)

        wait_until(lambda: _trusts(broker, pair, following))
        assert not _trusts(broker, pair, before)
        with RawClient(broker.node_port, pair, following) as coming:
            assert coming.connect("n-000002") == 0
        # Ingest knew the old root only; thrown out, it comes back, and takes its name again.
        with service_client(broker, "svc-ingest") as usurper:
            wait_until(lambda: not usurper.is_alive())
        assert staying.is_alive()


def test_a_pair_of_which_half_is_there_is_taken_when_it_is_whole(
    kind: str, broker: RunningBroker, certificates: Certificates
) -> None:
    """Key and certificate are two files. A mosquitto that must read a list in between lets nobody in until then."""
    files, pair = certificates.files, certificates.node(NODE_ID)
    files.key("broker").write_bytes(files.key("node-listener").read_bytes())
    _let_it_look(broker, certificates)
    if kind == "embedded":
        assert _trusts(broker, pair, files.root_certificate)

    authority.issue_pair(certificates.folder, "broker")

    wait_until(lambda: _trusts(broker, pair, files.root_certificate))


def _let_it_look(broker: RunningBroker, certificates: Certificates) -> None:
    """Until it has taken a revocation, which it looks for in the same turn."""
    other = certificates.node("n-000003")
    with node_client(broker, other) as client:
        assert client.connect("n-000003", keep_alive_s=600) == 0
        authority.revoke(certificates.folder, "n-000003")
        broker.revocations_changed()
        wait_until(lambda: not client.is_alive())


def _copy(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target


def _trusts(broker: RunningBroker, pair: object, root: Path) -> bool:
    with suppress(Gone), RawClient(broker.node_port, pair, root):  # type: ignore[arg-type]
        return True
    return False

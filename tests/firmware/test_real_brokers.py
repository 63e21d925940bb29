"""The node at the brokers that fleets run: the embedded one and a real mosquitto, with the fleet's own certificates."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cbor2
import nodes
import pytest
from brokers import Certificates, RunningBroker, running_broker, service_client
from nodes import NODE_ID

from fleet_server.wire.senml import decode_pack
from fleet_server.wire.state_message import decode_state
from hardware.virtual_board.board import Board

DESIRED = cbor2.dumps(
    {
        "config": {"version": 3, "values": {"sample_s": 600, "publish_s": 1200}},
        "release": None,
        "commands": [],
        "certificate": None,
    }
)


class Server:
    """Takes what nodes say, acknowledges it, and answers each pack with a retained receipt."""

    def __init__(self, broker: RunningBroker) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._ingest = service_client(broker, "svc-ingest")
        self._ingest.subscribe("up/#")
        self._control = service_client(broker, "svc-control")
        self._control.publish_and_wait(f"dn/{NODE_ID}/des", DESIRED, is_retained=True)
        self._control.publish_and_wait(
            f"dn/{NODE_ID}/rcpt", cbor2.dumps({"spool": 0, "seq": 0}), is_retained=True
        )
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        while not self._is_over.is_set():
            for topic, payload, _ in self._ingest.drain(quiet_s=0.02)[len(self.heard) :]:
                self.heard.append((topic, payload))
                if topic.endswith("/tm"):
                    pack = decode_pack(payload)
                    receipt = cbor2.dumps({"spool": pack.spool, "seq": pack.seq})
                    self._control.publish_and_wait(f"dn/{NODE_ID}/rcpt", receipt, is_retained=True)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._ingest.close()
        self._control.close()


@contextmanager
def fleet(kind: str, folder: Path) -> Iterator[tuple[Board, Server]]:
    """A node under the fleet's authority, and its server at a broker of this kind."""
    certificates = Certificates(folder / "ca")
    pair = certificates.node(NODE_ID)
    identity = nodes.identity(pair.certificate, pair.key, certificates.files.root_certificate)
    with running_broker(kind, certificates, folder) as broker:
        server = Server(broker)
        try:
            board = nodes.make_board(
                folder / "node",
                nodes.soil(),
                node=nodes.tree_3(),
                port=broker.node_port,
                link={"tls": True},
                identity=identity,
                start_utc_us=time.time_ns() // 1000,
            )
            yield board, server
        finally:
            server.close()


@pytest.mark.parametrize(
    "kind", ["embedded", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)]
)
def test_a_node_talks_to_the_brokers_that_fleets_run(kind: str, tmp_path: Path) -> None:
    with fleet(kind, tmp_path) as (board, server):
        results = [board.run_wake() for _ in range(5)]

    assert [result.reason for result in results] == ["deepsleep"] * 5
    packs = [decode_pack(payload) for topic, payload in server.heard if topic.endswith("/tm")]
    states = [decode_state(payload) for topic, payload in server.heard if topic.endswith("/st")]
    assert sorted(pack.seq for pack in packs) == list(range(1, 1 + len(packs))), "each sent once"
    assert len(packs) >= 3
    assert len(states) == sum(result.connections for result in results) == 4
    assert {state.config_version for state in states} == {3}
    assert all(pack.time_utc_s is not None for pack in packs)

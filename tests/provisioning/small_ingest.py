"""The least that a node needs of a fleet: a real broker, and somebody who stores packs and says so."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from paho.mqtt import client as mqtt

from fleet_server.services import authority
from fleet_server.wire.desired import DesiredState, Receipt, encode_desired, encode_receipt
from fleet_server.wire.senml import Pack, decode_pack
from tests.provisioning.conftest import SmallFleet

FLEET = Path(sys.executable).parent / "fleet"


class SmallIngest:
    """Keeps packs in memory and sends receipts for them, without holes. Counts what came again."""

    def __init__(self, ca_dir: Path, service_port: int) -> None:
        self.packs: dict[tuple[str, int, int], Pack] = {}
        self.resent = 0
        self.states = 0
        self.gives_receipts = True
        self._seen_low: dict[tuple[str, int], int] = {}
        self._changed = threading.Condition()
        self._control = self._client(ca_dir, service_port, "svc-control")
        self._ingest = self._client(ca_dir, service_port, "svc-ingest")
        self._ingest.on_message = self._store
        self._ingest.subscribe("up/+/+", qos=1)

    def close(self) -> None:
        for client in (self._ingest, self._control):
            client.disconnect()
            client.loop_stop()

    def welcome(self, node_id: str) -> None:
        """Both retained messages that every node finds from its enrolment on."""
        desired = DesiredState(config_version=1, config_values={"sample_s": 900, "publish_s": 3600})
        self._control.publish(f"dn/{node_id}/des", encode_desired(desired), qos=1, retain=True)
        self._control.publish(
            f"dn/{node_id}/rcpt", encode_receipt(Receipt(spool=0, seq=0)), qos=1, retain=True
        )

    def of(self, node_id: str) -> list[Pack]:
        with self._changed:
            return [pack for (of, _, _), pack in sorted(self.packs.items()) if of == node_id]

    def wait_for_packs(self, node_id: str, count: int, *, timeout_s: float = 60) -> None:
        """Until so many packs of the node have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(node_id)) >= count, timeout_s)

    def _client(self, ca_dir: Path, port: int, name: str) -> mqtt.Client:
        files = authority.AuthorityFiles(ca_dir)
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name)
        client.tls_set(
            str(files.root_certificate), str(files.certificate(name)), str(files.key(name))
        )
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect("127.0.0.1", port)
        client.loop_start()
        assert connected.wait(10)
        return client

    def _store(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/st"):
            self.states += 1
        if not message.topic.endswith("/tm"):
            return
        pack = decode_pack(message.payload)
        key = (pack.node_id, pack.spool, pack.seq)
        with self._changed:
            self.resent += key in self.packs
            self.packs[key] = pack
            self._changed.notify_all()
            if not self.gives_receipts:
                return
            seq = pack.oldest - 1
            while (pack.node_id, pack.spool, seq + 1) in self.packs:
                seq += 1
        receipt = encode_receipt(Receipt(spool=pack.spool, seq=max(0, seq)))
        self._control.publish(f"dn/{pack.node_id}/rcpt", receipt, qos=1, retain=True)


@contextmanager
def embedded_broker(data_dir: Path) -> Iterator[tuple[int, int]]:
    """`fleet broker embedded` on free ports, as its own process: (node port, service port)."""
    process = subprocess.Popen(
        [
            FLEET,
            "broker",
            "embedded",
            "--data",
            data_dir,
            "--node-port",
            "0",
            "--service-port",
            "0",
            "--json",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield ready["node_port"], ready["service_port"]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@contextmanager
def small_ingest(fleet: SmallFleet, data_dir: Path) -> Iterator[SmallIngest]:
    """A broker and an ingest for the nodes that `fleet` enrols from now on."""
    ca_dir = data_dir / "ca"
    authority.initialise(ca_dir, valid_from=datetime.now(UTC) - timedelta(days=60))
    with embedded_broker(data_dir) as (node_port, service_port):
        ingest = SmallIngest(ca_dir, service_port)

        def certify(request_pem: str, node_id: str) -> tuple[str, list[str]]:
            ingest.welcome(node_id)
            issued = authority.sign_node_request(ca_dir, request_pem, node_id=node_id)
            return issued.pem, authority.trust_anchors_pem(ca_dir)

        fleet.certify = certify
        fleet.link["port"] = node_port
        try:
            yield ingest
        finally:
            ingest.close()

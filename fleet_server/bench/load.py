"""Load nodes: each publishes its share of the packs over a mutual TLS connection of its own, many in flight.

    python -m fleet_server.bench.load FOLDER NODE_PORT PACKS SPOOL NODE_ID…

Prints one line with the wall time of the first publish; ends when every publish is acknowledged by the broker.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fleet_server.services.authority import AuthorityFiles
from fleet_server.wire.senml import encode_pack
from fleet_server.wire.topics import TopicKind, topic_name

# The past that the packs come from; any moment would do, a fixed one makes runs alike.
FIRST_SAMPLE_UTC_S = 1_751_328_000
_IN_FLIGHT = 50
_SAMPLE_S = 900
_POWER_UP = 7
_PATIENCE_S = 600.0


def payloads(
    node_id: str, count: int, *, spool: int, first_utc_s: int | None = None
) -> list[bytes]:
    """`count` packs of one `tree-3` node, sampled every 15 minutes, with values that differ.

    Args:
        first_utc_s: when the first was sampled; spools one after the other from a fixed moment on when None.
    """
    if first_utc_s is None:
        first_utc_s = FIRST_SAMPLE_UTC_S + spool * count * _SAMPLE_S
    return [
        encode_pack(
            node_id=node_id,
            time_utc_s=first_utc_s + number * _SAMPLE_S,
            oldest=1,
            spool=spool,
            seq=number + 1,
            power_up=_POWER_UP,
            uptime_ms=(spool * count + number) * _SAMPLE_S * 1000,
            readings=[
                ("r30", float(2000 + number % 5000), None),
                ("t30", float(288 + number % 64), None),
                ("r60", float(1500 + number % 3000), None),
                ("t60", float(272 + number % 32), None),
                ("r90", float(1200 + number % 1000), None),
                ("t90", float(256 + number % 16), None),
                ("bat", float(4000 - number % 500), None),
            ],
        )
        for number in range(count)
    ]


def main(folder: Path, port: int, packs: int, spool: int, node_ids: list[str]) -> None:
    """Publish and wait for the broker's acknowledgements."""
    shares = [
        packs // len(node_ids) + (number < packs % len(node_ids)) for number in range(len(node_ids))
    ]
    work = [
        (_connected(folder, port, node_id), topic_name(TopicKind.TELEMETRY, node_id), payloads(node_id, share, spool=spool))
        for node_id, share in zip(node_ids, shares, strict=True)
    ]  # fmt: skip
    print(json.dumps({"started_s": time.time()}), flush=True)  # noqa: T201 - the parent reads it
    last = [
        [client.publish(topic, payload, qos=1) for payload in own] for client, topic, own in work
    ]
    for publishes in last:
        for publish in publishes:
            publish.wait_for_publish(_PATIENCE_S)
    for client, _, _ in work:
        client.disconnect()
        client.loop_stop()


def _connected(folder: Path, port: int, node_id: str) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=node_id, clean_session=True)
    client.tls_set(
        str(AuthorityFiles(folder / "ca").root_certificate),
        str(folder / f"{node_id}.crt"),
        str(folder / f"{node_id}.key"),
    )
    client.max_inflight_messages_set(_IN_FLIGHT)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    deadline = time.monotonic() + _PATIENCE_S
    while not client.is_connected():
        if time.monotonic() > deadline:
            raise SystemExit(f"{node_id} could not connect.")
        time.sleep(0.01)
    return client


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])

"""A consumer that does nothing but acknowledge by hand: the limit that ingest is compared with.

    python -m fleet_server.bench.drain FOLDER SERVICE_PORT PACKS

Prints one line when its subscription stands and one with the wall time of the last acknowledgement and the processor time used
between the two.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fleet_server.services.authority import AuthorityFiles
from fleet_server.wire.topics import SERVICE_INGEST, TopicKind, topic_filter


def main(folder: Path, port: int, packs: int) -> None:
    """Drain `packs` messages and end."""
    files = AuthorityFiles(folder / "ca")
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=SERVICE_INGEST, clean_session=True, manual_ack=True
    )
    client.tls_set(
        str(files.root_certificate),
        str(files.certificate(SERVICE_INGEST)),
        str(files.key(SERVICE_INGEST)),
    )
    left, cpu_before_s = packs, 0.0

    def on_connect(client: mqtt.Client, *_: Any) -> None:
        client.subscribe(topic_filter(TopicKind.TELEMETRY), 1)

    def on_subscribe(*_: Any) -> None:
        nonlocal cpu_before_s
        cpu_before_s = time.process_time()
        print(json.dumps({"event": "ready"}), flush=True)  # noqa: T201 - the parent reads it

    def on_message(client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        nonlocal left
        client.ack(message.mid, message.qos)
        left -= 1
        if left == 0:
            used = {"finished_s": time.time(), "cpu_s": time.process_time() - cpu_before_s}
            print(json.dumps(used), flush=True)  # noqa: T201 - the parent reads it
            client.disconnect()

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

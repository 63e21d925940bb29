"""Ending a node's live session on mosquitto: whoever connects with a client id displaces who has it (MQTT 3.1.1 section 3.1.4)."""

from __future__ import annotations

import threading

import paho.mqtt.client as mqtt
from paho.mqtt.reasoncodes import ReasonCode

from fleet_server.errors import Invalid, Unavailable
from fleet_server.mqtt.connection import CONNECT_TIMEOUT_S, make_client, service_address
from fleet_server.settings import Settings
from fleet_server.wire.topics import SERVICE_CONTROL, is_node_id


def end_session(settings: Settings, node_id: str) -> None:
    """Displace the node, by taking its client id at the services' listener, where client ids are free.

    Raises:
        Invalid: this cannot be a node.
        Unavailable: the broker cannot be reached or refuses.
    """
    if not is_node_id(node_id):
        raise Invalid(f"{node_id!r} cannot be a node's name.")
    address = service_address(settings)
    client = make_client(
        settings, address, SERVICE_CONTROL, client_id=node_id, is_clean=True, reconnects=False
    )
    answers: list[ReasonCode] = []
    answered = threading.Event()

    def on_connect(
        _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _: object
    ) -> None:
        answers.append(reason)
        answered.set()

    client.on_connect = on_connect
    try:
        client.connect(address.host, address.port)
    except OSError as problem:
        raise Unavailable(
            f"The broker {address.host}:{address.port} cannot be reached."
        ) from problem
    client.loop_start()
    answered.wait(CONNECT_TIMEOUT_S)
    client.disconnect()
    client.loop_stop()
    if not answers or answers[0].is_failure:
        raise Unavailable(f"The broker {address.host}:{address.port} refuses.")

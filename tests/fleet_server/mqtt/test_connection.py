"""Where the services find their broker."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import paho.mqtt.publish
import pytest
from brokers import (
    Certificates,
    Hurried,
    at_work,
    free_port,
    mosquitto_program,
    running_embedded,
    wait_until,
)
from factories import SimulatedNode
from mqtt_services import NODE_ID
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from structlog.testing import capture_logs

from fleet_server.broker.refusals import Tally
from fleet_server.errors import Unavailable
from fleet_server.models import Pack
from fleet_server.mqtt.connection import ServiceAddress, service_address
from fleet_server.mqtt.consumer import Consumer
from fleet_server.mqtt.publisher import Publisher
from fleet_server.services import authority
from fleet_server.settings import load_settings


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtts://broker.example.org", ServiceAddress("broker.example.org", 8884, is_tls=True)),
        ("mqtts://10.0.0.7:9000", ServiceAddress("10.0.0.7", 9001, is_tls=True)),
        ("mqtts://b:9000?service_port=7", ServiceAddress("b", 7, is_tls=True)),
        ("mqtt://127.0.0.1:1883", ServiceAddress("127.0.0.1", 1883, is_tls=False)),
        ("mqtt://localhost", ServiceAddress("localhost", 1883, is_tls=False)),
        ("mqtt://localhost:1?service_port=2", ServiceAddress("localhost", 2, is_tls=False)),
    ],
)
def test_services_find_their_listener_by_the_brokers_url(
    tmp_path: Path, url: str, address: ServiceAddress
) -> None:
    settings = load_settings({}, data_dir=tmp_path, broker_url=url)
    assert service_address(settings) == address


def test_embedded_broker_is_found_by_its_status_file(tmp_path: Path) -> None:
    settings = load_settings({}, data_dir=tmp_path)
    with pytest.raises(Unavailable, match="fleet broker embedded"):
        service_address(settings)
    tally = Tally(settings.broker_status_path)
    with running_embedded(Certificates(tmp_path / "ca"), tally=tally) as broker:
        tally.facts |= {"host": "127.0.0.1", "ports": {"services": broker.service_port}}
        expected = ServiceAddress("127.0.0.1", broker.service_port, is_tls=True)
        wait_until(lambda: _finds(settings, expected))


def _finds(settings: object, expected: ServiceAddress) -> bool:
    try:
        return service_address(settings) == expected  # type: ignore[arg-type]
    except Unavailable:
        return False


@pytest.mark.needs_mosquitto
def test_plain_broker_on_this_machine_serves_without_certificates(
    tmp_path: Path, sessions: sessionmaker[Session]
) -> None:
    port = free_port()
    configuration = tmp_path / "plain.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    broker = subprocess.Popen(
        [mosquitto_program(), "-c", str(configuration)], stderr=subprocess.DEVNULL
    )
    try:
        settings = load_settings({}, data_dir=tmp_path, broker_url=f"mqtt://127.0.0.1:{port}")
        with at_work(Consumer(settings, sessions)):
            pack = SimulatedNode(NODE_ID).pack()
            paho.mqtt.publish.single(
                f"up/{NODE_ID}/tm", pack.payload, qos=1, hostname="127.0.0.1", port=port
            )
            wait_until(lambda: _count(sessions) == 1)
    finally:
        broker.terminate()
        broker.wait(10)


def _count(sessions: sessionmaker[Session]) -> int:
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(Pack)) or 0


def test_ingest_says_once_for_each_growing_step_that_it_waits_for_the_broker(
    tmp_path: Path, sessions: sessionmaker[Session]
) -> None:
    Certificates(tmp_path / "ca")
    stop = Hurried(after=7)
    with capture_logs() as told:
        Consumer(load_settings({}, data_dir=tmp_path), sessions).run(stop)
    assert stop.waited_s == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert [one["seconds"] for one in told] == stop.waited_s


@pytest.mark.parametrize(
    ("kind_of_service", "name"), [(Consumer, "svc-ingest"), (Publisher, "svc-control")]
)
def test_service_whose_key_is_lost_while_it_runs_ends_instead_of_waiting_for_it(
    tmp_path: Path,
    sessions: sessionmaker[Session],
    kind_of_service: type[Consumer] | type[Publisher],
    name: str,
) -> None:
    certificates = Certificates(tmp_path / "ca")
    key = certificates.files.key(name)
    key.write_bytes(b"lost")
    settings = load_settings({}, data_dir=tmp_path, broker_url=f"mqtts://127.0.0.1:{free_port()}")
    with pytest.raises(authority.PairUnusable, match=rf"{name}\.key is damaged: put it back"):
        kind_of_service(settings, sessions).run(threading.Event())

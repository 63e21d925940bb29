"""What a node told about itself stands on its page in the reader's language."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import NOON, SimulatedNode, deployed_node
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock
from fleet_server.services import accounts
from fleet_server.services.ingest import store_batch
from tests.fleet_server.small_world import HOSTILE, PASSWORD, USER
from tests.fleet_server.world_fixtures import operator_at


@pytest.fixture
def operator(sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[FlaskClient]:
    with sessions() as session:
        accounts.create_user(session, USER, PASSWORD, now=NOON)
        deployed_node(session)
        node = SimulatedNode()
        messages = [
            node.event(1, "battery_swap", {"mv": 4100, "was_mv": 3340}),
            node.event(2, "crash", {"what": HOSTILE, "cause": "exception"}),
            node.event(3, "battery", {"level": "low", "mv": 3490}),
            node.event(4, "of_a_later_firmware", {"n": 7}),
            node.state(at_s=int(NOON.timestamp()), drift_ppm=-1180, battery_mv=3490),
        ]
        store_batch(session, messages, now=NOON)
    yield from operator_at(NOON, sessions, tmp_path)


def test_node_page_shows_events_battery_and_clock(operator: FlaskClient) -> None:
    page = operator.get("/fleet/nodes/n-000001").text
    german = operator.get("/fleet/nodes/n-000001", headers={"Accept-Language": "de"}).text

    names = [
        "of_a_later_firmware",
        ">Battery<",
        "Wake ended by a fault",
        "Battery swapped or charged",
    ]
    table = page[page.index('<h2 id="events">') :]
    assert [table.index(name) for name in names] == sorted(table.index(name) for name in names)
    assert "now, mV: <b>4100</b>; before, mV: <b>3340</b>" in page
    assert "level: <b>low: sends rarely</b>; now, mV: <b>3490</b>" in page
    assert "cause: <b>error in the firmware</b>" in page
    assert "n: <b>7</b>" in page
    assert "3.49\N{NO-BREAK SPACE}V, low: sends rarely" in page
    assert "−1,180&nbsp;ppm" in page
    assert HOSTILE not in page
    assert "Batterie getauscht oder geladen" in german
    assert "jetzt, mV: <b>4100</b>; vorher, mV: <b>3340</b>" in german
    assert "−1.180&nbsp;ppm" in german


def test_page_of_a_node_in_field_mode_says_when_it_was_heard_and_looks_again(
    operator: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    assert 'http-equiv="refresh"' not in operator.get("/fleet/nodes/n-000001").text
    begun_s = int(NOON.timestamp())
    with sessions() as session:
        event = SimulatedNode(started_s=begun_s - 5 * 900).event(5, "field_mode", {"by": "button"})
        store_batch(session, [event], now=NOON)

    clock.use_clock(f"{begun_s + 40}@0x0")
    page = operator.get("/fleet/nodes/n-000001").text
    german = operator.get("/fleet/nodes/n-000001", headers={"Accept-Language": "de"}).text
    assert '<meta http-equiv="refresh" content="15">' in page
    assert "Field mode: heard 40 s ago." in page
    assert "Montagebetrieb: vor 40 s gehört." in german

    clock.use_clock(f"{begun_s + 700}@0x0")
    assert 'http-equiv="refresh"' not in operator.get("/fleet/nodes/n-000001").text

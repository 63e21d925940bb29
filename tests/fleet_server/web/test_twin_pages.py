"""A person sees what is wanted of a node, how it stands to that, and what it answered; no password."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock
from fleet_server.services import accounts, commanding, configuring
from fleet_server.services.ingest import store_batch
from tests.fleet_server.small_world import PASSWORD, USER
from tests.fleet_server.world_fixtures import World, log_in

pytestmark = pytest.mark.postgresql_at_night

NODE = "n-000001"


@pytest.fixture
def operator(sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[FlaskClient]:
    with sessions() as session:
        accounts.create_user(session, USER, PASSWORD, now=NOON)
        deployed_node(session, NODE)
        settings = {"wifi": [["stadt<b>", "geheimnis"]], "low_mv": 3300}
        configuring.configure_node(session, NODE, settings, now=NOON, secret_key=lambda: "k" * 32)
        orders = [
            commanding.order_command(session, NODE, name, {}, now=NOON)
            for name in ("self_test", "reboot")
        ]
        details = {
            "id": orders[0],
            "name": "self_test",
            "result": "failed",
            "why": "t30 absent",
            "error": "",
        }
        node = SimulatedNode(NODE)
        state = node.state(
            at_s=NOON_S + 60,
            config_version=1,
            config_state="rolled_back",
            config_reason="wifi 1 not found",
        )
        store_batch(session, [node.event(1, "answer", details), state], now=NOON)
        engine = session.get_bind().engine
    clock.use_clock(f"{int((NOON + timedelta(hours=1)).timestamp())}@0x0")
    world = World(engine, sessions, engine.url.render_as_string(hide_password=False), tmp_path)
    client = world.app().test_client()
    log_in(client)
    yield client
    clock.use_clock(clock.REAL)


def test_node_page_shows_what_is_wanted_what_runs_and_what_was_answered(
    operator: FlaskClient,
) -> None:
    page = operator.get(f"/fleet/nodes/{NODE}").text
    german = operator.get(f"/fleet/nodes/{NODE}", headers={"Accept-Language": "de"}).text

    assert "rolled back" in page
    assert "wifi 1 not found" in page
    assert "<dt>Version wanted</dt><dd>2</dd>" in page
    assert "<dt>Version running</dt><dd>1</dd>" in page
    assert "why=t30 absent error=–" in page
    assert "command: <b>self_test</b>; result: <b>failed</b>; why: <b>t30 absent</b>" in page
    assert "pending" in page
    assert "geheimnis" not in page
    assert "stadt<b>" not in page
    assert "Befehle" in german
    assert "Antwort auf einen Befehl" in german
    assert "zurückgenommen" in german

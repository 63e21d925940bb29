"""A probe that lies is calibrated beside its pond: the real firmware in field mode, a real broker, the server, and two people on its pages."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodes
import pytest
from brokers import Certificates, at_work, running_broker, settings_for, wait_until
from databases import SqliteDatabases
from factories import deployed_node
from fake_probes import FakeVoltage
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.models import Channel, Observation, Role, observation_id
from fleet_server.mqtt.consumer import Consumer
from fleet_server.mqtt.publisher import Publisher
from fleet_server.services import accounts, budgeting, revising, version_history
from fleet_server.services.budgeting import ValueBudget
from fleet_server.services.verifying import verify
from hardware.catalogue import load_node_model
from hardware.virtual_board.board import Board
from hardware.virtual_board.network import NetworkPolicy
from hardware.virtual_board.probes.ds18b20 import Ds18b20
from hardware.virtual_board.probes.ezo import EzoDo, EzoEc, EzoPh
from hardware.virtual_board.radio import AccessPoint
from hardware.virtual_board.scene_models import oxygen_at_saturation_mg_l
from hardware.virtual_board.wiring import Wiring
from provisioning.node_configuration import node_map
from tests.fleet_server.small_world import PASSWORD
from tests.fleet_server.world_fixtures import World, csrf_token, log_in

US = 1_000_000
PRESSURE_HPA = 1013.25
CALIBRATED = ("ph", "do")


@dataclass
class Water:
    """What the probes are in, as it truly is."""

    ph: float
    oxygen_mg_l: float
    temperature_c: float = 20.0


POND = Water(8.2, 6.5, 17.0)
BUFFER_7_IN_AIR = Water(6.881, oxygen_at_saturation_mg_l(20.0, 0.0))
BUFFER_4_AT_ZERO = Water(4.002, 0.0)
TRUTH = {"ph": POND.ph, "do": POND.oxygen_mg_l}


class Bench:
    """A pond's node with a worn electrode and a blunt oxygen probe, everything that looks after it, a technician and a steward."""

    def __init__(self, board: Board, sessions: sessionmaker[Session], world: World) -> None:
        self.water = POND
        self.board = board
        self.sessions = sessions
        self._packs = 0
        app = world.app()
        self.technician, self.steward = app.test_client(), app.test_client()
        log_in(self.technician, name="tina")
        log_in(self.steward, name="dora")

    def wakes(self, count: int) -> None:
        """So many wakes half a minute apart, each heard; the server's clock goes with the node's."""
        for _ in range(count):
            clock.use_clock(f"{self.board.now_us // US + 20}@0x0")
            result = self.board.run_wake()
            assert result.reason == "deepsleep", result.stdout
        self._packs += count
        wait_until(lambda: self._count() >= self._packs)

    def _count(self) -> int:
        with self.sessions() as session:
            return session.scalar(self._of("ph", func.count())) or 0

    def _of(self, key: str, *columns: Any) -> Any:
        stream = select(Channel.datastream_id).where(Channel.key == key)
        return select(*columns).where(Observation.datastream_id.in_(stream))

    def observations(self, key: str) -> list[Observation]:
        with self.sessions() as session:
            return list(
                session.scalars(self._of(key, Observation).order_by(Observation.sampled_at))
            )

    def newest_budget(self, key: str) -> ValueBudget:
        with self.sessions() as session:
            return budgeting.budget_of(
                session, budgeting.latest_of_channel(session, nodes.NODE_ID, key)
            )


def post(client: FlaskClient, path: str, form_at: str, **fields: object) -> Any:
    """As a browser sends the form of page `form_at`."""
    token = csrf_token(client.get(form_at).text)
    return client.post(path, data={"csrf_token": token, **fields})


@pytest.fixture
def bench(tmp_path: Path, sqlite_databases: SqliteDatabases) -> Iterator[Bench]:
    certificates = Certificates(tmp_path / "ca")
    pair = certificates.node(nodes.NODE_ID)
    with (
        running_broker("embedded", certificates, tmp_path) as broker,
        sqlite_databases.fresh() as url,
    ):
        engine = db.make_engine(url)
        sessions = db.session_factory(engine)
        with sessions() as session:
            deployed_node(session, nodes.NODE_ID, model="pond-3")
            for name, role in (("tina", Role.TECHNICIAN), ("dora", Role.DATA_STEWARD)):
                accounts.create_user(session, name, PASSWORD, now=clock.now(), roles=[role])
        made: list[Bench] = []
        board = nodes.make_board(
            tmp_path / "node",
            _wiring(lambda: made[0].water),
            node=node_map(load_node_model("pond-3")),
            port=broker.node_port,
            link={"tls": True, "wifi": [["stadt", "geheimnis"]]},
            identity=nodes.identity(
                pair.certificate, pair.key, certificates.files.root_certificate
            ),
            start_utc_us=time.time_ns() // 1000,
            network_policy=NetworkPolicy(access_points=(AccessPoint("stadt", "geheimnis"),)),
        )
        settings = settings_for(tmp_path, broker)
        made.append(Bench(board, sessions, World(engine, sessions, url, tmp_path)))
        with at_work(Consumer(settings, sessions)), at_work(Publisher(settings, sessions)):
            yield made[0]
        clock.use_clock(clock.REAL)
        engine.dispose()


def _wiring(water: Any) -> Wiring:
    """The parts as they are built, and beyond that: an electrode with 93 % of its slope and 0.25 pH off, an oxygen probe that shows 0.9 of it and 0.3 more."""
    wiring = Wiring(analog={35: FakeVoltage(1_937_000)})
    temperature = lambda _: water().temperature_c  # noqa: E731 - as the probes want it
    wiring.one_wire[13] = Ds18b20(temperature, serial="t", seed=3)
    for address, circuit in (
        (
            99,
            EzoPh(
                lambda _: 7.25 + 0.93 * (water().ph - 7.0),
                temperature,
                serial="ph",
                seed=3,
                power_pin=25,
            ),
        ),
        (
            97,
            EzoDo(
                lambda _: 0.3 + 0.9 * water().oxygen_mg_l,
                temperature,
                serial="do",
                seed=3,
                power_pin=25,
            ),
        ),
        (100, EzoEc(lambda _: 800.0, temperature, serial="ec", seed=3, power_pin=25)),
    ):
        wiring.i2c[0, address] = circuit
        wiring.power.append(circuit)
    return wiring


def test_probe_that_lies_is_right_within_its_u_after_two_people_calibrated_it_and_so_is_its_past(
    bench: Bench,
) -> None:
    technician, steward = bench.technician, bench.steward
    list_page = "/fleet/calibrations/standards"
    for name, worth in (("Puffer 7", "6,881"), ("Puffer 4", "4,002")):
        fields = {
            "name": name,
            "kind": "solution",
            "property": "ph",
            "points": f"20: {worth}",
            "u": "0,01",
        }
        assert post(technician, list_page, list_page, **fields).status_code == 303
    chooser = f"/field/nodes/{nodes.NODE_ID}/calibrate"
    bench.wakes(1)
    pages = {
        key: post(technician, chooser, chooser, key=key).headers["Location"] for key in CALIBRATED
    }

    def take(key: str, step: str, **fields: object) -> Any:
        page = pages[key]
        return post(
            technician,
            page.replace("?watch=1", "/take"),
            f"{page}&step={step}",
            step=step,
            **fields,
        )

    bench.wakes(2)
    for key, truth in TRUTH.items():
        found = bench.newest_budget(key)
        assert abs(found.value - truth) > found.expanded_u, "it lies, and does not know it"
        assert not found.is_site_calibrated

    bench.water = BUFFER_7_IN_AIR
    bench.wakes(2)
    early = take("ph", "ph7", standard="1", temperature="20,0")
    assert (early.status_code, "does not stand still yet" in early.text) == (400, True)
    bench.wakes(5)
    assert "steady for" in technician.get(pages["ph"]).text
    assert take("ph", "ph7", standard="1", temperature="20,0").status_code == 303
    assert (
        take("do", "saturated", temperature="20,0", pressure=f"{PRESSURE_HPA}").status_code == 303
    )
    bench.water = BUFFER_4_AT_ZERO
    bench.wakes(7)
    assert take("ph", "ph4", standard="2", temperature="20").status_code == 303
    assert take("do", "zero").status_code == 303

    for page in pages.values():
        draft = page.replace("/field/", "/fleet/").replace("?watch=1", "")
        assert technician.post(f"{draft}/approve").status_code in (400, 403)
        sha256 = re.search(r'name="sha256" value="([0-9a-f]{64})"', steward.get(draft).text)
        assert sha256 is not None
        approved = post(steward, f"{draft}/approve", draft, sha256=sha256[1], begin="draft")
        assert approved.status_code == 303
    with bench.sessions() as session:
        while revising.advance(session, now=clock.now()):
            pass

    bench.water = POND
    bench.wakes(2)
    for key, truth in TRUTH.items():
        found = bench.newest_budget(key)
        assert abs(found.value - truth) <= found.expanded_u
        assert abs(found.value - truth) < 0.1
        assert found.is_site_calibrated
        in_the_pond_before = bench.observations(key)[1]
        assert in_the_pond_before.u is not None
        assert in_the_pond_before.value is not None
        assert abs(in_the_pond_before.value - truth) <= 2 * in_the_pond_before.u
        with bench.sessions() as session:
            public_id = observation_id(
                in_the_pond_before.datastream_id, in_the_pond_before.sampled_at
            )
            history = version_history.history_of(session, public_id)
        assert [one.number for one in history.versions] == [1, 2]
        assert history.versions[0].value is not None
        assert abs(history.versions[0].value - truth) > abs(found.value - truth) + 0.1
    with bench.sessions() as session:
        report = verify(session)
    assert report.is_clean, report.findings

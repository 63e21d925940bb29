"""Trees and a pond with nodes, whose observations a test writes as it needs them; lineage and streams are those of real packs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from zlib import crc32

from factories import NOON, POND_READINGS, TREE_READINGS, SimulatedNode, register_node
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import Datastream, Observation, Site
from fleet_server.services import city_states, deploying
from fleet_server.services.ingest import store_batch
from hardware import catalogue

QUARTER = timedelta(minutes=15)
Values = Mapping[tuple[str, int], float | None]
WET: Values = {("soil_water_tension", depth): 10.0 for depth in (30, 60, 90)}
DRY: Values = {("soil_water_tension", depth): 90.0 for depth in (30, 60, 90)}
SOUND: Values = {
    ("dissolved_oxygen", 0): 8.0,
    ("oxygen_saturation", 0): 90.0,
    ("water_temperature", 0): 20.0,
}


class City:
    """`add_site` puts a node at a new site and hears its first pack, more than a year before the test begins."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._lineage: int | None = None

    def add_site(self, code: str, model: str = "tree-3", **known: object) -> Site:
        begin = NOON - timedelta(days=400)
        node_id = f"n-{crc32(code.encode()) % 16**6:06x}"
        register_node(self.session, node_id, model=model, now=begin)
        kind = catalogue.load_node_model(model).site_kind
        site = self.bare_site(code, kind, **known)
        deploying.deploy_node(self.session, node_id, site_code=code, from_at=begin, now=begin)
        readings = POND_READINGS if model == "pond-1" else TREE_READINGS
        first = NOON - timedelta(days=390)
        node = SimulatedNode(node_id, started_s=int(first.timestamp()) - 900, readings=readings)
        store_batch(self.session, [node.pack(1)], now=first)
        return site

    def bare_site(self, code: str, kind: str = "tree", **known: object) -> Site:
        new = deploying.NewSite(code, f"Site {code}", kind, 51.48, 7.22, **known)  # type: ignore[arg-type]
        return deploying.create_site(self.session, new, is_public=True, now=NOON - timedelta(400))

    def measure(
        self,
        site: Site,
        values: Values,
        *,
        at: datetime = NOON,
        count: int = 1,
        flag: int = 1,
        u: float | None = 0.1,
        known_from: datetime | None = None,
    ) -> None:
        """`count` quarter hours with the same values, the last sampled at `at`; known as soon as they were sampled."""
        moments = [at - QUARTER * back for back in range(count)]
        self.measure_at(site, values, moments, flag=flag, u=u, known_from=known_from)

    def measure_at(
        self,
        site: Site,
        values: Values,
        moments: Iterable[datetime],
        *,
        flag: int = 1,
        u: float | None = 0.1,
        known_from: datetime | None = None,
    ) -> None:
        streams = self.streams(site)
        rows = [
            {
                "datastream_id": streams[key],
                "sampled_at": moment,
                "value": value,
                "u": None if value is None else u,
                "flag": 9 if value is None else flag,
                "tests": 0,
                "lineage_id": self._some_lineage(),
                "known_from": known_from or moment,
                "pack_id": None,
            }
            for moment in moments
            for key, value in values.items()
        ]
        with db.writing(self.session):
            self.session.execute(insert(Observation), rows)

    def correct(self, site: Site, key: tuple[str, int], at: datetime, value: float) -> None:
        """As if it had always been so: a test of what must not be looked at."""
        with db.writing(self.session):
            self.session.execute(
                update(Observation)
                .where(
                    Observation.datastream_id == self.streams(site)[key],
                    Observation.sampled_at == at,
                )
                .values(value=value)
            )

    def streams(self, site: Site) -> dict[tuple[str, int], int]:
        rows = self.session.execute(
            select(Datastream.property, Datastream.depth_cm, Datastream.id).where(
                Datastream.site_id == site.id, Datastream.level == "calibrated"
            )
        )
        return {(name, depth_cm): datastream_id for name, depth_cm, datastream_id in rows}

    def look(self, at: datetime = NOON) -> int:
        return city_states.evaluate_due(self.session, now=at)

    def state(self, site: Site) -> str:
        self.session.expire_all()
        row = city_states.state_of(self.session, site.id)
        return "not looked at" if row is None else row.state

    def _some_lineage(self) -> int:
        if self._lineage is None:
            self._lineage = self.session.scalar(select(Observation.lineage_id).limit(1))
        assert self._lineage is not None
        return self._lineage

"""A thermometer in the soil of which one reading is a spike, and what the tests make of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.measurement.quality import QualityTest, result_of
from fleet_server.models import Channel, Observation
from fleet_server.services import aggregating, judging
from fleet_server.services.ingest import store_batch

STEP_S = 900
SPIKE_AT = 20
"""A soil at 30 cm does not warm by 8 °C for a quarter of an hour; the thermometer is read in sixteenths."""


class World:
    """A node that measures a day's quarter hours, of which one is a spike."""

    def __init__(self, session: Session, count: int = 60) -> None:
        deployed_node(session)
        self.session = session
        self.node = SimulatedNode()
        self.send(range(1, count + 1))

    def send(self, seqs: range | list[int], *, now: datetime | None = None) -> None:
        at = NOON + timedelta(seconds=STEP_S * max(seqs)) if now is None else now
        store_batch(
            self.session,
            [self.node.pack(seq, readings=self._readings(seq)) for seq in seqs],
            now=at,
        )

    def _readings(self, seq: int) -> Mapping[str, float | str]:
        soil = 318 + seq // 3 + (8 * 16 if seq == SPIKE_AT else 0)
        return {**self.node.readings, "t30": soil}

    def rows(self, key: str = "t30") -> list[Observation]:
        self.session.expire_all()
        stream = select(Channel.datastream_id).where(Channel.key == key)
        return list(
            self.session.scalars(
                select(Observation)
                .where(Observation.datastream_id.in_(stream))
                .order_by(Observation.sampled_at)
            )
        )

    def results(self, test: QualityTest, key: str = "t30") -> list[int]:
        return [result_of(row.tests, test) for row in self.rows(key)]

    def judge(self, *, now: datetime | None = None) -> None:
        for _ in range(20):
            if not judging.judge_due(self.session, now=now or NOON + timedelta(days=2)):
                return


class Thermometer(World):
    """The same node with nothing but that thermometer."""

    def _readings(self, seq: int) -> Mapping[str, float | str]:
        return {"t30": super()._readings(seq)["t30"]}

    def aggregate(self, *, now: datetime | None = None) -> None:
        for _ in range(50):
            if not aggregating.aggregate_due(self.session, now=now or NOON + timedelta(days=2)):
                return

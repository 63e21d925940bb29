"""Means of hours and local days: made once their values are judged, made again when those change, and provable to the bit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from corrections import calibrate
from factories import NOON, SimulatedNode, deployed_node
from judged_world import SPIKE_AT, STEP_S, World
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import (
    AggregateDetail,
    AggregatedStream,
    Channel,
    Datastream,
    Lineage,
    Observation,
    ObservationCount,
    ObservationHistory,
    Revision,
    Sensor,
)
from fleet_server.services import aggregating, flagging, known_then, revising
from fleet_server.services.ingest import store_batch
from fleet_server.services.verifying import verify

LATER = NOON + timedelta(days=2)
QUARTERS_A_DAY = 96


@pytest.fixture
def world(session: Session) -> World:
    """A day and a half of quarter hours from noon on (UTC; midnight in the city is 22:00), judged and aggregated."""
    world = World(session, 150)
    world.judge()
    aggregate(session)
    return world


def aggregate(session: Session, *, now: datetime = LATER) -> int:
    runs = 0
    while aggregating.aggregate_due(session, now=now):
        runs += 1
        assert runs < 50
    return runs


def means(session: Session, level: str = "hourly", key: str = "t30") -> list[Observation]:
    session.expire_all()
    source = select(Channel.datastream_id).where(Channel.key == key)
    return list(
        session.scalars(
            select(Observation)
            .join(Datastream, Datastream.id == Observation.datastream_id)
            .where(Datastream.source_id.in_(source), Datastream.level == level)
            .order_by(Observation.sampled_at)
        )
    )


def detail_of(session: Session, mean: Observation) -> AggregateDetail:
    return session.get_one(
        AggregateDetail, (mean.datastream_id, mean.sampled_at, mean.known_from)
    )


def test_mean_of_an_hour_has_its_u_flag_extremes_count_and_completeness(world: World) -> None:
    values = world.rows()
    second = means(world.session)[1]  # 13:00: quarters 4 to 7
    went_in = [row for row in values if row.sampled_at.hour == 13 and row.sampled_at.date() == NOON.date()]
    assert second.sampled_at == NOON + timedelta(hours=1)
    assert len(went_in) == 4
    assert second.value == pytest.approx(sum(row.value or 0.0 for row in went_in) / 4)
    assert second.u == pytest.approx(sum(row.u or 0.0 for row in went_in) / 4), "one probe's error"
    assert second.flag == 1
    detail = detail_of(world.session, second)
    assert (detail.minimum, detail.maximum) == (
        min(row.value or 0.0 for row in went_in),
        max(row.value or 0.0 for row in went_in),
    )
    assert (detail.count, detail.completeness) == (4, 1.0)
    report = verify(world.session)
    assert report.is_clean, report.findings

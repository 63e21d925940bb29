"""A node that measured for an hour, and what a corrected calibration does to its values."""

from __future__ import annotations

from datetime import datetime, timedelta

from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import Calibration, Channel, Observation
from fleet_server.services import revising
from fleet_server.services.ingest import store_batch

HOUR = timedelta(hours=1)
LATER = NOON + 12 * HOUR
FIRST = NOON + timedelta(seconds=900)


def calibrate(
    session: Session, key: str, *, offset: float, from_at: datetime = NOON, now: datetime = LATER
) -> int | None:
    """A new version of the calibration behind a key, in force since `from_at`, with what has to follow."""
    with db.writing(session):
        channel = session.scalars(
            select(Channel).where(Channel.key == key).order_by(Channel.id).limit(1)
        ).one()
        old = session.scalars(
            select(Calibration)
            .where(
                Calibration.sensor_id == channel.sensor_id,
                Calibration.property == channel.property,
            )
            .order_by(Calibration.version.desc())
            .limit(1)
        ).one()
        old.status = "superseded"
        session.flush()
        session.add(
            Calibration(
                sensor_id=old.sensor_id,
                property=old.property,
                version=old.version + 1,
                status="approved",
                kind="linear",
                slope=1.0,
                offset=offset,
                u_absolute=0.1,
                u_relative=0.0,
                valid_from=from_at,
                valid_to=None,
                performed_by="Ada",
                reference="ice water",
                created_at=now,
            )
        )
        session.flush()
        return revising.order_revision(
            session,
            kind="calibration",
            reason="ice water",
            author="Ada",
            approver="Grace",
            sensor_id=old.sensor_id,
            observed_property=old.property,
            from_at=from_at,
            now=now,
        )


def values(session: Session, key: str) -> list[float | None]:
    stream = select(Channel.datastream_id).where(Channel.key == key)
    return list(
        session.scalars(
            select(Observation.value)
            .where(Observation.datastream_id.in_(stream))
            .order_by(Observation.sampled_at)
        )
    )


def measured(session: Session, count: int = 4) -> SimulatedNode:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, node.packs(range(1, count + 1)), now=NOON + HOUR)
    return node

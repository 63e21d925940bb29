"""Daily means of a site as people see them: the last days of each series, with band, extremes and completeness. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from fleet_server.models import AggregateDetail, Datastream, Lineage, Observation, observation_id
from fleet_server.services import aggregating, derivations
from fleet_server.services.overviews import HOUSEKEEPING, rank

DAYS = 31


@dataclass(frozen=True)
class DayMean:
    """One local day of one series; `expanded_u` is U = k·u. Values are None where nothing went in."""

    observation_id: int
    from_at: datetime
    to_at: datetime
    value: float | None
    expanded_u: float | None
    flag: int
    minimum: float | None
    maximum: float | None
    completeness: float


@dataclass(frozen=True)
class DaySeries:
    """Days of one series, newest first. `source_id`: the datastream of the values."""

    source_id: int
    property: str
    depth_cm: int
    unit: str
    days: Sequence[DayMean]


def day_means(session: Session, site_id: int, *, now: datetime) -> list[DaySeries]:
    """The last days of each series of a site that people look at. One statement.

    The caller has checked that the site is the actor's business.
    """
    rows = session.execute(
        select(
            Datastream,
            Observation.sampled_at,
            Observation.value,
            (Observation.u * Lineage.coverage_factor).label("expanded_u"),
            Observation.flag,
            AggregateDetail,
        )
        .join(Observation, Observation.datastream_id == Datastream.id)
        .join(Lineage, Lineage.id == Observation.lineage_id)
        .join(
            AggregateDetail,
            and_(
                AggregateDetail.datastream_id == Observation.datastream_id,
                AggregateDetail.sampled_at == Observation.sampled_at,
                AggregateDetail.known_from == Observation.known_from,
            ),
        )
        .where(
            Datastream.site_id == site_id,
            Datastream.level == "daily",
            Datastream.property.not_in(HOUSEKEEPING),
            Observation.sampled_at >= now - timedelta(days=DAYS),
        )
        .order_by(Datastream.property, Datastream.depth_cm, Observation.sampled_at.desc())
    ).all()
    streams = {row.Datastream.id: row.Datastream for row in rows}
    return [
        DaySeries(
            stream.source_id or stream.id,
            stream.property,
            stream.depth_cm,
            stream.unit,
            tuple(
                DayMean(
                    observation_id(stream.id, row.sampled_at),
                    row.sampled_at,
                    _day_end(row.sampled_at),
                    row.value,
                    row.expanded_u,
                    row.flag,
                    row.AggregateDetail.minimum,
                    row.AggregateDetail.maximum,
                    row.AggregateDetail.completeness,
                )
                for row in rows
                if row.Datastream.id == stream.id
            ),
        )
        for stream in sorted(streams.values(), key=lambda one: rank(one.property))
    ]


def not_derived(session: Session, site_id: int) -> list[tuple[str, str]]:
    """What could follow from the site's values if its details said more: property and name of the detail. Two statements."""
    return [
        (plan.rule.property, name)
        for plan in derivations.plans_of(session, site_id)
        for name in plan.missing
    ]


def _day_end(begin_at: datetime) -> datetime:
    end_s = aggregating.interval_end("daily", int(begin_at.timestamp()))
    return datetime.fromtimestamp(end_s, UTC)

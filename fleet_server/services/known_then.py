"""What was known at a moment: the versions of observations that were the current ones then."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, Subquery, select, tuple_, union_all
from sqlalchemy.orm import Session
from sqlalchemy.sql.util import ClauseAdapter

from fleet_server.models import Observation, ObservationHistory
from fleet_server.services.bulk import chunks

_Query = TypeVar("_Query", bound="Select[*tuple[Any, ...]]")
_QUERY_KEYS = 5_000
Instant = tuple[int, datetime]
"""datastream, sampled at"""


def as_of(query: _Query, moment: datetime) -> _Query:
    """The same query over what was known at this moment, wherever it names `Observation`."""
    return ClauseAdapter(observations_as_of(moment)).traverse(query)


def earlier_versions(
    session: Session, instants: Iterable[Instant]
) -> dict[Instant, list[datetime]]:
    """Since when each of the versions was known that a revision has replaced, oldest first; nothing for an instant without one."""
    found: dict[Instant, list[datetime]] = {}
    for some in chunks(sorted(set(instants)), _QUERY_KEYS):
        key = tuple_(ObservationHistory.datastream_id, ObservationHistory.sampled_at)
        rows = session.execute(
            select(
                ObservationHistory.datastream_id,
                ObservationHistory.sampled_at,
                ObservationHistory.known_from,
            )
            .where(key.in_(some))
            .order_by(ObservationHistory.known_from)
        )
        for datastream_id, sampled_at, known_from in rows:
            found.setdefault((datastream_id, sampled_at), []).append(known_from)
    return found


def observations_as_of(moment: datetime) -> Subquery:
    """Observations as they were known at this moment, with the columns of `Observation`; to the second, that second included.

    Both parts are found by (datastream, sampled_at): narrow the query by these.
    """
    then = select(
        *(
            getattr(ObservationHistory, column.name).label(column.name)
            for column in Observation.__table__.columns
        )
    ).where(ObservationHistory.known_from <= moment, ObservationHistory.known_to > moment)
    still = select(*Observation.__table__.columns).where(Observation.known_from <= moment)
    return union_all(still, then).subquery("observation_as_of")

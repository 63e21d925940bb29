"""What was known at a moment: the versions of observations that were the current ones then."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Subquery, select, union_all

from fleet_server.models import Observation, ObservationHistory


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

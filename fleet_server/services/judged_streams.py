"""How far datastreams are judged, and who sets that back: whoever changes values, limits, or what lies beside them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from fleet_server.models import Datastream, JudgedStream

AHEAD = timedelta(days=1)
"""More than any test looks ahead."""
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


def set_back(session: Session, datastream_id: int, from_at: datetime) -> None:
    """Values of this datastream changed from then on: it, and all others of its site, are judged again. Part of the caller's transaction."""
    own, other = aliased(Datastream), aliased(Datastream)
    beside = select(other.id).join(own, own.site_id == other.site_id).where(own.id == datastream_id)
    back_to = from_at - AHEAD
    session.execute(
        update(JudgedStream)
        .where(
            JudgedStream.datastream_id.in_(beside),
            JudgedStream.judged_to.is_not(None),
            JudgedStream.judged_to > back_to,
        )
        .values(judged_to=back_to, due_at=BEGINNING)
        .execution_options(synchronize_session=False)
    )


def begin_again(
    session: Session, *, observed_property: str, datastream_id: int | None = None
) -> None:
    """All values of a property, or of one datastream, are judged again. Part of the caller's transaction."""
    streams = select(Datastream.id).where(Datastream.property == observed_property)
    if datastream_id is not None:
        streams = streams.where(Datastream.id == datastream_id)
    session.execute(
        update(JudgedStream)
        .where(JudgedStream.datastream_id.in_(streams))
        .values(judged_to=None, due_at=BEGINNING)
        .execution_options(synchronize_session=False)
    )

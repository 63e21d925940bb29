"""How far datastreams are judged, and who sets that back: whoever changes values, limits, or what lies beside them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server.models import Datastream, JudgedStream, Site
from fleet_server.services import beside, bulk

AHEAD = timedelta(days=1)
"""More than any test looks ahead."""
BESIDE = timedelta(hours=1)
"""More than a test looks ahead at another site's values."""
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
_STREAMS_AT_ONCE = 500

Surroundings = dict[int, dict[str, int]]
"""What lies beside each datastream of a site, by property."""


def set_back(session: Session, datastream_id: int, from_at: datetime) -> None:
    """Values of this datastream changed from then on: it, all others of its site and those around are judged again.

    Part of the caller's transaction.
    """
    stream = session.get_one(Datastream, datastream_id)
    own = session.scalars(select(Datastream.id).where(Datastream.site_id == stream.site_id)).all()
    _set_back(session, [*own, *beside.around(session, stream)], from_at - AHEAD)


def note_new(session: Session, datastream: Datastream, from_at: datetime) -> None:
    """Values of this datastream from then on are looked at for the first time: those around that were judged without them are judged again.

    Part of the caller's transaction.
    """
    _set_back(session, beside.around(session, datastream), from_at - BESIDE)


def surroundings(session: Session, site_id: int) -> Surroundings:
    """What lies beside the judged datastreams of a site, to be compared by `note_deployed`."""
    rows = session.scalars(
        select(Datastream)
        .join(JudgedStream, JudgedStream.datastream_id == Datastream.id)
        .where(Datastream.site_id == site_id)
    )
    return {one.id: beside.streams_beside(session, one) for one in rows.all()}


def note_deployed(session: Session, site_id: int, before: Surroundings, from_at: datetime) -> None:
    """Something was mounted at a site: what has others beside it now is judged again from its beginning, the rest from then on.

    Part of the caller's transaction.
    """
    now = surroundings(session, site_id)
    _begin_again(session, [one for one in now if now[one] != before.get(one)])
    _set_back(session, now, from_at - AHEAD)


def note_moved(session: Session, site: Site, latitude: float, longitude: float) -> None:
    """A site is said to lie somewhere else: it and who was or is around it have other neighbours. Part of the caller's transaction."""
    streams = session.scalars(select(Datastream).where(Datastream.site_id == site.id)).all()
    if not streams:
        return
    others = {
        *beside.around_place(session, streams, site, site.latitude, site.longitude),
        *beside.around_place(session, streams, site, latitude, longitude),
    }
    _begin_again(session, {*(one.id for one in streams), *others})


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


def lock(session: Session, datastream_ids: Iterable[int]) -> None:
    """Hold these, always in one order: who changes one and sets others back waits for who does it the other way round."""
    for some in bulk.chunks(sorted(set(datastream_ids)), _STREAMS_AT_ONCE):
        session.execute(
            select(JudgedStream.datastream_id)
            .where(JudgedStream.datastream_id.in_(some))
            .order_by(JudgedStream.datastream_id)
            .with_for_update()
        )


def _set_back(session: Session, datastream_ids: Iterable[int], back_to: datetime) -> None:
    wanted = sorted(set(datastream_ids))
    lock(session, wanted)
    for some in bulk.chunks(wanted, _STREAMS_AT_ONCE):
        session.execute(
            update(JudgedStream)
            .where(
                JudgedStream.datastream_id.in_(some),
                JudgedStream.judged_to.is_not(None),
                JudgedStream.judged_to > back_to,
            )
            .values(judged_to=back_to, due_at=BEGINNING)
            .execution_options(synchronize_session=False)
        )


def _begin_again(session: Session, datastream_ids: Iterable[int]) -> None:
    wanted = sorted(set(datastream_ids))
    lock(session, wanted)
    for some in bulk.chunks(wanted, _STREAMS_AT_ONCE):
        session.execute(
            update(JudgedStream)
            .where(JudgedStream.datastream_id.in_(some))
            .values(judged_to=None, due_at=BEGINNING)
            .execution_options(synchronize_session=False)
        )

"""Which means have to be made again: marks that whoever changes values leaves in the transaction that changes them.

Values that come as they are measured leave no mark: their hours are not made yet. Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, select, update
from sqlalchemy.orm import Session

from fleet_server.models import AggregatedStream
from fleet_server.services import bulk

MADE_AFTER_S = 3 * 3600
"""An hour is made that long after it ended, at the earliest."""
_LATE_S = MADE_AFTER_S - 3600
"""What is stored sooner after it was sampled cannot belong to an hour that is made, even if clocks are an hour apart."""
_QUERY_KEYS = 400
_COLUMNS = (
    AggregatedStream.datastream_id,
    AggregatedStream.made_to,
    AggregatedStream.dirty_from,
    AggregatedStream.dirty_to,
)


def mark_late(
    session: Session,
    datastream_ids: NDArray[np.int64],
    times_s: NDArray[np.int64],
    *,
    now_s: int,
) -> None:
    """Values were stored: where means are made already that they belong to, those are made again. Part of the caller's transaction.

    No statement for values of the last two hours; one for each 400 datastreams that have older ones.
    """
    is_old = times_s < now_s - _LATE_S
    if not is_old.any():
        return
    ids, places = np.unique(datastream_ids[is_old], return_inverse=True)
    first_s = np.full(ids.size, np.iinfo(np.int64).max)
    last_s = np.full(ids.size, np.iinfo(np.int64).min)
    np.minimum.at(first_s, places, times_s[is_old])
    np.maximum.at(last_s, places, times_s[is_old])
    ranges = dict(
        zip(ids.tolist(), zip(first_s.tolist(), last_s.tolist(), strict=True), strict=True)
    )
    for some in bulk.chunks(ids.tolist(), _QUERY_KEYS):
        # All of them are locked: whoever makes means of one at this moment has to look again.
        rows = session.execute(
            select(*_COLUMNS)
            .where(AggregatedStream.datastream_id.in_(some))
            .order_by(AggregatedStream.datastream_id)
            .with_for_update()
        ).all()
        for row in rows:
            _mark(session, row, *ranges[row.datastream_id])


def mark_changed(session: Session, datastream_id: int, from_s: int, to_s: int) -> None:
    """Values sampled within that time (both ends included) became other ones, or are gone. Part of the caller's transaction."""
    row = session.execute(
        select(*_COLUMNS).where(AggregatedStream.datastream_id == datastream_id).with_for_update()
    ).first()
    if row is not None:
        _mark(session, row, from_s, to_s)


def _mark(session: Session, row: Row[*tuple[Any, ...]], from_s: int, to_s: int) -> None:
    """What was marked before and this as one time: rarely are there two, and to make too much again does no harm."""
    if row.made_to is None or from_s >= row.made_to.timestamp():
        return
    from_at, to_at = datetime.fromtimestamp(from_s, UTC), datetime.fromtimestamp(to_s, UTC)
    session.execute(
        update(AggregatedStream)
        .where(AggregatedStream.datastream_id == row.datastream_id)
        .values(
            dirty_from=min(from_at, row.dirty_from or from_at),
            dirty_to=max(to_at, row.dirty_to or to_at),
        )
        .execution_options(synchronize_session=False)
    )

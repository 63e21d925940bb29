"""Which means have to be made again: marks that whoever changes values leaves in the transaction that changes them.

The same mark says since when the change is known: later than every mean that the values are in, so that what a mean was made of can be
asked for by the moment that it is known since.

Values that come as they are measured leave no mark: their hours are not made yet. Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, select, update
from sqlalchemy.orm import Session

from fleet_server.models import AggregatedStream, Observation
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
    AggregatedStream.known_at,
)


def mark_late(
    session: Session,
    datastream_ids: NDArray[np.int64],
    times_s: NDArray[np.int64],
    *,
    now_s: int,
) -> None:
    """Values were stored: where means are made already that they belong to, those are made again. Part of the caller's transaction.

    No statement for values of the last two hours; one where there are older ones.
    """
    is_old = times_s < now_s - _LATE_S
    if not is_old.any():
        return
    order = np.flatnonzero(is_old)[np.argsort(datastream_ids[is_old], kind="stable")]
    ids, starts = np.unique(datastream_ids[order], return_index=True)
    of_stream = dict(zip(ids.tolist(), np.split(times_s[order], starts[1:]), strict=True))
    # All of them are locked: whoever makes means of one at this moment has to look again.
    rows = session.execute(
        select(*_COLUMNS)
        .where(bulk.is_among(session, AggregatedStream.datastream_id, ids))
        .order_by(AggregatedStream.datastream_id)
        .with_for_update()
    ).all()
    for row in rows:
        _mark_stored(session, row, of_stream[row.datastream_id], now_s)


def mark_changed(
    session: Session, datastream_id: int, from_s: int, to_s: int, *, known_s: int
) -> int:
    """Values sampled within that time (both ends included) become other ones, or go. Part of the caller's transaction.

    Returns since when that is known: `known_s` or later, so that it is later than the means that they went into.
    """
    row = session.execute(
        select(*_COLUMNS).where(AggregatedStream.datastream_id == datastream_id).with_for_update()
    ).first()
    if row is None or row.made_to is None or from_s >= row.made_to.timestamp():
        return known_s
    return _mark(session, row, from_s, to_s, known_s)


def _mark_stored(
    session: Session, row: Row[*tuple[Any, ...]], times_s: NDArray[np.int64], now_s: int
) -> None:
    if row.made_to is None:
        return
    late_s = times_s[times_s < int(row.made_to.timestamp())]
    if not late_s.size:
        return
    known_s = _mark(session, row, int(late_s.min()), int(late_s.max()), now_s)
    if known_s == now_s:
        return
    for some in bulk.chunks(late_s.tolist(), _QUERY_KEYS):
        session.execute(
            update(Observation)
            .where(
                Observation.datastream_id == row.datastream_id,
                Observation.sampled_at.in_([_moment(one) for one in some]),
            )
            .values(known_from=_moment(known_s))
            .execution_options(synchronize_session=False)
        )


def _mark(
    session: Session, row: Row[*tuple[Any, ...]], from_s: int, to_s: int, known_s: int
) -> int:
    """What was marked before and this as one time: rarely are there two, and to make too much again does no harm."""
    if row.known_at is not None:
        known_s = max(known_s, int(row.known_at.timestamp()) + 1)
    from_at, to_at = _moment(from_s), _moment(to_s)
    session.execute(
        update(AggregatedStream)
        .where(AggregatedStream.datastream_id == row.datastream_id)
        .values(
            dirty_from=min(from_at, row.dirty_from or from_at),
            dirty_to=max(to_at, row.dirty_to or to_at),
            known_at=_moment(known_s),
        )
        .execution_options(synchronize_session=False)
    )
    return known_s


def _moment(utc_s: int) -> datetime:
    return datetime.fromtimestamp(utc_s, UTC)

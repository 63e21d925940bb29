"""Means of the hours and local days of every datastream that nodes feed, made of its stored values once those are judged.

A mean is an observation of a datastream of its own (level `hourly` or `daily`), sampled at the begin of its interval; least, greatest,
count and completeness stand beside each of its versions (`AggregateDetail`). An interval in which nothing was sampled has none. What follows from
values by a formula (`derivations`) is made with the means of its inputs.
Whoever changes values says so (`aggregated_streams`); what they went into is made again, and where one bit is another one that is a new
version. Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Table, and_, delete, func, or_, select
from sqlalchemy.orm import Session

from fleet_server import clock, db
from fleet_server.measurement import aggregates
from fleet_server.measurement.deriving import Column
from fleet_server.measurement.quality import Flag
from fleet_server.measurement.rules import DEFAULTS
from fleet_server.models import (
    AggregateDetail,
    AggregatedStream,
    Datastream,
    JudgedStream,
    Lineage,
    Observation,
    ObservationCount,
    ObservationHistory,
    Revision,
    RevisionStream,
)
from fleet_server.services import bulk, derivations, judged_streams, known_then, observing
from fleet_server.services.aggregated_streams import MADE_AFTER_S
from fleet_server.services.derivations import Derivation
from fleet_server.services.observing import LineageKey
from fleet_server.services.recomputing import epoch_of

HOUR_S = 3600
LEVELS = ("hourly", "daily")
AUTHOR = "aggregates"
REASON = "Values that others are made of became other ones."
_SOURCE_LEVEL = "calibrated"
_CITY = ZoneInfo(clock.TIME_ZONE)
_PIECE_S = 31 * 86_400
_CONVERSIONS = {"hourly": "mean of an hour", "daily": "mean of a local day"}


@dataclass(frozen=True, slots=True)
class Values:
    """Stored values of one datastream as columns, by time."""

    times_s: NDArray[np.int64]
    values: NDArray[np.float64]
    us: NDArray[np.float64]
    flags: NDArray[np.int16]
    lineage_ids: NDArray[np.int64]
    known_s: NDArray[np.int64]

    def take(self, places: NDArray[Any]) -> Values:
        """Those at these places."""
        return Values(
            self.times_s[places],
            self.values[places],
            self.us[places],
            self.flags[places],
            self.lineage_ids[places],
            self.known_s[places],
        )

    @property
    def tally(self) -> tuple[int, int, int]:
        """By what it shows that none was changed or added."""
        return len(self.times_s), int(self.lineage_ids.sum()), int(self.known_s.sum())


@dataclass(frozen=True, slots=True)
class Means:
    """Means of one level as columns, by the begin of their interval; `values`, `us` and extremes are NaN where nothing went in.

    `lineage_places`: where in `lineages` each one's is. `known_s`: since when a stored one is known; of one that was made, since when
    the latest of its values is.
    """

    times_s: NDArray[np.int64]
    values: NDArray[np.float64]
    us: NDArray[np.float32]
    flags: NDArray[np.int16]
    minimums: NDArray[np.float64]
    maximums: NDArray[np.float64]
    counts: NDArray[np.int64]
    completeness: NDArray[np.float64]
    lineage_places: NDArray[np.int64]
    known_s: NDArray[np.int64]
    lineages: tuple[LineageKey | None, ...]

    def __len__(self) -> int:
        return len(self.times_s)

    def take(self, places: NDArray[Any]) -> Means:
        """Those at these places."""
        return Means(
            self.times_s[places],
            self.values[places],
            self.us[places],
            self.flags[places],
            self.minimums[places],
            self.maximums[places],
            self.counts[places],
            self.completeness[places],
            self.lineage_places[places],
            self.known_s[places],
            self.lineages,
        )

    def differs_from(self, other: Means) -> NDArray[np.bool_]:
        """Where one bit is another one; both have the same intervals."""
        is_other: NDArray[np.bool_] = (self.flags != other.flags) | (self.counts != other.counts)
        for name in ("values", "us", "minimums", "maximums", "completeness"):
            one, two = getattr(self, name), getattr(other, name)
            is_other |= ~((one == two) | (np.isnan(one) & np.isnan(two)))
        own = [self.lineages[place] for place in self.lineage_places.tolist()]
        others = [other.lineages[place] for place in other.lineage_places.tolist()]
        is_other |= np.array([one != two for one, two in zip(own, others, strict=True)], np.bool_)
        return is_other


class StreamAggregator:
    """Makes the means of one datastream from what is stored, or was known at a moment. Reads only."""

    def __init__(self, session: Session, datastream_id: int) -> None:
        self._session = session
        self.datastream_id = datastream_id
        self._lineages: dict[int, tuple[int, int, float]] = {}

    def values(self, from_s: int, to_s: int, *, as_of: datetime | None = None) -> Values:
        """Those sampled within `from_s` … `to_s` (the end is outside)."""
        query = (
            select(
                epoch_of(self._session, Observation.sampled_at),
                Observation.value,
                Observation.u,
                Observation.flag,
                Observation.lineage_id,
                epoch_of(self._session, Observation.known_from),
            )
            .where(
                Observation.datastream_id == self.datastream_id,
                Observation.sampled_at >= _moment(from_s),
                Observation.sampled_at < _moment(to_s),
            )
            .order_by(Observation.sampled_at)
        )
        if as_of is not None:
            query = known_then.as_of(query, as_of)
        rows = self._session.connection().execute(query).all()
        columns = list(zip(*rows, strict=True)) or [()] * 6
        return Values(
            np.array(columns[0], np.int64),
            np.array(columns[1], np.float64),
            np.array(columns[2], np.float32).astype(np.float64),
            np.array(columns[3], np.int16),
            np.array(columns[4], np.int64),
            np.array(columns[5], np.int64),
        )

    def first_s(self, from_s: int) -> int | None:
        """When the first value was sampled from then on."""
        first = self._session.scalar(
            select(func.min(Observation.sampled_at)).where(
                Observation.datastream_id == self.datastream_id,
                Observation.sampled_at >= _moment(from_s),
            )
        )
        return None if first is None else int(first.timestamp())

    def make(self, level: str, edges_s: Sequence[int], values: Values) -> Means:
        """Means of the intervals between neighbouring edges in which anything was sampled. `values` begin where `begin_of` says."""
        edges = np.array(edges_s, np.int64)
        if edges.size < 2:
            edges = np.array([0, 1], np.int64)
        made = aggregates.aggregate(
            aggregates.Readings.of(values.times_s, values.values, values.us, values.flags),
            edges,
            interval_s=aggregates.sampling_steps_s(values.times_s, edges),
        )
        first = np.searchsorted(values.times_s, edges[:-1], side="left")
        end = np.searchsorted(values.times_s, edges[1:], side="left")
        places = np.flatnonzero(end > first)
        found = [
            self._lineage(level, values, int(first[place]), int(end[place]))
            for place in places.tolist()
        ]
        lineages = {key: place for place, key in enumerate(dict.fromkeys(found))}
        known = [int(values.known_s[first[place] : end[place]].max()) for place in places.tolist()]
        return Means(
            edges[:-1][places],
            made.mean[places],
            made.u[places].astype(np.float32),
            made.flag[places],
            made.minimum[places],
            made.maximum[places],
            made.count[places],
            made.completeness[places],
            np.array([lineages[key] for key in found], np.int64),
            np.array(known, np.int64),
            tuple(lineages),
        )

    def _lineage(self, level: str, values: Values, first: int, end: int) -> LineageKey:
        """Probe and calibration of the last value that went in, or of the last one if none did; the largest k of all that did."""
        rows = np.arange(first, end)
        went_in = rows[np.isin(values.flags[rows], _WENT_IN) & np.isfinite(values.values[rows])]
        rows = went_in if went_in.size else rows
        ids = values.lineage_ids[rows].tolist()
        known = self.sources(set(ids))
        sensor_id, calibration_id, _ = known[ids[-1]]
        return (
            sensor_id,
            calibration_id,
            "",
            _CONVERSIONS[level],
            "",
            aggregates.COMPLETENESS_RULE,
            aggregates.VERSION,
            max(known[one][2] for one in set(ids)),
        )

    def sources(self, lineage_ids: set[int]) -> Mapping[int, tuple[int, int, float]]:
        """Probe, calibration and k of lineages."""
        missing = lineage_ids - self._lineages.keys()
        if missing:
            rows = self._session.execute(
                select(
                    Lineage.id, Lineage.sensor_id, Lineage.calibration_id, Lineage.coverage_factor
                ).where(Lineage.id.in_(missing))
            )
            for lineage_id, sensor_id, calibration_id, k in rows:
                if sensor_id is not None and calibration_id is not None:  # a node's
                    self._lineages[lineage_id] = (sensor_id, calibration_id, k)
        return self._lineages


class Deriver:
    """Makes the values of one derived datastream from what is stored, or was known at a moment."""

    def __init__(self, session: Session, derivation: Derivation) -> None:
        self._session = session
        self._derivation = derivation
        self._inputs = {
            name: StreamAggregator(session, datastream_id)
            for name, datastream_id in derivation.inputs.items()
        }

    @property
    def inputs(self) -> tuple[int, ...]:
        return tuple(self._derivation.inputs.values())

    def made_to_s(self, states: Mapping[int, _State]) -> int:
        """Up to when the means of all inputs are made, and this with them."""
        return min(0 if one not in states else states[one].made_to_s or 0 for one in self.inputs)

    def make(
        self,
        from_s: int,
        to_s: int,
        *,
        as_of: datetime | None = None,
        stated: derivations.Stated | None = None,
    ) -> Means:
        """Values at the instants within `from_s` … `to_s` (outside) at which all inputs are. They have no extremes and no count.

        `stated`: taken in the place of what is stated now.
        """
        stated = self._derivation.stated if stated is None else stated
        if stated is None:
            return means_of(self._session, ())
        inputs = {name: one.values(from_s, to_s, as_of=as_of) for name, one in self._inputs.items()}
        times = derivations.instants([one.times_s for one in inputs.values()])
        rows = {name: one.take(np.searchsorted(one.times_s, times)) for name, one in inputs.items()}
        found = derivations.derive(
            self._derivation.formula,
            {name: Column(one.values, one.us, one.flags) for name, one in rows.items()},
            stated,
        )
        lineages, places = self._lineages(rows, stated)
        nothing = np.full(times.size, np.nan)
        return Means(
            times,
            found.value,
            found.u.astype(np.float32),
            found.flag,
            nothing,
            nothing,
            np.full(times.size, -1, np.int64),
            nothing,
            places,
            np.max(np.stack([one.known_s for one in rows.values()]), axis=0),
            lineages,
        )

    def write(self, from_s: int, to_s: int, *, since_s: int, now: datetime) -> int:
        """Part of the caller's transaction. As `_write_piece`."""
        if to_s <= from_s:
            return 0
        datastream_id = self._derivation.datastream_id
        made = self.make(from_s, to_s)
        stored = stored_means(self._session, datastream_id, from_s, to_s)
        return _write(self._session, datastream_id, made, stored, since_s=since_s, now=now)

    def _lineages(
        self, rows: Mapping[str, Values], stated: derivations.Stated
    ) -> tuple[tuple[LineageKey, ...], NDArray[np.int64]]:
        ids = np.stack([one.lineage_ids for one in rows.values()])
        kinds, places = np.unique(ids, axis=1, return_inverse=True)
        keys = []
        for kind in kinds.T.tolist():
            sources = [
                one.sources({lineage_id})[lineage_id]
                for one, lineage_id in zip(self._inputs.values(), kind, strict=True)
            ]
            k = max(source[2] for source in sources)
            keys.append(derivations.lineage_of(self._derivation.formula, stated, sources[0], k))
        order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        at = np.array([order[key] for key in keys], np.int64)
        return tuple(order), at[places.ravel()]


_WENT_IN = (Flag.GOOD, Flag.NOT_EVALUATED, Flag.SUSPECT)


@dataclass(frozen=True)
class Piece:
    """Hours and days that are made together: from whole hour to whole hour, and the days that end within or, of changed values, touch it."""

    from_s: int
    to_s: int
    days_s: tuple[int, ...]

    @property
    def hours_s(self) -> tuple[int, ...]:
        return tuple(range(self.from_s, self.to_s + 1, HOUR_S))

    @property
    def read_from_s(self) -> int:
        """From where on values are needed."""
        return min([self.from_s + HOUR_S - aggregates.STEP_BACK_S, *self.days_s[:1]])

    @cached_property
    def read_to_s(self) -> int:
        return max([self.to_s, *self.days_s[-1:]])

    def edges_of(self, level: str) -> tuple[int, ...]:
        """One edge more than there are intervals; none where there is no interval."""
        edges = self.hours_s if level == "hourly" else self.days_s
        return edges if len(edges) > 1 else ()


def whole_hour(utc_s: int) -> int:
    """The begin of the hour that a moment lies in: clocks in the city go by whole hours from UTC."""
    return utc_s - utc_s % HOUR_S


def day_begin(utc_s: int, *, days: int = 0) -> int:
    """When the local day began that a moment lies in, or the one so many days later. Days have 23, 24 or 25 hours.

    >>> [day_begin(1774738800, days=1) - day_begin(1774738800), day_begin(1792879200, days=1) - day_begin(1792879200)]
    [82800, 90000]
    """
    date = datetime.fromtimestamp(utc_s, _CITY).date() + timedelta(days=days)
    return int(datetime(date.year, date.month, date.day, tzinfo=_CITY).timestamp())


def interval_end(level: str, begin_s: int) -> int:
    """Where the interval ends that begins then."""
    return begin_s + HOUR_S if level == "hourly" else day_begin(begin_s, days=1)


def new_piece(from_s: int, to_s: int) -> Piece:
    """The hours between two whole hours, and the days that end within."""
    begin = day_begin(from_s)
    days = [begin]
    while (end := day_begin(days[-1], days=1)) <= to_s:
        days.append(end)
    # A day that ends where the piece begins was made with the piece before.
    return Piece(from_s, to_s, tuple(days) if len(days) > 1 else ())


def changed_piece(from_s: int, to_s: int, made_to_s: int) -> Piece:
    """What values sampled from `from_s` to `to_s` (both included) can have gone into, of what is made.

    How often was sampled is seen from values before: so hours after belong to it, too.
    """
    end = min(whole_hour(to_s) + aggregates.STEP_BACK_S, made_to_s)
    days = [day_begin(from_s)]
    while days[-1] <= to_s and (following := day_begin(days[-1], days=1)) <= made_to_s:
        days.append(following)
    begin = min(whole_hour(from_s), end)
    return Piece(begin, end, tuple(days) if len(days) > 1 else ())


def aggregate_due(session: Session, *, now: datetime, streams_at_once: int = 1000) -> int:
    """Make what has become due, a datastream's piece (a month at most) in a transaction of its own; returns how many datastreams there were.

    Committed datastream by datastream; safe to end at any point and to repeat.
    """
    due = _due(session, now, streams_at_once)
    for datastream_id in due:
        _enter(session, datastream_id, now)
        while not _aggregate_one(session, datastream_id, now=now):
            pass  # somebody else wrote meanwhile: what is there is read again
    session.rollback()
    return len(due)


def stored_means(session: Session, datastream_id: int, from_s: int, to_s: int) -> Means:
    """Current means of a datastream of means, of intervals that begin within `from_s` … `to_s` (outside)."""
    detail = AggregateDetail
    rows = session.execute(
        select(
            epoch_of(session, Observation.sampled_at),
            Observation.value,
            Observation.u,
            Observation.flag,
            detail.minimum,
            detail.maximum,
            detail.count,
            detail.completeness,
            Observation.lineage_id,
            epoch_of(session, Observation.known_from),
        )
        .outerjoin(
            detail,
            and_(
                detail.datastream_id == Observation.datastream_id,
                detail.sampled_at == Observation.sampled_at,
                detail.known_from == Observation.known_from,
            ),
        )
        .where(
            Observation.datastream_id == datastream_id,
            Observation.sampled_at >= _moment(from_s),
            Observation.sampled_at < _moment(to_s),
        )
        .order_by(Observation.sampled_at)
    ).all()
    return means_of(session, rows)


def means_of(session: Session, rows: Sequence[Any]) -> Means:
    """Rows of `stored_means` as columns. A detail that is not there counts −1."""
    columns = list(zip(*rows, strict=True)) or [()] * 10
    ids, places = np.unique(np.array(columns[8], np.int64), return_inverse=True)
    keys = observing.lineages_by_id(session, ids.tolist())
    return Means(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.float64),
        np.array(columns[2], np.float32),
        np.array(columns[3], np.int16),
        np.array(columns[4], np.float64),
        np.array(columns[5], np.float64),
        np.array([-1 if one is None else one for one in columns[6]], np.int64),
        np.array(columns[7], np.float64),
        places.astype(np.int64),
        np.array(columns[9], np.int64),
        tuple(keys.get(one) for one in ids.tolist()),
    )


def streams_of_means(session: Session, source_id: int) -> dict[str, int]:
    """The datastreams of a datastream's means, by level."""
    rows = session.execute(
        select(Datastream.level, Datastream.id).where(
            Datastream.source_id == source_id, Datastream.level.in_(LEVELS)
        )
    )
    return {row.level: row.id for row in rows}


# ---------------------------------------------------------------------------------------------------------------- private


def _due(session: Session, now: datetime, limit: int) -> list[int]:
    """Those with an hour that is judged and long enough over, and those whose changed values are judged again."""
    until = now - timedelta(seconds=MADE_AFTER_S)
    is_new = (AggregatedStream.due_to <= JudgedStream.judged_to) & (
        AggregatedStream.due_to <= until
    )
    is_changed = AggregatedStream.dirty_from.is_not(None) & (
        JudgedStream.due_at > judged_streams.BEGINNING
    )
    return list(
        session.scalars(
            select(JudgedStream.datastream_id)
            .join(Datastream, Datastream.id == JudgedStream.datastream_id)
            .outerjoin(
                AggregatedStream, AggregatedStream.datastream_id == JudgedStream.datastream_id
            )
            .where(
                Datastream.level == _SOURCE_LEVEL,
                Datastream.property.in_(sorted(DEFAULTS)),
                JudgedStream.judged_to.is_not(None),
                or_(AggregatedStream.datastream_id.is_(None), is_new, is_changed),
            )
            .order_by(AggregatedStream.due_to, JudgedStream.datastream_id)
            .limit(limit)
        )
    )


def _enter(session: Session, datastream_id: int, now: datetime) -> None:
    """From here on ingest asks for this datastream: in a transaction before its values are read. So do those that follow from it."""
    stream = session.get_one(Datastream, datastream_id)
    if stream.property in derivations.PROPERTIES:
        derivations.settle(session, stream.site_id, now=now)
    if session.get(AggregatedStream, datastream_id) is not None:
        return
    with db.writing(session):
        bulk.insert_rows(
            session,
            _table(AggregatedStream),
            ("datastream_id", "due_to"),
            [(datastream_id, int(judged_streams.BEGINNING.timestamp()))],
            if_absent=True,
        )


@dataclass(frozen=True)
class _State:
    """What `AggregatedStream` said when it was read."""

    made_to_s: int | None
    dirty_s: tuple[int, int] | None
    known_s: int


def _state_of(session: Session, datastream_id: int) -> _State:
    return _state(session.get_one(AggregatedStream, datastream_id, populate_existing=True))


def _state(row: AggregatedStream) -> _State:
    dirty = None
    if row.dirty_from is not None and row.dirty_to is not None:
        dirty = int(row.dirty_from.timestamp()), int(row.dirty_to.timestamp())
    made_to_s = None if row.made_to is None else int(row.made_to.timestamp())
    return _State(made_to_s, dirty, 0 if row.known_at is None else int(row.known_at.timestamp()))


def _aggregate_one(session: Session, datastream_id: int, *, now: datetime) -> bool:
    """Make a datastream's next piece. False: something was written meanwhile, and nothing is done."""
    state = _state_of(session, datastream_id)
    judged = session.get_one(JudgedStream, datastream_id, populate_existing=True)
    aggregator = StreamAggregator(session, datastream_id)
    piece, after = _next(aggregator, state, judged, now)
    if piece is None and after == state:
        return True
    values = None if piece is None else aggregator.values(piece.read_from_s, piece.read_to_s)
    followers = [Deriver(session, one) for one in _derivations_of(session, datastream_id)]
    inputs = {one for follower in followers for one in follower.inputs}
    with db.writing(session):
        states = _hold(session, {datastream_id, *inputs})
        if states[datastream_id] != state:
            return False
        if piece is not None and values is not None:
            if aggregator.values(piece.read_from_s, piece.read_to_s).tally != values.tally:
                return False
            since_s = max(int(now.timestamp()), *(one.known_s for one in states.values()))
            latest_s = _write_piece(session, aggregator, piece, values, since_s=since_s, now=now)
            states[datastream_id] = after
            for follower in followers:
                to_s = min(piece.to_s, follower.made_to_s(states))
                written_s = follower.write(piece.from_s, to_s, since_s=since_s, now=now)
                latest_s = max(latest_s, written_s)
            _note_known(session, states, latest_s)
        row = session.get_one(AggregatedStream, datastream_id)
        row.made_to = None if after.made_to_s is None else _moment(after.made_to_s)
        row.due_to = _moment((after.made_to_s or 0) + HOUR_S)
        row.dirty_from, row.dirty_to = (
            (None, None) if after.dirty_s is None else map(_moment, after.dirty_s)
        )
    return True


def _hold(session: Session, datastream_ids: set[int]) -> dict[int, _State]:
    """One at a time for each datastream; whoever stores late values waits for the second kind of rows. In order, so that nobody waits in a circle."""
    ids = sorted(datastream_ids)
    session.execute(
        select(Datastream.id)
        .where(Datastream.id.in_(ids))
        .order_by(Datastream.id)
        .with_for_update()
    ).all()
    rows = session.scalars(
        select(AggregatedStream)
        .where(AggregatedStream.datastream_id.in_(ids))
        .order_by(AggregatedStream.datastream_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return {row.datastream_id: _state(row) for row in rows}


def _note_known(session: Session, states: Mapping[int, _State], latest_s: int) -> None:
    """Whoever changes one of these values makes that known later than what was made of them."""
    for datastream_id, state in states.items():
        if latest_s > state.known_s:
            session.get_one(AggregatedStream, datastream_id).known_at = _moment(latest_s)


def _derivations_of(session: Session, datastream_id: int) -> list[Derivation]:
    """What follows from a datastream's values; no statement where nothing can."""
    stream = session.get_one(Datastream, datastream_id)
    if stream.property not in derivations.PROPERTIES:
        return []
    return [
        one
        for one in derivations.derivations_at(session, stream.site_id)
        if datastream_id in one.inputs.values()
    ]


def _next(
    aggregator: StreamAggregator, state: _State, judged: JudgedStream, now: datetime
) -> tuple[Piece | None, _State]:
    """What is to be made, and how things stand afterwards. Changed values first."""
    made_to_s = state.made_to_s
    if state.dirty_s is not None and made_to_s is not None:
        if judged.due_at <= judged_streams.BEGINNING:
            return None, state
        from_s, to_s = state.dirty_s
        cut_s = min(to_s, day_begin(from_s + _PIECE_S) - 1)
        rest = (cut_s + 1, to_s) if cut_s < to_s and cut_s + 1 < made_to_s else None
        return changed_piece(from_s, cut_s, made_to_s), replace(state, dirty_s=rest)
    judged_s = 0 if judged.judged_to is None else int(judged.judged_to.timestamp())
    until_s = whole_hour(min(judged_s, int(now.timestamp()) - MADE_AFTER_S))
    if until_s <= (made_to_s or 0):
        return None, state
    begin_s = made_to_s or 0
    if begin_s == 0 or begin_s == day_begin(begin_s):
        # No day has begun: time in which nothing was sampled is passed over.
        first_s = aggregator.first_s(begin_s)
        begin_s = until_s if first_s is None else max(begin_s, min(whole_hour(first_s), until_s))
    to_s = min(until_s, day_begin(begin_s + _PIECE_S))
    if to_s <= begin_s:
        return None, replace(state, made_to_s=to_s)
    return new_piece(begin_s, to_s), replace(state, made_to_s=to_s)


def _write_piece(
    session: Session,
    aggregator: StreamAggregator,
    piece: Piece,
    values: Values,
    *,
    since_s: int,
    now: datetime,
) -> int:
    """Returns since when the latest of the versions is known that were written; 0 where none was."""
    streams = streams_of_means(session, aggregator.datastream_id)
    latest_s = 0
    for level in LEVELS:
        edges = piece.edges_of(level)
        made = aggregator.make(level, edges, values)
        stream = streams.get(level)
        if stream is None and len(made):
            stream = _make_stream(session, aggregator.datastream_id, level, now)
        if stream is not None and edges:
            stored = stored_means(session, stream, edges[0], edges[-1])
            written_s = _write(session, stream, made, stored, since_s=since_s, now=now)
            latest_s = max(latest_s, written_s)
    return latest_s


def _make_stream(session: Session, source_id: int, level: str, now: datetime) -> int:
    source = session.get_one(Datastream, source_id)
    stream = Datastream(
        site_id=source.site_id,
        property=source.property,
        unit=source.unit,
        depth_cm=source.depth_cm,
        level=level,
        created_at=now,
        source_id=source_id,
    )
    session.add(stream)
    session.flush()
    return stream.id


def _write(
    session: Session,
    datastream_id: int,
    made: Means,
    stored: Means,
    *,
    since_s: int,
    now: datetime,
) -> int:
    """Put what was made in the place of what is stored: new ones, new versions of others, and what has no values any more goes."""
    is_there = np.isin(made.times_s, stored.times_s)
    new = made.take(np.flatnonzero(~is_there))
    again = made.take(np.flatnonzero(is_there))
    kept = stored.take(np.searchsorted(stored.times_s, again.times_s))
    is_other = np.flatnonzero(again.differs_from(kept))
    changed, before = again.take(is_other), kept.take(is_other)
    gone = stored.take(np.flatnonzero(~np.isin(stored.times_s, made.times_s)))
    if not (len(new) or len(changed) or len(gone)):
        return 0
    # Later than what is replaced, and no earlier than what it is made of.
    ended_s = _ended(session, datastream_id, new.times_s)
    replaced_s = np.concatenate([before.known_s, gone.known_s, ended_s - 1]) + 1
    known_s = int(max([since_s, *replaced_s.tolist(), *made.known_s.tolist()]))
    if len(new):
        _insert(session, datastream_id, new, known_s)
        _count(session, datastream_id, new.times_s, 1)
    if len(changed) or len(gone):
        revision_id = _revision_of_today(session, now)
        _note(session, revision_id, datastream_id, made, before, changed, len(gone), now)
        _keep(session, datastream_id, before, known_s, revision_id)
        _keep(session, datastream_id, gone, known_s, revision_id)
        _update(session, datastream_id, changed, known_s)
        _remove(session, datastream_id, gone.times_s)
        _count(session, datastream_id, gone.times_s, -1)
    return known_s


def _ended(session: Session, datastream_id: int, times_s: NDArray[np.int64]) -> NDArray[np.int64]:
    """When earlier versions of these ended of which nothing was left."""
    if not times_s.size:
        return times_s
    history = ObservationHistory
    rows = session.execute(
        select(epoch_of(session, history.sampled_at), func.max(epoch_of(session, history.known_to)))
        .where(
            history.datastream_id == datastream_id,
            history.sampled_at >= _moment(int(times_s[0])),
            history.sampled_at <= _moment(int(times_s[-1])),
        )
        .group_by(history.sampled_at)
    )
    ended = {row[0]: row[1] for row in rows}
    return np.array([ended.get(one, 0) for one in times_s.tolist()], np.int64)


def _lineage_ids(session: Session, means: Means) -> NDArray[np.int64]:
    keys = [key for key in means.lineages if key is not None]
    known = observing.lineage_ids_of(session, keys)
    return np.array([known[key] for key in keys], np.int64)[means.lineage_places]


def _insert(session: Session, datastream_id: int, means: Means, known_s: int) -> None:
    bulk.insert_columns(
        session,
        _table(Observation),
        {
            "datastream_id": np.full(len(means), datastream_id, np.int64),
            "sampled_at": means.times_s,
            "value": means.values,
            "u": means.us,
            "flag": means.flags,
            "tests": np.zeros(len(means), np.int32),
            "lineage_id": _lineage_ids(session, means),
            "known_from": np.full(len(means), known_s, np.int64),
        },
    )
    _insert_details(session, datastream_id, means, known_s)


def _insert_details(session: Session, datastream_id: int, means: Means, known_s: int) -> None:
    if not len(means) or means.counts[0] < 0:
        return  # a derived value has none
    bulk.insert_columns(
        session,
        _table(AggregateDetail),
        {
            "datastream_id": np.full(len(means), datastream_id, np.int64),
            "sampled_at": means.times_s,
            "known_from": np.full(len(means), known_s, np.int64),
            "minimum": means.minimums,
            "maximum": means.maximums,
            "count": means.counts,
            "completeness": means.completeness,
        },
    )


def _update(session: Session, datastream_id: int, means: Means, known_s: int) -> None:
    bulk.update_columns(
        session,
        _table(Observation),
        {
            "datastream_id": np.full(len(means), datastream_id, np.int64),
            "sampled_at": means.times_s,
            "value": means.values,
            "u": means.us,
            "flag": means.flags,
            "lineage_id": _lineage_ids(session, means),
            "known_from": np.full(len(means), known_s, np.int64),
        },
        key=("datastream_id", "sampled_at"),
    )
    _insert_details(session, datastream_id, means, known_s)


def _keep(
    session: Session,
    datastream_id: int,
    means: Means,
    end_s: int,
    revision_id: int,
) -> None:
    """Versions that end go to the history; their details stay where they are."""
    if not len(means):
        return
    bulk.insert_columns(
        session,
        _table(ObservationHistory),
        {
            "datastream_id": np.full(len(means), datastream_id, np.int64),
            "sampled_at": means.times_s,
            "known_from": means.known_s,
            "value": means.values,
            "u": means.us,
            "flag": means.flags,
            "tests": np.zeros(len(means), np.int32),
            "lineage_id": _lineage_ids(session, means),
            "known_to": np.full(len(means), end_s, np.int64),
            "revision_id": np.full(len(means), revision_id, np.int64),
        },
    )


def _remove(session: Session, datastream_id: int, times_s: NDArray[np.int64]) -> None:
    for some in bulk.chunks(times_s.tolist(), 400):
        session.execute(
            delete(Observation)
            .where(
                Observation.datastream_id == datastream_id,
                Observation.sampled_at.in_([_moment(one) for one in some]),
            )
            .execution_options(synchronize_session=False)
        )


def _count(session: Session, datastream_id: int, times_s: NDArray[np.int64], sign: int) -> None:
    if not times_s.size:
        return
    months, counts = np.unique(
        np.array([observing.month_of(one) for one in times_s.tolist()]), return_counts=True
    )
    bulk.add_to_counts(
        session,
        _table(ObservationCount),
        ("datastream_id", "month", "count"),
        [
            (datastream_id, month, sign * count)
            for month, count in zip(months.tolist(), counts.tolist(), strict=True)
        ],
    )


def _revision_of_today(session: Session, now: datetime) -> int:
    """All new versions of means of one UTC day belong to one revision: late packs would make thousands."""
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    found = session.scalar(
        select(Revision.id)
        .where(Revision.kind == "aggregates", Revision.ordered_at == today)
        .order_by(Revision.id)
        .limit(1)
    )
    if found is not None:
        return found
    revision = Revision(
        kind="aggregates",
        reason=REASON,
        author=AUTHOR,
        state="done",
        ordered_at=today,
        known_at=now,
    )
    session.add(revision)
    session.flush()
    return revision.id


def _note(
    session: Session,
    revision_id: int,
    datastream_id: int,
    made: Means,
    before: Means,
    changed: Means,
    removed: int,
    now: datetime,
) -> None:
    """What was done to a datastream on this day."""
    steps = np.abs(changed.values - before.values)
    steps = steps[~np.isnan(steps)]
    largest = float(steps.max()) if steps.size else None
    row = session.get(RevisionStream, (revision_id, datastream_id))
    if row is None:
        row = RevisionStream(
            revision_id=revision_id, datastream_id=datastream_id, compared=0, changed=0, removed=0
        )
        session.add(row)
    row.switched_at = now
    row.compared += len(made)
    row.changed += len(changed)
    row.removed += removed
    known = [one for one in (row.largest_change, largest) if one is not None]
    row.largest_change = max(known, default=None)
    session.flush()


def _moment(utc_s: int) -> datetime:
    return datetime.fromtimestamp(utc_s, UTC)


def _table(model: type[Any]) -> Table:
    table: Table = model.__table__
    return table

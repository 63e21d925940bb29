"""Quality tests that need other times or streams, made of stored values once all they look at is there.

A value's tests are filled once. Where its flag stays, that is no new version; where it becomes another one, the version before goes to the
history, as in a revision by `qc`. What was stored late, or changed, is judged again with all that looked at it. Streams beside are those
of the same deployments, whose values come in the same packs, and neighbours, whose values may come days later: then what was judged
without them is judged again. Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Table, exists, func, or_, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.measurement import quality, reasons
from fleet_server.measurement.in_context import (
    NEIGHBOURS_LEAST,
    Context,
    judge,
    look_ahead_s,
    look_back_s,
    warmth_back_s,
)
from fleet_server.measurement.quality import QualityTest, Result
from fleet_server.measurement.reasons import Reason
from fleet_server.measurement.rules import DEFAULTS, Rules
from fleet_server.measurement.windows import Series
from fleet_server.models import (
    Channel,
    Datastream,
    JudgedStream,
    Observation,
    RawReading,
    Revision,
    RevisionStream,
)
from fleet_server.services import (
    beside,
    bulk,
    judged_streams,
    known_then,
    observing,
    person_flags,
    quality_rules,
    revising,
)
from fleet_server.services.recomputing import (
    Made,
    StreamRecomputer,
    Tally,
    Versions,
    epoch_of,
)

AUTHOR = "qc"
REASON = "Tests that look at later values."
_LEVEL = "calibrated"
_PIECE_ROWS = 20_000
_BESIDE_BACK_S = 26 * 3600
_BESIDE_S = 1800  # a neighbour's row is of the same moment
# Ones newer than that are waited for: a node publishes once an hour.
_WAIT_S = 3600
_LONGEST_BACK_S = 92 * 86_400
FILLED_BITS = quality.FILLED_BITS & ~person_flags.BITS
"""None of them is set in a value that was not judged; in one that was, time is."""
_FROST_BITS = 3 << (2 * QualityTest.FROST)
_GROSS_BITS = 3 << (2 * QualityTest.GROSS_RANGE)
_FROZEN_BY_ITSELF = "soil_water_tension"
"""Its conversion knows the soil's temperature, and says itself whether it froze."""


@dataclass(frozen=True)
class Piece:
    """Stored versions whose results nothing later can change, and what their flags and tests are; `to_s`: judged up to then."""

    rows: Versions
    flags: NDArray[np.int16]
    tests: NDArray[np.int32]
    to_s: int
    loaded_from_s: int | None
    tally: Tally
    """Of all that was looked at from `loaded_from_s` to `loaded_to_s`."""
    loaded_to_s: int
    newest_s: int


class StreamJudge:
    """Judges one datastream by what is in force when it is made. Reads only.

    `is_rehearsed`: by the rules' own gross range, too, which values only get with a revision. `known_at`: `filled_tests` and what lies
    beside are what was known then.
    """

    def __init__(
        self,
        session: Session,
        datastream: Datastream,
        rules: Rules,
        *,
        is_rehearsed: bool = False,
        known_at: datetime | None = None,
    ) -> None:
        self._session = session
        self._known_at = known_at
        self._stream = datastream
        frost = None if datastream.property == _FROZEN_BY_ITSELF else rules.frost
        self._rules = replace(rules, frost=frost)
        self._back_s, self._ahead_s = look_back_s(self._rules), look_ahead_s(self._rules)
        self._is_rehearsed = is_rehearsed
        self._recomputer = StreamRecomputer(
            session, datastream.id, ranges={datastream.id: rules.gross} if is_rehearsed else None
        )
        self._persons = person_flags.PersonFlags(session, datastream.id)
        channels = session.execute(
            select(Channel.key, Channel.from_at)
            .where(Channel.datastream_id == datastream.id)
            .order_by(Channel.from_at)
        ).all()
        self._keys = sorted({channel.key for channel in channels})
        begun = sorted({int(channel.from_at.timestamp()) for channel in channels})
        self._services = tuple((at, at) for at in begun)
        self._beside = beside.streams_beside(session, datastream)
        self._neighbours: list[int] = []
        if rules.neighbour is not None:
            found = beside.neighbours_of(session, datastream)
            # Fewer are never compared with.
            self._neighbours = found if len(found) >= NEIGHBOURS_LEAST else []

    def pieces(self, *, after_s: int | None, until_s: int | None = None) -> Iterator[Piece]:
        """What was sampled after `after_s` (None: all), oldest first, up to `until_s` where that is given."""
        while True:
            piece = self._piece(after_s)
            if piece is None:
                return
            if until_s is not None and piece.to_s >= until_s:
                places = np.flatnonzero(piece.rows.times_s <= until_s)
                yield replace(
                    piece,
                    rows=piece.rows.take(places),
                    flags=piece.flags[places],
                    tests=piece.tests[places],
                )
                return
            yield piece
            if after_s is not None and piece.to_s <= after_s:
                return
            after_s = piece.to_s

    def tally_beside(self, after_s: int | None) -> list[tuple[int, ...]]:
        """By what it shows that none of the values beside, which are looked at after `after_s`, was changed or added."""
        back_s = max(warmth_back_s(self._rules), self._neighbours_back_s())
        query = (
            select(
                Observation.datastream_id,
                func.count(),
                func.sum(Observation.lineage_id),
                func.sum(epoch_of(self._session, Observation.known_from)),
            )
            .where(Observation.datastream_id.in_({*self._beside.values(), *self._neighbours}))
            .group_by(Observation.datastream_id)
            .order_by(Observation.datastream_id)
        )
        if after_s is not None:
            query = query.where(Observation.sampled_at >= _moment(after_s - back_s))
        return [tuple(int(number) for number in row) for row in self._session.execute(query)]

    def first_unseen(self, until_s: int) -> int | None:
        """When the first value of a neighbour was sampled that was not judged itself, up to just after `until_s`.

        Once it is, what was judged without it is judged again.
        """
        if not self._neighbours:
            return None
        found = self._session.scalar(
            select(func.min(Observation.sampled_at)).where(
                Observation.datastream_id.in_(self._neighbours),
                Observation.sampled_at <= _moment(until_s) + judged_streams.BESIDE,
                Observation.value.is_not(None),
                Observation.pack_id.is_not(None),
                Observation.tests.op("&")(FILLED_BITS) == 0,
            )
        )
        return None if found is None else int(found.timestamp())

    def filled_tests(self, times_s: NDArray[np.int64]) -> NDArray[np.int32]:
        """What is filled in of the values sampled at these times, rising, all of which were known then. A person's word is no part of it."""
        first_s, last_s = int(times_s[0]), int(times_s[-1])
        query = (
            select(
                epoch_of(self._session, Observation.sampled_at).label("sampled_s"),
                Observation.value,
            )
            .where(
                Observation.datastream_id == self._stream.id,
                Observation.sampled_at >= _moment(first_s - self._back_s),
                Observation.sampled_at <= _moment(last_s + self._ahead_s),
            )
            .order_by(Observation.sampled_at)
        )
        if self._known_at is not None:
            query = known_then.as_of(query, self._known_at)
        rows = self._session.connection().execute(query).all()
        known_s = np.array([row[0] for row in rows], np.int64)
        values = np.array([row[1] for row in rows], np.float64)
        first = int(np.searchsorted(known_s, first_s))
        series = Series(known_s, values, self._estimated_at(known_s, first))
        found = judge(
            series, self._rules, self._context(first_s, last_s + self._ahead_s), first=first
        )
        places = np.searchsorted(known_s, times_s) - first
        made = np.zeros(times_s.size, np.int32)
        is_there = places < found.size
        made[is_there] = found[places[is_there]]
        return self.filled_part(made)

    def filled_part(self, tests: NDArray[np.int32]) -> NDArray[np.int32]:
        """The bits of tests that a judge fills in."""
        bits = FILLED_BITS
        if self._stream.property != _FROZEN_BY_ITSELF:
            bits |= _FROST_BITS
        return tests & np.int32(bits)

    def tally_now(self, piece: Piece) -> Tally:
        """As `piece.tally`, of what is stored at this moment."""
        return self._recomputer.tally(from_s=piece.loaded_from_s, to_s=piece.loaded_to_s)

    def explain(self, sampled_at: datetime) -> list[Reason]:
        """What the tests have against one stored value now, with their numbers."""
        at_s = int(sampled_at.timestamp())
        rows = _joined(
            list(self._recomputer.blocks(from_s=at_s - self._back_s, to_s=at_s + self._ahead_s + 1))
        )
        row = int(np.searchsorted(rows.times_s, at_s))
        series = Series(rows.times_s, rows.values, self._estimated(rows, row))
        return reasons.explain(series, self._rules, self._context(at_s, at_s + self._ahead_s), row)

    def _piece(self, after_s: int | None) -> Piece | None:
        from_s = None if after_s is None else after_s + 1 - self._back_s
        blocks, tally, new = [], Tally(), 0
        for block in self._recomputer.blocks(from_s=from_s):
            blocks.append(block)
            tally = tally.plus(block)
            new += int((block.times_s > (after_s or 0)).sum())
            if new >= _PIECE_ROWS:
                break
        if not new:
            return None
        rows = _joined(blocks)
        newest_s = int(rows.times_s[-1])
        to_s = newest_s - self._ahead_s
        first = 0 if after_s is None else int(np.searchsorted(rows.times_s, after_s, "right"))
        end = int(np.searchsorted(rows.times_s, to_s, "right"))
        if end <= first:
            return None
        context = self._context(int(rows.times_s[first]), newest_s)
        estimated = self._estimated(rows, first)
        series = Series(rows.times_s, rows.values, estimated)
        found = judge(series, self._rules, context, first=first)[: end - first]
        asked = rows.take(np.arange(first, end))
        flags, tests = self._merged(asked, found)
        loaded_from_s = from_s
        return Piece(asked, flags, tests, to_s, loaded_from_s, tally, newest_s + 1, newest_s)

    def _merged(
        self, rows: Versions, found: NDArray[np.int32]
    ) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        filled_bits = FILLED_BITS
        if self._stream.property != _FROZEN_BY_ITSELF:
            filled_bits |= _FROST_BITS
        alone = rows.tests & np.int32(~(filled_bits | person_flags.BITS))
        if self._is_rehearsed:
            alone &= np.int32(~_GROSS_BITS)
            alone |= self._recomputer.make(rows).tests & np.int32(_GROSS_BITS)
        filled = self._persons.put_into(found & np.int32(filled_bits), rows.times_s)
        return quality.merged(rows.values, rows.flags, alone, filled)

    def _estimated(self, rows: Versions, first: int) -> NDArray[np.bool_] | None:
        return self._estimated_at(rows.times_s, first)

    def _estimated_at(self, times_s: NDArray[np.int64], first: int) -> NDArray[np.bool_] | None:
        """Whose time is an estimate; asked of those that are judged now."""
        if first >= times_s.size:
            return None
        times = self._session.scalars(
            select(Observation.sampled_at)
            .join(
                RawReading,
                (RawReading.pack_id == Observation.pack_id) & RawReading.channel.in_(self._keys),
            )
            .where(
                Observation.datastream_id == self._stream.id,
                Observation.sampled_at >= _moment(int(times_s[first])),
                Observation.sampled_at <= _moment(int(times_s[-1])),
                RawReading.time_estimated.is_(True),
            )
        ).all()
        if not times:
            return None
        return np.isin(times_s, [int(at.timestamp()) for at in times])

    def _neighbours_back_s(self) -> int:
        if not self._neighbours:
            return 0
        return look_back_s(Rules(self._rules.gross, neighbour=self._rules.neighbour)) + _BESIDE_S

    def _context(self, first_s: int, newest_s: int) -> Context:
        def of(observed_property: str, back_s: int = _BESIDE_BACK_S) -> Series | None:
            datastream_id = self._beside.get(observed_property)
            if datastream_id is None:
                return None
            return self._values(datastream_id, first_s - back_s, newest_s)

        back_s = self._neighbours_back_s()
        return Context(
            neighbours=tuple(
                self._values(one, first_s - back_s, newest_s + _BESIDE_S)
                for one in self._neighbours
            ),
            air_temperature=of("air_temperature"),
            soil_temperature=of("soil_temperature"),
            water_temperature=of("water_temperature", warmth_back_s(self._rules)),
            conductivity=of("conductivity_25"),
            level=of("water_level"),
            oxygen_saturation=of("oxygen_saturation"),
            services=self._services,
        )

    def _values(self, datastream_id: int, from_s: int, to_s: int) -> Series:
        """Values that are within their range; what later tests say of them does not matter."""
        query = (
            select(epoch_of(self._session, Observation.sampled_at), Observation.value)
            .where(
                Observation.datastream_id == datastream_id,
                Observation.sampled_at >= _moment(from_s),
                Observation.sampled_at <= _moment(to_s),
                Observation.value.is_not(None),
                Observation.tests.op("&")(3) != int(Result.BAD),
            )
            .order_by(Observation.sampled_at)
        )
        if self._known_at is not None:
            query = known_then.as_of(query, self._known_at)
        # Plain rows: the session would make each of them anew.
        rows = self._session.connection().execute(query).all()
        times_s, values = zip(*rows, strict=True) if rows else ((), ())
        return Series(np.array(times_s, np.int64), np.array(values, np.float64))


def judge_due(session: Session, *, now: datetime, streams_at_once: int = 200) -> int:
    """Judge what has become due, a datastream's piece in a transaction of its own; returns how many datastreams there were.

    Committed datastream by datastream; safe to end at any point and to repeat.
    """
    due = _due(session, streams_at_once)
    for datastream_id in due:
        while not _judge_one(session, datastream_id, now=now):
            pass  # somebody else wrote meanwhile: it is looked at again
    session.rollback()
    return len(due)


def first_late(session: Session, judged: JudgedStream, *, back_s: int | None = None) -> int | None:
    """When the first value was sampled that has no results although what came after it does: it was stored late."""
    if judged.judged_to is None:
        return None
    query = select(func.min(Observation.sampled_at)).where(
        Observation.datastream_id == judged.datastream_id,
        Observation.sampled_at <= judged.judged_to,
        Observation.value.is_not(None),
        Observation.tests.op("&")(FILLED_BITS) == 0,
    )
    if back_s is not None:
        begin_s = int(judged.judged_to.timestamp()) - back_s
        query = query.where(Observation.sampled_at >= _moment(begin_s))
    found = session.scalar(query)
    return None if found is None else int(found.timestamp())


def _due(session: Session, limit: int) -> list[int]:
    has_new = exists().where(
        Observation.datastream_id == Datastream.id, Observation.sampled_at >= JudgedStream.due_at
    )
    has_any = exists().where(Observation.datastream_id == Datastream.id)
    return list(
        session.scalars(
            select(Datastream.id)
            .outerjoin(JudgedStream, JudgedStream.datastream_id == Datastream.id)
            .where(
                Datastream.level == _LEVEL,
                Datastream.property.in_(sorted(DEFAULTS)),
                or_(JudgedStream.datastream_id.is_(None) & has_any, has_new),
            )
            .order_by(JudgedStream.due_at, Datastream.id)
            .limit(limit)
        )
    )


def _judge_one(session: Session, datastream_id: int, *, now: datetime) -> bool:
    """Judge the next piece of a datastream. False: something was written meanwhile, and nothing is done."""
    stream = session.get_one(Datastream, datastream_id, populate_existing=True)
    judged = session.get(JudgedStream, datastream_id, populate_existing=True)
    in_force = quality_rules.rules_in_force(session, stream)
    if in_force is None:
        return True
    after_s = _after(session, judged)
    seen_to = None if judged is None else judged.judged_to
    judging = StreamJudge(session, stream, in_force.rules)
    seen_beside = judging.tally_beside(after_s)
    piece = next(judging.pieces(after_s=after_s), None)
    newest = session.scalar(
        select(func.max(Observation.sampled_at)).where(Observation.datastream_id == datastream_id)
    )
    with db.writing(session):
        session.execute(
            select(Datastream.id).where(Datastream.id == datastream_id).with_for_update()
        )
        judged_streams.lock(session, [datastream_id, *beside.around(session, stream)])
        judged = session.get(JudgedStream, datastream_id, populate_existing=True)
        if (None if judged is None else judged.judged_to) != seen_to:
            return False
        if piece is not None and judging.tally_now(piece) != piece.tally:
            return False
        if judging.tally_beside(after_s) != seen_beside:
            return False
        if piece is not None:
            _note_new(session, stream, piece)
            write_results(
                session,
                datastream_id,
                piece.rows,
                piece.flags,
                piece.tests,
                reason=REASON,
                author=AUTHOR,
                now=now,
            )
        _note(session, datastream_id, judged, piece, after_s, newest)
    return True


def _after(session: Session, judged: JudgedStream | None) -> int | None:
    """From where on it is judged: after what was judged, unless something came late."""
    if judged is None or judged.judged_to is None:
        return None
    late_s = first_late(session, judged, back_s=_LONGEST_BACK_S)
    judged_s = int(judged.judged_to.timestamp())
    return judged_s if late_s is None else late_s - int(judged_streams.AHEAD.total_seconds())


def _note_new(session: Session, stream: Datastream, piece: Piece) -> None:
    """Values that are judged for the first time: neighbours may have been judged without them."""
    is_new = ((piece.rows.tests & np.int32(FILLED_BITS)) == 0) & ~np.isnan(piece.rows.values)
    if is_new.any():
        first_s = int(piece.rows.times_s[np.flatnonzero(is_new)[0]])
        judged_streams.note_new(session, stream, _moment(first_s))


def _note(
    session: Session,
    datastream_id: int,
    judged: JudgedStream | None,
    piece: Piece | None,
    after_s: int | None,
    newest: datetime | None,
) -> None:
    to_s = after_s if piece is None else piece.to_s
    to_at = judged_streams.BEGINNING if to_s is None else _moment(to_s)
    # What is left of this datastream is due at once; else it waits for an hour's worth of values.
    due_s = int((newest or judged_streams.BEGINNING).timestamp()) + _WAIT_S
    if piece is not None and newest is not None and piece.newest_s < int(newest.timestamp()):
        due_s = piece.newest_s
    if judged is None:
        judged = JudgedStream(datastream_id=datastream_id, reached=to_at, due_at=_moment(due_s))
        session.add(judged)
    judged.judged_to = to_at
    judged.reached = max(judged.reached, to_at)
    judged.due_at = _moment(due_s)


def write_results(
    session: Session,
    datastream_id: int,
    rows: Versions,
    flags: NDArray[np.int16],
    tests: NDArray[np.int32],
    *,
    reason: str,
    author: str,
    now: datetime,
) -> None:
    """Give stored versions these flags and tests; where a flag becomes another one, by a new version.

    Part of the caller's transaction, which holds the datastream's row.
    """
    is_new_version = flags != rows.flags
    same = np.flatnonzero((tests != rows.tests) & ~is_new_version)
    if same.size:
        bulk.update_columns(
            session,
            _table(Observation),
            {
                "datastream_id": np.full(same.size, datastream_id, np.int64),
                "sampled_at": rows.times_s[same],
                "tests": tests[same],
            },
            key=("datastream_id", "sampled_at"),
        )
    changed = np.flatnonzero(is_new_version)
    if not changed.size:
        return
    lineages = observing.stored_lineages(session)
    ids, places = np.unique(rows.lineage_ids[changed], return_inverse=True)
    revision = Revision(
        kind="quality_control",
        reason=reason,
        author=author,
        state="done",
        ordered_at=now,
        known_at=now,
        from_at=_moment(int(rows.times_s[changed[0]])),
        to_at=_moment(int(rows.times_s[changed[-1]]) + 1),
    )
    session.add(revision)
    session.flush()
    session.add(
        RevisionStream(
            revision_id=revision.id,
            datastream_id=datastream_id,
            switched_at=now,
            compared=len(rows),
            changed=int(changed.size),
            removed=0,
        )
    )
    session.flush()
    revising.replace_versions(
        session,
        revision.id,
        datastream_id,
        rows.take(changed),
        Made(
            rows.values[changed],
            rows.us[changed],
            flags[changed],
            tests[changed],
            places.astype(np.int64),
            tuple(lineages[one] for one in ids.tolist()),
        ),
        now=now,
    )


def _joined(blocks: list[Versions]) -> Versions:
    if len(blocks) == 1:
        return blocks[0]
    names = Versions.__slots__
    return Versions(*(np.concatenate([getattr(block, name) for block in blocks]) for name in names))


def _moment(utc_s: int) -> datetime:
    return datetime.fromtimestamp(utc_s, UTC)


def _table(model: type[Any]) -> Table:
    table: Table = model.__table__
    return table

"""Means of hours and days, and what follows from values, made again from what is stored, and versions of them from what was known then.

The values themselves are judged elsewhere (`observations`). Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session, aliased

from fleet_server.measurement import aggregates
from fleet_server.models import (
    AggregateDetail,
    AggregatedStream,
    Datastream,
    Observation,
    ObservationCount,
    ObservationHistory,
)
from fleet_server.services import aggregating, derivations, observing
from fleet_server.services.aggregating import LEVELS, Means, StreamAggregator
from fleet_server.services.derivations import Derivation
from fleet_server.services.recomputing import epoch_of
from fleet_server.services.verification.report import Report

_KIND = "observations_not_reproducible"
_SENTENCES_MAX = 20
_PIECE_S = 31 * 86_400


def check_aggregates(session: Session, report: Report) -> None:
    """Make all of it again that is made, and say where value, u, flag, lineage, extremes, count or completeness are others.

    What waits to be made again is left out.
    """
    for source_id in session.scalars(
        select(Datastream.source_id)
        .where(Datastream.source_id.is_not(None), Datastream.level.in_(LEVELS))
        .distinct()
        .order_by(Datastream.source_id)
    ).all():
        if source_id is not None:
            _Check(session, report, source_id).run()
    for derivation in derivations.all_derivations(session):
        _DerivedCheck(session, report, derivation).run()
    _check_details(session, report)


class _Check:
    """One datastream's means."""

    _version = aggregates.VERSION
    _what = "mean"

    def __init__(self, session: Session, report: Report, source_id: int) -> None:
        self._session = session
        self._report = report
        self._aggregator = StreamAggregator(session, source_id)
        self._streams = aggregating.streams_of_means(session, source_id)
        self._made_to_s, self._dirty_s = self._states([source_id])
        self._said = 0

    def _states(self, datastream_ids: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
        """Up to when all of these are made, and the times of which one waits to be made again."""
        made_to, dirty = [], []
        for datastream_id in datastream_ids:
            row = self._session.get(AggregatedStream, datastream_id, populate_existing=True)
            made_to.append(0 if row is None or row.made_to is None else _seconds(row.made_to))
            if row is not None and row.dirty_from is not None and row.dirty_to is not None:
                dirty.append((_seconds(row.dirty_from), _seconds(row.dirty_to)))
        return min(made_to), dirty

    def run(self) -> None:
        for level, datastream_id in sorted(self._streams.items()):
            self._check_current(level, datastream_id)
            self._check_versions(level, datastream_id)
            self._check_tests(datastream_id)
            self._check_counts(datastream_id)
        if self._said > _SENTENCES_MAX:
            more = self._said - _SENTENCES_MAX
            self._report.find(
                _KIND,
                f"{more} further ones of datastream {self._aggregator.datastream_id} are others, too.",
                count=more,
            )

    # -- what is known now

    def _check_current(self, level: str, datastream_id: int) -> None:
        begins = [
            one
            for one in (
                self._aggregator.first_s(0),
                StreamAggregator(self._session, datastream_id).first_s(0),
            )
            if one is not None
        ]
        if not begins:
            return
        from_s = aggregating.day_begin(min(begins))
        newest = self._session.scalar(
            select(func.max(Observation.sampled_at)).where(
                Observation.datastream_id == datastream_id
            )
        )
        end_s = max(self._made_to_s, 0 if newest is None else _seconds(newest) + 1)
        while from_s < end_s:
            edges = self._edges(level, from_s)
            self._compare(level, datastream_id, edges)
            from_s = edges[-1]

    def _made(self, level: str, edges: list[int], *, as_of: datetime | None = None) -> Means:
        values = self._aggregator.values(edges[0] - aggregates.STEP_BACK_S, edges[-1], as_of=as_of)
        return self._aggregator.make(level, edges, values)

    def _edges(self, level: str, from_s: int) -> list[int]:
        """A month's intervals from a local midnight on."""
        end = aggregating.day_begin(from_s + _PIECE_S)
        edges = [from_s]
        while edges[-1] < end:
            edges.append(aggregating.interval_end(level, edges[-1]))
        return edges

    def _compare(self, level: str, datastream_id: int, edges: list[int]) -> None:
        made = self._made(level, edges)
        made = made.take(self._claimed(level, made))
        stored = aggregating.stored_means(self._session, datastream_id, edges[0], edges[-1])
        stored = stored.take(self._claimed(level, stored, too_new=True))
        for at_s in sorted({*made.times_s.tolist()} ^ {*stored.times_s.tolist()}):
            is_made = at_s in made.times_s
            self._find(datastream_id, at_s, "is missing" if is_made else "comes from no value")
        both_made = made.take(np.flatnonzero(np.isin(made.times_s, stored.times_s)))
        both_stored = stored.take(np.flatnonzero(np.isin(stored.times_s, made.times_s)))
        is_other = both_made.differs_from(both_stored)
        early = np.flatnonzero(~is_other & (both_stored.known_s < both_made.known_s))
        is_other[early[~self._was_known(level, both_stored.take(early), edges)]] = True
        for place in np.flatnonzero(is_other).tolist():
            self._find(datastream_id, int(both_made.times_s[place]), "is another one")

    def _was_known(self, level: str, stored: Means, edges: list[int]) -> NDArray[np.bool_]:
        """Which of these follow from what was known when they became known.

        Values may have got new versions since that give the same mean to the bit: then it stays as it is.
        """
        was_known = np.zeros(len(stored), np.bool_)
        for known_s in np.unique(stored.known_s).tolist():
            places = np.flatnonzero(stored.known_s == known_s)
            some = stored.take(places)
            first_s, last_s = int(some.times_s[0]), int(some.times_s[-1])
            narrowed = self._narrowed(edges, first_s, self._end_of(level, last_s))
            was_known[places] = self._is_alike_then(level, some, narrowed, known_s)
        return was_known

    def _is_alike_then(
        self, level: str, stored: Means, edges: list[int], known_s: int
    ) -> NDArray[np.bool_]:
        """Which of these are what was known then gives between these edges."""
        is_alike = np.zeros(len(stored), np.bool_)
        made = self._made(level, edges, as_of=_moment(known_s))
        here = np.flatnonzero(np.isin(stored.times_s, made.times_s))
        made = made.take(np.searchsorted(made.times_s, stored.times_s[here]))
        is_alike[here] = ~made.differs_from(stored.take(here))
        return is_alike

    def _narrowed(self, edges: list[int], from_s: int, to_s: int) -> list[int]:
        """Those of the edges that lie between these two, which are edges, too."""
        return [one for one in edges if from_s <= one <= to_s]

    def _claimed(self, level: str, means: Means, *, too_new: bool = False) -> NDArray[np.intp]:
        """Those that are made and wait for nothing; with `too_new` those, too, that nobody made yet."""
        places = []
        for place, begin_s in enumerate(means.times_s.tolist()):
            end_s = self._end_of(level, begin_s)
            if end_s > self._made_to_s and not too_new:
                continue
            if not self._waits(begin_s, end_s):
                places.append(place)
        return np.array(places, np.intp)

    def _end_of(self, level: str, begin_s: int) -> int:
        return aggregating.interval_end(level, begin_s)

    def _waits(self, begin_s: int, end_s: int) -> bool:
        looks_from_s = min(begin_s, end_s - aggregates.STEP_BACK_S)
        return any(looks_from_s <= to_s and from_s < end_s for from_s, to_s in self._dirty_s)

    # -- what was known before

    def _check_versions(self, level: str, datastream_id: int) -> None:
        for known_s, stored in self._versions(datastream_id):
            self._report.versions += len(stored)
            is_ours = [key is None or key[6] == self._version for key in stored.lineages]
            stored = stored.take(np.flatnonzero(np.array(is_ours)[stored.lineage_places]))
            for some in self._made_alike(stored):
                for place in self._unlike_then(level, some, known_s).tolist():
                    self._find(
                        datastream_id,
                        int(some.times_s[place]),
                        f"that was known {_at(known_s)} is another one",
                    )
        for sampled_s, known_s in self._unordered(datastream_id):
            self._find(
                datastream_id,
                sampled_s,
                f"that was known {_at(known_s)} ends after the next begins",
            )

    def _made_alike(self, stored: Means) -> Iterator[Means]:
        """Versions that one call of `_made` can make again."""
        yield stored

    def _versions(self, datastream_id: int) -> Iterator[tuple[int, Means]]:
        """Replaced versions by since when they were known."""
        history, detail = ObservationHistory, AggregateDetail
        rows = self._session.execute(
            select(
                epoch_of(self._session, history.sampled_at),
                history.value,
                history.u,
                history.flag,
                detail.minimum,
                detail.maximum,
                detail.count,
                detail.completeness,
                history.lineage_id,
                epoch_of(self._session, history.known_from),
            )
            .outerjoin(
                detail,
                and_(
                    detail.datastream_id == history.datastream_id,
                    detail.sampled_at == history.sampled_at,
                    detail.known_from == history.known_from,
                ),
            )
            .where(history.datastream_id == datastream_id)
            .order_by(history.known_from, history.sampled_at)
        ).all()
        stored = aggregating.means_of(self._session, rows)
        for known_s in np.unique(stored.known_s).tolist():
            yield known_s, stored.take(np.flatnonzero(stored.known_s == known_s))

    def _unlike_then(self, level: str, stored: Means, known_s: int) -> NDArray[np.intp]:
        """Places of those that what was known then does not give."""
        is_alike = np.zeros(len(stored), np.bool_)
        from_s = aggregating.day_begin(int(stored.times_s[0])) if len(stored) else 0
        while len(stored) and from_s <= stored.times_s[-1]:
            edges = self._edges(level, from_s)
            is_alike |= self._is_alike_then(level, stored, edges, known_s)
            later = stored.times_s[stored.times_s >= edges[-1]]
            if not later.size:
                break
            from_s = aggregating.day_begin(int(later[0]))
        return np.flatnonzero(~is_alike)

    def _unordered(self, datastream_id: int) -> list[tuple[int, int]]:
        """Versions that do not end before or when the next one begins."""
        history, other = ObservationHistory, aliased(ObservationHistory)
        found = []
        for later in (other, Observation):
            rows = self._session.execute(
                select(
                    epoch_of(self._session, history.sampled_at),
                    epoch_of(self._session, history.known_from),
                )
                .join(
                    later,
                    and_(
                        later.datastream_id == history.datastream_id,
                        later.sampled_at == history.sampled_at,
                        later.known_from > history.known_from,
                        later.known_from < history.known_to,
                    ),
                )
                .where(history.datastream_id == datastream_id)
            )
            found += [(row[0], row[1]) for row in rows]
        return sorted(set(found))

    def _check_tests(self, datastream_id: int) -> None:
        """None is made of what is made of values: the flag comes from those."""
        for model in (Observation, ObservationHistory):
            for sampled_s in self._session.scalars(
                select(epoch_of(self._session, model.sampled_at)).where(
                    model.datastream_id == datastream_id, model.tests != 0
                )
            ):
                self._find(datastream_id, sampled_s, "has results of tests that nobody made")

    def _check_counts(self, datastream_id: int) -> None:
        times = self._session.scalars(
            select(epoch_of(self._session, Observation.sampled_at)).where(
                Observation.datastream_id == datastream_id
            )
        )
        counted = Tally(observing.month_of(one) for one in times)
        said = {
            row.month: row.count
            for row in self._session.execute(
                select(ObservationCount.month, ObservationCount.count.label("count")).where(
                    ObservationCount.datastream_id == datastream_id
                )
            )
        }
        for month in sorted(counted.keys() | said.keys()):
            if counted[month] != said.get(month, 0):
                self._report.find(
                    _KIND,
                    f"The count of datastream {datastream_id} in {month} says {said.get(month, 'nothing')};"
                    f" right is {counted[month]}.",
                )

    def _find(self, datastream_id: int, begin_s: int, what: str) -> None:
        self._said += 1
        if self._said <= _SENTENCES_MAX:
            self._report.find(
                _KIND, f"The {self._what} of datastream {datastream_id} from {_at(begin_s)} {what}."
            )


class _DerivedCheck(_Check):
    """The values of one derived datastream: instants, each by itself."""

    _version = derivations.VERSION
    _what = "derived value"

    def __init__(self, session: Session, report: Report, derivation: Derivation) -> None:
        super().__init__(session, report, derivation.leading_id)
        self._deriver = aggregating.Deriver(session, derivation)
        self._streams = {derivations.LEVEL: derivation.datastream_id}
        self._made_to_s, self._dirty_s = self._states(self._deriver.inputs)
        self._stated: derivations.Stated | None = None

    def _made(self, level: str, edges: list[int], *, as_of: datetime | None = None) -> Means:
        return self._deriver.make(edges[0], edges[-1], as_of=as_of, stated=self._stated)

    def _edges(self, level: str, from_s: int) -> list[int]:
        return [from_s, aggregating.day_begin(from_s + _PIECE_S)]

    def _narrowed(self, edges: list[int], from_s: int, to_s: int) -> list[int]:
        return [from_s, to_s]

    def _end_of(self, level: str, begin_s: int) -> int:
        return begin_s + 1

    def _waits(self, begin_s: int, end_s: int) -> bool:
        return any(from_s <= begin_s <= to_s for from_s, to_s in self._dirty_s)

    def _made_alike(self, stored: Means) -> Iterator[Means]:
        """By what was stated then, which their lineages say."""
        for place, lineage in enumerate(stored.lineages):
            if lineage is not None:
                self._stated = derivations.stated_in(lineage[2])
                yield stored.take(np.flatnonzero(stored.lineage_places == place))
        self._stated = None


def _check_details(session: Session, report: Report) -> None:
    """Details that belong to no version."""
    belongs = [
        exists().where(
            model.datastream_id == AggregateDetail.datastream_id,
            model.sampled_at == AggregateDetail.sampled_at,
            model.known_from == AggregateDetail.known_from,
        )
        for model in (Observation, ObservationHistory)
    ]
    count = session.scalar(
        select(func.count()).select_from(AggregateDetail).where(~belongs[0], ~belongs[1])
    )
    if count:
        report.find(_KIND, f"{count} details belong to no mean.", count=count)


def _seconds(at: datetime) -> int:
    return int(at.timestamp())


def _moment(utc_s: int) -> datetime:
    return datetime.fromtimestamp(utc_s, UTC)


def _at(utc_s: int) -> str:
    return f"{_moment(utc_s):%F %T}"

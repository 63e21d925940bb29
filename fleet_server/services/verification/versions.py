"""Versions of observations: those that a revision replaced, and those that wait for one. Each is made again by the lineage that it names.

Raw readings are compared with their packs' bytes elsewhere (`packs`); here they are what is begun from. Times are integer seconds UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from fleet_server.measurement import pipeline
from fleet_server.models import Observation, ObservationHistory, Revision, RevisionStream
from fleet_server.services import bulk
from fleet_server.services.observing import LineageKey
from fleet_server.services.recomputing import Made, StreamRecomputer, Versions
from fleet_server.services.verification.report import Report

_KIND = "observations_not_reproducible"
_QUERY_KEYS = 400
_PIPELINE_VERSION = 6  # place in a lineage


@dataclass(frozen=True, slots=True)
class Waiting:
    """A datastream's values within `from_s` … `to_s` (outside) that a revision has still to look at."""

    datastream_id: int
    from_s: int | None
    to_s: int | None

    def has(self, sampled_s: int) -> bool:
        """Whether a value of this time waits."""
        return (self.from_s is None or sampled_s >= self.from_s) and (
            self.to_s is None or sampled_s < self.to_s
        )


def waiting_of(session: Session) -> dict[int, list[Waiting]]:
    """What waits for a revision, by datastream. One statement."""
    rows = session.execute(
        select(RevisionStream.datastream_id, Revision.from_at, Revision.to_at)
        .join(Revision, Revision.id == RevisionStream.revision_id)
        .where(RevisionStream.switched_at.is_(None))
        .order_by(RevisionStream.datastream_id, Revision.id)
    )
    waiting: dict[int, list[Waiting]] = {}
    for datastream_id, from_at, to_at in rows:
        one = Waiting(datastream_id, _seconds(from_at), _seconds(to_at))
        waiting.setdefault(datastream_id, []).append(one)
    return waiting


def removed_instants(
    session: Session,
    report: Report,
    waiting: Mapping[int, list[Waiting]],
    lineages: Mapping[int, LineageKey],
) -> list[tuple[int, int]]:
    """Judge what waits for a revision by the lineages that it names. Returns datastream and time of what nothing in force makes."""
    removed: dict[tuple[int, int], None] = {}
    for datastream_id, ranges in sorted(waiting.items()):
        recomputer = StreamRecomputer(session, datastream_id)
        for one in ranges:
            for block in recomputer.blocks(from_s=one.from_s, to_s=one.to_s):
                report.waiting += len(block)
                made = recomputer.make(block)
                _judge(report, datastream_id, block, recomputer.remake(block, lineages), lineages)
                for place in np.flatnonzero(~made.is_made).tolist():
                    removed[datastream_id, int(block.times_s[place])] = None
    return [*removed]


def check_history(session: Session, report: Report, lineages: Mapping[int, LineageKey]) -> None:
    """Judge every version that was replaced: its bits by its lineage, and that one version ended when the next began."""
    for datastream_id in session.scalars(
        select(ObservationHistory.datastream_id)
        .distinct()
        .order_by(ObservationHistory.datastream_id)
    ).all():
        recomputer = StreamRecomputer(session, datastream_id)
        for block in recomputer.blocks(version=ObservationHistory):
            report.versions += len(block)
            _judge(report, datastream_id, block, recomputer.remake(block, lineages), lineages)
            _check_succession(session, report, datastream_id, block)


def _judge(
    report: Report,
    datastream_id: int,
    stored: Versions,
    made: Made,
    lineages: Mapping[int, LineageKey],
) -> None:
    # What other software made can only be kept.
    is_ours = np.array(
        [
            lineages.get(one, ("",) * 8)[_PIPELINE_VERSION] in (pipeline.VERSION, "")
            for one in stored.lineage_ids.tolist()
        ],
        np.bool_,
    )
    is_other = made.differs_from(stored) | ~made.is_made
    for place in np.flatnonzero(is_ours & is_other).tolist():
        report.find(_KIND, f"The version of {_where(datastream_id, stored, place)} is another one.")
    named = [lineages.get(one) for one in stored.lineage_ids.tolist()]
    for place in np.flatnonzero(is_ours & ~is_other).tolist():
        if made.lineages[made.lineage_places[place]] != named[place]:
            report.find(
                _KIND,
                f"The version of {_where(datastream_id, stored, place)} names a lineage"
                f" ({stored.lineage_ids[place]}) that did not make it.",
            )


def _check_succession(
    session: Session, report: Report, datastream_id: int, stored: Versions
) -> None:
    """`known_to` is the next version's `known_from`. Where nothing followed, the value was removed."""
    starts = _starts(session, datastream_id, stored.times_s)
    ends = _ends(session, datastream_id, stored.times_s)
    for place, (sampled_s, known_s) in enumerate(
        zip(stored.times_s.tolist(), stored.known_s.tolist(), strict=True)
    ):
        following = min((one for one in starts.get(sampled_s, ()) if one > known_s), default=None)
        if following is not None and ends[sampled_s, known_s] != following:
            report.find(
                _KIND,
                f"The version of {_where(datastream_id, stored, place)} does not end where the next begins.",
            )


def _starts(
    session: Session, datastream_id: int, times_s: NDArray[np.int64]
) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for model in (Observation, ObservationHistory):
        for sampled_at, known_from in _of_times(
            session, datastream_id, times_s, model, model.sampled_at, model.known_from
        ):
            found.setdefault(int(sampled_at.timestamp()), []).append(int(known_from.timestamp()))
    return found


def _ends(
    session: Session, datastream_id: int, times_s: NDArray[np.int64]
) -> dict[tuple[int, int], int]:
    model = ObservationHistory
    return {
        (int(sampled_at.timestamp()), int(known_from.timestamp())): int(known_to.timestamp())
        for sampled_at, known_from, known_to in _of_times(
            session,
            datastream_id,
            times_s,
            model,
            model.sampled_at,
            model.known_from,
            model.known_to,
        )
    }


def _of_times(
    session: Session, datastream_id: int, times_s: NDArray[np.int64], model: Any, *columns: Any
) -> Iterator[Any]:
    for some in bulk.chunks(np.unique(times_s).tolist(), _QUERY_KEYS):
        keys = [(datastream_id, datetime.fromtimestamp(one, UTC)) for one in some]
        yield from session.execute(
            select(*columns).where(tuple_(model.datastream_id, model.sampled_at).in_(keys))
        )


def _where(datastream_id: int, stored: Versions, place: int) -> str:
    sampled_at = datetime.fromtimestamp(int(stored.times_s[place]), UTC)
    known_at = datetime.fromtimestamp(int(stored.known_s[place]), UTC)
    return f"datastream {datastream_id} at {sampled_at:%F %T} that is known since {known_at:%F %T}"


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())

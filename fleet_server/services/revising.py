"""Values made anew after a calibration, a rule or the software changed: ordered, worked off by the worker, switched per datastream.

Nothing that was known is lost: what a revision replaces goes to `observation_history` in the transaction that replaces it. A reader sees a
datastream as it was or as it is, never half of each; ingest goes on meanwhile, and takes what is in force for what it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Table, delete, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import FleetError, Invalid, NotFound
from fleet_server.models import (
    Channel,
    Datastream,
    Deployment,
    MadeEarlier,
    Observation,
    ObservationCount,
    ObservationHistory,
    Receipt,
    Revision,
    RevisionStream,
    Site,
)
from fleet_server.services import aggregated_streams, auditing, bulk, judged_streams, observing
from fleet_server.services.observing import Assumed
from fleet_server.services.recomputing import Made, StreamRecomputer, Tally, Versions

_STREAMS_AT_ONCE = 500
_QUERY_KEYS = 400


LONGEST_REASON = 500
"""Characters."""


class ReasonWrong(Invalid):
    """Nobody can read such a reason later."""

    code = "reason_wrong"


@dataclass(frozen=True)
class Change:
    """What a revision would do, or did, to one datastream.

    `largest`: the largest change of a value, in the datastream's unit, None where no value differs; `times_s`, `before`, `after`: the values
    that differ, oldest first, NaN where there is none.
    """

    datastream_id: int
    compared: int
    changed: int
    removed: int
    largest: float | None
    mean: float | None
    flags_changed: int
    times_s: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


def streams_of(
    session: Session,
    *,
    sensor_id: int,
    observed_property: str,
    from_at: datetime | None,
    to_at: datetime | None,
) -> list[int]:
    """Datastreams that values of this probe went into within that time, directly or as an input of their conversions."""
    within = _within(Channel, from_at, to_at)
    own = session.execute(
        select(Channel.deployment_id, Channel.key, Channel.datastream_id).where(
            Channel.sensor_id == sensor_id, Channel.property == observed_property, *within
        )
    ).all()
    streams = {row.datastream_id for row in own}
    others = session.execute(
        select(Channel.deployment_id, Channel.key, Channel.datastream_id, Channel.needs).where(
            Channel.deployment_id.in_({row.deployment_id for row in own}), *within
        )
    ).all()
    reached = {(row.deployment_id, row.key) for row in own}
    while True:
        further = {
            (row.deployment_id, row.key): row.datastream_id
            for row in others
            if any((row.deployment_id, needed) in reached for needed in row.needs.values())
        }
        if further.keys() <= reached:
            return sorted(streams)
        reached |= further.keys()
        streams |= set(further.values())


def streams(
    session: Session, *, site_code: str | None = None, observed_property: str | None = None
) -> dict[int, str]:
    """Names of the datastreams that nodes feed, by id: of one site, of one property, or all.

    Raises:
        NotFound: there is no such site, or none of its values is of that property.
    """
    query = (
        select(Datastream.id, Site.code, Datastream.property, Datastream.depth_cm)
        .join(Site, Site.id == Datastream.site_id)
        .where(Datastream.level == "calibrated")
        .order_by(Datastream.id)
    )
    if site_code is not None:
        query = query.where(Site.code == site_code)
    if observed_property is not None:
        query = query.where(Datastream.property == observed_property)
    found = {row[0]: f"{row[1]} {row[2]} {row[3]} cm" for row in session.execute(query)}
    if not found and (site_code is not None or observed_property is not None):
        raise NotFound(
            "There are no values of %(what)s; look at `fleet site list`.",
            what=" at ".join(one for one in (observed_property, site_code) if one),
        )
    return found


def checked_reason(reason: str) -> str:
    """Why somebody orders a revision, trimmed. Raises ReasonWrong."""
    trimmed = reason.strip()
    if not 1 <= len(trimmed) <= LONGEST_REASON or not trimmed.isprintable():
        raise ReasonWrong(
            "A reason has 1 to %(longest)s characters, in one line.", longest=LONGEST_REASON
        )
    return trimmed


def order_revision(
    session: Session,
    *,
    kind: str,
    reason: str,
    author: str,
    now: datetime,
    sensor_id: int,
    observed_property: str,
    from_at: datetime | None = None,
    to_at: datetime | None = None,
    approver: str | None = None,
) -> int | None:
    """Have everything made anew that values of this probe went into. Part of the caller's transaction, in which the cause is changed.

    Ingest makes what comes from now on by what is in force. Returns the revision, None when nothing was ever measured with it.
    """
    streams = streams_of(
        session,
        sensor_id=sensor_id,
        observed_property=observed_property,
        from_at=from_at,
        to_at=to_at,
    )
    return order_for_streams(
        session,
        streams,
        kind=kind,
        reason=reason,
        author=author,
        approver=approver,
        from_at=from_at,
        to_at=to_at,
        now=now,
    )


def order_for_streams(
    session: Session,
    datastream_ids: Sequence[int],
    *,
    kind: str,
    reason: str,
    author: str,
    now: datetime,
    from_at: datetime | None = None,
    to_at: datetime | None = None,
    approver: str | None = None,
) -> int | None:
    """The same for datastreams that are known."""
    _let_ingest_look_again(session, datastream_ids)
    concerned = [one for one in datastream_ids if _has_observations(session, one, from_at, to_at)]
    if not concerned:
        return None
    revision = Revision(
        kind=kind,
        reason=reason,
        author=author,
        approver=approver,
        from_at=from_at,
        to_at=to_at,
        state="waiting",
        ordered_at=now,
    )
    session.add(revision)
    session.flush()
    bulk.insert_rows(
        session,
        _table(RevisionStream),
        ("revision_id", "datastream_id", "compared", "changed", "removed"),
        [(revision.id, one, 0, 0, 0) for one in sorted(concerned)],
    )
    auditing.record(
        session,
        "revision_ordered",
        subject=f"revision {revision.id}",
        now=now,
        kind=kind,
        reason=reason,
        datastreams=len(concerned),
    )
    return revision.id


def changes(
    session: Session,
    datastream_ids: Iterable[int],
    *,
    from_at: datetime | None = None,
    to_at: datetime | None = None,
    assumed: Sequence[Assumed] = (),
    newest_max: int | None = None,
) -> Iterator[Change]:
    """What would change by what is in force now. Reads only; one datastream after the other.

    Args:
        assumed: calibrations that are taken as if they were in force, too.
        newest_max: only so many of each datastream, the newest.
    """
    for datastream_id in datastream_ids:
        begin = from_at
        if newest_max is not None:
            begin = _nth_newest(session, datastream_id, from_at, to_at, newest_max) or from_at
        found = _find(session, datastream_id, begin, to_at, assumed=assumed)
        yield _change_of(datastream_id, found.tally.count, found.before, found.after)


def has_work(session: Session) -> bool:
    """Whether a revision is not done."""
    return session.scalar(select(Revision.id).where(Revision.state != "done").limit(1)) is not None


def advance(
    session: Session,
    *,
    now: datetime,
    make_backup: Callable[[], str | None] | None = None,
    streams_at_once: int = _STREAMS_AT_ONCE,
) -> bool:
    """Go on with the oldest revision that is not done. Committed datastream by datastream; safe to end at any point and to repeat.

    Before its first value is changed `make_backup` makes a backup and says where, or None where none is wanted. A backup that cannot be made
    holds the revision up, which then says why. Returns whether there is more to do at once.
    """
    revision = session.scalar(
        select(Revision).where(Revision.state != "done").order_by(Revision.id).limit(1)
    )
    if revision is None:
        session.rollback()
        return False
    if revision.state == "waiting":
        _begin(session, revision.id, make_backup)
    for _ in range(streams_at_once):
        datastream_id = session.scalar(
            select(RevisionStream.datastream_id)
            .where(RevisionStream.revision_id == revision.id, RevisionStream.switched_at.is_(None))
            .order_by(RevisionStream.datastream_id)
            .limit(1)
        )
        if datastream_id is None:
            _end(session, revision.id, now=now)
            return has_work(session)
        while not _switch(session, revision, datastream_id, now=now):
            pass  # somebody else wrote meanwhile: what is there is compared again
    return True


# ---------------------------------------------------------------------------------------------------------------- private


def _within(
    model: Any, from_at: datetime | None, to_at: datetime | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if from_at is not None:
        conditions.append(or_(model.to_at.is_(None), model.to_at > from_at))
    if to_at is not None:
        conditions.append(model.from_at < to_at)
    return conditions


def _has_observations(
    session: Session, datastream_id: int, from_at: datetime | None, to_at: datetime | None
) -> bool:
    return _nth_newest(session, datastream_id, from_at, to_at, 1) is not None


def _nth_newest(
    session: Session,
    datastream_id: int,
    from_at: datetime | None,
    to_at: datetime | None,
    number: int,
) -> datetime | None:
    """When the nth of its values was sampled, from the newest of that time on; None when there are fewer."""
    query = select(Observation.sampled_at).where(Observation.datastream_id == datastream_id)
    if from_at is not None:
        query = query.where(Observation.sampled_at >= from_at)
    if to_at is not None:
        query = query.where(Observation.sampled_at < to_at)
    newest_first = query.order_by(Observation.sampled_at.desc())
    return session.scalar(newest_first.offset(number - 1).limit(1))


def _let_ingest_look_again(session: Session, datastream_ids: Sequence[int]) -> None:
    """Whoever stores packs of these nodes holds their receipt rows, and reads what their channels mean anew."""
    for some in bulk.chunks(sorted(set(datastream_ids)), _QUERY_KEYS):
        nodes = (
            select(Deployment.node_id)
            .join(Channel, Channel.deployment_id == Deployment.id)
            .where(Channel.datastream_id.in_(some))
        )
        session.execute(
            update(Receipt)
            .where(Receipt.node_id.in_(nodes))
            .values(channels_version=Receipt.channels_version + 1)
            .execution_options(synchronize_session=False)
        )


def _begin(
    session: Session, revision_id: int, make_backup: Callable[[], str | None] | None
) -> None:
    """A backup first: outside of a transaction, for it may take long."""
    session.rollback()
    backup = None
    if make_backup is not None:
        try:
            backup = make_backup()
        except FleetError as problem:
            with db.writing(session):
                held_up = session.get_one(Revision, revision_id)
                held_up.fault, held_up.fault_parts = str(problem), problem.said.as_json()
            raise
    with db.writing(session):
        revision = session.get_one(Revision, revision_id, with_for_update=True)
        if revision.state == "waiting":
            revision.state, revision.backup, revision.fault = "running", backup, None
            revision.fault_parts = None


def _end(session: Session, revision_id: int, *, now: datetime) -> None:
    with db.writing(session):
        revision = session.get_one(Revision, revision_id, with_for_update=True)
        if revision.state == "done":
            return
        revision.state, revision.known_at = "done", now
        changed, removed = session.execute(
            select(func.sum(RevisionStream.changed), func.sum(RevisionStream.removed)).where(
                RevisionStream.revision_id == revision_id
            )
        ).one()
        auditing.record(
            session,
            "revision_done",
            subject=f"revision {revision_id}",
            now=now,
            by="machine",
            changed=changed or 0,
            removed=removed or 0,
        )


@dataclass(frozen=True)
class _Found:
    """What was compared, and the versions among it that are others by what is in force now."""

    recomputer: StreamRecomputer
    from_s: int | None
    to_s: int | None
    tally: Tally
    before: Versions
    after: Made


def _find(
    session: Session,
    datastream_id: int,
    from_at: datetime | None,
    to_at: datetime | None,
    *,
    assumed: Sequence[Assumed] = (),
) -> _Found:
    recomputer = StreamRecomputer(session, datastream_id, assumed=assumed)
    lineage_ids = {
        key: lineage_id for lineage_id, key in observing.stored_lineages(session).items()
    }
    from_s, to_s = _seconds(from_at), _seconds(to_at)
    tally = Tally()
    pieces: list[tuple[Versions, Made]] = []
    for block in recomputer.blocks(from_s=from_s, to_s=to_s):
        made = recomputer.make(block)
        ids = np.array([*(lineage_ids.get(one, -1) for one in made.lineages), -1], np.int64)
        is_other = made.differs_from(block) | (ids[made.lineage_places] != block.lineage_ids)
        places = np.flatnonzero(is_other)
        tally = tally.plus(block)
        pieces.append((block.take(places), made.take(places)))
    return _Found(recomputer, from_s, to_s, tally, *_joined(pieces))


def _joined(pieces: Sequence[tuple[Versions, Made]]) -> tuple[Versions, Made]:
    """Differences one after the other."""
    lineages: dict[observing.LineageKey, int] = {}
    lineage_places = []
    for _, made in pieces:
        at = [*(lineages.setdefault(key, len(lineages)) for key in made.lineages), -1]
        lineage_places.append(np.array(at, np.int64)[made.lineage_places])

    def before(name: str) -> NDArray[Any]:
        return np.concatenate([np.empty(0, np.int64), *(getattr(one, name) for one, _ in pieces)])

    def after(name: str) -> NDArray[Any]:
        return np.concatenate([np.empty(0, np.int16), *(getattr(one, name) for _, one in pieces)])

    return (
        Versions(
            times_s=before("times_s"),
            pack_ids=before("pack_ids"),
            values=before("values"),
            us=before("us").astype(np.float32),
            flags=before("flags").astype(np.int16),
            tests=before("tests").astype(np.int32),
            lineage_ids=before("lineage_ids"),
            known_s=before("known_s"),
        ),
        Made(
            values=after("values"),
            us=after("us"),
            flags=after("flags"),
            tests=after("tests"),
            lineage_places=np.concatenate([np.empty(0, np.int64), *lineage_places]),
            lineages=tuple(lineages),
        ),
    )


def _change_of(datastream_id: int, compared: int, before: Versions, after: Made) -> Change:
    is_made = after.is_made
    new = np.where(is_made, after.values, np.nan)
    is_other = ~((before.values == new) | (np.isnan(before.values) & np.isnan(new)))
    steps = np.abs(new - before.values)[is_other]
    steps = steps[~np.isnan(steps)]
    return Change(
        datastream_id=datastream_id,
        compared=compared,
        changed=int(is_made.sum()),
        removed=int((~is_made).sum()),
        largest=float(steps.max()) if steps.size else None,
        mean=float((new - before.values)[~np.isnan(new - before.values) & is_other].mean())
        if steps.size
        else None,
        flags_changed=int((is_made & (after.flags != before.flags)).sum()),
        times_s=before.times_s[is_other],
        before=before.values[is_other],
        after=new[is_other],
    )


def _switch(session: Session, revision: Revision, datastream_id: int, *, now: datetime) -> bool:
    """Compare a datastream, then put the new versions in place of the old in one transaction. False: it changed meanwhile."""
    found = _find(session, datastream_id, revision.from_at, revision.to_at)
    with db.writing(session):
        # One at a time for each datastream; ingest only ever adds.
        session.execute(
            select(Datastream.id).where(Datastream.id == datastream_id).with_for_update()
        )
        stream = session.get_one(
            RevisionStream, (revision.id, datastream_id), populate_existing=True
        )
        if stream.switched_at is not None:
            return True
        if found.recomputer.tally(from_s=found.from_s, to_s=found.to_s) != found.tally:
            return False
        if len(found.before):
            replace_versions(
                session, revision.id, datastream_id, found.before, found.after, now=now
            )
            first_at = datetime.fromtimestamp(int(found.before.times_s[0]), UTC)
            judged_streams.set_back(session, datastream_id, first_at)
            _tell_who_waits(session, revision.id, datastream_id, found.before.times_s)
        change = _change_of(datastream_id, found.tally.count, found.before, found.after)
        stream.switched_at, stream.compared = now, found.tally.count
        stream.changed, stream.removed = change.changed, change.removed
        stream.largest_change = change.largest
    return True


def _tell_who_waits(
    session: Session, revision_id: int, datastream_id: int, times_s: NDArray[np.int64]
) -> None:
    """Revisions that come to this datastream later will find these values made already."""
    waiting = session.execute(
        select(Revision.id, Revision.from_at, Revision.to_at)
        .join(RevisionStream, RevisionStream.revision_id == Revision.id)
        .where(
            RevisionStream.datastream_id == datastream_id,
            RevisionStream.switched_at.is_(None),
            Revision.id != revision_id,
        )
    ).all()
    for other_id, from_at, to_at in waiting:
        is_within = np.ones(len(times_s), np.bool_)
        if from_at is not None:
            is_within &= times_s >= from_at.timestamp()
        if to_at is not None:
            is_within &= times_s < to_at.timestamp()
        if count := int(is_within.sum()):
            session.add(MadeEarlier(revision_id=other_id, datastream_id=datastream_id, by_id=revision_id, changed=count))  # fmt: skip


def replace_versions(
    session: Session,
    revision_id: int,
    datastream_id: int,
    before: Versions,
    after: Made,
    *,
    now: datetime,
) -> None:
    """Put versions in place of others, which go to the history. Part of the caller's transaction, which holds the datastream's row."""
    # What is known by this second already was perhaps seen: the new is known from the next one on.
    known_s = aggregated_streams.mark_changed(
        session,
        datastream_id,
        int(before.times_s[0]),
        int(before.times_s[-1]),
        known_s=max(int(now.timestamp()), int(before.known_s.max()) + 1),
    )
    length = len(before)
    bulk.insert_columns(
        session,
        _table(ObservationHistory),
        {
            "datastream_id": np.full(length, datastream_id, np.int64),
            "sampled_at": before.times_s,
            "known_from": before.known_s,
            "value": before.values,
            "u": before.us,
            "flag": before.flags,
            "tests": before.tests,
            "lineage_id": before.lineage_ids,
            "pack_id": before.pack_ids,
            "known_to": np.full(length, known_s, np.int64),
            "revision_id": np.full(length, revision_id, np.int64),
        },
    )
    made = np.flatnonzero(after.is_made)
    if made.size:
        lineage_ids = observing.lineage_ids_of(session, after.lineages)
        ids = np.array([lineage_ids[one] for one in after.lineages], np.int64)
        bulk.update_columns(
            session,
            _table(Observation),
            {
                "datastream_id": np.full(made.size, datastream_id, np.int64),
                "sampled_at": before.times_s[made],
                "value": after.values[made],
                "u": after.us[made],
                "flag": after.flags[made],
                "tests": after.tests[made],
                "lineage_id": ids[after.lineage_places[made]],
                "known_from": np.full(made.size, known_s, np.int64),
            },
            key=("datastream_id", "sampled_at"),
        )
    removed_s = before.times_s[~after.is_made]
    if removed_s.size:
        remove_observations(session, datastream_id, removed_s)


def remove_observations(session: Session, datastream_id: int, times_s: NDArray[np.int64]) -> None:
    """Values that nothing makes any more, and their counts. Part of the caller's transaction, which wrote their history."""
    for some in bulk.chunks(times_s.tolist(), _QUERY_KEYS):
        keys = [(datastream_id, datetime.fromtimestamp(one, UTC)) for one in some]
        session.execute(
            delete(Observation)
            .where(tuple_(Observation.datastream_id, Observation.sampled_at).in_(keys))
            .execution_options(synchronize_session=False)
        )
    months, counts = np.unique(
        np.array([observing.month_of(one) for one in times_s.tolist()]), return_counts=True
    )
    for month, count in zip(months.tolist(), counts.tolist(), strict=True):
        session.execute(
            update(ObservationCount)
            .where(ObservationCount.datastream_id == datastream_id, ObservationCount.month == month)
            .values(count=ObservationCount.count - count)
        )


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


def _table(model: type[Any]) -> Table:
    table: Table = model.__table__
    return table

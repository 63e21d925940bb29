"""Flags that people give: with author and reason, they win over every test, hold for what comes late too, and are never deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Invalid, NotFound, Refused
from fleet_server.measurement import quality
from fleet_server.measurement.quality import QualityTest, Result
from fleet_server.measurement.reasons import Reason
from fleet_server.models import Datastream, Observation, PersonFlag, Site
from fleet_server.models.observation import observation_key
from fleet_server.services import (
    auditing,
    judging,
    keyset,
    person_flags,
    quality_rules,
    site_list,
)
from fleet_server.services.recomputing import StreamRecomputer

LARGEST_RANGE = 400_000
"""Values of one flag: more than ten years of a quarter-hourly series."""
LONGEST_REASON = 500
"""Characters."""
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2068, 1, 1, tzinfo=UTC)
_BY_ID = keyset.Sorting((PersonFlag.id,), (int,), is_descending=True)  # type: ignore[arg-type] # a column of a class
_MOST_IDS = 1 << 53
_LEVEL = "calibrated"
"""What persons speak of: means and what follows from values are made of these, and what others measured is withdrawn with its import."""
FLAGS = {"good": 1, "suspect": 3, "bad": 4}


class FlagWrong(Invalid):
    """A flag cannot be like this."""

    code = "flag_wrong"


class RangeTooLarge(Refused):
    """A flag would be on more values than one is meant for."""

    code = "flag_range_too_large"


@dataclass(frozen=True)
class Flagged:
    """A flag that was given: on how many values, and how many of them have another flag now."""

    id: int
    values: int
    changed: int


def find_datastream(
    session: Session, site_code: str, observed_property: str, depth_cm: int | None
) -> Datastream:
    """The values of a property at a site; `depth_cm` None where there is only one depth.

    Raises:
        NotFound: there are none.
        FlagWrong: there are several depths, and nothing says which.
    """
    query = (
        select(Datastream)
        .join(Site, Site.id == Datastream.site_id)
        .where(
            Site.code == site_code,
            Datastream.property == observed_property,
            Datastream.level == _LEVEL,
        )
        .order_by(Datastream.depth_cm)
    )
    if depth_cm is not None:
        query = query.where(Datastream.depth_cm == depth_cm)
    found = session.scalars(query).all()
    if not found:
        raise NotFound(
            "There are no values of %(property)s at %(site)s; look at `fleet site list`.",
            property=observed_property,
            site=site_code,
        )
    if len(found) > 1:
        raise FlagWrong(
            "%(property)s at %(site)s is measured at %(depths)s cm; say at which depth.",
            property=observed_property,
            site=site_code,
            depths=", ".join(str(one.depth_cm) for one in found),
        )
    return found[0]


def give_flag(
    session: Session,
    datastream_id: int,
    *,
    from_at: datetime,
    to_at: datetime,
    flag: int | None,
    reason: str,
    author: str,
    now: datetime,
) -> Flagged:
    """Flag all values sampled from `from_at` to before `to_at`; None takes back what persons said of them. Committed on return.

    A value whose flag becomes another one gets a new version; the one before is kept. Readings without value stay as they are.

    Raises:
        NotFound: no node measures values of this number.
        FlagWrong: the range is empty, the flag none, or nothing says why.
        RangeTooLarge: it is more than one flag is meant for.
    """
    _check_time(from_at)
    _check_time(to_at)
    if int(to_at.timestamp()) <= int(from_at.timestamp()):  # to the second, as it is kept
        raise FlagWrong("A range ends after it begins.")
    if flag is not None and flag not in FLAGS.values():
        raise FlagWrong("A person says good, suspect or bad.")
    if not reason.strip():
        raise FlagWrong("Say why; it is kept with the flag.")
    if len(reason.strip()) > LONGEST_REASON:
        raise FlagWrong("Say why, in at most %(most)s characters.", most=LONGEST_REASON)
    with db.writing(session):
        level = session.scalar(
            select(Datastream.level).where(Datastream.id == datastream_id).with_for_update()
        )
        if level != _LEVEL:
            raise _no_series(datastream_id)
        count = session.scalar(
            select(func.count())
            .select_from(Observation)
            .where(
                Observation.datastream_id == datastream_id,
                Observation.sampled_at >= from_at,
                Observation.sampled_at < to_at,
            )
        )
        if (count or 0) > LARGEST_RANGE:
            raise RangeTooLarge(
                "These are %(count)s values; one flag is for %(most)s at most: take a shorter time.",
                count=count,
                most=LARGEST_RANGE,
            )
        made = PersonFlag(
            datastream_id=datastream_id,
            from_at=from_at,
            to_at=to_at,
            flag=flag,
            reason=reason.strip(),
            author=author,
            created_at=now,
        )
        session.add(made)
        session.flush()
        changed = _put(session, made, now=now)
        auditing.record(
            session,
            "values_flagged",
            subject=f"flag {made.id}",
            now=now,
            datastream=datastream_id,
            flag=flag,
            reason=made.reason,
            values=count,
        )
        return Flagged(made.id, count or 0, changed)


def flags_of(session: Session, datastream_id: int) -> Sequence[PersonFlag]:
    """All that persons ever said of a datastream's values, the last word first."""
    return session.scalars(
        select(PersonFlag)
        .where(PersonFlag.datastream_id == datastream_id)
        .order_by(PersonFlag.id.desc())
    ).all()


def flag_page(
    session: Session, datastream_id: int, *, limit: int, after: keyset.Key | None
) -> keyset.Page[PersonFlag]:
    """The same by pages."""
    return keyset.page_of(
        session,
        select(PersonFlag).where(PersonFlag.datastream_id == datastream_id),
        _BY_ID,
        limit=limit,
        after=after,
        made=lambda row: row[0],
    )


def flag_with_id(session: Session, flag_id: int) -> PersonFlag:
    """One that is the actor's business. Raises NotFound."""
    found = session.get(PersonFlag, flag_id)
    nobody = NotFound("There is no flag %(flag_id)s.", flag_id=flag_id)
    if found is None:
        raise nobody
    code = session.scalar(
        select(Site.code)
        .join(Datastream, Datastream.site_id == Site.id)
        .where(Datastream.id == found.datastream_id)
    )
    try:
        site_list.site_with_code(session, code or "")
    except NotFound as problem:
        raise nobody from problem
    return found


@dataclass(frozen=True)
class Verdict:
    """Why a value has its flag: what tests said with their numbers, those whose numbers are gone, and a person's word."""

    observation: Observation
    reasons: Sequence[Reason]
    others: Sequence[QualityTest]
    person: PersonFlag | None


def why(session: Session, datastream: Datastream, sampled_at: datetime) -> Verdict:
    """Look at one value's tests again.

    Raises:
        NotFound: nothing was sampled there at that time.
    """
    _check_time(sampled_at)
    found = session.get(Observation, (datastream.id, sampled_at))
    if found is None:
        raise NotFound(
            "Nothing was sampled there at %(time)s; look at the times in the feed.",
            time=sampled_at,
        )
    speaking = {
        test
        for test in QualityTest
        if quality.result_of(found.tests, test) >= Result.SUSPECT and found.value is not None
    }
    in_force = quality_rules.rules_in_force(session, datastream)
    reasons: list[Reason] = []
    if in_force is not None and speaking:
        judge = judging.StreamJudge(session, datastream, in_force.rules)
        reasons = [one for one in judge.explain(sampled_at) if one.test in speaking]
    person = None
    if QualityTest.PERSON in speaking or quality.result_of(found.tests, QualityTest.PERSON):
        person = next(
            (
                one
                for one in flags_of(session, datastream.id)
                if one.from_at <= sampled_at < one.to_at
            ),
            None,
        )
    told = {one.test for one in reasons} | {QualityTest.PERSON}
    return Verdict(found, reasons, sorted(speaking - told), person)


def why_id(session: Session, observation_id: int) -> tuple[Datastream, Verdict]:
    """The same of an observation by its public id, if its site is the actor's business. Raises NotFound."""
    nobody = NotFound("There is no observation %(number)s.", number=observation_id)
    datastream_id, sampled_at = observation_key(min(observation_id, _MOST_IDS))
    stream = session.get(Datastream, datastream_id)
    if stream is None:
        raise nobody
    try:
        site_list.site_with_code(session, session.get_one(Site, stream.site_id).code)
        return stream, why(session, stream, sampled_at)
    except NotFound as problem:
        raise nobody from problem


def series_with_id(session: Session, datastream_id: int) -> Datastream:
    """Values that nodes measure at a site that is the actor's business. Raises NotFound."""
    stream = session.get(Datastream, datastream_id)
    if stream is None or stream.level != _LEVEL:
        raise _no_series(datastream_id)
    try:
        site_list.site_with_code(session, site_of(session, stream).code)
    except NotFound as problem:
        raise _no_series(datastream_id) from problem
    return stream


def site_of(session: Session, datastream: Datastream) -> Site:
    """Where it is measured."""
    return session.get_one(Site, datastream.site_id)


def flagged_values(session: Session, datastream: Datastream, *, limit: int) -> list[Verdict]:
    """The latest values that are suspect or bad, newest first, each with why."""
    times = session.scalars(
        select(Observation.sampled_at)
        .where(
            Observation.datastream_id == datastream.id,
            Observation.flag.in_((FLAGS["suspect"], FLAGS["bad"])),
            Observation.value.is_not(None),
        )
        .order_by(Observation.sampled_at.desc())
        .limit(limit)
    ).all()
    return [why(session, datastream, at) for at in times]


def _no_series(datastream_id: int) -> NotFound:
    return NotFound("There are no values with the number %(number)s.", number=datastream_id)


def _check_time(at: datetime) -> None:
    if not _EARLIEST <= at < _LATEST:
        raise FlagWrong("A value's time lies between 2000 and 2068.")


def _put(session: Session, made: PersonFlag, *, now: datetime) -> int:
    """Write it on the values that are there. Returns how many of them have another flag now."""
    said = person_flags.PersonFlags(session, made.datastream_id)
    recomputer = StreamRecomputer(session, made.datastream_id)
    changed = 0
    for block in recomputer.blocks(
        from_s=int(made.from_at.timestamp()), to_s=int(made.to_at.timestamp())
    ):
        tests = said.put_into(block.tests, block.times_s)
        flags, tests = quality.merged(block.values, block.flags, tests, tests)
        changed += int((flags != block.flags).sum())
        judging.write_results(
            session,
            made.datastream_id,
            block,
            flags,
            tests,
            reason=made.reason,
            author=made.author,
            now=now,
        )
    return changed

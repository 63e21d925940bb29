"""Filled tests of versions that were replaced, made again from what was known when they were. Times are integer seconds UTC.

A version does not say when its tests were filled. Tried is what was known, and which limits held, just before it was replaced and when it
began; what fits neither had other values beside it at the time between, and is kept without a proof. That is said, and is no fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.models import Datastream, ObservationHistory
from fleet_server.services import judging, quality_rules
from fleet_server.services.verification.report import Report

GROUPS_MOST = 200
"""Versions that were replaced together are proved together; so many of these, the newest."""


@dataclass(frozen=True)
class _Group:
    """Versions of one datastream that one revision replaced."""

    datastream_id: int
    ended_s: int
    times_s: NDArray[np.int64]
    began_s: NDArray[np.int64]
    tests: NDArray[np.int32]


def check_judged_then(session: Session, report: Report) -> None:
    """Count the replaced versions with filled tests that are proved, and say how many are not, and why."""
    total = proved = tried = 0
    for group in _groups(session):
        total += len(group.times_s)
        if group.tests.size:
            tried += len(group.times_s)
            proved += _proved(session, group)
    if not total:
        return
    report.tests_proved, report.tests_kept = proved, total - proved
    sentence = f"Filled tests of replaced versions: {proved} of {total} were proved."
    if tried > proved:
        sentence += f" {tried - proved} were not: what lay beside them, or their limits, became other ones before they were replaced."
    if total > tried:
        sentence += f" {total - tried} older ones were not tried."
    report.notes.append(sentence)


def _proved(session: Session, group: _Group) -> int:
    """How many of them have the tests that what was known then gives."""
    stream = session.get_one(Datastream, group.datastream_id)
    is_proved = np.zeros(group.times_s.size, np.bool_)
    before_s = group.ended_s - 1
    first_s = int(group.began_s.min())
    # (what is known, which limits hold); a judge writes what it began, and fills what was there.
    for known_s, limits_s in ((before_s, before_s), (before_s, first_s), (first_s, first_s)):
        if is_proved.all():
            break
        limits = quality_rules.rules_in_force(session, stream, at=_moment(limits_s))
        if limits is None:
            continue
        judge = judging.StreamJudge(session, stream, limits.rules, known_at=_moment(known_s))
        made = judge.filled_tests(group.times_s)
        is_proved |= made == judge.filled_part(group.tests)
    return int(is_proved.sum())


def _groups(session: Session) -> Iterator[_Group]:
    """The newest with their versions; of the others only how many these are (no tests)."""
    has_filled = ObservationHistory.tests.op("&")(judging.FILLED_BITS) != 0
    rows = session.execute(
        select(
            ObservationHistory.datastream_id,
            ObservationHistory.known_to,
            func.count(),
        )
        .where(has_filled, ObservationHistory.value.is_not(None))
        .group_by(ObservationHistory.datastream_id, ObservationHistory.known_to)
        .order_by(ObservationHistory.known_to.desc(), ObservationHistory.datastream_id)
    ).all()
    for place, (datastream_id, known_to, count) in enumerate(rows):
        if place >= GROUPS_MOST:
            nothing = np.empty(0, np.int64)
            yield _Group(
                datastream_id, 0, np.zeros(count, np.int64), nothing, nothing.astype(np.int32)
            )
            continue
        versions = session.execute(
            select(
                ObservationHistory.sampled_at,
                ObservationHistory.known_from,
                ObservationHistory.tests,
            )
            .where(
                ObservationHistory.datastream_id == datastream_id,
                ObservationHistory.known_to == known_to,
                has_filled,
                ObservationHistory.value.is_not(None),
            )
            .order_by(ObservationHistory.sampled_at)
        ).all()
        yield _Group(
            datastream_id,
            int(known_to.timestamp()),
            np.array([int(row.sampled_at.timestamp()) for row in versions], np.int64),
            np.array([int(row.known_from.timestamp()) for row in versions], np.int64),
            np.array([row.tests for row in versions], np.int32),
        )


def _moment(utc_s: int) -> datetime:
    return datetime.fromtimestamp(utc_s, UTC)

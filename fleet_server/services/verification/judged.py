"""Tests that were filled in later, made again from the values beside. Times are integer seconds UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from fleet_server.measurement import quality
from fleet_server.models import Datastream, JudgedStream, Observation, PersonFlag
from fleet_server.services import judged_streams, judging, person_flags, quality_rules
from fleet_server.services.recomputing import StreamRecomputer
from fleet_server.services.verification.report import Report

_SENTENCES_MAX = 20


def reached_of(session: Session) -> dict[int, int]:
    """How far each datastream was ever judged. One statement."""
    rows = session.execute(select(JudgedStream.datastream_id, JudgedStream.reached))
    return {datastream_id: int(reached.timestamp()) for datastream_id, reached in rows}


def check_judged(session: Session, report: Report) -> None:
    """Judge again what is judged, and say where flag or tests are others. What waits to be judged again is left out."""
    for judged in session.scalars(select(JudgedStream).order_by(JudgedStream.datastream_id)).all():
        until_s = _until(session, judged)
        stream = session.get_one(Datastream, judged.datastream_id)
        in_force = quality_rules.rules_in_force(session, stream)
        if until_s is None or in_force is None:
            continue
        count = 0
        judge = judging.StreamJudge(session, stream, in_force.rules)
        unseen_s = judge.first_unseen(until_s)
        if unseen_s is not None:
            until_s = min(until_s, unseen_s - int(judged_streams.BESIDE.total_seconds()))
        for piece in judge.pieces(after_s=None, until_s=until_s):
            is_other = (piece.tests != piece.rows.tests) | (piece.flags != piece.rows.flags)
            for place in np.flatnonzero(is_other).tolist():
                count += 1
                if count <= _SENTENCES_MAX:
                    at = datetime.fromtimestamp(int(piece.rows.times_s[place]), UTC)
                    report.find(
                        "observations_not_reproducible",
                        f"The tests of datastream {stream.id} at {at:%F %T} say something else.",
                    )
        if count > _SENTENCES_MAX:
            report.find(
                "observations_not_reproducible",
                f"Those of {count - _SENTENCES_MAX} further values of datastream {stream.id}, too.",
                count=count - _SENTENCES_MAX,
            )


def check_persons(session: Session, report: Report) -> None:
    """Whether just those values have a person's flag that a person gave one."""
    has_bits = Observation.tests.op("&")(person_flags.BITS) != 0
    for datastream_id in session.scalars(
        select(Datastream.id).where(
            or_(
                Datastream.id.in_(select(PersonFlag.datastream_id)),
                exists().where(Observation.datastream_id == Datastream.id, has_bits),
            )
        )
    ).all():
        said = person_flags.PersonFlags(session, datastream_id)
        for block in StreamRecomputer(session, datastream_id).blocks():
            # What was stored after the flag was given gets it when it is judged.
            is_judged = (block.tests & np.int32(quality.FILLED_BITS)) != 0
            is_other = said.put_into(block.tests, block.times_s) != block.tests
            for place in np.flatnonzero(is_other & is_judged & ~np.isnan(block.values)).tolist():
                at = datetime.fromtimestamp(int(block.times_s[place]), UTC)
                report.find(
                    "observations_not_reproducible",
                    f"The flag of datastream {datastream_id} at {at:%F %T} is not what persons said.",
                )


def _until(session: Session, judged: JudgedStream) -> int | None:
    if judged.judged_to is None:
        return None
    until_s = int(judged.judged_to.timestamp())
    late_s = judging.first_late(session, judged)
    if late_s is None:
        return until_s
    return min(until_s, late_s - int(judged_streams.AHEAD.total_seconds()))

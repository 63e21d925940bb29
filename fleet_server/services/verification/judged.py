"""Tests that were filled in later, made again from the values beside. Times are integer seconds UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.models import Datastream, JudgedStream
from fleet_server.services import judged_streams, judging, quality_rules
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


def _until(session: Session, judged: JudgedStream) -> int | None:
    if judged.judged_to is None:
        return None
    until_s = int(judged.judged_to.timestamp())
    late_s = judging.first_late(session, judged)
    if late_s is None:
        return until_s
    return min(until_s, late_s - int(judged_streams.AHEAD.total_seconds()))

"""What persons said of a datastream's values, as the two bits of `QualityTest.PERSON`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.measurement.quality import QualityTest, Result
from fleet_server.models import PersonFlag

_SHIFT = 2 * QualityTest.PERSON
BITS = 3 << _SHIFT
_RESULTS = {None: Result.NOT_EVALUATED, 1: Result.GOOD, 3: Result.SUSPECT, 4: Result.BAD}


class PersonFlags:
    """All of one datastream, as they are when it is made."""

    def __init__(self, session: Session, datastream_id: int) -> None:
        rows = session.execute(
            select(PersonFlag.from_at, PersonFlag.to_at, PersonFlag.flag)
            .where(PersonFlag.datastream_id == datastream_id)
            .order_by(PersonFlag.id)
        )
        self._ranges = [
            (int(from_at.timestamp()), int(to_at.timestamp()), _RESULTS[flag])
            for from_at, to_at, flag in rows
        ]

    def put_into(self, tests: NDArray[np.int32], times_s: NDArray[np.int64]) -> NDArray[np.int32]:
        """These tests with what persons said of these times, and nothing that they did not say."""
        said = tests & np.int32(~BITS)
        for from_s, to_s, result in self._ranges:
            within = (times_s >= from_s) & (times_s < to_s)
            said[within] = (said[within] & np.int32(~BITS)) | np.int32(result << _SHIFT)
        return said


def streams_with_flags(session: Session) -> set[int]:
    """Datastreams of which a person ever said something."""
    return set(session.scalars(select(PersonFlag.datastream_id).distinct()))

"""A calibrated reading: value, standard uncertainty, quality flag, lineage, since when it is known. Current version only.

Its public id is not stored: `datastream · 2³¹ + seconds since 2000-01-01` is below 2⁵³ and survives corrections.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import REAL, BigInteger, CheckConstraint, Double, ForeignKey, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import ONCE_A_STATEMENT, Base, Moment, Small

ID_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_ID_SPAN = 1 << 31


class Observation(Base):
    """One per raw reading of a deployed channel with a known time, failed ones too.

    `value` is None when the reading failed; `tests` holds 2 bits for each of 16 tests (not evaluated, good, suspect, bad) as a
    signed 32-bit number. `pack_id` leads back to the raw reading; None where no node measured it.
    """

    __tablename__ = "observation"
    __table_args__ = (
        Index("ix_observation_sampled_at_datastream_id", "sampled_at", "datastream_id"),
        CheckConstraint("flag IN (1, 2, 3, 4, 9)", name="flag"),
        {"sqlite_with_rowid": False},
    )

    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id", info=ONCE_A_STATEMENT), primary_key=True, autoincrement=False
    )
    sampled_at: Mapped[Moment] = mapped_column(primary_key=True)
    value: Mapped[float | None] = mapped_column(Double)
    u: Mapped[float | None] = mapped_column(REAL)  # standard uncertainty, in single precision
    flag: Mapped[Small]
    tests: Mapped[int] = mapped_column(Integer)
    lineage_id: Mapped[int] = mapped_column(ForeignKey("lineage.id", info=ONCE_A_STATEMENT))
    known_from: Mapped[Moment]
    pack_id: Mapped[int | None] = mapped_column(BigInteger)


def observation_id(datastream_id: int, sampled_at: datetime) -> int:
    """The public id (`@iot.id`) of an observation.

    >>> observation_id(1, datetime(2000, 1, 1, 0, 0, 5, tzinfo=UTC))
    2147483653

    Raises:
        ValueError: the time is before 2000 or after January 2068.
    """
    seconds = int((sampled_at - ID_EPOCH).total_seconds())
    if not 0 <= seconds < _ID_SPAN:
        raise ValueError("an observation's time lies between 2000-01-01 and 2068-01-19")
    return datastream_id * _ID_SPAN + seconds


def observation_key(public_id: int) -> tuple[int, datetime]:
    """Datastream and sampling time that a public id stands for.

    >>> observation_key(2147483653)
    (1, datetime.datetime(2000, 1, 1, 0, 0, 5, tzinfo=datetime.timezone.utc))
    """
    datastream_id, seconds = divmod(public_id, _ID_SPAN)
    return datastream_id, ID_EPOCH + timedelta(seconds=seconds)

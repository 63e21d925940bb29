"""Drift corrections that hold within the time of a calibration which comes or goes: each stays or is withdrawn, as somebody says.

What a visit read in a standard was read by the calibration of then. By another one the same reading is another number, and nothing here
guesses which: so no calibration changes under a correction that nobody has looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import Conflict, Invalid, listed
from fleet_server.models import Calibration, CorrectionStatus, DriftCorrection, Sensor
from fleet_server.services import auditing, revising, rights, thinning

REVISION_REASON = "drift correction {} of {} was {}"
"""Why values are made anew: number, serial number, `approved` or `withdrawn`."""

WITHDRAWAL_REASON = "calibration {} was {}"
"""Why a drift correction was withdrawn: the calibration's number, `approved` or `withdrawn`."""


class Verdict(StrEnum):
    """What becomes of a drift correction when the calibration under it changes."""

    KEEP = "keep"
    WITHDRAW = "withdraw"


class CorrectionsHold(Conflict):
    """Drift corrections hold within a calibration's time, and nobody said what becomes of them."""

    code = "corrections_hold"


class NotHeld(Invalid):
    """Something is said of a drift correction that does not hold there."""

    code = "correction_not_held"


def holding_within(
    session: Session,
    calibration: Calibration,
    *,
    valid_from: datetime | None = None,
) -> list[DriftCorrection]:
    """Approved drift corrections of the same probe's property that share time with this calibration, oldest first. One statement.

    Args:
        valid_from: as if it held from then on.
    """
    query = select(DriftCorrection).where(
        DriftCorrection.sensor_id == calibration.sensor_id,
        DriftCorrection.property == calibration.property,
        DriftCorrection.status == CorrectionStatus.APPROVED,
        DriftCorrection.to_at > (valid_from or calibration.valid_from),
    )
    if calibration.valid_to is not None:
        query = query.where(DriftCorrection.from_at < calibration.valid_to)
    return list(session.scalars(query.order_by(DriftCorrection.from_at, DriftCorrection.id)))


def verdicts_of(keep: Iterable[int], withdraw: Iterable[int]) -> dict[int, Verdict]:
    """Both lists as one. Raises NotHeld for a number that stands in both."""
    kept, withdrawn = set(keep), set(withdraw)
    for number in sorted(kept & withdrawn):
        raise NotHeld(
            "Drift correction %(number)s cannot both stay and be withdrawn.", number=number
        )
    return {
        **dict.fromkeys(kept, Verdict.KEEP),
        **dict.fromkeys(withdrawn, Verdict.WITHDRAW),
    }


def settle(
    session: Session,
    calibration: Calibration,
    sensor: Sensor,
    verdicts: Mapping[int, Verdict],
    *,
    what: str,
    now: datetime,
) -> dict[str, str]:
    """Do to each drift correction within this calibration's time what was said of it. Part of the caller's transaction.

    Args:
        verdicts: by the corrections' numbers.
        what: has become of the calibration, `approved` or `withdrawn`.

    Returns:
        What the audit log is told: which were kept, which withdrawn.

    Raises:
        CorrectionsHold: of one nothing was said.
        NotHeld: something was said of another.
        Conflict: of a day of one's time only extremes are known.
    """
    holding = {one.id: one for one in holding_within(session, calibration)}
    unsaid = sorted(holding.keys() - verdicts.keys())
    if unsaid:
        raise CorrectionsHold(
            "Drift correction %(numbers)s holds within its time, by readings of the calibration before: say of each whether it stays or is withdrawn.",
            numbers=listed(unsaid),
        )
    for number in sorted(verdicts.keys() - holding.keys()):
        raise NotHeld(
            "Drift correction %(number)s does not hold within the time of this calibration; look again.",
            number=number,
        )
    for number, row in holding.items():
        if verdicts[number] == Verdict.WITHDRAW:
            reason = WITHDRAWAL_REASON.format(calibration.id, what)
            withdraw_held(session, row, sensor, reason=reason, now=now)
    return {
        f"corrections_{verdict}": ", ".join(str(one) for one in sorted(verdicts) if verdicts[one] == verdict)
        for verdict in Verdict
        if verdict in verdicts.values()
    }  # fmt: skip


def withdraw_held(
    session: Session, row: DriftCorrection, sensor: Sensor, *, reason: str, now: datetime
) -> None:
    """End a correction whose probe's row the caller's transaction holds, and have made anew what it put right."""
    was_in_force = row.status == CorrectionStatus.APPROVED
    row.status, row.withdrawn_reason = CorrectionStatus.WITHDRAWN, reason
    row.withdrawn_by, row.withdrawn_at = rights.actor_of(session).name, now
    session.flush()
    if was_in_force:
        revise(session, row, sensor, "withdrawn", now=now)
    note(session, "correction_withdrawn", row, sensor, now=now, reason=reason)


def revise(
    session: Session, row: DriftCorrection, sensor: Sensor, what: str, *, now: datetime
) -> None:
    """Have made anew all that the probe's values went into between the visits. Part of the caller's transaction.

    Raises:
        Conflict: of a day between the visits only extremes are known.
    """
    streams = revising.streams_of(
        session,
        sensor_id=sensor.id,
        observed_property=row.property,
        from_at=row.from_at,
        to_at=row.to_at,
    )
    if thinning.has_ranges_from(session, streams, row.from_at):
        raise Conflict(
            "Of a day after %(since)s the node kept only extremes, which cannot be corrected.",
            since=row.from_at,
        )
    revising.order_for_streams(
        session,
        streams,
        kind="correction",
        reason=REVISION_REASON.format(row.id, sensor.serial, what),
        author=row.author,
        approver=rights.actor_of(session).name,
        from_at=row.from_at,
        to_at=row.to_at,
        now=now,
    )


def note(
    session: Session,
    action: str,
    row: DriftCorrection,
    sensor: Sensor,
    *,
    now: datetime,
    **details: str,
) -> None:
    """Put it into the audit log."""
    auditing.record(
        session,
        action,
        subject=f"drift correction {row.id}",
        now=now,
        sensor=sensor.serial,
        property=row.property,
        since=_moment(row.from_at),
        until=_moment(row.to_at),
        rating=row.rating,
        **details,
    )


def _moment(at: datetime) -> str:
    """A moment as the audit log writes it."""
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"

"""What would become of observations if a calibration's draft were approved. Reads only.

Made by the code that makes them when it is approved, with the draft taken as if it were in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.models import CalibrationStatus, Datastream, DriftCorrection, Observation, Site
from fleet_server.services import calibrating, revising, rights, settling
from fleet_server.services.calibrating import CalibrationElsewhere, CalibrationRecord
from fleet_server.services.observing import Assumed
from fleet_server.services.revising import Change

NEWEST_MAX = 20_000
"""Values of each datastream that are compared: two hundred days of quarters of an hour; a quarter of a second of work (20,000 of a tree-3, SQLite, measured)."""
_MOST_STREAMS = 8


@dataclass(frozen=True)
class StreamChange:
    """What would change in one datastream."""

    stream: Datastream
    site: Site
    change: Change


@dataclass(frozen=True)
class Rehearsal:
    """`left_out`: datastreams beside these, whose last values are older. Of each at most `newest_max` values were compared.

    `corrections`: drift corrections that hold within its time; the changes are as if each stayed.
    """

    calibration_id: int
    newest_max: int
    streams: Sequence[StreamChange]
    left_out: int
    corrections: Sequence[DriftCorrection] = ()

    @property
    def compared(self) -> int:
        return sum(one.change.compared for one in self.streams)

    @property
    def changed(self) -> int:
        return sum(one.change.changed for one in self.streams)

    @property
    def removed(self) -> int:
        return sum(one.change.removed for one in self.streams)

    @property
    def flags_changed(self) -> int:
        return sum(one.change.flags_changed for one in self.streams)

    @property
    def is_cut(self) -> bool:
        """Whether there is more than was compared."""
        return self.left_out > 0 or any(
            one.change.compared >= self.newest_max for one in self.streams
        )


def rehearse_approval(
    session: Session,
    calibration_id: int,
    *,
    looked_at: str | None = None,
    valid_from: datetime | None = None,
    newest_max: int = NEWEST_MAX,
) -> Rehearsal:
    """What would change if this draft held from `valid_from` on (by default as it says); the datastreams with the newest values.

    Whether this actor may approve it, and whether another is approved for that time, is not judged.

    Args:
        looked_at: `sha256` of the record that was looked at; it must still be so.

    Raises:
        NotFound: no such calibration.
        CalibrationElsewhere: it is no draft.
        CalibrationChanged: it is another by now.
        FitRefused: it has no fit that can be trusted, and cannot be approved.
        CalibrationWrong: it cannot begin then.
    """
    record = calibrating.record_of(session, calibration_id)
    calibrating.refuse_changed(record, looked_at)
    draft = record.calibration
    if draft.status != CalibrationStatus.DRAFT:
        raise CalibrationElsewhere(
            "Calibration %(calibration_id)s is no draft: what it changed stands with the revisions.",
            calibration_id=calibration_id,
        )
    calibrating.refuse_untrusted(record)
    begin = valid_from or draft.valid_from
    calibrating.check_times(begin, draft.valid_to)
    found = _streams(session, record, begin)
    shown = {stream.id: (stream, site) for stream, site in found[:_MOST_STREAMS]}
    changes = revising.changes(
        session,
        shown,
        from_at=begin,
        to_at=draft.valid_to,
        assumed=(Assumed(draft, begin),),
        newest_max=newest_max,
    )
    streams = [StreamChange(*shown[change.datastream_id], change) for change in changes]
    return Rehearsal(
        calibration_id,
        newest_max,
        streams,
        len(found) - len(shown),
        settling.holding_within(session, draft, valid_from=begin),
    )


def _streams(
    session: Session, record: CalibrationRecord, begin: datetime
) -> list[tuple[Datastream, Site]]:
    """Datastreams that the draft concerns and that have values, those with the newest first."""
    draft = record.calibration
    ids = revising.streams_of(
        session,
        sensor_id=draft.sensor_id,
        observed_property=draft.property,
        from_at=begin,
        to_at=draft.valid_to,
    )
    last_at = (
        select(func.max(Observation.sampled_at))
        .where(Observation.datastream_id == Datastream.id)
        .correlate(Datastream)
        .scalar_subquery()
    )
    rows = session.execute(
        select(Datastream, Site)
        .join(Site, Site.id == Datastream.site_id)
        .where(
            Datastream.id.in_(ids),
            Site.kind.in_(rights.actor_of(session).site_kinds),
            last_at >= begin,
        )
        .order_by(last_at.desc(), Datastream.id)
    )
    return [(row[0], row[1]) for row in rows]

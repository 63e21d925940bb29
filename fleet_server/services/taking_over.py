"""A check point becomes the finding of a drift correction: what another measured is the standard that the probe was compared with."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server.measurement.drift import Check
from fleet_server.models import DriftCorrection
from fleet_server.services import check_points, correcting
from fleet_server.services.correcting import CorrectionRefused, NewCorrection


def take_over(
    session: Session, public_id: int, *, from_at: datetime, note: str = "", now: datetime
) -> DriftCorrection:
    """Draft a correction from the visit at `from_at` to the check point's instant; it names the import. Committed on return.

    Args:
        public_id: of the other's observation.

    Raises:
        NotFound: there is no such check point at a site that the actor has to do with.
        CorrectionRefused: the probe has no value near it, or one that is corrected already; or the other is said to be bad.
        CorrectionWrong: as `correcting.draft_correction`.
    """
    point = check_points.check_point_of(session, public_id)
    if point.measured is None or point.given is None or point.serial is None:
        raise CorrectionRefused("There is nothing to compare: one of the two has no value.")
    if point.given_flag in check_points.USELESS:
        raise CorrectionRefused("Who measured it calls it bad; nothing is corrected by that.")
    if point.is_corrected:
        raise CorrectionRefused(
            "The probe's value there is corrected already; withdraw that correction first."
        )
    return correcting.draft_correction(
        session,
        NewCorrection(
            point.serial,
            point.observed_property,
            from_at,
            point.at,
            low=Check(standard=point.given, reading=point.measured.value),
            note=note,
            from_import_id=point.import_id,
        ),
        now=now,
    )

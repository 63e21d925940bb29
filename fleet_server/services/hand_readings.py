"""One reading that somebody took at a site with an instrument in their hand: kept as a file of one row, and read as every other.

So there is one way from what was written down to an observation, and one proof of it.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server.errors import Invalid
from fleet_server.models import ImportKind
from fleet_server.services import external_importing
from fleet_server.services.external_files import MeasurementRules, ValueColumn
from fleet_server.services.external_importing import Origin

_COLUMNS = (
    "site",
    "time",
    "property",
    "depth_cm",
    "value",
    "unit",
    "u",
    "instrument",
    "by",
    "note",
)
_RULES = MeasurementRules(
    (ValueColumn("value", u_column="u"),),
    "time",
    site="site",
    property="property",
    unit="unit",
    depth="depth_cm",
)


class ReadingWrong(Invalid):
    """The reading cannot be like this."""

    code = "reading_wrong"


@dataclass(frozen=True)
class HandReading:
    """Value and standard uncertainty as they were typed, in the unit of the instrument; `u` empty: nobody knows."""

    site_code: str
    property: str
    value: str
    unit: str
    at: datetime
    depth_cm: int | None = None
    u: str = ""
    instrument: str = ""
    source: str = ""
    note: str = ""


def take_down(session: Session, reading: HandReading, *, now: datetime) -> int:
    """Keep a reading. Committed on return; returns the number of its import.

    Raises:
        ReadingWrong: value, unit, site, depth or time cannot be; the sentence says what.
        AlreadyImported: just this was taken down already.
        ImportWrong: nobody is named who read it.
    """
    origin = Origin(
        ImportKind.HAND, reading.source, instrument=reading.instrument, note=reading.note
    )
    done = external_importing.import_measurements(session, _file(reading), _RULES, origin, now=now)
    if done.import_id is not None:
        return done.import_id
    if done.plan.wrong:
        raise ReadingWrong(done.plan.wrong[0].sentence)
    raise ReadingWrong("There is no value; write what the instrument showed.")


def _file(reading: HandReading) -> bytes:
    # Everything that was typed is part of it: the same reading by another person is another one.
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=";")
    writer.writerow(_COLUMNS)
    writer.writerow(
        (
            reading.site_code,
            f"{reading.at:%Y-%m-%dT%H:%M:%SZ}",
            reading.property,
            "" if reading.depth_cm is None else reading.depth_cm,
            reading.value.strip(),
            reading.unit.strip(),
            reading.u.strip(),
            reading.instrument,
            reading.source,
            reading.note,
        )
    )
    return text.getvalue().encode()

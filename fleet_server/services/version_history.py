"""All versions that an observation ever had: since and until when each was known, what made it, who replaced it and why. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, literal, null, select, union_all
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import (
    AggregateDetail,
    Calibration,
    Datastream,
    ExternalImport,
    ExternalValue,
    Lineage,
    Observation,
    ObservationHistory,
    Revision,
    RevisionStream,
    Sensor,
    Site,
    observation_id,
    observation_key,
)
from fleet_server.services import aggregating, observing, rights

_HIGHEST_ROW = 2**31 - 1
_SHOWN_MAX = 100
_COLUMNS = ("value", "u", "flag", "tests", "lineage_id", "pack_id", "known_from")


@dataclass(frozen=True)
class MadeBy:
    """What a version was made by: its lineage, with probe and calibrations. `inputs`: calibrations of the conversion's inputs, by name.

    Of a value that no node measured there is no probe: `given` is the row of the import that it came in.
    """

    lineage: Lineage
    sensor: Sensor | None
    calibration: Calibration | None
    inputs: Mapping[str, Calibration | None]
    given: Given | None = None


@dataclass(frozen=True)
class Given:
    """A value as it stood in what was imported, and where that came from."""

    source: ExternalImport
    value: ExternalValue


@dataclass(frozen=True)
class Version:
    """`known_to` None: it is the current one. `made_in`: the revision that made it; None: it was made when the reading came.

    `replaced_in`: the one that ended it. `detail`: of a mean, what it rests on.
    """

    number: int
    value: float | None
    u: float | None
    flag: int
    tests: int
    pack_id: int | None
    known_from: datetime
    known_to: datetime | None
    made_by: MadeBy
    made_in: Revision | None
    replaced_in: Revision | None
    detail: AggregateDetail | None = None

    @property
    def k(self) -> float:
        return self.made_by.lineage.coverage_factor

    @property
    def expanded_u(self) -> float | None:
        return None if self.u is None else self.k * self.u


@dataclass(frozen=True)
class VersionHistory:
    """Oldest version first. `waits_for`: revisions ordered for its datastream and time that have not come to it yet.

    `older`: how many versions came before these; the feed's `asOf` has each of them.
    """

    datastream: Datastream
    site: Site
    sampled_at: datetime
    versions: Sequence[Version]
    waits_for: Sequence[Revision]
    older: int = 0

    @property
    def id(self) -> int:
        return observation_id(self.datastream.id, self.sampled_at)

    @property
    def is_current(self) -> bool:
        """False when nothing makes a value of it any more."""
        return self.versions[-1].known_to is None


def history_of(session: Session, public_id: int) -> VersionHistory:
    """The versions of the observation with this public id, the newest hundred of them. At most eight statements, whatever its past.

    Raises:
        NotFound: there never was one, or its site is not the actor's business.
    """
    datastream_id, sampled_at = observation_key(public_id)
    place = _place(session, datastream_id)
    rows, older = _rows(session, datastream_id, sampled_at) if place is not None else ([], 0)
    if place is None or not rows:
        raise NotFound("There is no observation %(public_id)s.", public_id=public_id)
    made_by = _made_by(session, {row.lineage_id for row in rows})
    made_by |= _given_by(session, {row.lineage_id for row in rows}, datastream_id, sampled_at)
    replacing = {row.revision_id for row in rows if row.revision_id is not None}
    revisions = {
        one.id: one for one in session.scalars(select(Revision).where(Revision.id.in_(replacing)))
    }
    return VersionHistory(
        *place,
        sampled_at,
        tuple(
            _versions(
                rows, made_by, revisions, _details(session, place[0], sampled_at), older=older
            )
        )[-_SHOWN_MAX:],
        _waiting(session, datastream_id, sampled_at),
        max(0, older + len(rows) - _SHOWN_MAX),
    )


def _place(session: Session, datastream_id: int) -> tuple[Datastream, Site] | None:
    if not 0 < datastream_id <= _HIGHEST_ROW:
        return None
    found = session.execute(
        select(Datastream, Site)
        .join(Site, Site.id == Datastream.site_id)
        .where(Datastream.id == datastream_id, Site.kind.in_(rights.actor_of(session).site_kinds))
    ).first()
    return None if found is None else (found[0], found[1])


def _rows(session: Session, datastream_id: int, sampled_at: datetime) -> tuple[Sequence[Any], int]:
    """Its newest versions, oldest first, one more than are shown: that one says who made the first of them; and how many are before."""

    def of(model: Any, *further: Any) -> Any:
        return select(*(getattr(model, name) for name in _COLUMNS), *further).where(
            model.datastream_id == datastream_id, model.sampled_at == sampled_at
        )

    moment = ObservationHistory.known_to.type
    both = union_all(
        of(ObservationHistory, ObservationHistory.known_to, ObservationHistory.revision_id),
        of(Observation, literal(None, moment).label("known_to"), null().label("revision_id")),
    ).subquery()
    newest = select(both).order_by(both.c.known_from.desc()).limit(_SHOWN_MAX + 1)
    rows = session.execute(newest).all()[::-1]
    if len(rows) <= _SHOWN_MAX:
        return rows, 0
    count = session.scalar(select(func.count()).select_from(both)) or 0
    return rows, count - len(rows)


def _versions(
    rows: Sequence[Any],
    made_by: Mapping[int, MadeBy],
    revisions: Mapping[int, Revision],
    details: Mapping[datetime, AggregateDetail],
    *,
    older: int,
) -> Iterable[Version]:
    before: Version | None = None
    for number, row in enumerate(rows, start=older + 1):
        follows = before is not None and before.known_to == row.known_from
        version = Version(
            number=number,
            value=row.value,
            u=row.u,
            flag=row.flag,
            tests=row.tests,
            pack_id=row.pack_id,
            known_from=row.known_from,
            known_to=row.known_to,
            made_by=made_by[row.lineage_id],
            made_in=before.replaced_in if before is not None and follows else None,
            replaced_in=revisions.get(row.revision_id),
            detail=details.get(row.known_from),
        )
        yield version
        before = version


def _details(
    session: Session, datastream: Datastream, sampled_at: datetime
) -> dict[datetime, AggregateDetail]:
    """Of a mean, what belongs to each version of it, by since when it is known; no statement for anything else."""
    if datastream.level not in aggregating.LEVELS:
        return {}
    rows = session.scalars(
        select(AggregateDetail)
        .where(
            AggregateDetail.datastream_id == datastream.id,
            AggregateDetail.sampled_at == sampled_at,
        )
        .order_by(AggregateDetail.known_from.desc())
        .limit(_SHOWN_MAX + 1)
    )
    return {row.known_from: row for row in rows}


def _made_by(session: Session, lineage_ids: set[int]) -> dict[int, MadeBy]:
    rows = session.execute(
        select(Lineage, Sensor, Calibration)
        .join(Sensor, Sensor.id == Lineage.sensor_id)
        .join(Calibration, Calibration.id == Lineage.calibration_id)
        .where(Lineage.id.in_(lineage_ids))
    ).all()
    named = {row[0].id: dict(_inputs(row[0].inputs)) for row in rows}
    wanted = {one for inputs in named.values() for one in inputs.values() if one is not None}
    known = {
        one.id: one
        for one in session.scalars(select(Calibration).where(Calibration.id.in_(wanted)))
    }
    return {
        row[0].id: MadeBy(
            row[0],
            row[1],
            row[2],
            {
                name: None if number is None else known.get(number)
                for name, number in named[row[0].id].items()
            },
        )
        for row in rows
    }


def _given_by(
    session: Session, lineage_ids: set[int], datastream_id: int, sampled_at: datetime
) -> dict[int, MadeBy]:
    """What others gave of this instant, by lineage."""
    rows = session.execute(
        select(Lineage, ExternalImport, ExternalValue)
        .join(ExternalImport, ExternalImport.id == Lineage.import_id)
        .join(ExternalValue, ExternalValue.import_id == Lineage.import_id)
        .where(
            Lineage.id.in_(lineage_ids),
            ExternalValue.datastream_id == datastream_id,
            ExternalValue.sampled_at == sampled_at,
        )
    )
    return {
        lineage.id: MadeBy(lineage, None, None, {}, Given(source, value))
        for lineage, source, value in rows
    }


def _inputs(text: str) -> Iterable[tuple[str, int | None]]:
    """`temperature=17/3,pressure=none` as names and calibrations; what put an input right stands in the lineage.

    What was stated of a site (`pressure_hpa=1001.9±10.0`) was never calibrated, and is none of them.
    """
    there = observing.named_inputs(text)
    for pair in text.split(","):
        name, _, made_by = pair.partition("=")
        if name and "±" not in made_by:
            yield name, there[name][0] if name in there else None


def _waiting(session: Session, datastream_id: int, sampled_at: datetime) -> Sequence[Revision]:
    return session.scalars(
        select(Revision)
        .join(RevisionStream, RevisionStream.revision_id == Revision.id)
        .where(
            RevisionStream.datastream_id == datastream_id,
            RevisionStream.switched_at.is_(None),
            Revision.from_at.is_(None) | (Revision.from_at <= sampled_at),
            Revision.to_at.is_(None) | (Revision.to_at > sampled_at),
        )
        .order_by(Revision.id)
    ).all()

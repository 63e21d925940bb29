"""Other people's measurements become observations: looked at first, imported whole or not at all, taken back without losing what was known.

Of an instant of an `external` datastream the newest import that is not withdrawn makes the observation. What it replaces goes to
`observation_history` in the same transaction, and is put back when it is withdrawn; nothing is ever edited (decision 0097).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Table, func, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound
from fleet_server.measurement import given_units
from fleet_server.models import (
    CorrectionStatus,
    Datastream,
    DriftCorrection,
    ExternalImport,
    ExternalValue,
    ImportKind,
    Lineage,
    Observation,
    ObservationCount,
    ObservationHistory,
    Revision,
    RevisionStream,
    Site,
)
from fleet_server.services import auditing, bulk, keyset, observing, revising, rights
from fleet_server.services.external_files import (
    READER_VERSION,
    CellWrong,
    GivenValue,
    MeasurementRules,
    ReadFile,
    WrongCell,
    read_measurements,
)
from fleet_server.services.sites import KIND_WORDS

LEVEL = "external"
COVERAGE_FACTOR = 2.0
_BY_ID = keyset.Sorting((ExternalImport.__table__.c.id,), (int,), is_descending=True)
_LONGEST_WORD, _LONGEST_NOTE = 200, 500
_HIGHEST_NUMBER = 2**31 - 1
_WRONG_MAX = 200
_AT_ONCE = 500


class ImportWrong(Invalid):
    """An import cannot be like this."""

    code = "import_wrong"


class AlreadyImported(Conflict):
    """The same bytes, read in the same way, are there already."""

    code = "already_imported"


class ImportElsewhere(Conflict):
    """The import is withdrawn already, or something that holds stands on it."""

    code = "import_elsewhere"


@dataclass(frozen=True)
class Origin:
    """Where values come from. `source`: the person, laboratory or system that measured; `report_number`: of its report or certificate."""

    kind: ImportKind
    source: str
    method: str = ""
    instrument: str = ""
    report_number: str = ""
    note: str = ""
    file_name: str = ""


@dataclass
class ImportPlan:
    """What an import would do, or did.

    `new`: values of instants without one; `replacing`: of instants that have one. `without_u`: nobody said how sure they are; `limits`:
    known only to lie below or above a limit. `wrong_count` cells are wrong, of which `wrong` are the first: then nothing is imported.
    """

    new: int = 0
    replacing: int = 0
    empty: int = 0
    without_u: int = 0
    limits: int = 0
    backwards: int = 0
    encoding: str = "UTF-8"
    streams: Mapping[str, int] = field(default_factory=dict)
    wrong: Sequence[WrongCell] = ()
    wrong_count: int = 0

    @property
    def values_count(self) -> int:
        return self.new + self.replacing


@dataclass(frozen=True)
class Imported:
    """`import_id` None: something was wrong, and nothing was imported."""

    plan: ImportPlan
    import_id: int | None


Place = tuple[int, str, int]
"""site id, property, depth in cm"""


@dataclass
class _Placed:
    """Values by where they belong, and what is wrong with the file."""

    values: dict[Place, list[GivenValue]]
    wrong: list[WrongCell]
    read: ReadFile
    codes: dict[int, str]


def plan_import(
    session: Session, data: bytes, rules: MeasurementRules, *, now: datetime
) -> ImportPlan:
    """What importing would do; nothing is written.

    Raises:
        FileWrong: it cannot be read at all, or the rules do not fit.
        AlreadyImported.
    """
    placed = _place(session, read_measurements(data, rules), now=now)
    plan = _plan(session, placed, _streams(session, placed.values))
    if not plan.wrong:
        _refuse_known(session, data, rules)
    return plan


def import_measurements(
    session: Session,
    data: bytes,
    rules: MeasurementRules,
    origin: Origin,
    *,
    now: datetime,
) -> Imported:
    """All values of a file in one transaction, or none when one is wrong. Committed on return.

    Raises:
        FileWrong, AlreadyImported: as `plan_import`.
        ImportWrong: nobody is named who measured, or a text is too long.
    """
    _check_origin(origin)
    read = read_measurements(data, rules)  # before: ingest waits as long as we write
    with db.writing(session):
        placed = _place(session, read, now=now)
        _hold(session, placed.values)
        plan = _plan(session, placed, _streams(session, placed.values))
        if plan.wrong or not plan.values_count:
            return Imported(plan, None)
        # Only now: of sites that are none of the actor's business it says nothing.
        _refuse_known(session, data, rules)
        streams = _streams(session, placed.values, make_at=now)
        row = _store(session, data, rules, origin, plan, now=now)
        _store_values(session, row.id, placed.values, streams)
        instants = {
            streams[place]: [one.sampled_s for one in values]
            for place, values in placed.values.items()
        }
        _put_in_force(session, instants, row, reason=f"import {row.id}", now=now)
        _note(session, "measurements_imported", row, now=now, values=plan.values_count)
    return Imported(plan, row.id)


def withdraw_import(
    session: Session, import_id: int, *, reason: str, now: datetime
) -> ExternalImport:
    """It was a mistake: what was there before it is there again, and what it said stays readable. Committed on return.

    Raises:
        NotFound: no such import of sites that the actor has to do with.
        ImportWrong: no reason is given.
        ImportElsewhere: it is withdrawn already, or a drift correction that holds stands on it.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= _LONGEST_NOTE:
        raise ImportWrong("Say why, in at most %(most)s characters.", most=_LONGEST_NOTE)
    import_of(session, import_id)
    with db.writing(session):
        instants = _instants_of(session, import_id)
        _hold_streams(session, instants)
        row = session.get_one(
            ExternalImport, import_id, with_for_update=True, populate_existing=True
        )
        if row.withdrawn_at is not None:
            raise ImportElsewhere("Import %(import_id)s is withdrawn already.", import_id=import_id)
        _refuse_leaned_on(session, import_id)
        row.withdrawn_by, row.withdrawn_at = rights.actor_of(session).name, now
        row.withdrawn_reason = reason
        session.flush()
        _put_in_force(session, instants, row, reason=f"import {row.id} was withdrawn", now=now)
        _note(session, "measurements_withdrawn", row, now=now, reason=reason)
    return row


def _refuse_leaned_on(session: Session, import_id: int) -> None:
    """Else a probe's values would be put right by what nobody stands by any more."""
    leaning = session.scalar(
        select(DriftCorrection.id)
        .where(
            DriftCorrection.from_import_id == import_id,
            DriftCorrection.status == CorrectionStatus.APPROVED,
        )
        .order_by(DriftCorrection.id)
        .limit(1)
    )
    if leaning is not None:
        raise ImportElsewhere(
            "Drift correction %(number)s stands on import %(import_id)s; withdraw that first.",
            number=leaning,
            import_id=import_id,
        )


def import_of(session: Session, import_id: int) -> ExternalImport:
    """One of which the actor has to do with every site. Raises NotFound."""
    row = session.get(ExternalImport, import_id) if 0 < import_id <= _HIGHEST_NUMBER else None
    if row is None or session.scalar(_foreign(session, import_id)) is not None:
        raise NotFound("There is no import %(import_id)s.", import_id=import_id)
    return row


def import_page(
    session: Session, *, limit: int, after: keyset.Key | None = None, site_code: str | None = None
) -> keyset.Page[ExternalImport]:
    """Imports of which every site is the actor's business, newest first."""
    kinds = rights.actor_of(session).site_kinds
    concerned = (
        select(ExternalValue.import_id)
        .join(Datastream, Datastream.id == ExternalValue.datastream_id)
        .join(Site, Site.id == Datastream.site_id)
        .where(ExternalValue.import_id == ExternalImport.id, Site.kind.in_(kinds))
    )
    if site_code is not None:
        concerned = concerned.where(Site.code == site_code)
    foreign = _foreign(session, ExternalImport.id)
    return keyset.page_of(
        session,
        select(ExternalImport).where(concerned.exists(), ~foreign.exists()),
        _BY_ID,
        limit=limit,
        after=after,
        made=lambda row: row[0],
    )


def content_of(session: Session, import_id: int) -> bytes:
    """The bytes as received. Raises NotFound."""
    return import_of(session, import_id).content


# ---------------------------------------------------------------------------------------------------------------- checks


def _check_origin(origin: Origin) -> None:
    if not origin.source.strip():
        raise ImportWrong("Who measured? Name the person, the laboratory or the system.")
    words = (origin.source, origin.method, origin.instrument, origin.report_number)
    if any(len(word) > _LONGEST_WORD for word in (*words, origin.file_name)):
        raise ImportWrong("A name has at most %(most)s characters.", most=_LONGEST_WORD)
    if len(origin.note) > _LONGEST_NOTE:
        raise ImportWrong("A note has at most %(most)s characters.", most=_LONGEST_NOTE)


def _refuse_known(session: Session, data: bytes, rules: MeasurementRules) -> None:
    known = session.scalars(
        select(ExternalImport).where(
            ExternalImport.content_sha256 == hashlib.sha256(data).hexdigest(),
            ExternalImport.withdrawn_at.is_(None),
        )
    )
    stored = rules.stored()
    for one in known:
        if one.rules == stored:
            raise AlreadyImported(
                "This file is import %(import_id)s of %(at)s already; nothing is imported twice.",
                import_id=one.id,
                at=one.imported_at,
            )


def _place(session: Session, read: ReadFile, *, now: datetime) -> _Placed:
    """Each value's site and depth. What is out of scope is not there."""
    codes = {one.site_code for one in read.values}
    kinds = rights.actor_of(session).site_kinds
    sites: dict[str, Site] = {}
    for some in bulk.chunks(sorted(codes), _AT_ONCE):
        found = session.scalars(select(Site).where(Site.code.in_(some), Site.kind.in_(kinds)))
        sites |= {site.code: site for site in found}
    wrong = list(read.wrong)
    values: dict[Place, list[GivenValue]] = defaultdict(list)
    now_s = int(now.timestamp())
    for one in read.values:
        site = sites.get(one.site_code)
        problem = _fault(one, site, now_s)
        if problem is not None:
            wrong.append(WrongCell(one.row, one.column, problem.said, problem.code))
            continue
        values[sites[one.site_code].id, one.property, one.depth_cm].append(one)
    wrong.sort(key=lambda cell: cell.row)
    return _Placed(dict(values), wrong, read, {site.id: site.code for site in sites.values()})


def _fault(one: GivenValue, site: Site | None, now_s: int) -> CellWrong | None:
    if site is None:
        return CellWrong(
            "There is no site %(code)s; look at `fleet site list`.", code=one.site_code
        )
    if one.sampled_s > now_s:
        return CellWrong(
            "%(at)s lies in the future; is the time zone right?",
            at=datetime.fromtimestamp(one.sampled_s, UTC),
        )
    other = {"soil_": "water", "water_": "tree"}
    for prefix, kind in other.items():
        if one.property.startswith(prefix) and site.kind == kind:
            return CellWrong(
                "%(code)s is a %(kind)s, where no %(property)s is measured.",
                code=one.site_code,
                kind=KIND_WORDS[site.kind],
                property=one.property,
            )
    return None


# --------------------------------------------------------------------------------------------------------------- writing


def _hold(session: Session, places: Iterable[Place]) -> None:
    """One import at a time for each site: whoever comes second sees what the first did."""
    ids = sorted({site_id for site_id, _, _ in places})
    for some in bulk.chunks(ids, _AT_ONCE):
        session.execute(
            select(Site.id).where(Site.id.in_(some)).order_by(Site.id).with_for_update()
        )


def _hold_streams(session: Session, datastream_ids: Iterable[int]) -> None:
    ids = sorted(datastream_ids)
    for some in bulk.chunks(ids, _AT_ONCE):
        sites = select(Datastream.site_id).where(Datastream.id.in_(some))
        session.execute(
            select(Site.id).where(Site.id.in_(sites)).order_by(Site.id).with_for_update()
        )


def _streams(
    session: Session, places: Iterable[Place], *, make_at: datetime | None = None
) -> dict[Place, int]:
    """Datastreams of these places, as far as there are any; with `make_at` all of them."""
    wanted = set(places)
    found: dict[Place, int] = {}
    for some in bulk.chunks(sorted({place[0] for place in wanted}), _AT_ONCE):
        rows = session.execute(
            select(
                Datastream.site_id, Datastream.property, Datastream.depth_cm, Datastream.id
            ).where(Datastream.site_id.in_(some), Datastream.level == LEVEL)
        )
        found |= {(row[0], row[1], row[2]): row[3] for row in rows}
    found = {place: stream_id for place, stream_id in found.items() if place in wanted}
    if make_at is None:
        return found
    made = {
        place: Datastream(
            site_id=place[0],
            property=place[1],
            unit=given_units.PROPERTIES[place[1]].unit,
            depth_cm=place[2],
            level=LEVEL,
            created_at=make_at,
        )
        for place in sorted(wanted - found.keys())
    }
    session.add_all(made.values())
    session.flush()
    return found | {place: stream.id for place, stream in made.items()}


def _plan(session: Session, placed: _Placed, streams: Mapping[Place, int]) -> ImportPlan:
    plan = ImportPlan(
        empty=placed.read.empty,
        backwards=placed.read.backwards,
        encoding=placed.read.encoding,
        wrong=placed.wrong[:_WRONG_MAX],
        wrong_count=len(placed.wrong),
    )
    names: dict[str, int] = {}
    for place, values in sorted(placed.values.items()):
        names[f"{placed.codes[place[0]]} {place[1]} {place[2]} cm"] = len(values)
        known: set[int] = set()
        if place in streams:
            known = set(_current(session, streams[place], [one.sampled_s for one in values]))
        plan.replacing += sum(one.sampled_s in known for one in values)
        plan.new += sum(one.sampled_s not in known for one in values)
        plan.without_u += sum(one.value is not None and one.u is None for one in values)
        plan.limits += sum(bool(one.limit_sign) for one in values)
    plan.streams = names
    return plan


def _store(
    session: Session,
    data: bytes,
    rules: MeasurementRules,
    origin: Origin,
    plan: ImportPlan,
    *,
    now: datetime,
) -> ExternalImport:
    row = ExternalImport(
        kind=ImportKind(origin.kind),
        source=origin.source.strip(),
        method=origin.method.strip(),
        instrument=origin.instrument.strip(),
        report_number=origin.report_number.strip(),
        note=origin.note.strip(),
        file_name=origin.file_name,
        content=data,
        content_sha256=hashlib.sha256(data).hexdigest(),
        rules=rules.stored(),
        reader_version=READER_VERSION,
        values_count=plan.values_count,
        author=rights.actor_of(session).name,
        imported_at=now,
        withdrawn_reason="",
    )
    session.add(row)
    session.flush()
    session.add(
        Lineage(
            import_id=row.id,
            inputs="",
            conversion="",
            correction="",
            rule_set="",
            pipeline_version=READER_VERSION,
            coverage_factor=COVERAGE_FACTOR,
        )
    )
    session.flush()
    return row


_VALUE_COLUMNS = (
    "datastream_id",
    "sampled_at",
    "import_id",
    "value",
    "u",
    "flag",
    "limit_sign",
    "limit_value",
    "row",
    "given",
    "given_unit",
    "sample",
)


def _store_values(
    session: Session,
    import_id: int,
    values: Mapping[Place, Sequence[GivenValue]],
    streams: Mapping[Place, int],
) -> None:
    rows = [
        (
            streams[place],
            one.sampled_s,
            import_id,
            one.value,
            one.u,
            int(one.flag),
            one.limit_sign,
            one.limit_value,
            one.row,
            one.given,
            one.given_unit,
            one.sample,
        )
        for place, some in values.items()
        for one in some
    ]
    bulk.insert_rows(session, _table(ExternalValue), _VALUE_COLUMNS, rows)


# -------------------------------------------------------------------------------------------------------------- in force


def _current(session: Session, datastream_id: int, times_s: Sequence[int]) -> dict[int, Any]:
    """Current observations of these instants."""
    return _of_times(
        session, select(*Observation.__table__.columns), Observation, datastream_id, times_s
    )


def _of_times(
    session: Session, query: Any, model: Any, datastream_id: int, times_s: Sequence[int]
) -> dict[int, Any]:
    wanted = set(times_s)
    rows = session.execute(
        query.where(
            model.datastream_id == datastream_id,
            model.sampled_at.between(_moment(min(wanted)), _moment(max(wanted))),
        )
    )
    found: dict[int, Any] = {}
    for row in rows:
        second = int(row.sampled_at.timestamp())
        if second in wanted:
            found[second] = row
    return found


def wanted_values(
    session: Session, datastream_id: int, times_s: Sequence[int]
) -> dict[int, ExternalValue]:
    """What makes the observations of these instants: of each the value of the newest import that is not withdrawn."""
    query = (
        select(*ExternalValue.__table__.columns)
        .join(ExternalImport, ExternalImport.id == ExternalValue.import_id)
        .where(ExternalImport.withdrawn_at.is_(None))
        .order_by(ExternalValue.import_id)
    )
    return _of_times(session, query, ExternalValue, datastream_id, times_s)


def _put_in_force(
    session: Session,
    instants: Mapping[int, Sequence[int]],
    row: ExternalImport,
    *,
    reason: str,
    now: datetime,
) -> None:
    """Make the observations of these instants anew; what they replace goes to the history, by a revision where there is any."""
    lineages: dict[int, int] = {
        one.import_id or 0: one.id
        for one in session.scalars(select(Lineage).where(Lineage.import_id.is_not(None)))
    }
    revision: Revision | None = None
    for datastream_id, times_s in sorted(instants.items()):
        current = _current(session, datastream_id, times_s)
        wanted = wanted_values(session, datastream_id, times_s)
        replaced = [
            one
            for second, one in current.items()
            if second not in wanted or lineages[wanted[second].import_id] != one.lineage_id
        ]
        known_s = _known_s(session, datastream_id, times_s, replaced, now)
        if replaced:
            revision = revision or _revision(session, instants, row, reason=reason, now=now)
            _keep_history(session, revision.id, replaced, known_s)
            _switched(session, revision.id, datastream_id, replaced, wanted, len(current), now)
        _write(session, datastream_id, current, wanted, lineages, known_s)


def _known_s(
    session: Session,
    datastream_id: int,
    times_s: Sequence[int],
    replaced: Sequence[Any],
    now: datetime,
) -> int:
    """Since when the new versions are known: what was known by this second already was perhaps seen."""
    known_s = int(now.timestamp())
    ended = session.scalar(
        select(func.max(ObservationHistory.known_to)).where(
            ObservationHistory.datastream_id == datastream_id,
            ObservationHistory.sampled_at.between(_moment(min(times_s)), _moment(max(times_s))),
        )
    )
    if ended is not None:
        known_s = max(known_s, int(ended.timestamp()))
    return max([known_s, *(int(one.known_from.timestamp()) + 1 for one in replaced)])


def _revision(
    session: Session,
    instants: Mapping[int, Sequence[int]],
    row: ExternalImport,
    *,
    reason: str,
    now: datetime,
) -> Revision:
    times_s = [second for times in instants.values() for second in times]
    revision = Revision(
        kind="import",
        reason=reason,
        author=row.author if row.withdrawn_by is None else row.withdrawn_by,
        from_at=_moment(min(times_s)),
        to_at=_moment(max(times_s) + 1),
        state="done",
        ordered_at=now,
        known_at=now,
    )
    session.add(revision)
    session.flush()
    return revision


def _keep_history(
    session: Session, revision_id: int, replaced: Sequence[Any], known_s: int
) -> None:
    columns = (
        "datastream_id",
        "sampled_at",
        "known_from",
        "value",
        "u",
        "flag",
        "tests",
        "lineage_id",
        "pack_id",
        "known_to",
        "revision_id",
    )
    rows = [
        (
            one.datastream_id,
            int(one.sampled_at.timestamp()),
            int(one.known_from.timestamp()),
            one.value,
            one.u,
            one.flag,
            one.tests,
            one.lineage_id,
            one.pack_id,
            known_s,
            revision_id,
        )
        for one in replaced
    ]
    bulk.insert_rows(session, _table(ObservationHistory), columns, rows)


def _switched(
    session: Session,
    revision_id: int,
    datastream_id: int,
    replaced: Sequence[Any],
    wanted: Mapping[int, Any],
    compared: int,
    now: datetime,
) -> None:
    steps = []
    removed = 0
    for one in replaced:
        new = wanted.get(int(one.sampled_at.timestamp()))
        removed += new is None
        if new is not None and new.value is not None and one.value is not None:
            steps.append(abs(new.value - one.value))
    session.add(
        RevisionStream(
            revision_id=revision_id,
            datastream_id=datastream_id,
            switched_at=now,
            compared=compared,
            changed=len(replaced) - removed,
            removed=removed,
            largest_change=max(steps, default=None),
        )
    )


_OBSERVATION_COLUMNS = (
    "datastream_id",
    "sampled_at",
    "value",
    "u",
    "flag",
    "tests",
    "lineage_id",
    "known_from",
    "pack_id",
)


def _write(
    session: Session,
    datastream_id: int,
    current: Mapping[int, Any],
    wanted: Mapping[int, Any],
    lineages: Mapping[int, int],
    known_s: int,
) -> None:
    def row(second: int) -> tuple[Any, ...]:
        one = wanted[second]
        lineage_id = lineages[one.import_id]
        return (datastream_id, second, one.value, one.u, one.flag, 0, lineage_id, known_s, None)

    new = sorted(wanted.keys() - current.keys())
    bulk.insert_rows(
        session, _table(Observation), _OBSERVATION_COLUMNS, [row(second) for second in new]
    )
    months: dict[int, int] = defaultdict(int)
    for second in new:
        months[observing.month_of(second)] += 1
    counts = [(datastream_id, month, count) for month, count in sorted(months.items())]
    columns = ("datastream_id", "month", "count")
    bulk.add_to_counts(session, _table(ObservationCount), columns, counts)
    changed = [
        row(second)
        for second in sorted(wanted.keys() & current.keys())
        if lineages[wanted[second].import_id] != current[second].lineage_id
    ]
    if changed:
        by_name = dict(
            zip(_OBSERVATION_COLUMNS, map(list, zip(*changed, strict=True)), strict=True)
        )
        del by_name["pack_id"]
        bulk.update_columns(
            session, _table(Observation), by_name, key=("datastream_id", "sampled_at")
        )
    gone = sorted(current.keys() - wanted.keys())
    if gone:
        revising.remove_observations(session, datastream_id, np.array(gone, np.int64))


# --------------------------------------------------------------------------------------------------------------- private


def _instants_of(session: Session, import_id: int) -> dict[int, list[int]]:
    instants: dict[int, list[int]] = defaultdict(list)
    rows = session.execute(
        select(ExternalValue.datastream_id, ExternalValue.sampled_at).where(
            ExternalValue.import_id == import_id
        )
    )
    for datastream_id, sampled_at in rows:
        instants[datastream_id].append(int(sampled_at.timestamp()))
    return dict(instants)


def _foreign(session: Session, import_id: Any) -> Any:
    """Something in an import that is none of the actor's business."""
    return (
        select(Datastream.id)
        .join(ExternalValue, ExternalValue.datastream_id == Datastream.id)
        .join(Site, Site.id == Datastream.site_id)
        .where(
            ExternalValue.import_id == import_id,
            Site.kind.not_in(rights.actor_of(session).site_kinds),
        )
        .limit(1)
    )


def _note(
    session: Session, action: str, row: ExternalImport, *, now: datetime, **details: auditing.Detail
) -> None:
    auditing.record(
        session,
        action,
        subject=f"import {row.id}",
        now=now,
        by=None,
        kind=str(row.kind),
        source=row.source,
        sha256=row.content_sha256,
        **details,
    )


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _table(model: type[Any]) -> Table:
    table: Table = model.__table__
    return table

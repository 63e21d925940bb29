"""Values that no node measured, read again from the bytes as they were received; and the observations that they make."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import FleetError
from fleet_server.models import (
    Datastream,
    ExternalImport,
    ExternalValue,
    Lineage,
    Observation,
    ObservationCount,
    ObservationHistory,
    Site,
)
from fleet_server.services.external_files import (
    READER_VERSION,
    GivenValue,
    read_measurements,
    rules_of,
)
from fleet_server.services.external_importing import COVERAGE_FACTOR, LEVEL
from fleet_server.services.observing import month_of
from fleet_server.services.verification.report import Report

_KIND = "observations_not_reproducible"
_ROW_FIELDS = ("flag", "limit_sign", "limit_value", "row", "given", "given_unit", "sample")

Stream = tuple[str, str, int]
"""site's code, property, depth in cm"""


def check_external(session: Session, report: Report) -> None:
    """Judge all imports, and every version of every observation that they made. Memory is bounded by one import and one datastream."""
    streams = {
        (row.code, row.property, row.depth_cm): row.id
        for row in session.execute(
            select(Site.code, Datastream.property, Datastream.depth_cm, Datastream.id)
            .join(Site, Site.id == Datastream.site_id)
            .where(Datastream.level == LEVEL)
        )
    }
    for import_id in session.scalars(select(ExternalImport.id).order_by(ExternalImport.id)).all():
        _check_import(session, report, session.get_one(ExternalImport, import_id), streams)
        session.expire_all()
    lineages = _check_lineages(session, report)
    for datastream_id in sorted(streams.values()):
        _check_stream(session, report, datastream_id, lineages)


def _check_import(
    session: Session, report: Report, row: ExternalImport, streams: Mapping[Stream, int]
) -> None:
    """Its bytes are those that came, and give just its values."""
    if hashlib.sha256(row.content).hexdigest() != row.content_sha256:
        report.find(_KIND, f"The bytes of import {row.id} are not those that were received.")
        return
    if row.reader_version != READER_VERSION:
        return  # what other software read can only be kept
    try:
        read = read_measurements(row.content, rules_of(row.rules))
    except (FleetError, KeyError, TypeError) as problem:
        report.find(_KIND, f"Import {row.id} cannot be read again: {problem}")
        return
    made = {
        (streams.get((one.site_code, one.property, one.depth_cm)), one.sampled_s): one
        for one in read.values
    }
    stored = {
        (one.datastream_id, int(one.sampled_at.timestamp())): one
        for one in session.execute(
            select(*ExternalValue.__table__.columns).where(ExternalValue.import_id == row.id)
        )
    }
    for key in sorted(made.keys() | stored.keys(), key=lambda one: (one[0] or 0, one[1])):
        if key not in made or key not in stored or not _is_same(made[key], stored[key]):
            report.find(
                _KIND, f"The value of import {row.id} {_at(*key)} is not what its file says."
            )
    if len(made) != row.values_count:
        report.find(_KIND, f"Import {row.id} has {len(made)} values, not {row.values_count}.")


def _is_same(made: GivenValue, stored: Any) -> bool:
    is_row = all(getattr(made, name) == getattr(stored, name) for name in _ROW_FIELDS)
    return is_row and made.value == stored.value and _single(made.u) == _single(stored.u)


def _check_lineages(session: Session, report: Report) -> dict[int, int]:
    """Imports by the lineage that names them. One that a node's values name is told with these (`observations`)."""
    found: dict[int, int] = {}
    used: set[int] = set()
    for model in (Observation, ObservationHistory):
        used |= set(
            session.scalars(
                select(model.lineage_id)
                .join(Datastream, Datastream.id == model.datastream_id)
                .where(Datastream.level == LEVEL)
                .distinct()
            )
        )
    for row in session.scalars(select(Lineage).where(Lineage.import_id.is_not(None))):
        import_id = row.import_id or 0
        texts = (row.inputs, row.conversion, row.correction, row.rule_set)
        version = session.scalar(
            select(ExternalImport.reader_version).where(ExternalImport.id == import_id)
        )
        is_told = not any(texts) and row.pipeline_version == version
        if row.id in used and not (is_told and row.coverage_factor == COVERAGE_FACTOR):
            report.find(_KIND, f"Lineage {row.id} does not say what made its observations.")
        found[row.id] = import_id
    return found


def _check_stream(
    session: Session, report: Report, datastream_id: int, lineages: Mapping[int, int]
) -> None:
    values: dict[tuple[int, int], Any] = {}
    newest: dict[int, int] = {}
    withdrawn: dict[int, int] = {}  # when first an import that had the instant was taken back
    for one in session.execute(
        select(
            *ExternalValue.__table__.columns,
            ExternalImport.withdrawn_at,
            ExternalImport.imported_at,
        )
        .join(ExternalImport, ExternalImport.id == ExternalValue.import_id)
        .where(ExternalValue.datastream_id == datastream_id)
        .order_by(ExternalValue.import_id)
    ):
        second = int(one.sampled_at.timestamp())
        values[second, one.import_id] = one
        if one.withdrawn_at is None:
            newest[second] = one.import_id
        else:
            withdrawn_s = int(one.withdrawn_at.timestamp())
            withdrawn[second] = min(withdrawn.get(second, withdrawn_s), withdrawn_s)
    starts: dict[int, list[int]] = {}
    counts: dict[int, int] = {}
    for second, one in _rows(session, Observation, datastream_id):
        made_by = lineages.get(one.lineage_id, 0)
        starts.setdefault(second, []).append(int(one.known_from.timestamp()))
        counts[month_of(second)] = counts.get(month_of(second), 0) + 1
        report.observations += 1
        if newest.pop(second, None) != made_by or not _is_made(one, values.get((second, made_by))):
            report.find(_KIND, f"The observation {_at(datastream_id, second)} is another one.")
    for second in sorted(newest):
        report.find(_KIND, f"There is no observation {_at(datastream_id, second)}.")
    _check_versions(session, report, datastream_id, lineages, values, starts, withdrawn)
    _check_counts(session, report, datastream_id, counts)


def _check_versions(
    session: Session,
    report: Report,
    datastream_id: int,
    lineages: Mapping[int, int],
    values: Mapping[tuple[int, int], Any],
    starts: dict[int, list[int]],
    withdrawn: Mapping[int, int],
) -> None:
    """Versions that were replaced: made by the import that they name, and ended when the next began."""
    replaced = list(_rows(session, ObservationHistory, datastream_id))
    for second, one in replaced:
        starts.setdefault(second, []).append(int(one.known_from.timestamp()))
    for second, one in replaced:
        report.versions += 1
        if not _is_made(one, values.get((second, lineages.get(one.lineage_id, 0)))):
            report.find(
                _KIND, f"A version of the value {_at(datastream_id, second)} is another one."
            )
        known_s, ended_s = int(one.known_from.timestamp()), int(one.known_to.timestamp())
        following = min((start for start in starts[second] if start > known_s), default=None)
        # Only where an import was withdrawn there may be nothing afterwards, or for a while.
        may_be_gone = withdrawn.get(second, ended_s + 1) <= ended_s
        if following != ended_s and not (
            may_be_gone and (following is None or following > ended_s)
        ):
            report.find(
                _KIND,
                f"A version of the value {_at(datastream_id, second)} does not end where the next begins.",
            )


def _check_counts(
    session: Session, report: Report, datastream_id: int, counts: Mapping[int, int]
) -> None:
    rows = session.execute(
        select(ObservationCount.month, ObservationCount.count).where(
            ObservationCount.datastream_id == datastream_id
        )
    )
    said = {month: count for month, count in rows if count}
    for month in sorted(said.keys() | counts.keys()):
        if said.get(month, 0) != counts.get(month, 0):
            report.find(
                _KIND,
                f"The count of datastream {datastream_id} in {month} says"
                f" {said.get(month, 'nothing')}; right is {counts.get(month, 0)}.",
            )


def _rows(session: Session, model: Any, datastream_id: int) -> Iterator[tuple[int, Any]]:
    for row in session.execute(
        select(*model.__table__.columns).where(model.datastream_id == datastream_id)
    ):
        yield int(row.sampled_at.timestamp()), row


def _is_made(one: Any, value: Any) -> bool:
    """Whether an observation is what that value makes, and not known before it; nothing tests it, and it comes from no pack."""
    return (
        value is not None
        and one.known_from >= value.imported_at
        and one.value == value.value
        and _single(one.u) == _single(value.u)
        and (one.flag, one.tests, one.pack_id) == (value.flag, 0, None)
    )


def _single(u: float | None) -> float | None:
    return None if u is None else float(np.float32(u))


def _at(datastream_id: int | None, second: int) -> str:
    return f"of datastream {datastream_id} at {datetime.fromtimestamp(second, UTC):%F %T}"

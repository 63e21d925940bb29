"""Calibrations as JSON documents: a draft that somebody wrote down, and a record as programs read it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from fleet_server.models import Calibration, CalibrationKind, DriftCorrection, PointStage, Standard
from fleet_server.services import certifying, fitting
from fleet_server.services.calibrating import (
    CalibrationRecord,
    CalibrationWrong,
    NewCalibration,
    NewPoint,
)
from fleet_server.services.guiding import GuidedChannel, Live
from fleet_server.services.rehearsing import Rehearsal

_Word = TypeVar("_Word", bound=StrEnum)
_DRAFT_FIELDS = (
    "serial",
    "property",
    "kind",
    "performed_by",
    "performed_at",
    "points",
    "valid_from",
    "valid_to",
    "environment",
    "u_absolute",
    "u_relative",
    "u_drift_absolute",
    "u_drift_relative",
    "reference",
)
_POINT_FIELDS = (
    "indicated",
    "reference",
    "u_reference",
    "standard_id",
    "temperature_c",
    "u_indicated",
    "stage",
    "step",
    "taken_at",
    "note",
)


def read_draft(text: str, *, now: datetime) -> NewCalibration:
    """A draft as JSON says it.

    Raises:
        CalibrationWrong: it is no JSON object, or one of its members does not fit; the sentence names it.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise CalibrationWrong("The draft is no JSON.") from problem
    told = _known(given, _DRAFT_FIELDS, "draft")
    for name in ("serial", "property", "performed_by"):
        if not isinstance(told.get(name), str):
            raise _wrong(name, "a text")
    points = told.get("points", [])
    if not isinstance(points, list):
        raise _wrong("points", "a list")
    environment = told.get("environment", {})
    if not isinstance(environment, dict):
        raise _wrong("environment", "an object")
    return NewCalibration(
        serial=told["serial"],
        property=told["property"],
        kind=_one_of(CalibrationKind, told.get("kind", CalibrationKind.LINEAR), "kind"),
        performed_by=told["performed_by"],
        performed_at=_moment(told, "performed_at") or now,
        points=[_read_point(one) for one in points],
        valid_from=_moment(told, "valid_from"),
        valid_to=_moment(told, "valid_to"),
        environment=environment,
        u_absolute=_number(told, "u_absolute"),
        u_relative=_number(told, "u_relative"),
        u_drift_absolute=_number(told, "u_drift_absolute"),
        u_drift_relative=_number(told, "u_drift_relative"),
        reference=_word(told, "reference"),
    )


def rehearsal_document(found: Rehearsal) -> dict[str, Any]:
    """What an approval would change, as JSON."""
    return {
        "newest_max": found.newest_max,
        "is_cut": found.is_cut,
        "left_out": found.left_out,
        "compared": found.compared,
        "changed": found.changed,
        "removed": found.removed,
        "flags_changed": found.flags_changed,
        "corrections": [correction_document(one) for one in found.corrections],
        "changes": [
            {
                "datastream_id": one.stream.id,
                "site": one.site.code,
                "site_name": one.site.name,
                "property": one.stream.property,
                "depth_cm": one.stream.depth_cm,
                "unit": one.stream.unit,
                "compared": one.change.compared,
                "changed": one.change.changed,
                "removed": one.change.removed,
                "mean": one.change.mean,
                "largest": one.change.largest,
                "flags_changed": one.change.flags_changed,
            }
            for one in found.streams
        ],
    }


def correction_document(row: DriftCorrection) -> dict[str, Any]:
    """A drift correction that holds within a calibration's time."""
    return {
        "id": row.id,
        "from_at": certifying.moment(row.from_at),
        "to_at": certifying.moment(row.to_at),
    }


def record_document(record: CalibrationRecord) -> dict[str, Any]:
    """A record as JSON: what is certified, and where it stands."""
    found = record.calibration
    return {
        **record.content(),
        "status": str(found.status),
        "sha256": found.certificate_sha256 or record.sha256,
        "procedure": found.procedure,
        "faults": [
            {
                "code": one.code,
                "numbers": dict(one.numbers),
                "sentence": str(fitting.in_words(one.code, one.numbers)),
            }
            for one in record.faults
        ],
        "corrections": [correction_document(one) for one in record.corrections],
        "created_at": certifying.moment(found.created_at),
        "withdrawn_by": found.withdrawn_by,
        "withdrawn_at": certifying.moment(found.withdrawn_at),
        "withdrawn_reason": found.withdrawn_reason,
    }


def live_document(record: CalibrationRecord, channel: GuidedChannel, live: Live) -> dict[str, Any]:
    """What a probe reads now, and how far its steps are. `read_at` stays a moment."""
    found, steady = live.newest, live.stability
    taken = {one.step: one.indicated for one in record.points}
    return {
        "reading": found[1] if found else None,
        "read_at": found[0] if found else None,
        "unit": channel.unit,
        "is_steady": steady.is_stable and not live.is_stale,
        "why_not": "stale" if live.is_stale else steady.reason,
        "steady_for_s": steady.stable_for_s,
        "temperature_c": live.temperature_c,
        "steps": [
            {"step": one.id, "worth": str(one.worth), "taken": taken.get(one.id)}
            for one in channel.procedure.steps
        ],
    }


def line_document(calibration: Calibration, *, serial: str, sensor_type: str) -> dict[str, Any]:
    """A calibration in a list."""
    return {
        "id": calibration.id,
        "serial": serial,
        "sensor_type": sensor_type,
        "property": calibration.property,
        "version": calibration.version,
        "status": str(calibration.status),
        "kind": str(calibration.kind),
        "offset": calibration.offset,
        "slope": calibration.slope,
        "valid_from": certifying.moment(calibration.valid_from),
        "valid_to": certifying.moment(calibration.valid_to),
        "performed_by": calibration.performed_by,
        "author": calibration.author,
        "approved_by": calibration.approved_by,
    }


def standard_document(standard: Standard) -> dict[str, Any]:
    """A standard."""
    return {
        "id": standard.id,
        "kind": str(standard.kind),
        "property": standard.property,
        "name": standard.name,
        "lot": standard.lot,
        "certificate": standard.certificate,
        "points": standard.points,
        "u": standard.u,
        "expires_at": certifying.moment(standard.expires_at),
        "discarded_at": certifying.moment(standard.discarded_at),
    }


def _read_point(given: object) -> NewPoint:
    told = _known(given, _POINT_FIELDS, "point")
    indicated = _number(told, "indicated")
    if indicated is None:
        raise _wrong("indicated", "a number")
    standard_id = told.get("standard_id")
    if standard_id is not None and (isinstance(standard_id, bool) or not isinstance(standard_id, int)):  # fmt: skip
        raise _wrong("standard_id", "a whole number")
    return NewPoint(
        indicated=indicated,
        reference=_number(told, "reference"),
        u_reference=_number(told, "u_reference"),
        standard_id=standard_id,
        temperature_c=_number(told, "temperature_c"),
        u_indicated=_number(told, "u_indicated") or 0.0,
        stage=_one_of(PointStage, told.get("stage", PointStage.FIT), "stage"),
        step=_word(told, "step"),
        taken_at=_moment(told, "taken_at"),
        note=_word(told, "note"),
    )


def _known(given: object, fields: tuple[str, ...], what: str) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise CalibrationWrong("A %(what)s is a JSON object.", what=what)
    strange = sorted(set(given) - set(fields))
    if strange:
        raise CalibrationWrong(
            "A %(what)s has no member %(member)s; it has %(known)s.",
            what=what,
            member=strange[0],
            known=", ".join(fields),
        )
    return given


def _number(told: Mapping[str, Any], name: str) -> float | None:
    value = told.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(name, "a finite number")
    return float(value)


def _word(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name, "")
    if not isinstance(value, str):
        raise _wrong(name, "a text")
    return value


def _moment(told: Mapping[str, Any], name: str) -> datetime | None:
    value = told.get(name)
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise _wrong(name, "a time with its zone, like 2026-07-01T12:00:00Z")
    return found


def _one_of(kind: type[_Word], value: object, name: str) -> _Word:
    for one in kind:
        if one == value:
            return one
    raise _wrong(name, f"one of {', '.join(kind)}")


def _wrong(member: str, wanted: str) -> CalibrationWrong:
    return CalibrationWrong("%(member)s must be %(wanted)s.", member=member, wanted=wanted)

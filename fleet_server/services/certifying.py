"""What a calibration's certificate says: one content, with its hash, as JSON. `certificate_sheet` draws it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from fleet_server.measurement import pipeline
from fleet_server.models import Calibration, CalibrationPoint, Sensor, Standard
from hardware import catalogue

FORMAT = "stadtsensor-calibration/1"


def content(
    calibration: Calibration,
    sensor: Sensor,
    points: Sequence[CalibrationPoint],
    standards: Mapping[int, Standard],
    previous: Calibration | None,
) -> dict[str, Any]:
    """All that is certified, in an order that is the same each time. Of a draft, what would be."""
    sensor_type = catalogue.load_sensor_type(sensor.sensor_type)
    return {
        "format": FORMAT,
        "calibration": calibration.id,
        "version": calibration.version,
        "sensor": {
            "serial": sensor.serial,
            "type": sensor.sensor_type,
            "title": sensor_type.title,
            "manufacturer": sensor_type.manufacturer,
        },
        "property": calibration.property,
        "unit": sensor_type.quantity(calibration.property).unit,
        "kind": str(calibration.kind),
        "equation": "value = offset + slope · x + curve · x²; x is the converted reading",
        "parameters": parameters_of(calibration),
        "fit": calibration.fit,
        "points": [_point(one, standards) for one in points],
        "environment": calibration.environment,
        "performed_by": calibration.performed_by,
        "performed_at": moment(calibration.performed_at),
        "author": calibration.author,
        "reference": calibration.reference,
        "valid_from": moment(calibration.valid_from),
        "valid_to": moment(calibration.valid_to),
        "previous": None if previous is None else previous_of(previous),
        "approval": {
            "by": calibration.approved_by,
            "at": moment(calibration.approved_at),
        },
        "software": {
            "stadtsensor": importlib.metadata.version("stadtsensor"),
            "pipeline": pipeline.VERSION,
            "numpy": np.__version__,
        },
    }


def parameters_of(calibration: Calibration) -> dict[str, float | int | None]:
    """The numbers with their uncertainties and covariances."""
    return {
        "offset": calibration.offset,
        "slope": calibration.slope,
        "curve": calibration.curve,
        "u_offset": calibration.u_offset,
        "u_slope": calibration.u_slope,
        "u_curve": calibration.u_curve,
        "cov_offset_slope": calibration.slope_offset_covariance,
        "cov_offset_curve": calibration.offset_curve_covariance,
        "cov_slope_curve": calibration.slope_curve_covariance,
        "u_absolute": calibration.u_absolute,
        "u_relative": calibration.u_relative,
        "u_drift_absolute": calibration.u_drift_absolute,
        "u_drift_relative": calibration.u_drift_relative,
        "k": calibration.coverage_factor,
        "degrees_of_freedom": calibration.degrees_of_freedom,
    }


def previous_of(calibration: Calibration) -> dict[str, Any]:
    """The version before, in short."""
    return {
        "calibration": calibration.id,
        "version": calibration.version,
        "offset": calibration.offset,
        "slope": calibration.slope,
        "curve": calibration.curve,
    }


def digest(told: Mapping[str, Any]) -> str:
    """SHA-256 of a content: of its JSON in UTF-8, keys sorted, without blanks.

    >>> digest({"b": 1, "a": "ö"})[:16]
    '3d8f4db36c1bf6b1'
    """
    text = json.dumps(
        told, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _point(point: CalibrationPoint, standards: Mapping[int, Standard]) -> dict[str, Any]:
    standard = standards.get(point.standard_id) if point.standard_id is not None else None
    return {
        "stage": str(point.stage),
        "step": point.step,
        "indicated": point.indicated,
        "u_indicated": point.u_indicated,
        "reference": point.reference,
        "u_reference": point.u_reference,
        "temperature_c": point.temperature_c,
        "taken_at": moment(point.taken_at),
        "taken_by": point.taken_by,
        "steadiness": point.steadiness,
        "note": point.note,
        "standard": None
        if standard is None
        else {
            "id": standard.id,
            "name": standard.name,
            "lot": standard.lot,
            "certificate": standard.certificate,
            "u": standard.u,
            "expires_at": moment(standard.expires_at),
        },
    }


def moment(at: datetime | None) -> str | None:
    """As `2026-07-01T12:00:00Z`."""
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"

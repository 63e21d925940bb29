"""A value's uncertainty budget as JSON, for commands and the API."""

from __future__ import annotations

import math
from typing import Any

from fleet_server.services import budget_words, certifying
from fleet_server.services.budgeting import Part, ValueBudget


def budget_document(found: ValueBudget) -> dict[str, Any]:
    """The budget; degrees of freedom are null where there is no end to them."""
    conversion = found.version.made_by.lineage.conversion
    return {
        "observation": found.id,
        "datastream_id": found.datastream.id,
        "site": found.site.code,
        "property": found.datastream.property,
        "depth_cm": found.datastream.depth_cm,
        "unit": found.datastream.unit,
        "sampled_at": certifying.moment(found.sampled_at),
        "version": found.version.number,
        "value": found.value,
        "u": found.u,
        "k": found.k,
        "expanded_u": found.expanded_u,
        "degrees_of_freedom": _freedom(found.degrees_of_freedom),
        "sensor": found.sensor.serial,
        "calibration_id": found.calibration.id,
        "is_site_calibrated": found.is_site_calibrated,
        "standing": str(budget_words.standing_said(found)),
        "parts": [_part(one, conversion) for one in found.parts],
        "remedies": [
            {"code": one.code, "u": one.u, "sentence": str(sentence)}
            for one, sentence in zip(
                found.remedies, budget_words.remedies_said(found), strict=False
            )
        ],
    }


def _part(part: Part, conversion: str) -> dict[str, Any]:
    return {
        "name": part.name,
        "sentence": str(budget_words.part_said(part.name)),
        "u": part.u,
        "share_pct": part.share_pct,
        "shape": part.shape.value,
        "degrees_of_freedom": _freedom(part.degrees_of_freedom),
        "source": str(budget_words.source_said(part, conversion)),
        "calibration_id": None if part.calibration is None else part.calibration.id,
        "standards": [
            {"id": one.id, "name": one.name, "lot": one.lot, "certificate": one.certificate}
            for one in part.standards
        ],
    }


def _freedom(degrees_of_freedom: float) -> float | None:
    return None if math.isinf(degrees_of_freedom) else degrees_of_freedom

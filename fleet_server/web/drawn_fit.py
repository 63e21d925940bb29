"""A fit's residuals as SVG: how far each point lies from it, with the expanded uncertainty of its standard. No script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fleet_server.models import PointStage
from fleet_server.services.calibrating import CalibrationRecord

WIDTH, HEIGHT = 480, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 16.0, 14.0, 34.0
_K = 2.0


@dataclass(frozen=True)
class DrawnPoint:
    """`low_y`, `high_y`: ends of its bar."""

    x: float
    y: float
    low_y: float
    high_y: float
    step: str
    residual: float


@dataclass(frozen=True)
class Mark:
    """A number at an axis."""

    at: float
    number: float


@dataclass(frozen=True)
class DrawnResiduals:
    width: int
    height: int
    left: float
    right: float
    bottom: float
    zero_y: float
    points: tuple[DrawnPoint, ...]
    x_marks: tuple[Mark, ...]
    y_marks: tuple[Mark, ...]


def draw_residuals(record: CalibrationRecord) -> DrawnResiduals | None:
    """None while there is no fit."""
    residuals: Sequence[float] = (record.calibration.fit or {}).get("residuals", ())
    taken = [one for one in record.points if one.stage == PointStage.FIT]
    if not residuals or len(residuals) != len(taken):
        return None
    reach = max(
        abs(residual) + _K * one.u_reference for residual, one in zip(residuals, taken, strict=True)
    )
    reach = float(f"{1.05 * reach:.2g}") if math.isfinite(reach) and reach > 0 else 1.0
    references = [one.reference for one in taken]
    lowest, highest = min(references), max(references)
    middle_y = (_TOP + HEIGHT - _BOTTOM) / 2
    half = (HEIGHT - _TOP - _BOTTOM) / 2

    def across(value: float) -> float:
        if highest == lowest:
            return (_LEFT + WIDTH - _RIGHT) / 2
        share = 0.05 + 0.9 * (value - lowest) / (highest - lowest)
        return round(_LEFT + share * (WIDTH - _RIGHT - _LEFT), 1)

    def up(value: float) -> float:
        return round(middle_y - half * value / reach, 1)

    points = tuple(
        DrawnPoint(
            across(one.reference),
            up(residual),
            up(residual - _K * one.u_reference),
            up(residual + _K * one.u_reference),
            one.step,
            residual,
        )
        for residual, one in zip(residuals, taken, strict=True)
    )
    return DrawnResiduals(
        WIDTH,
        HEIGHT,
        _LEFT,
        WIDTH - _RIGHT,
        HEIGHT - _BOTTOM,
        up(0.0),
        points,
        tuple(Mark(across(value), value) for value in sorted({lowest, highest})),
        tuple(Mark(up(value), value) for value in (-reach, 0.0, reach)),
    )

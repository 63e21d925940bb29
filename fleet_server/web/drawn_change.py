"""Values before and after a revision as SVG: two lines over the same time, the one before dashed. No script.

However many values there are, each column of the drawing shows the lowest and the highest that lie in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet_server.services.revising import Change

WIDTH, HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 14.0, 14.0, 30.0
_COLUMNS = 280
# A line over hours without values would be a claim.
_GAP_OF_USUAL = 3.0


@dataclass(frozen=True)
class DrawnChange:
    """`before`, `after`: paths, empty where there is no value; `lowest`, `highest`: of what is drawn, in the datastream's unit."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    before: str
    after: str
    lowest: float
    highest: float
    from_at: datetime
    to_at: datetime


def draw_change(change: Change) -> DrawnChange | None:
    """The values that differ; None when none does."""
    both = np.concatenate([change.before, change.after])
    known = both[np.isfinite(both)]
    if not known.size:
        return None
    lowest, highest = float(known.min()), float(known.max())
    first_s, last_s = int(change.times_s[0]), int(change.times_s[-1])

    def path(values: NDArray[np.float64]) -> str:
        xs = _scaled(change.times_s, first_s, last_s, _LEFT, WIDTH - _RIGHT)
        ys = _scaled(values, lowest, highest, HEIGHT - _BOTTOM, _TOP)
        parts = (_part(xs[run], ys[run]) for run in _runs(change.times_s, np.isfinite(values)))
        return "".join(parts)

    return DrawnChange(
        WIDTH,
        HEIGHT,
        _LEFT,
        WIDTH - _RIGHT,
        _TOP,
        HEIGHT - _BOTTOM,
        path(change.before),
        path(change.after),
        lowest,
        highest,
        datetime.fromtimestamp(first_s, UTC),
        datetime.fromtimestamp(last_s, UTC),
    )


def _scaled(
    values: NDArray[Any], low: float, high: float, at_low: float, at_high: float
) -> NDArray[np.float64]:
    """Where the values lie in the drawing; all in the middle when they are one and the same."""
    if high == low:
        return np.full(len(values), (at_low + at_high) / 2)
    share = (values.astype(np.float64) - low) / (high - low)
    return at_low + share * (at_high - at_low)


def _runs(times_s: NDArray[np.int64], is_known: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Places of values that follow one another without a gap."""
    places = np.flatnonzero(is_known)
    if not places.size:
        return
    steps = np.diff(times_s[places])
    usual = float(np.median(steps)) if steps.size else 0.0
    is_cut = (steps > _GAP_OF_USUAL * usual) | (np.diff(places) > 1)
    yield from np.split(places, np.flatnonzero(is_cut) + 1)


def _part(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
    """A line through these; a single value is a short stroke, so that it is seen."""
    if xs.size == 1:
        return f"M{xs[0] - 1.5:.1f} {ys[0]:.1f}h3"
    columns = np.floor((xs - _LEFT) / (WIDTH - _RIGHT - _LEFT) * _COLUMNS)
    points: list[str] = []
    for column in np.split(np.arange(xs.size), np.flatnonzero(np.diff(columns)) + 1):
        extremes = {int(column[ys[column].argmin()]), int(column[ys[column].argmax()])}
        points += [f"{xs[place]:.1f} {ys[place]:.1f}" for place in sorted(extremes)]
    return "M" + "L".join(points)

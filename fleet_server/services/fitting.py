"""From a calibration's points to its numbers, and in words why these may not be trusted. The arithmetic is `measurement.fits`'."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet_server.errors import Said
from fleet_server.measurement import fits
from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.models import CalibrationKind
from fleet_server.services.flag_reasons import Number


@dataclass(frozen=True)
class FitPoint:
    """A probe's converted reading in a standard, and what that is worth; with their standard uncertainties.

    `standard_id`: which standard of the list, and `u_standard` what its certificate leaves open: the same for all its points.
    """

    indicated: float
    reference: float
    u_reference: float
    u_indicated: float = 0.0
    standard_id: int | None = None
    u_standard: float = 0.0


OWN_PART = 0.5
"""Of a shared standard's u what each of its points has at least by itself, beside the reading's scatter: how it was filled, stirred and warmed.
Our judgement. With less, readings that nobody gave a scatter would be taken for exact, and refused for scattering."""


@dataclass(frozen=True)
class Fault:
    """Why a fit may not be trusted: a code, and the numbers of its sentence."""

    code: str
    numbers: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        return {"code": self.code, "numbers": dict(self.numbers)}


def fit_points(
    kind: CalibrationKind,
    observed_property: str,
    points: Sequence[FitPoint],
    *,
    u_probe: float,
    factory_slope: float = 1.0,
    before: tuple[CalibrationParameters, float] | None = None,
) -> fits.Fit | Fault:
    """Fit a calibration of this kind; a `Fault` when the points do not determine one at all.

    Args:
        u_probe: the probe's own standard uncertainty beside the fit.
        factory_slope: the maker's slope, to which limits of the slope refer (1 but for a probe that is sold in several spans).
        before: numbers of the calibration before, and how many days ago that was.
    """
    shared = _shared(points)
    least = 1 if kind is CalibrationKind.OFFSET else 2
    if len(points) < least:
        return Fault("points", {"points": len(points), "least": least})
    try:
        return fits.fit_of(
            kind.value,
            [point.indicated for point in points],
            [point.reference for point in points],
            [_own_u(point, shared) for point in points],
            observed_property=observed_property,
            u_x=[point.u_indicated for point in points],
            u_common=_rows(points, shared) if shared else 0.0,
            u_probe=u_probe,
            before=before,
            factory_slope=factory_slope,
        )
    except ValueError:
        return Fault("points_determine_nothing", {})


def references_of(fit: fits.Fit, points: Sequence[FitPoint]) -> list[dict[str, Any]]:
    """What the standards make of the fit's uncertainty, as JSON: which standard, which points (counted from 1), and what one of its u does
    to offset, slope and curve. Points of one standard move together and are one row; each other point is its own.
    """
    shared = _shared(points)
    rows = [
        {"standard": standard, "points": _numbers(points, standard), "u": u, "moves": list(moves)}
        for (standard, u), moves in zip(shared.items(), fit.commons, strict=False)
    ]
    for number, (point, gains) in enumerate(zip(points, fit.gains, strict=True), start=1):
        u = _own_u(point, shared)
        row = {"standard": point.standard_id, "points": [number], "u": u}
        rows.append({**row, "moves": [u * one for one in gains]})
    return rows


def _shared(points: Sequence[FitPoint]) -> dict[int, float]:
    """Standards that several points are in, each with the u that these have in common."""
    counts = Counter(point.standard_id for point in points if point.u_standard > 0.0)
    return {
        standard: min(one.u_standard for one in points if one.standard_id == standard)
        for standard, count in counts.items()
        if standard is not None and count > 1
    }


def _own_u(point: FitPoint, shared: Mapping[int, float]) -> float:
    """What is unsure of a point's reference by itself."""
    common = shared.get(point.standard_id) if point.standard_id is not None else None
    if common is None:
        return point.u_reference
    own_squared = point.u_reference**2 - common**2
    return max(math.sqrt(max(own_squared, 0.0)), OWN_PART * common)


def _rows(points: Sequence[FitPoint], shared: Mapping[int, float]) -> list[list[float]]:
    return [
        [u if point.standard_id == standard else 0.0 for point in points]
        for standard, u in shared.items()
    ]


def _numbers(points: Sequence[FitPoint], standard: int) -> list[int]:
    return [number for number, one in enumerate(points, start=1) if one.standard_id == standard]


def in_words(code: str, numbers: Mapping[str, float]) -> Said:
    """One sentence on a fault, as a page or a command says it."""
    say = _SENTENCES.get(code, _unknown)
    return say({name: Number(number) for name, number in numbers.items()})


def _unknown(_: Mapping[str, Number]) -> Said:
    return Said("The fit cannot be trusted.")


_SENTENCES: Mapping[str, Callable[[Mapping[str, Number]], Said]] = {
    "points": lambda given: Said(
        "There are too few points: %(points)s, where %(least)s are needed.", **given
    ),
    "points_determine_nothing": lambda _: Said(
        "The points determine no line: all readings are the same, or the numbers are too large."
    ),
    "slope": lambda given: Said(
        "The slope is %(slope)s; a sound probe has one between %(lowest)s and %(highest)s. Exchange or clean it.",
        **given,
    ),
    "offset": lambda given: Said(
        "The offset is %(offset)s; a sound probe has one between %(lowest)s and %(highest)s. Exchange or clean it.",
        **given,
    ),
    "residual": lambda given: Said(
        "Point %(number)s lies %(residual)s beside the fit, more than %(most)s: measure it again.",
        **given,
    ),
    "scatter": lambda given: Said(
        "The points scatter %(ratio)s times as much as their uncertainties say, more than %(most)s times: measure again, or state what they are really worth.",
        **given,
    ),
    "leverage": lambda given: Said(
        "Point %(number)s alone decides a coefficient: measure another one near it.", **given
    ),
    "span": lambda given: Said(
        "The standards lie only %(span)s apart; at least %(least)s are needed.", **given
    ),
    "range": lambda given: Said(
        "The standards reach from %(lowest)s to %(highest)s, the use from %(use_lowest)s to %(use_highest)s.",
        **given,
    ),
    "turns": lambda given: Said(
        "The curve turns back at %(at)s, within its own points: take the line.", **given
    ),
    "drift": lambda given: Said(
        "At %(at)s it has changed by %(change)s in a month since the calibration before; at most %(most)s is trusted. Is the probe worn?",
        **given,
    ),
}
"""By `measurement.fits`' codes."""

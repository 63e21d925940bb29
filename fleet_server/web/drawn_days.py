"""Daily means as SVG: a dot and a line through them, in the band that the true values lie in. No script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet_server.services.day_means import DayMean, DaySeries

WIDTH, HEIGHT = 640, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 14.0, 14.0, 30.0


@dataclass(frozen=True)
class DrawnDays:
    """`bands`, `lines`: a path for each run of days without a gap; `lowest`, `highest`: of what is drawn, in the series' unit."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    bands: tuple[str, ...]
    lines: tuple[str, ...]
    lowest: float
    highest: float
    from_at: datetime
    to_at: datetime


def draw_days(series: DaySeries) -> DrawnDays | None:
    """Days that have a value; None when none has."""
    days = [day for day in reversed(series.days) if day.value is not None]
    if not days:
        return None
    lowest = min((day.value or 0.0) - (day.expanded_u or 0.0) for day in days)
    highest = max((day.value or 0.0) + (day.expanded_u or 0.0) for day in days)
    begin_s, end_s = days[0].from_at.timestamp(), days[-1].to_at.timestamp()

    def x(day: DayMean) -> float:
        middle_s = (day.from_at.timestamp() + day.to_at.timestamp()) / 2
        return _LEFT + (middle_s - begin_s) / (end_s - begin_s) * (WIDTH - _RIGHT - _LEFT)

    def y(value: float) -> float:
        if highest == lowest:
            return (HEIGHT - _BOTTOM + _TOP) / 2
        share = (value - lowest) / (highest - lowest)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP)

    def line(run: Sequence[DayMean], shift: float) -> str:
        points = [(x(day), y((day.value or 0.0) + shift * (day.expanded_u or 0.0))) for day in run]
        if len(points) == 1:  # a day by itself is a short stroke, so that it is seen
            points = [(points[0][0] - 4.0, points[0][1]), (points[0][0] + 4.0, points[0][1])]
        if shift < 0:
            points.reverse()
        return "L".join(f"{one:.1f} {other:.1f}" for one, other in points)

    runs = list(_runs(days))
    return DrawnDays(
        WIDTH,
        HEIGHT,
        _LEFT,
        WIDTH - _RIGHT,
        _TOP,
        HEIGHT - _BOTTOM,
        tuple(f"M{line(run, 1.0)}L{line(run, -1.0)}Z" for run in runs),
        tuple(f"M{line(run, 0.0)}" for run in runs),
        lowest,
        highest,
        days[0].from_at,
        days[-1].to_at,
    )


def _runs(days: Sequence[DayMean]) -> Iterator[list[DayMean]]:
    """Days that follow one another: a line over a day without values would be a claim."""
    run: list[DayMean] = []
    for day in days:
        if run and run[-1].to_at != day.from_at:
            yield run
            run = []
        run.append(day)
    yield run

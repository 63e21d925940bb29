"""Forecasts made again on measured series: the numbers and drawings of docs/city/forecasts.md.

`python -m tests.fleet_server.city.forecast_scores docs/city` draws the pictures and writes the page's table anew. Series are read from where
the tests read them (STADTSENSOR_SERIES).
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fleet_server.city import dawn_oxygen, dry_down
from fleet_server.city.backtest import CHOSEN, Case, Forecasts, Question, Stored, run
from fleet_server.city.scores import (
    LEAST_FORECASTS,
    compare,
    coverage,
    pinball,
    rmse,
    warnings_below,
)
from fleet_server.measurement.evapotranspiration import daylight_hours
from fleet_server.measurement.rules import DEFAULTS
from fleet_server.measurement.windows import DAY_S, Series
from tests.fleet_server.measurement import drawing
from tests.fleet_server.measurement.drawing import BLUE, GREY, RED, Panel
from tests.fleet_server.measurement.real_series import TABLE
from tests.fleet_server.measurement.test_quality_judges import french_creek, grand_bay, olympic_park

HORIZONS_DAYS = (1, 2, 3)
_ISSUE_H = 6
_LOW_MG_L = 4.0  # from where on the office is warned

SOIL_METHODS = {
    "as it is": dry_down.persistence,
    "line of two days": dry_down.straight_line,
    "slowing line": dry_down.slowing_line,
    "exponential fall": dry_down.exponential,
    "learned from the site": dry_down.learned,
}
SOIL_NAIVES = ("line of two days", "as it is")
SOIL_NAIVE = SOIL_NAIVES[0]
DAWN_METHODS = {
    "as yesterday": dawn_oxygen.yesterday,
    "mean of a week": dawn_oxygen.week,
    "regression on dusk and yesterday": dawn_oxygen.regression,
    "night's breathing": dawn_oxygen.breathing,
}
DAWN_NAIVE = "as yesterday"


@dataclass(frozen=True)
class Scored:
    """All forecasts of one method: value, band, truth, and the group (day) that they share."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    truth: np.ndarray
    group: np.ndarray


# ------------------------------------------------------------------------------------------------------------- soil


park = functools.cache(olympic_park)


def soil_cases(probe: Series, days: int, *, drying: bool) -> list[Case]:
    """Mornings, all or those on which the soil has been drying for two days: what it will be at the same hour some days later."""
    value = dict(zip(probe.times_s.tolist(), probe.values.tolist(), strict=True))
    first = probe.times_s[0] // DAY_S * DAY_S + _ISSUE_H * 3600
    instants = range(int(first) + 3 * DAY_S, int(probe.times_s[-1]) + 1, DAY_S)
    return [
        Case(
            Question(instant, instant + days * DAY_S),
            100.0 * value.get(instant + days * DAY_S, math.nan),
        )
        for instant in instants
        if not drying or dry_down.is_drying(probe, instant)
    ]


def per_cent(probe: Series) -> Series:
    return Series(probe.times_s, probe.values * 100.0)


@functools.cache
def soil_scores(days: int, drying: bool) -> dict[str, Scored]:
    """All probes of the park together; a day's forecasts are one group, for one irrigation wets them all."""
    collected: dict[str, list[Scored]] = {}
    for probe in park():
        asked = soil_cases(probe, days, drying=drying)
        found = run({dry_down.SOIL: Stored(per_cent(probe))}, asked, SOIL_METHODS, naive=SOIL_NAIVE)
        for name, one in found.items():
            collected.setdefault(name, []).append(scored(one, asked))
    return {name: _together(parts) for name, parts in collected.items()}


def scored(one: Forecasts, asked: Sequence[Case]) -> Scored:
    return Scored(
        np.array(one.value),
        np.array(one.low),
        np.array(one.high),
        np.array([case.truth for case in asked]),
        np.array([case.question.issued_at_s // DAY_S for case in asked]),
    )


def _together(parts: list[Scored]) -> Scored:
    return Scored(*(
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("value", "low", "high", "truth", "group")
    ))  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- dawn


Dawn = tuple[list[Case], dict[str, Forecasts]]


@functools.cache
def lagoon() -> Dawn:
    """Every night of a month in Grand Bay."""
    series = {
        dawn_oxygen.OXYGEN: grand_bay("DO_mgl")[0],
        dawn_oxygen.TEMPERATURE: grand_bay("Temp")[0],
        dawn_oxygen.SALINITY: grand_bay("Sal")[0],
    }
    sunrise_h = 12.0 - float(daylight_hours(30.36, 197)) / 2.0
    return _nights(series, dawn_oxygen.Night(sunrise_h=sunrise_h))


@functools.cache
def stream() -> Dawn:
    """Every night of French Creek; what its oxygen cannot have been is left out, row by row, as a node's reading would be."""
    oxygen = french_creek()
    least, most = DEFAULTS["dissolved_oxygen"].gross.suspect
    is_possible = (oxygen.values >= least) & (oxygen.values <= most)
    series = {
        dawn_oxygen.OXYGEN: Series(oxygen.times_s, np.where(is_possible, oxygen.values, np.nan)),
        dawn_oxygen.TEMPERATURE: french_creek("temp"),
    }
    # Summer time of the mountains: the sun rises between 6:15 and 7:10.
    return _nights(series, dawn_oxygen.Night(sunrise_h=6.7))


def _nights(series: dict[str, Series], night: dawn_oxygen.Night) -> Dawn:
    asked = dawn_oxygen.cases(series[dawn_oxygen.OXYGEN], night)
    methods = {
        name: functools.partial(method, night=night) for name, method in DAWN_METHODS.items()
    }
    stored = {name: Stored(one) for name, one in series.items()}
    return asked, run(stored, asked, methods, naive=DAWN_NAIVE)


# ------------------------------------------------------------------------------------------------------- the page


def _row(name: str, one: Scored, naives: Sequence[Scored]) -> str:
    """A method's line. Of several naive methods the one counts that is better where both have something to say: nobody beats a straw man."""
    band = coverage(one.low, one.high, one.truth)
    count = int((np.isfinite(one.value) & np.isfinite(one.truth)).sum())
    against = max(
        (compare(one.value, naive.value, one.truth, one.group) for naive in naives if naive is not one),
        key=lambda found: found.ratio,
        default=None,
    )  # fmt: skip
    said, claim = ("", "naive") if against is None else (str(against), "no claim")
    if any(naive is one for naive in naives):
        claim = "naive"
    elif against is not None and against.is_better:
        claim = "better"
    losses = [pinball(edge, one.truth, level) for edge, level in ((one.low, 0.1), (one.high, 0.9))]
    width = float(np.nanmean(one.high - one.low)) if np.isfinite(one.high).any() else math.nan
    return (
        f"| {name} | {count} | {rmse(one.value, one.truth):.2f} | {said} | {claim} | {band} | {width:.2f} |"
        f" {losses[0]:.2f}, {losses[1]:.2f} |"
    )


def soil_lines(days: int, *, drying: bool) -> list[str]:
    scores = soil_scores(days, drying)
    naives = [scores[name] for name in SOIL_NAIVES]
    when = "drying" if drying else "any morning"
    return [
        _row(f"soil water, {when}, in {days} d, % by volume: {name}", one, naives)
        for name, one in scores.items()
    ]


def dawn_lines(where: str, nights: Dawn) -> list[str]:
    asked, found = nights
    scores = {name: scored(one, asked) for name, one in found.items()}
    return [
        _row(f"least oxygen before dawn, {where}, mg/L: {name}", one, [scores[DAWN_NAIVE]])
        for name, one in scores.items()
    ]


def table() -> str:
    head = (
        "| what, method | n | RMSE | RMSE over the baseline's | | in P10–P90 | width | pinball P10, P90 |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for drying in (False, True):
        for days in HORIZONS_DAYS:
            lines += soil_lines(days, drying=drying)
    lines += dawn_lines("a lagoon", lagoon()) + dawn_lines("a stream", stream())
    lines += [
        "",
        "| nights of the lagoon below 4 mg/L | of those that came, warned of | of warnings, false |",
    ]
    lines += ["|---|---|---|"]
    asked, found = lagoon()
    for name, forecasts in found.items():
        one = scored(forecasts, asked)
        said = warnings_below(one.value, one.truth, _LOW_MG_L)
        lines.append(f"| {name} | {said.recall} | {said.false_alarms} |")
    return "\n".join(lines) + "\n"


def dawn_drawing() -> str:
    asked, found = lagoon()
    x = np.array([case.question.due_s for case in asked], dtype=float)
    truth = np.array([case.truth for case in asked])
    panels = []
    for name in (DAWN_NAIVE, CHOSEN):
        one = found[name]
        panel = Panel(
            f"Least oxygen before dawn: {name}", "mg/L", (x[0], x[-1]), (0.0, 8.0),
            drawing.days_of_month(x.astype(int)),
        )  # fmt: skip
        panel.band(x, np.array(one.low), np.array(one.high), BLUE)
        panel.line(x, np.array(one.value), BLUE, "forecast, P10–P90")
        panel.line(x, np.full_like(x, _LOW_MG_L), RED, f"{_LOW_MG_L:g} mg/L", dash="4 3")
        panel.dots(x, truth, GREY, "what came")
        panels.append(panel)
    return drawing.drawing(panels)


def soil_drawing() -> str:
    probe = park()[4]
    asked = soil_cases(probe, 2, drying=False)
    found = run({dry_down.SOIL: Stored(per_cent(probe))}, asked, SOIL_METHODS, naive=SOIL_NAIVE)
    x = np.array([case.question.due_s for case in asked], dtype=float)
    panels = []
    for name in (SOIL_NAIVE, CHOSEN):
        one = found[name]
        panel = Panel(
            f"Soil water, said two days before: {name}", "% vol", (x[0], x[-1]), (6.0, 26.0),
            drawing.days_of_month(x.astype(int), 10),
        )  # fmt: skip
        panel.band(x, np.array(one.low), np.array(one.high), BLUE)
        panel.line(x, np.array([case.truth for case in asked]), GREY, "what came", dash="3 2")
        panel.line(x, np.array(one.value), BLUE, "forecast, P10–P90")
        panels.append(panel)
    return drawing.drawing(panels)


DRAWINGS = {"forecast_dawn.svg": dawn_drawing, "forecast_soil.svg": soil_drawing}


def main() -> None:
    folder = Path(sys.argv[1])
    for name, draw in DRAWINGS.items():
        (folder / name).write_text(draw(), encoding="utf-8")
    written = table()
    sys.stdout.write(written + f"\nno claim below {LEAST_FORECASTS} forecasts\n")
    page = folder / "forecasts.md"
    if page.is_file():
        text = page.read_text(encoding="utf-8")
        page.write_text(TABLE.sub(lambda _: written, text), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What our arithmetic does to measured series, before and after: numbers and drawings of docs/measurement/real_series.md.

`python -m tests.fleet_server.measurement.real_series docs/measurement` draws the pictures and writes the page's table anew. Series are
read from where the tests read them (STADTSENSOR_SERIES).
"""

from __future__ import annotations

import csv
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fleet_server.measurement.aggregates import Readings, aggregate
from fleet_server.measurement.calibration import as_columns, calibrate
from fleet_server.measurement.derived import dissolved_oxygen
from fleet_server.measurement.drift import Check, Correction, correct, rating
from fleet_server.measurement.fits import fit_line
from fleet_server.measurement.in_context import Context, judge
from fleet_server.measurement.learning import learn
from fleet_server.measurement.quality import aggregate_flag, unpack_results
from fleet_server.measurement.rules import DEFAULTS, Rules
from fleet_server.measurement.windows import DAY_S, Series
from tests.fleet_server.measurement import drawing
from tests.fleet_server.measurement.drawing import BLUE, GREEN, GREY, ORANGE, RED, Panel
from tests.fleet_server.measurement.test_measurement_fits import _GRAVIMETRIC
from tests.fleet_server.measurement.test_quality_judges import (
    french_creek,
    grand_bay,
    olympic_park,
)

TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end of table -->)", re.DOTALL)
Row = tuple[str, str]

GRAND_BAY = {
    "Temp": "water_temperature",
    "SpCond": "conductivity_25",
    "DO_mgl": "dissolved_oxygen",
    "pH": "ph",
    "Turb": "turbidity",
}
_NAMES = {
    "water_temperature": "temperature",
    "conductivity_25": "conductivity",
    "dissolved_oxygen": "oxygen",
    "ph": "pH",
    "turbidity": "turbidity",
}
_MICROSIEMENS = {"SpCond": 1000.0}  # the provider has mS/cm
_BRACKISH_US_CM = {"fail": (0.0, 60_000.0), "suspect": (50.0, 40_000.0)}
_DATA_SHEET_U = (
    0.03  # m³/m³, what makers state; half of it as a standard uncertainty would be worse still
)


def flags_of(series: Series, rules: Rules, context: Context | None = None) -> np.ndarray:
    tests = judge(series, rules, context or Context())
    return aggregate_flag([*unpack_results(tests).values()], len(series))


# ------------------------------------------------------------------------------------------------------- flags


@dataclass(frozen=True)
class Judged:
    """A month of one column: ours, with the rules of every site and with its own, beside the provider's flags."""

    series: Series
    provider: np.ndarray
    before: np.ndarray
    after: np.ndarray


def judged(column: str) -> Judged:
    series, provider = grand_bay(column)
    series = Series(series.times_s, series.values * _MICROSIEMENS.get(column, 1.0))
    rules = DEFAULTS[GRAND_BAY[column]]
    before = flags_of(series, rules)
    accepted = np.where(provider == "<0>", 1, 4).astype(np.int16)
    # A month is what there is: its first 29 days and the last one teach, and are judged again.
    learned = learn(series, accepted, rules) or rules
    if column == "SpCond":
        # The limits are made for ponds; what water a site has, somebody has to say.
        learned = replace(learned, gross=replace(rules.gross, **_BRACKISH_US_CM))
    return Judged(series, provider, before, flags_of(series, learned))


def flag_rows() -> list[Row]:
    rows = []
    for column, name in GRAND_BAY.items():
        one = judged(column)
        has_value = np.isfinite(one.series.values)
        wrong = np.isin(one.provider, ("<1>", "<-3>")) & has_value
        for said, flags in (("", one.before), (", with the site's own limits", one.after)):
            found = (flags >= 3) & has_value
            rows.append((
                f"Grand Bay, {_NAMES[name]}{said}: values; flagged; of these by the provider, too;"
                " flagged by the provider",
                f"{has_value.sum():,}; {found.sum()}; {(found & wrong).sum()}; {wrong.sum()}",
            ))  # fmt: skip
    creek = french_creek()
    flags = flags_of(creek, DEFAULTS["dissolved_oxygen"])
    has_value = np.isfinite(creek.values)
    for said, kept in (("as measured", has_value), ("as judged", has_value & (flags < 3))):
        x = creek.values[kept]
        rows.append((
            f"French Creek, oxygen {said}: values, least, greatest, mg/L",
            f"{x.size:,}; {x.min():.2f}; {x.max():.2f}",
        ))  # fmt: skip
    return rows


def turbidity_drawing() -> str:
    one = judged("Turb")
    times, values = one.series.times_s.astype(float), one.series.values
    top = float(np.nanmax(values)) * 1.05
    panels = []
    for title, high in (
        ("Turbidity of Grand Bay, as measured", top),
        ("as judged (another scale)", 80.0),
    ):
        panels.append(
            Panel(title, "FNU", (times[0], times[-1]), (0.0, high), drawing.days_of_month(times))
        )
    rejected = one.provider == "<-3>"
    panels[0].line(times, values, BLUE)
    panels[0].dots(times[rejected], values[rejected], RED, "rejected by the provider")
    good = np.where(one.before < 3, values, np.nan)
    panels[1].line(times, good, BLUE)
    for flag, colour, name in ((3, ORANGE, "suspect"), (4, RED, "bad")):
        at = (one.before == flag) & np.isfinite(values)
        panels[1].dots(times[at], values[at], colour, f"{at.sum()} {name}")
    return drawing.drawing(panels)


# ----------------------------------------------------------------------------------------------------- oxygen


def saturation_rows() -> list[Row]:
    told, provider = grand_bay("DO_mgl")
    saturation, temperature, salinity = (grand_bay(name)[0] for name in ("DO_Pct", "Temp", "Sal"))
    ours = dissolved_oxygen(saturation.values, temperature.values, salinity.values)
    off = (told.values - ours)[(provider == "<0>") & np.isfinite(told.values) & np.isfinite(ours)]
    return [(
        "Grand Bay, oxygen: the sonde's mg/L less ours from %, temperature and salinity: values, mean,"
        " standard deviation, 99 % within, mg/L",
        f"{off.size:,}; {off.mean():+.3f}; {off.std():.3f}; {np.quantile(np.abs(off), 0.99):.3f}",
    )]  # fmt: skip


# ------------------------------------------------------------------------------------------------------ drift


@dataclass(frozen=True)
class Fouled:
    """Measured oxygen between two visits, what a probe that fouls would have shown, and what is made of it."""

    times_s: np.ndarray
    truth: np.ndarray
    shown: np.ndarray
    corrected: np.ndarray
    u: np.ndarray
    correction: Correction


FOULING, DRIFT = 0.18, 0.30  # part of the value lost at the end; mg/L lost at saturation
_U_PROBE = 0.1  # mg/L
_DAYS = (7, 21)


def fouled(power: float) -> Fouled:
    """Fouling and drift put into a fortnight, growing with a power of the time; the visit sees only how it ends."""
    series, provider = grand_bay("DO_mgl")
    day = (series.times_s - series.times_s[0]) / DAY_S
    rows = (day >= _DAYS[0]) & (day <= _DAYS[1]) & (provider == "<0>")
    times, truth = series.times_s[rows].astype(float), series.values[rows]
    f = (times - times[0]) / (times[-1] - times[0])
    grown = np.power(f, power)
    standard = 8.0
    shown = (truth * (1 - DRIFT / standard * grown)) * (1 - FOULING * grown)
    # At the visit: dirty, cleaned, and in air-saturated water.
    cleaned = truth[-1] * (1 - DRIFT / standard)
    correction = Correction(
        times[0],
        times[-1],
        fouling_relative=(cleaned - shown[-1]) / shown[-1],
        high=Check(standard, standard - DRIFT),
    )
    corrected, u = correct(times, shown, np.full_like(shown, _U_PROBE), correction)
    return Fouled(times, truth, shown, corrected, u, correction)


def drift_rows() -> list[Row]:
    rows = []
    for said, power in (("evenly", 1.0), ("with the square of the time", 2.0)):
        one = fouled(power)
        off = [float(np.sqrt(np.mean((x - one.truth) ** 2))) for x in (one.shown, one.corrected)]
        within = np.abs(one.corrected - one.truth) <= 2 * one.u
        total = abs(one.correction.fouling_relative * 5) + DRIFT
        rows.append((
            f"Grand Bay, oxygen of a fortnight with {FOULING:.0%} fouling and {DRIFT} mg/L drift put in that grow"
            f" {said}: RMSE before, after, mg/L; within k = 2 of the truth after; rating at 5 mg/L",
            f"{off[0]:.3f}; {off[1]:.3f}; {within.mean():.1%}; {rating('dissolved_oxygen', total, 5.0)}",
        ))  # fmt: skip
    return rows


def drift_drawing() -> str:
    panels = []
    for title, power in (("Oxygen, losses growing evenly", 1.0), ("… with the time's square", 2.0)):
        one = fouled(power)
        last = one.times_s >= one.times_s[-1] - 3 * DAY_S
        x = one.times_s[last]
        panel = Panel(
            title, "mg/L", (x[0], x[-1]), (2.0, 10.0), drawing.days_of_month(x.astype(int), 1)
        )
        panel.band(
            x,
            (one.corrected - 2 * one.u)[last],
            (one.corrected + 2 * one.u)[last],
            BLUE,
        )
        panel.line(x, one.shown[last], RED, "as shown, fouled")
        panel.line(x, one.truth[last], GREY, "truth", dash="3 2")
        panel.line(x, one.corrected[last], BLUE, "corrected, k = 2")
        panels.append(panel)
    return drawing.drawing(panels)


# ------------------------------------------------------------------------------------------------------- soil


def soil_rows() -> list[Row]:
    park = olympic_park()
    rules = DEFAULTS["soil_water_content"]
    alone = sum(int((flags_of(one, rules) >= 3).sum()) for one in park)
    together = 0
    for number, one in enumerate(park):
        others = tuple(other for place, other in enumerate(park) if place != number)
        together += int((flags_of(one, rules, Context(neighbours=others)) >= 3).sum())
    total = sum(len(one) for one in park)
    days = [daily(one) for one in park]
    complete = sum(int((one.completeness == 1.0).sum()) for one in days)
    return [
        (
            "Olympic Park, 13 probes: hours; flagged by themselves; flagged among their neighbours",
            f"{total:,}; {alone}; {together}",
        ),
        (
            "Olympic Park: daily means; of whole days; u of an hour and of a day, m³/m³",
            f"{sum(one.mean.size for one in days)}; {complete}; {_DATA_SHEET_U:.3f};"
            f" {float(np.nanmax(days[0].u)):.3f}",
        ),
    ]


def daily(series: Series):  # type: ignore[no-untyped-def]
    flags = np.ones(len(series), dtype=np.int16)
    readings = Readings.of(series.times_s, series.values, _DATA_SHEET_U, flags)
    first = series.times_s[0] // DAY_S * DAY_S
    edges = np.arange(first, series.times_s[-1] + DAY_S, DAY_S)
    return aggregate(readings, edges, interval_s=3600)


def soil_drawing() -> str:
    one = olympic_park()[4]
    days = daily(one)
    x = one.times_s.astype(float)
    labels = drawing.days_of_month(one.times_s, 10)
    span, ends = (0.06, 0.24), (x[0], x[-1])
    before = Panel("Soil water in the Olympic Park, hours", "m³/m³", ends, span, labels, digits=2)
    before.line(x, one.values, BLUE)
    after = Panel("days, of what was measured", "m³/m³", ends, span, labels, digits=2)
    middle = (days.from_s + days.to_s) / 2
    after.band(middle, days.mean - days.u, days.mean + days.u, BLUE)
    after.line(middle, days.mean, BLUE, "mean ± u, all of it common")
    return drawing.drawing([before, after])


# ------------------------------------------------------------------------------------------------ calibration


@dataclass(frozen=True)
class Weighed:
    x: np.ndarray
    y: np.ndarray
    station: np.ndarray
    soil: np.ndarray


def weighed() -> Weighed:
    with _GRAVIMETRIC.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    x, y = (np.array([float(row[name]) for row in rows]) for name in ("Sensor VWC", "Sample VWC"))
    station, soil = (np.array([row[name] for row in rows]) for name in ("Station ID", "Soil type"))
    return Weighed(x, y, station, soil)


def left_out(pairs: Weighed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, u and k that a line without a pair's station gives for the pair."""
    value, u, k = (np.full(pairs.x.size, np.nan) for _ in range(3))
    for station in np.unique(pairs.station):
        at = pairs.station == station
        found = fit_line(pairs.x[~at], pairs.y[~at], None).parameters
        value[at], u[at] = calibrate(pairs.x[at], np.zeros(at.sum()), as_columns(found))
        k[at] = found.k
    return value, u, k


def calibration_rows() -> list[Row]:
    pairs = weighed()
    off = pairs.x - pairs.y
    value, u, k = left_out(pairs)
    after = value - pairs.y
    clay = pairs.soil == "clay loam"
    own = fit_line(pairs.x[clay], pairs.y[clay], None)
    is_within = np.abs(off) <= 2 * _DATA_SHEET_U
    return [
        (
            "100 weighed samples, the maker's curve: mean error, RMSE, m³/m³; within k = 2 of a data sheet's 0.03",
            f"{off.mean():+.3f}; {np.sqrt((off**2).mean()):.3f}; {is_within.mean():.0%}",
        ),
        (
            "… a line through the samples of the other 39 stations: mean error, RMSE, m³/m³; u; within k·u",
            f"{after.mean():+.3f}; {np.sqrt((after**2).mean()):.3f}; {u.mean():.3f};"
            f" {(np.abs(after) <= k * u).mean():.0%}",
        ),
        (
            f"… a line of one soil (clay loam, {clay.sum()} samples): RMSE before and after, u, m³/m³",
            f"{np.sqrt((off[clay] ** 2).mean()):.3f}; {np.sqrt((own.residuals**2).mean()):.3f};"
            f" {own.parameters.u_abs:.3f}",
        ),
    ]


def calibration_drawing() -> str:
    pairs = weighed()
    found = fit_line(pairs.x, pairs.y, None).parameters
    x = np.linspace(0.0, 0.6, 25)
    line, u = calibrate(x, np.zeros_like(x), as_columns(found))
    labels = [(share, f"{share:.1f}") for share in np.arange(0.0, 0.61, 0.1)]
    span = (0.0, 0.8)
    before = Panel(
        "Weighed over shown water content, the maker's curve", "m³/m³", (0.0, 0.6), span, labels, digits=1
    )  # fmt: skip
    before.band(x, x - 2 * _DATA_SHEET_U, x + 2 * _DATA_SHEET_U, RED, "data sheet, k = 2")
    before.line(x, x, RED)
    after = Panel("a line through them", "m³/m³", (0.0, 0.6), span, labels, digits=1)
    after.band(
        x, line - found.k * u, line + found.k * u, GREEN, f"the next sample, k = {found.k:g}"
    )
    after.line(x, line, GREEN)
    for panel in (before, after):
        panel.dots(pairs.x, pairs.y, BLUE, radius=2.5)
    return drawing.drawing([before, after])


# -------------------------------------------------------------------------------------------------- the page

DRAWINGS = {
    "real_turbidity.svg": turbidity_drawing,
    "real_drift.svg": drift_drawing,
    "real_soil.svg": soil_drawing,
    "real_calibration.svg": calibration_drawing,
}
PARTS = (flag_rows, saturation_rows, drift_rows, soil_rows, calibration_rows)


def table() -> str:
    """The page's table, without the marks around it."""
    rows = [f"| {name} | {numbers} |" for part in PARTS for name, numbers in part()]
    return "\n".join(["| series: what | numbers |", "|---|---|", *rows]) + "\n"


def main() -> None:
    folder = Path(sys.argv[1])
    for name, draw in DRAWINGS.items():
        (folder / name).write_text(draw(), encoding="utf-8")
    page = folder / "real_series.md"
    written = table()
    sys.stdout.write(written)
    if page.is_file():
        text = page.read_text(encoding="utf-8")
        page.write_text(TABLE.sub(lambda _: written, text), encoding="utf-8")


if __name__ == "__main__":
    main()

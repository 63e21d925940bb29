"""Why a value is flagged: which test said what, and the numbers it went by. The words are `services.flag_reasons`'."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fleet_server.measurement.in_context import Context, Outcome, in_context
from fleet_server.measurement.quality import QualityTest, Result
from fleet_server.measurement.rules import Rules
from fleet_server.measurement.windows import Series


@dataclass(frozen=True)
class Reason:
    """One test's verdict. `kind` names its sentence, `numbers` are that sentence's parts, by name with their units."""

    test: QualityTest
    result: Result
    kind: str
    numbers: Mapping[str, float]


def explain(series: Series, rules: Rules, context: Context, row: int) -> list[Reason]:
    """Why this row of the series is suspect or bad, the worst first. Empty when it is neither.

    >>> from fleet_server.measurement.rules import DEFAULTS
    >>> series = Series([0, 900], [0.20, 0.51])
    >>> reason, = explain(series, DEFAULTS["soil_water_content"], Context(), 1)
    >>> reason.kind, round(reason.numbers["change"], 2), reason.numbers["minutes"]
    ('rose', 0.31, 15.0)
    """
    outcomes = in_context(series, rules, context, first=row)
    found = []
    for test, outcome in outcomes.items():
        result = Result(int(outcome.result[0]))
        if result < Result.SUSPECT:
            continue
        kind, numbers = _KINDS[test](_Row(outcome), rules)
        found.append(Reason(test, result, kind, numbers))
    return sorted(found, key=lambda reason: (-reason.result, reason.test))


class _Row:
    """The numbers of one row."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def __getitem__(self, name: str) -> float:
        return float(self._outcome.numbers[name][0])

    @property
    def is_bad(self) -> bool:
        return int(self._outcome.result[0]) == Result.BAD


_Said = tuple[str, dict[str, float]]


def _gross(row: _Row, rules: Rules) -> _Said:
    low, high = rules.gross.fail if row.is_bad else rules.gross.suspect
    if row["value"] < low:
        return "below", {"value": row["value"], "limit": low}
    return "above", {"value": row["value"], "limit": high}


def _climatology(row: _Row, _: Rules) -> _Said:
    return "season", {name: row[name] for name in ("value", "low", "high")}


def _spike(row: _Row, _: Rules) -> _Said:
    return "spike", {name: row[name] for name in ("departure", "expected", "believed")}


def _rate(row: _Row, _: Rules) -> _Said:
    change = row["change"]
    numbers = {
        "change": abs(change),
        "minutes": row["passed_s"] / 60.0,
        "believed": row["believed"],
    }
    if change > 0 and row["rain_mm"] >= 0.0:
        return "rose_without_rain", numbers | {"rain_mm": row["rain_mm"]}
    return "rose" if change > 0 else "fell", numbers


def _flat_line(row: _Row, rules: Rules) -> _Said:
    tolerance = rules.flat_line.tolerance if rules.flat_line else math.nan
    return "flat", {"hours": row["hours"], "tolerance": tolerance}


def _attenuated(row: _Row, _: Rules) -> _Said:
    return "attenuated", {"moved": row["moved"], "needed": row["needed"]}


def _neighbour(row: _Row, _: Rules) -> _Said:
    apart = row["apart"]
    numbers = {"apart": abs(apart), "believed": row["believed"], "neighbours": row["neighbours"]}
    return "above_neighbours" if apart > 0 else "below_neighbours", numbers


def _frost(row: _Row, _: Rules) -> _Said:
    return "frost", {"soil_c": row["soil_c"]}


def _exposed(row: _Row, _: Rules) -> _Said:
    return "exposed", {"ratio_pct": 100.0 * row["ratio"]}


def _out_of_water(row: _Row, rules: Rules) -> _Said:
    limits = rules.out_of_water
    if limits and row["conductivity"] < limits.conductivity_us_cm:
        return "dry_by_conductivity", {
            "conductivity_us_cm": row["conductivity"],
            "limit": limits.conductivity_us_cm,
        }
    if limits and row["level"] <= limits.level_m:
        return "dry_by_level", {"level_m": row["level"], "limit": limits.level_m}
    return "dry_by_warmth", {"ratio_pct": 100.0 * row["ratio"]}


def _fouling(row: _Row, _: Rules) -> _Said:
    kind = "fading" if row["is_fading"] else "fouling"
    return kind, {"total": row["total"], "alarm": row["alarm"]}


def _probe(row: _Row, rules: Rules) -> _Said:
    if rules.mismatch and row["apart_mg_l"] > rules.mismatch.most:
        return "mismatch", {"apart": row["apart_mg_l"], "expected": row["expected"]}
    if rules.blocked_vent and row["correlation"] > rules.blocked_vent.correlation:
        return "blocked_vent", {"correlation": row["correlation"]}
    return "cracked_glass", {"hours": row["glass_hours"]}


def _service(_row: _Row, _: Rules) -> _Said:
    return "service", {}


def _time(_row: _Row, _: Rules) -> _Said:
    return "time", {}


_KINDS: Final[Mapping[QualityTest, Callable[[_Row, Rules], _Said]]] = {
    QualityTest.GROSS_RANGE: _gross,
    QualityTest.CLIMATOLOGY: _climatology,
    QualityTest.SPIKE: _spike,
    QualityTest.RATE_OF_CHANGE: _rate,
    QualityTest.FLAT_LINE: _flat_line,
    QualityTest.ATTENUATED: _attenuated,
    QualityTest.NEIGHBOUR: _neighbour,
    QualityTest.FROST: _frost,
    QualityTest.EXPOSED: _exposed,
    QualityTest.OUT_OF_WATER: _out_of_water,
    QualityTest.FOULING: _fouling,
    QualityTest.SERVICE_WINDOW: _service,
    QualityTest.TIME: _time,
    QualityTest.PROBE: _probe,
}

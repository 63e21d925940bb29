"""Quality tests that need other times or other streams.

Every result is that of a row and of what lies within a stated time of it (`look_back_s`, `look_ahead_s`), never of how much else is in
the array: so a series may be judged in one piece or in many (`streaming`), with the same results. Values that are no value, out of their
gross range, or taken while somebody worked on the probe are no company for others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.measurement.derived import oxygen_saturation, salinity
from fleet_server.measurement.quality import QualityTest, Result, TestArray, pack_results
from fleet_server.measurement.rules import (
    DAY_S,
    HOUR_S,
    Exposed,
    Fouling,
    Neighbour,
    OutOfWater,
    Rules,
    Season,
)
from fleet_server.measurement.windows import (
    BoolArray,
    Days,
    FloatArray,
    IndexArray,
    Series,
    TimeArray,
    day_statistic,
    days_of,
    lowest_near,
    median_before,
    median_of_known,
    nearest,
    sliding_range,
)

SmallArray = NDArray[np.int8]

NEIGHBOURS_LEAST: Final = 3
BASELINE_DAYS: Final = 14
LEVEL_DAYS: Final = 30
FOULING_DAYS: Final = 90  # after that what was clean once says little

_PIECE_ROWS: Final = 32_768
_BASELINE_LEAST: Final = 7
_LEVEL_LEAST: Final = 10
_BESIDE_S: Final = 1800  # a row of another stream is of the same moment
_AMPLITUDE_S: Final = HOUR_S
_FROST_S: Final = HOUR_S
_GAP_SHARE: Final = 0.25  # of a window that may pass without a row
_AIR_LEAST_K: Final = 5.0  # a day on which the air moves less says nothing of who follows it
# A normal distribution's standard deviation over its median absolute deviation: 1/Φ⁻¹(3/4).
MAD_TO_SD: Final = 1.4826
_SAME_MOMENT_S: Final = 60
_RAIN_S: Final = 6 * HOUR_S
_ANY_PRESSURE_HPA: Final = (960.0, 1030.0)  # any weather up to 400 m above the sea
_NEUTRAL_PH: Final = 7.0
_VENT_DAYS: Final = 7
_VENT_DAYS_LEAST: Final = 5
_VENT_ROWS_A_DAY: Final = 8
_STEP_MOST: Final = 3.0  # one stormy day is no trend
_SPREAD_LEAST: Final = 0.05  # of the clean days' median


@dataclass(frozen=True)
class Context:
    """What else is known of a series' time; every part may be missing.

    Attributes:
        neighbours: the same property at other probes, in the same unit.
        air_temperature, soil_temperature, water_temperature: °C, at the same site.
        conductivity: µS/cm at 25 °C in the same water.
        level: m, of the same water.
        oxygen_saturation: %, of the same probe.
        air_pressure: hPa at the place; rain: mm fallen since the row before. No node model measures either yet.
        services: (from, to) in UTC seconds, rising and apart, when somebody worked on the probe; its mounting is one of them.
    """

    neighbours: tuple[Series, ...] = ()
    air_temperature: Series | None = None
    soil_temperature: Series | None = None
    water_temperature: Series | None = None
    conductivity: Series | None = None
    level: Series | None = None
    oxygen_saturation: Series | None = None
    air_pressure: Series | None = None
    rain: Series | None = None
    services: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """One test's results and the numbers they were found by, shape (n,) each; NaN where a row was not judged."""

    result: SmallArray
    numbers: Mapping[str, FloatArray] = field(default_factory=dict)


def in_context(
    series: Series, rules: Rules, context: Context, *, first: int = 0
) -> dict[QualityTest, Outcome]:
    """The results of all tests that the rules ask for, for the rows from `first` on; earlier rows are company.

    Args:
        series: one channel, published unit. Rows before `look_back_s` before row `first` change nothing.
        rules: limits in the same unit.
        context: the streams beside it, over the same time and `look_ahead_s` more.
        first: row of the series, 0 … n.

    Returns:
        By test, arrays of n − first rows. Tests that the rules do not ask for are not there.

    >>> spiky = Series([0, 900, 1800], [0.20, 0.42, 0.22])
    >>> from fleet_server.measurement.rules import Rules, Spike
    >>> from fleet_server.measurement.quality import GROSS_RANGES
    >>> rules = Rules(GROSS_RANGES["soil_water_content"], spike=Spike(0.05, 0.10))
    >>> in_context(spiky, rules, Context())[QualityTest.SPIKE].result.tolist()
    [0, 3, 0]
    """
    asked = series.slice(first)
    outcomes = {
        QualityTest.GROSS_RANGE: _gross(asked, rules),
        QualityTest.SERVICE_WINDOW: _service_window(asked, context),
        QualityTest.TIME: _time(asked),
    }
    rows = _usable(series, rules, context)
    for test, one in _TESTS.items():
        if not one.is_on(rules):
            continue
        if not len(asked):
            outcomes[test] = Outcome(np.zeros(0, dtype=np.int8))
            continue
        start = int(np.searchsorted(rows.times_s, asked.times_s[0] - one.back_s(rules)))
        part = rows.since(start)
        outcomes[test] = _spread(part, one.judge(part, rules, context), first, len(series))
    return outcomes


def judge(series: Series, rules: Rules, context: Context, *, first: int = 0) -> TestArray:
    """`in_context` as `quality.pack_results` has it: two bits for each test, shape (n − first,).

    Long series go through in pieces that a processor's cache holds, each with as much around it as its tests look at.
    """
    return np.concatenate(
        [
            _judge_piece(series, rules, context, first=begin, end=begin + _PIECE_ROWS)
            for begin in range(first, max(len(series), first + 1), _PIECE_ROWS)
        ]
    )


def _judge_piece(
    series: Series, rules: Rules, context: Context, *, first: int, end: int
) -> TestArray:
    start, stop = first, min(end, len(series))
    if start < stop:
        earliest_s = series.times_s[first] - look_back_s(rules)
        latest_s = series.times_s[stop - 1] + look_ahead_s(rules)
        start = int(np.searchsorted(series.times_s, earliest_s))
        stop = int(np.searchsorted(series.times_s, latest_s, side="right"))
    outcomes = in_context(series.slice(start, stop), rules, context, first=first - start)
    results = {test: outcome.result for test, outcome in outcomes.items()}
    return pack_results(results, stop - first)[: end - first]


def look_back_s(rules: Rules) -> int:
    """How much time before a row its results depend on."""
    return max((one.back_s(rules) for one in _TESTS.values() if one.is_on(rules)), default=0)


def look_ahead_s(rules: Rules) -> int:
    """How much time after a row its results depend on."""
    return max((one.ahead_s(rules) for one in _TESTS.values() if one.is_on(rules)), default=0)


# ------------------------------------------------------------------------------------------------------------------ rows


@dataclass(frozen=True)
class _Rows:
    """The rows of a series that are company for each other, one after the other."""

    place: IndexArray
    """Where they are in the series."""
    times_s: TimeArray
    values: FloatArray
    service: IndexArray | None
    """How many services had begun before each; None: none at all."""

    def since(self, start: int) -> _Rows:
        """Those from `start` on."""
        service = None if self.service is None else self.service[start:]
        return _Rows(self.place[start:], self.times_s[start:], self.values[start:], service)

    def is_apart(self) -> BoolArray | None:
        """Whether a service lies between a row and the one before, shape (n − 1,)."""
        return None if self.service is None else self.service[1:] != self.service[:-1]


def _usable(series: Series, rules: Rules, context: Context) -> _Rows:
    low, high = rules.gross.fail
    is_usable = (series.values >= low) & (series.values <= high) & (np.abs(series.values) < np.inf)
    service = None
    if context.services:
        service, is_in = _services(series.times_s, context)
        is_usable &= ~is_in
    if is_usable.all():
        return _Rows(np.arange(len(series)), series.times_s, series.values, service)
    place = np.flatnonzero(is_usable)
    if service is not None:
        service = service[place]
    return _Rows(place, series.times_s[place], series.values[place], service)


def _services(times_s: TimeArray, context: Context) -> tuple[IndexArray, BoolArray]:
    begin, end = np.array(context.services, dtype=np.int64).T
    begun = np.searchsorted(begin, times_s, side="right")
    return begun, (begun > 0) & (times_s < end[np.maximum(begun - 1, 0)])


def _spread(rows: _Rows, outcome: Outcome, first: int, length: int) -> Outcome:
    """An outcome of usable rows as one of all rows of the series from `first` on."""
    skipped = int(np.searchsorted(rows.place, first))
    place = rows.place[skipped:] - first
    if place.size == length - first:
        return Outcome(
            outcome.result[skipped:],
            {name: known[skipped:] for name, known in outcome.numbers.items()},
        )
    result = np.zeros(length - first, dtype=np.int8)
    result[place] = outcome.result[skipped:]
    numbers = {}
    for name, known in outcome.numbers.items():
        numbers[name] = np.full(length - first, np.nan)
        numbers[name][place] = known[skipped:]
    return Outcome(result, numbers)


def _judged(
    is_judged: BoolArray, is_suspect: BoolArray, is_bad: BoolArray | None = None
) -> SmallArray:
    result = np.where(is_suspect, np.int8(Result.SUSPECT), np.int8(Result.GOOD))
    if is_bad is not None:
        result[is_bad] = Result.BAD
    result[~is_judged] = Result.NOT_EVALUATED
    return result


def _nothing(rows: _Rows) -> Outcome:
    return Outcome(np.zeros(rows.times_s.size, dtype=np.int8))


# ------------------------------------------------------------------------------------------------------- alone in a row


def _service_window(series: Series, context: Context) -> Outcome:
    if not context.services:
        return Outcome(np.zeros(len(series), dtype=np.int8))
    _, is_in = _services(series.times_s, context)
    result = np.where(is_in, np.int8(Result.BAD), np.int8(Result.GOOD))
    return Outcome(_of_values(series, result))


def _time(series: Series) -> Outcome:
    result = np.full(len(series), Result.GOOD, dtype=np.int8)
    if series.is_estimated is not None:
        result[series.is_estimated] = Result.SUSPECT
    return Outcome(_of_values(series, result))


def _of_values(series: Series, result: SmallArray) -> SmallArray:
    """Where there is no value there is nothing to judge."""
    result[np.isnan(series.values)] = Result.NOT_EVALUATED
    return result


def _gross(series: Series, rules: Rules) -> Outcome:
    """QARTOD test 4, by these rules."""
    (low, high), (suspect_low, suspect_high) = rules.gross.fail, rules.gross.suspect
    values = series.values
    is_suspect = (values < suspect_low) | (values > suspect_high)
    is_bad = (values < low) | (values > high)
    return Outcome(_judged(~np.isnan(values), is_suspect, is_bad), {"value": values})


def _climatology(rows: _Rows, rules: Rules, _: Context) -> Outcome:
    """QARTOD test 5: the span of each season that a row's day lies in; where several do, the last one counts."""
    day = _day_of_year(rows.times_s)
    low, high = np.full(day.shape, np.nan), np.full(day.shape, np.nan)
    for season in rules.climatology:
        within = _in_season(day, season)
        low[within], high[within] = season.low, season.high
    is_suspect = (rows.values < low) | (rows.values > high)
    return Outcome(
        _judged(~np.isnan(low), is_suspect), {"value": rows.values, "low": low, "high": high}
    )


def _day_of_year(times_s: TimeArray) -> NDArray[np.int64]:
    days = (times_s // DAY_S).astype("datetime64[D]")
    in_year: NDArray[np.int64] = (days - days.astype("datetime64[Y]")).astype(np.int64)
    return in_year + 1


def _in_season(day: NDArray[np.int64], season: Season) -> BoolArray:
    if season.from_day <= season.to_day:
        return (day >= season.from_day) & (day <= season.to_day)
    return (day >= season.from_day) | (day <= season.to_day)


# ------------------------------------------------------------------------------------------------------ the row's own past


def _spike(rows: _Rows, rules: Rules, _: Context) -> Outcome:
    """QARTOD test 6: |x − line between the neighbours in time| above a limit, first and last not judged.

    Between neighbours equally far away the line is their mean, as ioos_qc has it.
    """
    limits = rules.spike
    size = rows.times_s.size
    if limits is None or size < 3:
        return _nothing(rows)
    step_s = np.diff(rows.times_s)
    before_s, after_s = step_s[:-1], step_s[1:]
    share = before_s / (before_s + after_s)
    expected = np.full(size, np.nan)
    expected[1:-1] = rows.values[:-2] * (1.0 - share) + rows.values[2:] * share
    departure = np.abs(rows.values - expected)
    suspect, fail = limits.suspect, limits.fail
    unit = np.abs(expected) if limits.is_relative else 1.0
    is_judged = np.zeros(size, dtype=np.bool_)
    is_judged[1:-1] = np.maximum(before_s, after_s) <= limits.within_s
    is_apart = rows.is_apart()
    if is_apart is not None:
        is_judged[1:-1] &= ~(is_apart[:-1] | is_apart[1:])
    is_bad = departure > fail * unit
    return Outcome(
        _judged(is_judged, departure > suspect * unit, is_bad),
        {
            "departure": departure,
            "expected": expected,
            "believed": np.where(is_bad, fail, suspect) * unit,
        },
    )


def _rate(rows: _Rows, rules: Rules, context: Context) -> Outcome:
    """QARTOD test 7: change since the row before, per second, above what is believed; the first is not judged.

    A rise after rain is believed, where the rules say how much of it explains one and rain is known.
    """
    limits = rules.rate
    size = rows.times_s.size
    if limits is None or size < 2:
        return _nothing(rows)
    change, passed_s = np.full(size, np.nan), np.full(size, np.nan)
    np.subtract(rows.values[1:], rows.values[:-1], out=change[1:])
    np.subtract(rows.times_s[1:], rows.times_s[:-1], out=passed_s[1:], casting="unsafe")
    is_judged = passed_s <= limits.within_s
    is_apart = rows.is_apart()
    if is_apart is not None:
        is_judged[1:] &= ~is_apart
    counted_s = np.maximum(passed_s, limits.least_s)
    rate = change / counted_s
    limit = np.where(change > 0, limits.rise_per_h / HOUR_S, limits.fall_per_h / HOUR_S)
    if limits.is_relative:
        limit[1:] *= np.abs(rows.values[:-1])
    is_suspect = np.abs(rate) > limit
    rain_mm = np.full(size, np.nan)
    if context.rain is not None and limits.rain_mm < math.inf:
        for row in np.flatnonzero(is_suspect & (change > 0)).tolist():
            rain_mm[row] = _fallen(context.rain, int(rows.times_s[row]))
        is_suspect &= ~(rain_mm >= limits.rain_mm)
    return Outcome(
        _judged(is_judged, is_suspect),
        {"change": change, "passed_s": passed_s, "believed": limit * counted_s, "rain_mm": rain_mm},
    )


def _fallen(rain: Series, at_s: int) -> float:
    """Millimetres of the last 6 h; NaN where nobody looked."""
    first, last = np.searchsorted(rain.times_s, [at_s - _RAIN_S, at_s], side="right")
    known = [one for one in rain.values[first:last].tolist() if math.isfinite(one)]
    return math.fsum(known) if known else math.nan


def _flat_line(rows: _Rows, rules: Rules, _: Context) -> Outcome:
    """QARTOD test 8: the range since the last row that is as old as the time asked for, below the tolerance.

    Judged by time, not by number of rows: on irregular rows ioos_qc counts rows of the median distance. A row is judged when its
    past reaches as far, without a gap longer than a quarter of it.
    """
    limits = rules.flat_line
    size = rows.times_s.size
    if limits is None or size < 2:
        return _nothing(rows)
    runs = _quiet_since(rows, limits.tolerance)
    is_suspect, is_judged = _is_flat(rows, limits.suspect_s, limits.tolerance, runs)
    is_bad = _is_flat(rows, limits.fail_s, limits.tolerance, runs)[0] if is_suspect.any() else None
    if limits.legit_low <= limits.legit_high:
        is_legit = (rows.values >= limits.legit_low) & (rows.values <= limits.legit_high)
        is_suspect &= ~is_legit
        is_bad = None if is_bad is None else is_bad & ~is_legit
    hours = np.full(size, limits.suspect_s / HOUR_S)
    if is_bad is not None:
        hours[is_bad] = limits.fail_s / HOUR_S
    return Outcome(_judged(is_judged, is_suspect, is_bad), {"hours": hours})


def _quiet_since(rows: _Rows, tolerance: float) -> IndexArray:
    """The first row from which on no step was as large as the tolerance: a flat line is at least that."""
    place = np.zeros(rows.times_s.size, dtype=np.intp)
    moved = np.flatnonzero(np.abs(np.diff(rows.values)) >= tolerance) + 1
    place[moved] = moved
    return np.maximum.accumulate(place)


def _is_flat(
    rows: _Rows, window_s: int, tolerance: float, quiet_since: IndexArray
) -> tuple[BoolArray, BoolArray]:
    """Whether each row ends a flat line that is as long, and whether that could be judged at all."""
    start = np.searchsorted(rows.times_s, rows.times_s - window_s, side="right") - 1
    known = np.maximum(start, 0)
    is_judged = (start >= 0) & ~_has_gap(rows.times_s, known, window_s)
    maybe = is_judged & (quiet_since <= known)
    # The range is at least what lies between its ends: a slow rise is found out without it.
    maybe &= np.abs(rows.values - rows.values[known]) < tolerance
    if not maybe.any():
        return maybe, is_judged
    return maybe & (sliding_range(rows.values, known) < tolerance), is_judged


def _has_gap(times_s: TimeArray, start: IndexArray, window_s: int) -> BoolArray:
    """Whether more than a quarter of the window passes without a row between `start` and each row."""
    far = np.diff(times_s) > window_s * _GAP_SHARE
    if not far.any():
        return np.zeros(times_s.size, dtype=np.bool_)
    count = np.concatenate([[0], np.cumsum(far)])
    return np.asarray(count > count[start])


def _trailing_range(times_s: TimeArray, values: FloatArray, window_s: int) -> FloatArray:
    """Highest minus lowest of the rows later than `window_s` before each; NaN where more than a quarter of that was not seen."""
    start = np.searchsorted(times_s, times_s - window_s, side="right")
    is_seen = times_s - times_s[start] >= window_s * (1.0 - _GAP_SHARE)
    is_seen &= ~_has_gap(times_s, start, window_s)
    return np.where(is_seen, sliding_range(values, start), np.nan)


def _attenuated(rows: _Rows, rules: Rules, _: Context) -> Outcome:
    """QARTOD test 11's idea: the last 24 h moved less than they must, by what is usual here."""
    limits = rules.attenuated
    if limits is None or not rows.times_s.size:
        return _nothing(rows)
    moved = _trailing_range(rows.times_s, rows.values, DAY_S)
    days = days_of(rows.times_s)
    daily = day_statistic(rows.times_s, rows.values, days, "range")
    usual = median_before(daily, BASELINE_DAYS, least=_BASELINE_LEAST)[days.place]
    needed = np.fmax(limits.least, limits.share * usual)
    is_judged = ~np.isnan(moved)
    return Outcome(_judged(is_judged, moved < needed), {"moved": moved, "needed": needed})


def _fouling(rows: _Rows, rules: Rules, context: Context) -> Outcome:
    """Cumulative sum (Page 1954, Biometrika 41, 100–115) of daily statistics since the last service, after 14 clean days."""
    limits = rules.fouling
    if limits is None or not context.services or not rows.times_s.size:
        return _nothing(rows)
    times_s, values, statistic = rows.times_s, rows.values, limits.statistic
    if statistic == "saturation":
        times_s, values, statistic = *_saturated(rows, context), "high"
    if not times_s.size:
        return _nothing(rows)
    days = days_of(times_s)
    sums = np.full(len(days), np.nan)
    daily = day_statistic(times_s, values, days, statistic)
    is_fading = statistic == "high"
    for origin, end in _clean_spans(days, context):
        begin = max(origin, 0)
        if is_fading:
            sums[begin:end] = _fading(daily[begin:end], limits, passed_days=begin - origin)
        else:
            sums[begin:end] = _cumulative(daily[begin:end], limits)
    place = rows.times_s // DAY_S - days.first
    is_known = (place >= 0) & (place < sums.size)
    total = np.where(is_known, sums[np.clip(place, 0, sums.size - 1)], np.nan)
    return Outcome(
        _judged(~np.isnan(total), total > limits.alarm),
        {
            "total": total,
            "alarm": np.full(total.shape, limits.alarm),
            "is_fading": np.full(total.shape, float(is_fading)),
        },
    )


def _saturated(rows: _Rows, context: Context) -> tuple[TimeArray, FloatArray]:
    """Share of what fresh water of that warmth holds; only how it changes counts, so weather and salt are left out."""
    if context.water_temperature is None:
        return rows.times_s[:0], rows.values[:0]
    water_c = nearest(context.water_temperature, rows.times_s, _BESIDE_S)
    share = rows.values / oxygen_saturation(water_c)
    known = np.flatnonzero(~np.isnan(share))
    return rows.times_s[known], share[known]


def _fading(daily: FloatArray, limits: Fouling, *, passed_days: int) -> FloatArray:
    """For each day the sum before it of how far days fell below the median of the `BASELINE_DAYS` before them; NaN during the first.

    `passed_days` of them passed unseen before the first that is given.
    """
    sums = np.full(daily.size, np.nan)
    total = 0.0
    for day in range(max(BASELINE_DAYS - passed_days, 0), daily.size):
        before = daily[max(day - BASELINE_DAYS, 0) : day]
        before = before[~np.isnan(before)]
        if before.size < _BASELINE_LEAST:
            continue
        sums[day] = total
        if math.isnan(daily[day]):
            continue
        usual = float(median_of_known(before, least=1))
        spread = MAD_TO_SD * float(median_of_known(np.abs(before - usual), least=1))
        spread = max(spread, _SPREAD_LEAST * abs(usual))
        if spread > 0.0:
            step = min((usual - float(daily[day])) / spread, _STEP_MOST)
            total = max(0.0, total + step - limits.slack)
    return sums


def _clean_spans(days: Days, context: Context) -> list[tuple[int, int]]:
    """Places of days from the one after a service to that of the next, at most `FOULING_DAYS`."""
    ends = [end // DAY_S - days.first + 1 for _, end in context.services]
    begins = [begin // DAY_S - days.first for begin, _ in context.services][1:]
    spans = []
    for origin, next_begin in zip(ends, [*begins, len(days)], strict=True):
        end = min(next_begin, origin + FOULING_DAYS, len(days))
        # One may begin before the first row: no day of the span is missing that was seen.
        if max(origin, 0) < end:
            spans.append((origin, end))
    return spans


def _cumulative(daily: FloatArray, limits: Fouling) -> FloatArray:
    """For each day the sum before it; NaN during the first `BASELINE_DAYS` that are known."""
    sums = np.full(daily.size, np.nan)
    known = np.flatnonzero(~np.isnan(daily))
    if known.size < BASELINE_DAYS:
        return sums
    clean = daily[known[:BASELINE_DAYS]]
    usual = float(median_of_known(clean, least=1))
    spread = MAD_TO_SD * float(median_of_known(np.abs(clean - usual), least=1))
    spread = max(spread, _SPREAD_LEAST * abs(usual))
    if spread == 0.0:
        return sums
    sign = -1.0 if limits.statistic == "range" else 1.0
    total = 0.0
    for day in range(int(known[BASELINE_DAYS - 1]) + 1, daily.size):
        sums[day] = total
        if not math.isnan(daily[day]):
            step = min(sign * (float(daily[day]) - usual) / spread, _STEP_MOST)
            total = max(0.0, total + step - limits.slack)
    return sums


# ------------------------------------------------------------------------------------------------------- other streams


def _neighbour(rows: _Rows, rules: Rules, context: Context) -> Outcome:
    """How far a probe goes another way than its neighbours, all of them less their own level of the last 30 days.

    Beyond 3.5 of its usual deviations (modified z-score: Iglewicz and Hoaglin 1993), and never within the floor.
    """
    limits: Neighbour | None = rules.neighbour
    if limits is None or len(context.neighbours) < NEIGHBOURS_LEAST or not rows.times_s.size:
        return _nothing(rows)
    others = np.stack(
        [
            nearest(other, rows.times_s, _BESIDE_S) - _level(other, rows.times_s)
            for other in context.neighbours
        ],
        axis=-1,
    )
    own = rows.values - _level(Series(rows.times_s, rows.values), rows.times_s)
    residual = own - median_of_known(others, least=NEIGHBOURS_LEAST)
    apart = np.abs(residual)
    known = np.flatnonzero(~np.isnan(apart))
    believed = np.full(apart.shape, np.nan)
    if known.size:
        days = days_of(rows.times_s[known])
        daily = day_statistic(rows.times_s[known], apart[known], days, "median")
        usual = median_before(daily, LEVEL_DAYS, least=_LEVEL_LEAST)[days.place]
        believed[known] = np.maximum(limits.floor, limits.deviations * MAD_TO_SD * usual)
    is_judged = ~np.isnan(believed) & ~np.isnan(apart)
    return Outcome(
        _judged(is_judged, apart > believed),
        {
            "apart": residual,
            "believed": believed,
            "neighbours": np.isfinite(others).sum(axis=-1).astype(np.float64),
        },
    )


def _level(series: Series, times_s: TimeArray) -> FloatArray:
    """The series' median of the 30 days before the day of each time."""
    known = np.flatnonzero(np.isfinite(series.values))
    if not known.size:
        return np.full(times_s.shape, np.nan)
    own_times, values = series.times_s[known], series.values[known]
    days = days_of(own_times)
    daily = day_statistic(own_times, values, days, "median")
    # One day more: after the last one of the series its level is known, too.
    levels = median_before(np.append(daily, np.nan), LEVEL_DAYS, least=_LEVEL_LEAST)
    place = times_s // DAY_S - days.first
    is_known = (place >= 0) & (place < levels.size)
    return np.where(is_known, levels[np.clip(place, 0, levels.size - 1)], np.nan)


def _frost(rows: _Rows, rules: Rules, context: Context) -> Outcome:
    """Frozen soil, as ISMN has it: colder than 0 °C within an hour before or after."""
    if rules.frost is None or context.soil_temperature is None:
        return _nothing(rows)
    lowest = lowest_near(context.soil_temperature, rows.times_s, _FROST_S)
    is_frozen = lowest < rules.frost.below_c
    return Outcome(_judged(~np.isnan(lowest), is_frozen), {"soil_c": lowest})


def _exposed(rows: _Rows, rules: Rules, context: Context) -> Outcome:
    """A soil probe in the air: over a day it moves as the air does, and what it measures is dry."""
    limits: Exposed | None = rules.exposed
    if limits is None or context.air_temperature is None or not rows.times_s.size:
        return _nothing(rows)
    by_temperature = math.isinf(limits.drier_than)
    own = Series(rows.times_s, rows.values) if by_temperature else context.soil_temperature
    if own is None:
        return _nothing(rows)
    ratio = _amplitude_ratio(own, context.air_temperature, rows.times_s)
    is_exposed = ratio > limits.ratio
    if not by_temperature:
        is_exposed &= rows.values < limits.drier_than
    return Outcome(_judged(~np.isnan(ratio), is_exposed), {"ratio": ratio})


def _out_of_water(rows: _Rows, rules: Rules, context: Context) -> Outcome:
    """A water probe in the air: bad when conductivity or level say so, suspect when its warmth follows the air's."""
    limits: OutOfWater | None = rules.out_of_water
    if limits is None or not rows.times_s.size:
        return _nothing(rows)
    nowhere = np.full(rows.times_s.size, np.nan)
    conductivity, level, ratio = nowhere, nowhere, nowhere
    if context.conductivity is not None:
        conductivity = nearest(context.conductivity, rows.times_s, _BESIDE_S)
    if context.level is not None:
        level = nearest(context.level, rows.times_s, _BESIDE_S)
    if context.air_temperature is not None and context.water_temperature is not None:
        ratio = _amplitude_ratio(context.water_temperature, context.air_temperature, rows.times_s)
    is_bad = (conductivity < limits.conductivity_us_cm) | (level <= limits.level_m)
    is_judged = ~(np.isnan(conductivity) & np.isnan(level) & np.isnan(ratio))
    return Outcome(
        _judged(is_judged, ratio > limits.ratio, is_bad),
        {"conductivity": conductivity, "level": level, "ratio": ratio},
    )


def _probe(rows: _Rows, rules: Rules, context: Context) -> Outcome:
    """What a probe of this property shows when it is broken; each property has one such sign."""
    outcomes = [one(rows, rules, context) for one in (_mismatch, _cracked_glass, _blocked_vent)]
    result = np.max([one.result for one in outcomes], axis=0)
    numbers = {name: known for one in outcomes for name, known in one.numbers.items()}
    return Outcome(result.astype(np.int8), numbers)


def _mismatch(rows: _Rows, rules: Rules, context: Context) -> Outcome:
    """Oxygen beside the saturation of the same probe: mg/L = %/100 · Cs(T, S, P) (Benson and Krause 1984), for any usual air pressure.

    Without a conductivity beside it the water is taken for fresh.
    """
    limits, saturation, water = (
        rules.mismatch,
        context.oxygen_saturation,
        context.water_temperature,
    )
    nowhere = np.full(rows.times_s.size, np.nan)
    if limits is None or saturation is None or water is None or not rows.times_s.size:
        return Outcome(np.zeros(rows.times_s.size, dtype=np.int8), {"apart_mg_l": nowhere})
    share = nearest(saturation, rows.times_s, _SAME_MOMENT_S) / 100.0
    water_c = nearest(water, rows.times_s, _SAME_MOMENT_S)
    salt = np.zeros(rows.times_s.size)
    if context.conductivity is not None:
        salt = salinity(nearest(context.conductivity, rows.times_s, _BESIDE_S))
    low, high = (share * oxygen_saturation(water_c, salt, hpa) for hpa in _ANY_PRESSURE_HPA)
    apart = np.maximum(np.maximum(low - rows.values, rows.values - high), 0.0)
    return Outcome(
        _judged(~np.isnan(apart), apart > limits.most),
        {"apart_mg_l": apart, "expected": (low + high) / 2.0},
    )


def _cracked_glass(rows: _Rows, rules: Rules, _: Context) -> Outcome:
    """A day of pH 7 that hardly moves: inside and outside of the glass are one."""
    limits = rules.cracked_glass
    if limits is None or rows.times_s.size < 2:
        return _nothing(rows)
    quiet = _quiet_since(rows, limits.tolerance)
    is_flat, is_judged = _is_flat(rows, limits.window_s, limits.tolerance, quiet)
    is_cracked = is_flat & (np.abs(rows.values - _NEUTRAL_PH) <= limits.within)
    hours = np.where(is_cracked, limits.window_s / HOUR_S, np.nan)
    return Outcome(_judged(is_judged, is_cracked), {"glass_hours": hours})


def _blocked_vent(rows: _Rows, rules: Rules, context: Context) -> Outcome:
    """Correlation (Pearson's) of level and air pressure over the seven UTC days before a row's own.

    A gauge whose vent is blocked measures the air with the water: 1 hPa is 1 cm.
    """
    limits = rules.blocked_vent
    if limits is None or context.air_pressure is None or not rows.times_s.size:
        return Outcome(
            np.zeros(rows.times_s.size, dtype=np.int8),
            {"correlation": np.full(rows.times_s.size, np.nan)},
        )
    days = days_of(rows.times_s)
    pressure = nearest(context.air_pressure, rows.times_s, _BESIDE_S) - 1000.0
    known = np.flatnonzero(~np.isnan(pressure))
    level, pressure = rows.values[known], pressure[known]
    # One day more than there are: after the last its sums are known, too.
    length = len(days) + _VENT_DAYS
    sums = [
        _sum_before(
            np.bincount(days.place[known], weights=part, minlength=length).astype(np.float64)
        )
        for part in (
            np.ones(known.size),
            level,
            pressure,
            level * level,
            pressure * pressure,
            level * pressure,
        )
    ]
    count, of_level, of_pressure, squares, pressure_squares, products = sums
    spread = count * squares - of_level * of_level
    pressure_spread = count * pressure_squares - of_pressure * of_pressure
    full = np.bincount(days.place[known], minlength=length) >= _VENT_ROWS_A_DAY
    is_known = (_sum_before(full.astype(np.float64)) >= _VENT_DAYS_LEAST) & (spread > 0.0)
    # The weather has to change: a standard deviation of 3 hPa.
    is_known &= pressure_spread > (3.0 * count) * (3.0 * count)
    together = np.where(is_known, spread * pressure_spread, np.nan)
    correlation = ((count * products - of_level * of_pressure) / np.sqrt(together))[days.place]
    return Outcome(
        _judged(~np.isnan(correlation), correlation > limits.correlation),
        {"correlation": correlation},
    )


def _sum_before(daily: FloatArray) -> FloatArray:
    """Of each day the sum over the `_VENT_DAYS` before it, oldest first."""
    total = np.zeros(daily.size)
    for back in range(_VENT_DAYS, 0, -1):
        total[back:] += daily[:-back]
    return total


def _amplitude_ratio(own: Series, air: Series, times_s: TimeArray) -> FloatArray:
    """The last 24 h's range of one series over the air's; NaN where one is not known, or the air's is small."""
    ranges = [_range_at(series, times_s) for series in (own, air)]
    of_air = np.where(ranges[1] >= _AIR_LEAST_K, ranges[1], np.nan)
    return np.asarray(ranges[0] / of_air)


def _range_at(series: Series, times_s: TimeArray) -> FloatArray:
    """The last 24 h's range at the series' own last row before each time, at most an hour old."""
    known = np.flatnonzero(np.isfinite(series.values))
    if not known.size:
        return np.full(times_s.shape, np.nan)
    own_times = series.times_s[known]
    ranges = _trailing_range(own_times, series.values[known], DAY_S)
    last = np.searchsorted(own_times, times_s, side="right") - 1
    place = np.maximum(last, 0)
    is_fresh = (last >= 0) & (times_s - own_times[place] <= _AMPLITUDE_S)
    return np.where(is_fresh, ranges[place], np.nan)


# ------------------------------------------------------------------------------------------------------------ the table


def _none_s(_: Rules) -> int:
    return 0


@dataclass(frozen=True)
class _Test:
    """How a test is made, when the rules ask for it, and how much time before and after a row it looks at."""

    judge: Callable[[_Rows, Rules, Context], Outcome]
    is_on: Callable[[Rules], bool]
    back_s: Callable[[Rules], int] = _none_s
    ahead_s: Callable[[Rules], int] = _none_s


def _flat_back_s(rules: Rules) -> int:
    # The window begins with the last row that is as old, which is at most a gap older.
    return 0 if rules.flat_line is None else math.ceil(rules.flat_line.fail_s * (1 + _GAP_SHARE))


def _needs_warmth(rules: Rules) -> bool:
    return rules.fouling is not None and rules.fouling.statistic == "saturation"


def warmth_back_s(rules: Rules) -> int:
    """How much time before a row the water's temperature beside it is looked at."""
    days = FOULING_DAYS + 2 if _needs_warmth(rules) else 1
    return days * DAY_S + 2 * HOUR_S


def _probe_back_s(rules: Rules) -> int:
    of_vent = (_VENT_DAYS + 1) * DAY_S if rules.blocked_vent else 0
    glass = rules.cracked_glass
    of_glass = math.ceil(glass.window_s * (1 + _GAP_SHARE)) if glass else 0
    return max(of_vent, of_glass, _BESIDE_S)


_TESTS: Final[Mapping[QualityTest, _Test]] = {
    QualityTest.CLIMATOLOGY: _Test(_climatology, lambda rules: bool(rules.climatology)),
    QualityTest.SPIKE: _Test(
        _spike,
        lambda rules: rules.spike is not None,
        back_s=lambda rules: rules.spike.within_s if rules.spike else 0,
        ahead_s=lambda rules: rules.spike.within_s if rules.spike else 0,
    ),
    QualityTest.RATE_OF_CHANGE: _Test(
        _rate,
        lambda rules: rules.rate is not None,
        back_s=lambda rules: max(rules.rate.within_s, _RAIN_S) if rules.rate else 0,
    ),
    QualityTest.FLAT_LINE: _Test(
        _flat_line, lambda rules: rules.flat_line is not None, back_s=_flat_back_s
    ),
    QualityTest.ATTENUATED: _Test(
        _attenuated,
        lambda rules: rules.attenuated is not None,
        back_s=lambda _: (BASELINE_DAYS + 1) * DAY_S,
    ),
    QualityTest.NEIGHBOUR: _Test(
        _neighbour,
        lambda rules: rules.neighbour is not None,
        back_s=lambda _: (2 * LEVEL_DAYS + 2) * DAY_S,
        ahead_s=lambda _: _BESIDE_S,
    ),
    QualityTest.FROST: _Test(
        _frost,
        lambda rules: rules.frost is not None,
        back_s=lambda _: _FROST_S,
        ahead_s=lambda _: _FROST_S,
    ),
    QualityTest.EXPOSED: _Test(
        _exposed,
        lambda rules: rules.exposed is not None,
        back_s=lambda _: DAY_S + _AMPLITUDE_S,
    ),
    QualityTest.OUT_OF_WATER: _Test(
        _out_of_water,
        lambda rules: rules.out_of_water is not None,
        back_s=lambda _: DAY_S + _AMPLITUDE_S,
        ahead_s=lambda _: _BESIDE_S,
    ),
    QualityTest.FOULING: _Test(
        _fouling,
        lambda rules: rules.fouling is not None,
        back_s=lambda _: (FOULING_DAYS + 2) * DAY_S,
        ahead_s=lambda rules: _BESIDE_S if _needs_warmth(rules) else 0,
    ),
    QualityTest.PROBE: _Test(
        _probe,
        lambda rules: bool(rules.mismatch or rules.cracked_glass or rules.blocked_vent),
        back_s=_probe_back_s,
        ahead_s=lambda _: _BESIDE_S,
    ),
}

"""How low a pond's oxygen will fall before dawn, said at dusk.

At night nothing makes oxygen; what lives in the water breathes it, and the air gives some back. Beside that model stand "as yesterday", which is
hard to beat, and a regression on dusk and yesterday. All see what `backtest.Known` gives them; times are local standard time of the series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet_server.city.backtest import Case, Known, Question
from fleet_server.measurement.derived import oxygen_saturation
from fleet_server.measurement.windows import DAY_S, Series, nearest

FloatArray = NDArray[np.float64]

OXYGEN: Final = "oxygen"
TEMPERATURE: Final = "temperature"
SALINITY: Final = "salinity"

HOUR_S: Final = 3600
RESPIRATION_PER_K: Final = 1.047
REAERATION_PER_K: Final = 1.024
"""By how much both grow per kelvin (Bowie et al. 1985, EPA/600/3-85/040: the usual values)."""

_NIGHTS: Final = 7
_LEAST_NIGHTS: Final = 3
_LEAST_LEARNED: Final = 8
_RIDGE: Final = 1.0
_WITHIN_S: Final = 1800


@dataclass(frozen=True)
class Night:
    """When a night is asked about, and when its least is looked for; hours of the local day.

    sunrise_h: until when the night's breathing goes on alone: 12 h − half of `evapotranspiration.daylight_hours`.
    """

    dusk_h: float = 22.0
    sunrise_h: float = 6.0
    from_h: float = 4.0
    to_h: float = 8.0
    utc_offset_s: int = 0

    def question(self, evening: int) -> Question:
        """Of the night after a day (days since 1970, local)."""
        midnight_s = evening * DAY_S - self.utc_offset_s
        return Question(
            midnight_s + int(self.dusk_h * HOUR_S), midnight_s + DAY_S + int(self.to_h * HOUR_S)
        )

    def evening_of(self, question: Question) -> int:
        return (question.issued_at_s + self.utc_offset_s) // DAY_S

    def least(self, oxygen: Series, evening: int) -> float:
        """The least of the morning after; NaN unless three quarters of its hours are there."""
        morning_s = (evening + 1) * DAY_S - self.utc_offset_s
        first, last = morning_s + self.from_h * HOUR_S, morning_s + self.to_h * HOUR_S
        at = (oxygen.times_s >= first) & (oxygen.times_s <= last) & np.isfinite(oxygen.values)
        hours = np.unique(oxygen.times_s[at] // HOUR_S).size
        if hours < 0.75 * (self.to_h - self.from_h):
            return math.nan
        return float(oxygen.values[at].min())


NIGHT: Final = Night()


def cases(oxygen: Series, night: Night = NIGHT) -> list[Case]:
    """Every night of a series as a question with its answer."""
    if not len(oxygen):
        return []
    local = (oxygen.times_s[[0, -1]] + night.utc_offset_s) // DAY_S
    return [
        Case(night.question(evening), night.least(oxygen, evening))
        for evening in range(int(local[0]), int(local[1]))
    ]


# ------------------------------------------------------------------------------------------------------- forecasters


def yesterday(known: Known, question: Question, night: Night = NIGHT) -> float:
    """As low as this morning."""
    return night.least(known.series[OXYGEN], night.evening_of(question) - 1)


def week(known: Known, question: Question, night: Night = NIGHT) -> float:
    """The mean of the last seven mornings that are known."""
    evening = night.evening_of(question)
    lows = np.array([night.least(known.series[OXYGEN], evening - back) for back in range(1, 8)])
    return float(lows[np.isfinite(lows)].mean()) if np.isfinite(lows).any() else math.nan


def regression(known: Known, question: Question, night: Night = NIGHT) -> float:
    """Ridge regression (Hoerl and Kennard 1970) of the least on the value at dusk and on the morning before, over all nights known by then.

    Shrinks towards the mean of the mornings; the weight is 1 on standardised columns.
    """
    oxygen, evening = known.series[OXYGEN], night.evening_of(question)
    first = int((oxygen.times_s[0] + night.utc_offset_s) // DAY_S) if len(oxygen) else evening
    rows = np.array([
        (_at(oxygen, night.question(one).issued_at_s), night.least(oxygen, one - 1), night.least(oxygen, one))
        for one in range(first, evening)
    ]).reshape(-1, 3)  # fmt: skip
    rows = rows[np.isfinite(rows).all(axis=1)]
    asked = np.array([_at(oxygen, question.issued_at_s), night.least(oxygen, evening - 1)])
    if len(rows) < _LEAST_LEARNED or not np.isfinite(asked).all():
        return math.nan
    middle, spread = rows[:, :2].mean(axis=0), rows[:, :2].std(axis=0)
    spread = np.where(spread > 0.0, spread, 1.0)
    x, mean = (rows[:, :2] - middle) / spread, rows[:, 2].mean()
    weights = np.linalg.solve(x.T @ x + _RIDGE * np.eye(2), x.T @ (rows[:, 2] - mean))
    return float(mean + ((asked - middle) / spread) @ weights)


@dataclass(frozen=True)
class Breathing:
    """What a water's nights did at 20 °C: respiration R, mg/L per h, and re-aeration k, 1/h."""

    respiration_mg_l_h: float
    reaeration_per_h: float

    def after(
        self, oxygen_mg_l: float, temperature_c: float, saturated_mg_l: float, hours: ArrayLike
    ) -> FloatArray:
        """DO(h) = D∞ + (D₀ − D∞) e^(−k h), D∞ = Cs − R/k, with R · 1.047^(T−20) and k · 1.024^(T−20); never below 0.

        >>> Breathing(0.25, 0.6 / 24).after(9.0, 22.0, 8.743, [4, 8, 10]).round(3).tolist()
        [7.934, 6.974, 6.53]
        """
        h = np.asarray(hours, dtype=np.float64)
        r = self.respiration_mg_l_h * RESPIRATION_PER_K ** (temperature_c - 20.0)
        k = self.reaeration_per_h * REAERATION_PER_K ** (temperature_c - 20.0)
        if k <= 0.0:
            falling: FloatArray = oxygen_mg_l - r * h
        else:
            rest = saturated_mg_l - r / k
            falling = rest + (oxygen_mg_l - rest) * np.exp(-k * h)
        return np.maximum(falling, 0.0)


def fit_breathing(
    oxygen: FloatArray, temperature_c: FloatArray, saturated_mg_l: FloatArray
) -> Breathing | None:
    """R and k by least squares over hours of nights: ΔDO = −R 1.047^(T−20) + k 1.024^(T−20) (Cs − DO).

    Args:
        oxygen, temperature_c, saturated_mg_l: hourly, shape (nights, hours); NaN where there is none.

    Returns:
        None without three nights' worth of hours. Neither is below 0: where the fit would have it so, it is 0 and the other one is fitted alone.

    >>> h = np.arange(8)
    >>> nights = np.array([Breathing(0.25, 0.05).after(start, 22.0, 8.743, h) for start in (9.0, 6.0, 3.0)])
    >>> found = fit_breathing(nights, np.full((3, 8), 22.0), np.full((3, 8), 8.743))
    >>> abs(found.respiration_mg_l_h - 0.25) < 0.01, abs(found.reaeration_per_h - 0.05) < 0.002
    (True, True)
    """
    change = np.diff(oxygen, axis=1)
    middle = (oxygen[:, 1:] + oxygen[:, :-1]) / 2.0
    warm = temperature_c[:, :-1] - 20.0
    lost = -np.power(RESPIRATION_PER_K, warm)
    gained = np.power(REAERATION_PER_K, warm) * (saturated_mg_l[:, :-1] - middle)
    is_known = np.isfinite(change) & np.isfinite(lost) & np.isfinite(gained)
    if is_known.sum() < _LEAST_NIGHTS * 4:
        return None
    y, design = change[is_known], np.column_stack([lost[is_known], gained[is_known]])
    found = np.linalg.lstsq(design, y, rcond=None)[0]
    for wrong in np.flatnonzero(found < 0.0)[:1]:
        other = design[:, 1 - wrong]
        alone = max(float(other @ y / (other @ other)), 0.0) if (other @ other) > 0.0 else 0.0
        found = np.array([0.0, alone]) if wrong == 0 else np.array([alone, 0.0])
    return Breathing(float(found[0]), float(found[1]))


def breathing(known: Known, question: Question, night: Night = NIGHT) -> float:
    """Respiration and re-aeration fitted on the last seven nights, from dusk on to sunrise; its least from the early morning on."""
    evening = night.evening_of(question)
    nights = [_hours(known, night.question(evening - back)) for back in range(1, _NIGHTS + 1)]
    columns = [np.array([one[place] for one in nights]) for place in range(3)]
    found = fit_breathing(*columns)
    at_dusk, temperature_c, saturated = (float(column[0]) for column in _hours(known, question))
    if found is None or not math.isfinite(at_dusk + temperature_c + saturated):
        return math.nan
    begin_h = 24.0 - night.dusk_h + night.from_h
    end_h = 24.0 - night.dusk_h + max(night.sunrise_h, night.from_h)
    hours = np.append(np.arange(begin_h, end_h), end_h)
    return float(found.after(at_dusk, temperature_c, saturated, hours).min())


def _hours(known: Known, question: Question) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Oxygen, temperature and oxygen in equilibrium with air at every hour from dusk to seven hours later (before the sun)."""
    at = question.issued_at_s + np.arange(8, dtype=np.int64) * HOUR_S
    oxygen, temperature = (
        nearest(known.series[name], at, _WITHIN_S) for name in (OXYGEN, TEMPERATURE)
    )
    salt = np.zeros(at.size)
    if SALINITY in known.series:
        salt = nearest(known.series[SALINITY], at, _WITHIN_S)
    return oxygen, temperature, oxygen_saturation(temperature, salt)


def _at(series: Series, instant_s: int) -> float:
    return float(nearest(series, np.array([instant_s], dtype=np.int64), _WITHIN_S)[0])

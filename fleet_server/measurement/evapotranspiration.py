"""How much water the air takes from a well-watered grass surface, by day and by hour, and what that is made of.

After Allen, Pereira, Raes and Smith (1998), FAO Irrigation and Drainage Paper 56 ("FAO-56"); equation numbers are its own. Every function takes
scalars or arrays of one shape; an argument that is NaN or outside its range gives NaN. What a weather service does not measure is worked out
from what it does (`radiation_of_what_is_there`), and it is said which. Nothing of it is stored with observations, so `exp` and `cos` may be NumPy's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet_server.measurement.ranges import FloatArray, within

LATITUDES_DEG: Final = (-66.0, 66.0)
"""Beyond, there are days without sunrise, which are not covered."""

_SOLAR_CONSTANT_MJ_M2_MIN: Final = 0.0820
_STEFAN_BOLTZMANN_DAY: Final = 4.903e-9  # MJ/K⁴/m² per day, as printed in Eq. 39
_STEFAN_BOLTZMANN_HOUR: Final = 2.043e-10  # as printed below Eq. 39
_SLOPE_FACTOR: Final = 4098.0  # Eq. 13
_ICE_POINT_K: Final = 273.16  # as printed in Eq. 39
_ALBEDO: Final = 0.23
_MM_PER_MJ_M2: Final = 0.408  # 1 / (2.45 MJ/kg), Eq. 20
# Rs/Rso below 0.3 would make the sky's radiation negative; the limits are those of ASCE (2005), Eq. 18, which FAO-56 leaves out.
_CLOUDINESS: Final = (0.3, 1.0)
_LOWEST_SUN_RAD: Final = 0.3  # below, Rs/Rso says nothing of the clouds (ASCE 2005, Eq. 45)

FAO_56_DRAG: Final = (0.34, 0.34)
"""s/m by day and by night: FAO-56 Eqs. 6 and 53."""
ASCE_DRAG: Final = (0.24, 0.96)
"""s/m by day and by night, for hours: ASCE (2005), Table 1, which Allen et al. (2006) recommend for FAO-56, too."""


# ------------------------------------------------------------------------------------------------------------------ air


def wind_at_2_m(wind_m_s: ArrayLike, height_m: ArrayLike) -> FloatArray:
    """Wind at 2 m over grass from wind at another height: u₂ = u 4.87 / ln(67.8 z − 5.42) (FAO-56 Eq. 47).

    Args:
        wind_m_s: u, m/s, 0–50.
        height_m: z of the instrument over ground, m, 0.5–100.

    Returns:
        m/s.

    >>> round(float(wind_at_2_m(3.2, 10)), 1)
    2.4
    """
    logarithm = np.log(67.8 * within(height_m, 0.5, 100.0) - 5.42)
    return within(wind_m_s, 0.0, 50.0) * 4.87 / logarithm


def saturation_vapour_pressure(temperature_c: ArrayLike) -> FloatArray:
    """Vapour pressure of saturated air: e° = 0.6108 exp(17.27 T / (T + 237.3)) (FAO-56 Eq. 11). Of the dew point it is that of the air (Eq. 14).

    Args:
        temperature_c: T, °C, −40–60.

    Returns:
        kPa.

    >>> saturation_vapour_pressure([24.5, 15.0, 17.0]).round(3).tolist()
    [3.075, 1.705, 1.938]
    """
    t = within(temperature_c, -40.0, 60.0)
    return 0.6108 * np.exp(17.27 * t / (t + 237.3))


def vapour_pressure_slope(temperature_c: ArrayLike) -> FloatArray:
    """Slope of the saturation vapour pressure: Δ = 4098 e° / (T + 237.3)² (FAO-56 Eq. 13).

    Args:
        temperature_c: T, °C, −40–60.

    Returns:
        kPa/K.

    >>> round(float(vapour_pressure_slope(16.9)), 3)
    0.122
    """
    t = within(temperature_c, -40.0, 60.0)
    return _SLOPE_FACTOR * saturation_vapour_pressure(t) / ((t + 237.3) * (t + 237.3))


def vapour_pressure_of_humidity(
    temperature_max_c: ArrayLike,
    temperature_min_c: ArrayLike,
    humidity_max_pct: ArrayLike,
    humidity_min_pct: ArrayLike,
) -> FloatArray:
    """Vapour pressure of a day: ea = [e°(Tmin) RHmax + e°(Tmax) RHmin] / 200 (FAO-56 Eq. 17).

    Args:
        temperature_max_c, temperature_min_c: of the air at 2 m, °C, −40–60.
        humidity_max_pct, humidity_min_pct: relative humidity, %, 0–100.

    Returns:
        kPa.

    >>> round(float(vapour_pressure_of_humidity(21.5, 12.3, 84, 63)), 3)
    1.409
    """
    at_night = saturation_vapour_pressure(temperature_min_c) * within(humidity_max_pct, 0.0, 100.0)
    at_noon = saturation_vapour_pressure(temperature_max_c) * within(humidity_min_pct, 0.0, 100.0)
    return (at_night + at_noon) / 200.0


def psychrometric_constant(altitude_m: ArrayLike) -> FloatArray:
    """γ = 0.665e-3 P with P = 101.3 ((293 − 0.0065 z)/293)^5.26 kPa (FAO-56 Eqs. 7 and 8).

    `place.station_pressure` has the standard atmosphere; this is the one the method was made with, up to 0.3 % away.

    Args:
        altitude_m: z, m, −430–6,000.

    Returns:
        kPa/K.

    >>> round(float(psychrometric_constant(100)), 4)
    0.0666
    """
    falling = (293.0 - 0.0065 * within(altitude_m, -430.0, 6_000.0)) / 293.0
    return 0.665e-3 * 101.3 * np.power(falling, 5.26)


# ------------------------------------------------------------------------------------------------------------ radiation


@dataclass(frozen=True)
class _Sun:
    """Of a day at a place: latitude, declination and sunset hour angle, rad; inverse relative distance from the earth."""

    latitude: FloatArray
    declination: FloatArray
    sunset: FloatArray
    distance: FloatArray


def _sun(latitude_deg: ArrayLike, day_of_year: ArrayLike) -> _Sun:
    latitude = np.radians(within(latitude_deg, *LATITUDES_DEG))
    angle = 2.0 * np.pi / 365.0 * within(day_of_year, 1.0, 366.0)
    declination = 0.409 * np.sin(angle - 1.39)  # Eq. 24
    sunset = np.arccos(-np.tan(latitude) * np.tan(declination))  # Eq. 25
    return _Sun(latitude, declination, sunset, 1.0 + 0.033 * np.cos(angle))  # Eq. 23


def extraterrestrial_radiation(latitude_deg: ArrayLike, day_of_year: ArrayLike) -> FloatArray:
    """Radiation of a day on a level surface above the air (FAO-56 Eqs. 21, 23–25).

    Args:
        latitude_deg: north positive, °, −66–66.
        day_of_year: 1–366.

    Returns:
        Ra, MJ/m² per day.

    >>> round(float(extraterrestrial_radiation(-20, 246)), 1)
    32.2
    """
    sun = _sun(latitude_deg, day_of_year)
    level = np.sin(sun.latitude) * np.sin(sun.declination)
    upright = np.cos(sun.latitude) * np.cos(sun.declination)
    height = sun.sunset * level + upright * np.sin(sun.sunset)
    result: FloatArray = 24.0 * 60.0 / math.pi * _SOLAR_CONSTANT_MJ_M2_MIN * sun.distance * height
    return result


def daylight_hours(latitude_deg: ArrayLike, day_of_year: ArrayLike) -> FloatArray:
    """Longest possible sunshine of a day: N = 24 ωs / π (FAO-56 Eq. 34).

    Args:
        latitude_deg: north positive, °, −66–66.
        day_of_year: 1–366.

    Returns:
        h.

    >>> round(float(daylight_hours(50.8, 187)), 1)
    16.1
    """
    return 24.0 / math.pi * _sun(latitude_deg, day_of_year).sunset


def radiation_of_sunshine(
    sunshine_h: ArrayLike, latitude_deg: ArrayLike, day_of_year: ArrayLike
) -> FloatArray:
    """Global radiation from hours of sunshine: Rs = (0.25 + 0.50 n/N) Ra (Ångström's formula, FAO-56 Eq. 35, where no other coefficients are known).

    Args:
        sunshine_h: n, h, 0–24; more than N counts as N.
        latitude_deg: north positive, °, −66–66.
        day_of_year: 1–366.

    Returns:
        MJ/m² per day.

    >>> round(float(radiation_of_sunshine(9.25, 50.8, 187)), 2)
    22.07
    """
    share = within(sunshine_h, 0.0, 24.0) / daylight_hours(latitude_deg, day_of_year)
    above = extraterrestrial_radiation(latitude_deg, day_of_year)
    return (0.25 + 0.50 * np.minimum(share, 1.0)) * above


def radiation_of_temperatures(
    temperature_max_c: ArrayLike,
    temperature_min_c: ArrayLike,
    latitude_deg: ArrayLike,
    day_of_year: ArrayLike,
    adjustment: ArrayLike = 0.16,
) -> FloatArray:
    """Global radiation from how far a day warms: Rs = k √(Tmax − Tmin) Ra (Hargreaves, FAO-56 Eq. 50). Never more than a clear sky lets through.

    Args:
        temperature_max_c, temperature_min_c: of the air at 2 m, °C, −40–60.
        latitude_deg: north positive, °, −66–66.
        day_of_year: 1–366.
        adjustment: k, K^−½, 0.1–0.25: 0.16 inland, 0.19 at the coast.

    Returns:
        MJ/m² per day.

    >>> round(float(radiation_of_temperatures(26.6, 14.8, 45.72, 196)), 1)  # Lyon in July, FAO-56 Example 15: 22.3
    22.3
    """
    warming = within(temperature_max_c, -40.0, 60.0) - within(temperature_min_c, -40.0, 60.0)
    above = extraterrestrial_radiation(latitude_deg, day_of_year)
    root = np.sqrt(np.where(warming >= 0.0, warming, np.nan))
    return np.minimum(within(adjustment, 0.1, 0.25) * root, 0.75) * above


class RadiationSource(IntEnum):
    """What a day's radiation was taken from."""

    NONE = 0
    MEASURED = 1
    SUNSHINE = 2
    TEMPERATURES = 3


def radiation_of_what_is_there(
    radiation_mj_m2: ArrayLike,
    sunshine_h: ArrayLike,
    temperature_max_c: ArrayLike,
    temperature_min_c: ArrayLike,
    *,
    latitude_deg: ArrayLike,
    day_of_year: ArrayLike,
) -> tuple[FloatArray, NDArray[np.int8]]:
    """A day's radiation as measured, else from sunshine, else from temperatures; shape (n,).

    Args:
        radiation_mj_m2, sunshine_h: MJ/m² per day (0–50) and h; NaN where there is none.
        temperature_max_c, temperature_min_c: °C.

    Returns:
        MJ/m² per day (NaN where there is nothing to take it from), and the `RadiationSource` of each.

    >>> radiation, source = radiation_of_what_is_there(
    ...     [20.0, np.nan, np.nan], [9.0, 9.25, np.nan], [21.5] * 3, [12.3] * 3, latitude_deg=50.8, day_of_year=187)
    >>> radiation.round(2).tolist(), source.tolist()
    ([20.0, 22.07, 19.94], [1, 2, 3])
    """
    candidates = (
        within(radiation_mj_m2, 0.0, 50.0),
        radiation_of_sunshine(sunshine_h, latitude_deg, day_of_year),
        radiation_of_temperatures(temperature_max_c, temperature_min_c, latitude_deg, day_of_year),
    )
    shape = np.broadcast_shapes(*(one.shape for one in candidates))
    result = np.full(shape, np.nan)
    source = np.zeros(shape, dtype=np.int8)
    for number, candidate in enumerate(candidates, start=1):
        is_taken = np.isnan(result) & ~np.isnan(np.broadcast_to(candidate, shape))
        result = np.where(is_taken, candidate, result)
        source = np.where(is_taken, np.int8(number), source).astype(np.int8)
    return result, source


def _longwave(
    fourth_power: FloatArray, vapour_kpa: FloatArray, ratio: FloatArray, *, stefan_boltzmann: float
) -> FloatArray:
    """Net radiation to the sky (Eq. 39); `ratio` is Rs/Rso."""
    cloudiness = 1.35 * np.clip(ratio, *_CLOUDINESS) - 0.35
    return stefan_boltzmann * fourth_power * (0.34 - 0.14 * np.sqrt(vapour_kpa)) * cloudiness


# ------------------------------------------------------------------------------------------------------------------ days


@dataclass(frozen=True)
class DailyEvapotranspiration:
    """A day's evapotranspiration with all that it is made of; all of one shape. kPa, kPa/K, MJ/m² per day, mm per day."""

    evapotranspiration_mm: FloatArray
    slope_kpa_k: FloatArray
    psychrometric_kpa_k: FloatArray
    saturation_kpa: FloatArray
    vapour_kpa: FloatArray
    extraterrestrial_mj_m2: FloatArray
    clear_sky_mj_m2: FloatArray
    net_shortwave_mj_m2: FloatArray
    net_longwave_mj_m2: FloatArray

    @property
    def net_radiation_mj_m2(self) -> FloatArray:
        return self.net_shortwave_mj_m2 - self.net_longwave_mj_m2


def daily_evapotranspiration(
    *,
    temperature_max_c: ArrayLike,
    temperature_min_c: ArrayLike,
    vapour_kpa: ArrayLike,
    wind_m_s: ArrayLike,
    radiation_mj_m2: ArrayLike,
    altitude_m: ArrayLike,
    latitude_deg: ArrayLike,
    day_of_year: ArrayLike,
) -> DailyEvapotranspiration:
    """Reference evapotranspiration of a day, with its parts (FAO-56 Eq. 6 with G = 0, Eqs. 7, 8, 11–13, 21, 23–25, 37–40).

    Args:
        temperature_max_c, temperature_min_c: of the air at 2 m, °C, −40–60.
        vapour_kpa: ea, kPa, 0–10: `vapour_pressure_of_humidity`, or `saturation_vapour_pressure` of the dew point.
        wind_m_s: at 2 m (`wind_at_2_m`), m/s, 0–50.
        radiation_mj_m2: global radiation, MJ/m² per day, 0–50.
        altitude_m: m, −430–6,000.
        latitude_deg: north positive, °, −66–66.
        day_of_year: 1–366.

    >>> day = daily_evapotranspiration(  # Brussels on 6 July, FAO-56 Example 18
    ...     temperature_max_c=21.5, temperature_min_c=12.3, vapour_kpa=1.409, wind_m_s=2.078,
    ...     radiation_mj_m2=22.07, altitude_m=100, latitude_deg=50.8, day_of_year=187)
    >>> round(float(day.net_radiation_mj_m2), 2), round(float(day.evapotranspiration_mm), 1)
    (13.28, 3.9)
    """
    warmest = within(temperature_max_c, -40.0, 60.0)
    coldest = within(temperature_min_c, -40.0, 60.0)
    coldest = np.where(warmest >= coldest, coldest, np.nan)
    wind, vapour = within(wind_m_s, 0.0, 50.0), within(vapour_kpa, 0.0, 10.0)
    radiation = within(radiation_mj_m2, 0.0, 50.0)
    mean = (warmest + coldest) / 2.0
    saturation = (saturation_vapour_pressure(warmest) + saturation_vapour_pressure(coldest)) / 2.0
    gamma, delta = psychrometric_constant(altitude_m), vapour_pressure_slope(mean)
    above = extraterrestrial_radiation(latitude_deg, day_of_year)
    clear = (0.75 + 2e-5 * np.asarray(altitude_m, dtype=np.float64)) * above
    kelvins = np.power(warmest + _ICE_POINT_K, 4) + np.power(coldest + _ICE_POINT_K, 4)
    shortwave = (1.0 - _ALBEDO) * radiation
    longwave = _longwave(
        kelvins / 2.0, vapour, radiation / clear, stefan_boltzmann=_STEFAN_BOLTZMANN_DAY
    )
    drying = gamma * 900.0 / (mean + 273.0) * wind * (saturation - vapour)
    by_radiation = _MM_PER_MJ_M2 * delta * (shortwave - longwave)
    result = (by_radiation + drying) / (delta + gamma * (1.0 + FAO_56_DRAG[0] * wind))
    return DailyEvapotranspiration(
        result, delta, gamma, saturation, vapour, above, clear, shortwave, longwave
    )


def reference_evapotranspiration(
    temperature_max_c: ArrayLike,
    temperature_min_c: ArrayLike,
    humidity_max_pct: ArrayLike,
    humidity_min_pct: ArrayLike,
    wind_m_s: ArrayLike,
    radiation_mj_m2: ArrayLike,
    altitude_m: ArrayLike,
    latitude_deg: ArrayLike,
    day_of_year: ArrayLike,
) -> FloatArray:
    """Evapotranspiration of a well-watered grass surface over one day.

    ET₀ = [0.408 Δ (Rn − G) + γ 900/(T + 273) u₂ (es − ea)] / [Δ + γ (1 + 0.34 u₂)] (Allen et al. 1998, FAO Irrigation and
    Drainage Paper 56, Eq. 6, with G = 0): `daily_evapotranspiration` with the vapour pressure from humidity.

    Args:
        temperature_max_c, temperature_min_c: of the air at 2 m, °C, −40–60.
        humidity_max_pct, humidity_min_pct: relative humidity, %, 0–100.
        wind_m_s: at 2 m, m/s, 0–50.
        radiation_mj_m2: global radiation of the day, MJ/m², 0–50.
        altitude_m: of the place, m, −430–6,000.
        latitude_deg: north positive, °, −66–66 (beyond, days without sunrise are not covered).
        day_of_year: 1–366.

    Returns:
        mm/d.

    >>> round(float(reference_evapotranspiration(21.5, 12.3, 84, 63, 2.078, 22.07, 100, 50.8, 187)), 4)
    3.8801
    """
    vapour = vapour_pressure_of_humidity(
        temperature_max_c, temperature_min_c, humidity_max_pct, humidity_min_pct
    )
    return daily_evapotranspiration(
        temperature_max_c=temperature_max_c,
        temperature_min_c=temperature_min_c,
        vapour_kpa=vapour,
        wind_m_s=wind_m_s,
        radiation_mj_m2=radiation_mj_m2,
        altitude_m=altitude_m,
        latitude_deg=latitude_deg,
        day_of_year=day_of_year,
    ).evapotranspiration_mm


def hargreaves_evapotranspiration(
    temperature_max_c: ArrayLike,
    temperature_min_c: ArrayLike,
    latitude_deg: ArrayLike,
    day_of_year: ArrayLike,
) -> FloatArray:
    """Reference evapotranspiration where only temperatures are known: ET₀ = 0.0023 (T + 17.8) √(Tmax − Tmin) 0.408 Ra (FAO-56 Eq. 52).

    FAO-56 wants it compared with Eq. 6 before it is used at a place: wind and humidity are not in it.

    Args:
        temperature_max_c, temperature_min_c: of the air at 2 m, °C, −40–60.
        latitude_deg: north positive, °, −66–66.
        day_of_year: 1–366.

    Returns:
        mm/d; 0 where the formula is below.

    >>> round(float(hargreaves_evapotranspiration(26.6, 14.8, 45.72, 196)), 1)  # Lyon in July, FAO-56 Example 20: 5.0
    5.0
    """
    warmest = within(temperature_max_c, -40.0, 60.0)
    coldest = within(temperature_min_c, -40.0, 60.0)
    root = np.sqrt(np.where(warmest >= coldest, warmest - coldest, np.nan))
    evaporated = _MM_PER_MJ_M2 * extraterrestrial_radiation(latitude_deg, day_of_year)
    mean = (warmest + coldest) / 2.0
    return np.maximum(0.0023 * (mean + 17.8) * root * evaporated, 0.0)


# ----------------------------------------------------------------------------------------------------------------- hours


@dataclass(frozen=True)
class HourlyEvapotranspiration:
    """An hour's evapotranspiration with what it is made of; shape (n,). kPa, kPa/K, MJ/m² per hour, mm per hour."""

    evapotranspiration_mm: FloatArray
    slope_kpa_k: FloatArray
    psychrometric_kpa_k: FloatArray
    saturation_kpa: FloatArray
    vapour_kpa: FloatArray
    extraterrestrial_mj_m2: FloatArray
    clear_sky_mj_m2: FloatArray
    clearness: FloatArray
    net_shortwave_mj_m2: FloatArray
    net_longwave_mj_m2: FloatArray
    soil_heat_mj_m2: FloatArray

    @property
    def net_radiation_mj_m2(self) -> FloatArray:
        return self.net_shortwave_mj_m2 - self.net_longwave_mj_m2


def hourly_evapotranspiration(
    *,
    temperature_c: ArrayLike,
    humidity_pct: ArrayLike,
    wind_m_s: ArrayLike,
    radiation_mj_m2: ArrayLike,
    altitude_m: float,
    latitude_deg: float,
    longitude_deg: float,
    day_of_year: ArrayLike,
    middle_utc_h: ArrayLike,
    clearness_before: float = 0.6,
    drag: tuple[float, float] = FAO_56_DRAG,
) -> HourlyEvapotranspiration:
    """Reference evapotranspiration of hours in the order of time, with its parts (FAO-56 Eqs. 53, 28–33, 37–40, 45, 46, 54).

    At night and with the sun lower than 0.3 rad, Rs/Rso says nothing of the clouds: the last one by day holds, `clearness_before` before the first.

    Args:
        temperature_c, humidity_pct: means of the hour, °C (−40–60), % (0–100), shape (n,).
        wind_m_s: at 2 m, m/s, 0–50.
        radiation_mj_m2: global radiation, MJ/m² per hour, 0–5.
        altitude_m, latitude_deg, longitude_deg: m, ° (−66–66), ° east (−180–180).
        day_of_year: 1–366, in UTC.
        middle_utc_h: the middle of the hour, h UTC, 0–24.
        clearness_before: Rs/Rso, 0.3–1: FAO-56 has 0.4–0.6 for humid and 0.7–0.8 for dry places.
        drag: by day and by night, s/m: `FAO_56_DRAG` or `ASCE_DRAG`.

    >>> hour = hourly_evapotranspiration(  # N'Diaye, 1 October, 14 to 15 h, FAO-56 Example 19: 0.63
    ...     temperature_c=[38], humidity_pct=[52], wind_m_s=[3.3], radiation_mj_m2=[2.450], altitude_m=8,
    ...     latitude_deg=16.2167, longitude_deg=-16.25, day_of_year=[274], middle_utc_h=[15.5])
    >>> round(float(hour.extraterrestrial_mj_m2[0]), 3), round(float(hour.evapotranspiration_mm[0]), 2)
    (3.543, 0.63)
    """
    temperature, wind = within(temperature_c, -40.0, 60.0), within(wind_m_s, 0.0, 50.0)
    radiation = within(radiation_mj_m2, 0.0, 5.0)
    saturation = saturation_vapour_pressure(temperature)
    vapour = saturation * within(humidity_pct, 0.0, 100.0) / 100.0
    gamma, delta = psychrometric_constant(altitude_m), vapour_pressure_slope(temperature)
    above, sun_height = _hourly_sun(latitude_deg, longitude_deg, day_of_year, middle_utc_h)
    clear = (0.75 + 2e-5 * altitude_m) * above
    clearness = _carried(radiation, clear, sun_height, before=clearness_before)
    shortwave = (1.0 - _ALBEDO) * radiation
    longwave = _longwave(
        np.power(temperature + _ICE_POINT_K, 4),
        vapour,
        clearness,
        stefan_boltzmann=_STEFAN_BOLTZMANN_HOUR,
    )
    net = shortwave - longwave
    is_day = net >= 0.0
    soil = np.where(is_day, 0.1, 0.5) * net  # Eqs. 45 and 46
    drag_s_m = np.where(is_day, *drag)
    drying = gamma * 37.0 / (temperature + 273.0) * wind * (saturation - vapour)
    result = (_MM_PER_MJ_M2 * delta * (net - soil) + drying) / (
        delta + gamma * (1.0 + drag_s_m * wind)
    )
    gammas = np.broadcast_to(gamma, temperature.shape)
    return HourlyEvapotranspiration(
        result, delta, gammas, saturation, vapour, above, clear, clearness, shortwave, longwave, soil
    )  # fmt: skip


def _hourly_sun(
    latitude_deg: float, longitude_deg: float, day_of_year: ArrayLike, middle_utc_h: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Radiation of an hour above the air, MJ/m² (Eq. 28), and the sun's height in its middle, rad."""
    sun = _sun(latitude_deg, day_of_year)
    season = 2.0 * np.pi * (np.asarray(day_of_year, np.float64) - 81.0) / 364.0  # Eq. 33
    correction_h = (
        0.1645 * np.sin(2.0 * season) - 0.1255 * np.cos(season) - 0.025 * np.sin(season)
    )  # Eq. 32
    solar_h = within(middle_utc_h, 0.0, 24.0) + within(longitude_deg, -180.0, 180.0) / 15.0
    middle = np.pi / 12.0 * (solar_h + correction_h - 12.0)  # Eq. 31
    middle = (middle + np.pi) % (2.0 * np.pi) - np.pi
    first = np.clip(middle - np.pi / 24.0, -sun.sunset, sun.sunset)
    last = np.clip(middle + np.pi / 24.0, -sun.sunset, sun.sunset)
    level = np.sin(sun.latitude) * np.sin(sun.declination)
    upright = np.cos(sun.latitude) * np.cos(sun.declination)
    height = (last - first) * level + upright * (np.sin(last) - np.sin(first))
    above = 12.0 * 60.0 / math.pi * _SOLAR_CONSTANT_MJ_M2_MIN * sun.distance * height
    is_up = np.abs(middle) <= sun.sunset
    return np.where(is_up, above, 0.0), np.arcsin(level + upright * np.cos(middle))


def _carried(
    radiation: FloatArray, clear: FloatArray, sun_height: FloatArray, *, before: float
) -> FloatArray:
    """Rs/Rso, 0.3–1, where it says something of the clouds; else the last one."""
    is_known = (sun_height >= _LOWEST_SUN_RAD) & (clear > 0.0) & ~np.isnan(radiation)
    ratio = np.clip(radiation / np.where(is_known, clear, 1.0), *_CLOUDINESS)
    row = np.maximum.accumulate(np.where(is_known, np.arange(ratio.size), -1))
    return np.where(row >= 0, ratio[row], np.clip(before, *_CLOUDINESS))

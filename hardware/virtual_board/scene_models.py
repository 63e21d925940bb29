"""The physics of synthetic scenes: weather, soil water, soil temperature, oxygen and temperature of standing water.

Pure functions of (seed, site parameters, UTC), in published units. Every formula comes from another source than the
server's conversions, so that both cannot be wrong in the same way. The season stands still in mid-July whatever the
date, so that a demo in November shows a summer; the time of day is the true one.

States (soil water, water temperature, oxygen) are integrated hour by hour in fixed blocks of days, each started early
from the same rest state, so that a value never depends on when the caller began to ask.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from math import asin, cos, exp, log, pi, radians, sin, sqrt, tanh

from hardware.virtual_board.dice import gaussian, uniform

HOUR_S = 3600
DAY_S = 86400

_BLOCK_HOURS = 32 * 24
_FADE_HOURS = 8 * 24
_DAY_OF_YEAR = 196  # 15 July
_SOLAR_CONSTANT_W_M2 = 1361.0


# --- oxygen -------------------------------------------------------------------------------------------------------


def oxygen_at_saturation_mg_l(
    temperature_c: float, altitude_m: float, salinity: float = 0.0
) -> float:
    """Oxygen in air-saturated water.

    Garcia and Gordon 1992 (Limnol. Oceanogr. 37:1307, eq. 8, coefficients fitted to Benson and Krause, in ml/L),
    times 1.42905 mg/ml; pressure by the standard atmosphere (ISO 2533), water vapour by Magnus (Sonntag 1990). The
    server uses Benson and Krause's own equation. Valid 0–40 °C, salinity 0–42.

    >>> round(oxygen_at_saturation_mg_l(20.0, 0.0), 2)
    9.09
    """
    scaled = log((298.15 - temperature_c) / (273.15 + temperature_c))
    clean = 2.00907 + scaled * (
        3.22014 + scaled * (4.05010 + scaled * (4.94457 + scaled * (-0.256847 + scaled * 3.88767)))
    )
    salty = -6.24523e-3 + scaled * (-7.37614e-3 + scaled * (-1.03410e-2 + scaled * -8.17083e-3))
    at_sea_level = exp(clean + salinity * salty - 4.88682e-7 * salinity**2) * 1.42905
    pressure_hpa = air_pressure_hpa(altitude_m)
    vapour_hpa = 6.112 * exp(17.62 * temperature_c / (243.12 + temperature_c))
    return at_sea_level * (pressure_hpa - vapour_hpa) / (1013.25 - vapour_hpa)


def air_pressure_hpa(altitude_m: float) -> float:
    """Pressure of the standard atmosphere (ISO 2533) at a height above the sea.

    >>> round(air_pressure_hpa(100.0), 2)
    1001.29
    """
    return float(1013.25 * (1 - 2.25577e-5 * altitude_m) ** 5.25588)


# --- weather ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Day:
    anomaly_k: float
    cloud: float
    rain_mm: float
    rain_from_h: int
    rain_hours: int


@lru_cache(maxsize=4096)
def _day(seed: int, day: int) -> _Day:
    """One day's weather; five days' dice make spells of warm and dull weather out of independent draws."""

    def spell(name: str) -> float:
        weights = (0.35, 0.45, 0.5, 0.45, 0.35)
        return sum(
            weight * gaussian(seed, name, day + shift) for shift, weight in enumerate(weights)
        )

    dull = spell("cloud")
    cloud = 0.5 + 0.5 * tanh(0.9 * dull)
    is_wet = uniform(seed, "wet", day) < 0.1 + 0.6 * cloud**2
    amount = -7.0 * log(1 - 0.97 * uniform(seed, "rain", day))
    return _Day(
        anomaly_k=2.6 * spell("anomaly") - 1.5 * dull,
        cloud=cloud,
        rain_mm=amount if is_wet else 0.0,
        rain_from_h=int(uniform(seed, "rain hour", day) * 20),
        rain_hours=1 + int(uniform(seed, "rain length", day) * 4),
    )


def _between_days(seed: int, utc_s: float, of_day: Callable[[_Day], float]) -> float:
    """A quantity of the days, moving smoothly from one noon to the next."""
    position = utc_s / DAY_S - 0.5
    day = int(position // 1)
    part = position - day
    part = part * part * (3 - 2 * part)
    return of_day(_day(seed, day)) * (1 - part) + of_day(_day(seed, day + 1)) * part


def cloud_cover(seed: int, utc_s: float) -> float:
    """0 clear to 1 overcast."""
    return _between_days(seed, utc_s, lambda day: day.cloud)


def air_temperature_c(seed: int, utc_s: float) -> float:
    """Air temperature: a July mean of 19.5 °C, warm and cool spells, warmest near 15:00 local sun time."""
    swing_k = 6.5 * (1 - 0.6 * cloud_cover(seed, utc_s))
    hour = utc_s / HOUR_S % 24
    anomaly_k = _between_days(seed, utc_s, lambda day: day.anomaly_k)
    return 19.5 + anomaly_k + swing_k * cos(2 * pi * (hour - 14.5) / 24)


def radiation_w_m2(seed: int, utc_s: float, latitude: float, longitude: float) -> float:
    """Global radiation: sun height in mid-July, 75 % of it through clear air, clouds after Kasten and Czeplak 1980."""
    declination = radians(23.45) * sin(2 * pi * (284 + _DAY_OF_YEAR) / 365)
    sun_hour = utc_s / HOUR_S % 24 + longitude / 15
    hour_angle = 2 * pi * (sun_hour - 12) / 24
    height = sin(radians(latitude)) * sin(declination) + cos(radians(latitude)) * cos(
        declination
    ) * cos(hour_angle)
    if height <= 0:
        return 0.0
    through_clouds = float(1 - 0.75 * cloud_cover(seed, utc_s) ** 3.4)
    return 0.75 * _SOLAR_CONSTANT_W_M2 * height * through_clouds


def sunrise_utc_h(latitude: float, longitude: float) -> float:
    """Hour of the day, UTC, at which the scene's sun comes up."""
    declination = radians(23.45) * sin(2 * pi * (284 + _DAY_OF_YEAR) / 365)
    half_day = (
        12
        / pi
        * (
            pi / 2
            + asin(
                sin(radians(latitude))
                / cos(radians(latitude))
                * sin(declination)
                / cos(declination)
            )
        )
    )
    return 12 - half_day - longitude / 15


def rain_mm_h(seed: int, hour: int) -> float:
    """Rain in one hour since 1970."""
    day = _day(seed, hour // 24)
    since = hour % 24 - day.rain_from_h
    return day.rain_mm / day.rain_hours if 0 <= since < day.rain_hours else 0.0


@dataclass(frozen=True)
class _Hour:
    sun_w_m2: float
    air_c: float
    evaporation_mm: float
    rain_mm: float


@lru_cache(maxsize=16384)
def _hour_before(seed: int, hour: int, latitude: float, longitude: float) -> _Hour:
    """The weather of the hour that ends at `hour`, by its middle; evaporation of a meadow after Makkink 1957."""
    middle_s = (hour - 0.5) * HOUR_S
    sun = radiation_w_m2(seed, middle_s, latitude, longitude)
    air_c = air_temperature_c(seed, middle_s)
    slope = 4098 * 0.6108 * exp(17.27 * air_c / (air_c + 237.3)) / (air_c + 237.3) ** 2
    return _Hour(
        sun_w_m2=sun,
        air_c=air_c,
        evaporation_mm=0.61 * slope / (slope + 0.067) * sun * HOUR_S / 2.45e6,
        rain_mm=rain_mm_h(seed, hour - 1),
    )


# --- soil ---------------------------------------------------------------------------------------------------------

LAYERS_CM = (30, 60, 90)
_PORE_WATER_US_CM = 600.0
_WATER_PERMITTIVITY = 80.3
_LAYER_MM = (450.0, 300.0, 300.0)
_ROOTS = (0.72, 0.19, 0.09)
_DRIEST_KPA = 190.0
_DRAINS_ABOVE_KPA = 8.0


@dataclass(frozen=True)
class Soil:
    """A tree pit's soil. `unsealed`: share of the rain that gets in; `uptake`: the tree's use of water against a
    reference meadow's; `shade`: 0 open to 1 no sun on the soil; Campbell's curve by its three parameters."""

    air_entry_kpa: float = 1.2
    campbell_b: float = 4.8
    saturation: float = 0.42
    unsealed: float = 0.6
    uptake: float = 0.5
    shade: float = 0.2
    diffusivity_mm2_s: float = 0.5

    def tension_kpa(self, water_content: float) -> float:
        """Campbell 1974 (Soil Sci. 117:311): ψ = ψe (θ/θs)^−b."""
        return float(self.air_entry_kpa * (water_content / self.saturation) ** -self.campbell_b)

    def water_content(self, tension_kpa: float) -> float:
        """The same curve the other way, m³/m³."""
        return float(self.saturation * (tension_kpa / self.air_entry_kpa) ** (-1 / self.campbell_b))


def permittivity_of(water_content: float) -> float:
    """Relative permittivity of a mineral soil: κ = 3.03 + 9.3 θ + 146 θ² − 76.7 θ³.

    Topp, Davis and Annan 1980 (Water Resour. Res. 16:574), the inverse fit, which is a fit of its own.

    >>> round(permittivity_of(0.25), 2)
    13.28
    """
    return 3.03 + water_content * (9.3 + water_content * (146.0 - water_content * 76.7))


def dry_soil(
    soil: Soil, seed: int, latitude: float, longitude: float, hours: range
) -> list[tuple[float, ...]]:
    """Tension (kPa) at the three depths at each hour: rain in, roots and gravity out, films between the layers.

    Roots take less as the square root of the water that is left to them; what is wetter than 8 kPa drains with a
    day's time constant; films carry water between layers within weeks. A state belongs to the full hour.
    """
    # Weather is the city's: a tenth of a degree is near enough, and sites then share its hours.
    latitude, longitude = round(latitude, 1), round(longitude, 1)
    water = [soil.water_content(tension) for tension in (30.0, 25.0, 20.0)]
    wettest = soil.water_content(_DRAINS_ABOVE_KPA)
    driest = soil.water_content(_DRIEST_KPA)
    tensions: list[tuple[float, ...]] = []
    for hour in hours:
        weather = _hour_before(seed, hour, latitude, longitude)
        falls_mm = weather.rain_mm * soil.unsealed
        for layer in range(3):
            height = _LAYER_MM[layer]
            room = (water[layer] - driest) / (wettest - driest)
            stress = min(1.0, max(0.0, room) ** 0.5)
            taken = weather.evaporation_mm * soil.uptake * _ROOTS[layer] * stress
            water[layer] += (falls_mm - taken) / height
            excess = max(0.0, water[layer] - wettest)
            falls_mm = excess * height * (1 - exp(-1 / 24))
            water[layer] -= falls_mm / height
        for upper in range(2):
            flow = (water[upper] - water[upper + 1]) / (24 * 25.0)
            water[upper] -= flow * 300 / _LAYER_MM[upper]
            water[upper + 1] += flow * 300 / _LAYER_MM[upper + 1]
        water = [min(max(one, driest), soil.saturation) for one in water]
        tensions.append(tuple(soil.tension_kpa(one) for one in water))
    return tensions


def soil_temperature_c(soil: Soil, seed: int, depth_cm: float, utc_s: float) -> float:
    """Soil temperature: a damped, late harmonic of the day on a damped, late echo of the last weeks' air.

    One-dimensional heat conduction (Carslaw and Jaeger 1959, §2.6): amplitude falls as e^(−z/d), the phase lags by
    z/d, d = √(D·P/π) for period P. The weeks' spells are smoothed over the depth's own time z²/2D.
    """
    depth_m = depth_cm / 100
    diffusivity = soil.diffusivity_mm2_s * 1e-6
    daily_depth_m = sqrt(diffusivity * DAY_S / pi)
    lag_days = depth_m**2 / (2 * diffusivity) / DAY_S
    echo_k, weights = 0.0, 0.0
    for days_ago in range(15):
        weight = exp(-(((days_ago - lag_days) / (0.8 + 0.6 * lag_days)) ** 2))
        weights += weight
        echo_k += weight * _between_days(
            seed, utc_s - days_ago * DAY_S, lambda day: day.anomaly_k - 1.5 * (day.cloud - 0.5)
        )
    sunny = 1 - 0.5 * cloud_cover(seed, utc_s - 0.5 * DAY_S)
    swing_k = 7.0 * (1 - 0.6 * soil.shade) * sunny
    hour = utc_s / HOUR_S % 24
    phase = 2 * pi * (hour - 13.5) / 24 - depth_m / daily_depth_m
    # 15 July is three weeks before the warmest soil: the deep is still the cooler, by half a degree each 30 cm.
    mean_c = 19.8 - 1.2 * soil.shade - 1.7 * depth_m
    spells_k = 0.8 * echo_k / weights * exp(-0.45 * depth_m)
    return mean_c + spells_k + swing_k * exp(-depth_m / daily_depth_m) * cos(phase)


def permittivity(water_content: float) -> float:
    """Relative permittivity of a mineral soil: Topp, Davis and Annan 1980, eq. 6 (their own fit of this direction).

    >>> round(permittivity(0.25), 2)
    13.28
    """
    t = water_content
    return 3.03 + 9.3 * t + 146.0 * t**2 - 76.7 * t**3


def bulk_conductivity_us_cm(water_content: float) -> float:
    """Bulk conductivity of a soil whose water carries 600 µS/cm: Hilhorst 2000 (Soil Sci. Soc. Am. J. 64:1922), eq. 8.

    >>> round(bulk_conductivity_us_cm(0.25))
    69
    """
    return max(0.0, _PORE_WATER_US_CM * (permittivity(water_content) - 4.1) / 80.3)


def moisture_index(water_content: float) -> float:
    """What a capacitive probe's voltage says between its own in air (0) and in water (1), by refractive index."""
    return (sqrt(permittivity(water_content)) - 1.0) / (sqrt(_WATER_PERMITTIVITY) - 1.0)


# --- water --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Water:
    """A pond, lake or slow stream, well mixed. Rates at 20 °C; production at full sun."""

    depth_m: float = 1.5
    production_mg_l_h: float = 0.7
    respiration_mg_l_d: float = 6.0
    reaeration_per_d: float = 0.8
    shade: float = 0.1


def breathe_water(
    water: Water, seed: int, site: tuple[float, float, float], hours: range
) -> list[tuple[float, ...]]:
    """Temperature (°C) and oxygen (mg/L) at each hour; `site` is latitude, longitude, height in m.

    Oxygen: Odum 1956: production − respiration + exchange with the air; production by Jassby and Platt 1976 (tanh of
    light), rates by the usual θ^(T−20). Each hour is solved exactly for its constant rates.
    """
    latitude, longitude, altitude_m = round(site[0], 1), round(site[1], 1), site[2]
    temperature_c, oxygen = 21.0, 7.5
    states: list[tuple[float, ...]] = []
    for hour in hours:
        weather = _hour_before(seed, hour, latitude, longitude)
        sun = weather.sun_w_m2 * (1 - water.shade)
        rest_c = weather.air_c - 2.0 + 0.011 * sun
        temperature_c += (rest_c - temperature_c) * (1 - exp(-1 / (22 * water.depth_m)))
        exchange_per_h = water.reaeration_per_d / 24 * 1.024 ** (temperature_c - 20)
        made = water.production_mg_l_h * tanh(sun / 320) * 1.036 ** (temperature_c - 20)
        breathed = water.respiration_mg_l_d / 24 * 1.047 ** (temperature_c - 20)
        # Respiration starves as oxygen runs out (Michaelis–Menten, half at 0.4 mg/L).
        breathed *= oxygen / (oxygen + 0.4)
        saturated = oxygen_at_saturation_mg_l(temperature_c, altitude_m)
        rest = saturated + (made - breathed) / exchange_per_h
        oxygen = max(0.05, rest + (oxygen - rest) * exp(-exchange_per_h))
        states.append((temperature_c, oxygen))
    return states


@lru_cache(maxsize=4096)
def _rain_left_mm(seed: int, hour: int, fades_h: int) -> float:
    """Rain of the hours before, each fading away with this time constant."""
    return sum(
        rain_mm_h(seed, hour - age_h) * exp(-age_h / fades_h) for age_h in range(1, 5 * fades_h)
    )


def rain_left_mm(seed: int, utc_s: float, fades_h: int) -> float:
    """The same at any moment, on the line between full hours."""
    hour = int(utc_s // HOUR_S)
    part = utc_s / HOUR_S - hour
    before, after = (_rain_left_mm(seed, one, fades_h) for one in (hour, hour + 1))
    return before + (after - before) * part


# The next three are ours: curves of the right kind and size for a pond that a few streets drain into.


def turbidity_fnu(seed: int, utc_s: float) -> float:
    """What streets wash in settles within half a day."""
    return 6.0 + 1.8 * rain_left_mm(seed, utc_s, 12)


def conductivity_25_us_cm(seed: int, utc_s: float) -> float:
    """Rain dilutes; the ground gives back within four days."""
    return max(200.0, 620.0 - 4.0 * rain_left_mm(seed, utc_s, 96))


def ph_of_water(oxygen_mg_l: float, saturated_mg_l: float) -> float:
    """Algae take carbon dioxide as they give oxygen: alkaline by day, less so by night."""
    return min(10.0, max(6.5, 7.9 + 0.09 * (oxygen_mg_l - saturated_mg_l)))


def water_level_m(seed: int, utc_s: float) -> float:
    """Level below an ultrasonic probe that hangs 1.5 m over the mean: each mm of rain lifts it by 4, and runs off in two days."""
    hour = int(utc_s // HOUR_S)
    rise_mm = sum(
        rain_mm_h(seed, hour - hours_ago) * 4.0 * exp(-hours_ago / 48)
        for hours_ago in range(1, 240)
    )
    return -1.5 + rise_mm / 1000


# --- battery ------------------------------------------------------------------------------------------------------

# Open voltage of one lithium-ion cell against the share of its charge that is left (typical 0.2 C discharge curve).
_CELL_MV = (
    (0.0, 3000.0),
    (0.05, 3450.0),
    (0.2, 3640.0),
    (0.5, 3790.0),
    (0.8, 4010.0),
    (1.0, 4180.0),
)


def battery_mv(
    seed: int, label: str, life_days: float, temperature_c: float, utc_s: float
) -> float:
    """Battery voltage at rest: charged again every 0.8 of `life_days`, a little lower in the cold."""
    cycle = 0.8
    phase = uniform(seed, "battery", label)
    charge = 1 - (utc_s / DAY_S / life_days + phase) % cycle
    for (low, low_mv), (high, high_mv) in pairwise(_CELL_MV):
        if charge <= high:
            level = low_mv + (high_mv - low_mv) * (charge - low) / (high - low)
            break
    else:
        level = _CELL_MV[-1][1]
    return level + 1.2 * (temperature_c - 20)


# --- hourly states, block by block ---------------------------------------------------------------------------------


@dataclass
class HourlyStates:
    """States at full hours, worked out block by block when asked for, straight lines between.

    Each block starts `spin_up_days` early from rest. What the rest state still weighs after that would show as a step
    between blocks; so the first days of a block fade over from the last one's run.
    """

    integrate: Callable[[range], list[tuple[float, ...]]]
    spin_up_days: int
    _blocks: dict[int, tuple[int, array[float]]] = field(default_factory=dict)

    def at(self, utc_s: float) -> tuple[float, ...]:
        """The states at a moment."""
        hour = int(utc_s // HOUR_S)
        return _between(self._full_hour(hour), self._full_hour(hour + 1), utc_s / HOUR_S - hour)

    def _full_hour(self, hour: int) -> tuple[float, ...]:
        number, inside = divmod(hour, _BLOCK_HOURS)
        state = self._in_block(number, inside)
        if inside >= _FADE_HOURS:
            return state
        of_last_block = self._in_block(number - 1, _BLOCK_HOURS + inside)
        return _between(of_last_block, state, inside / _FADE_HOURS)

    def _in_block(self, number: int, inside: int) -> tuple[float, ...]:
        if number not in self._blocks:
            first = number * _BLOCK_HOURS
            spin_up_hours = self.spin_up_days * 24
            hours = range(first - spin_up_hours, first + _BLOCK_HOURS + _FADE_HOURS)
            states = self.integrate(hours)[spin_up_hours:]
            # Flat, so that a thousand sites fit into one process.
            flat = array("d", (value for state in states for value in state))
            self._blocks[number] = len(states[0]), flat
        width, flat = self._blocks[number]
        return tuple(flat[inside * width : (inside + 1) * width])


def _between(before: tuple[float, ...], after: tuple[float, ...], part: float) -> tuple[float, ...]:
    return tuple(low + (high - low) * part for low, high in zip(before, after, strict=True))

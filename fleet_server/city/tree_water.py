"""How much water the soil under a tree holds day by day: the dual crop coefficient balance of FAO-56, and what a street does to it.

After Allen, Pereira, Raes and Smith (1998), FAO Irrigation and Drainage Paper 56, chapters 7 and 8 ("FAO-56"), runoff after ASCE (2016). All depths
are mm over the root zone's area, by day; arrays have the shape (days,) or (days, n): n members of an ensemble, or n sites, in one go. An unknown
input (NaN) makes that day and all days after it unknown in that column, never wet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_FULL_WETTING_MM: Final = 3.0  # rain that wets the whole surface, FAO-56 p. 149
_DEPLETION_LIMITS: Final = (0.1, 0.8)  # FAO-56 Table 22, footnote 2
_HUMIDITY_LIMITS_PCT: Final = (20.0, 80.0)  # FAO-56 Eq. 62
_WIND_LIMITS_M_S: Final = (1.0, 6.0)
_TALLEST_M: Final = 10.0  # up to which the climate's part of Eq. 72 was made (FAO-56 Eq. 62)
_LEAST_EXPOSED: Final = 0.01
_LARGEST_COVER: Final = 0.99


@dataclass(frozen=True)
class Soil:
    """A root zone's soil.

    Attributes:
        field_capacity, wilting_point: m³/m³.
        surface_depth_m: Z_e, depth that dries by evaporation, m: 0.10–0.15 (FAO-56 Table 19).
        readily_evaporable_mm: REW, mm: 2–12 (FAO-56 Table 19).
        curve_number: of runoff, 1–100; None: all rain soaks in.

    Raises:
        ValueError: numbers that no soil has.
    """

    field_capacity: float
    wilting_point: float
    surface_depth_m: float = 0.10
    readily_evaporable_mm: float = 8.0
    curve_number: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.wilting_point < self.field_capacity < 1.0:
            raise ValueError("A soil holds more at field capacity than where plants wilt.")
        if not 0.0 < self.surface_depth_m <= 0.5:
            raise ValueError("The layer that dries by evaporation is up to 0.5 m deep.")
        if not 0.0 < self.readily_evaporable_mm < self.total_evaporable_mm:
            raise ValueError("What evaporates readily is a part of what the surface can lose.")
        if self.curve_number is not None and not 1.0 <= self.curve_number <= 100.0:
            raise ValueError("A curve number is from 1 to 100.")

    @property
    def total_evaporable_mm(self) -> float:
        """TEW = 1000 (θFC − 0.5 θWP) Ze (FAO-56 Eq. 73)."""
        return 1000.0 * (self.field_capacity - 0.5 * self.wilting_point) * self.surface_depth_m

    def total_available_mm(self, root_depth_m: ArrayLike) -> FloatArray:
        """TAW = 1000 (θFC − θWP) Zr (FAO-56 Eq. 82).

        >>> round(float(Soil(0.30, 0.12).total_available_mm(1.0)), 9)
        180.0
        """
        depth = np.asarray(root_depth_m, dtype=np.float64)
        return 1000.0 * (self.field_capacity - self.wilting_point) * depth


@dataclass(frozen=True)
class Plants:
    """What stands on the soil, day by day; shape (days,) or (days, n), or one number for all days.

    Attributes:
        basal_coefficient: Kcb, 0–1.4.
        height_m: h, m, 0.001–60; above 10 m it counts as 10 m. Eq. 76 was made for crops: of trees give `ground_cover`.
        root_depth_m: Zr, m, 0.05–5.
        ground_cover: fc, 0–0.99; None: FAO-56 Eq. 76 from Kcb.
        depletion_share: p of the tables for 5 mm/d, 0.1–0.8.
        least_coefficient: Kc,min of Eq. 76: dry bare soil, 0.15–0.20.
    """

    basal_coefficient: ArrayLike
    height_m: ArrayLike
    root_depth_m: ArrayLike
    depletion_share: float
    ground_cover: ArrayLike | None = None
    least_coefficient: float = 0.15

    def __post_init__(self) -> None:
        if not _DEPLETION_LIMITS[0] <= self.depletion_share <= _DEPLETION_LIMITS[1]:
            raise ValueError("The share of water that a plant takes without stress is 0.1 to 0.8.")


@dataclass(frozen=True)
class Stages:
    """A season of Kcb: as long as initial, development, middle and late last (days), with Kcb and what grows with it (FAO-56 Table 11, 17)."""

    days: tuple[int, int, int, int]
    coefficients: tuple[float, float, float]
    heights_m: tuple[float, float]
    root_depths_m: tuple[float, float]

    def plants(self, days: int, depletion_share: float) -> Plants:
        """Day by day: straight lines between the stages; what has grown stays (FAO-56 Eq. 66 and p. 279)."""
        initial, middle, end = self.coefficients
        edges = np.cumsum(self.days)
        kcb = np.interp(np.arange(days), edges, [initial, middle, middle, end])
        grown = np.maximum.accumulate((kcb - initial) / (middle - initial))
        (low, high), (shallow, deep) = self.heights_m, self.root_depths_m
        return Plants(
            basal_coefficient=kcb,
            height_m=np.maximum(low + (high - low) * grown, 0.001),
            root_depth_m=np.maximum(shallow + (deep - shallow) * grown, 0.001),
            depletion_share=depletion_share,
            least_coefficient=initial,
        )


@dataclass(frozen=True)
class Weather:
    """Days; shape (days,) or (days, n).

    Attributes:
        evapotranspiration_mm: ET0, mm/d (`measurement.evapotranspiration`).
        rain_mm: mm/d.
        wind_m_s: at 2 m, m/s.
        humidity_min_pct: least relative humidity, %.
    """

    evapotranspiration_mm: FloatArray
    rain_mm: FloatArray
    wind_m_s: ArrayLike = 2.0
    humidity_min_pct: ArrayLike = 45.0

    @property
    def days(self) -> int:
        return int(np.shape(self.evapotranspiration_mm)[0])


@dataclass(frozen=True)
class Watering:
    """What was given; shape (days,) or (days, n). `wetted_share`: part of the surface that it wets, where something was given."""

    depth_mm: ArrayLike = 0.0
    wetted_share: ArrayLike = 1.0


@dataclass(frozen=True)
class Place:
    """What a street does to a tree's water; all 1 in a field.

    Attributes:
        unsealed_share: part of the root zone's surface through which rain comes and from which soil dries, 0–1.
        microclimate: Kmc of WUCOLS, by which the air takes more or less: 0.5 in full shade, 1.4 by a wall in the sun.
    """

    unsealed_share: float = 1.0
    microclimate: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.unsealed_share <= 1.0:
            raise ValueError("The unsealed share of a root zone is more than 0 and at most 1.")
        if not 0.3 <= self.microclimate <= 1.5:
            raise ValueError("A microclimate's factor is from 0.3 to 1.5.")


SPECIES_FACTORS: Final = {"very low": 0.1, "low": 0.2, "moderate": 0.5, "high": 0.8}
DENSITY_FACTORS: Final = {"low": 0.7, "average": 1.0, "high": 1.2}
MICROCLIMATE_FACTORS: Final = {"shaded": 0.7, "average": 1.0, "exposed": 1.25}
"""WUCOLS III (Costello, Matheny, Clark and Jones 2000, University of California): middles of its ranges; K_L = Ks · Kd · Kmc. Kmc is a `Place`'s."""


def landscape_coefficient(species: str, density: str = "average") -> float:
    """Kcb of a tree in a town, without its microclimate: Ks · Kd of WUCOLS.

    >>> landscape_coefficient("moderate"), round(landscape_coefficient("high", "low"), 2)
    (0.5, 0.56)
    """
    return SPECIES_FACTORS[species] * DENSITY_FACTORS[density]


def litres_as_mm(litres: ArrayLike, root_area_m2: ArrayLike) -> FloatArray:
    """A watering as a depth over the root zone: 1 L on 1 m² is 1 mm.

    >>> litres_as_mm(100.0, 8.0).tolist()
    12.5
    """
    return np.asarray(litres, dtype=np.float64) / np.asarray(root_area_m2, dtype=np.float64)


@dataclass(frozen=True)
class Water:
    """Where the water stands: depletion of the root zone and of the surface, mm; wetted part of the surface. Shape () or (n,)."""

    depletion_mm: ArrayLike
    surface_depletion_mm: ArrayLike
    wetted_share: ArrayLike = 1.0


def water_at(soil: Soil, water_content: ArrayLike, root_depth_m: ArrayLike) -> Water:
    """Where the water stands by a probe: Dr = 1000 (θFC − θ) Zr (FAO-56 Eq. 87), not below 0. The surface is taken as dry (p. 153).

    >>> round(float(np.asarray(water_at(Soil(0.30, 0.12), 0.24, 1.0).depletion_mm)), 6)
    60.0
    """
    missing = soil.field_capacity - np.asarray(water_content, dtype=np.float64)
    depletion = 1000.0 * missing * np.asarray(root_depth_m, dtype=np.float64)
    return Water(np.maximum(depletion, 0.0), soil.total_evaporable_mm)


@dataclass(frozen=True)
class Balance:
    """Every day of a balance; shape (days,) or (days, n). mm per day, mm, or without unit.

    Attributes:
        basal_coefficient, largest_coefficient, ground_cover, wetted_share, exposed_share: Kcb, Kc,max, fc, fw, few.
        surface_reduction, evaporation_coefficient, stress: Kr, Ke, Ks at the beginning of the day.
        evaporation_mm, transpiration_mm: E and Ks Kcb ET0.
        surface_depletion_mm, depletion_mm: De and Dr at the end of the day.
        total_available_mm, readily_available_mm, depletion_share: TAW, RAW, p.
        surface_percolation_mm, percolation_mm, runoff_mm: DPe, DP, RO.
        stress_at_end: Ks at the end of the day.
    """

    basal_coefficient: FloatArray
    largest_coefficient: FloatArray
    ground_cover: FloatArray
    wetted_share: FloatArray
    exposed_share: FloatArray
    surface_reduction: FloatArray
    evaporation_coefficient: FloatArray
    evaporation_mm: FloatArray
    surface_percolation_mm: FloatArray
    surface_depletion_mm: FloatArray
    total_available_mm: FloatArray
    depletion_share: FloatArray
    readily_available_mm: FloatArray
    stress: FloatArray
    transpiration_mm: FloatArray
    percolation_mm: FloatArray
    runoff_mm: FloatArray
    depletion_mm: FloatArray
    stress_at_end: FloatArray

    def water_content(self, soil: Soil, root_depth_m: ArrayLike) -> FloatArray:
        """Mean θ of the root zone at the end of each day, m³/m³."""
        depth = np.asarray(root_depth_m, dtype=np.float64)
        return soil.field_capacity - self.depletion_mm / (1000.0 * depth)


def largest_coefficient(
    basal_coefficient: ArrayLike,
    height_m: ArrayLike,
    wind_m_s: ArrayLike,
    humidity_min_pct: ArrayLike,
) -> FloatArray:
    """Kc,max = max(1.2 + [0.04 (u₂ − 2) − 0.004 (RHmin − 45)] (h/3)^0.3, Kcb + 0.05) (FAO-56 Eq. 72).

    >>> round(float(largest_coefficient(0.3, 0.3, 2.2, 30)), 3)
    1.234
    """
    wind = np.clip(wind_m_s, *_WIND_LIMITS_M_S)
    humidity = np.clip(humidity_min_pct, *_HUMIDITY_LIMITS_PCT)
    height = np.minimum(np.asarray(height_m, dtype=np.float64), _TALLEST_M)
    by_climate = 0.04 * (wind - 2.0) - 0.004 * (humidity - 45.0)
    open_air = 1.2 + by_climate * np.power(height / 3.0, 0.3)
    return np.maximum(open_air, np.asarray(basal_coefficient, np.float64) + 0.05)


def depletion_share(tabulated: ArrayLike, evapotranspiration_mm: ArrayLike) -> FloatArray:
    """P = p_table + 0.04 (5 − ETc), 0.1–0.8 (FAO-56 Table 22, footnote 2).

    >>> round(float(depletion_share(0.5, 4.0)), 2)
    0.54
    """
    adjusted = np.asarray(tabulated, np.float64) + 0.04 * (
        5.0 - np.asarray(evapotranspiration_mm, np.float64)
    )
    return np.clip(adjusted, *_DEPLETION_LIMITS)


def water_stress(
    depletion_mm: ArrayLike, total_available_mm: ArrayLike, share: ArrayLike
) -> FloatArray:
    """Ks = (TAW − Dr) / ((1 − p) TAW), 0–1 (FAO-56 Eq. 84).

    >>> water_stress([60, 100, 120, 150], 180.0, 0.54).round(4).tolist()
    [1.0, 0.9662, 0.7246, 0.3623]
    """
    total = np.asarray(total_available_mm, dtype=np.float64)
    left = total - np.asarray(depletion_mm, dtype=np.float64)
    result: FloatArray = np.clip(left / ((1.0 - np.asarray(share, np.float64)) * total), 0.0, 1.0)
    return result


def runoff(rain_mm: ArrayLike, surface_depletion_mm: ArrayLike, soil: Soil) -> FloatArray:
    """Rain that does not soak in, mm, by the curve number, moved by how wet the surface is (ASCE 2016, Eqs. 14-12 to 14-20).

    >>> runoff([5.0, 60.0], 10.0, Soil(0.30, 0.12, curve_number=80)).round(1).tolist()
    [0.0, 12.1]
    """
    rain = np.asarray(rain_mm, dtype=np.float64)
    if soil.curve_number is None:
        return np.where(np.isnan(rain), np.nan, 0.0)
    middle = soil.curve_number
    dry, wet = middle / (2.281 - 0.01281 * middle), middle / (0.427 + 0.00573 * middle)
    wet_to = 0.5 * soil.readily_evaporable_mm
    dry_from = 0.7 * soil.readily_evaporable_mm + 0.3 * soil.total_evaporable_mm
    share = np.clip(
        (np.asarray(surface_depletion_mm, np.float64) - wet_to) / (dry_from - wet_to), 0.0, 1.0
    )
    storage = 250.0 * (100.0 / (share * dry + (1.0 - share) * wet) - 1.0)
    beyond = np.maximum(rain - 0.2 * storage, 0.0)
    return np.minimum(beyond * beyond / np.maximum(rain + 0.8 * storage, 1e-9), rain)


_NO_WATERING: Final = Watering()
_FIELD: Final = Place()


def balance(
    soil: Soil,
    plants: Plants,
    weather: Weather,
    start: Water,
    *,
    watering: Watering = _NO_WATERING,
    place: Place = _FIELD,
) -> Balance:
    """The water balance day by day (FAO-56 Eqs. 69, 71–79, 80, 82–86, 88).

    In a street, rain reaches the root zone through its unsealed share alone, and only there does soil dry by evaporation: there the surface gets
    the whole rain, the root zone rain · share. Shade and walls go with ET0. With both 1 it is FAO-56.

    Raises:
        ValueError: shapes that do not belong together.
    """
    days = weather.days
    inputs = _Inputs.of(days, plants, weather, watering, place)
    members = inputs.evapotranspiration_mm.shape[1:]
    state = _State(
        *(
            np.broadcast_to(np.asarray(one, np.float64), members).copy()
            for one in (start.depletion_mm, start.surface_depletion_mm, start.wetted_share)
        )
    )
    rows = [state.advance(soil, plants, inputs, place, day) for day in range(days)]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return Balance(**columns)


@dataclass(frozen=True)
class _Inputs:
    """Everything that a day needs, as (days,) + members."""

    evapotranspiration_mm: FloatArray
    rain_mm: FloatArray
    kcb: FloatArray
    kc_max: FloatArray
    height_m: FloatArray
    root_depth_m: FloatArray
    cover: FloatArray | None
    depth_mm: FloatArray
    wetted_share: FloatArray

    @classmethod
    def of(
        cls, days: int, plants: Plants, weather: Weather, watering: Watering, place: Place
    ) -> _Inputs:
        given = (
            weather.evapotranspiration_mm,
            weather.rain_mm,
            watering.depth_mm,
            plants.basal_coefficient,
            plants.root_depth_m,
        )
        dimensions = max(1, *(np.ndim(one) for one in given))
        shape = np.broadcast_shapes(*(_by_day(one, days, dimensions).shape for one in given))

        def spread(values: ArrayLike) -> FloatArray:
            return np.broadcast_to(_by_day(values, days, dimensions), shape)

        kcb, height = spread(plants.basal_coefficient), spread(plants.height_m)
        wind, humidity = spread(weather.wind_m_s), spread(weather.humidity_min_pct)
        return cls(
            evapotranspiration_mm=spread(weather.evapotranspiration_mm) * place.microclimate,
            rain_mm=spread(weather.rain_mm),
            kcb=kcb,
            kc_max=largest_coefficient(kcb, height, wind, humidity),
            height_m=height,
            root_depth_m=spread(plants.root_depth_m),
            cover=None if plants.ground_cover is None else spread(plants.ground_cover),
            depth_mm=spread(watering.depth_mm),
            wetted_share=spread(watering.wetted_share),
        )


def _by_day(values: ArrayLike, days: int, dimensions: int) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0:
        array = np.full(days, float(array))
    if array.shape[0] != days:
        raise ValueError(f"Weather has {days} days, and something else {array.shape[0]}.")
    return array.reshape(array.shape + (1,) * (dimensions - array.ndim))


@dataclass
class _State:
    depletion_mm: FloatArray
    surface_depletion_mm: FloatArray
    wetted_share: FloatArray

    def advance(
        self, soil: Soil, plants: Plants, inputs: _Inputs, place: Place, day: int
    ) -> dict[str, FloatArray]:
        """One day, in the order of FAO-56 chapter 8; what it came to, by the names of `Balance`."""
        et0, rain, given = (
            inputs.evapotranspiration_mm[day],
            inputs.rain_mm[day],
            inputs.depth_mm[day],
        )
        kcb, kc_max = inputs.kcb[day], inputs.kc_max[day]
        cover = _cover(inputs, day, plants.least_coefficient)
        lost = runoff(rain, self.surface_depletion_mm, soil)
        soaked = rain - lost
        is_watered = given > 0.0
        fully_wet = np.where(rain >= _FULL_WETTING_MM, 1.0, self.wetted_share)
        self.wetted_share = np.where(is_watered, inputs.wetted_share[day], fully_wet)
        # Eq. 75; what is sealed dries no more than what is shaded.
        exposed = np.minimum(1.0 - cover, self.wetted_share)
        exposed = np.clip(np.minimum(exposed, place.unsealed_share), _LEAST_EXPOSED, 1.0)
        reduction = (soil.total_evaporable_mm - self.surface_depletion_mm) / (
            soil.total_evaporable_mm - soil.readily_evaporable_mm
        )
        reduction = np.clip(reduction, 0.0, 1.0)  # Eq. 74
        evaporation_coefficient = np.minimum(reduction * (kc_max - kcb), exposed * kc_max)  # Eq. 71
        evaporated = evaporation_coefficient * et0
        onto_surface = soaked + given / self.wetted_share
        surface_percolated = np.maximum(onto_surface - self.surface_depletion_mm, 0.0)  # Eq. 79
        surface = (
            self.surface_depletion_mm - onto_surface + evaporated / exposed + surface_percolated
        )
        self.surface_depletion_mm = np.clip(surface, 0.0, soil.total_evaporable_mm)  # Eq. 77
        total = soil.total_available_mm(inputs.root_depth_m[day])
        share = depletion_share(plants.depletion_share, (evaporation_coefficient + kcb) * et0)
        stress = water_stress(self.depletion_mm, total, share)
        transpired = stress * kcb * et0
        into_roots = soaked * place.unsealed_share + given
        taken = evaporated + transpired
        percolated = np.maximum(into_roots - taken - self.depletion_mm, 0.0)  # Eq. 88
        self.depletion_mm = np.clip(
            self.depletion_mm - into_roots + taken + percolated, 0.0, total
        )  # Eqs. 85 and 86
        return {
            "basal_coefficient": kcb,
            "largest_coefficient": kc_max,
            "ground_cover": cover,
            "wetted_share": self.wetted_share,
            "exposed_share": exposed,
            "surface_reduction": reduction,
            "evaporation_coefficient": evaporation_coefficient,
            "evaporation_mm": evaporated,
            "surface_percolation_mm": surface_percolated,
            "surface_depletion_mm": self.surface_depletion_mm,
            "total_available_mm": total,
            "depletion_share": share,
            "readily_available_mm": share * total,
            "stress": stress,
            "transpiration_mm": transpired,
            "percolation_mm": percolated,
            "runoff_mm": lost,
            "depletion_mm": self.depletion_mm,
            "stress_at_end": water_stress(self.depletion_mm, total, share),
        }


def _cover(inputs: _Inputs, day: int, least: float) -> FloatArray:
    """Fc = ((Kcb − Kc,min)/(Kc,max − Kc,min))^(1 + 0.5 h), 0–0.99 (FAO-56 Eq. 76), or what was given."""
    if inputs.cover is not None:
        given: FloatArray = inputs.cover[day]
        return given
    ratio = np.maximum(inputs.kcb[day] - least, 0.0) / (inputs.kc_max[day] - least)
    cover: FloatArray = np.power(ratio, 1.0 + 0.5 * inputs.height_m[day])
    return np.clip(cover, 0.0, _LARGEST_COVER)

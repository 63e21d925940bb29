"""Formulas that stand alone: published equations from what is measured to what is meant.

Every formula takes scalars or arrays of one shape and returns float64 of that shape. An argument that is NaN or outside the
range in which the equation holds gives NaN, never a number that looks like one. `FORMULAS` lists them for `fleet convert`, with those of
`soil_water` (retention, available water), `probes` (thermistors, cells, electrodes, windows) and `place` (gravity, air pressure).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fleet_server.measurement import exact
from fleet_server.measurement.evapotranspiration import (
    LATITUDES_DEG,
    hargreaves_evapotranspiration,
    radiation_of_sunshine,
    reference_evapotranspiration,
    wind_at_2_m,
)
from fleet_server.measurement.place import local_gravity, station_pressure
from fleet_server.measurement.probes import (
    DS18B20_COUNTS,
    WATERMARK_THERMISTOR_OHM,
    borax_buffer_ph,
    cell_constant,
    conductivity_of_cell,
    ds18b20_temperature,
    oxygen_two_point,
    phosphate_buffer_ph,
    phthalate_buffer_ph,
    steinhart_hart_temperature,
    thermistor_temperature,
    turbidity,
    watermark_thermistor_temperature,
)
from fleet_server.measurement.ranges import FloatArray, within
from fleet_server.measurement.soil_water import (
    available_water_pct,
    soil_specific_water_content,
    topp_permittivity,
    van_genuchten_tension,
    van_genuchten_water_content,
)
from fleet_server.measurement.units import (
    FARADAY_C_MOL,
    GAS_CONSTANT_J_MOL_K,
    STANDARD_ATMOSPHERE_HPA,
    STANDARD_GRAVITY_M_S2,
    ZERO_CELSIUS_K,
)

NERNST_SLOPE_25_MV = 59.15935  # nernst_slope(25), the default of an electrode without a calibration
WATERMARK_SHORT_OHM = 300.0
WATERMARK_OPEN_OHM = 35_000.0
WATERMARK_TEMPERATURES_C = (0.0, 50.0)
TEROS_COUNTS = (1_797.0, 3_396.0)  # permittivity 1 (air) to 80.5 (water)
TEROS_SOIL_COUNTS = (1_870.0, 3_396.0)  # from permittivity 2 on, where Topp's curve begins
SOUND_TEMPERATURES_C = (-40.0, 60.0)
SOUND_ASSUMED_M_S = 344.0  # of a module without a thermometer: 340 to 348, its maker does not say
# Coefficients a and b of the practical salinity scale, by power of √Rt.
_PSS_78 = (
    (0.0080, 0.0005),
    (-0.1692, -0.0056),
    (25.3851, -0.0066),
    (14.0941, -0.0375),
    (-7.0261, 0.0636),
    (2.7081, -0.0144),
)
CAPACITIVE_AIR_MV = 2_540.0
CAPACITIVE_WATER_MV = 1_270.0

# The pieces of the Watermark curve do not meet; within ± 5 % of a knot we go over from one to the other.
_BLEND = 0.05
_LOWER_KNOT_KOHM = 1.0
_UPPER_KNOT_KOHM = 8.0
WATERMARK_KNOTS_OHM = tuple(
    knot_kohm * 1000.0 * share
    for knot_kohm in (_LOWER_KNOT_KOHM, _UPPER_KNOT_KOHM)
    for share in (1.0 - _BLEND, 1.0, 1.0 + _BLEND)
)
"""Between two neighbours the tension rises or falls only, to within 0.03 kPa: where the pieces do not meet, it may do either."""


@dataclass(frozen=True)
class Argument:
    """One argument of a formula: its unit stands in its name. `default` None: must be given."""

    name: str
    minimum: float
    maximum: float
    default: float | None


@dataclass(frozen=True)
class Formula:
    """A formula with what a reader must know to trust it."""

    function: Callable[..., FloatArray]
    unit: str
    source: str
    arguments: tuple[Argument, ...]

    @property
    def name(self) -> str:
        return self.function.__name__


# ------------------------------------------------------------------------------------------------------------------- soil


@dataclass(frozen=True)
class WatermarkTension:
    """Tension with what its uncertainty needs; all shape (n,).

    `per_ohm` and `per_kelvin` are the partial derivatives (kPa/Ω, kPa/K); `u_form` is the standard uncertainty (kPa) of the
    curve's form: its pieces do not meet, and in wet soil the maker has published two.
    """

    tension_kpa: FloatArray
    per_ohm: FloatArray
    per_kelvin: FloatArray
    u_form: FloatArray


def watermark_tension(resistance_ohm: ArrayLike, temperature_c: ArrayLike) -> FloatArray:
    """Soil water tension from the resistance of a Watermark 200SS.

    With r in kΩ, d = 1 + 0.018 (T − 24):
    r ≤ 0.55: 0;  0.55–1: (23.156 r − 12.736) d;  1–8: (4.093 + 3.213 r) / (1 − 0.009733 r − 0.01205 T)
    (Shock, Barnum and Seddigh 1998);  > 8: 2.246 + 5.239 r d + 0.06756 r² d² (Irrometer, 200SS calibration).
    The pieces do not meet; within ± 5 % of 1 kΩ and 8 kΩ this goes over linearly from one to the other, which is ours.

    Args:
        resistance_ohm: Ω, 300 ≤ R < 35,000. Below is a short, above an open line: NaN.
        temperature_c: of the soil, °C, 0–50. NaN below 0: in frozen soil the probe says nothing.

    Returns:
        Tension, kPa, ≥ 0.

    >>> round(float(watermark_tension(2000, 15)), 3)
    13.152
    """
    return watermark_tension_with_slopes(resistance_ohm, temperature_c).tension_kpa


def watermark_tension_with_slopes(
    resistance_ohm: ArrayLike, temperature_c: ArrayLike
) -> WatermarkTension:
    """`watermark_tension` with its partial derivatives. Only +, −, ·, /, √ are used: same bits on every machine.

    Inside a blend the truth may follow either piece or lie between, rectangular over their distance:
    |upper − lower| / √12. In wet soil it may lie anywhere up to the maker's older form, 20 (r d − 0.55):
    |difference| / √3. u_form is the root of the sum of their squares.

    >>> result = watermark_tension_with_slopes([2000.0, 8000.0], [24.0, 24.0])
    >>> result.u_form.round(3).tolist()
    [0.0, 0.405]
    """
    below_open = np.nextafter(WATERMARK_OPEN_OHM, 0.0)
    r = within(resistance_ohm, WATERMARK_SHORT_OHM, float(below_open)) / 1000.0
    t = within(temperature_c, *WATERMARK_TEMPERATURES_C)
    d = 1.0 + 0.018 * (t - 24.0)

    wet = (23.156 * r - 12.736) * d
    wet_r = 23.156 * d
    wet_t = (23.156 * r - 12.736) * 0.018

    numerator = 4.093 + 3.213 * r
    divisor = 1.0 - 0.009733 * r - 0.01205 * t
    # Beyond the blend this piece is not used, and its divisor passes through zero there.
    divisor = np.where(r < 9.0, divisor, 1.0)
    middle = numerator / divisor
    middle_r = (3.213 * divisor + 0.009733 * numerator) / (divisor * divisor)
    middle_t = 0.01205 * numerator / (divisor * divisor)

    rd = r * d
    dry = 2.246 + 5.239 * rd + 0.06756 * (rd * rd)
    dry_rd = 5.239 + 0.13512 * rd

    first, first_r = _blend_weight(r, _LOWER_KNOT_KOHM)
    second, second_r = _blend_weight(r, _UPPER_KNOT_KOHM)

    def across(lower: FloatArray, between: FloatArray, upper: FloatArray) -> FloatArray:
        start = (1.0 - first) * lower + first * between
        return (1.0 - second) * start + second * upper

    tension = across(wet, middle, dry)
    per_kohm = (
        across(wet_r, middle_r, dry_rd * d) + first_r * (middle - wet) + second_r * (dry - middle)
    )
    per_kelvin = across(wet_t, middle_t, dry_rd * (0.018 * r))

    is_wet = (r <= 0.55) | (tension <= 0.0)
    zero = np.where(np.isnan(r) | np.isnan(t), np.nan, 0.0)
    tension = np.where(is_wet, zero, tension)
    distance = np.where(second_r > 0.0, np.abs(dry - middle), 0.0)
    distance = np.where(first_r > 0.0, np.abs(middle - wet), distance)
    u_pieces = distance / math.sqrt(12.0)
    u_wet = _distance_to_older_form(rd, tension) / math.sqrt(3.0)
    return WatermarkTension(
        tension_kpa=tension,
        per_ohm=np.where(is_wet, zero, per_kohm / 1000.0),
        per_kelvin=np.where(is_wet, zero, per_kelvin),
        u_form=np.sqrt(u_pieces * u_pieces + u_wet * u_wet),
    )


def _distance_to_older_form(rd: FloatArray, tension_kpa: FloatArray) -> FloatArray:
    """How far the maker's older equation for wet soil, 20 (r d − 0.55), lies from what we give, kPa.

    It corrects the resistance for temperature before it asks whether the soil is saturated, so the two part in cold soil.
    It holds up to r d = 1; its say fades out over ± 5 % there.
    """
    weight, _ = _blend_weight(rd, _LOWER_KNOT_KOHM)
    older = 20.0 * np.maximum(rd - 0.55, 0.0)
    return (1.0 - weight) * np.abs(tension_kpa - older)


def _blend_weight(r: FloatArray, knot: float) -> tuple[FloatArray, FloatArray]:
    """Weight of the upper piece (0 below the band, 1 above it) and its derivative per kΩ."""
    start, width = knot * (1.0 - _BLEND), knot * 2.0 * _BLEND
    weight = np.clip((r - start) / width, 0.0, 1.0)
    return weight, np.where((weight > 0.0) & (weight < 1.0), 1.0 / width, 0.0)


def topp_water_content(permittivity: ArrayLike) -> FloatArray:
    """Volumetric water content of a mineral soil from its relative permittivity.

    θ = −5.3e-2 + 2.92e-2 κ − 5.5e-4 κ² + 4.3e-6 κ³ (Topp, Davis and Annan 1980, Eq. 7).

    Args:
        permittivity: κ, 2–81 (fitted on 3–40).

    Returns:
        θ, m³/m³.

    >>> round(float(topp_water_content(20)), 5)
    0.3454
    """
    k = within(permittivity, 2.0, 81.0)
    return -5.3e-2 + k * (2.92e-2 + k * (-5.5e-4 + k * 4.3e-6))


def teros_permittivity(counts: ArrayLike) -> FloatArray:
    """Relative permittivity from the counts of a TEROS 11 or 12.

    ε = (2.887e-9 r³ − 2.080e-5 r² + 5.276e-2 r − 43.39)² (METER, TEROS 12 user manual, §4.1.3). Below 1,797 counts the root is
    smaller than 1, which no matter has, and further down the square rises again.

    Args:
        counts: r, 1,797–3,396 (permittivity 1–80.5).

    Returns:
        ε.

    >>> round(float(teros_permittivity(2500)), 2)
    13.1
    """
    root = _teros_root(within(counts, *TEROS_COUNTS))
    return root * root


def teros_water_content(counts: ArrayLike) -> FloatArray:
    """Volumetric water content of a mineral soil from the counts of a TEROS 11 or 12: `topp_water_content` of their permittivity.

    Args:
        counts: r, 1,870–3,396. Below, the permittivity is less than 2: the probe is in air.

    Returns:
        θ, m³/m³.

    >>> round(float(teros_water_content(2500)), 4)
    0.2448
    """
    return topp_water_content(teros_permittivity(within(counts, *TEROS_SOIL_COUNTS)))


def teros_water_content_per_count(counts: ArrayLike) -> FloatArray:
    """Derivative of `teros_water_content`, m³/m³ per count.

    >>> round(float(teros_water_content_per_count(2500)), 6)
    0.000356
    """
    r = within(counts, *TEROS_SOIL_COUNTS)
    root = _teros_root(r)
    k = root * root
    per_permittivity = 2.92e-2 + k * (-1.1e-3 + k * 1.29e-5)
    return per_permittivity * 2.0 * root * (5.276e-2 + r * (-4.16e-5 + r * 8.661e-9))


def _teros_root(counts: FloatArray) -> FloatArray:
    return -43.39 + counts * (5.276e-2 + counts * (-2.080e-5 + counts * 2.887e-9))


def capacitive_index(
    voltage_mv: ArrayLike,
    air_mv: ArrayLike = CAPACITIVE_AIR_MV,
    water_mv: ArrayLike = CAPACITIVE_WATER_MV,
) -> FloatArray:
    """Relative moisture index of one capacitive probe: (V_air − V) / (V_air − V_water).

    0 in dry air, 1 in water, by that unit's own two voltages. It is no water content, and two probes' indices are not comparable.
    Without the last two arguments: the middle of what the maker states (DFRobot SEN0193 wiki).

    Args:
        voltage_mv: mV, 0–3,300.
        air_mv: mV, 1,800–3,300.
        water_mv: mV, 500–1,700.

    Returns:
        Index, 1.

    >>> round(float(capacitive_index(2000, 2600, 1350)), 3)
    0.48
    """
    air = within(air_mv, 1_800.0, 3_300.0)
    water = within(water_mv, 500.0, 1_700.0)
    return (air - within(voltage_mv, 0.0, 3_300.0)) / (air - water)


def ledieu_water_content(permittivity: ArrayLike) -> FloatArray:
    """Volumetric water content from relative permittivity, linear in its root.

    θ = 0.1138 √κ − 0.1758 (Ledieu et al. 1986).

    Args:
        permittivity: κ, 3–81.

    Returns:
        θ, m³/m³.

    >>> round(float(ledieu_water_content(20)), 5)
    0.33313
    """
    return 0.1138 * np.sqrt(within(permittivity, 3.0, 81.0)) - 0.1758


def malicki_water_content(permittivity: ArrayLike, bulk_density_g_cm3: ArrayLike) -> FloatArray:
    """Volumetric water content from relative permittivity and bulk density.

    θ = (√κ − 0.819 − 0.168 ρ − 0.159 ρ²) / (7.17 + 1.18 ρ) (Malicki, Plagge and Roth 1996, Eq. 11).

    Args:
        permittivity: κ, 3–81.
        bulk_density_g_cm3: ρ of the dry soil, g/cm³, 0.1–2.

    Returns:
        θ, m³/m³.

    >>> round(float(malicki_water_content(10, 1.4)), 5)
    0.20363
    """
    k = within(permittivity, 3.0, 81.0)
    rho = within(bulk_density_g_cm3, 0.1, 2.0)
    return (np.sqrt(k) - 0.819 - 0.168 * rho - 0.159 * rho * rho) / (7.17 + 1.18 * rho)


# ------------------------------------------------------------------------------------------------------------------ water


def oxygen_saturation(
    temperature_c: ArrayLike,
    salinity: ArrayLike = 0.0,
    pressure_hpa: ArrayLike = STANDARD_ATMOSPHERE_HPA,
) -> FloatArray:
    """Oxygen that water holds in equilibrium with moist air.

    ln C* = −139.34411 + 1.575701e5/K − 6.642308e7/K² + 1.243800e10/K³ − 8.621949e11/K⁴
            − S (0.017674 − 10.754/K + 2140.7/K²), K = T + 273.15
    (Benson and Krause 1984, as in APHA 4500-O and USGS OWQ memo 2011.03), times
    Fp = (P − u)(1 − θ₀P) / ((1 − u)(1 − θ₀)), P in atm, u = exp(11.8571 − 3840.70/K − 216961/K²),
    θ₀ = 9.75e-4 − 1.426e-5 T + 6.436e-8 T², T in °C. Only +, −, ·, / are used (`exact.exp`): same bits on every machine.

    Args:
        temperature_c: of the water, °C, 0–40.
        salinity: practical salinity, 0–40.
        pressure_hpa: of the air *at the place*, not reduced to sea level, hPa, 500–1100.

    Returns:
        mg/L.

    >>> round(float(oxygen_saturation(15, 0.5, 980)), 5)
    9.71768
    """
    t = within(temperature_c, 0.0, 40.0)
    s = within(salinity, 0.0, 40.0)
    p = within(pressure_hpa, 500.0, 1100.0) / STANDARD_ATMOSPHERE_HPA
    k = t + ZERO_CELSIUS_K
    fresh = -139.34411 + (1.575701e5 + (-6.642308e7 + (1.243800e10 - 8.621949e11 / k) / k) / k) / k
    salt = s * (0.017674 + (-10.754 + 2140.7 / k) / k)
    vapour = exact.exp(11.8571 + (-3840.70 - 216_961.0 / k) / k)
    theta = 9.75e-4 + t * (-1.426e-5 + t * 6.436e-8)
    factor = (p - vapour) * (1.0 - theta * p) / ((1.0 - vapour) * (1.0 - theta))
    return exact.exp(fresh - salt) * factor


def dissolved_oxygen(
    saturation_pct: ArrayLike,
    temperature_c: ArrayLike,
    salinity: ArrayLike = 0.0,
    pressure_hpa: ArrayLike = STANDARD_ATMOSPHERE_HPA,
) -> FloatArray:
    """Oxygen concentration from saturation: (%/100) · oxygen_saturation(T, S, P).

    Args:
        saturation_pct: % of equilibrium with air, 0–300.
        temperature_c, salinity, pressure_hpa: as in `oxygen_saturation`.

    Returns:
        mg/L.

    >>> round(float(dissolved_oxygen(85, 20, 0.3, 0.99 * 1013.25)), 5)
    7.63598
    """
    saturated = oxygen_saturation(temperature_c, salinity, pressure_hpa)
    return within(saturation_pct, 0.0, 300.0) / 100.0 * saturated


def percent_saturation(
    oxygen_mg_l: ArrayLike,
    temperature_c: ArrayLike,
    salinity: ArrayLike = 0.0,
    pressure_hpa: ArrayLike = STANDARD_ATMOSPHERE_HPA,
) -> FloatArray:
    """Oxygen saturation from concentration, the inverse of `dissolved_oxygen`: 100 · DO / oxygen_saturation(T, S, P).

    Args:
        oxygen_mg_l: mg/L, 0–45.
        temperature_c, salinity, pressure_hpa: as in `oxygen_saturation`; the pressure is the one at the place.

    Returns:
        % of equilibrium with air.

    >>> round(float(percent_saturation(7.63598, 20, 0.3, 0.99 * 1013.25)), 4)
    85.0
    """
    saturated = oxygen_saturation(temperature_c, salinity, pressure_hpa)
    return 100.0 * within(oxygen_mg_l, 0.0, 45.0) / saturated


def salinity(conductivity_25_us_cm: ArrayLike) -> FloatArray:
    """Salinity for the oxygen formula: S = 5.572e-4 SC + 2.02e-9 SC² (as used by USGS DOTABLES).

    Good enough for oxygen (within 0.11 %); not to be published as salinity below 2,000 µS/cm, where it is 14 % off.

    Args:
        conductivity_25_us_cm: at 25 °C, µS/cm, 0–60,000.

    Returns:
        Practical salinity.

    >>> round(float(salinity(5000)), 4)
    2.8365
    """
    sc = within(conductivity_25_us_cm, 0.0, 60_000.0)
    return sc * (5.572e-4 + sc * 2.02e-9)


def practical_salinity(conductivity_us_cm: ArrayLike, temperature_c: ArrayLike) -> FloatArray:
    """Practical salinity at the surface, as it may be published (PSS-78: Unesco 1983, Technical Papers in Marine Science 44, §1).

    S = Σ aᵢ Rᵢ + (T − 15)/(1 + 0.0162 (T − 15)) Σ bᵢ Rᵢ with Rᵢ = Rt^(i/2), Rt = κ / (42.914 mS/cm · rt(T)), T = 1.00024 t.

    Args:
        conductivity_us_cm: κ at the water's temperature, not at 25 °C, µS/cm, 500–70,000.
        temperature_c: t, °C, −2–35.

    Returns:
        Practical salinity; NaN below 2 and above 42, where the scale is not defined: fresh water has none.

    >>> round(float(practical_salinity(5000, 25)), 4)
    2.6796
    """
    t = within(temperature_c, -2.0, 35.0) * 1.00024
    at_35 = 0.6766097 + t * (2.00564e-2 + t * (1.104259e-4 + t * (-6.9698e-7 + t * 1.0031e-9)))
    root = np.sqrt(within(conductivity_us_cm, 500.0, 7e4) / 42_914.0 / at_35)
    first, second = np.zeros_like(root), np.zeros_like(root)
    for a, b in reversed(_PSS_78):
        first, second = first * root + a, second * root + b
    s = first + (t - 15.0) / (1.0 + 0.0162 * (t - 15.0)) * second
    return within(s, 2.0, 42.0)


def conductivity_25(
    conductivity_us_cm: ArrayLike, temperature_c: ArrayLike, alpha: ArrayLike = 0.0191
) -> FloatArray:
    """Conductivity at 25 °C: κ₂₅ = κ_T / (1 + α (T − 25)) (ISO 7888; α = 0.0191 as USGS and APHA, or 0.02).

    Args:
        conductivity_us_cm: at the water's temperature, µS/cm, 0–200,000.
        temperature_c: of the water, °C, 0–50.
        alpha: 1/K, 0–0.03. It changes the result by 3 % at 5 °C and is part of a calibration.

    Returns:
        µS/cm.

    >>> round(float(conductivity_25(500, 5)), 2), round(float(conductivity_25(500, 5, 0.02)), 2)
    (809.06, 833.33)
    """
    conductivity = within(conductivity_us_cm, 0.0, 200_000.0)
    t = within(temperature_c, 0.0, 50.0)
    return conductivity / (1.0 + within(alpha, 0.0, 0.03) * (t - 25.0))


def nernst_slope(temperature_c: ArrayLike) -> FloatArray:
    """Ideal slope of a glass electrode: ln(10) R (T + 273.15) / F (Nernst; constants CODATA 2018).

    Args:
        temperature_c: °C, 0–100.

    Returns:
        mV per pH.

    >>> round(float(nernst_slope(25)), 4)
    59.1593
    """
    kelvin = within(temperature_c, 0.0, 100.0) + ZERO_CELSIUS_K
    return math.log(10.0) * GAS_CONSTANT_J_MOL_K / FARADAY_C_MOL * 1000.0 * kelvin


def ph(
    potential_mv: ArrayLike,
    temperature_c: ArrayLike,
    slope_mv: ArrayLike = NERNST_SLOPE_25_MV,
    zero_mv: ArrayLike = 0.0,
    calibration_temperature_c: ArrayLike = 25.0,
) -> FloatArray:
    """pH from the potential of a glass electrode.

    pH = 7 − (E − E₇) / S, S = S_cal (T + 273.15) / (T_cal + 273.15) (Nernst; ISO 10523). Without the last three
    arguments: an ideal electrode.

    Args:
        potential_mv: E, mV, −600–600.
        temperature_c: of the water, °C, 0–100.
        slope_mv: S_cal found by the calibration, mV per pH, 40–65.
        zero_mv: E₇, potential at pH 7, mV, −100–100.
        calibration_temperature_c: T_cal, °C, 0–100.

    Returns:
        pH.

    >>> round(float(ph(-20, 5, 56.37119, -0.21357, 18)), 4)
    7.3674
    """
    t = within(temperature_c, 0.0, 100.0) + ZERO_CELSIUS_K
    t_cal = within(calibration_temperature_c, 0.0, 100.0) + ZERO_CELSIUS_K
    slope = within(slope_mv, 40.0, 65.0) * t / t_cal
    return 7.0 - (within(potential_mv, -600.0, 600.0) - within(zero_mv, -100.0, 100.0)) / slope


_LN_10 = 2.302585092994046


def ammonia_fraction(temperature_c: ArrayLike, ph: ArrayLike) -> FloatArray:
    """Part of total ammonia nitrogen that is un-ionised NH₃, in fresh water.

    f = 1 / (1 + 10^(pKa − pH)), pKa = 0.09018 + 2729.92 / (T + 273.2) (Emerson et al. 1975; 273.2 as printed there).

    Args:
        temperature_c: °C, 0–40.
        ph: 0–14.

    Returns:
        0–1.

    >>> round(float(ammonia_fraction(20, 8)), 6)
    0.038205
    """
    pka = 0.09018 + 2729.92 / (within(temperature_c, 0.0, 40.0) + 273.2)
    # By `exact`: what follows from observations is stored, and has the same bits on every machine.
    return 1.0 / (1.0 + exact.exp((pka - within(ph, 0.0, 14.0)) * _LN_10))


def unionised_ammonia(
    total_ammonia_mg_l: ArrayLike, temperature_c: ArrayLike, ph: ArrayLike
) -> FloatArray:
    """Un-ionised ammonia from total ammonia nitrogen: TAN · ammonia_fraction(T, pH).

    No probe of ours measures TAN; it comes from the laboratory or a test kit. 0.025 mg/L is the usual limit for fish.

    Args:
        total_ammonia_mg_l: NH₃ and NH₄⁺ together, as nitrogen, mg/L, 0–100.
        temperature_c: °C, 0–40.
        ph: 0–14.

    Returns:
        NH₃ as nitrogen, mg/L.

    >>> round(float(unionised_ammonia(0.6, 20, 8)), 5)
    0.02292
    """
    return within(total_ammonia_mg_l, 0.0, 100.0) * ammonia_fraction(temperature_c, ph)


def water_density(temperature_c: ArrayLike) -> FloatArray:
    """Density of pure, air-free water at 1 atm.

    ρ = 999.974950 [1 − (T − 3.983035)² (T + 301.797) / (522528.9 (T + 69.34881))] (Tanaka et al. 2001, Eq. 1).

    Args:
        temperature_c: °C, 0–40.

    Returns:
        kg/m³.

    >>> round(float(water_density(20)), 4)
    998.2067
    """
    t = within(temperature_c, 0.0, 40.0)
    from_densest = t - 3.983035
    loss = from_densest * from_densest * (t + 301.797) / (522_528.9 * (t + 69.34881))
    return 999.974950 * (1.0 - loss)


def water_depth(
    pressure_pa: ArrayLike,
    temperature_c: ArrayLike,
    gravity_m_s2: ArrayLike = STANDARD_GRAVITY_M_S2,
) -> FloatArray:
    """Depth of water above a pressure probe: h = Δp / (ρ(T) g), ρ by `water_density`.

    Args:
        pressure_pa: above the air's at the same time, Pa, −5,000–2,000,000.
        temperature_c: of the water, °C, 0–40.
        gravity_m_s2: at the place, m/s², 9.7–9.9.

    Returns:
        m.

    >>> round(float(water_depth(10_000, 4)), 5)
    1.01974
    """
    pressure = within(pressure_pa, -5_000.0, 2_000_000.0)
    return pressure / (water_density(temperature_c) * within(gravity_m_s2, 9.7, 9.9))


def water_level(
    pressure_hpa: ArrayLike,
    air_pressure_hpa: ArrayLike,
    temperature_c: ArrayLike,
    gravity_m_s2: ArrayLike = STANDARD_GRAVITY_M_S2,
    probe_height_m: ArrayLike = 0.0,
) -> FloatArray:
    """Water level from the absolute pressure under water and the air's: h = (p − p_air) / (ρ(T) g) + z, ρ by `water_density`.

    1 hPa that the air's pressure is off makes 1.02 cm: it must be from the same ten minutes, and from the place's own height
    (`station_pressure`).

    Args:
        pressure_hpa: p at the probe, hPa, 500–21,000; at most 50 hPa below the air's.
        air_pressure_hpa: p_air at the place, hPa, 500–1,100.
        temperature_c: of the water, °C, 0–40.
        gravity_m_s2: at the place (`local_gravity`), m/s², 9.7–9.9.
        probe_height_m: z, height of the probe over the gauge's zero, m, −100–100.

    Returns:
        m over the gauge's zero.

    >>> round(float(water_level(1101.29, 1001.29, 4, 9.8127, 0.25)), 5)
    1.26911
    """
    probe = within(pressure_hpa, 500.0, 21_000.0)
    over_air_pa = (probe - within(air_pressure_hpa, 500.0, 1_100.0)) * 100.0
    depth = water_depth(over_air_pa, temperature_c, gravity_m_s2)
    return depth + within(probe_height_m, -100.0, 100.0)


def speed_of_sound(temperature_c: ArrayLike) -> FloatArray:
    """Speed of sound in dry air: c = 331.29 √(1 + T / 273.15) (ideal gas; 331.29 m/s at 0 °C: Wong 1986).

    Water vapour makes it faster, by 0.4 % in saturated air of 20 °C.

    Args:
        temperature_c: of the air, °C, −40–60.

    Returns:
        m/s.

    >>> round(float(speed_of_sound(20)), 2)
    343.2
    """
    t = within(temperature_c, *SOUND_TEMPERATURES_C)
    return 331.29 * np.sqrt(1.0 + t / ZERO_CELSIUS_K)


def ultrasonic_distance(
    distance_mm: ArrayLike, temperature_c: ArrayLike, assumed_m_s: ArrayLike = SOUND_ASSUMED_M_S
) -> FloatArray:
    """Distance that an ultrasonic module would have told if it knew the air's temperature: d · c(T) / c₀ (`speed_of_sound`).

    Args:
        distance_mm: as the module tells it, mm, 0–10,000.
        temperature_c: of the air between module and water, °C, −40–60.
        assumed_m_s: c₀, the speed that the module goes by, m/s, 320–360.

    Returns:
        m.

    >>> round(float(ultrasonic_distance(1500, 5)), 4)
    1.4577
    """
    shown_m = within(distance_mm, 0.0, 10_000.0) / 1000.0
    return shown_m * speed_of_sound(temperature_c) / within(assumed_m_s, 320.0, 360.0)


# ------------------------------------------------------------------------------------------------------------- the table


def _formula(
    function: Callable[..., FloatArray], unit: str, source: str, **ranges: tuple[float, float]
) -> Formula:
    arguments = [
        Argument(
            name,
            *ranges[name],
            default=None if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    return Formula(function, unit, source, tuple(arguments))


_BENSON_KRAUSE = "Benson and Krause 1984 (APHA 4500-O, USGS OWQ memo 2011.03)"
_WATER = {"temperature_c": (0.0, 40.0), "salinity": (0.0, 40.0), "pressure_hpa": (500.0, 1100.0)}

_DIN_19266 = "DIN 19266, linear between its temperatures"
_RETENTION = {
    "residual": (0.0, 0.3),
    "saturated": (0.2, 1.0),
    "alpha_per_cm": (1e-4, 2.0),
    "n": (1.01, 15.0),
}

FORMULAS: dict[str, Formula] = {
    formula.name: formula
    for formula in (
        _formula(
            watermark_tension,
            "kPa",
            "Shock, Barnum and Seddigh 1998; Irrometer 200SS, pieces blended within 5 % of 1 and 8 kΩ",
            resistance_ohm=(WATERMARK_SHORT_OHM, float(np.nextafter(WATERMARK_OPEN_OHM, 0.0))),
            temperature_c=WATERMARK_TEMPERATURES_C,
        ),
        _formula(
            topp_water_content,
            "m³/m³",
            "Topp, Davis and Annan 1980, Eq. 7",
            permittivity=(2.0, 81.0),
        ),
        _formula(
            teros_permittivity, "1", "METER, TEROS 12 user manual, §4.1.3", counts=TEROS_COUNTS
        ),
        _formula(
            teros_water_content,
            "m³/m³",
            "METER, TEROS 12 user manual, §4.1.3; Topp, Davis and Annan 1980, Eq. 7",
            counts=TEROS_SOIL_COUNTS,
        ),
        _formula(
            capacitive_index,
            "1",
            "Two points, air and water (DFRobot SEN0193 wiki)",
            voltage_mv=(0.0, 3_300.0),
            air_mv=(1_800.0, 3_300.0),
            water_mv=(500.0, 1_700.0),
        ),
        _formula(ledieu_water_content, "m³/m³", "Ledieu et al. 1986", permittivity=(3.0, 81.0)),
        _formula(
            malicki_water_content,
            "m³/m³",
            "Malicki, Plagge and Roth 1996, Eq. 11",
            permittivity=(3.0, 81.0),
            bulk_density_g_cm3=(0.1, 2.0),
        ),
        _formula(oxygen_saturation, "mg/L", _BENSON_KRAUSE, **_WATER),
        _formula(dissolved_oxygen, "mg/L", _BENSON_KRAUSE, saturation_pct=(0.0, 300.0), **_WATER),
        _formula(salinity, "", "USGS DOTABLES", conductivity_25_us_cm=(0.0, 60_000.0)),
        _formula(
            conductivity_25,
            "µS/cm",
            "ISO 7888, linear temperature compensation",
            conductivity_us_cm=(0.0, 200_000.0),
            temperature_c=(0.0, 50.0),
            alpha=(0.0, 0.03),
        ),
        _formula(nernst_slope, "mV", "Nernst; CODATA 2018", temperature_c=(0.0, 100.0)),
        _formula(
            ph,
            "pH",
            "Nernst; ISO 10523",
            potential_mv=(-600.0, 600.0),
            temperature_c=(0.0, 100.0),
            slope_mv=(40.0, 65.0),
            zero_mv=(-100.0, 100.0),
            calibration_temperature_c=(0.0, 100.0),
        ),
        _formula(
            ammonia_fraction,
            "1",
            "Emerson et al. 1975",
            temperature_c=(0.0, 40.0),
            ph=(0.0, 14.0),
        ),
        _formula(water_density, "kg/m³", "Tanaka et al. 2001, Eq. 1", temperature_c=(0.0, 40.0)),
        _formula(
            water_depth,
            "m",
            "Hydrostatics with the density of Tanaka et al. 2001",
            pressure_pa=(-5_000.0, 2_000_000.0),
            temperature_c=(0.0, 40.0),
            gravity_m_s2=(9.7, 9.9),
        ),
        _formula(percent_saturation, "%", _BENSON_KRAUSE, oxygen_mg_l=(0.0, 45.0), **_WATER),
        _formula(
            practical_salinity,
            "",
            "PSS-78 (Unesco 1983), from 2 to 42",
            conductivity_us_cm=(500.0, 7e4),
            temperature_c=(-2.0, 35.0),
        ),
        _formula(
            unionised_ammonia,
            "mg/L",
            "Emerson et al. 1975",
            total_ammonia_mg_l=(0.0, 100.0),
            temperature_c=(0.0, 40.0),
            ph=(0.0, 14.0),
        ),
        _formula(
            water_level,
            "m",
            "Hydrostatics with the density of Tanaka et al. 2001",
            pressure_hpa=(500.0, 21_000.0),
            air_pressure_hpa=(500.0, 1_100.0),
            temperature_c=(0.0, 40.0),
            gravity_m_s2=(9.7, 9.9),
            probe_height_m=(-100.0, 100.0),
        ),
        _formula(
            local_gravity,
            "m/s²",
            "GRS 80 (Moritz 2000) with the free-air gradient",
            latitude_deg=(-90.0, 90.0),
            altitude_m=(-430.0, 6_000.0),
        ),
        _formula(
            station_pressure,
            "hPa",
            "ISO 2533, standard atmosphere",
            altitude_m=(-430.0, 6_000.0),
            sea_level_hpa=(900.0, 1_100.0),
        ),
        _formula(
            oxygen_two_point,
            "%",
            "Two points, without oxygen and saturated (ISO 17289)",
            reading_pct=(-20.0, 500.0),
            at_zero_pct=(-20.0, 20.0),
            at_saturation_pct=(50.0, 150.0),
        ),
        _formula(phthalate_buffer_ph, "pH", _DIN_19266, temperature_c=(0.0, 30.0)),
        _formula(phosphate_buffer_ph, "pH", _DIN_19266, temperature_c=(0.0, 30.0)),
        _formula(borax_buffer_ph, "pH", _DIN_19266, temperature_c=(0.0, 30.0)),
        _formula(
            cell_constant,
            "1/cm",
            "ISO 7888",
            standard_us_cm=(10.0, 2e5),
            conductance_us=(1.0, 2e6),
        ),
        _formula(
            conductivity_of_cell,
            "µS/cm",
            "ISO 7888",
            conductance_us=(0.0, 2e6),
            cell_constant_per_cm=(0.01, 20.0),
        ),
        _formula(
            turbidity,
            "FNU",
            "Polynomial fitted on formazin (ISO 7027-1)",
            signal=(-100.0, 70_000.0),
            offset_fnu=(-1_000.0, 1_000.0),
            slope=(1e-3, 100.0),
            curve=(-0.01, 0.01),
        ),
        _formula(
            ds18b20_temperature,
            "°C",
            "Maxim, DS18B20 data sheet 19-7487, figure 4",
            counts=DS18B20_COUNTS,
            offset_k=(-5.0, 5.0),
        ),
        _formula(
            thermistor_temperature,
            "°C",
            "IEC 60539-1, β of an NTC thermistor",
            resistance_ohm=(10.0, 1e7),
            resistance_25_ohm=(100.0, 1e6),
            beta_k=(2_000.0, 6_000.0),
        ),
        _formula(
            steinhart_hart_temperature,
            "°C",
            "Steinhart and Hart 1968",
            resistance_ohm=(10.0, 1e7),
            a_per_k=(5e-4, 2e-3),
            b_per_k=(1e-4, 4e-4),
            c_per_k=(0.0, 5e-7),
        ),
        _formula(
            watermark_thermistor_temperature,
            "°C",
            "Irrometer, 200TS",
            resistance_ohm=WATERMARK_THERMISTOR_OHM,
        ),
        _formula(
            topp_permittivity,
            "1",
            "Topp, Davis and Annan 1980, Eq. 6",
            water_content=(0.0, 0.55),
        ),
        _formula(
            soil_specific_water_content,
            "m³/m³",
            "A line fitted on weighed samples, and a temperature term",
            permittivity=(1.0, 81.0),
            offset=(-1.0, 1.0),
            slope=(0.01, 1.0),
            temperature_c=(-10.0, 50.0),
            per_kelvin=(-0.01, 0.01),
            reference_c=(0.0, 40.0),
        ),
        _formula(
            van_genuchten_water_content,
            "m³/m³",
            "van Genuchten 1980",
            tension_kpa=(0.0, 1e5),
            **_RETENTION,
        ),
        _formula(
            van_genuchten_tension,
            "kPa",
            "van Genuchten 1980",
            water_content=(0.0, 0.8),
            **_RETENTION,
        ),
        _formula(
            available_water_pct,
            "% nFK",
            "Bodenkundliche Kartieranleitung, 5th edition",
            water_content=(0.0, 1.0),
            field_capacity=(0.05, 0.8),
            available_capacity=(0.03, 0.6),
        ),
        _formula(speed_of_sound, "m/s", "Ideal gas; Wong 1986", temperature_c=SOUND_TEMPERATURES_C),
        _formula(
            ultrasonic_distance,
            "m",
            "Speed of sound in dry air; Wong 1986",
            distance_mm=(0.0, 10_000.0),
            temperature_c=SOUND_TEMPERATURES_C,
            assumed_m_s=(320.0, 360.0),
        ),
        _formula(
            reference_evapotranspiration,
            "mm/d",
            "Allen et al. 1998, FAO-56 Eq. 6",
            temperature_max_c=(-40.0, 60.0),
            temperature_min_c=(-40.0, 60.0),
            humidity_max_pct=(0.0, 100.0),
            humidity_min_pct=(0.0, 100.0),
            wind_m_s=(0.0, 50.0),
            radiation_mj_m2=(0.0, 50.0),
            altitude_m=(-430.0, 6_000.0),
            latitude_deg=LATITUDES_DEG,
            day_of_year=(1.0, 366.0),
        ),
        _formula(
            hargreaves_evapotranspiration,
            "mm/d",
            "Hargreaves and Samani 1985, FAO-56 Eq. 52",
            temperature_max_c=(-40.0, 60.0),
            temperature_min_c=(-40.0, 60.0),
            latitude_deg=LATITUDES_DEG,
            day_of_year=(1.0, 366.0),
        ),
        _formula(
            radiation_of_sunshine,
            "MJ/m²",
            "Ångström, FAO-56 Eq. 35",
            sunshine_h=(0.0, 24.0),
            latitude_deg=LATITUDES_DEG,
            day_of_year=(1.0, 366.0),
        ),
        _formula(
            wind_at_2_m,
            "m/s",
            "Logarithmic profile over grass, FAO-56 Eq. 47",
            wind_m_s=(0.0, 50.0),
            height_m=(0.5, 100.0),
        ),
    )
}
"""Every formula by the name of its function."""

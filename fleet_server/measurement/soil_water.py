"""What a soil holds: water content from a probe of its own, retention curves, and how much of it a plant can take.

Ranges and NaN as in `derived`. A retention curve or a soil class that nobody measured at the site is a guess about that site; the guess has
an uncertainty, and it is never left out (`water_content_of_texture`, `available_water_of_class`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from fleet_server.measurement.ranges import FloatArray, within
from fleet_server.measurement.units import CM_WATER_PER_KPA

# -------------------------------------------------------------------------------------------------------- water content


def topp_permittivity(water_content: ArrayLike) -> FloatArray:
    """Relative permittivity of a mineral soil: κ = 3.03 + 9.3 θ + 146 θ² − 76.7 θ³ (Topp, Davis and Annan 1980, Eq. 6).

    A fit of its own, not the inverse of `topp_water_content`; up to 0.03 m³/m³ lie between them.

    Args:
        water_content: θ, m³/m³, 0–0.55.

    Returns:
        κ.

    >>> round(float(topp_permittivity(0.3)), 4)
    16.8891
    """
    w = within(water_content, 0.0, 0.55)
    return 3.03 + w * (9.3 + w * (146.0 - w * 76.7))


def soil_specific_water_content(
    permittivity: ArrayLike,
    offset: ArrayLike,
    slope: ArrayLike,
    temperature_c: ArrayLike = 20.0,
    per_kelvin: ArrayLike = 0.0,
    reference_c: ArrayLike = 20.0,
) -> FloatArray:
    """Water content by a line fitted on this soil's own weighed samples: θ = a + b √κ + c (T − T₀).

    Args:
        permittivity: κ, 1–81.
        offset: a, m³/m³, −1–1.
        slope: b, m³/m³, 0.01–1.
        temperature_c: T of the soil, °C, −10–50.
        per_kelvin: c, fitted per probe, m³/m³ per K, −0.01–0.01.
        reference_c: T₀, °C, 0–40.

    Returns:
        θ, m³/m³.

    >>> round(float(soil_specific_water_content(20, -0.1758, 0.1138, 5, 0.001)), 5)
    0.31813
    """
    warmer = within(temperature_c, -10.0, 50.0) - within(reference_c, 0.0, 40.0)
    at_reference = within(offset, -1.0, 1.0)
    at_reference = at_reference + within(slope, 0.01, 1.0) * np.sqrt(
        within(permittivity, 1.0, 81.0)
    )
    return at_reference + within(per_kelvin, -0.01, 0.01) * warmer


# ---------------------------------------------------------------------------------------------------------- retention


def van_genuchten_water_content(
    tension_kpa: ArrayLike,
    residual: ArrayLike,
    saturated: ArrayLike,
    alpha_per_cm: ArrayLike,
    n: ArrayLike,
) -> FloatArray:
    """Water content from tension: θ = θr + (θs − θr) [1 + (α ψ)ⁿ]⁻ᵐ, m = 1 − 1/n (van Genuchten 1980, Eq. 21, with Mualem's m).

    Args:
        tension_kpa: ψ, kPa, 0–100,000.
        residual: θr, m³/m³, 0–0.3.
        saturated: θs, m³/m³, 0.2–1; above θr.
        alpha_per_cm: α, 1/cm of water (10.19716 cm are 1 kPa), 0.0001–2.
        n: 1.01–15.

    Returns:
        θ, m³/m³.

    >>> round(float(van_genuchten_water_content(10, 0.078, 0.43, 0.036, 1.56)), 4)
    0.2406
    """
    low, high = _between(residual, saturated)
    scaled = _scaled(tension_kpa, alpha_per_cm)
    n = within(n, 1.01, 15.0)
    return low + (high - low) * np.power(1.0 + np.power(scaled, n), 1.0 / n - 1.0)


def van_genuchten_tension(
    water_content: ArrayLike,
    residual: ArrayLike,
    saturated: ArrayLike,
    alpha_per_cm: ArrayLike,
    n: ArrayLike,
) -> FloatArray:
    """Tension from water content, the inverse of `van_genuchten_water_content`.

    ψ = [Se^(−1/m) − 1]^(1/n) / α, Se = (θ − θr) / (θs − θr). At and below θr there is none, nor beyond 100,000 kPa.

    Args:
        water_content: θ, m³/m³, 0–0.8; above θr, at most θs.
        residual, saturated, alpha_per_cm, n: as there.

    Returns:
        ψ, kPa, ≥ 0.

    >>> round(float(van_genuchten_tension(0.2406, 0.078, 0.43, 0.036, 1.56)), 1)
    10.0
    """
    low, high = _between(residual, saturated)
    filled = (within(water_content, 0.0, 0.8) - low) / (high - low)
    filled = np.where((filled > 0.0) & (filled <= 1.0), filled, np.nan)
    n = within(n, 1.01, 15.0)
    scaled = np.power(np.power(filled, -n / (n - 1.0)) - 1.0, 1.0 / n)
    tension = scaled / (within(alpha_per_cm, 1e-4, 2.0) * CM_WATER_PER_KPA)
    return within(tension, 0.0, 1e5)


def _between(residual: ArrayLike, saturated: ArrayLike) -> tuple[FloatArray, FloatArray]:
    low, high = within(residual, 0.0, 0.3), within(saturated, 0.2, 1.0)
    return low, np.where(high > low, high, np.nan)


def _scaled(tension_kpa: ArrayLike, alpha_per_cm: ArrayLike) -> FloatArray:
    return within(tension_kpa, 0.0, 1e5) * CM_WATER_PER_KPA * within(alpha_per_cm, 1e-4, 2.0)


@dataclass(frozen=True)
class Texture:
    """A texture class's retention curve: means, and standard deviations within the class. θ in m³/m³, α in 1/cm."""

    residual: float
    saturated: float
    alpha_per_cm: float
    n: float
    u_residual: float
    u_saturated: float
    u_alpha_per_cm: float
    u_n: float


TEXTURES: Final = {
    "sand": Texture(0.045, 0.43, 0.145, 2.68, 0.010, 0.06, 0.029, 0.29),
    "sandy loam": Texture(0.065, 0.41, 0.075, 1.89, 0.017, 0.09, 0.037, 0.17),
    "loam": Texture(0.078, 0.43, 0.036, 1.56, 0.013, 0.10, 0.021, 0.11),
    "silt loam": Texture(0.067, 0.45, 0.020, 1.41, 0.015, 0.08, 0.012, 0.12),
    "clay loam": Texture(0.095, 0.41, 0.019, 1.31, 0.010, 0.09, 0.015, 0.09),
}
"""Carsel and Parrish 1988 (means: Table 3; the spreads were not checked against the printed table)."""


def water_content_of_texture(
    tension_kpa: ArrayLike, texture: Texture, u_tension_kpa: ArrayLike = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Water content that a soil of a declared texture class has at a tension, with its standard uncertainty.

    u² = Σ (∂θ/∂pᵢ · uᵢ)² over θr, θs, α, n and ψ (JCGM 100:2008, Eq. 10), taken as independent: the class's own correlations
    are not known here. Within 15 % of drawn soils, if α and n − 1 are log-normal. It is wide, and says: fit the site's own curve.

    Args:
        tension_kpa: ψ, kPa, 0–100,000, shape (n,).
        u_tension_kpa: its standard uncertainty, kPa, same shape.

    Returns:
        θ and u, m³/m³, shape (n,); NaN where ψ is outside.

    >>> value, u = water_content_of_texture(10.0, TEXTURES["loam"])
    >>> round(float(value), 4), round(float(u), 2)
    (0.2406, 0.07)
    """
    t = texture
    value = van_genuchten_water_content(tension_kpa, t.residual, t.saturated, t.alpha_per_cm, t.n)
    by_curve, per_kpa = _curve_uncertainty(np.asarray(tension_kpa, dtype=np.float64), t)
    by_tension = per_kpa * np.asarray(u_tension_kpa, dtype=np.float64)
    return value, np.sqrt(by_curve * by_curve + by_tension * by_tension)


def tension_of_texture(
    water_content: ArrayLike, texture: Texture, u_water_content: ArrayLike = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Tension that a soil of a declared texture class has at a water content, with its standard uncertainty.

    u = √(u(θ of the curve)² + u(θ)²) / |∂θ/∂ψ| at ψ. Near saturation and in dry soil the curve is flat and u becomes larger than ψ: then
    the water content does not say what the tension is.

    Args:
        water_content: θ, m³/m³, shape (n,).
        u_water_content: its standard uncertainty, m³/m³, same shape.

    Returns:
        ψ and u, kPa, shape (n,); NaN at and below θr, above θs; u infinite at saturation.

    >>> value, u = tension_of_texture(0.2406, TEXTURES["loam"], 0.03)
    >>> round(float(value), 1), round(float(u), 0)
    (10.0, 9.0)
    """
    t = texture
    tension = van_genuchten_tension(water_content, t.residual, t.saturated, t.alpha_per_cm, t.n)
    by_curve, per_kpa = _curve_uncertainty(tension, t)
    u_measured = np.asarray(u_water_content, dtype=np.float64)
    with np.errstate(divide="ignore"):
        u = np.sqrt(by_curve * by_curve + u_measured * u_measured) / np.abs(per_kpa)
    return tension, u


def _curve_uncertainty(tension_kpa: FloatArray, t: Texture) -> tuple[FloatArray, FloatArray]:
    """u of θ by the curve's parameters, m³/m³, and ∂θ/∂ψ, m³/m³ per kPa."""
    x = _scaled(tension_kpa, t.alpha_per_cm)
    m = 1.0 - 1.0 / t.n
    span = t.saturated - t.residual
    power = np.power(x, t.n)
    filled = np.power(1.0 + power, -m)
    share = power / (1.0 + power)
    # ln x · share goes to 0 with x; at x = 0 it is not a number.
    log_share = np.log(np.where(x > 0.0, x, 1.0)) * share
    per_log_x = -m * t.n * span * filled * share
    per_n = -span * filled * (np.log1p(power) / (t.n * t.n) + m * log_share)
    terms = (
        (1.0 - filled) * t.u_residual,
        filled * t.u_saturated,
        per_log_x / t.alpha_per_cm * t.u_alpha_per_cm,
        per_n * t.u_n,
    )
    u = np.sqrt(np.sum([term * term for term in terms], axis=0))
    per_kpa = per_log_x / np.where(tension_kpa > 0.0, tension_kpa, np.inf)
    return u, per_kpa


# ---------------------------------------------------------------------------------------------- water a plant can take


def available_water_pct(
    water_content: ArrayLike, field_capacity: ArrayLike, available_capacity: ArrayLike
) -> FloatArray:
    """Part of the available field capacity that is filled, % nFK: 100 (θ − PWP) / nFK, PWP = FK − nFK (KA5).

    Above 100 just after rain, below 0 where plants wilt; neither is cut off.

    Args:
        water_content: θ, m³/m³, 0–1.
        field_capacity: FK, m³/m³, 0.05–0.8.
        available_capacity: nFK, m³/m³, 0.03–0.6; not above FK.

    Returns:
        % nFK.

    >>> round(float(available_water_pct(0.20, 0.30, 0.18)), 3)
    44.444
    """
    capacity = within(field_capacity, 0.05, 0.8)
    available = within(available_capacity, 0.03, 0.6)
    available = np.where(available <= capacity, available, np.nan)
    wilting = capacity - available
    return 100.0 * (within(water_content, 0.0, 1.0) - wilting) / available


@dataclass(frozen=True)
class SoilClass:
    """A soil class's field capacity (FK), available field capacity (nFK) and its part in narrow coarse pores, % by volume.

    At 40 cm and at 80 cm depth, as printed.
    """

    fk_40_pct: int
    nfk_40_pct: int
    egp_40_pct: int
    fk_80_pct: int
    nfk_80_pct: int
    egp_80_pct: int

    def field_capacity(self, depth_cm: float) -> float:
        """FK, m³/m³, by the table's nearer depth."""
        return (self.fk_40_pct if depth_cm <= _BETWEEN_TABLES_CM else self.fk_80_pct) / 100.0

    def available_capacity(self, depth_cm: float) -> float:
        """NFK, m³/m³, by the table's nearer depth."""
        return (self.nfk_40_pct if depth_cm <= _BETWEEN_TABLES_CM else self.nfk_80_pct) / 100.0

    def narrow_coarse_pores(self, depth_cm: float) -> float:
        """EGP, m³/m³, by the table's nearer depth: the part of nFK that drains within days."""
        return (self.egp_40_pct if depth_cm <= _BETWEEN_TABLES_CM else self.egp_80_pct) / 100.0


_BETWEEN_TABLES_CM: Final = 60.0

SOIL_CLASSES: Final = {
    "Ss": SoilClass(20, 16, 9, 17, 14, 7),
    "Sl2": SoilClass(25, 18, 9, 23, 17, 8),
    "Sl3": SoilClass(27, 18, 6, 25, 17, 5),
    "Sl4": SoilClass(30, 18, 6, 26, 15, 5),
    "Slu": SoilClass(33, 21, 6, 30, 19, 5),
    "St2": SoilClass(22, 16, 7, 18, 13, 6),
    "St3": SoilClass(30, 15, 5, 26, 12, 4),
    "Su2": SoilClass(23, 18, 10, 21, 17, 9),
    "Su3": SoilClass(29, 21, 11, 26, 20, 8),
    "Su4": SoilClass(32, 23, 9, 28, 21, 7),
    "Ls2": SoilClass(34, 16, 5, 31, 14, 3),
    "Ls3": SoilClass(33, 16, 4, 30, 14, 2),
    "Ls4": SoilClass(32, 16, 4, 28, 13, 3),
    "Lt2": SoilClass(36, 14, 2, 32, 11, 2),
    "Lt3": SoilClass(39, 12, 2, 35, 10, 2),
    "Lts": SoilClass(37, 14, 2, 31, 11, 2),
    "Lu": SoilClass(36, 17, 3, 33, 15, 2),
    "Uu": SoilClass(38, 26, 6, 35, 23, 3),
    "Uls": SoilClass(35, 22, 6, 33, 21, 5),
    "Us": SoilClass(35, 25, 8, 32, 22, 4),
    "Ut2": SoilClass(37, 26, 6, 35, 23, 3),
    "Ut3": SoilClass(37, 25, 4, 35, 23, 2),
    "Ut4": SoilClass(37, 21, 3, 35, 19, 2),
    "Tt": SoilClass(43, 13, 1, 35, 12, 0),
    "Tl": SoilClass(41, 13, 1, 35, 11, 0),
    "Tu2": SoilClass(42, 12, 1, 36, 10, 0),
    "Tu3": SoilClass(38, 13, 1, 35, 10, 0),
    "Tu4": SoilClass(37, 17, 2, 35, 16, 1),
    "Ts2": SoilClass(39, 13, 1, 34, 12, 0),
    "Ts3": SoilClass(37, 13, 2, 32, 11, 1),
    "Ts4": SoilClass(32, 14, 3, 30, 11, 2),
    "fS": SoilClass(23, 18, 9, 19, 15, 7),
    "mS": SoilClass(19, 15, 9, 15, 12, 7),
    "gS": SoilClass(16, 13, 8, 13, 11, 7),
}
"""Bodenkundliche Kartieranleitung, 5th edition (AG Boden 2005)."""

# Ours; the book gives none. Neighbouring classes lie 0.01 to 0.05 apart, and a class read off by hand may be the neighbour.
U_FIELD_CAPACITY: Final = 0.03
U_AVAILABLE_CAPACITY: Final = 0.02
U_NARROW_COARSE_PORES: Final = 0.02


def stated_curve(texture: Texture) -> dict[str, tuple[float, float]]:
    """A texture class as arguments of the retention formulas, each with its standard uncertainty.

    >>> stated_curve(TEXTURES["loam"])["n"]
    (1.56, 0.11)
    """
    return {
        "residual": (texture.residual, texture.u_residual),
        "saturated": (texture.saturated, texture.u_saturated),
        "alpha_per_cm": (texture.alpha_per_cm, texture.u_alpha_per_cm),
        "n": (texture.n, texture.u_n),
    }


def stated_capacities(soil_class: SoilClass, depth_cm: float) -> dict[str, tuple[float, float]]:
    """A soil class as arguments of `available_water_pct`, each with its standard uncertainty.

    >>> stated_capacities(SOIL_CLASSES["Sl4"], 80)["field_capacity"]
    (0.26, 0.03)
    """
    return {
        "field_capacity": (soil_class.field_capacity(depth_cm), U_FIELD_CAPACITY),
        "available_capacity": (soil_class.available_capacity(depth_cm), U_AVAILABLE_CAPACITY),
    }


def available_water_of_class(
    water_content: ArrayLike, u_water_content: ArrayLike, soil_class: SoilClass, depth_cm: float
) -> tuple[FloatArray, FloatArray]:
    """% nFK in a soil of a declared class, with its standard uncertainty.

    u² = (100/nFK)² [u(θ)² + u(FK)² + ((θ − FK)/nFK · u(nFK))²] (JCGM 100:2008, Eq. 10, of `available_water_pct`), with
    `U_FIELD_CAPACITY` and `U_AVAILABLE_CAPACITY`.

    Args:
        water_content: θ, m³/m³, shape (n,).
        u_water_content: its standard uncertainty, m³/m³, same shape.
        depth_cm: of the probe.

    Returns:
        Value and u, % nFK, shape (n,).

    >>> value, u = available_water_of_class(0.20, 0.03, SOIL_CLASSES["Sl4"], 30)
    >>> round(float(value), 1), round(float(u), 1)
    (44.4, 24.4)
    """
    capacity = soil_class.field_capacity(depth_cm)
    available = soil_class.available_capacity(depth_cm)
    value = available_water_pct(water_content, capacity, available)
    u_measured = np.asarray(u_water_content, dtype=np.float64)
    by_available = (value / 100.0 - 1.0) * U_AVAILABLE_CAPACITY
    squared = u_measured * u_measured + U_FIELD_CAPACITY**2 + by_available * by_available
    return value, 100.0 / available * np.sqrt(squared)


def extractable_water_of_class(
    water_content: ArrayLike, u_water_content: ArrayLike, soil_class: SoilClass, depth_cm: float
) -> tuple[FloatArray, FloatArray]:
    """Relative extractable water in a soil of a declared class, with its standard uncertainty.

    REW = (θ − PWP) / (nFK − eGP), PWP = FK − nFK: the form of Granier et al. 1999 (Ecol. Model. 116, 269–283), in which trees feel drought
    below 0.4, with what a soil holds against gravity taken as nFK without its narrow coarse pores.
    u² = [u(θ)² + u(FK)² + ((1 − REW) u(nFK))² + (REW u(eGP))²] / (nFK − eGP)² (JCGM 100:2008, Eq. 10), with this module's uncertainties.

    Args:
        water_content: θ, m³/m³, shape (n,).
        u_water_content: its standard uncertainty, m³/m³, same shape.
        depth_cm: of the probe.

    Returns:
        REW and u, shape (n,); below 0 at the wilting point, above 1 after rain.

    >>> value, u = extractable_water_of_class(0.20, 0.03, SOIL_CLASSES["Sl4"], 30)
    >>> round(float(value), 3), round(float(u), 2)
    (0.667, 0.37)
    """
    available = soil_class.available_capacity(depth_cm)
    wilting = soil_class.field_capacity(depth_cm) - available
    span = available - soil_class.narrow_coarse_pores(depth_cm)
    value = (within(water_content, 0.0, 1.0) - wilting) / span
    u_measured = np.asarray(u_water_content, dtype=np.float64)
    by_available = (1.0 - value) * U_AVAILABLE_CAPACITY
    by_pores = value * U_NARROW_COARSE_PORES
    squared = u_measured * u_measured + U_FIELD_CAPACITY**2 + by_available**2 + by_pores**2
    return value, np.sqrt(squared) / span

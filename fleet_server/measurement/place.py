"""What a place does to a measurement: its gravity, and the air pressure at its height."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from fleet_server.measurement.ranges import FloatArray, within
from fleet_server.measurement.units import STANDARD_ATMOSPHERE_HPA

# Geodetic Reference System 1980 (Moritz 2000): gravity at the equator, Somigliana's constant, the ellipsoid's first eccentricity squared.
_GRAVITY_EQUATOR_M_S2: Final = 9.7803267715
_SOMIGLIANA: Final = 0.001931851353
_ECCENTRICITY_SQUARED: Final = 0.00669438002290
_FREE_AIR_PER_S2: Final = 3.086e-6


def local_gravity(latitude_deg: ArrayLike, altitude_m: ArrayLike = 0.0) -> FloatArray:
    """Normal gravity at a place.

    g = γₑ (1 + k sin²φ) / √(1 − e² sin²φ) − 3.086e-6 h (Somigliana's formula with GRS 80, Moritz 2000; free-air gradient).
    What lies under the ground moves it by less than 0.002 m/s² in Germany, 0.02 % of a level.

    Args:
        latitude_deg: φ, °, −90–90.
        altitude_m: h, m, −430–6,000.

    Returns:
        m/s².

    >>> round(float(local_gravity(52.52, 34)), 3)
    9.813
    """
    sine = np.sin(np.radians(within(latitude_deg, -90.0, 90.0)))
    squared = sine * sine
    at_sea_level = _GRAVITY_EQUATOR_M_S2 * (1.0 + _SOMIGLIANA * squared)
    at_sea_level = at_sea_level / np.sqrt(1.0 - _ECCENTRICITY_SQUARED * squared)
    return at_sea_level - _FREE_AIR_PER_S2 * within(altitude_m, -430.0, 6_000.0)


def station_pressure(
    altitude_m: ArrayLike, sea_level_hpa: ArrayLike = STANDARD_ATMOSPHERE_HPA
) -> FloatArray:
    """Air pressure at a height from the pressure reduced to sea level, as weather services tell it.

    p = p₀ (1 − 0.0065 h / 288.15)^5.25588 (ISO 2533, standard atmosphere). Weather differs from the standard: at 100 m by up to
    1.2 hPa between −10 and 30 °C. Oxygen and levels want the pressure at the place, never the one at sea level.

    Args:
        altitude_m: h, m, −430–6,000.
        sea_level_hpa: p₀, hPa, 900–1,100.

    Returns:
        hPa.

    >>> round(float(station_pressure(100)), 2)
    1001.29
    """
    falling = 1.0 - 0.0065 * within(altitude_m, -430.0, 6_000.0) / 288.15
    return within(sea_level_hpa, 900.0, 1_100.0) * np.power(falling, 5.25588)

"""What bare probes tell before an instrument has interpreted it: thermistors, cells, electrodes and windows, and their standards.

Ranges and NaN as in `derived`. Fitting is in `fits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from fleet_server.measurement.ranges import FloatArray, within
from fleet_server.measurement.units import ZERO_CELSIUS_K

DS18B20_COUNTS: Final = (-880.0, 2_000.0)  # −55 to 125 °C
WATERMARK_THERMISTOR_OHM: Final = (3_000.0, 35_000.0)

KCL_CONDUCTIVITY_25_US_CM: Final = {0.001: 147.0, 0.01: 1_413.0}
"""Conductivity at 25 °C of potassium chloride, by mol/L (EN 27888)."""

_BUFFER_TEMPERATURES_C: Final = (0.0, 10.0, 20.0, 25.0, 30.0)

BUFFERS: Final = {
    "phthalate": (4.003, 3.998, 4.002, 4.008, 4.015),
    "phosphate": (6.984, 6.923, 6.881, 6.865, 6.853),
    "borax": (9.464, 9.332, 9.225, 9.180, 9.139),
}
"""pH of the standard buffers at 0, 10, 20, 25 and 30 °C (DIN 19266, which are NIST's)."""


def ds18b20_temperature(counts: ArrayLike, offset_k: ArrayLike = 0.0) -> FloatArray:
    """Temperature from a DS18B20's scratchpad: counts / 16 + offset (Maxim data sheet 19-7487, figure 4).

    1,360 (85 °C) is also what the probe holds when it has not converted since power came; the node refuses it with a reason.

    Args:
        counts: sixteenths of °C, −880–2,000.
        offset_k: what one point in melting ice has shown, K, −5–5.

    Returns:
        °C.

    >>> float(ds18b20_temperature(318, -0.125))
    19.75
    """
    return within(counts, *DS18B20_COUNTS) / 16.0 + within(offset_k, -5.0, 5.0)


def thermistor_temperature(
    resistance_ohm: ArrayLike, resistance_25_ohm: ArrayLike = 10_000.0, beta_k: ArrayLike = 3_950.0
) -> FloatArray:
    """Temperature of an NTC thermistor by its β: 1/T = 1/298.15 + ln(R/R₂₅)/β (IEC 60539-1).

    β itself changes with temperature, so the ends of a wide range are off; three points are better
    (`steinhart_hart_temperature`).

    Args:
        resistance_ohm: R, Ω, 10–10,000,000.
        resistance_25_ohm: R₂₅, Ω, 100–1,000,000.
        beta_k: β, K, 2,000–6,000.

    Returns:
        °C.

    >>> round(float(thermistor_temperature(12_490)), 3)
    20.079
    """
    resistance = within(resistance_ohm, 10.0, 1e7)
    at_25 = within(resistance_25_ohm, 100.0, 1e6)
    from_25 = np.log(resistance / at_25) / within(beta_k, 2_000.0, 6_000.0)
    return 1.0 / (1.0 / (ZERO_CELSIUS_K + 25.0) + from_25) - ZERO_CELSIUS_K


def steinhart_hart_temperature(
    resistance_ohm: ArrayLike, a_per_k: ArrayLike, b_per_k: ArrayLike, c_per_k: ArrayLike
) -> FloatArray:
    """Temperature of an NTC thermistor: 1/T = A + B ln R + C (ln R)³, R in Ω (Steinhart and Hart 1968).

    Args:
        resistance_ohm: Ω, 10–10,000,000.
        a_per_k: A, 1/K, 0.0005–0.002.
        b_per_k: B, 1/K, 0.0001–0.0004.
        c_per_k: C, 1/K, 0–5e-7.

    Returns:
        °C.

    >>> round(float(steinhart_hart_temperature(10_000, 1.129241e-3, 2.341077e-4, 8.775468e-8)), 2)
    25.0
    """
    log = np.log(within(resistance_ohm, 10.0, 1e7))
    b, c = within(b_per_k, 1e-4, 4e-4), within(c_per_k, 0.0, 5e-7)
    return 1.0 / (within(a_per_k, 5e-4, 2e-3) + log * (b + c * log * log)) - ZERO_CELSIUS_K


def steinhart_hart_coefficients(
    resistances_ohm: Sequence[float], temperatures_c: Sequence[float]
) -> tuple[float, float, float]:
    """A, B and C of `steinhart_hart_temperature` (1/K) through three points.

    Args:
        resistances_ohm: three different ones, Ω.
        temperatures_c: the temperatures at which they were measured, °C.

    Raises:
        ValueError: not three points, two of them at one resistance, or no resistance of a thermistor.

    >>> a, b, c = steinhart_hart_coefficients([32_650, 10_000, 3_600], [0.0, 25.0, 50.0])
    >>> round(float(steinhart_hart_temperature(32_650, a, b, c)), 9)
    0.0
    """
    if len(resistances_ohm) != 3 or len(temperatures_c) != 3:
        raise ValueError("A Steinhart–Hart curve goes through three points.")
    if len(set(resistances_ohm)) < 3 or not min(resistances_ohm) > 0.0:
        raise ValueError("Three points need three different resistances above 0 Ω.")
    log = np.log(np.asarray(resistances_ohm, dtype=np.float64))
    powers = np.stack([np.ones(3), log, log**3], axis=1)
    inverse = 1.0 / (np.asarray(temperatures_c, dtype=np.float64) + ZERO_CELSIUS_K)
    a, b, c = np.linalg.solve(powers, inverse)
    return float(a), float(b), float(c)


def watermark_thermistor_temperature(resistance_ohm: ArrayLike) -> FloatArray:
    """Temperature of a Watermark 200TS: T = −23.89 ln R + 246.00, R in Ω (Irrometer).

    Args:
        resistance_ohm: Ω, 3,000–35,000.

    Returns:
        °C.

    >>> round(float(watermark_thermistor_temperature(10_000)), 2)
    25.96
    """
    return -23.89 * np.log(within(resistance_ohm, *WATERMARK_THERMISTOR_OHM)) + 246.00


def oxygen_two_point(
    reading_pct: ArrayLike, at_zero_pct: ArrayLike, at_saturation_pct: ArrayLike
) -> FloatArray:
    """Oxygen saturation from two points: 100 (x − x₀) / (x₁₀₀ − x₀) (ISO 17289).

    Args:
        reading_pct: x, what the probe shows, %, −20–500.
        at_zero_pct: x₀, what it showed in water without oxygen (sodium sulfite), %, −20–20.
        at_saturation_pct: x₁₀₀, what it showed in water saturated with air, %, 50–150.

    Returns:
        % of saturation.

    >>> round(float(oxygen_two_point(50, 0.8, 97.6)), 5)
    50.82645
    """
    zero = within(at_zero_pct, -20.0, 20.0)
    span = within(at_saturation_pct, 50.0, 150.0) - zero
    return 100.0 * (within(reading_pct, -20.0, 500.0) - zero) / span


def phthalate_buffer_ph(temperature_c: ArrayLike) -> FloatArray:
    """pH of the phthalate buffer, 4.01 at 25 °C at its own temperature, linear between the figures of DIN 19266 (`BUFFERS`).

    Args:
        temperature_c: of the buffer, °C, 0–30.

    Returns:
        pH.

    >>> round(float(phthalate_buffer_ph(15)), 3)
    4.0
    """
    return _buffer_ph("phthalate", temperature_c)


def phosphate_buffer_ph(temperature_c: ArrayLike) -> FloatArray:
    """pH of the phosphate buffer, 6.86 at 25 °C at its own temperature, linear between the figures of DIN 19266 (`BUFFERS`).

    In ice-cold water it is 6.98: who enters what stands on the bottle tilts the electrode.

    Args:
        temperature_c: of the buffer, °C, 0–30.

    Returns:
        pH.

    >>> round(float(phosphate_buffer_ph(20)), 3)
    6.881
    """
    return _buffer_ph("phosphate", temperature_c)


def borax_buffer_ph(temperature_c: ArrayLike) -> FloatArray:
    """pH of the borax buffer, 9.18 at 25 °C at its own temperature, linear between the figures of DIN 19266 (`BUFFERS`).

    Args:
        temperature_c: of the buffer, °C, 0–30.

    Returns:
        pH.

    >>> round(float(borax_buffer_ph(10)), 3)
    9.332
    """
    return _buffer_ph("borax", temperature_c)


def _buffer_ph(name: str, temperature_c: ArrayLike) -> FloatArray:
    t = within(temperature_c, 0.0, 30.0)
    at: FloatArray = np.interp(t, _BUFFER_TEMPERATURES_C, BUFFERS[name])
    return np.where(np.isnan(t), np.nan, at)


def cell_constant(standard_us_cm: ArrayLike, conductance_us: ArrayLike) -> FloatArray:
    """Cell constant from a standard of known conductivity: K = κ / G (ISO 7888).

    Args:
        standard_us_cm: κ at the temperature it was measured at (`KCL_CONDUCTIVITY_25_US_CM`), µS/cm, 10–200,000.
        conductance_us: G between the electrodes, µS, 1–2,000,000.

    Returns:
        1/cm.

    >>> round(float(cell_constant(1413, 1384.9)), 4)
    1.0203
    """
    return within(standard_us_cm, 10.0, 2e5) / within(conductance_us, 1.0, 2e6)


def conductivity_of_cell(conductance_us: ArrayLike, cell_constant_per_cm: ArrayLike) -> FloatArray:
    """Conductivity at the water's temperature: κ = K · G (ISO 7888).

    Args:
        conductance_us: G, µS, 0–2,000,000.
        cell_constant_per_cm: K, 1/cm, 0.01–20.

    Returns:
        µS/cm.

    >>> round(float(conductivity_of_cell(490.0, 1.0203)), 3)
    499.947
    """
    return within(conductance_us, 0.0, 2e6) * within(cell_constant_per_cm, 0.01, 20.0)


def turbidity(
    signal: ArrayLike, offset_fnu: ArrayLike = 0.0, slope: ArrayLike = 1.0, curve: ArrayLike = 0.0
) -> FloatArray:
    """Turbidity from a nephelometer's signal: a + b x + c x², fitted on formazin (ISO 7027-1: 860 nm, 90°).

    FNU, not NTU: white light (EPA 180.1) scatters differently, and no factor turns one into the other. The coefficients come from
    `fits.fit_quadratic`; c only where an F-test wants it.

    Args:
        signal: x, what the probe shows, in FNU or counts, −100–70,000.
        offset_fnu: a, FNU, −1,000–1,000.
        slope: b, FNU per unit of x, 0.001–100.
        curve: c, FNU per unit of x squared, −0.01–0.01.

    Returns:
        FNU.

    >>> float(turbidity(200.0, -0.5, 1.02, 2e-5))
    204.3
    """
    x = within(signal, -100.0, 70_000.0)
    linear = within(offset_fnu, -1_000.0, 1_000.0) + within(slope, 1e-3, 100.0) * x
    return linear + within(curve, -0.01, 0.01) * (x * x)

"""The one way from raw readings to observations: convert, calibrate, state the uncertainty, flag.

Ingest, recompute and `fleet verify` call the same `observe`. It is deterministic bit by bit and row by row: only +, −, ·, /
and √ touch a value, so neither the machine nor the company that a row travels in changes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet_server.measurement.calibration import CalibrationParameters, as_columns, calibrate
from fleet_server.measurement.derived import (
    CAPACITIVE_AIR_MV,
    CAPACITIVE_WATER_MV,
    SOUND_TEMPERATURES_C,
    WATERMARK_KNOTS_OHM,
    WATERMARK_OPEN_OHM,
    WATERMARK_SHORT_OHM,
    WATERMARK_TEMPERATURES_C,
    capacitive_index,
    conductivity_25,
    oxygen_saturation,
    teros_water_content,
    teros_water_content_per_count,
    ultrasonic_distance,
    watermark_tension,
    watermark_tension_with_slopes,
)
from fleet_server.measurement.quality import (
    Flag,
    FlagArray,
    GrossRange,
    QualityTest,
    Result,
    TestArray,
    aggregate_flag,
    flag_of_reason,
    gross_range,
    pack_results,
)
from fleet_server.measurement.units import ZERO_CELSIUS_K

FloatArray = NDArray[np.float64]

VERSION: Final = "1"
"""Part of every observation's lineage. Any change that can change one bit of a result gets a new version."""

# What is assumed of a soil whose thermometer is silent: anything a rooted soil in Central Europe has without frost.
SOIL_TEMPERATURE_ASSUMED_C: Final = (0.0, 25.0)

# What is assumed of water whose thermometer is silent: any pond in Central Europe, under ice or in a heatwave.
WATER_TEMPERATURE_ASSUMED_C: Final = (0.0, 30.0)

# What is assumed of the air's pressure where an oxygen probe was calibrated: any weather up to 400 m above the sea.
AIR_PRESSURE_ASSUMED_HPA: Final = (960.0, 1030.0)

# Water colder than this is a thermometer's mistake; down to it, it is water at its freezing point.
_WATER_COLDEST_C: Final = -2.0
_WATER_WARMEST_C: Final = 40.0
_TEMPERATURE_STEP_K: Final = 0.01

# Temperatures that EZO circuits go by when a node had none to tell them (Atlas Scientific; hardware/sensors/ezo_*.toml).
_EZO_OXYGEN_DEFAULT_C: Final = 20.0
_EZO_PH_DEFAULT_C: Final = 25.0

# α of conductivity, 1/K: USGS and APHA's. Within ±0.0012 lie the other usual figure (0.02) and what salt water has between 0 and
# 30 °C (PSS-78: 0.0181–0.0199).
CONDUCTIVITY_ALPHA: Final = 0.0191
_CONDUCTIVITY_ALPHA_U: Final = 0.0012 / math.sqrt(3.0)

# NAMUR NE 43, µA: the span; measured values; beyond the last the probe says that it is faulty.
_LOOP_SPAN_UA: Final = (4_000.0, 20_000.0)
_LOOP_MEASURED_UA: Final = (3_800.0, 20_500.0)
_LOOP_WELL_UA: Final = (3_600.0, 21_000.0)
# The air over a water in Central Europe, of which nothing else is known.
AIR_TEMPERATURE_ASSUMED_C: Final = (-10.0, 35.0)

# An ultrasonic module's maker does not say by which speed of sound it reckons, 340 to 348 m/s; and nobody knows how humid the
# air is, which makes up to 0.7 % (both rectangular). A gauge read at two levels takes the first away.
_SPEED_U_REL: Final = 4.0 / 344.0 / math.sqrt(3.0)
_HUMIDITY_U_REL: Final = 0.007 / math.sqrt(3.0)
_SOUND_U_REL: Final = math.hypot(_SPEED_U_REL, _HUMIDITY_U_REL)
_ULTRASONIC_MM: Final = (30.0, 4_500.0)

# Nearer to a rail than any probe of this kind comes, in air or in water.
_CAPACITIVE_MV: Final = (500.0, 2_950.0)

# The node works the resistance out against a resistor of ±1 % (rectangular) and sends whole ohms.
_SERIES_RESISTOR_U_REL: Final = 0.01 / math.sqrt(3.0)

# No probe means such a number; squaring it must not overflow.
_RAW_MAX: Final = 1e12

_WHOLE_NUMBER_U: Final = 1.0 / math.sqrt(12.0)


@dataclass(frozen=True)
class Observed:
    """Observations of one kind, one row each; all arrays of shape (n,).

    Attributes:
        value: published unit, float64; NaN: there is no value (stored as null). A value outside its property's range
            is kept and flagged, one that could not be worked out is not there.
        u: standard uncertainty in the same unit, float32 as it is stored; NaN where value is.
        flag: QARTOD flag, int16.
        tests: two bits for each `quality.QualityTest`, int32.
    """

    value: FloatArray
    u: NDArray[np.float32]
    flag: FlagArray
    tests: TestArray


_Parts = Callable[[], Mapping[str, FloatArray]]
"""What makes u_x, by name (`budget.SHAPES`), as standard uncertainties in the published unit; worked out when it is asked for."""


@dataclass(frozen=True)
class _Converted:
    """Raw readings in the published unit, before calibration, and what conversion had to say about them.

    u_x² is the sum of the squares of `parts`.
    """

    x: FloatArray
    u_x: FloatArray
    results: dict[QualityTest, TestArray]
    parts: _Parts = dict


_Inputs = Mapping[str, Observed]
Correct = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
"""(values, their standard uncertainties) → the same put right, row by row; NaN stays NaN."""


@dataclass(frozen=True)
class Conversion:
    """How a raw unit becomes a published one. `needs` names the inputs that it works with.

    Monotonic in the raw value and in each input, but at `knots`, raw values in ascending order: between two of them it is.
    """

    convert: Callable[[FloatArray, _Inputs], _Converted]
    needs: tuple[str, ...] = ()
    knots: tuple[float, ...] = ()


def observe(
    conversion: str,
    raw: ArrayLike,
    inputs: Mapping[str, Observed],
    calibration: CalibrationParameters | Sequence[CalibrationParameters],
    *,
    observed_property: str,
    reasons: Sequence[str | None] | None = None,
    times_s: ArrayLike | None = None,
    correct: Correct | None = None,
    own_range: GrossRange | None = None,
) -> Observed:
    """Turn raw readings of one kind into observations.

    Args:
        conversion: row of `CONVERSIONS`.
        raw: raw unit of the channel, shape (n,), any real numbers. NaN or None: no value came.
        inputs: what the conversion needs, by name, as observed at the same instants; shape (n,) each. A name left out, or
            a row without value: that channel was not there. An empty mapping where nothing is needed.
        calibration: one for all rows, or n of them.
        observed_property: row of `quality.GROSS_RANGES`; a property without one is flagged "not evaluated".
        reasons: why a raw value is missing, n of them; None where there is a value or no reason is known.
        times_s: when they were sampled, seconds since 1970 (UTC), n of them; wanted only by a calibration that drifts.
        correct: puts calibrated values right for what their probes lost between two visits (`drift.correct`).
        own_range: what these values are judged by instead of their property's range.

    Returns:
        n observations. A row never depends on another row. Missing raw values give NaN with the flag of their reason
        (4 where the probe answered something impossible, else 9), tests not evaluated.

    Raises:
        ValueError: an unknown conversion, lengths that do not fit, or a calibration that drifts without times.

    >>> observed = observe("sixteenths", [318, None], {}, CalibrationParameters(u_abs=0.29),
    ...                    observed_property="soil_temperature", reasons=[None, "crc"])
    >>> observed.value.tolist(), observed.flag.tolist()
    ([19.875, nan], [1, 9])
    """
    if conversion not in CONVERSIONS:
        raise ValueError(f"There is no conversion {conversion!r}.")
    row = np.array(raw, dtype=np.float64, ndmin=1)
    times = None if times_s is None else np.array(times_s, dtype=np.float64, ndmin=1)
    _check_lengths(row.size, inputs, calibration, reasons, times)
    is_missing = np.isnan(row)
    is_possible = np.abs(row) <= _RAW_MAX
    converted = CONVERSIONS[conversion].convert(np.where(is_possible, row, np.nan), inputs)
    value, u = calibrate(converted.x, converted.u_x, as_columns(calibration), times)
    if correct is not None:
        value, u = correct(value, u)
    results = dict(converted.results)
    in_range = np.where(is_possible, gross_range(value, observed_property, own_range), Result.BAD)
    from_conversion = results.get(QualityTest.GROSS_RANGE, np.zeros(row.size, dtype=np.int32))
    results[QualityTest.GROSS_RANGE] = np.maximum(in_range, from_conversion)
    results = {test: np.where(is_missing, 0, result) for test, result in results.items()}
    flag = np.where(
        is_missing,
        _flags_of_reasons(reasons, row.size),
        aggregate_flag([*results.values()], row.size),
    )
    return Observed(
        value=value,
        u=u.astype(np.float32),
        flag=flag.astype(np.int16),
        tests=pack_results(results, row.size),
    )


def _check_lengths(
    length: int,
    inputs: _Inputs,
    calibration: CalibrationParameters | Sequence[CalibrationParameters],
    reasons: Sequence[str | None] | None,
    times_s: FloatArray | None,
) -> None:
    lengths = [observed.value.size for observed in inputs.values()]
    if not isinstance(calibration, CalibrationParameters):
        lengths.append(len(calibration))
    if reasons is not None:
        lengths.append(len(reasons))
    if times_s is not None:
        lengths.append(times_s.size)
    if any(other != length for other in lengths):
        raise ValueError("Raw readings, inputs, calibrations, reasons and times differ in length.")


def _flags_of_reasons(reasons: Sequence[str | None] | None, length: int) -> FlagArray:
    if reasons is None:
        return np.full(length, Flag.MISSING, dtype=np.int16)
    return np.array([flag_of_reason(reason) for reason in reasons], dtype=np.int16)


def _identity(raw: FloatArray, _: _Inputs) -> _Converted:
    """The probe already speaks the published unit; its resolution is part of its accuracy."""
    return _Converted(raw, np.zeros_like(raw), {})


def _of_digits(x: FloatArray, u_digit: float) -> _Converted:
    u = np.full_like(x, u_digit)
    return _Converted(x, u, {}, lambda: {"resolution": u})


def _sixteenths(raw: FloatArray, _: _Inputs) -> _Converted:
    """DS18B20's scratchpad: 1/16 °C (Maxim data sheet 19-7487, figure 4); the last digit is rectangular."""
    return _of_digits(raw / 16.0, _WHOLE_NUMBER_U / 16.0)


def _hundredths(raw: FloatArray, _: _Inputs) -> _Converted:
    """The probe counts hundredths of the published unit; the last digit is rectangular."""
    return _of_digits(raw / 100.0, _WHOLE_NUMBER_U / 100.0)


def _ten_thousandths(raw: FloatArray, _: _Inputs) -> _Converted:
    """Hundredths of a per cent, of which the whole is meant: 3440 is 0.344 (Truebner SMT100, register 1)."""
    return _of_digits(raw / 10_000.0, _WHOLE_NUMBER_U / 10_000.0)


def _hundredths_from_minus_100(raw: FloatArray, _: _Inputs) -> _Converted:
    """Hundredths above −100: 12797 is 27.97 °C (Truebner SMT100, register 0)."""
    return _of_digits((raw - 10_000.0) / 100.0, _WHOLE_NUMBER_U / 100.0)


def _percent_of_ratio(raw: FloatArray, _: _Inputs) -> _Converted:
    """The probe tells a ratio, we publish per cent; its resolution is part of its accuracy."""
    return _Converted(raw * 100.0, np.zeros_like(raw), {})


def _current_loop(raw: FloatArray, _: _Inputs) -> _Converted:
    """Share of the span from microamperes on a 4–20 mA loop: 12,000 µA is 0.5; the calibration's slope is the span.

    Outside of 3.8–20.5 mA the probe is at its end, and the reading suspect; outside of 3.6–21 mA it says that it is faulty, and
    there is no value (NAMUR NE 43). The last digit is rectangular.
    """
    low, high = _LOOP_SPAN_UA
    is_well = (raw >= _LOOP_WELL_UA[0]) & (raw <= _LOOP_WELL_UA[1])
    is_measured = (raw >= _LOOP_MEASURED_UA[0]) & (raw <= _LOOP_MEASURED_UA[1])
    result = np.select(
        [is_measured, is_well], [Result.NOT_EVALUATED, Result.SUSPECT], default=Result.BAD
    )
    share = _of_digits(
        np.where(is_well, (raw - low) / (high - low), np.nan), _WHOLE_NUMBER_U / (high - low)
    )
    return replace(share, results={QualityTest.GROSS_RANGE: result.astype(np.int32)})


def _wiped(raw: FloatArray, inputs: _Inputs) -> _Converted:
    """A reading through a window that is wiped: as good as the age of the last wipe, suspect when nobody knows it."""
    age = inputs.get("wiper_age")
    if age is None:
        result = np.full(raw.size, Result.SUSPECT, dtype=np.int32)
    else:
        result = _result_of_input(age)
    return _Converted(raw, np.zeros_like(raw), {QualityTest.INPUT: result})


_AtTemperature = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
"""(what the probe shows, the water's temperature, the temperature that the probe went by) → published unit."""


def _oxygen_of_saturation(raw: FloatArray, inputs: _Inputs) -> _Converted:
    """mg/L from the saturation as a ratio: ratio · oxygen_saturation(T) in fresh water (Benson and Krause 1984).

    A ratio of 0.925 at 17.625 °C and 995 hPa is 8.6628 mg/L. The ratio is that to water saturated with air where the probe was
    calibrated, whose pressure is taken as rectangular over `AIR_PRESSURE_ASSUMED_HPA`.
    """
    pressure_hpa = (AIR_PRESSURE_ASSUMED_HPA[0] + AIR_PRESSURE_ASSUMED_HPA[1]) / 2.0

    def oxygen(ratio: FloatArray, water_c: FloatArray, _: FloatArray) -> FloatArray:
        return ratio * oxygen_saturation(water_c, 0.0, pressure_hpa)

    u_pressure = (AIR_PRESSURE_ASSUMED_HPA[1] - pressure_hpa) / pressure_hpa / math.sqrt(3.0)
    return _at_water_temperature(
        raw, 0.0, inputs, oxygen, default_c=0.0, u_relative=("pressure", u_pressure)
    )


def _ezo_oxygen(raw: FloatArray, inputs: _Inputs) -> _Converted:
    """mg/L from hundredths that an EZO circuit worked out for the temperature it was told.

    It measures the oxygen's pressure; for another temperature its figure moves as the solubility does (Benson and Krause 1984).
    """

    def oxygen(shown: FloatArray, water_c: FloatArray, told_c: FloatArray) -> FloatArray:
        return shown * oxygen_saturation(water_c) / oxygen_saturation(told_c)

    return _at_water_temperature(
        raw / 100.0, _WHOLE_NUMBER_U / 100.0, inputs, oxygen, default_c=_EZO_OXYGEN_DEFAULT_C
    )


def _ezo_ph(raw: FloatArray, inputs: _Inputs) -> _Converted:
    """pH from thousandths that an EZO circuit worked out for the temperature it was told.

    The electrode's potential stands for pH − 7 in proportion to 1/(T + 273.15) (Nernst): shown as 4.201 for 25 °C, in water of
    5 °C, it is 4.000.
    """

    def ph(shown: FloatArray, water_c: FloatArray, told_c: FloatArray) -> FloatArray:
        told_k = told_c + ZERO_CELSIUS_K
        return 7.0 + (shown - 7.0) * told_k / (water_c + ZERO_CELSIUS_K)

    return _at_water_temperature(
        raw / 1000.0, _WHOLE_NUMBER_U / 1000.0, inputs, ph, default_c=_EZO_PH_DEFAULT_C
    )


def _conductivity_25(raw: FloatArray, inputs: _Inputs) -> _Converted:
    """µS/cm at 25 °C from hundredths at the water's temperature: κ / (1 + α (T − 25)), α as `CONDUCTIVITY_ALPHA` (ISO 7888).

    309.00 µS/cm at 5 °C are 500.00 at 25 °C. How natural waters differ in α is in u.
    """

    def at_25(shown: FloatArray, water_c: FloatArray, _: FloatArray) -> FloatArray:
        return conductivity_25(shown, water_c, CONDUCTIVITY_ALPHA)

    temperature = _water_temperature(raw.size, inputs.get("temperature"))
    from_25 = temperature.value_c - 25.0
    u_alpha = np.abs(from_25 / (1.0 + CONDUCTIVITY_ALPHA * from_25)) * _CONDUCTIVITY_ALPHA_U
    return _at_water_temperature(
        raw / 100.0,
        _WHOLE_NUMBER_U / 100.0,
        inputs,
        at_25,
        default_c=25.0,
        u_relative=("alpha", u_alpha),
    )


def _at_water_temperature(
    shown: FloatArray,
    u_shown: float,
    inputs: _Inputs,
    formula: _AtTemperature,
    *,
    default_c: float,
    u_relative: tuple[str, FloatArray | float] = ("formula", 0.0),
) -> _Converted:
    """Put a reading right for the water's temperature, with the uncertainty that the thermometer brings.

    The probe went by what the thermometer said; where that said nothing, by `default_c`. Then the value is the middle between those
    at both ends of the assumed range, taken as rectangular between them, and suspect. A temperature that is bad, or no water's, makes the
    reading bad. `u_relative`: what else the formula does not know, its name and its part of the value.
    """
    observed = inputs.get("temperature")
    temperature = _water_temperature(shown.size, observed)
    told_c = _told_temperature(shown.size, observed, default_c)
    low_c = np.maximum(temperature.value_c - _TEMPERATURE_STEP_K, 0.0)
    high_c = np.minimum(temperature.value_c + _TEMPERATURE_STEP_K, _WATER_WARMEST_C)
    value = formula(shown, temperature.value_c, told_c)
    by_digit = formula(shown + u_shown, temperature.value_c, told_c) - value
    slope = (formula(shown, high_c, told_c) - formula(shown, low_c, told_c)) / (high_c - low_c)
    by_temperature = slope * temperature.u_c
    if not temperature.is_measured.all():
        coldest, warmest = (
            formula(shown, np.full_like(shown, end), told_c) for end in WATER_TEMPERATURE_ASSUMED_C
        )
        value = np.where(temperature.is_measured, value, (coldest + warmest) / 2.0)
        u_assumed = np.abs(warmest - coldest) / math.sqrt(12.0)
        by_temperature = np.where(temperature.is_measured, by_temperature, u_assumed)
    by_formula = u_relative[1] * value
    u_squared = by_digit * by_digit + by_temperature * by_temperature + by_formula * by_formula
    results = {
        QualityTest.GROSS_RANGE: _bad_without(value),
        QualityTest.INPUT: temperature.result,
    }

    def parts() -> dict[str, FloatArray]:
        return {
            "resolution": np.abs(by_digit),
            **_temperature_parts(by_temperature, temperature),
            u_relative[0]: np.abs(by_formula),
        }

    return _Converted(value, np.sqrt(u_squared), results, parts)


def _temperature_parts(
    by_temperature: FloatArray, temperature: _Temperature
) -> dict[str, FloatArray]:
    """What a thermometer brings, and what its silence does."""
    u = np.abs(by_temperature)
    return {
        "temperature": np.where(temperature.is_measured, u, 0.0),
        "temperature_assumed": np.where(temperature.is_measured, 0.0, u),
    }


def _told_temperature(length: int, observed: Observed | None, default_c: float) -> FloatArray:
    """What the node told the probe: whatever its thermometer said, good or bad, or nothing."""
    if observed is None:
        return np.full(length, default_c)
    said_c = np.where(np.isnan(observed.value), default_c, observed.value)
    return np.clip(said_c, 0.0, _WATER_WARMEST_C)


def _water_temperature(length: int, observed: Observed | None) -> _Temperature:
    """The water's temperature; what is a little below 0 °C is water at its freezing point."""
    given = _temperature(length, observed, WATER_TEMPERATURE_ASSUMED_C)
    is_water = (given.value_c >= _WATER_COLDEST_C) & (given.value_c <= _WATER_WARMEST_C)
    return _Temperature(
        np.where(is_water, np.maximum(given.value_c, 0.0), np.nan),
        given.u_c,
        given.is_measured,
        np.where(is_water, given.result, np.int32(Result.BAD)),
    )


def _tenths(raw: FloatArray, _: _Inputs) -> _Converted:
    """A probe that tells one decimal, as a whole number of tenths; the last digit is rectangular."""
    return _of_digits(raw / 10.0, _WHOLE_NUMBER_U / 10.0)


def _teros(raw: FloatArray, _: _Inputs) -> _Converted:
    """Water content from tenths of a TEROS's counts, by permittivity and Topp. In air, and beyond water, there is no value: bad."""
    water_content = teros_water_content(raw / 10.0)
    u = np.abs(teros_water_content_per_count(raw / 10.0) * (_WHOLE_NUMBER_U / 10.0))
    results = {QualityTest.GROSS_RANGE: _bad_without(water_content)}
    return _Converted(water_content, u, results, lambda: {"resolution": u})


def _capacitive(raw: FloatArray, _: _Inputs) -> _Converted:
    """Relative index from millivolts, by the maker's two points; a unit's own two are its calibration. At a rail: bad."""
    index = capacitive_index(_inside(raw, *_CAPACITIVE_MV))
    of_digits = _of_digits(index, _WHOLE_NUMBER_U / (CAPACITIVE_AIR_MV - CAPACITIVE_WATER_MV))
    return replace(of_digits, results={QualityTest.GROSS_RANGE: _bad_without(index)})


def _ultrasonic(raw: FloatArray, inputs: _Inputs) -> _Converted:
    """Level below the module's face, so below zero, from the distance in mm and the air's temperature.

    Where the face hangs over the gauge's zero is the offset of a calibration; without one a level is out of its range, and bad.
    Without a usable temperature the value is the middle between those at both ends of the assumed range, taken as rectangular
    between them, and suspect. Blind or too far, or a temperature that is bad: bad.
    """
    temperature = _temperature(raw.size, inputs.get("temperature"), AIR_TEMPERATURE_ASSUMED_C)
    shown_mm = _inside(raw, *_ULTRASONIC_MM)
    distance_m = ultrasonic_distance(shown_mm, temperature.value_c)
    # c² is proportional to the absolute temperature: dc/c = dT / 2K.
    by_temperature = distance_m * temperature.u_c / (2.0 * (temperature.value_c + 273.15))
    if not temperature.is_measured.all():
        low, high = (
            ultrasonic_distance(shown_mm, np.full_like(raw, end))
            for end in AIR_TEMPERATURE_ASSUMED_C
        )
        distance_m = np.where(temperature.is_measured, distance_m, (low + high) / 2.0)
        by_temperature = np.where(
            temperature.is_measured, by_temperature, np.abs(high - low) / math.sqrt(12.0)
        )
    by_sound = _SOUND_U_REL * distance_m
    by_digit = _WHOLE_NUMBER_U / 1000.0
    u_squared = by_temperature * by_temperature + by_sound * by_sound + by_digit * by_digit
    is_known_air = (temperature.value_c >= SOUND_TEMPERATURES_C[0]) & (
        temperature.value_c <= SOUND_TEMPERATURES_C[1]
    )
    results = {
        QualityTest.GROSS_RANGE: _bad_without(shown_mm),
        QualityTest.INPUT: np.where(is_known_air, temperature.result, Result.BAD),
    }

    def parts() -> dict[str, FloatArray]:
        return {
            "resolution": np.full_like(distance_m, by_digit),
            "sound": _SPEED_U_REL * distance_m,
            "humidity": _HUMIDITY_U_REL * distance_m,
            **_temperature_parts(by_temperature, temperature),
        }

    return _Converted(-distance_m, np.sqrt(u_squared), results, parts)


def _inside(raw: FloatArray, lowest: float, highest: float) -> FloatArray:
    return np.where((raw >= lowest) & (raw <= highest), raw, np.nan)


def _bad_without(value: FloatArray) -> TestArray:
    """Bad where a reading is no value at all; the rest is for the range of the property to say."""
    return np.where(np.isnan(value), Result.BAD, Result.NOT_EVALUATED).astype(np.int32)


def _watermark(raw: FloatArray, inputs: _Inputs) -> _Converted:
    """Tension from resistance and the soil's temperature, with the uncertainty of resistor, thermometer and formula.

    Without a usable temperature the value is the middle between those at both ends of the assumed range, taken as
    rectangular between them, and suspect. Below 0 °C, beyond the curve's temperatures, and for a shorted or open line
    there is no value, and the reading is bad. A temperature that is bad makes the tension bad. Where the node measures a
    reference resistor with the same circuit, the tension is no better than that.
    """
    temperature = _temperature(raw.size, inputs.get("temperature"), SOIL_TEMPERATURE_ASSUMED_C)
    curve = watermark_tension_with_slopes(raw, temperature.value_c)
    series_resistor = _SERIES_RESISTOR_U_REL * raw
    u_ohm_squared = series_resistor * series_resistor + _WHOLE_NUMBER_U * _WHOLE_NUMBER_U
    tension_kpa, by_temperature = curve.tension_kpa, curve.per_kelvin * temperature.u_c
    if not temperature.is_measured.all():
        assumed_kpa, u_assumed = _tension_at_any_temperature(raw)
        tension_kpa = np.where(temperature.is_measured, tension_kpa, assumed_kpa)
        by_temperature = np.where(temperature.is_measured, by_temperature, u_assumed)
    u_squared = (
        curve.per_ohm * curve.per_ohm * u_ohm_squared
        + by_temperature * by_temperature
        + curve.u_form * curve.u_form
    )
    is_on_line = (raw >= WATERMARK_SHORT_OHM) & (raw < WATERMARK_OPEN_OHM)
    is_too_warm = temperature.value_c > WATERMARK_TEMPERATURES_C[1]
    frost = np.where(temperature.value_c < WATERMARK_TEMPERATURES_C[0], Result.BAD, Result.GOOD)
    results = {
        QualityTest.GROSS_RANGE: np.where(is_on_line, Result.NOT_EVALUATED, Result.BAD),
        QualityTest.FROST: np.where(temperature.is_measured, frost, Result.NOT_EVALUATED),
        QualityTest.INPUT: np.maximum(
            np.where(is_too_warm, Result.BAD, temperature.result),
            _reference(raw.size, inputs.get("reference")),
        ),
    }

    def parts() -> dict[str, FloatArray]:
        return {
            "resolution": np.abs(curve.per_ohm) * _WHOLE_NUMBER_U,
            "circuit": np.abs(curve.per_ohm * series_resistor),
            **_temperature_parts(by_temperature, temperature),
            "formula": curve.u_form,
        }

    return _Converted(tension_kpa, np.sqrt(u_squared), results, parts)


def _tension_at_any_temperature(raw: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Tension and its standard uncertainty, kPa, when nothing but the assumed range is known of the temperature."""
    low, high = (
        watermark_tension(raw, np.full_like(raw, end)) for end in SOIL_TEMPERATURE_ASSUMED_C
    )
    return (low + high) / 2.0, np.abs(high - low) / math.sqrt(12.0)


@dataclass(frozen=True)
class _Temperature:
    """A temperature to work with; where it was not measured, the middle of the assumed range. All shape (n,)."""

    value_c: FloatArray
    u_c: FloatArray
    is_measured: NDArray[np.bool_]
    result: TestArray


def _temperature(
    length: int, observed: Observed | None, assumed_c: tuple[float, float]
) -> _Temperature:
    middle = sum(assumed_c) / 2.0
    if observed is None:
        return _Temperature(
            np.full(length, middle),
            np.zeros(length),
            np.zeros(length, dtype=np.bool_),
            np.full(length, Result.SUSPECT, dtype=np.int32),
        )
    is_measured = ~np.isnan(observed.value) & (observed.flag != Flag.BAD)
    return _Temperature(
        np.where(is_measured, observed.value, middle),
        np.where(is_measured, observed.u.astype(np.float64), 0.0),
        is_measured,
        _result_of_input(observed),
    )


def _reference(length: int, observed: Observed | None) -> TestArray:
    """What a reference resistor says of the circuit; where there is none, or it was not read, nothing."""
    if observed is None:
        return np.zeros(length, dtype=np.int32)
    was_not_read = np.isnan(observed.value) & (observed.flag != Flag.BAD)
    return np.where(was_not_read, Result.NOT_EVALUATED, _result_of_input(observed))


def _result_of_input(observed: Observed) -> TestArray:
    is_bad = observed.flag == Flag.BAD
    is_doubtful = np.isnan(observed.value) | (observed.flag == Flag.SUSPECT)
    result = np.select([is_bad, is_doubtful], [Result.BAD, Result.SUSPECT], default=Result.GOOD)
    return result.astype(np.int32)


CONVERSIONS: Final[dict[str, Conversion]] = {
    "identity": Conversion(_identity),
    "sixteenths": Conversion(_sixteenths),
    "hundredths": Conversion(_hundredths),
    "hundredths_from_minus_100": Conversion(_hundredths_from_minus_100),
    "ten_thousandths": Conversion(_ten_thousandths),
    "percent_of_ratio": Conversion(_percent_of_ratio),
    "oxygen_of_saturation": Conversion(_oxygen_of_saturation, needs=("temperature",)),
    "ezo_oxygen": Conversion(_ezo_oxygen, needs=("temperature",)),
    "ezo_ph": Conversion(_ezo_ph, needs=("temperature",)),
    "conductivity_25": Conversion(_conductivity_25, needs=("temperature",)),
    "current_loop": Conversion(_current_loop),
    "wiped": Conversion(_wiped, needs=("wiper_age",)),
    "tenths": Conversion(_tenths),
    "watermark_tension": Conversion(
        _watermark, needs=("temperature", "reference"), knots=WATERMARK_KNOTS_OHM
    ),
    "teros_water_content": Conversion(_teros),
    "capacitive_index": Conversion(_capacitive),
    "ultrasonic_level": Conversion(_ultrasonic, needs=("temperature",)),
}
"""Conversions by the name that node models use."""

"""Is every published quantity as sure as it says? Simulated truth through the real pipeline, thousands of times.

For each quantity that a node model publishes a true value is taken, a probe is drawn as its maker (or we) say that such probes are, with
thermometer, resistors, air and water around it, and what it would send goes through `pipeline.observe` with the factory calibration of
`hardware/sensors`. What makers say stands here apart from those files (`PROBES`), so that one is held against the other. Calibrations are drawn with
their standards and few points, fitted, and used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.measurement import derived, fits
from fleet_server.measurement.budget import budget
from fleet_server.measurement.calibration import (
    SECONDS_PER_YEAR,
    CalibrationParameters,
    as_columns,
    calibrate,
)
from fleet_server.measurement.pipeline import (
    AIR_PRESSURE_ASSUMED_HPA,
    AIR_TEMPERATURE_ASSUMED_C,
    SOIL_TEMPERATURE_ASSUMED_C,
    WATER_TEMPERATURE_ASSUMED_C,
    Observed,
    observe,
)
from fleet_server.measurement.units import ZERO_CELSIUS_K
from hardware import catalogue

FloatArray = NDArray[np.float64]

COVERAGE: Final = (0.935, 0.965)
"""What an interval of 95 % has to hold, two-sided."""

U_RATIO_MAX: Final = 1.3
"""Median u over what values really scatter: a huge u is no answer."""

_POINTS: Final = 10
_SECONDS_PER_DAY: Final = 86_400.0
_NEAR: Final = 0.01  # of the range, around a point
_RECTANGULAR: Final = "one limit makes most of u: k = 2 holds more than 95 %"
_ASSUMED: Final = "no thermometer: all that can be is assumed, and flagged suspect"
_A_STATE: Final = "a state, not a size: wrong once in 10,000 times, and then by all of it"


@dataclass(frozen=True)
class Part:
    """One independent part of what probes of a kind are off by: limits ("± 5 %"), or a standard deviation.

    `absolute` in the published unit and `relative` to the value; the greater of the two counts ("± 5 % or 0.3").
    """

    absolute: float = 0.0
    relative: float = 0.0
    is_limit: bool = True

    def draw(self, value: FloatArray, generator: np.random.Generator) -> FloatArray:
        size = np.maximum(self.absolute, self.relative * np.abs(value))
        if self.is_limit:
            return size * generator.uniform(-1.0, 1.0, value.size)
        return size * generator.standard_normal(value.size)


def _limits(absolute: float = 0.0, relative: float = 0.0) -> Part:
    return Part(absolute, relative)


def _normal(absolute: float = 0.0, relative: float = 0.0) -> Part:
    return Part(absolute, relative, is_limit=False)


PROBES: Final[dict[tuple[str, str], tuple[Part, ...]]] = {
    # The maker states nothing; ours.
    ("watermark_200ss", "soil_water_tension"): (_normal(1.5), _normal(relative=0.06)),
    ("capacitive_analogue", "soil_moisture_index"): (_normal(0.1),),
    ("smt100", "soil_water_content"): (_normal(0.1),),
    ("smt100", "soil_permittivity"): (_normal(0.3), _normal(relative=0.03)),
    ("smt100", "probe_counts"): (_normal(10.0),),
    ("teros_11", "soil_water_content"): (_normal(0.07),),
    ("teros_12", "soil_water_content"): (_normal(0.07),),
    ("ezo_ph", "ph"): (_normal(0.05),),
    ("y511", "wiper_age"): (_normal(1.0),),
    # ± 0.5 °C (Maxim); in a shield 0.5 °C more, which is ours.
    ("ds18b20", "soil_temperature"): (_limits(0.5),),
    ("ds18b20_water", "water_temperature"): (_limits(0.5),),
    ("ds18b20_air", "air_temperature"): (_limits(0.5), _normal(0.5)),
    # ± 0.4 °C (Truebner); ± 0.5 and ± 0.3 °C, ± 5 % and ± 10 µS/cm (METER).
    ("smt100", "soil_temperature"): (_limits(0.4),),
    ("teros_11", "soil_temperature"): (_limits(0.5),),
    ("teros_12", "soil_temperature"): (_limits(0.3),),
    ("teros_12", "soil_conductivity"): (_limits(10.0), _limits(relative=0.05)),
    # ± 3 % of reading, ± 0.5 °C (DFRobot); near zero 0.6 % and 0.06 mg/L, which are ours.
    ("do_modbus", "oxygen_saturation"): (_limits(relative=0.03), _normal(0.6)),
    ("do_modbus", "dissolved_oxygen"): (_limits(relative=0.03), _normal(0.06)),
    ("do_modbus", "water_temperature"): (_limits(0.5),),
    # ± 1 % of saturation, for its zero and for its slope; ± 0.2 °C; ± 5 % or 0.3 FNU (Yosemitech).
    ("y504", "oxygen_saturation"): (_limits(1.0), _limits(relative=0.01)),
    ("y504", "dissolved_oxygen"): (_limits(0.1), _limits(relative=0.01)),
    ("y504", "water_temperature"): (_limits(0.2),),
    ("y511", "turbidity"): (_limits(0.3, 0.05),),
    ("y511", "water_temperature"): (_limits(0.2),),
    # ± 0.05 mg/L, and 2 % that are ours; ± 2 %, and 1 µS/cm that is ours (Atlas Scientific).
    ("ezo_do", "dissolved_oxygen"): (_limits(0.05), _normal(relative=0.02)),
    ("ezo_ec", "conductivity_25"): (_limits(relative=0.02), _normal(1.0)),
    # ± 0.25 % of 2 m; shunt and converter are in the loop's current.
    ("level_4_20ma", "water_level"): (_limits(0.005),),
    # ± 1 cm (DFRobot); sound and air are around it.
    ("a02yyuw", "water_level"): (_limits(0.01),),
    # Two resistors of 1 % that halve the voltage; ± 10 mV of the converter behind them (Espressif).
    ("battery_divider", "battery_voltage"): (
        _limits(20.0),
        _limits(relative=0.005),
        _limits(relative=0.005),
    ),
    # A series resistor of 1 %, and what is measured is known to 0.1 %.
    ("reference_10k", "reference_resistance"): (_limits(relative=0.01),),
    ("contact_supervised", "contact_closed"): (),
}
"""What probes of a kind are off by, by sensor type and property, after the sources that `hardware/sensors` names."""

RANGES: Final[dict[str, tuple[float, float]]] = {
    "soil_water_tension": (8.0, 150.0),
    "soil_water_content": (0.05, 0.45),
    "soil_permittivity": (4.0, 40.0),
    "soil_temperature": (-5.0, 30.0),
    "soil_conductivity": (50.0, 2_000.0),
    "soil_moisture_index": (0.1, 0.9),
    "probe_counts": (3_000.0, 15_000.0),
    "water_temperature": (1.0, 28.0),
    "dissolved_oxygen": (1.0, 14.0),
    "oxygen_saturation": (10.0, 130.0),
    "ph": (6.0, 9.5),
    "conductivity_25": (100.0, 2_000.0),
    "turbidity": (0.5, 400.0),
    "wiper_age": (60.0, 5_000.0),
    "water_level": (0.1, 1.9),
    "air_temperature": (-10.0, 35.0),
    "battery_voltage": (3_000.0, 4_200.0),
    "reference_resistance": (9_990.0, 10_010.0),
    "contact_closed": (0.0, 1.0),
}
"""True values that a quantity is tried at."""

_SOIL_C: Final = (2.0, 28.0)
_WATER_C: Final = (1.0, 28.0)
_AIR_C: Final = (-5.0, 32.0)
_ASSUMED_C: Final = {
    "watermark_tension": SOIL_TEMPERATURE_ASSUMED_C,
    "ultrasonic_level": AIR_TEMPERATURE_ASSUMED_C,
}
_MEASURED_C: Final = {"watermark_tension": _SOIL_C, "ultrasonic_level": _AIR_C}


@dataclass(frozen=True)
class Quantity:
    """One published quantity: whose it is, how it is made, and the thermometer that it is put right by."""

    sensor_type: str
    observed_property: str
    conversion: str
    thermometer: tuple[str, str, str] | None = None
    needs_thermometer: bool = False

    @property
    def name(self) -> str:
        what = f"{self.sensor_type} {self.observed_property}"
        if self.thermometer is not None:
            return f"{what}, {self.thermometer[0]}"
        return f"{what}, no thermometer" if self.needs_thermometer else what


@dataclass(frozen=True)
class Result:
    """What became of one quantity.

    Attributes:
        coverage: part of the true values within k·u, with the k that is published.
        factor_95: mean factor with which the budget promises 95 %; `coverage_95`: what it held.
        u_ratio: median over the points of the median of u over the root mean square of what the values there were off by;
            `u_ratio_largest`: at the worst point. None where nothing was off.
        holds, why: whether it is as sure as it says, and why more than 96.5 % are within k·u, where they are.
    """

    quantity: str
    runs: int
    coverage: float
    factor_95: float
    coverage_95: float
    u_ratio: float | None
    u_ratio_largest: float | None
    holds: bool
    why: str = ""


@dataclass
class _Tally:
    """Errors of one quantity, point by point."""

    inside: list[NDArray[np.bool_]] = field(default_factory=list)
    inside_95: list[NDArray[np.bool_]] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def add(
        self,
        error: FloatArray,
        u: FloatArray,
        *,
        k: FloatArray | float,
        k_95: FloatArray | float,
    ) -> None:
        self.inside.append(np.abs(error) <= k * u)
        self.inside_95.append(np.abs(error) <= k_95 * u)
        self.factors.append(float(np.mean(k_95)))
        scatter = float(np.sqrt(np.mean(error * error)))
        if scatter > 0.0:
            self.ratios.append(float(np.median(u)) / scatter)

    def result(self, name: str, why: str) -> Result:
        inside, inside_95 = np.concatenate(self.inside), np.concatenate(self.inside_95)
        coverage, coverage_95 = float(inside.mean()), float(inside_95.mean())
        ratio = float(np.median(self.ratios)) if self.ratios else None
        is_between = COVERAGE[0] <= coverage_95 <= COVERAGE[1] or why == _ASSUMED
        holds = is_between and coverage >= COVERAGE[0] and (ratio or 0.0) <= U_RATIO_MAX
        return Result(
            quantity=name,
            runs=inside.size,
            coverage=round(coverage, 4),
            factor_95=round(float(np.mean(self.factors)), 3),
            coverage_95=round(coverage_95, 4),
            u_ratio=None if ratio is None else round(ratio, 3),
            u_ratio_largest=round(max(self.ratios), 3) if self.ratios else None,
            holds=holds or why == _A_STATE,
            why=why if coverage > COVERAGE[1] else "",
        )


def measure(*, runs: int = 10_000, seed: int = 1) -> dict[str, Any]:
    """Every published quantity, and calibrations from few points, `runs` times each.

    Returns:
        How many hold what they say, beside how many there are; the extremes; and a row for each.
    """
    results = [simulate(one, runs=runs, seed=seed) for one in published()]
    results += [simulate_fit(name, runs=runs, seed=seed) for name in FITS]
    held = sum(result.holds for result in results)
    return {
        "figure": held,
        "unit": "quantities as sure as they say",
        "limit": len(results),
        "ratio": round(held / len(results), 3),
        "lowest_coverage": min(result.coverage for result in results),
        "lowest_coverage_95": min(result.coverage_95 for result in results),
        "largest_u_ratio": max(
            result.u_ratio or 0.0 for result in results if result.why != _A_STATE
        ),
        "runs": runs,
        "seed": seed,
        "rows": [asdict(result) for result in results],
    }


def published() -> tuple[Quantity, ...]:
    """Every kind of channel of every node model, once; those that need a thermometer with each that they have, and without."""
    found: dict[Quantity, None] = {}
    for model_id in catalogue.node_model_ids():
        model = catalogue.load_node_model(model_id)
        for channel in model.channels:
            kind = (model.slot_of(channel.key).sensor_type, channel.property, channel.conversion)
            key = channel.needs.get("temperature")
            if key is None:
                found[Quantity(*kind)] = None
                continue
            other = model.channel(key)
            thermometer = (model.slot_of(key).sensor_type, other.property, other.conversion)
            found[Quantity(*kind, thermometer, needs_thermometer=True)] = None
            found[Quantity(*kind, needs_thermometer=True)] = None
    return tuple(sorted(found, key=lambda one: one.name))


def simulate(quantity: Quantity, *, runs: int, seed: int) -> Result:
    """Draw one quantity around ten true values, `runs` in all."""
    generator = np.random.default_rng([seed, *quantity.name.encode()])
    calibration = factory_calibration(quantity.sensor_type, quantity.observed_property)
    parts = PROBES[quantity.sensor_type, quantity.observed_property]
    tally = _Tally()
    low, high = _range(quantity)
    reach = _NEAR * (high - low)
    for true in np.linspace(low + reach, high - reach, _POINTS):
        # Not at one point: a digit's last place must not fall on it or beside it every time.
        near = generator.uniform(-reach, reach, max(runs // _POINTS, 2))
        values = np.rint(true + near) if _is_state(quantity) else true + near
        raw, inputs = _sent(quantity, values, parts, generator)
        observed = observe(
            quantity.conversion,
            raw,
            inputs,
            calibration,
            observed_property=quantity.observed_property,
        )
        table = budget(quantity.conversion, raw, inputs, calibration)
        middle = int(np.argsort(table.u)[table.u.size // 2])
        tally.add(
            observed.value - values,
            observed.u.astype(np.float64),
            k=calibration.k,
            k_95=table.factor_95(middle, probe_limits_u=_limits_u(parts, float(true))),
        )
    return tally.result(quantity.name, _reason(quantity))


def _is_state(quantity: Quantity) -> bool:
    return quantity.observed_property == "contact_closed"


def _reason(quantity: Quantity) -> str:
    """Why more than 96.5 % may be within 2 u."""
    if _is_state(quantity):
        return _A_STATE
    if quantity.needs_thermometer and quantity.thermometer is None:
        return _ASSUMED
    return _RECTANGULAR


def _limits_u(parts: tuple[Part, ...], value: float) -> float:
    limits = (max(part.absolute, part.relative * abs(value)) for part in parts if part.is_limit)
    return max(limits, default=0.0) / math.sqrt(3.0)


def factory_calibration(sensor_type: str, observed_property: str) -> CalibrationParameters:
    """As a probe gets it that nobody has calibrated."""
    for one in catalogue.load_sensor_type(sensor_type).quantities:
        if one.property == observed_property:
            return CalibrationParameters(
                slope=one.factory.slope,
                offset=one.factory.offset,
                u_abs=one.accuracy.absolute,
                u_rel=one.accuracy.relative,
            )
    raise LookupError(f"{sensor_type} has no {observed_property}.")


def _range(quantity: Quantity) -> tuple[float, float]:
    low, high = RANGES[quantity.observed_property]
    if quantity.conversion == "ultrasonic_level":
        return -3.5, -0.4
    return low, high


# --------------------------------------------------------------------------------------------------- what a probe would send


def _sent(
    quantity: Quantity,
    values: FloatArray,
    parts: tuple[Part, ...],
    generator: np.random.Generator,
) -> tuple[FloatArray, Mapping[str, Observed]]:
    """Raw readings of probes at true values, and what was observed beside them."""
    shown = values.copy()
    for part in parts:
        shown = shown + part.draw(values, generator)
    surroundings = _surroundings(quantity, values.size, generator)
    raw = _BACKWARDS[quantity.conversion](shown, surroundings, generator)
    step = _raw_resolution(quantity)
    return np.rint(raw / step) * step, surroundings.inputs


@dataclass(frozen=True)
class _Surroundings:
    """The true temperature, what the probe was told of it, and what the server was."""

    true_c: FloatArray
    told_c: FloatArray | None
    inputs: Mapping[str, Observed]


def _surroundings(quantity: Quantity, count: int, generator: np.random.Generator) -> _Surroundings:
    if not quantity.needs_thermometer:
        return _Surroundings(np.full(count, 20.0), None, {})
    if quantity.thermometer is None:
        assumed = _ASSUMED_C.get(quantity.conversion, WATER_TEMPERATURE_ASSUMED_C)
        return _Surroundings(np.round(generator.uniform(*assumed, count) * 2.0) / 2.0, None, {})
    span = _MEASURED_C.get(quantity.conversion, _WATER_C)
    true_c = np.full(count, round(generator.uniform(*span), 1))
    sensor_type, observed_property, conversion = quantity.thermometer
    thermometer = Quantity(sensor_type, observed_property, conversion)
    raw, _ = _sent(thermometer, true_c, PROBES[sensor_type, observed_property], generator)
    observed = observe(
        conversion,
        raw,
        {},
        factory_calibration(sensor_type, observed_property),
        observed_property=observed_property,
    )
    return _Surroundings(true_c, observed.value, {"temperature": observed})


def _raw_resolution(quantity: Quantity) -> float:
    for one in catalogue.load_sensor_type(quantity.sensor_type).quantities:
        if one.property == quantity.observed_property:
            return one.raw_resolution
    raise LookupError(quantity.name)


_Backwards = Callable[[FloatArray, _Surroundings, np.random.Generator], FloatArray]


def _told(around: _Surroundings, default_c: float) -> FloatArray:
    told = np.full_like(around.true_c, default_c) if around.told_c is None else around.told_c
    return np.clip(told, 0.0, 40.0)


def _state(shown: FloatArray, _: _Surroundings, generator: np.random.Generator) -> FloatArray:
    is_wrong = generator.random(shown.size) < 1e-4
    return np.where(is_wrong, 1.0 - np.rint(shown), np.rint(shown))


def _identity(shown: FloatArray, _: _Surroundings, __: np.random.Generator) -> FloatArray:
    return shown


def _times(factor: float, plus: float = 0.0) -> _Backwards:
    return lambda shown, _, __: shown * factor + plus


def _loop(shown: FloatArray, _: _Surroundings, generator: np.random.Generator) -> FloatArray:
    """µA of a probe of 2 m, through a shunt of 0.1 % and a converter of 0.15 %."""
    current = 4_000.0 + 16_000.0 * shown / 2.0
    shunt, converter = generator.uniform(-1.0, 1.0, (2, shown.size))
    read: FloatArray = current * (1.0 + 0.001 * shunt) * (1.0 + 0.0015 * converter)
    return read


def _resistance(
    shown: FloatArray, around: _Surroundings, generator: np.random.Generator
) -> FloatArray:
    """Ω of a Watermark whose curve may be any of those published, as a node with a resistor of 1 % tells it."""
    ohm = np.geomspace(600.0, 34_000.0, 4_000)
    result = np.empty_like(shown)
    form = generator.uniform(-math.sqrt(3.0), math.sqrt(3.0), shown.size)
    for degrees in np.unique(around.true_c):
        rows = around.true_c == degrees
        curve = derived.watermark_tension_with_slopes(ohm, np.full_like(ohm, degrees))
        rising = np.maximum.accumulate(curve.tension_kpa)
        u_form = np.interp(shown[rows], rising, curve.u_form)
        result[rows] = np.interp(shown[rows] + form[rows] * u_form, rising, ohm)
    return result * (1.0 + 0.01 * generator.uniform(-1.0, 1.0, shown.size))


def _counts(shown: FloatArray, _: _Surroundings, __: np.random.Generator) -> FloatArray:
    counts = np.linspace(*derived.TEROS_SOIL_COUNTS, 20_000)
    return np.interp(shown, derived.teros_water_content(counts), counts) * 10.0


def _ratio(shown: FloatArray, around: _Surroundings, generator: np.random.Generator) -> FloatArray:
    pressure_hpa = generator.uniform(*AIR_PRESSURE_ASSUMED_HPA, shown.size)
    return shown / derived.oxygen_saturation(around.true_c, 0.0, pressure_hpa)


def _told_oxygen(shown: FloatArray, around: _Surroundings, _: np.random.Generator) -> FloatArray:
    told = derived.oxygen_saturation(_told(around, 20.0))
    return 100.0 * shown * told / derived.oxygen_saturation(around.true_c)


def _told_ph(shown: FloatArray, around: _Surroundings, _: np.random.Generator) -> FloatArray:
    warmer = (around.true_c + ZERO_CELSIUS_K) / (_told(around, 25.0) + ZERO_CELSIUS_K)
    return 1_000.0 * (7.0 + (shown - 7.0) * warmer)


def _conductivity(
    shown: FloatArray, around: _Surroundings, generator: np.random.Generator
) -> FloatArray:
    alpha = 0.0191 + generator.uniform(-0.0012, 0.0012, shown.size)
    return 100.0 * shown * (1.0 + alpha * (around.true_c - 25.0))


def _echo(shown: FloatArray, around: _Surroundings, generator: np.random.Generator) -> FloatArray:
    """mm of a module that reckons with 340 to 348 m/s in air of any humidity."""
    humid = 1.0 + generator.uniform(-0.007, 0.007, shown.size)
    speed = derived.speed_of_sound(around.true_c) * humid
    return -1_000.0 * shown * generator.uniform(340.0, 348.0, shown.size) / speed


_BACKWARDS: Final[dict[str, _Backwards]] = {
    "identity": _identity,
    "wiped": _identity,
    "sixteenths": _times(16.0),
    "hundredths": _times(100.0),
    "hundredths_from_minus_100": _times(100.0, 10_000.0),
    "ten_thousandths": _times(10_000.0),
    "tenths": _times(10.0),
    "percent_of_ratio": _times(0.01),
    "capacitive_index": _times(
        derived.CAPACITIVE_WATER_MV - derived.CAPACITIVE_AIR_MV, derived.CAPACITIVE_AIR_MV
    ),
    "current_loop": _loop,
    "watermark_tension": _resistance,
    "teros_water_content": _counts,
    "oxygen_of_saturation": _ratio,
    "ezo_oxygen": _told_oxygen,
    "ezo_ph": _told_ph,
    "conductivity_25": _conductivity,
    "ultrasonic_level": _echo,
}
"""From what a probe shows, in the published unit, to what it sends."""


# -------------------------------------------------------------------------------------------- calibrations from few points


@dataclass(frozen=True)
class FitCase:
    """A calibration: its standards with their u, what they share, the noise of a reading, and the values that it is used for.

    `scatter`: for points whose uncertainty nobody knows, what each of them, and the next, is off by. `drift_per_year`: standard
    deviation of what a year makes of it, and `days` since.
    """

    model: str
    standards: tuple[float, ...]
    u: tuple[float, ...]
    u_common: float
    u_x: float
    use: tuple[float, float]
    scatter: float = 0.0
    curve: float = 0.0
    drift_per_year: float = 0.0
    days: float = 0.0


FITS: Final[dict[str, FitCase]] = {
    "ice point, one point": FitCase("offset", (0.0,), (0.02,), 0.01, 0.03, (0.0, 25.0)),
    "air and water, two points": FitCase("linear", (0.0, 1.0), (0.01,) * 2, 0.0, 0.004, (0.1, 0.9)),
    "oxygen, two points": FitCase("linear", (0.0, 100.0), (0.3, 1.0), 0.0, 0.2, (20.0, 120.0)),
    "pH, three buffers of one lot": FitCase(
        "linear", (4.0, 6.9, 9.2), (0.01,) * 3, 0.01, 0.01, (5.5, 9.5)
    ),
    "pH, two buffers, sixty days later": FitCase(
        "linear", (4.0, 9.2), (0.01,) * 2, 0.01, 0.01, (5.5, 9.5), drift_per_year=0.3, days=60.0
    ),
    "staff gauge, four levels": FitCase(
        "linear", (0.2, 0.5, 0.9, 1.4), (0.005,) * 4, 0.003, 0.003, (0.1, 1.6)
    ),
    "turbidity, five dilutions of one stock": FitCase(
        "quadratic",
        (0.0, 20.0, 100.0, 400.0, 800.0),
        (0.3, 0.5, 2.0, 8.0, 16.0),
        0.2,
        0.2,
        (5.0, 700.0),
        curve=2e-4,
    ),
    "weighed soil, four samples": FitCase(
        "linear", (0.08, 0.17, 0.26, 0.36), (), 0.0, 0.0, (0.1, 0.35), scatter=0.03
    ),
    "weighed soil, seven samples": FitCase(
        "linear", (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.38), (), 0.0, 0.0, (0.1, 0.35), scatter=0.03
    ),
}
"""Calibrations by name."""


def simulate_fit(name: str, *, runs: int, seed: int) -> Result:
    """Draw calibrations, and a value measured with each, around ten true values, `runs` in all."""
    case = FITS[name]
    generator = np.random.default_rng([seed, *name.encode()])
    tally = _Tally()
    for true in np.linspace(*case.use, _POINTS):
        drawn = np.array(list(_drawn_fits(case, float(true), generator, max(runs // _POINTS, 2))))
        error, u, k = drawn[:, 0], drawn[:, 1], drawn[:, 2]
        tally.add(error, u, k=k, k_95=k)
    return tally.result(f"fit: {name}", "")


def _drawn_fits(
    case: FitCase, value: float, generator: np.random.Generator, runs: int
) -> Iterator[tuple[float, float, float]]:
    """What a true value was off by, its u and its k, of each calibration."""
    standards = np.array(case.standards)
    u = np.array(case.u) if case.u else None
    for _ in range(runs):
        true = standards + generator.standard_normal() * case.u_common
        if u is None:
            true = true + generator.normal(0.0, case.scatter, true.size)
        else:
            true = true + generator.normal(0.0, u)
        # The probe shows x where value = x + curve·x² is the truth.
        x = _shown(true, case.curve) + generator.normal(0.0, case.u_x, true.size)
        fit = fits.MODELS[case.model](
            x, standards, u, u_x=case.u_x if u is not None else 0.0, u_common=case.u_common
        )
        drift = case.drift_per_year * case.days * _SECONDS_PER_DAY / SECONDS_PER_YEAR
        off = generator.standard_normal() * math.hypot(case.scatter, drift)
        reading = _shown(np.array([value + off]), case.curve)
        reading = reading + generator.standard_normal() * case.u_x
        parameters = replace(fit.parameters, u_drift_abs=case.drift_per_year)
        found, found_u = calibrate(
            reading,
            np.array([case.u_x]),
            as_columns(parameters),
            np.array([case.days * _SECONDS_PER_DAY]),
        )
        yield float(found[0]) - value, float(found_u[0]), parameters.k


def _shown(value: FloatArray, curve: float) -> FloatArray:
    if curve == 0.0:
        return value
    shown: FloatArray = (np.sqrt(1.0 + 4.0 * curve * value) - 1.0) / (2.0 * curve)
    return shown

"""The way from raw readings to observations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.measurement import quality
from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.measurement.derived import (
    teros_water_content,
    ultrasonic_distance,
    watermark_tension,
)
from fleet_server.measurement.fits import capacitive_calibration
from fleet_server.measurement.pipeline import CONVERSIONS, Observed, observe
from fleet_server.measurement.quality import (
    GROSS_RANGES,
    Flag,
    QualityTest,
    Result,
    flag_of_reason,
    result_of,
)
from fleet_server.measurement.units import UNITS
from fleet_server.wire.states import QualityFlag, Reason
from hardware.catalogue import load_node_model, node_model_ids
from hardware.virtual_board.probes.a02yyuw import WIRE, A02yyuw
from hardware.virtual_board.probes.teros import counts
from hardware.virtual_board.probes.watermark import resistance_ohm

WATERMARK = CalibrationParameters(u_abs=1.5, u_rel=0.07)
DS18B20 = CalibrationParameters(u_abs=0.29, u_rel=0.0)
NOTHING = CalibrationParameters()


def temperature(*values_c: float | None, reason: str | None = None) -> Observed:
    raw = [None if value is None else value * 16 for value in values_c]
    return observe(
        "sixteenths",
        raw,
        {},
        DS18B20,
        observed_property="soil_temperature",
        reasons=[reason] * len(raw),
    )


def known(*values: float) -> Observed:
    """Good inputs, in their own unit."""
    return observe("identity", values, {}, NOTHING, observed_property="none of ours")


def tension(
    raw: list[float | None],
    soil: Observed | None,
    calibration: CalibrationParameters = NOTHING,
    reasons: list[str | None] | None = None,
) -> Observed:
    return observe(
        "watermark_tension",
        raw,
        {} if soil is None else {"temperature": soil},
        calibration,
        observed_property="soil_water_tension",
        reasons=reasons,
    )


def only(observed: Observed) -> tuple[float, float, int]:
    return float(observed.value[0]), float(observed.u[0]), int(observed.flag[0])


def test_temperature_is_sixteenths_with_the_probes_accuracy() -> None:
    value, u, flag = only(temperature(19.875))
    assert value == 19.875
    assert u == pytest.approx(math.hypot(0.29, 0.0625 / math.sqrt(12)), rel=1e-6)
    assert flag == Flag.GOOD


def test_value_in_the_published_unit_is_kept_to_the_last_bit() -> None:
    raw = float(np.float32(8.99))
    observed = observe(
        "identity",
        [raw],
        {},
        CalibrationParameters(u_abs=0.06, u_rel=0.0173),
        observed_property="dissolved_oxygen",
    )
    value, u, flag = only(observed)
    assert (value, flag) == (raw, Flag.GOOD)
    assert u == pytest.approx(math.hypot(0.06, 0.0173 * raw), rel=1e-6)


def test_tension_uses_the_temperature_beside_it() -> None:
    value, _, flag = only(tension([2_000], temperature(15.0)))
    assert value == float(watermark_tension(2_000, 15.0))
    assert flag == Flag.GOOD


def test_uncertainty_of_tension_equals_monte_carlo() -> None:
    generator = np.random.default_rng(3)
    n = 200_000
    for ohm, degrees in ((2_000.0, 15.0), (20_000.0, 22.0), (5_000.0, 8.0)):
        soil = temperature(degrees)
        value, u, _ = only(tension([ohm], soil, WATERMARK))
        resistor = 1.0 + generator.uniform(-0.01, 0.01, n)
        drawn_ohm = ohm * resistor + generator.uniform(-0.5, 0.5, n)
        drawn_c = generator.normal(degrees, float(soil.u[0]), n)
        drawn = watermark_tension(drawn_ohm, drawn_c)
        drawn += generator.normal(0, 1.5, n) + generator.normal(0, 0.07 * value, n)
        assert drawn.std() == pytest.approx(u, rel=0.02)


@pytest.mark.parametrize("soil_c", [6.0, 12.0, 18.0, 24.0])
def test_stated_uncertainty_covers_a_probe_that_follows_another_curve(soil_c: float) -> None:
    # The virtual probe goes from tension to resistance by the maker's table and ISO 7888, not by our equations.
    generator = np.random.default_rng(17)
    truth = np.repeat([0.0, 3.0, 7.0, 12.0, 20.0, 35.0, 60.0, 90.0], 250)
    built = (1 + generator.uniform(-0.05, 0.05, truth.size)) * (
        1 + generator.uniform(-0.007, 0.007, truth.size)
    )
    raw = np.round([resistance_ohm(kpa, soil_c) for kpa in truth] * built)
    soil = temperature(*(soil_c + generator.uniform(-0.5, 0.5, truth.size)).tolist())
    calibration = CalibrationParameters(u_abs=1.5, u_rel=0.07)
    observed = tension(raw.tolist(), soil, calibration)
    inside = np.abs(observed.value - truth) <= 2 * observed.u
    assert inside.mean() >= 0.93


def test_tension_without_a_thermometer_is_suspect_and_says_how_unsure_it_is() -> None:
    with_it = tension([5_000], temperature(15.0))
    silent = tension([5_000], temperature(None, reason="absent"))
    left_out = tension([5_000], None)
    assert only(silent) == only(left_out)
    assert silent.flag[0] == Flag.SUSPECT
    assert result_of(int(silent.tests[0]), QualityTest.INPUT) == Result.SUSPECT
    assert result_of(int(silent.tests[0]), QualityTest.FROST) == Result.NOT_EVALUATED
    # Whatever the soil's temperature really was, the truth lies within k = 2.
    value, u, _ = only(silent)
    for degrees in (0.0, 5.0, 20.0, 25.0):
        assert abs(float(watermark_tension(5_000, degrees)) - value) < 2 * u
    assert u > 5 * float(with_it.u[0])


def test_tension_of_frozen_soil_is_bad_and_has_no_value() -> None:
    observed = tension([2_000, 2_000], temperature(-0.5, -20.0))
    assert np.isnan(observed.value).all()
    assert np.isnan(observed.u).all()
    assert observed.flag.tolist() == [Flag.BAD, Flag.BAD]
    assert result_of(int(observed.tests[0]), QualityTest.FROST) == Result.BAD


@pytest.mark.parametrize(("degrees", "flag"), [(-40.0, 4), (61.0, 4), (41.0, 3), (20.0, 1)])
def test_flag_of_the_thermometer_goes_on_to_the_tension(degrees: float, flag: int) -> None:
    observed = tension([2_000], temperature(degrees))
    assert observed.flag[0] == flag


def test_tension_beyond_the_curves_temperatures_has_no_value() -> None:
    value, _, flag = only(tension([2_000], temperature(55.0)))
    assert math.isnan(value)
    assert flag == Flag.BAD


@pytest.mark.parametrize("raw", [299.0, 0.0, -1.0, 35_000.0, 1e30, math.inf])
def test_impossible_resistance_is_bad_and_has_no_value(raw: float) -> None:
    value, u, flag = only(tension([raw], temperature(15.0), WATERMARK))
    assert math.isnan(value)
    assert math.isnan(u)
    assert flag == Flag.BAD


@pytest.mark.parametrize(
    ("raw", "flag"), [(27_000, Flag.GOOD), (28_500, Flag.SUSPECT), (34_000, Flag.BAD)]
)
def test_value_outside_its_range_is_kept_and_flagged(raw: float, flag: Flag) -> None:
    observed = tension([raw], temperature(24.0))
    assert np.isfinite(observed.value[0])
    assert observed.flag[0] == flag


# --- reference resistor


def reference(*ohm: float | None, reason: str | None = None) -> Observed:
    return observe(
        "identity",
        ohm,
        {},
        CalibrationParameters(u_abs=1.0, u_rel=0.0058),
        observed_property="reference_resistance",
        reasons=[reason] * len(ohm),
    )


@pytest.mark.parametrize(
    ("ohm", "reason", "flag"),
    [
        (10_010, None, Flag.GOOD),
        (9_500, None, Flag.SUSPECT),
        (10_400, None, Flag.SUSPECT),
        (8_900, None, Flag.BAD),
        (12_000, None, Flag.BAD),
        (None, "short", Flag.BAD),
        (None, "spread", Flag.BAD),
        (None, None, Flag.GOOD),
    ],
)
def test_tension_is_no_better_than_its_circuit(
    ohm: float | None, reason: str | None, flag: Flag
) -> None:
    observed = observe(
        "watermark_tension",
        [2_000],
        {"temperature": temperature(15.0), "reference": reference(ohm, reason=reason)},
        WATERMARK,
        observed_property="soil_water_tension",
    )
    assert observed.flag[0] == flag
    assert only(observed)[:2] == only(tension([2_000], temperature(15.0), WATERMARK))[:2]


def test_tension_of_a_node_without_a_reference_keeps_its_bits() -> None:
    without = tension([2_000], temperature(15.0), WATERMARK)
    well = observe(
        "watermark_tension",
        [2_000],
        {"temperature": temperature(15.0), "reference": reference(10_010)},
        WATERMARK,
        observed_property="soil_water_tension",
    )
    for one, other in zip(vars(without).values(), vars(well).values(), strict=True):
        assert one.tobytes() == other.tobytes()


# --- water content, index, level

TEROS = CalibrationParameters(u_abs=0.07)


def water_content(*tenths: float | None, calibration: CalibrationParameters = TEROS) -> Observed:
    return observe(
        "teros_water_content", tenths, {}, calibration, observed_property="soil_water_content"
    )


def test_water_content_comes_from_tenths_of_counts() -> None:
    value, u, flag = only(water_content(25_000))
    assert value == float(teros_water_content(2_500.0))
    assert u == pytest.approx(math.hypot(0.07, 0.1 / math.sqrt(12) * 0.000356), rel=1e-6)
    assert flag == Flag.GOOD


@pytest.mark.parametrize("tenths", [0, 15_000, 18_600, 34_000, 65_535, -99_990])
def test_counts_outside_soil_and_water_are_bad_and_no_value(tenths: float) -> None:
    value, u, flag = only(water_content(tenths))
    assert math.isnan(value)
    assert math.isnan(u)
    assert flag == Flag.BAD


@pytest.mark.parametrize("true_content", [0.08, 0.15, 0.25, 0.35, 0.45])
def test_stated_uncertainty_covers_a_sensor_in_soil_by_the_makers_line(true_content: float) -> None:
    generator = np.random.default_rng(11)
    # The virtual sensor takes the maker's own line the other way, not Topp.
    built = true_content + generator.uniform(-0.015, 0.015, 400)
    observed = water_content(*[round(10 * counts(one)) for one in built])
    assert (np.abs(observed.value - true_content) <= 2 * observed.u).all()


def index(*mv: float | None, calibration: CalibrationParameters = NOTHING) -> Observed:
    return observe("capacitive_index", mv, {}, calibration, observed_property="soil_moisture_index")


def test_index_of_a_probe_with_its_own_two_points() -> None:
    line = capacitive_calibration(2_640, 1_390, u_mv=5, u_index=0.02)
    observed = index(2_640, 2_015, 1_390, calibration=line)
    np.testing.assert_allclose(observed.value, [0.0, 0.5, 1.0], atol=1e-12)
    assert (observed.u < 0.025).all()


@pytest.mark.parametrize(
    ("mv", "flag"),
    [(1_905, Flag.GOOD), (2_600, Flag.SUSPECT), (1_200, Flag.SUSPECT), (2_900, Flag.BAD)],
)
def test_index_outside_0_to_1_is_kept_and_flagged(mv: float, flag: Flag) -> None:
    observed = index(mv)
    assert np.isfinite(observed.value[0])
    assert observed.flag[0] == flag


@pytest.mark.parametrize("mv", [0, 499, 2_951, 3_100])
def test_voltage_at_a_rail_is_bad_and_no_index(mv: float) -> None:
    value, _, flag = only(index(mv))
    assert math.isnan(value)
    assert flag == Flag.BAD


A02 = CalibrationParameters(u_abs=0.006)
AT_GAUGE = CalibrationParameters(offset=2.5, u_offset=0.003, u_abs=0.006)


def air(*values_c: float | None) -> Observed:
    raw = [None if value is None else value * 16 for value in values_c]
    return observe(
        "sixteenths",
        raw,
        {},
        CalibrationParameters(u_abs=0.58),
        observed_property="air_temperature",
    )


def level(
    mm: float | None,
    air_c: Observed | None,
    calibration: CalibrationParameters = AT_GAUGE,
) -> Observed:
    return observe(
        "ultrasonic_level",
        [mm],
        {} if air_c is None else {"temperature": air_c},
        calibration,
        observed_property="water_level",
    )


def test_level_is_what_is_left_of_the_height_over_the_gauges_zero() -> None:
    value, u, flag = only(level(1_500, air(20.0)))
    assert value == pytest.approx(2.5 - float(ultrasonic_distance(1_500, 20.0)), abs=1e-12)
    assert 0.012 < u < 0.015
    assert flag == Flag.GOOD


def test_level_that_nobody_compared_with_a_gauge_is_bad_and_kept() -> None:
    value, _, flag = only(level(1_500, air(20.0), A02))
    assert value == pytest.approx(-1.4965, abs=0.001)
    assert flag == Flag.BAD


@pytest.mark.parametrize(("mm", "air_c"), [(1_500.0, 5.0), (3_200.0, 30.0), (400.0, -8.0)])
def test_uncertainty_of_level_equals_monte_carlo(mm: float, air_c: float) -> None:
    generator = np.random.default_rng(5)
    n = 200_000
    _, u, _ = only(level(mm, air(air_c)))
    shown = mm + generator.uniform(-0.5, 0.5, n)
    temperatures = generator.normal(air_c, float(air(air_c).u[0]), n)
    drawn = ultrasonic_distance(shown, temperatures)
    drawn *= 1 + generator.uniform(-4 / 344, 4 / 344, n) + generator.uniform(-0.007, 0.007, n)
    drawn += generator.normal(0, 0.003, n) + generator.normal(0, 0.006, n)
    assert drawn.std() == pytest.approx(u, rel=0.02)


@pytest.mark.parametrize("air_c", [-8.0, 5.0, 20.0, 33.0])
def test_stated_uncertainty_of_level_covers_modules_in_humid_air(air_c: float) -> None:
    # The virtual module reckons with 340 to 348 m/s in humid air after Cramer 1993; we with dry air and 344 m/s.
    within = []
    for number in range(200):
        true_m = -(0.4 + 0.015 * number)
        module = A02yyuw(lambda _, m=true_m: m, lambda _: air_c, serial=str(number))  # type: ignore[misc]
        said = b"".join(data for _, data in module.heard(WIRE, 10**12, 10**12 + 10**6))
        start = said.index(0xFF)
        shown_mm = int.from_bytes(said[start + 1 : start + 3], "big")
        value, u, _ = only(level(shown_mm, air(air_c), A02))
        within.append(abs(value - true_m) <= 2 * u)
    assert sum(within) / len(within) >= 0.95


def test_level_without_a_thermometer_is_suspect_and_says_how_unsure_it_is() -> None:
    with_it, silent, left_out = (level(2_000, one) for one in (air(5.0), air(None), None))
    assert only(silent) == only(left_out)
    assert silent.flag[0] == Flag.SUSPECT
    value, u, _ = only(silent)
    for degrees in (-10.0, 0.0, 20.0, 35.0):
        assert abs(2.5 - float(ultrasonic_distance(2_000, degrees)) - value) < 2 * u
    assert u > 2.5 * float(with_it.u[0])


@pytest.mark.parametrize(("mm", "air_c"), [(0, 20.0), (29, 20.0), (4_501, 20.0), (65_533, 20.0)])
def test_distance_that_is_none_is_bad_and_no_level(mm: float, air_c: float) -> None:
    value, _, flag = only(level(mm, air(air_c)))
    assert math.isnan(value)
    assert flag == Flag.BAD


def test_bad_thermometer_makes_the_level_bad() -> None:
    assert level(1_500, air(70.0)).flag[0] == Flag.BAD


BAD_REASONS = {Reason.RANGE, Reason.SHORT, Reason.OPEN, Reason.SPREAD}


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_missing_value_has_the_flag_of_its_reason_and_nothing_else(
    reason: Reason, conversion: str
) -> None:
    observed = observe(
        conversion, [None], {}, WATERMARK, observed_property="soil_temperature", reasons=[reason]
    )
    assert np.isnan(observed.value[0])
    assert np.isnan(observed.u[0])
    assert observed.flag[0] == (Flag.BAD if reason in BAD_REASONS else Flag.MISSING)
    assert observed.tests[0] == 0


def test_reason_that_only_a_newer_node_knows_is_missing() -> None:
    assert flag_of_reason("frozen") == Flag.MISSING


def test_property_without_limits_is_not_evaluated() -> None:
    observed = observe("identity", [1.0], {}, NOTHING, observed_property="lunar_phase")
    assert observed.flag[0] == Flag.NOT_EVALUATED


RAWS = st.lists(
    st.tuples(
        st.none() | st.floats(0, 40_000) | st.integers(250, 36_000),
        st.none() | st.integers(-500, 1_200),
        st.sampled_from([WATERMARK, NOTHING, CalibrationParameters(1.1, -2, 0.01, 0.5, -0.004)]),
        st.sampled_from([None, "open", "absent"]),
    ),
    min_size=1,
    max_size=20,
)


def observe_rows(
    rows: list[tuple[float | None, int | None, CalibrationParameters, str | None]],
) -> list[tuple[bytes, ...]]:
    """Every row's observation as bytes."""
    soil = observe(
        "sixteenths", [row[1] for row in rows], {}, DS18B20, observed_property="soil_temperature"
    )
    observed = observe(
        "watermark_tension",
        [row[0] for row in rows],
        {"temperature": soil},
        [row[2] for row in rows],
        observed_property="soil_water_tension",
        reasons=[row[3] for row in rows],
    )
    columns = (observed.value, observed.u, observed.flag, observed.tests)
    return [tuple(column[row].tobytes() for column in columns) for row in range(len(rows))]


@given(RAWS, st.randoms(use_true_random=False))
def test_row_is_the_same_bit_by_bit_alone_together_and_in_any_order(rows, random) -> None:  # type: ignore[no-untyped-def]
    together = observe_rows(rows)
    assert [observe_rows([row])[0] for row in rows] == together
    order = list(range(len(rows)))
    random.shuffle(order)
    assert observe_rows([rows[n] for n in order]) == [together[n] for n in order]


@given(RAWS)
def test_observation_without_a_value_is_never_good(rows) -> None:  # type: ignore[no-untyped-def]
    soil = observe(
        "sixteenths", [row[1] for row in rows], {}, DS18B20, observed_property="soil_temperature"
    )
    observed = tension([row[0] for row in rows], soil, WATERMARK)
    nothing = np.isnan(observed.value)
    np.testing.assert_array_equal(nothing, np.isnan(observed.u))
    assert set(observed.flag[nothing].tolist()) <= {Flag.BAD, Flag.MISSING}
    assert (observed.u[~nothing] > 0).all()


def test_many_rows_equal_one_after_the_other_where_vectors_have_tails() -> None:
    generator = np.random.default_rng(5)
    raws = generator.uniform(300, 34_999, 1_003)
    degrees = generator.uniform(0, 30, 1_003)
    together = tension(raws.tolist(), temperature(*degrees.tolist()), WATERMARK)
    for row in (0, 1, 7, 500, 1_000, 1_001, 1_002):
        alone = tension([raws[row]], temperature(degrees[row]), WATERMARK)
        assert only(alone) == (together.value[row], together.u[row], together.flag[row])


def test_unknown_conversion_and_odd_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="no conversion"):
        observe("alchemy", [1.0], {}, NOTHING, observed_property="ph")
    with pytest.raises(ValueError, match="differ in length"):
        observe("identity", [1.0], {}, [NOTHING, NOTHING], observed_property="ph")
    with pytest.raises(ValueError, match="differ in length"):
        observe("identity", [1.0], {}, NOTHING, observed_property="ph", reasons=[])
    with pytest.raises(ValueError, match="differ in length"):
        tension([2_000, 3_000], temperature(15.0))


@pytest.mark.parametrize("model_id", node_model_ids())
def test_every_channel_of_every_node_model_can_be_observed(model_id: str) -> None:
    for channel in load_node_model(model_id).channels:
        assert set(channel.needs) <= set(CONVERSIONS[channel.conversion].needs)
        assert GROSS_RANGES[channel.property].unit == channel.unit
        assert channel.unit in UNITS


# Raw values of a working probe, and of its inputs, for every conversion that is a curve.
CURVES = {
    "watermark_tension": ((600, 30_000), {"temperature": (0, 40), "reference": (9_800, 10_200)}),
    "conductivity_25": ((10, 2_000), {"temperature": (0, 30)}),
    "oxygen_of_saturation": ((5, 150), {"temperature": (0, 30)}),
    "ezo_oxygen": ((100, 2_000), {"temperature": (0, 30)}),
    "ezo_ph": ((4_000, 10_000), {"temperature": (0, 30)}),
    "teros_water_content": ((18_000, 32_000), {}),
    "ultrasonic_level": ((300, 4_000), {"temperature": (-10, 35)}),
    "capacitive_index": ((1_000, 2_500), {}),
}


@pytest.mark.parametrize("conversion", CURVES)
def test_between_the_corners_of_raw_values_and_inputs_lies_every_value(conversion: str) -> None:
    """What a day's range is made of: both ends of everything, and the conversion's knots between them."""
    raw_span, input_spans = CURVES[conversion]
    assert tuple(input_spans) == CONVERSIONS[conversion].needs
    random = np.random.default_rng(1)
    for _ in range(20):
        lowest, highest = np.sort(random.uniform(*raw_span, 2))
        inner = [knot for knot in CONVERSIONS[conversion].knots if lowest < knot < highest]
        spans = [np.sort(random.uniform(*span, 2)) for span in input_spans.values()]
        corners = list(itertools.product([lowest, *inner, highest], *spans))
        inside = [random.uniform(*span, 40) for span in ((lowest, highest), *spans)]
        rows = np.vstack([corners, np.transpose(inside)])
        inputs = {name: known(*rows[:, at]) for at, name in enumerate(input_spans, start=1)}
        value = observe(
            conversion, rows[:, 0], inputs, NOTHING, observed_property="none of ours"
        ).value
        at_corners, between = value[: len(corners)], value[len(corners) :]
        slack = 0.03 if CONVERSIONS[conversion].knots else 1e-9
        assert at_corners.min() - slack <= between.min()
        assert between.max() <= at_corners.max() + slack


def test_flags_are_those_of_the_wire() -> None:
    assert {flag.name: flag.value for flag in Flag} == {
        flag.name: flag.value for flag in QualityFlag
    }


@pytest.mark.parametrize(
    ("results", "flag"),
    [
        ((0, 0), Flag.NOT_EVALUATED),
        ((0, 1), Flag.GOOD),
        ((1, 2), Flag.SUSPECT),
        ((3, 2), Flag.BAD),
        ((1, 3), Flag.BAD),
    ],
)
def test_worst_result_makes_the_flag(results: tuple[int, int], flag: Flag) -> None:
    columns = [np.array([result], dtype=np.int32) for result in results]
    assert quality.aggregate_flag(columns, 1).tolist() == [flag]


def test_every_test_keeps_its_own_two_bits() -> None:
    results = {test: np.array([int(test) % 4], dtype=np.int32) for test in QualityTest}
    packed = int(quality.pack_results(results, 1)[0])
    assert {test: result_of(packed, test) for test in QualityTest} == {
        test: Result(int(test) % 4) for test in QualityTest
    }

"""From raw readings of soil and water probes to observations: worked examples, what is missing, and how sure it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.measurement import exact
from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.measurement.derived import conductivity_25, oxygen_saturation
from fleet_server.measurement.pipeline import Observed, observe
from fleet_server.measurement.quality import Flag, QualityTest, Result, result_of
from hardware.virtual_board.probes.ezo import conductivity_ratio, nernst_ph
from hardware.virtual_board.scene_models import oxygen_at_saturation_mg_l

NOTHING = CalibrationParameters()
THERMOMETER = CalibrationParameters(u_abs=0.29)
PROPERTY = {
    "oxygen_of_saturation": "dissolved_oxygen",
    "ezo_oxygen": "dissolved_oxygen",
    "ezo_ph": "ph",
    "conductivity_25": "conductivity_25",
}


def water(*values_c: float | None, reason: str | None = None) -> Observed:
    return observe(
        "identity",
        list(values_c),
        {},
        THERMOMETER,
        observed_property="water_temperature",
        reasons=[reason] * len(values_c),
    )


def at(
    conversion: str,
    raw: list[float | None],
    temperature: Observed | None,
    calibration: CalibrationParameters = NOTHING,
) -> Observed:
    return observe(
        conversion,
        raw,
        {} if temperature is None else {"temperature": temperature},
        calibration,
        observed_property=PROPERTY[conversion],
    )


def only(observed: Observed) -> tuple[float, float, int]:
    return float(observed.value[0]), float(observed.u[0]), int(observed.flag[0])


@pytest.mark.parametrize(
    ("conversion", "raw", "observed_property", "value", "u"),
    [
        # Truebner's own bytes: 31FDh is 27.97 °C, 0D70h 34.4 %, 05F0h 15.2.
        ("hundredths_from_minus_100", 0x31FD, "soil_temperature", 27.97, 0.01),
        ("ten_thousandths", 0x0D70, "soil_water_content", 0.344, 0.0001),
        ("hundredths", 0x05F0, "soil_permittivity", 15.2, 0.01),
        ("percent_of_ratio", 0.925, "oxygen_saturation", 92.5, 0.0),
        ("current_loop", 4_000, "water_level", 0.0, 1 / 16_000),
        ("current_loop", 12_000, "water_level", 0.5, 1 / 16_000),
        ("current_loop", 20_000, "water_level", 1.0, 1 / 16_000),
    ],
)
def test_raw_numbers_become_what_the_makers_documents_say(
    conversion: str, raw: float, observed_property: str, value: float, u: float
) -> None:
    observed = observe(conversion, [raw], {}, NOTHING, observed_property=observed_property)
    assert only(observed) == (
        pytest.approx(value, abs=1e-12),
        pytest.approx(u / math.sqrt(12), rel=1e-6),
        Flag.GOOD,
    )


def test_level_is_the_share_of_the_loop_times_the_span_of_the_probe_above_its_gauge() -> None:
    probe = CalibrationParameters(slope=2.0, offset=51.3, u_abs=0.003)
    observed = observe("current_loop", [12_000], {}, probe, observed_property="water_level")
    assert only(observed)[0] == pytest.approx(52.3)


@pytest.mark.parametrize(
    ("microampere", "flag", "has_value"),
    [
        (3_599, Flag.BAD, False),
        (3_600, Flag.SUSPECT, True),
        (3_799, Flag.SUSPECT, True),
        (3_800, Flag.GOOD, True),
        (20_500, Flag.GOOD, True),
        (20_501, Flag.SUSPECT, True),
        (21_000, Flag.SUSPECT, True),
        (21_001, Flag.BAD, False),
    ],
)
def test_current_outside_of_namurs_measuring_range_is_suspect_and_a_fault_has_no_value(
    microampere: float, flag: Flag, has_value: bool
) -> None:
    observed = observe("current_loop", [microampere], {}, NOTHING, observed_property="water_level")
    assert observed.flag[0] == flag
    assert np.isfinite(observed.value[0]) == has_value


@pytest.mark.parametrize(
    ("conversion", "raw", "water_c", "value"),
    [
        # Benson and Krause at 995 hPa, times the ratio; `fleet convert` gives the same.
        ("oxygen_of_saturation", 1.0, 20.0, float(oxygen_saturation(20.0, 0.0, 995.0))),
        ("oxygen_of_saturation", 0.925, 17.625, 8.662762),
        ("ezo_oxygen", 824, 12.0, 8.24),
        ("ezo_ph", 9560, 12.0, 9.56),
        # 500 µS/cm at 5 °C: 809.06 with α = 0.0191 (USGS).
        ("conductivity_25", 50_000, 5.0, 809.0615),
        ("conductivity_25", 141_300, 25.0, 1413.0),
    ],
)
def test_reading_beside_a_thermometer_has_its_worked_value(
    conversion: str, raw: float, water_c: float, value: float
) -> None:
    found, _, flag = only(at(conversion, [raw], water(water_c)))
    assert found == pytest.approx(value, rel=1e-6)
    assert flag == Flag.GOOD


@pytest.mark.parametrize("conversion", PROPERTY)
def test_without_a_thermometer_the_reading_is_suspect_and_says_how_unsure_it_is(
    conversion: str,
) -> None:
    raw = {"oxygen_of_saturation": 0.9, "ezo_oxygen": 850, "ezo_ph": 8300}.get(conversion, 50_000)
    silent = at(conversion, [raw], water(None, reason="absent"))
    assert only(silent) == only(at(conversion, [raw], None))
    assert silent.flag[0] == Flag.SUSPECT
    assert result_of(int(silent.tests[0]), QualityTest.INPUT) == Result.SUSPECT
    value, u, _ = only(silent)
    assert u > 3 * float(at(conversion, [raw], water(15.0)).u[0])
    # The probe went by its own default; whatever the water really was, the truth lies within k = 2.
    for water_c in (0.0, 8.0, 20.0, 30.0):
        truth = {
            "oxygen_of_saturation": lambda t: 0.9 * oxygen_at_saturation_mg_l(t, 100),
            "ezo_oxygen": lambda t: (
                8.5 * oxygen_at_saturation_mg_l(t, 0) / oxygen_at_saturation_mg_l(20.0, 0)
            ),
            "ezo_ph": lambda t: nernst_ph(8.3, 25.0, t),
            "conductivity_25": lambda t: 500 / conductivity_ratio(t),
        }[conversion](water_c)
        assert abs(truth - value) < 2 * u


@pytest.mark.parametrize("conversion", PROPERTY)
@pytest.mark.parametrize(
    ("water_c", "flag"), [(-40.0, 4), (-2.1, 4), (41.0, 4), (35.0, 3), (-1.0, 3), (0.0, 1)]
)
def test_flag_of_the_thermometer_goes_on_to_the_reading(
    conversion: str, water_c: float, flag: int
) -> None:
    raw = {"oxygen_of_saturation": 0.9, "ezo_oxygen": 850, "ezo_ph": 8300}.get(conversion, 50_000)
    observed = at(conversion, [raw], water(water_c))
    assert observed.flag[0] == flag
    if flag != Flag.BAD:
        assert np.isfinite(observed.value[0])


def test_uncertainty_of_water_readings_equals_monte_carlo() -> None:
    generator = np.random.default_rng(11)
    n = 200_000
    water_c = 12.0
    drawn_c = generator.normal(water_c, 0.29, n)

    oxygen = 0.9 * oxygen_saturation(drawn_c, 0.0, generator.uniform(960, 1030, n))
    assert oxygen.std() == pytest.approx(
        only(at("oxygen_of_saturation", [0.9], water(water_c)))[1], rel=0.02
    )

    circuit = (8.5 + generator.uniform(-0.005, 0.005, n)) * oxygen_saturation(drawn_c)
    circuit /= oxygen_saturation(water_c)
    assert circuit.std() == pytest.approx(
        only(at("ezo_oxygen", [850], water(water_c)))[1], rel=0.02
    )

    acidity = 7 + (9.0 + generator.uniform(-0.0005, 0.0005, n) - 7) * 285.15 / (drawn_c + 273.15)
    assert acidity.std() == pytest.approx(only(at("ezo_ph", [9000], water(water_c)))[1], rel=0.02)

    alpha = 0.0191 + generator.uniform(-0.0012, 0.0012, n)
    conductivity = conductivity_25(500 + generator.uniform(-0.005, 0.005, n), drawn_c, alpha)
    assert conductivity.std() == pytest.approx(
        only(at("conductivity_25", [50_000], water(water_c)))[1], rel=0.02
    )


@pytest.mark.parametrize("water_c", [2.0, 8.0, 15.0, 25.0, 30.0])
def test_stated_uncertainty_covers_water_that_follows_another_curve(water_c: float) -> None:
    # The virtual circuits go from truth to text by PSS-78 and by Garcia and Gordon, not by our equations.
    generator = np.random.default_rng(23)
    n = 2_000
    shown_c = water_c + generator.uniform(-0.5, 0.5, n)
    cell = 1 + generator.uniform(-0.02, 0.02, n)
    raw = np.round(600.0 * conductivity_ratio(water_c) * cell, 1) * 100
    observed = observe(
        "conductivity_25",
        raw,
        {"temperature": water(*shown_c.tolist())},
        CalibrationParameters(u_abs=1.0, u_rel=0.0115),
        observed_property="conductivity_25",
    )
    assert (np.abs(observed.value - 600.0) <= 2 * observed.u).mean() >= 0.93

    ratio = 0.8 * (1 + generator.uniform(-0.01, 0.01, n))
    oxygen = observe(
        "oxygen_of_saturation",
        ratio,
        {"temperature": water(*shown_c.tolist())},
        CalibrationParameters(u_abs=0.058, u_rel=0.0058),
        observed_property="dissolved_oxygen",
    )
    truth = np.array([0.8 * oxygen_at_saturation_mg_l(water_c, high) for high in (0, 100, 200)])
    for one in truth:
        assert (np.abs(oxygen.value - one) <= 2 * oxygen.u).mean() >= 0.93


@pytest.mark.parametrize(
    ("age_s", "reason", "flag"),
    [
        (44, None, Flag.GOOD),
        (86_400, None, Flag.GOOD),
        (86_401, None, Flag.SUSPECT),
        (None, "timeout", Flag.SUSPECT),
        (-5, None, Flag.BAD),
    ],
)
def test_turbidity_is_as_good_as_the_age_of_the_last_wipe(
    age_s: float | None, reason: str | None, flag: Flag
) -> None:
    age = observe("identity", [age_s], {}, NOTHING, observed_property="wiper_age", reasons=[reason])
    observed = observe("wiped", [12.5], {"wiper_age": age}, NOTHING, observed_property="turbidity")
    assert (observed.value[0], observed.flag[0]) == (12.5, flag)


def test_turbidity_of_a_window_that_nobody_wipes_is_suspect() -> None:
    observed = observe("wiped", [12.5], {}, NOTHING, observed_property="turbidity")
    assert observed.flag[0] == Flag.SUSPECT


ROWS = st.lists(
    st.tuples(
        st.sampled_from(sorted(PROPERTY)),
        st.none() | st.floats(-1, 60_000),
        st.none() | st.floats(-45, 60),
    ),
    min_size=1,
    max_size=20,
)


@given(ROWS)
def test_row_is_the_same_bit_by_bit_alone_and_together_and_never_good_without_a_value(rows) -> None:  # type: ignore[no-untyped-def]
    for conversion in PROPERTY:
        some = [row for row in rows if row[0] == conversion]
        if not some:
            continue
        together = at(conversion, [row[1] for row in some], water(*(row[2] for row in some)))
        for number, (_, raw, water_c) in enumerate(some):
            alone = at(conversion, [raw], water(water_c))
            for left, right in zip(
                (alone.value, alone.u, alone.flag, alone.tests),
                (together.value, together.u, together.flag, together.tests),
                strict=True,
            ):
                assert left[0].tobytes() == right[number].tobytes()
        nothing = np.isnan(together.value)
        np.testing.assert_array_equal(nothing, np.isnan(together.u))
        assert set(together.flag[nothing].tolist()) <= {Flag.BAD, Flag.MISSING}


@given(st.floats(-699, 699))
def test_exponential_by_four_operations_equals_the_librarys(x: float) -> None:
    assert float(exact.exp(np.array(x))) == pytest.approx(math.exp(x), rel=4e-16)


def test_exponential_of_nothing_is_nothing() -> None:
    assert np.isnan(exact.exp(np.array([np.nan, 701.0, -701.0]))).all()

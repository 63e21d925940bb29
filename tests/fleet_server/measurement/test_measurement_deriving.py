"""What follows from observations: value, uncertainty and flag of a formula's result."""

from __future__ import annotations

import math

import numpy as np
import pytest
from GTC import ureal

from fleet_server.measurement.derived import FORMULAS, Formula
from fleet_server.measurement.deriving import Column, derive
from fleet_server.measurement.soil_water import SOIL_CLASSES, available_water_of_class
from fleet_server.measurement.uncertainty import combined_uncertainty

SATURATION = FORMULAS["percent_saturation"]


def test_derived_row_is_that_of_fleet_convert() -> None:
    generator = np.random.default_rng(6)
    columns = {
        "oxygen_mg_l": (generator.uniform(1, 14, 20), generator.uniform(0.05, 0.3, 20)),
        "temperature_c": (generator.uniform(0, 30, 20), generator.uniform(0.1, 0.5, 20)),
        "pressure_hpa": (np.full(20, 1_003.0), np.full(20, 2.0)),
    }
    at = derive(SATURATION, {name: Column(*column) for name, column in columns.items()})
    for row in range(20):
        values = {name: float(value[row]) for name, (value, _) in columns.items()}
        u = {name: float(u[row]) for name, (_, u) in columns.items()}
        assert at.value[row] == float(SATURATION.function(**values))
        alone = combined_uncertainty(lambda **one: float(SATURATION.function(**one)), values, u)
        assert at.u[row] == pytest.approx(alone, rel=1e-9)


def test_uncertainty_of_un_ionised_ammonia_is_gtcs() -> None:
    total, temperature, ph = ureal(0.6, 0.05), ureal(20.0, 0.3), ureal(8.0, 0.1)
    judged = total / (1 + 10 ** (0.09018 + 2729.92 / (temperature + 273.2) - ph))
    at = derive(
        FORMULAS["unionised_ammonia"],
        {
            "total_ammonia_mg_l": Column(0.6, 0.05),
            "temperature_c": Column([20.0], [0.3]),
            "ph": Column([8.0], [0.1]),
        },
    )
    assert at.value[0] == pytest.approx(judged.x, rel=1e-12)
    assert at.u[0] == pytest.approx(judged.u, rel=1e-6)


def test_available_water_by_formula_is_that_of_the_closed_form() -> None:
    content, u_content = np.array([0.1, 0.2, 0.3]), np.array([0.03, 0.02, 0.05])
    closed = available_water_of_class(content, u_content, SOIL_CLASSES["Sl4"], 30)
    at = derive(
        FORMULAS["available_water_pct"],
        {
            "water_content": Column(content, u_content, [1, 1, 1]),
            "field_capacity": Column(0.30, 0.03),
            "available_capacity": Column(0.18, 0.02),
        },
    )
    np.testing.assert_allclose(at.value, closed[0], rtol=1e-12)
    np.testing.assert_allclose(at.u, closed[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("oxygen", "temperature", "flag", "has_value"),
    [
        ((8.0, 1), (20.0, 1), 1, True),
        ((8.0, 2), (20.0, 1), 2, True),
        ((8.0, 3), (20.0, 2), 3, True),
        ((8.0, 3), (20.0, 4), 4, True),
        ((math.nan, 9), (20.0, 1), 9, False),
        ((math.nan, 9), (20.0, 4), 4, False),
        ((math.nan, 4), (20.0, 1), 4, False),
        ((math.nan, 1), (20.0, 1), 9, False),  # a flag without a value is not believed
        ((8.0, 1), (45.0, 1), 4, False),  # beyond the formula
    ],
)
def test_derived_value_is_as_bad_as_its_worst_input(
    oxygen: tuple[float, int], temperature: tuple[float, int], flag: int, has_value: bool
) -> None:
    at = derive(
        SATURATION,
        {
            "oxygen_mg_l": Column([oxygen[0]], 0.1, [oxygen[1]]),
            "temperature_c": Column([temperature[0]], 0.1, [temperature[1]]),
        },
    )
    assert at.flag.tolist() == [flag]
    assert (np.isfinite(at.value[0]), np.isfinite(at.u[0])) == (has_value, has_value)


@pytest.mark.parametrize("names", [("oxygen_mg_l",), ("oxygen_mg_l", "temperature_c", "wind")])
def test_inputs_that_are_not_the_formulas_are_refused(names: tuple[str, ...]) -> None:
    formula: Formula = SATURATION
    with pytest.raises(ValueError, match="percent_saturation takes oxygen_mg_l"):
        derive(formula, {name: Column([8.0]) for name in names})

"""`fleet convert`, as a person or a script uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleet_server.cli.convert import convert
from fleet_server.measurement.derived import FORMULAS


def run(*arguments: str) -> Result:
    return CliRunner().invoke(convert, arguments)


def answer_of(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\n") == 1
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.mark.parametrize(
    ("arguments", "value", "unit"),
    [
        ("oxygen_saturation temperature_c=20", 9.09243, "mg/L"),
        ("oxygen_saturation temperature_c=15 salinity=0.5 pressure_hpa=980", 9.71768, "mg/L"),
        ("watermark_tension resistance_ohm=2000 temperature_c=24", 15.216, "kPa"),
        ("topp_water_content permittivity=20", 0.3454, "m³/m³"),
        ("conductivity_25 conductivity_us_cm=500 temperature_c=5 alpha=0.02", 833.33, "µS/cm"),
        ("ph potential_mv=-59.1593 temperature_c=25", 8.0, "pH"),
        ("nernst_slope temperature_c=25", 59.1593, "mV"),
        ("ammonia_fraction temperature_c=20 ph=8", 0.038205, "1"),
        ("water_density temperature_c=20", 998.2067, "kg/m³"),
        ("water_depth pressure_pa=1e4 temperature_c=4", 1.01974, "m"),
    ],
)
def test_quantity_is_worked_out(arguments: str, value: float, unit: str) -> None:
    answer = answer_of(*arguments.split())
    assert answer["value"] == pytest.approx(value, rel=4e-5)
    assert answer["unit"] == unit
    assert answer["source"]
    assert "standard_uncertainty" not in answer


@pytest.mark.parametrize("sign", ["±", "+-", "+/-"])
def test_uncertainty_of_an_argument_becomes_one_of_the_result(sign: str) -> None:
    answer = answer_of("oxygen_saturation", f"temperature_c=20{sign}0.15")
    assert answer["standard_uncertainty"] == pytest.approx(0.02709, abs=1e-5)


def test_all_uncertainties_are_combined() -> None:
    answer = answer_of(
        "dissolved_oxygen",
        "saturation_pct=85±1.5",
        "temperature_c=20±0.15",
        "salinity=0.3±0.05",
        "pressure_hpa=1003.1175±2.0265",
    )
    assert answer["value"] == pytest.approx(7.63598, abs=5e-6)
    assert answer["standard_uncertainty"] == pytest.approx(0.137587, abs=1e-6)


def test_soil_class_states_what_nobody_measured_with_its_uncertainty() -> None:
    typed = ("water_content=0.20±0.03", "field_capacity=0.30±0.03", "available_capacity=0.18±0.02")
    by_hand = answer_of("available_water_pct", *typed)
    by_class = answer_of("available_water_pct", typed[0], "--soil", "Sl4", "--depth-cm", "30")
    assert by_class.pop("source") == f"{by_hand.pop('source')}; Sl4 after KA5 (AG Boden 2005)"
    assert by_class == by_hand
    deeper = answer_of("available_water_pct", typed[0], "--soil", "Sl4", "--depth-cm", "80")
    assert deeper["value"] == pytest.approx(100 * (0.20 - 0.11) / 0.15)


def test_texture_class_states_its_retention_curve() -> None:
    answer = answer_of("van_genuchten_water_content", "tension_kpa=10", "--soil", "loam")
    assert answer["value"] == pytest.approx(0.2406, abs=5e-5)
    assert answer["standard_uncertainty"] == pytest.approx(0.070, abs=5e-4)
    assert answer["source"] == "van Genuchten 1980; loam after Carsel and Parrish 1988"


def test_exact_argument_has_no_uncertainty_to_give() -> None:
    assert answer_of("nernst_slope", "temperature_c=25±0")["standard_uncertainty"] == 0.0


def test_person_reads_value_unit_uncertainty_and_source() -> None:
    result = run("oxygen_saturation", "temperature_c=20±0.15")
    assert result.stdout.splitlines() == [
        "oxygen_saturation = 9.092426 mg/L",
        "standard uncertainty 0.0271 mg/L",
        "after Benson and Krause 1984 (APHA 4500-O, USGS OWQ memo 2011.03)",
    ]


def test_list_names_every_quantity_with_its_arguments() -> None:
    lines = run("--list").stdout.splitlines()
    assert [line.split(" ")[0] for line in lines] == list(FORMULAS)
    assert "water_depth (m): pressure_pa temperature_c [gravity_m_s2=9.80665]" in lines
    described = answer_of("--list")["quantities"]
    assert [one["quantity"] for one in described] == list(FORMULAS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "Name a quantity; fleet convert --list names them all."),
        (
            "oxigen_saturation",
            "There is no quantity oxigen_saturation; did you mean oxygen_saturation?",
        ),
        ("zzz", "There is no quantity zzz; fleet convert --list names them all."),
        ("oxygen_saturation", "oxygen_saturation needs temperature_c as well."),
        ("water_depth", "water_depth needs pressure_pa and temperature_c as well."),
        (
            "nernst_slope temprature_c=3",
            "nernst_slope takes no temprature_c; did you mean temperature_c?",
        ),
        ("nernst_slope x=3", "nernst_slope takes no x; it takes temperature_c."),
        ("nernst_slope 25", "25 is not of the form name=value."),
        ("nernst_slope temperature_c=5 temperature_c=5", "temperature_c is given twice."),
        ("nernst_slope temperature_c=warm", "temperature_c must be a number, not warm."),
        ("nernst_slope temperature_c=", "temperature_c must be a number, not nothing."),
        ("nernst_slope temperature_c=nan", "temperature_c must be a number, not nan."),
        ("nernst_slope temperature_c=inf", "temperature_c must be a number, not inf."),
        ("nernst_slope temperature_c=1_0", "temperature_c must be a number, not 1_0."),
        (
            "nernst_slope temperature_c=20,5",
            "temperature_c must be a number, not 20,5 (write a decimal point).",
        ),
        (
            "nernst_slope temperature_c=20±x",
            "The uncertainty of temperature_c must be a number, not x.",
        ),
        (
            "nernst_slope temperature_c=20±-1",
            "The uncertainty of temperature_c must not be negative.",
        ),
        ("nernst_slope temperature_c=20±1±1", "temperature_c has more than one uncertainty."),
        ("available_water_pct --soil Sl9", "There is no soil Sl9; did you mean Slu?"),
        (
            "available_water_pct --soil 7",
            "There is no soil 7; there are sand, sandy loam, loam, silt loam and clay loam, "
            "and those of KA5.",
        ),
        ("available_water_pct --soil loam", "loam says nothing about available_water_pct."),
        (
            "available_water_pct water_content=0.2 field_capacity=0.3 --soil Sl4",
            "field_capacity is given twice.",
        ),
        ("nernst_slope temperature_c=101", "temperature_c must lie between 0 and 100, not at 101."),
    ],
)
def test_wrong_use_is_told_in_one_sentence(arguments: str, sentence: str) -> None:
    result = run(*arguments.split(), "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {sentence}\n"


def test_arguments_without_a_result_together_fail() -> None:
    day = "temperature_max_c=5 temperature_min_c=15 humidity_max_pct=80 humidity_min_pct=60 wind_m_s=2"
    day += " radiation_mj_m2=20 altitude_m=100 latitude_deg=51 day_of_year=187"
    result = run("reference_evapotranspiration", *day.split())
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: reference_evapotranspiration has no value")


def test_command_is_part_of_fleet_and_takes_its_sign_from_any_terminal() -> None:
    command = [sys.executable, "-c", "from fleet_server.cli.main import main; main()"]
    done = subprocess.run(
        [*command, "convert", "nernst_slope", "temperature_c=25±0.5", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert json.loads(done.stdout)["standard_uncertainty"] == pytest.approx(0.0992, abs=1e-4)

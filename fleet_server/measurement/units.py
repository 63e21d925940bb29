"""Units that observations are published in, and the factors between units that the formulas need.

Every factor stands on its own line with its definition. What is not exact says so.
"""

from __future__ import annotations

from dataclasses import dataclass

ZERO_CELSIUS_K = 273.15  # SI: definition of the degree Celsius
STANDARD_ATMOSPHERE_HPA = 1013.25  # CGPM 1954, resolution 4
STANDARD_GRAVITY_M_S2 = 9.80665  # CGPM 1901
GAS_CONSTANT_J_MOL_K = 8.314462618153240  # CODATA 2018, exact since 2019
FARADAY_C_MOL = 96485.33212331  # CODATA 2018, exact since 2019
CM_WATER_PER_KPA = 10.19716  # 1000 Pa / (1000 kg/m³ · 9.80665 m/s²), rounded


@dataclass(frozen=True)
class Unit:
    """A unit as feeds and pages name it.

    `code` is the code used in our data (UCUM's, as SenML's registry has it), `ucum` the UCUM expression.
    """

    code: str
    name: str
    symbol: str
    ucum: str


UNITS = {
    unit.code: unit
    for unit in (
        Unit("kPa", "kilopascal", "kPa", "kPa"),
        Unit("Cel", "degree Celsius", "°C", "Cel"),
        Unit("mg/L", "milligram per litre", "mg/L", "mg/L"),
        Unit("%", "percent", "%", "%"),
        Unit("mV", "millivolt", "mV", "mV"),
        Unit("m3/m3", "cubic metre per cubic metre", "m³/m³", "m3/m3"),
        Unit("uS/cm", "microsiemens per centimetre", "µS/cm", "uS/cm"),
        Unit("pH", "pH", "pH", "[pH]"),
        Unit("FNU", "formazin nephelometric unit", "FNU", "{FNU}"),
        Unit("m", "metre", "m", "m"),
        Unit("s", "second", "s", "s"),
        Unit("Ohm", "ohm", "Ω", "Ohm"),
        Unit("1", "one", "", "1"),
    )
}
"""Published units by code."""

"""The observed properties: their public names, descriptions and definitions. Ids are public and never reused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ObservedProperty:
    """`key` is the property's name in hardware data; `definition` a public quantity kind or standard name."""

    id: int
    key: str
    name: str
    description: str
    definition: str


OBSERVED_PROPERTIES = (
    ObservedProperty(
        1,
        "soil_water_tension",
        "Soil water tension",
        "Suction with which the soil holds its water; 0 kPa is saturated, higher is drier.",
        "http://qudt.org/vocab/quantitykind/Pressure",
    ),
    ObservedProperty(
        2,
        "soil_temperature",
        "Soil temperature",
        "Temperature of the soil at the sensor's depth.",
        "http://vocab.nerc.ac.uk/standard_name/soil_temperature/",
    ),
    ObservedProperty(
        3,
        "dissolved_oxygen",
        "Dissolved oxygen",
        "Mass of oxygen dissolved in a litre of water.",
        "http://qudt.org/vocab/quantitykind/MassConcentration",
    ),
    ObservedProperty(
        4,
        "oxygen_saturation",
        "Oxygen saturation",
        "Dissolved oxygen in per cent of what water holds in equilibrium with air.",
        "http://qudt.org/vocab/quantitykind/DimensionlessRatio",
    ),
    ObservedProperty(
        5,
        "water_temperature",
        "Water temperature",
        "Temperature of the water at the sensor.",
        "http://qudt.org/vocab/quantitykind/CelsiusTemperature",
    ),
    ObservedProperty(
        6,
        "battery_voltage",
        "Battery voltage",
        "Voltage of the node's battery under load.",
        "http://qudt.org/vocab/quantitykind/Voltage",
    ),
)

BY_KEY = {known.key: known for known in OBSERVED_PROPERTIES}
BY_ID = {known.id: known for known in OBSERVED_PROPERTIES}

UNIT_NAMES = {
    "kPa": ("kilopascal", "kPa"),
    "Cel": ("degree Celsius", "°C"),
    "mg/L": ("milligram per litre", "mg/L"),
    "%": ("per cent", "%"),
    "mV": ("millivolt", "mV"),
}
"""UCUM code → (name, symbol)."""

FLAG_NAMES = {1: "good", 2: "not evaluated", 3: "suspect", 4: "bad", 9: "missing"}
"""QARTOD's primary flags."""


def unit_of_measurement(unit: str) -> dict[str, str]:
    name, symbol = UNIT_NAMES.get(unit, (unit, unit))
    return {"name": name, "symbol": symbol, "definition": f"ucum:{unit}"}

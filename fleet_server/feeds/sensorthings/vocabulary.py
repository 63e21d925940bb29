"""The observed properties: their public names, descriptions and definitions. Ids are public and never reused."""

from __future__ import annotations

from dataclasses import dataclass

from fleet_server.measurement.units import UNITS


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
    ObservedProperty(
        7,
        "soil_water_content",
        "Soil water content",
        "Volume of water in a volume of soil.",
        "http://vocab.nerc.ac.uk/standard_name/volume_fraction_of_condensed_water_in_soil/",
    ),
    ObservedProperty(
        8,
        "soil_conductivity",
        "Bulk electrical conductivity of soil",
        "Electrical conductivity of soil, water and air together, as the sensor gives it at 25 °C.",
        "http://qudt.org/vocab/quantitykind/ElectricConductivity",
    ),
    ObservedProperty(
        9,
        "soil_moisture_index",
        "Relative soil moisture index",
        "Relative index of one sensor between dry air (0) and water (1): not a water content, and not to be compared "
        "with another sensor's.",
        "http://qudt.org/vocab/quantitykind/DimensionlessRatio",
    ),
    ObservedProperty(
        10,
        "water_level",
        "Water level",
        "Height of the water's surface above the zero of the gauge; before a calibration at the gauge, above the sensor's face.",
        "http://vocab.nerc.ac.uk/standard_name/water_surface_height_above_reference_datum/",
    ),
    ObservedProperty(
        11,
        "air_temperature",
        "Air temperature",
        "Temperature of the air at the sensor.",
        "http://vocab.nerc.ac.uk/standard_name/air_temperature/",
    ),
    ObservedProperty(
        12,
        "contact_closed",
        "Contact closed",
        "State of a contact, such as a float switch, at the instant of sampling: 1 closed, 0 open. Not a count.",
        "http://qudt.org/vocab/quantitykind/Dimensionless",
    ),
    ObservedProperty(
        13,
        "reference_resistance",
        "Reference resistance",
        "What the circuit of the resistive sensors reads of a resistor of 10 kΩ: how far it is to be trusted.",
        "http://qudt.org/vocab/quantitykind/Resistance",
    ),
    ObservedProperty(
        14,
        "soil_permittivity",
        "Soil permittivity",
        "Relative permittivity of the moist soil, from which its water content is derived.",
        "http://qudt.org/vocab/quantitykind/PermittivityRatio",
    ),
    ObservedProperty(
        15,
        "ph",
        "pH",
        "Negative logarithm of the hydrogen ion's activity.",
        "http://qudt.org/vocab/quantitykind/PH",
    ),
    ObservedProperty(
        16,
        "conductivity_25",
        "Conductivity at 25 °C",
        "Electrical conductivity of the water, worked out for 25 °C.",
        "http://qudt.org/vocab/quantitykind/ElectricConductivity",
    ),
    ObservedProperty(
        17,
        "turbidity",
        "Turbidity",
        "Light scattered by the water at 90° and 860 nm (ISO 7027-1).",
        "http://qudt.org/vocab/quantitykind/Turbidity",
    ),
    ObservedProperty(
        18,
        "wiper_age",
        "Time since the probe was wiped",
        "How long ago a wiper cleaned the window of the turbidity probe.",
        "http://qudt.org/vocab/quantitykind/Time",
    ),
    ObservedProperty(
        19,
        "probe_counts",
        "Counts of the probe",
        "What the probe counts before it works anything out; for calibrations.",
        "http://qudt.org/vocab/quantitykind/Count",
    ),
    ObservedProperty(
        20,
        "available_water",
        "Plant-available water",
        "Part of the soil's available field capacity (nFK) that is filled; derived from its water content.",
        "http://qudt.org/vocab/quantitykind/DimensionlessRatio",
    ),
    ObservedProperty(
        21,
        "ammonia_fraction",
        "Fraction of un-ionised ammonia",
        "Part of the total ammonia that is un-ionised at the water's pH and temperature. How much there is in total is not known.",
        "http://qudt.org/vocab/quantitykind/DimensionlessRatio",
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
    "m3/m3": ("cubic metre per cubic metre", "m³/m³"),
    "uS/cm": ("microsiemens per centimetre", "µS/cm"),
    "pH": ("pH", "pH"),
    "FNU": ("formazin nephelometric unit", "FNU"),
    "m": ("metre", "m"),
    "s": ("second", "s"),
    "Ohm": ("ohm", "Ω"),
    "1": ("one", "1"),
}
"""Code as in our data → (name, symbol)."""

FLAG_NAMES = {1: "good", 2: "not evaluated", 3: "suspect", 4: "bad", 9: "missing"}
"""QARTOD's primary flags."""


def unit_of_measurement(unit: str) -> dict[str, str]:
    name, symbol = UNIT_NAMES.get(unit, (unit, unit))
    ucum = UNITS[unit].ucum if unit in UNITS else unit
    return {"name": name, "symbol": symbol, "definition": f"ucum:{ucum}"}

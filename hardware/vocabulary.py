"""What the server can make of a node's readings: names that a data file may use. Not here: what they do.

The server decides (`fleet_server/measurement`); the hardware room imports nothing of it, so the names stand here a second
time, and a test holds them to the server's.
"""

from __future__ import annotations

import re

CHANNEL_KEY = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""A channel's name on the wire."""

PROPERTIES = {
    "air_temperature": "Cel",
    "battery_voltage": "mV",
    "conductivity_25": "uS/cm",
    "contact_closed": "1",
    "dissolved_oxygen": "mg/L",
    "oxygen_saturation": "%",
    "ph": "pH",
    "probe_counts": "1",
    "reference_resistance": "Ohm",
    "soil_conductivity": "uS/cm",
    "soil_moisture_index": "1",
    "soil_permittivity": "1",
    "soil_temperature": "Cel",
    "soil_water_content": "m3/m3",
    "soil_water_tension": "kPa",
    "turbidity": "FNU",
    "water_level": "m",
    "water_temperature": "Cel",
    "wiper_age": "s",
}
"""Every property with the unit in which it is published."""

CONVERSIONS = {
    "capacitive_index": (),
    "conductivity_25": ("temperature",),
    "current_loop": (),
    "ezo_oxygen": ("temperature",),
    "ezo_ph": ("temperature",),
    "hundredths": (),
    "hundredths_from_minus_100": (),
    "identity": (),
    "oxygen_of_saturation": ("temperature",),
    "percent_of_ratio": (),
    "sixteenths": (),
    "ten_thousandths": (),
    "tenths": (),
    "teros_water_content": (),
    "ultrasonic_level": ("temperature",),
    "watermark_tension": ("temperature", "reference"),
    "wiped": ("wiper_age",),
}
"""Every conversion with the names of the further inputs that it works with, where the node has them."""

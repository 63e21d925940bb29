"""Made-up probes of every interface, and a pond's node with slots for them: for what is about circuits, not about a probe."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardware import catalogue
from hardware.data_files import ENVIRONMENT

_POND = (Path(catalogue.__file__).parent / "node_models" / "pond-1.toml").read_text(
    encoding="utf-8"
)

_PROBE = """
id = "{id}"
title = "{id}"
manufacturer = "nobody"
driver = "none"
interface = "{interface}"
warm_up_ms = 0
stabilise_ms = 0
measure_ms = 0
source = "Made up."
assumed = []
wires = [{{ colour = "red", signal = "+", to = "supply" }}, {{ colour = "black", signal = "-", to = "ground" }}]
parts = []
supply = {{ rail = "{rail}", minimum_v = 0, maximum_v = 48 }}
current = {{ warm_up_ma = 0, stabilise_ma = 0, measure_ma = 0, asleep_ua = 0 }}
calibration = {{ against = "", every_days = 1, steps = [] }}
mounting = {{ place = "water", hole_mm = 0, length_mm = 0, cable_mm = 5, cable_m = 1, orientation = "", steps = [] }}
error_signs = [{{ reason = "timeout", sign = "", remedy = "" }}]
[[quantities]]
property = "water_level"
unit = "m"
raw_unit = "m"
minimum = 0
maximum = 1
raw_minimum = 0
raw_maximum = 1
raw_resolution = 1
accuracy = {{ absolute = 0, relative = 0 }}
drift_per_year = {{ absolute = 0, relative = 0 }}
"""
_SLOT = """
[[slots]]
id = "{id}"
sensor_type = "{sensor_type}"
depth_cm = 0
pins = {{ {pins} }}
options = {{ {options} }}
channels = [{{ key = "{id}", property = "water_level", unit = "m", raw_unit = "m", conversion = "identity" }}]
"""
_KINDS = {
    "ezo": ("i2c_ezo", "switched_3v3"),
    "loop": ("current_loop", "switched_24v"),
    "wire": ("sdi12", "switched_12v"),
    "serial": ("uart", "switched_3v3"),
    "analog": ("voltage", "gpio_3v3"),
    "switch": ("contact", "pins"),
}


def use_made_up_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `_KINDS` in the catalogue, each as a sensor type of its own."""
    (tmp_path / "sensors").mkdir()
    for name, (interface, rail) in _KINDS.items():
        text = _PROBE.format(id=name, interface=interface, rail=rail)
        (tmp_path / "sensors" / f"{name}.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))


def pond_with(*slots: tuple[str, str, str]) -> str:
    """The TOML of pond-1 and more slots s0, s1, …: (sensor type, pins, options) of each."""
    added = [
        _SLOT.format(id=f"s{number}", sensor_type=kind, pins=pins, options=options)
        for number, (kind, pins, options) in enumerate(slots)
    ]
    head, parts = _POND.split("[[parts]]", 1)
    return "".join([head, *added, "\n[[parts]]", parts])

"""Reads a wired board as an ideal driver would, and converts as the server's formulas say, written here once more.

The conversion is taken from the published equations (Shock, Barnum and Seddigh 1998; Irrometer's sketch of 27 July
2023), not from the server's code: the scenes' own tests must stand without the server.
"""

from __future__ import annotations

import struct

from hardware.catalogue import NodeModel, Slot, load_sensor_type
from hardware.virtual_board.probes.do_modbus import frame
from hardware.virtual_board.wiring import Wiring

_MICRO = 1_000_000
_PROBE_READY_US = 10_100_000


def tension_kpa(resistance_ohm: float, temperature_c: float) -> float:
    r, above_24 = resistance_ohm / 1000, 1 + 0.018 * (temperature_c - 24)
    if r <= 0.55:
        return 0.0
    if r <= 1:
        return (23.156 * r - 12.736) * above_24
    if r <= 8:
        return (4.093 + 3.213 * r) / (1 - 0.009733 * r - 0.01205 * temperature_c)
    return 2.246 + 5.239 * r * above_24 + 0.06756 * (r * above_24) ** 2


def read_board(wiring: Wiring, model: NodeModel, utc_s: int) -> dict[str, float]:
    """Published values by channel key, without what could not be read."""
    raw: dict[str, float] = {}
    for slot in model.slots:
        raw |= _READERS[load_sensor_type(slot.sensor_type).driver](wiring, slot, utc_s * _MICRO)
    values = {}
    for channel in model.channels:
        if channel.key not in raw:
            continue
        if channel.conversion == "watermark_tension":
            if channel.needs["temperature"] in raw:
                temperature_c = raw[channel.needs["temperature"]] / 16
                values[channel.key] = tension_kpa(raw[channel.key], temperature_c)
        else:
            values[channel.key] = raw[channel.key] / (
                16 if channel.conversion == "sixteenths" else 1
            )
    return values


def _read_ds18b20(wiring: Wiring, slot: Slot, now_us: int) -> dict[str, float]:
    device = wiring.one_wire[slot.pins["data"]]
    if not device.reset(now_us):
        return {}
    device.write_byte(0xCC, now_us)
    device.write_byte(0x44, now_us)
    later_us = now_us + 750_000
    device.reset(later_us)
    device.write_byte(0xCC, later_us)
    device.write_byte(0xBE, later_us)
    pad = bytes(device.read_byte(later_us) for _ in range(9))
    return {slot.channels[0].key: int.from_bytes(pad[:2], "little", signed=True)}


def _read_watermark(wiring: Wiring, slot: Slot, now_us: int) -> dict[str, float]:
    source, adc = wiring.analog[slot.pins["adc"]], slot.pins["adc"]
    a, b = slot.pins["a"], slot.pins["b"]
    series, supply = slot.options["series_ohm"], slot.options["supply_uv"]
    forward = sum(source.microvolts(adc, {a: 1, b: 0}, now_us) for _ in range(8)) / 8
    reverse = sum(source.microvolts(adc, {a: 0, b: 1}, now_us) for _ in range(8)) / 8
    if forward < 100_000:
        return {}
    ohm = (series * (supply - forward) / forward + series * reverse / (supply - reverse)) / 2
    return {slot.channels[0].key: round(ohm)}


def _read_oxygen(wiring: Wiring, slot: Slot, now_us: int) -> dict[str, float]:
    for switch in wiring.power:
        switch.power_changed(slot.pins["power"], 1, now_us)
    ready_us = now_us + _PROBE_READY_US
    replies = wiring.uart[slot.options["uart"]].receive(frame(bytes([1, 3, 0, 0, 0, 6])), ready_us)
    for switch in wiring.power:
        switch.power_changed(slot.pins["power"], 0, ready_us)
    if not replies or len(replies[0][1]) != 17:
        return {}
    figures = struct.unpack(">fff", replies[0][1][3:15])
    return {channel.key: value for channel, value in zip(slot.channels, figures, strict=True)}


def _read_battery(wiring: Wiring, slot: Slot, now_us: int) -> dict[str, float]:
    microvolts = wiring.analog[slot.pins["adc"]].microvolts(slot.pins["adc"], {}, now_us)
    return {slot.channels[0].key: round(microvolts * slot.options["divider_milli"] / 1e6)}


_READERS = {
    "ds18b20": _read_ds18b20,
    "watermark": _read_watermark,
    "do_modbus": _read_oxygen,
    "battery": _read_battery,
}

"""Reads a wired board as an ideal driver would, and converts as the server's formulas say, written here once more.

The conversion is taken from the published equations (Shock, Barnum and Seddigh 1998; Irrometer's sketch of 27 July
2023), not from the server's code: the scenes' own tests must stand without the server.
"""

from __future__ import annotations

import struct

from hardware.catalogue import NodeModel, Slot, load_sensor_type
from hardware.virtual_board.probes.ezo import Ezo, EzoEc
from hardware.virtual_board.probes.modbus import frame
from hardware.virtual_board.scene_models import oxygen_at_saturation_mg_l
from hardware.virtual_board.wiring import UartSettings, Wiring

_MICRO = 1_000_000
_PROBE_READY_US = 10_100_000
_WIPER_READY_US = 53_000_000


def tension_kpa(resistance_ohm: float, temperature_c: float) -> float:
    r, above_24 = resistance_ohm / 1000, 1 + 0.018 * (temperature_c - 24)
    if r <= 0.55:
        return 0.0
    if r <= 1:
        return (23.156 * r - 12.736) * above_24
    if r <= 8:
        return (4.093 + 3.213 * r) / (1 - 0.009733 * r - 0.01205 * temperature_c)
    return 2.246 + 5.239 * r * above_24 + 0.06756 * (r * above_24) ** 2


def can_read(model: NodeModel) -> bool:
    """Whether this driver knows all of the node's probes: those on SDI-12 and of level nodes are read by tests of their own."""
    return all(load_sensor_type(slot.sensor_type).driver in _READERS for slot in model.slots)


def read_board(wiring: Wiring, model: NodeModel, utc_s: int) -> dict[str, float]:
    """Published values by channel key, without what could not be read."""
    raw: dict[str, float] = {}
    for slot in model.slots:
        raw |= _READERS[load_sensor_type(slot.sensor_type).driver](wiring, slot, utc_s * _MICRO)
    values = {}
    for channel in model.channels:
        if channel.key not in raw or any(key not in raw for key in channel.needs.values()):
            continue
        temperature_c = 20.0
        if "temperature" in channel.needs:
            needed = model.channel(channel.needs["temperature"])
            temperature_c = _PUBLISHED[needed.conversion](raw[needed.key], 0.0)
        values[channel.key] = _PUBLISHED[channel.conversion](raw[channel.key], temperature_c)
    return values


# By conversion: raw value and, where it is needed, temperature in °C. EZO circuits were told the true one.
_PUBLISHED = {
    "identity": lambda raw, _: raw,
    "wiped": lambda raw, _: raw,
    "sixteenths": lambda raw, _: raw / 16,
    "watermark_tension": tension_kpa,
    "hundredths": lambda raw, _: raw / 100,
    "ten_thousandths": lambda raw, _: raw / 10_000,
    "hundredths_from_minus_100": lambda raw, _: raw / 100 - 100,
    "percent_of_ratio": lambda raw, _: raw * 100,
    "oxygen_of_saturation": lambda raw, t: raw * oxygen_at_saturation_mg_l(t, 110.0),
    "ezo_ph": lambda raw, _: raw / 1000,
    "ezo_oxygen": lambda raw, _: raw / 100,
    "conductivity_25": lambda raw, t: raw / 100 / (1 + 0.0191 * (t - 25)),
    "current_loop": lambda raw, _: (raw - 4_000) / 16_000 * 2.0,
}


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


def _read_modbus(wiring: Wiring, slot: Slot, now_us: int) -> dict[str, float]:
    ready_us = now_us + (_WIPER_READY_US if slot.sensor_type == "y511" else _PROBE_READY_US)
    bus = wiring.uart[slot.options["uart"]]
    bus.line_set(UartSettings(9600, 8, 0 if slot.sensor_type == "smt100" else None))
    address = slot.options["address"]
    for switch in wiring.power:
        switch.power_changed(slot.pins["power"], 1, now_us)
    function, first, count, layout, keys = _MODBUS[slot.sensor_type]
    if slot.sensor_type in ("y504", "y511"):
        bus.receive(frame(bytes([address, 3, 0x25, 0, 0, 0])), now_us + 5 * _MICRO // 4)
    request = struct.pack(">BBHH", address, function, first, count)
    replies = bus.receive(frame(request), ready_us)
    for switch in wiring.power:
        switch.power_changed(slot.pins["power"], 0, ready_us)
    if not replies or len(replies[0][1]) != 5 + 2 * count:
        return {}
    figures = struct.unpack(layout, replies[0][1][3:-2])
    found = dict(zip(keys, figures, strict=False))
    if slot.sensor_type == "y504":
        found["do"] = found["sat"]
    return found | ({"wipe": 0.0} if "tu" in keys else {})


# sensor type → function, first register, count, layout, channel keys in the order of the registers
_MODBUS = {
    "do_modbus": (3, 0, 6, ">fff", ("sat", "do", "tw")),
    "smt100": (3, 0, 3, ">HHH", ("t30", "v30", "e30")),
    "y504": (3, 0x2600, 4, "<ff", ("tw", "sat")),
    "y511": (3, 0x2600, 5, "<ff2x", ("-", "tu")),
}


def _read_ezo(wiring: Wiring, slot: Slot, now_us: int) -> dict[str, float]:
    circuit = wiring.i2c[slot.options["i2c"], slot.options["address"]]
    circuit.power_changed(slot.pins["power"], 1, now_us)
    awake_us = now_us + _MICRO
    if not circuit.write(b"T,%.2f" % _told_c(circuit, awake_us), awake_us):
        return {}
    circuit.write(b"R", awake_us + _MICRO // 2)
    answer = circuit.read(20, awake_us + 2 * _MICRO)
    circuit.power_changed(slot.pins["power"], 0, awake_us + 2 * _MICRO)
    if answer is None or answer[0] != 1:
        return {}
    scale = 1000 if slot.sensor_type == "ezo_ph" else 100
    return {slot.channels[0].key: float(answer[1 : answer.index(0)]) * scale}


def _told_c(circuit: Ezo, now_us: int) -> float:
    if isinstance(circuit, EzoEc):
        return 25.0
    temperature_c = circuit._temperature(now_us / _MICRO)
    return 20.0 if temperature_c is None else temperature_c


def _read_current_loop(wiring: Wiring, slot: Slot, now_us: int) -> dict[str, float]:
    loop = wiring.i2c[slot.options["i2c"], slot.options["address"]]
    loop.power_changed(slot.pins["power"], 1, now_us)
    loop.write(bytes([1, 0xC3, 0x23]), now_us + 2 * _MICRO)
    loop.write(bytes([0]), now_us + 3 * _MICRO)
    (steps,) = struct.unpack(">h", loop.read(2, now_us + 3 * _MICRO) or b"")
    loop.power_changed(slot.pins["power"], 0, now_us + 3 * _MICRO)
    return {slot.channels[0].key: steps * 1.25} if steps >= 2880 else {}


def _read_battery(wiring: Wiring, slot: Slot, now_us: int) -> dict[str, float]:
    microvolts = wiring.analog[slot.pins["adc"]].microvolts(slot.pins["adc"], {}, now_us)
    return {slot.channels[0].key: round(microvolts * slot.options["divider_milli"] / 1e6)}


_READERS = {
    "ds18b20": _read_ds18b20,
    "watermark": _read_watermark,
    "modbus": _read_modbus,
    "ezo": _read_ezo,
    "current_loop": _read_current_loop,
    "battery": _read_battery,
}

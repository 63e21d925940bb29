"""The two configuration maps that a node carries in its NVS, composed from hardware data.

`node`: what is soldered to which pin and how often it is read. `link`: where the node finds its broker. Both are CBOR,
as small as they can be: a node reads them at every wake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cbor2

from hardware import spoken
from hardware.catalogue import NodeModel, Quantity, SensorType, Slot, load_sensor_type

_CONFIGURATION_VERSION = 1
_BATTERY_DRIVER = "battery"
_CURRENT_LOOP_DRIVER = "current_loop"


@dataclass(frozen=True)
class Link:
    """Where a node finds its fleet, as the server said at enrolment."""

    host: str
    port: int
    tls: bool
    server_name: str
    ntp: str
    prefix: str
    renew: tuple[str, int, str] | None = None
    """Host, port and name of the listener that renews a certificate which ran out; older servers have none."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Link:
        """From the `link` object of the enrolment's answer.

        Raises:
            ValueError: a part is missing or of the wrong kind.
        """
        try:
            given = {name: answer[name] for name in cls.__dataclass_fields__ if name != "renew"}
        except KeyError as missing:
            raise ValueError(f"link has no {missing.args[0]}") from None
        link = cls(**given, renew=_listener(answer.get("renew")))
        for name, kind in (("host", str), ("port", int), ("tls", bool), ("server_name", str)):
            if type(getattr(link, name)) is not kind:
                raise ValueError(f"link.{name} is not a {kind.__name__}")
        return link


def link_map(link: Link, wifi: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The `link` map; `wifi` are pairs of network name and password, tried in order."""
    content = {
        "host": link.host,
        "port": link.port,
        "tls": link.tls,
        "server_name": link.server_name,
        "wifi": [[ssid, password] for ssid, password in wifi],
        "ntp": link.ntp,
        "prefix": link.prefix,
    }
    return content if link.renew is None else content | {"renew": list(link.renew)}


def _listener(given: object) -> tuple[str, int, str] | None:
    match given:
        case None:
            return None
        case [str(host), int(port), str(name)]:
            return host, port, name
    raise ValueError("link.renew is not a host, a port and a name")


def node_map(model: NodeModel, *, has_panel: bool = True) -> dict[str, Any]:
    """The `node` map of one node model: its probes in wire order, its battery, its intervals.

    `every_s`: how often a slot is read that is not read at every sample, by its first channel. `has_panel`: whether its lamp and
    its button are there; a node without them has no field mode.
    """
    probes = []
    battery: dict[str, Any] | None = None
    for slot in model.slots:
        sensor_type = load_sensor_type(slot.sensor_type)
        if sensor_type.driver == _BATTERY_DRIVER:
            battery = _battery(slot)
        else:
            probes.append(_probe(model, slot, sensor_type))
    content: dict[str, Any] = {
        "model": model.id,
        "version": _CONFIGURATION_VERSION,
        "sample_s": model.sample_every_s,
        "publish_s": model.publish_every_s,
        "probes": probes,
        "bat": battery,
    }
    if model.limits:
        content["urgent_s"] = model.urgent_every_s
        content["limits"] = [
            [one.channel, one.kind, _shortest(one.value), _shortest(one.clear)]
            for one in model.limits
        ]
    if model.battery_limits is not None:
        content |= asdict(model.battery_limits)
    if has_panel:
        content |= model.panel
    every_s = {slot.channels[0].key: slot.every_s for slot in model.slots if slot.every_s}
    return content | ({"every_s": every_s} if every_s else {})


def encode_map(content: Mapping[str, Any]) -> bytes:
    """CBOR of one configuration map, deterministic (RFC 8949 §4.2.1): a number of a limit takes its shortest form."""
    return cbor2.dumps(content, canonical=True)


def _shortest(number: float) -> float:
    return int(number) if number.is_integer() else number


def _probe(model: NodeModel, slot: Slot, sensor_type: SensorType) -> dict[str, Any]:
    """One probe: what its type says, and over that what its slot says."""
    probe: dict[str, Any] = {
        "driver": sensor_type.driver,
        "slot": slot.id,
        "keys": [channel.key for channel in slot.channels],
        "pins": dict(slot.pins),
        "options": dict(slot.options) | _sdi12_options(slot),
    }
    if sensor_type.modbus is not None:
        probe["options"] = _modbus_options(slot, sensor_type, sensor_type.modbus)
    elif sensor_type.ezo is not None:
        probe["options"] = _ezo_options(slot, sensor_type, sensor_type.ezo)
        if sensor_type.ezo.is_told:
            probe["needs"] = _told_temperature(model, slot)
    elif sensor_type.driver == _CURRENT_LOOP_DRIVER:
        probe["options"] = {"warm_up_ms": sensor_type.warm_up_ms} | probe["options"]
    return probe


def _sdi12_options(slot: Slot) -> dict[str, Any]:
    """What the node has to know of an SDI-12 sensor beside its address: lists in the order of its channels."""
    sensor_type = load_sensor_type(slot.sensor_type)
    if sensor_type.sdi12 is None:
        return {}
    quantities = [sensor_type.quantity(channel.property) for channel in slot.channels]
    fields = [quantity.sdi12 for quantity in quantities if quantity.sdi12 is not None]
    return {
        "concurrent": sensor_type.sdi12.is_concurrent,
        "warm_up_ms": sensor_type.warm_up_ms + sensor_type.stabilise_ms,
        "fields": [field.position for field in fields],
        "decimals": [field.decimals for field in fields],
        "lowest": [round(quantity.raw_minimum) for quantity in quantities],
        "highest": [round(quantity.raw_maximum) for quantity in quantities],
    }


def _modbus_options(slot: Slot, sensor_type: SensorType, modbus: spoken.Modbus) -> dict[str, Any]:
    properties = [channel.property for channel in slot.channels]
    quantities = [sensor_type.quantity(name) for name in properties]
    options: dict[str, Any] = _times(sensor_type) | {
        "function": modbus.function,
        "baud": modbus.baud,
        "reads": [list(request) for request in _reads(quantities, modbus)],
        "registers": [_register(sensor_type, quantity) for quantity in quantities],
        "guards": [
            [
                *_place(guard.register),
                guard.minimum,
                guard.maximum,
                guard.reason,
                *(index for index, one in enumerate(properties) if one in guard.properties),
            ]
            for guard in modbus.guards
        ],
    }
    if modbus.parity != "none":
        options["parity"] = modbus.parity
    if modbus.start is not None:
        options["start"] = list(modbus.start)
    own = dict(slot.options)
    if modbus.wipe is not None:
        options["wipe"] = [modbus.wipe, own.pop("wipe_every_s")]
    return options | own


def _reads(quantities: Sequence[Quantity], modbus: spoken.Modbus) -> tuple[tuple[int, int], ...]:
    places = [quantity.register for quantity in quantities]
    registers = [place for place in places if isinstance(place, spoken.Register)]
    return modbus.reads or spoken.stretches(
        [*registers, *(guard.register for guard in modbus.guards)]
    )


def _register(sensor_type: SensorType, quantity: Quantity) -> list[Any]:
    if not isinstance(quantity.register, spoken.Register):
        return [quantity.register]
    signs = [one for one in sensor_type.error_values if one.property == quantity.property]
    return [
        *_place(quantity.register),
        int(quantity.raw_minimum),
        int(quantity.raw_maximum),
        *(part for one in signs for part in (int(one.raw), one.reason)),
    ]


def _place(register: spoken.Register) -> list[Any]:
    return [register.at, register.kind, register.order]


def _ezo_options(slot: Slot, sensor_type: SensorType, ezo: spoken.Ezo) -> dict[str, Any]:
    quantity = sensor_type.quantity(slot.channels[0].property)
    own = {
        "digits": ezo.digits,
        "default_centi": round(ezo.default_c * 100),
        "lowest": int(quantity.raw_minimum),
        "highest": int(quantity.raw_maximum),
    }
    return _times(sensor_type) | own | dict(slot.options)


def _told_temperature(model: NodeModel, slot: Slot) -> dict[str, Any]:
    """Which of the node's own results a probe is told, and how many of its raw unit are a degree."""
    key = slot.channels[0].needs["temperature"]
    return {"key": key, "parts": spoken.TEMPERATURE_PARTS[model.channel(key).raw_unit]}


def _times(sensor_type: SensorType) -> dict[str, int]:
    return {
        "warm_up_ms": sensor_type.warm_up_ms,
        "stabilise_ms": sensor_type.stabilise_ms,
        "measure_ms": sensor_type.measure_ms,
    }


def _battery(slot: Slot) -> dict[str, Any]:
    return {
        "key": slot.channels[0].key,
        "pin": slot.pins["adc"],
        "divider_milli": slot.options["divider_milli"],
    }

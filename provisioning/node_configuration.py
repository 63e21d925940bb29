"""The two configuration maps that a node carries in its NVS, composed from hardware data.

`node`: what is soldered to which pin and how often it is read. `link`: where the node finds its broker. Both are CBOR,
as small as they can be: a node reads them at every wake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cbor2

from hardware.catalogue import NodeModel, Slot, load_sensor_type

_CONFIGURATION_VERSION = 1
_BATTERY_DRIVER = "battery"


@dataclass(frozen=True)
class Link:
    """Where a node finds its fleet, as the server said at enrolment."""

    host: str
    port: int
    tls: bool
    server_name: str
    ntp: str
    prefix: str

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Link:
        """From the `link` object of the enrolment's answer.

        Raises:
            ValueError: a part is missing or of the wrong kind.
        """
        try:
            link = cls(**{name: answer[name] for name in cls.__dataclass_fields__})
        except KeyError as missing:
            raise ValueError(f"link has no {missing.args[0]}") from None
        for name, kind in (("host", str), ("port", int), ("tls", bool), ("server_name", str)):
            if type(getattr(link, name)) is not kind:
                raise ValueError(f"link.{name} is not a {kind.__name__}")
        return link


def link_map(link: Link, wifi: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The `link` map; `wifi` are pairs of network name and password, tried in order."""
    return {
        "host": link.host,
        "port": link.port,
        "tls": link.tls,
        "server_name": link.server_name,
        "wifi": [[ssid, password] for ssid, password in wifi],
        "ntp": link.ntp,
        "prefix": link.prefix,
    }


def node_map(model: NodeModel) -> dict[str, Any]:
    """The `node` map of one node model: its probes in wire order, its battery, its intervals."""
    probes = []
    battery: dict[str, Any] | None = None
    for slot in model.slots:
        driver = load_sensor_type(slot.sensor_type).driver
        if driver == _BATTERY_DRIVER:
            battery = _battery(slot)
        else:
            probes.append(_probe(slot, driver))
    return {
        "model": model.id,
        "version": _CONFIGURATION_VERSION,
        "sample_s": model.sample_every_s,
        "publish_s": model.publish_every_s,
        "probes": probes,
        "bat": battery,
    }


def encode_map(content: Mapping[str, Any]) -> bytes:
    """CBOR of one configuration map, definite lengths, keys in the order given."""
    return cbor2.dumps(content)


def _probe(slot: Slot, driver: str) -> dict[str, Any]:
    return {
        "driver": driver,
        "slot": slot.id,
        "keys": [channel.key for channel in slot.channels],
        "pins": dict(slot.pins),
        "options": dict(slot.options) | _sdi12_options(slot),
    }


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


def _battery(slot: Slot) -> dict[str, Any]:
    return {
        "key": slot.channels[0].key,
        "pin": slot.pins["adc"],
        "divider_milli": slot.options["divider_milli"],
    }

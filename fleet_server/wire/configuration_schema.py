"""The table of `wire.configuration` as JSON Schema (draft 2020-12), for one node model: for programs and forms that write settings.

What it accepts a node of the model accepts, but for what a schema cannot say: relations between settings (`publish_s` is at least
`sample_s`), lengths in bytes, what fits into 400 bytes, on which side a limit ends, and the battery.
"""

from __future__ import annotations

from typing import Any

from fleet_server.wire import configuration
from fleet_server.wire.configuration import INTEGERS, MAX_NETWORKS, MAX_RULES, WIFI, Channels

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_UNSAYABLE = (
    "Beyond this schema: publish_s is at least sample_s, urgent_s at most sample_s, every_s are multiples of sample_s, stop_mv at most"
    f" mute_mv at most low_mv; the whole takes at most {configuration.MAX_BYTES} bytes as CBOR."
)
# Printable ASCII without a space; anchored by hand, because JSON Schema's patterns are not.
_HOST = "^[!-~]+$"
# No control characters; the lengths in bytes are judged beyond the schema where they are not those in characters.
_TEXT = r"^[^\u0000-\u001F]*$"
_KEY_TO_THE_NETWORK = r"^([^\u0000-\u001F]{8,63}|[0-9A-Fa-f]{64}|)$"


def configuration_schema(channels: Channels, *, title: str) -> dict[str, Any]:
    """What may be desired of a node with these channels."""
    properties: dict[str, Any] = {
        name: _integer(lowest, highest, unit) for name, (lowest, highest, unit) in INTEGERS.items()
    }
    properties |= {
        "every_s": _intervals(channels),
        "limits": _rules(channels),
        "host": _host("the broker"),
        "server_name": _host("the name in the broker's certificate"),
        configuration.RENEW: _listener(),
        WIFI: _networks(),
    }
    return {
        "$schema": _DIALECT,
        "title": title,
        "description": _UNSAYABLE,
        "type": "object",
        "properties": dict(sorted(properties.items())),
        "additionalProperties": False,
    }


def _integer(lowest: int, highest: int, unit: str) -> dict[str, Any]:
    told = {"type": "integer", "minimum": lowest, "maximum": highest}
    return {**told, "description": unit} if unit else told


def _intervals(channels: Channels) -> dict[str, Any]:
    seconds = _integer(*INTEGERS[configuration.SAMPLE_S])
    return {
        "type": "object",
        "description": "slots that are read more seldom, by their first channel",
        "properties": dict.fromkeys(channels.slots, seconds),
        "additionalProperties": False,
    }


def _rules(channels: Channels) -> dict[str, Any]:
    number = {
        "type": "number",
        "minimum": -configuration.LARGEST_NUMBER,
        "maximum": configuration.LARGEST_NUMBER,
    }
    rule = {
        "type": "array",
        "prefixItems": [
            {"enum": list(channels.keys)},
            {"enum": list(configuration.KINDS)},
            {**number, "description": "the limit, in the channel's raw unit"},
            {**number, "description": "where it ends"},
        ],
        "minItems": 4,
        "maxItems": 4,
    }
    return {
        "type": "array",
        "description": "what is urgent: channel, below, above or fall (per hour), limit, where it ends",
        "items": rule,
        "maxItems": MAX_RULES,
    }


def _host(description: str) -> dict[str, Any]:
    return {
        "type": "string",
        "description": description,
        "minLength": 1,
        "maxLength": configuration.LONGEST_HOST,
        "pattern": _HOST,
    }


def _listener() -> dict[str, Any]:
    return {
        "type": "array",
        "description": "where a node asks for a certificate that no broker can bring it",
        "prefixItems": [
            _host("the nodes' listener"),
            _integer(*INTEGERS["port"]),
            _host("the name in its certificate"),
        ],
        "minItems": 3,
        "maxItems": 3,
    }


def _networks() -> dict[str, Any]:
    network = {
        "type": "array",
        "prefixItems": [
            {
                "type": "string",
                "description": "the network's name",
                "minLength": 1,
                "maxLength": configuration.SSID_BYTES,
                "pattern": _TEXT,
            },
            {
                "type": "string",
                "description": "its password; empty where it is open",
                "pattern": _KEY_TO_THE_NETWORK,
                "writeOnly": True,
            },
        ],
        "minItems": 2,
        "maxItems": 2,
    }
    return {
        "type": "array",
        "description": "Wi-Fi networks, best first",
        "items": network,
        "minItems": 1,
        "maxItems": MAX_NETWORKS,
    }

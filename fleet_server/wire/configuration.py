"""Which configurations a node takes, and the hash by which it says which one it runs.

The node has the same table (firmware/node/schema.py); tests/golden/configurations.json holds both to one another. Times are
seconds, voltages millivolts; limits are numbers in the channel's raw unit.
"""

from __future__ import annotations

import hashlib
import string
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fleet_server.wire import cbor

SAMPLE_S = "sample_s"
PUBLISH_S = "publish_s"
WIFI = "wifi"
RENEW = "renew"

_DAY_S = 86_400
_SHORTEST_S = 60
_HIGHEST_MV = 20_000
INTEGERS: Mapping[str, tuple[int, int, str]] = MappingProxyType(
    {
        "low_mv": (0, _HIGHEST_MV, "millivolts"),
        "mute_mv": (0, _HIGHEST_MV, "millivolts"),
        "port": (1, 65_535, ""),
        # A probe needs seconds to settle; a day without a word is an outage, not a schedule.
        PUBLISH_S: (_SHORTEST_S, _DAY_S, "seconds"),
        SAMPLE_S: (_SHORTEST_S, _DAY_S, "seconds"),
        "stop_mv": (0, _HIGHEST_MV, "millivolts"),
        "urgent_s": (_SHORTEST_S, _DAY_S, "seconds"),
    }
)
NAMES = tuple(sorted((*INTEGERS, "every_s", "host", "limits", RENEW, "server_name", WIFI)))
MAX_RULES = 16
MAX_NETWORKS = 8
MAX_BYTES = 400
"""As much as a node keeps; it has room for two, the one on trial and the one before."""
LARGEST_NUMBER = 1e9
LONGEST_HOST = 253
KINDS = ("below", "above", "fall")
SSID_BYTES, _PASSWORD_BYTES, _KEY_DIGITS = 32, range(8, 64), 64


@dataclass(frozen=True)
class Channels:
    """What of a node its configuration can name: channel keys, and of each slot the first one."""

    keys: Sequence[str]
    slots: Sequence[str]


@dataclass(frozen=True)
class Fault:
    """Why a node would refuse a configuration; `name` is the word that it would use."""

    name: str
    sentence: str


def find_fault(
    values: Mapping[str, Any],
    channels: Channels,
    *,
    provisioned: Mapping[str, Any],
    battery_mv: int | None = None,
) -> Fault | None:
    """The first fault, in the order of names; None when the node takes all of it.

    Args:
        provisioned: What holds where nothing is desired.
        battery_mv: Its battery as it said last.
    """
    fault = find_fault_of_values(values, channels)
    return fault or _contradiction({**provisioned, **values}, battery_mv)


def find_fault_of_values(values: Mapping[str, Any], channels: Channels) -> Fault | None:
    """The first fault of values that is one whatever else holds."""
    for name in sorted(values):
        sentence = _fault_of_value(name, values[name], channels)
        if sentence is not None:
            return Fault(name, sentence)
    size = len(cbor.encode(dict(values)))
    if size > MAX_BYTES:
        return Fault(
            "size", f"The configuration takes {size} bytes; a node keeps {MAX_BYTES}: name less."
        )
    return None


def battery_fault(values: Mapping[str, Any], battery_mv: int | None) -> Fault | None:
    """The fault of a threshold that would silence a node with this battery at once: nobody could take it back."""
    highest_mv = max(values.get("mute_mv", 0), values.get("stop_mv", 0))
    if battery_mv is None or highest_mv < battery_mv:
        return None
    sentence = f"{highest_mv} mV would silence the node at once: its battery is at {battery_mv} mV."
    return Fault("battery", sentence)


def sha256_hex(version: int, values: Mapping[str, Any]) -> str:
    """The hash that a node reports when exactly this holds; of Wi-Fi networks it covers the names only."""
    seen = dict(values)
    if WIFI in seen:
        seen[WIFI] = [network[0] for network in seen[WIFI]]
    content = cbor.encode({"version": version, "values": seen})
    return hashlib.sha256(content).hexdigest()


def as_kept(value: Any) -> Any:
    """The value as a node keeps it: every float in single precision.

    Raises:
        ValueError: a number that has no such form.
    """
    if isinstance(value, float):
        return struct.unpack(">f", cbor.encode_float32(value)[1:])[0]
    if isinstance(value, list):
        return [as_kept(item) for item in value]
    return value


# ---------------------------------------------------------------------------------------------------------------- private


def _contradiction(valid: Mapping[str, Any], battery_mv: int | None) -> Fault | None:
    sample_s = valid.get(SAMPLE_S, 0)
    if sample_s > valid.get(PUBLISH_S, _DAY_S):
        return Fault(PUBLISH_S, "publish_s must be at least sample_s.")
    if valid.get("urgent_s", sample_s) > sample_s:
        return Fault("urgent_s", "urgent_s must be at most sample_s.")
    if any(seconds % sample_s for seconds in valid.get("every_s", {}).values()):
        return Fault("every_s", f"every_s wants whole multiples of sample_s, {sample_s} seconds.")
    low_mv, mute_mv = valid.get("low_mv", _HIGHEST_MV), valid.get("mute_mv", 0)
    if mute_mv > low_mv:
        return Fault("mute_mv", "mute_mv must be at most low_mv.")
    if valid.get("stop_mv", 0) > valid.get("mute_mv", low_mv):
        return Fault("stop_mv", "stop_mv must be at most mute_mv and low_mv.")
    return battery_fault(valid, battery_mv)


def _fault_of_value(name: str, value: object, channels: Channels) -> str | None:
    if name in INTEGERS:
        return _fault_of_integer(name, value)
    if name == "every_s":
        return _fault_of_intervals(value, channels)
    if name == "limits":
        return _fault_of_rules(value, channels)
    if name in ("host", "server_name"):
        return None if _is_host(value) else f"{name} is no name or address of a machine."
    if name == RENEW:
        return _fault_of_listener(value)
    if name == WIFI:
        return _fault_of_networks(value)
    return f"{name} is no setting of a node; there are {', '.join(NAMES)}."


def _fault_of_integer(name: str, value: object) -> str | None:
    lowest, highest, unit = INTEGERS[name]
    if _is_integer(value, lowest, highest):
        return None
    return f"{name} must be a whole number from {lowest} to {highest} {unit}".rstrip() + "."


def _fault_of_intervals(value: object, channels: Channels) -> str | None:
    if not isinstance(value, dict):
        return 'every_s must look like {"do": 3600}: seconds by the first channel of a slot.'
    for key, seconds in value.items():
        if key not in channels.slots:
            return f"every_s: no slot begins with {key}; there are {', '.join(channels.slots)}."
        if not _is_integer(seconds, _SHORTEST_S, _DAY_S):
            return f"every_s: {key} must be a whole number from {_SHORTEST_S} to {_DAY_S} seconds."
    return None


def _fault_of_rules(value: object, channels: Channels) -> str | None:
    form = '[["do", "below", 4, 4.5]]: channel, below, above or fall, limit, limit at which it ends'
    if not isinstance(value, list) or len(value) > MAX_RULES:
        return f"limits must be a list of at most {MAX_RULES} like {form}."
    for rule in value:
        if not isinstance(rule, list) or len(rule) != 4 or rule[1] not in KINDS:
            return f"limits must look like {form}."
        key, kind, limit, clear = rule
        if key not in channels.keys:
            return f"limits: there is no channel {key}; there are {', '.join(channels.keys)}."
        if not (_is_number(limit) and _is_number(clear)):
            return f"limits: {key} needs two numbers in its raw unit."
        if not _ends(kind, limit, clear):
            return f"limits: {key} {kind} {limit} cannot end at {clear}; that is on the wrong side."
    return None


def _ends(kind: str, limit: float, clear: float) -> bool:
    if kind == "below":
        return clear >= limit
    if kind == "above":
        return clear <= limit
    return 0 <= clear <= limit and limit > 0


def _fault_of_listener(value: object) -> str | None:
    if isinstance(value, list) and len(value) == 3:
        host, port, server_name = value
        if _is_host(host) and _is_integer(port, *INTEGERS["port"][:2]) and _is_host(server_name):
            return None
    return (
        'renew must look like ["fleet.example.org", 8443, "fleet.example.org"]: where the nodes\' listener is found,'
        " its port, and the name in its certificate."
    )


def _fault_of_networks(value: object) -> str | None:
    """Never quotes a network: it is told on screens."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_NETWORKS:
        return f"wifi must be a list of 1 to {MAX_NETWORKS} pairs of name and password."
    for place, pair in enumerate(value, start=1):
        if not _is_network(pair):
            return (
                f"wifi: network {place} is not a name of 1 to {SSID_BYTES} bytes with a password of 8 to 63 bytes,"
                " of 64 hexadecimal digits, or an empty one where it is open."
            )
    return None


def _is_network(pair: object) -> bool:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(p, str) for p in pair):
        return False
    name, password = pair
    if any(character < " " for character in name + password):
        return False
    size = len(password.encode())
    is_key = size == _KEY_DIGITS and all(digit in string.hexdigits for digit in password)
    return 1 <= len(name.encode()) <= SSID_BYTES and (not size or is_key or size in _PASSWORD_BYTES)


def _is_integer(value: object, lowest: int, highest: int) -> bool:
    return type(value) is int and lowest <= value <= highest


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST_NUMBER  # type: ignore[arg-type] # mypy does not narrow by type()


def _is_host(value: object) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= LONGEST_HOST
        and all("!" <= character <= "~" for character in value)
    )

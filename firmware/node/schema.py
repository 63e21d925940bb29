"""Which configurations a node takes. Loaded only when another one is desired than holds. The server has the same table
(fleet_server/wire/configuration.py); tests/golden/configurations.json holds both to one another.
"""

from micropython import const

from node import cbor

_DAY_S = const(86_400)
_HIGHEST_MV = const(20_000)
# name: (lowest, highest)
_INTEGERS = {
    "low_mv": (0, _HIGHEST_MV),
    "mute_mv": (0, _HIGHEST_MV),
    "port": (1, 65_535),
    "publish_s": (60, _DAY_S),
    "sample_s": (60, _DAY_S),
    "stop_mv": (0, _HIGHEST_MV),
    "urgent_s": (60, _DAY_S),
}
_SHORTEST_S = const(60)
_MAX_RULES = const(16)
_MAX_NETWORKS = const(8)
_LARGEST_NUMBER = const(1_000_000_000)
# Two of them, as before and while on trial, fit into one record.
_MAX_BYTES = const(400)
_MAX_NAME = const(40)
_HEX = "0123456789abcdefABCDEF"


def fault(values, node, battery_mv):
    """Name of the first value, by name, that this node cannot take, cut to fit into the state; None when it takes all.

    `node`: as provisioned, for the keys of its channels and for what is not among the values. `battery_mv`: None when it is not known.
    """
    slots = [probe["keys"][0] for probe in node["probes"]]
    keys = [key for probe in node["probes"] for key in probe["keys"]]
    if node.get("bat"):
        keys.append(node["bat"]["key"])
    for name in sorted(values):
        if not _is_possible(name, values[name], slots, keys):
            return name[:_MAX_NAME]
    # Piece by piece, after the map's head: memory is short while all this is loaded.
    if 1 + sum([len(cbor.encode(pair)) - 1 for pair in values.items()]) > _MAX_BYTES:
        return "size"

    def valid(name, otherwise):
        return values.get(name, node.get(name, otherwise))

    return _contradiction(valid, battery_mv)


def _contradiction(valid, battery_mv):
    """`valid(name, otherwise)`: the value that would hold."""
    sample_s = valid("sample_s", 0)
    if sample_s > valid("publish_s", _DAY_S):
        return "publish_s"
    if valid("urgent_s", sample_s) > sample_s:
        return "urgent_s"
    if any([seconds % sample_s for seconds in valid("every_s", {}).values()]):
        return "every_s"
    low_mv = valid("low_mv", _HIGHEST_MV)
    mute_mv = valid("mute_mv", 0)
    if mute_mv > low_mv:
        return "mute_mv"
    if valid("stop_mv", 0) > valid("mute_mv", low_mv):
        return "stop_mv"
    if battery_mv is not None and max(mute_mv, valid("stop_mv", 0)) >= battery_mv:
        # It would fall silent at once, and nobody could take that back.
        return "battery"
    return None


def _is_possible(name, value, slots, keys):
    if name in _INTEGERS:
        return _is_integer(value, *_INTEGERS[name])
    if name == "every_s":
        return type(value) is dict and all(
            [
                key in slots and _is_integer(seconds, _SHORTEST_S, _DAY_S)
                for key, seconds in value.items()
            ]
        )
    if name == "limits":
        return _is_list(value, 0, _MAX_RULES) and all([_is_rule(rule, keys) for rule in value])
    if name in ("host", "server_name"):
        return _is_host(value)
    if name == "renew":
        return (
            _is_list(value, 3, 3)
            and _is_host(value[0])
            and _is_integer(value[1], *_INTEGERS["port"])
            and _is_host(value[2])
        )
    if name == "wifi":
        return _is_list(value, 1, _MAX_NETWORKS) and all([_is_network(pair) for pair in value])
    return False


def _is_integer(value, lowest, highest):
    return type(value) is int and lowest <= value <= highest


def _is_list(value, fewest, most):
    return type(value) is list and fewest <= len(value) <= most


def _is_rule(rule, keys):
    """[channel key, "below" | "above" | "fall", limit, limit at which it ends], numbers in the channel's raw unit."""
    if not _is_list(rule, 4, 4):
        return False
    key, kind, limit, clear = rule
    if key not in keys or not (_is_number(limit) and _is_number(clear)):
        return False
    if kind == "below":
        return clear >= limit
    if kind == "above":
        return clear <= limit
    return kind == "fall" and 0 <= clear <= limit and limit > 0


def _is_number(value):
    return type(value) in (int, float) and abs(value) <= _LARGEST_NUMBER  # False for NaN too


def _is_host(value):
    return (
        type(value) is str
        and 1 <= len(value) <= 253
        and all(["!" <= character <= "~" for character in value])
    )


def _is_network(pair):
    """[name, password]; a password has 8 to 63 bytes, or 64 hexadecimal digits, or none where the network is open."""
    if not (_is_list(pair, 2, 2) and type(pair[0]) is str and type(pair[1]) is str):
        return False
    name, password = pair
    if any([character < " " for character in name + password]):
        return False
    size = len(password.encode())
    is_key = size == 64 and all([digit in _HEX for digit in password])
    return 1 <= len(name.encode()) <= 32 and (not size or is_key or 8 <= size <= 63)

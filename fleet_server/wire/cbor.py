"""CBOR (RFC 8949) as the wire allows it: definite lengths, no tags, no repeated keys, shallow and small.

cbor2 does the decoding; what is added here is what a payload from outside must not be able to do.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from typing import Any, NoReturn

import cbor2

from fleet_server.wire.errors import WireError

MAX_PAYLOAD_BYTES = 65_536
"""The broker's own limit (`max_packet_size`); nothing larger is looked at."""

_MAX_DEPTH = 8
# Tags that cbor2 would turn into dates, big numbers, regular expressions or shared references. Some of these take far more
# time to build than to send (tag 5 with a large exponent), and the wire needs none of them.
_KNOWN_TAGS = (
    *range(64),
    *(100, 256, 258, 260, 261, 1004, 43000, 55799),
)


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("a tagged item")


_OPTIONS: dict[str, Any] = {
    "max_depth": _MAX_DEPTH,
    "allow_indefinite": False,
    "allow_duplicate_keys": False,
    "tag_hook": _refuse_tag,
    "semantic_decoders": dict.fromkeys(_KNOWN_TAGS, _refuse_tag),
}
_INSIDE_AN_ARRAY = {**_OPTIONS, "max_depth": _MAX_DEPTH + 1}


def check_size(payload: bytes) -> None:
    """Refuse what is empty or too large to look at."""
    if not payload:
        raise WireError("payload_empty", "The payload is empty.")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise WireError(
            "payload_too_large",
            f"The payload has {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed.",
        )


def decode_only(data: bytes) -> object:
    """Decode the one item that `data` consists of.

    Raises:
        WireError: `cbor_malformed` or `cbor_trailing_bytes`.
    """
    item, end = _decode(data, _OPTIONS)
    _check_end(data, end)
    return item


def decode_items(data: bytes, *, start: int, count: int) -> tuple[object, list[Any], int]:
    """Decode the `count` items that `data` consists of from `start` on; return the first, the others, and where the first ends.

    Raises:
        WireError: `cbor_malformed` or `cbor_trailing_bytes`.
    """
    first, length = _decode(data[start:], _OPTIONS)
    # As one array, in one call: that takes half the time of a call for each.
    others = array_head(count - 1) + data[start + length :]
    items, end = _decode(others, _INSIDE_AN_ARRAY)
    _check_end(others, end)
    assert isinstance(items, list)  # noqa: S101 - its head is ours
    return first, items, start + length


def _decode(data: bytes, options: Mapping[str, Any]) -> tuple[object, int]:
    """The first item of `data`, and where it ends."""
    source = io.BytesIO(data)
    try:
        return cbor2.CBORDecoder(source, **options).decode(), source.tell()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(
            "cbor_malformed", "The payload is not CBOR as the wire allows it."
        ) from error


def _check_end(data: bytes, end: int) -> None:
    if end != len(data):
        raise WireError(
            "cbor_trailing_bytes", f"{len(data) - end} bytes follow the end of the message."
        )


def array_head(count: int) -> bytes:
    """Head of an array of `count` items, in its shortest form."""
    return _head(4, count)


def encode_integer(value: int) -> bytes:
    """Integer in its shortest form."""
    return _head(0, value) if value >= 0 else _head(1, -1 - value)


def encode_text(text: str) -> bytes:
    """Text string."""
    data = text.encode()
    return _head(3, len(data)) + data


def encode_float32(value: float) -> bytes:
    """Float as single precision: what a probe's register holds. Rounds what does not fit exactly.

    Raises:
        ValueError: not finite, or beyond single precision.
    """
    if not math.isfinite(value):
        raise ValueError("only finite numbers go over the wire")
    try:
        return b"\xfa" + struct.pack(">f", value)
    except OverflowError as error:
        raise ValueError("the number does not fit into single precision") from error


def encode(value: object) -> bytes:
    """None, bool, int, float, str, bytes, list, tuple or dict as the node writes it: keys in deterministic order (RFC 8949 §4.2.1).

    A float is always single precision: a node has no other.

    Raises:
        ValueError: a number that does not fit.
        TypeError: anything else.
    """
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return encode_integer(value)
    if isinstance(value, float):
        return encode_float32(value)
    if isinstance(value, str):
        return encode_text(value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, list | tuple):
        return array_head(len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        items = sorted(encode(key) + encode(item) for key, item in value.items())
        return map_head(len(items)) + b"".join(items)
    raise TypeError(f"{type(value).__name__} does not go over the wire")


def map_head(count: int) -> bytes:
    """Head of a map of `count` pairs, in its shortest form."""
    return _head(5, count)


def _head(major_type: int, argument: int) -> bytes:
    # RFC 8949 §3: the argument follows in 0, 1, 2, 4 or 8 bytes.
    first = major_type << 5
    if argument < 24:
        return bytes((first | argument,))
    if argument < 1 << 8:
        return bytes((first | 24, argument))
    if argument < 1 << 16:
        return struct.pack(">BH", first | 25, argument)
    if argument < 1 << 32:
        return struct.pack(">BI", first | 26, argument)
    return struct.pack(">BQ", first | 27, argument)

"""CBOR (RFC 8949): as much as the wire needs. Writes shortest integers and definite lengths; reads bounded input only."""

import struct

from micropython import const

_UNSIGNED = const(0)
_NEGATIVE = const(1)
_BYTES = const(2)
_TEXT = const(3)
_ARRAY = const(4)
_MAP = const(5)
_SIMPLE = const(7)

_MAX_DEPTH = const(6)
_MAX_ITEMS = const(384)


class Malformed(ValueError):
    """The bytes are not CBOR that the node reads."""


def head(major, number):
    """Initial byte and argument (RFC 8949 §3), in shortest form."""
    major <<= 5
    if number < 24:
        return bytes((major | number,))
    if number < 0x100:
        return bytes((major | 24, number))
    if number < 0x10000:
        return struct.pack(">BH", major | 25, number)
    if number < 0x100000000:
        return struct.pack(">BI", major | 26, number)
    return struct.pack(">BQ", major | 27, number)


def integer(number):
    return head(_UNSIGNED, number) if number >= 0 else head(_NEGATIVE, -1 - number)


def text(string):
    encoded = string.encode()
    return head(_TEXT, len(encoded)) + encoded


def float32(big_endian):
    """A single precision float from the four bytes as the probe sent them: never through arithmetic."""
    return b"\xfa" + big_endian


def array_head(count):
    return head(_ARRAY, count)


def map_head(count):
    return head(_MAP, count)


def encode_map_into(room, pairs):
    """A map from pairs of (text key, value), in the order given: MicroPython's dict keeps none.

    Written into `room`, a bytearray; a view of it. Raises ValueError when that is too small.
    """
    at = len(map_head(len(pairs)))
    room[:at] = map_head(len(pairs))
    for key, value in pairs:
        piece = text(key) + encode(value)
        end = at + len(piece)
        if end > len(room):
            raise ValueError("state too long")
        room[at:end] = piece
        at = end
    return memoryview(room)[:at]


def encode(value):
    """None, bool, int, float, str, bytes, list, tuple or dict; a dict's keys in deterministic order (RFC 8949 §4.2.1).

    A float is always single precision.
    """
    if value is None:
        return b"\xf6"
    if value is True:
        return b"\xf5"
    if value is False:
        return b"\xf4"
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, float):
        return float32(struct.pack(">f", value))
    if isinstance(value, str):
        return text(value)
    if isinstance(value, (bytes, bytearray)):
        return head(_BYTES, len(value)) + value
    if isinstance(value, (list, tuple)):
        return array_head(len(value)) + b"".join([encode(item) for item in value])
    if isinstance(value, dict):
        items = sorted([encode(key) + encode(item) for key, item in value.items()])
        return map_head(len(value)) + b"".join(items)
    raise TypeError("cbor")


def decode(data, has_views=False):
    """The one item that `data` holds. Raises Malformed; time and memory are bounded by the length of `data`.

    `has_views`: byte strings are views into `data` instead of copies.
    """
    reader = Reader(memoryview(data), as_bytes=memoryview if has_views else bytes)
    value = reader.item(0)
    if reader.at != len(data):
        raise Malformed("trailing")
    return value


class Reader:
    """Item by item through `data`, from `at` on."""

    def __init__(self, data, at=0, as_bytes=bytes):
        self.data = data
        self.as_bytes = as_bytes
        self.at = at
        self.items = 0

    def item(self, depth):
        self.items = self.items + 1 if depth else 1
        if depth > _MAX_DEPTH or self.items > _MAX_ITEMS:
            raise Malformed("nested")
        initial = self.take(1)[0]
        major = initial >> 5
        if major == _SIMPLE:
            return self.simple(initial & 31)
        number = self.argument(initial & 31)
        if major == _UNSIGNED:
            return number
        if major == _NEGATIVE:
            return -1 - number
        if major == _BYTES:
            return self.as_bytes(self.take(number))
        if major == _TEXT:
            return self.string(number)
        if major == _ARRAY:
            return [self.item(depth + 1) for _ in range(self.countable(number))]
        if major == _MAP:
            return self.mapping(self.countable(number), depth + 1)
        raise Malformed("tag")

    def mapping(self, count, depth):
        values = {}
        for _ in range(count):
            key = self.item(depth)
            if not isinstance(key, (str, int)) or key in values:
                raise Malformed("key")
            values[key] = self.item(depth)
        return values

    def string(self, length):
        try:
            return str(bytes(self.take(length)), "utf-8")
        except UnicodeError:
            raise Malformed("text")

    def simple(self, info):
        if info == 20:
            return False
        if info == 21:
            return True
        if info in (22, 23):
            return None
        if info == 25:
            return _half(struct.unpack(">H", self.take(2))[0])
        if info == 26:
            return struct.unpack(">f", self.take(4))[0]
        if info == 27:
            return struct.unpack(">d", self.take(8))[0]
        raise Malformed("simple")

    def argument(self, info):
        if info < 24:
            return info
        if info > 27:
            raise Malformed("length")
        number = 0
        for byte in self.take(1 << (info - 24)):
            number = number << 8 | byte
        return number

    def countable(self, number):
        # Every item takes a byte at least: a larger count can only be a lie.
        if number > len(self.data) - self.at:
            raise Malformed("count")
        return number

    def take(self, length):
        end = self.at + length
        if end > len(self.data):
            raise Malformed("short")
        taken = self.data[self.at : end]
        self.at = end
        return taken


def _half(bits):
    exponent, fraction = bits >> 10 & 31, bits & 1023
    if exponent == 31:
        raise Malformed("half")
    value = fraction * 2**-24 if exponent == 0 else (1024 + fraction) * 2.0 ** (exponent - 25)
    return -value if bits & 0x8000 else value

"""Repeatable randomness: the same names give the same draw, in any order, in any process."""

from __future__ import annotations

from hashlib import blake2b
from math import cos, log, pi, sqrt

_SCALE = 2.0**-64


def uniform(*names: object) -> float:
    """A number from 0 (included) to 1 (excluded) that belongs to these names."""
    return _number(names, b"u") * _SCALE


def between(low: float, high: float, *names: object) -> float:
    """A number from `low` to `high` that belongs to these names."""
    return low + (high - low) * uniform(*names)


def gaussian(*names: object) -> float:
    """A standard normal draw (Box and Muller 1958) that belongs to these names."""
    first = (_number(names, b"g") + 1) * _SCALE
    second = _number(names, b"h") * _SCALE
    return sqrt(-2 * log(first)) * cos(2 * pi * second)


def _number(names: tuple[object, ...], kind: bytes) -> int:
    text = "\x1f".join(map(str, names)).encode()
    return int.from_bytes(blake2b(text, digest_size=8, person=kind).digest(), "little")

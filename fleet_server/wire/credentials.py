"""How node and server name a certificate to each other: the first bytes of its SHA-256 (over the DER), in hex."""

from __future__ import annotations

import hashlib

_NAME_BYTES = 8
_MOST_ROOTS = 2
_HEX = frozenset("0123456789abcdef")


def name_of(certificate: bytes) -> str:
    """The name of a certificate.

    >>> name_of(b"")
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(certificate).digest()[:_NAME_BYTES].hex()


def is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) == 2 * _NAME_BYTES and set(value) <= _HEX


def are_names(value: object) -> bool:
    """True for one or two names with a space between."""
    if not isinstance(value, str):
        return False
    names = value.split(" ")
    return len(names) <= _MOST_ROOTS and all(is_name(name) for name in names)

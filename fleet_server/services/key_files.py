"""Private keys at rest: plain, or encrypted under a passphrase (PKCS#8, AES-256) that scrypt has made expensive to guess.

The library's own derivation for PKCS#8 (PBKDF2, 2,048 rounds) can be guessed at by the million. So what encrypts the file is not the
passphrase but scrypt's answer to it (RFC 7914), whose salt and cost stand in the line above the PEM block (RFC 7468 §5.2 allows it).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from functools import lru_cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from fleet_server.errors import Refused

Passphrase = Callable[[], str]
"""Asked only where a key is encrypted; an empty answer means that nobody knows it."""

LEAST_LENGTH = 12
# 32 MiB and a tenth of a second for each guess (128 · n · r bytes).
_N, _R, _P = 1 << 15, 8, 1
_MOST_BYTES = 1 << 26
_HEAD = re.compile(rb"scrypt n=(\d{1,7}) r=(\d{1,2}) p=(\d{1,2}) salt=([0-9a-f]{32})\n")


class KeyLocked(Refused):
    """The key is encrypted, and the passphrase is not known or another."""

    code = "key_locked"


def no_passphrase() -> str:
    """For who has none."""
    return ""


_passphrase: Passphrase = no_passphrase


def unlock_with(passphrase: Passphrase) -> None:
    """From now on this process asks `passphrase` for encrypted keys."""
    global _passphrase
    _passphrase = passphrase


def plain_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as a file that everybody who can read it can use."""
    return _pem(key, serialization.NoEncryption())


def locked_pem(key: ec.EllipticCurvePrivateKey, passphrase: str) -> bytes:
    """The key as a file that is of no use without the passphrase."""
    salt = secrets.token_bytes(16)
    secret = _stretched(passphrase, salt, _N, _R, _P)
    head = f"scrypt n={_N} r={_R} p={_P} salt={salt.hex()}\n".encode()
    return head + _pem(key, serialization.BestAvailableEncryption(secret))


def is_locked(pem: bytes) -> bool:
    return b"ENCRYPTED PRIVATE KEY" in pem


def load_key(pem: bytes, *, what: str, passphrase: str | None = None) -> PrivateKeyTypes:
    """The key in a file.

    Args:
        what: The file, as the sentence names it.
        passphrase: Tried instead of the process's own.

    Raises:
        KeyLocked: it is encrypted under another passphrase than is known here.
        ValueError: it is no key.
    """
    if not is_locked(pem):
        return serialization.load_pem_private_key(pem, password=None)
    known = _passphrase() if passphrase is None else passphrase
    if not known:
        raise KeyLocked(
            f"{what} is encrypted: give its passphrase with FLEET_CA_PASSPHRASE or FLEET_CA_PASSPHRASE_FILE."
        )
    head = _HEAD.match(pem)
    secret = known.encode()
    if head is not None:
        n, r, p = (int(number) for number in head.groups()[:3])
        if 128 * n * r > _MOST_BYTES:
            raise ValueError("the cost of the passphrase is none of ours")
        secret = _stretched(known, bytes.fromhex(head[4].decode()), n, r, p)
    try:
        return serialization.load_pem_private_key(pem, password=secret)
    except ValueError as problem:
        raise KeyLocked(f"{what} does not open with this passphrase.") from problem


# A worker signs many certificates in a row.
@lru_cache(maxsize=16)
def _stretched(passphrase: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    secret = hashlib.scrypt(
        passphrase.encode(), salt=salt, n=n, r=r, p=p, maxmem=2 * _MOST_BYTES, dklen=32
    )
    return secret.hex().encode()


def _pem(
    key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )

"""Secrets of others that the server has to keep and to hand on (passwords of Wi-Fi networks): never in the database in clear."""

from __future__ import annotations

import base64
import binascii
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fleet_server.errors import Unavailable

_PURPOSE = b"stadtsensor secrets of nodes, 1"
_KEY_BYTES, _NONCE_BYTES, _TAG_BYTES = 32, 12, 16
OVERHEAD_BYTES = _NONCE_BYTES + _TAG_BYTES
"""By how much a sealed secret is longer than itself, before base64."""


class SealBroken(Unavailable):
    """It was sealed under another key."""

    code = "seal_broken"


def seal(secret: str, *, owner: str, secret_key: str) -> str:
    """The secret as text that only who has `secret_key` reads; good for this owner only (AES-256-GCM)."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(_key(secret_key)).encrypt(nonce, secret.encode(), owner.encode())
    return base64.b64encode(nonce + sealed).decode()


def unseal(sealed: str, *, owner: str, secret_key: str) -> str:
    """What was sealed.

    Raises:
        SealBroken: under another key, for another owner, or damaged.
    """
    try:
        raw = base64.b64decode(sealed, validate=True)
        nonce, content = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
        return AESGCM(_key(secret_key)).decrypt(nonce, content, owner.encode()).decode()
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise SealBroken(
            "A Wi-Fi password of %(owner)s was sealed under another secret_key; use that one, or give the "
            "networks again.",
            owner=owner,
        ) from error


def _key(secret_key: str) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=_PURPOSE).derive(secret_key.encode())

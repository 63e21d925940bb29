"""RSA signatures with SHA-256 and the exponent 65537 (RFC 8017): PSS with any length of salt, and PKCS#1 v1.5."""

import hashlib

from micropython import const

_EXPONENT = const(65537)
_HASH_BYTES = const(32)
# DigestInfo of SHA-256 (RFC 8017 §9.2, note 1).
_SHA256 = b"\x00\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"


def is_signed(modulus, signature, digest, is_pss):
    """All big-endian; the modulus is a whole number of bytes, its highest bit set. A signature is as long, and less."""
    n = int.from_bytes(modulus, "big")
    s = int.from_bytes(signature, "big")
    if len(signature) != len(modulus) or s >= n:
        return False
    message = pow(s, _EXPONENT, n).to_bytes(len(modulus), "big")
    if is_pss:
        return _is_pss(message, digest)
    # RSASSA-PKCS1-v1_5 (§8.2.2): compared whole, nothing of the padding is parsed.
    end = _SHA256 + digest
    return message == b"\x00\x01" + b"\xff" * (len(message) - len(end) - 2) + end


def _is_pss(message, digest):
    """EMSA-PSS-VERIFY (§9.1.2), with MGF1 over SHA-256; the salt is as long as the message says."""
    size = len(message) - _HASH_BYTES - 1
    tag = message[size:-1]
    if message[0] & 0x80 or message[-1] != 0xBC:
        return False
    number = int.from_bytes(message[:size], "big") ^ int.from_bytes(_mask(tag, size), "big")
    block = bytearray(number.to_bytes(size, "big"))
    block[0] &= 0x7F
    begin = block.find(b"\x01")
    if begin < 0 or any(block[:begin]):
        return False
    return _sha256(bytes(8) + digest + block[begin + 1 :]) == tag


def _mask(seed, size):
    """MGF1 (§B.2.1)."""
    mask = b""
    for counter in range((size + _HASH_BYTES - 1) // _HASH_BYTES):
        mask += _sha256(seed + counter.to_bytes(4, "big"))
    return mask[:size]


def _sha256(data):
    return hashlib.sha256(data).digest()

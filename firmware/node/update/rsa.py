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
    """EMSA-PSS-VERIFY (§9.1.2), with MGF1 (§B.2.1) over SHA-256; the salt is as long as the message says."""
    size = len(message) - _HASH_BYTES - 1
    tag = message[size:-1]
    mask = b""
    while len(mask) < size:
        mask += _sha256(tag + (len(mask) // _HASH_BYTES).to_bytes(4, "big"))
    number = int.from_bytes(message[:size], "big") ^ int.from_bytes(mask[:size], "big")
    block = bytearray(number.to_bytes(size, "big"))
    block[0] &= 0x7F
    begin = block.find(b"\x01")
    return (
        message[0] < 0x80
        and message[-1] == 0xBC
        and begin >= 0
        and not any(block[:begin])
        and _sha256(bytes(8) + digest + block[begin + 1 :]) == tag
    )


def _sha256(data):
    return hashlib.sha256(data).digest()
